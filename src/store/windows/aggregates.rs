//! The table `aggregated_data`, in both kinds of database.
//!
//! A row is written whole, again and again, so that writing one twice changes nothing.
use rusqlite::{Connection, params};
use tokio_postgres::types::ToSql;

use crate::model::WindowRow;
use crate::store::{PostgresStore, SqliteStore, StoreError};

const UPSERT_SQLITE: &str = "INSERT INTO aggregated_data \
    (id, window_start, window_end, event_type, count, sum_value, avg_value, unique_users, unique_users_error, version) \
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
    ON CONFLICT (window_start, window_end, event_type) DO UPDATE SET count = excluded.count, \
    sum_value = excluded.sum_value, avg_value = excluded.avg_value, unique_users = excluded.unique_users, \
    unique_users_error = excluded.unique_users_error, version = excluded.version";

const UPSERT_POSTGRES: &str = "INSERT INTO aggregated_data \
    (id, window_start, window_end, event_type, count, sum_value, avg_value, unique_users, unique_users_error, version) \
    SELECT * FROM unnest($1::int8[], $2::float8[], $3::float8[], $4::text[], $5::int8[], $6::float8[], $7::float8[], \
    $8::int8[], $9::float8[], $10::int8[]) \
    ON CONFLICT (window_start, window_end, event_type) DO UPDATE SET count = excluded.count, \
    sum_value = excluded.sum_value, avg_value = excluded.avg_value, unique_users = excluded.unique_users, \
    unique_users_error = excluded.unique_users_error, version = excluded.version";

/// No count comes near this.
fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Writes rows within the caller's transaction.
pub(super) fn upsert(connection: &Connection, rows: &[WindowRow]) -> rusqlite::Result<()> {
    let mut upsert = connection.prepare_cached(UPSERT_SQLITE)?;
    for row in rows {
        upsert.execute(params![
            row.id(),
            row.start_seconds(),
            row.end_seconds(),
            row.event_type,
            signed(row.count),
            row.sum_value,
            row.avg_value(),
            signed(row.unique_users),
            row.unique_users_error,
            signed(row.version),
        ])?;
    }
    Ok(())
}

const SELECT: &str = "SELECT window_start, window_end, event_type, count, sum_value, unique_users, \
    unique_users_error, version FROM aggregated_data";

fn millis(seconds: f64) -> i64 {
    (seconds * 1000.0).round() as i64
}

impl SqliteStore {
    /// Writes rows of `aggregated_data`, all or none.
    pub async fn upsert_windows(&self, rows: &[WindowRow]) -> Result<(), StoreError> {
        let rows = rows.to_vec();
        self.call("write aggregates", move |connection| {
            let transaction = connection.transaction()?;
            upsert(&transaction, &rows)?;
            transaction.commit()
        })
        .await
    }

    /// Rows of windows that end behind this time, in seconds since the epoch; by window and type.
    pub async fn windows_since(&self, seconds: f64) -> Result<Vec<WindowRow>, StoreError> {
        self.call("read aggregates", move |connection| {
            let sql = format!("{SELECT} WHERE window_end > ? ORDER BY window_start, window_end, event_type");
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map([seconds], |row| {
                Ok(WindowRow {
                    start_ms: millis(row.get(0)?),
                    end_ms: millis(row.get(1)?),
                    event_type: row.get(2)?,
                    count: row.get::<_, i64>(3)?.cast_unsigned(),
                    sum_value: row.get(4)?,
                    unique_users: row.get::<_, i64>(5)?.cast_unsigned(),
                    unique_users_error: row.get(6)?,
                    version: row.get::<_, i64>(7)?.cast_unsigned(),
                })
            })?;
            rows.collect()
        })
        .await
    }
}

impl PostgresStore {
    /// Writes rows of `aggregated_data`, all or none. No row may be there twice.
    pub async fn upsert_windows(&self, rows: &[WindowRow]) -> Result<(), StoreError> {
        fn column<T>(rows: &[WindowRow], value: impl Fn(&WindowRow) -> T) -> Vec<T> {
            rows.iter().map(value).collect()
        }
        let client = self.client().await?;
        let parameters: [&(dyn ToSql + Sync); 10] = [
            &column(rows, WindowRow::id),
            &column(rows, WindowRow::start_seconds),
            &column(rows, WindowRow::end_seconds),
            &column(rows, |row| row.event_type.clone()),
            &column(rows, |row| signed(row.count)),
            &column(rows, |row| row.sum_value),
            &column(rows, WindowRow::avg_value),
            &column(rows, |row| signed(row.unique_users)),
            &column(rows, |row| row.unique_users_error),
            &column(rows, |row| signed(row.version)),
        ];
        client.execute(UPSERT_POSTGRES, &parameters).await.map_err(self.failed("write aggregates"))?;
        Ok(())
    }

    /// Rows of windows that end behind this time, in seconds since the epoch; by window and type.
    pub async fn windows_since(&self, seconds: f64) -> Result<Vec<WindowRow>, StoreError> {
        let sql = format!(
            "{SELECT} WHERE window_end > $1 ORDER BY window_start, window_end, event_type COLLATE \"C\""
        );
        let client = self.client().await?;
        let rows = client.query(&sql, &[&seconds]).await.map_err(self.failed("read aggregates"))?;
        Ok(rows
            .iter()
            .map(|row| WindowRow {
                start_ms: millis(row.get(0)),
                end_ms: millis(row.get(1)),
                event_type: row.get(2),
                count: row.get::<_, i64>(3).cast_unsigned(),
                sum_value: row.get(4),
                unique_users: row.get::<_, i64>(5).cast_unsigned(),
                unique_users_error: row.get(6),
                version: row.get::<_, i64>(7).cast_unsigned(),
            })
            .collect())
    }
}
