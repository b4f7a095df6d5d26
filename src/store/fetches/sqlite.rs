//! The progress of manifests in SQLite.
use std::collections::HashMap;

use async_trait::async_trait;
use rusqlite::{OptionalExtension, Row, TransactionBehavior, params};

use super::{FetchRecord, Fetches};
use crate::store::{SqliteStore, StoreError};

#[async_trait]
impl Fetches for SqliteStore {
    async fn load(&self, work: &str) -> Result<HashMap<String, FetchRecord>, StoreError> {
        let work = work.to_owned();
        self.call("read the progress of manifests", move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT item, name, url, done, stage, error, size, etag, sha256 FROM fetches WHERE work = ?",
            )?;
            let records = statement.query_map([work], record)?;
            records.map(|record| record.map(|record| (record.key.clone(), record))).collect()
        })
        .await
    }

    async fn find(&self, work: &str, key: &str) -> Result<Option<FetchRecord>, StoreError> {
        let (work, key) = (work.to_owned(), key.to_owned());
        self.call("read the progress of a manifest", move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT item, name, url, done, stage, error, size, etag, sha256 FROM fetches
                 WHERE work = ? AND item = ?",
            )?;
            statement.query_row([work, key], record).optional()
        })
        .await
    }

    async fn keep(&self, work: &str, records: Vec<FetchRecord>) -> Result<(), StoreError> {
        let work = work.to_owned();
        self.call("keep the progress of a manifest", move |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let mut statement = transaction.prepare_cached(
                "INSERT OR REPLACE INTO fetches (work, item, name, url, done, stage, error, size, etag, sha256)
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            )?;
            for record in records {
                statement.execute(params![
                    work,
                    record.key,
                    record.name,
                    record.url,
                    record.done,
                    record.stage,
                    record.error,
                    i64::try_from(record.size).unwrap_or(i64::MAX),
                    record.etag,
                    record.sha256
                ])?;
            }
            drop(statement);
            transaction.commit()
        })
        .await
    }
}

fn record(row: &Row<'_>) -> rusqlite::Result<FetchRecord> {
    Ok(FetchRecord {
        key: row.get(0)?,
        name: row.get(1)?,
        url: row.get(2)?,
        done: row.get(3)?,
        stage: row.get(4)?,
        error: row.get(5)?,
        size: row.get::<_, i64>(6)?.unsigned_abs(),
        etag: row.get(7)?,
        sha256: row.get(8)?,
    })
}
