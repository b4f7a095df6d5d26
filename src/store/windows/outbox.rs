//! What each sink has yet to get, in the order it happened.
//!
//! An entry is replaced by a newer one of its kind for the same window and type, so that the outbox of a sink that is
//! away for long holds at most three entries per aggregate. An entry is removed once the sink confirmed it.
use rusqlite::{Connection, params};

use crate::model::WindowRow;
use crate::store::{SqliteStore, StoreError};

/// Name of the one sink that is a queue.
pub const QUEUE: &str = "queue";

/// What happened to an aggregate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i64)]
pub enum Kind {
    /// It changed in any way: for sinks that hold a table.
    Changed = 0,
    /// Its window closed.
    Closed = 1,
    /// It changed after that.
    Corrected = 2,
}

/// One entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Grows with every entry.
    pub seq: i64,
    /// What happened.
    pub kind: Kind,
    /// To what.
    pub row: WindowRow,
}

pub(super) fn put(
    connection: &Connection,
    sink: &str,
    kind: Kind,
    rows: &[WindowRow],
) -> rusqlite::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    // of all sinks: an entry that is delivered and gone must not give its number to a later one
    let mut seq = super::mark(connection, "outbox_seq")?.unwrap_or(0);
    let sql = "INSERT OR REPLACE INTO window_outbox VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)";
    let mut insert = connection.prepare_cached(sql)?;
    for row in rows {
        seq += 1;
        insert.execute(params![
            sink,
            row.start_ms,
            row.end_ms,
            row.event_type,
            kind as i64,
            seq,
            row.count.cast_signed(),
            row.sum_value,
            row.unique_users.cast_signed(),
            row.unique_users_error,
            row.version.cast_signed(),
        ])?;
    }
    super::set_mark(connection, "outbox_seq", seq)
}

/// Puts all aggregates into the outbox of a table.
fn fill(connection: &Connection, sink: &str) -> rusqlite::Result<()> {
    let seq = super::mark(connection, "outbox_seq")?.unwrap_or(0);
    let sql = "INSERT INTO window_outbox SELECT ?1, round(window_start * 1000), round(window_end * 1000), \
               event_type, 0, ?2 + row_number() OVER (ORDER BY window_start, event_type), count, sum_value, \
               unique_users, unique_users_error, version FROM aggregated_data";
    let filled = connection.execute(sql, params![sink, seq])?;
    super::set_mark(connection, "outbox_seq", seq + filled as i64)
}

impl SqliteStore {
    /// The next entries for a sink, in order.
    pub async fn outbox(&self, sink: &str, limit: usize) -> Result<Vec<Entry>, StoreError> {
        let sink = sink.to_owned();
        self.call("read the outbox", move |connection| {
            let sql = "SELECT seq, kind, start_ms, end_ms, event_type, count, sum_value, unique_users, \
                       unique_users_error, version FROM window_outbox WHERE sink = ? ORDER BY seq LIMIT ?";
            let mut statement = connection.prepare_cached(sql)?;
            let entries = statement.query_map(params![sink, limit as i64], |row| {
                let kind = match row.get(1)? {
                    1 => Kind::Closed,
                    2 => Kind::Corrected,
                    0_i64 => Kind::Changed,
                    other => return Err(rusqlite::Error::IntegralValueOutOfRange(1, other)),
                };
                let aggregate = WindowRow {
                    start_ms: row.get(2)?,
                    end_ms: row.get(3)?,
                    event_type: row.get(4)?,
                    count: row.get::<_, i64>(5)?.cast_unsigned(),
                    sum_value: row.get(6)?,
                    unique_users: row.get::<_, i64>(7)?.cast_unsigned(),
                    unique_users_error: row.get(8)?,
                    version: row.get::<_, i64>(9)?.cast_unsigned(),
                };
                Ok(Entry { seq: row.get(0)?, kind, row: aggregate })
            })?;
            entries.collect()
        })
        .await
    }

    /// Removes the entries that a sink confirmed: all up to `seq`.
    pub async fn confirm(&self, sink: &str, seq: i64) -> Result<(), StoreError> {
        let sink = sink.to_owned();
        self.call("confirm deliveries", move |connection| {
            let mut delete =
                connection.prepare_cached("DELETE FROM window_outbox WHERE sink = ? AND seq <= ?")?;
            delete.execute(params![sink, seq]).map(drop)
        })
        .await
    }

    /// Removes the outboxes of tables that are not in `sinks` (name, whether it holds a table) any more, and fills
    /// that of a table that is new with all aggregates there are. What waits for a queue goes on waiting; how much does
    /// for one that is not in `sinks`.
    pub async fn prepare_outboxes(&self, sinks: Vec<(String, bool)>) -> Result<u64, StoreError> {
        self.call("prepare the outbox", move |connection| {
            let transaction = connection.transaction()?;
            let names: Vec<_> = sinks.iter().map(|(name, _)| name.as_str()).collect();
            let names = serde_json::Value::from(names).to_string();
            let not_ours = "NOT IN (SELECT value FROM json_each(?))";
            let waiting = format!("SELECT count(*) FROM window_outbox WHERE sink = ? AND sink {not_ours}");
            let waiting: i64 = transaction.query_row(&waiting, params![QUEUE, &names], |row| row.get(0))?;
            let tables = format!("DELETE FROM window_outbox WHERE sink <> ? AND sink {not_ours}");
            transaction.execute(&tables, params![QUEUE, &names])?;
            transaction.execute(
                &format!("DELETE FROM window_marks WHERE name LIKE 'sink:%' AND substr(name, 6) {not_ours}"),
                [&names],
            )?;
            for (name, is_table) in sinks {
                let is_new = transaction
                    .execute("INSERT OR IGNORE INTO window_marks VALUES ('sink:' || ?, 1)", [&name])?;
                if is_new == 1 && is_table {
                    fill(&transaction, &name)?;
                }
            }
            transaction.commit()?;
            Ok(waiting.cast_unsigned())
        })
        .await
    }

    /// Entries that wait, of all sinks.
    pub async fn num_waiting(&self) -> Result<u64, StoreError> {
        self.call("count the outbox", |connection| {
            let count: i64 =
                connection.query_row("SELECT count(*) FROM window_outbox", [], |row| row.get(0))?;
            Ok(count.cast_unsigned())
        })
        .await
    }
}
