//! The progress of manifests in Postgres.
use std::collections::HashMap;

use async_trait::async_trait;
use tokio_postgres::Row;

use super::{FetchRecord, Fetches};
use crate::store::{PostgresStore, StoreError};

#[async_trait]
impl Fetches for PostgresStore {
    async fn load(&self, work: &str) -> Result<HashMap<String, FetchRecord>, StoreError> {
        let client = self.client().await?;
        let rows = client
            .query(
                "SELECT item, name, url, done, stage, error, size, etag, sha256 FROM fetches WHERE work = $1",
                &[&work],
            )
            .await;
        let rows = rows.map_err(self.failed("read the progress of manifests"))?;
        Ok(rows.iter().map(record).map(|record| (record.key.clone(), record)).collect())
    }

    async fn find(&self, work: &str, key: &str) -> Result<Option<FetchRecord>, StoreError> {
        let client = self.client().await?;
        let row = client
            .query_opt(
                "SELECT item, name, url, done, stage, error, size, etag, sha256 FROM fetches
                 WHERE work = $1 AND item = $2",
                &[&work, &key],
            )
            .await;
        Ok(row.map_err(self.failed("read the progress of a manifest"))?.as_ref().map(record))
    }

    async fn keep(&self, work: &str, records: Vec<FetchRecord>) -> Result<(), StoreError> {
        let failed = || self.failed("keep the progress of a manifest");
        let mut client = self.client().await?;
        let transaction = client.transaction().await.map_err(failed())?;
        let statement = transaction.prepare(
            "INSERT INTO fetches (work, item, name, url, done, stage, error, size, etag, sha256)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
             ON CONFLICT (work, item) DO UPDATE SET
                 (name, url, done, stage, error, size, etag, sha256, changed_at)
                 = (excluded.name, excluded.url, excluded.done, excluded.stage, excluded.error, excluded.size,
                    excluded.etag, excluded.sha256, now())",
        );
        let statement = statement.await.map_err(failed())?;
        for record in records {
            let size = i64::try_from(record.size).unwrap_or(i64::MAX);
            // Postgres takes no NUL in a text, and names and errors may hold anything
            let name = record.name.replace('\0', "");
            let error = record.error.map(|error| error.replace('\0', ""));
            let FetchRecord { key, url, done, stage, etag, sha256, .. } = record;
            transaction
                .execute(
                    &statement,
                    &[&work, &key, &name, &url, &done, &stage, &error, &size, &etag, &sha256],
                )
                .await
                .map_err(failed())?;
        }
        transaction.commit().await.map_err(failed())
    }
}

fn record(row: &Row) -> FetchRecord {
    FetchRecord {
        key: row.get(0),
        name: row.get(1),
        url: row.get(2),
        done: row.get(3),
        stage: row.get(4),
        error: row.get(5),
        size: row.get::<_, i64>(6).unsigned_abs(),
        etag: row.get(7),
        sha256: row.get(8),
    }
}
