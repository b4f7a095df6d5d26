//! State of `pipeline serve` in SQLite: the journal and the saved state of windows, identities, rejects, late events,
//! and what sinks have yet to get.
//!
//! One [`Commit`] is one transaction: all of it is on disk, or nothing. Deliberately absent: what the bytes of the
//! journal mean, and when to commit.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};

use super::{SqliteStore, StoreError};
use crate::model::WindowRow;

pub mod aggregates;
mod lines;
pub mod outbox;

/// Identities expire together in units of this.
const ID_EPOCH: Duration = Duration::from_secs(6 * 3600);
/// An identity is known for at least so long: senders retry for a day or two.
pub const ID_RETENTION: Duration = Duration::from_secs(72 * 3600);
/// As many identities are removed in one transaction, so that no commit waits long.
const IDS_REMOVED_AT_ONCE: i64 = 10_000;
/// The newest rejects are kept: whoever posts rubbish must not fill the disk.
pub const MAX_REJECTS: i64 = 100_000;
/// Of a reject's text.
const MAX_REJECT_LEN: usize = 4096;

/// What was saved of windows, and the journal since then.
#[derive(Debug, Default)]
pub struct SavedWindows {
    /// Newest event time and floor.
    pub marks: Option<(i64, i64)>,
    /// (start, end, event type, state).
    pub groups: Vec<(i64, i64, String, Vec<u8>)>,
    /// One per commit, in order.
    pub journal: Vec<Vec<u8>>,
}

/// Reads what is to be known at the start; nothing changes meanwhile.
pub fn load(connection: &mut Connection) -> rusqlite::Result<SavedWindows> {
    let transaction = connection.transaction()?;
    let newest = mark(&transaction, "newest_micros")?;
    let floor = mark(&transaction, "floor_ms")?;
    let mut groups = transaction.prepare("SELECT start_ms, end_ms, event_type, state FROM window_groups")?;
    let groups = groups.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?;
    let groups = groups.collect::<Result<_, _>>()?;
    let mut journal = transaction.prepare("SELECT entries FROM window_journal ORDER BY seq")?;
    let journal = journal.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    Ok(SavedWindows { marks: newest.zip(floor), groups, journal })
}

/// A name for this file that no other has, made at the first call.
pub fn identity(connection: &mut Connection) -> rusqlite::Result<String> {
    let fresh = uuid::Uuid::now_v7().to_string();
    connection.execute("INSERT OR IGNORE INTO window_marks VALUES ('identity', ?)", [fresh])?;
    connection.query_row("SELECT value FROM window_marks WHERE name = 'identity'", [], |row| row.get(0))
}

fn mark(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    let mut statement = connection.prepare_cached("SELECT value FROM window_marks WHERE name = ?")?;
    statement.query_row([name], |row| row.get(0)).optional()
}

fn set_mark(connection: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    let mut statement = connection.prepare_cached("INSERT OR REPLACE INTO window_marks VALUES (?, ?)")?;
    statement.execute(params![name, value]).map(drop)
}

/// An open transaction, rolled back unless [`Commit::commit`] is called.
#[derive(Debug)]
pub struct Commit<'a> {
    transaction: Transaction<'a>,
    now: Duration,
}

impl<'a> Commit<'a> {
    /// Begins; waits for a writer of another process.
    pub fn begin(connection: &'a mut Connection) -> rusqlite::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self { transaction: connection.transaction_with_behavior(TransactionBehavior::Immediate)?, now })
    }

    /// Notes an identity; false where it is known already.
    pub fn is_new(&self, id: &[u8; 16]) -> rusqlite::Result<bool> {
        if self.is_known(id)? {
            return Ok(false);
        }
        let mut insert = self.transaction.prepare_cached("INSERT INTO webhook_ids VALUES (?, ?)")?;
        insert.execute(params![epoch(self.now), id])?;
        Ok(true)
    }

    /// Whether an identity was noted.
    pub fn is_known(&self, id: &[u8; 16]) -> rusqlite::Result<bool> {
        let epoch = epoch(self.now);
        let oldest = epoch - epoch_count();
        let known = "SELECT 1 FROM webhook_ids WHERE epoch IN \
                     (WITH RECURSIVE e(n) AS (VALUES (?1) UNION ALL SELECT n + 1 FROM e WHERE n < ?2) SELECT n FROM e) \
                     AND id = ?3 LIMIT 1";
        let mut known = self.transaction.prepare_cached(known)?;
        known.exists(params![oldest, epoch, id])
    }

    /// Takes back that an identity was seen: nothing of what it stands for was counted.
    pub fn forget(&self, id: &[u8; 16]) -> rusqlite::Result<()> {
        let mut delete =
            self.transaction.prepare_cached("DELETE FROM webhook_ids WHERE epoch = ? AND id = ?")?;
        delete.execute(params![epoch(self.now), id]).map(drop)
    }

    /// Adds a commit's entries to the journal.
    pub fn journal(&self, entries: &[u8]) -> rusqlite::Result<()> {
        let mut insert =
            self.transaction.prepare_cached("INSERT INTO window_journal (entries) VALUES (?)")?;
        insert.execute([entries]).map(drop)
    }

    /// Writes the present state of rows.
    pub fn upsert(&self, rows: &[WindowRow]) -> rusqlite::Result<()> {
        aggregates::upsert(&self.transaction, rows)
    }

    /// Puts rows into the outbox of a sink.
    pub fn send(&self, sink: &str, kind: outbox::Kind, rows: &[WindowRow]) -> rusqlite::Result<()> {
        outbox::put(&self.transaction, sink, kind, rows)
    }

    /// Keeps an event whose window takes no more.
    pub fn late(&self, timestamp_micros: i64, event_type: &str, event: &str) -> rusqlite::Result<()> {
        let sql = "INSERT INTO late_events (received_at, timestamp, event_type, event) VALUES (?, ?, ?, ?)";
        let seconds = timestamp_micros as f64 / 1e6;
        let mut insert = self.transaction.prepare_cached(sql)?;
        insert.execute(params![self.now.as_secs_f64(), seconds, event_type, event]).map(drop)
    }

    /// Keeps what is no event.
    pub fn reject(&self, field: Option<&str>, reason: &str, body: &str) -> rusqlite::Result<()> {
        let sql = "INSERT INTO webhook_rejects (received_at, field, reason, body) VALUES (?, ?, ?, ?)";
        let body = &body[..body.floor_char_boundary(MAX_REJECT_LEN)];
        let mut insert = self.transaction.prepare_cached(sql)?;
        insert.execute(params![self.now.as_secs_f64(), field, reason, body])?;
        let mut oldest = self.transaction.prepare_cached("DELETE FROM webhook_rejects WHERE seq <= ?")?;
        oldest.execute([self.transaction.last_insert_rowid() - MAX_REJECTS]).map(drop)
    }

    /// Adds lines for the archive behind all that were added before.
    pub fn lines(&self, lines: &[u8]) -> rusqlite::Result<()> {
        let first_byte = mark(&self.transaction, "lines_end")?.unwrap_or(0);
        let mut insert = self.transaction.prepare_cached("INSERT INTO event_lines VALUES (?, ?)")?;
        insert.execute(params![first_byte, lines])?;
        set_mark(&self.transaction, "lines_end", first_byte + lines.len() as i64)
    }

    /// Replaces journal by state: what is in `groups` is written, windows in `dropped` are removed.
    pub fn save<'g>(
        &self,
        marks: (i64, i64),
        groups: impl Iterator<Item = (i64, i64, &'g str, &'g [u8])>,
        dropped: impl Iterator<Item = (i64, i64)>,
    ) -> rusqlite::Result<()> {
        let mut write =
            self.transaction.prepare_cached("INSERT OR REPLACE INTO window_groups VALUES (?, ?, ?, ?)")?;
        for (start, end, event_type, state) in groups {
            write.execute(params![start, end, event_type, state])?;
        }
        let remove = "DELETE FROM window_groups WHERE start_ms = ? AND end_ms = ?";
        let mut remove = self.transaction.prepare_cached(remove)?;
        for (start, end) in dropped {
            remove.execute(params![start, end])?;
        }
        set_mark(&self.transaction, "newest_micros", marks.0)?;
        set_mark(&self.transaction, "floor_ms", marks.1)?;
        self.transaction.execute("DELETE FROM window_journal", []).map(drop)
    }

    /// Removes some of the identities that expired; true where there may be more.
    pub fn expire_ids(&self) -> rusqlite::Result<bool> {
        let oldest = epoch(self.now) - epoch_count();
        let sql = "DELETE FROM webhook_ids WHERE (epoch, id) IN \
                   (SELECT epoch, id FROM webhook_ids WHERE epoch < ? LIMIT ?)";
        let removed = self.transaction.execute(sql, params![oldest, IDS_REMOVED_AT_ONCE])?;
        Ok(removed as i64 == IDS_REMOVED_AT_ONCE)
    }

    /// Makes it durable.
    pub fn commit(self) -> rusqlite::Result<()> {
        self.transaction.commit()
    }
}

fn epoch(now: Duration) -> i64 {
    (now.as_secs() / ID_EPOCH.as_secs()).cast_signed()
}

/// Epochs that lie wholly or partly in the retention.
fn epoch_count() -> i64 {
    ID_RETENTION.as_secs().div_ceil(ID_EPOCH.as_secs()).cast_signed()
}

impl SqliteStore {
    /// Runs `work` in one transaction.
    pub async fn commit_windows<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Commit<'_>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call("commit", |connection| {
            let commit = Commit::begin(connection)?;
            let result = work(&commit)?;
            commit.commit()?;
            Ok(result)
        })
        .await
    }
}
