//! A connection that rows are sent over: transactions, and COPY statements that are prepared once.
use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::{Client, Statement};

use super::Warehouse;
use super::copy::{CopyEncoder, HEADER, Rows, TRAILER};
use super::error::WarehouseError;
use super::group::CopyJob;
use crate::log_type::ddl::{self, literal};

/// Encoded rows are sent in pieces of this size: small enough for the second-level cache.
const SLICE_BYTES: usize = 256 << 10;

/// A client, and its COPY statements by their text.
pub(super) struct Connection {
    pub(super) client: Client,
    copies: HashMap<String, Statement>,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Connection").finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(client: Client) -> Self {
        Self { client, copies: HashMap::new() }
    }

    pub(super) async fn execute(&self, sql: &str) -> Result<(), WarehouseError> {
        self.client.batch_execute(sql).await.map_err(WarehouseError::of(sql))
    }

    /// Tables are locked from the top down, as those do who attach leaves. A leaf that was detached meanwhile is
    /// an error that [`WarehouseError::is_stale`]: rows in it would be committed and seen by no query.
    pub(super) async fn begin(
        &self,
        warehouse: &Warehouse,
        jobs: &[CopyJob<'_>],
    ) -> Result<(), WarehouseError> {
        let tables: BTreeSet<String> = jobs.iter().map(|job| warehouse.table(&job.table.name)).collect();
        let mut lock: Vec<String> =
            tables.iter().map(|table| format!("LOCK TABLE ONLY {table} IN ROW EXCLUSIVE MODE")).collect();
        let mut leaves: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for job in jobs {
            let leaf = job.day.map(|day| literal(&ddl::day_leaf(&job.table.name, day)));
            leaves.entry(&job.table.name).or_default().extend(leaf);
        }
        lock.extend(leaves.iter().filter(|(_, leaves)| !leaves.is_empty()).map(|(table, leaves)| {
            let (table, leaves) = (literal(&warehouse.table(table)), leaves.join(", "));
            format!("SELECT {}({table}, ARRAY[{leaves}])", warehouse.table("pipeline_expect_days"))
        }));
        // the ledger has to be seen as it is once the sources are locked, whatever is the database's default
        self.execute(&format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL lock_timeout = '60s'; SET LOCAL statement_timeout = 0; \
             SET LOCAL idle_in_transaction_session_timeout = 0; {}",
            lock.join("; ")
        ))
        .await
    }

    pub(super) async fn copy_job(
        &mut self,
        warehouse: &Warehouse,
        job: &CopyJob<'_>,
    ) -> Result<u64, WarehouseError> {
        let parts = job.parts.iter().map(|part| (part.encoder, part.rows.rows())).collect();
        self.copy(warehouse.copy_into(job.table, job.day), parts).await
    }

    /// Sends rows by one COPY statement; returns how many bytes they were.
    pub(super) async fn copy(
        &mut self,
        sql: String,
        parts: Vec<(&CopyEncoder, Rows<'_>)>,
    ) -> Result<u64, WarehouseError> {
        let failed = || WarehouseError::of(sql.as_str());
        if !self.copies.contains_key(&sql) {
            let statement = self.client.prepare(&sql).await.map_err(failed())?;
            self.copies.insert(sql.clone(), statement);
        }
        let sink = self.client.copy_in::<_, Bytes>(&self.copies[&sql]).await.map_err(failed())?;
        let mut sink = std::pin::pin!(sink);
        let mut buffer = Vec::with_capacity(SLICE_BYTES * 5 / 4);
        let mut sent = 0;
        buffer.extend_from_slice(&HEADER);
        for (encoder, mut rows) in parts {
            while !rows.is_empty() {
                encoder.encode_until_full(&mut rows, SLICE_BYTES, &mut buffer);
                if buffer.len() >= SLICE_BYTES {
                    sent += buffer.len() as u64;
                    let full = std::mem::replace(&mut buffer, Vec::with_capacity(SLICE_BYTES * 5 / 4));
                    sink.send(Bytes::from(full)).await.map_err(failed())?;
                }
            }
        }
        buffer.extend_from_slice(&TRAILER);
        sent += buffer.len() as u64;
        sink.send(Bytes::from(buffer)).await.map_err(failed())?;
        sink.finish().await.map_err(failed())?;
        Ok(sent)
    }
}
