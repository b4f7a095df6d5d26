//! Postgres as a sink: groups of chunks, committed by several connections at once.
//!
//! A group closes at [`GroupLimits`]; it is then handed to a connection that is free, or waits for one. Leaves are
//! loaded without their indexes, which are built behind the loaders' backs once a leaf is quiet. Deliberately
//! absent: the transaction; `warehouse` has it.
use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::{Sink, SinkError};
use crate::client::PgConfig;
use crate::ledger::{Committed, Split};
use crate::log_type::LogTypes;
use crate::model::{ByteRange, ChunkRecord, CommitReceipt, DecodedBatch, Ledger};
use crate::warehouse::{Loaded, Loader, Unindexed, Warehouse, WarehouseError};

/// How often leaves are looked at for whether their indexes are due.
const LOOK: Duration = Duration::from_secs(5);
/// Every so many looks, all leaves are looked at.
const LOOKS_PER_SWEEP: u32 = 12;
/// A leaf that was not written to for this long is filled, or its source pauses.
const SILENT: Duration = Duration::from_secs(10);
/// A leaf that is written to without a pause gets its indexes after this time, while it is small.
const OVERDUE: Duration = Duration::from_secs(60);

/// All rows are committed when the last indexes are built, so that Postgres is not waited for as long as it takes.
const TRIES_AT_END: u32 = 10;
const PAUSE_AT_END: Duration = Duration::from_secs(2);

/// When a group is committed.
#[derive(Debug, Clone, Copy)]
pub struct GroupLimits {
    /// With so many rows, rejects and blanks among them,
    pub rows: u64,
    /// or so many bytes of them,
    pub bytes: u64,
    /// or this long after its first chunk came, or an eighth of it after its last: who has nothing more to send
    /// waits for the commit.
    pub age: Duration,
}

impl Default for GroupLimits {
    fn default() -> Self {
        Self { rows: 65_536, bytes: 16 << 20, age: Duration::from_millis(250) }
    }
}

/// Writes to one schema of one database.
pub struct PostgresSink {
    name: String,
    warehouse: Arc<Warehouse>,
    limits: GroupLimits,
    committed: Committed,
    open: Group,
    /// Asks the ledger what it still has.
    asker: Loader,
    idle: Vec<Loader>,
    busy: JoinSet<Ended>,
    indexing: JoinHandle<()>,
}

/// A connection that ended its work on a group.
struct Ended {
    loader: Loader,
    written: Vec<ByteRange>,
    loaded: Result<Loaded, WarehouseError>,
}

#[derive(Default)]
struct Group {
    chunks: Vec<DecodedBatch>,
    num_lines: u64,
    num_bytes: u64,
    /// When its first chunk came.
    opened: Option<Instant>,
    /// When it is to be committed.
    due: Option<Instant>,
}

impl PostgresSink {
    /// Connects, migrates the schema, and reads what is committed. `workers` connections load.
    pub async fn try_new(
        config: PgConfig,
        schema: &str,
        types: &LogTypes,
        workers: usize,
        limits: GroupLimits,
    ) -> Result<Self, SinkError> {
        let name = config.to_string();
        let warehouse = Arc::new(Warehouse::try_new(config, schema, types).await?);
        let mut asker = Loader::new(Arc::clone(&warehouse));
        let committed = asker.committed().await?;
        let idle = (0..workers.max(1)).map(|_| Loader::new(Arc::clone(&warehouse))).collect();
        let indexing = tokio::spawn(build_quiet_indexes(Arc::clone(&warehouse)));
        Ok(Self {
            name,
            warehouse,
            limits,
            committed,
            open: Group::default(),
            asker,
            idle,
            busy: JoinSet::new(),
            indexing,
        })
    }

    /// Tells its schema from every other, under whatever name the server is reached.
    pub async fn identity(&self) -> Result<String, SinkError> {
        Ok(self.warehouse.identity().await?)
    }

    /// Hands the open group to a connection; waits for one that is free.
    async fn close_group(&mut self) -> Result<CommitReceipt, SinkError> {
        let mut receipt = CommitReceipt::default();
        if self.open.chunks.is_empty() {
            return Ok(receipt);
        }
        let mut loader = loop {
            match self.idle.pop() {
                Some(loader) => break loader,
                None => receipt.merge(self.next_loaded().await?),
            }
        };
        let group = mem::take(&mut self.open);
        self.busy.spawn(async move {
            let written = group.chunks.iter().map(|chunk| chunk.record.range).collect();
            let loaded = loader.commit(group.chunks).await;
            Ended { loader, written, loaded }
        });
        Ok(receipt)
    }

    /// Waits for one of the groups that are being committed. There must be one.
    async fn next_loaded(&mut self) -> Result<CommitReceipt, SinkError> {
        let ended = self.busy.join_next().await;
        self.settle(ended)
    }

    fn settle(&mut self, ended: Option<Result<Ended, JoinError>>) -> Result<CommitReceipt, SinkError> {
        let Ended { loader, written, loaded } = match ended {
            None => return Ok(CommitReceipt::default()),
            Some(Ok(ended)) => ended,
            // nobody aborts a loader, so that it panicked
            Some(Err(failed)) => std::panic::resume_unwind(failed.into_panic()),
        };
        self.idle.push(loader);
        let loaded = loaded?;
        loaded.records.iter().for_each(|record| self.committed.insert(record));
        if let Some(fresh) = loaded.fresh {
            self.committed.refresh(fresh);
        }
        let ranges = written.into_iter().filter(|range| !loaded.overlapped.contains(range)).collect();
        Ok(CommitReceipt {
            ranges,
            overlapped: loaded.overlapped,
            refused_rows: loaded.refused_rows,
            stored_bytes: loaded.copied_bytes,
        })
    }
}

#[async_trait]
impl Sink for PostgresSink {
    fn name(&self) -> &str {
        &self.name
    }

    async fn ledger(&mut self) -> Result<Ledger, SinkError> {
        self.committed = self.asker.committed().await?;
        Ok(self.committed.ledger().clone())
    }

    async fn lacking(&mut self, range: &ByteRange) -> Result<Vec<(u64, u64)>, SinkError> {
        let lacking = self.committed.lacking(range);
        if lacking == [(range.first_byte, range.end_byte)] {
            return Ok(lacking);
        }
        // it is about to be acknowledged: what was committed once may be gone from a server that was restored
        let (held, _) = self.asker.committed_within(range).await?;
        if held.lacking(range) != lacking {
            self.committed.refresh(self.asker.committed_of(&[range.source_id]).await?);
        }
        Ok(held.lacking(range))
    }

    fn splits(&self) -> &BTreeSet<Split> {
        self.committed.splits()
    }

    async fn entries(&mut self, range: &ByteRange) -> Result<Vec<ChunkRecord>, SinkError> {
        Ok(self.asker.committed_within(range).await?.1)
    }

    async fn write(&mut self, batch: DecodedBatch) -> Result<CommitReceipt, SinkError> {
        let range = batch.record.range;
        let mut receipt = CommitReceipt::default();
        if self.open.chunks.iter().any(|chunk| chunk.record.range.overlaps(&range)) {
            // the ledger sees what groups share with each other, not what is twice in one
            receipt = self.close_group().await?;
        }
        let now = Instant::now();
        let opened = *self.open.opened.get_or_insert(now);
        self.open.due = Some((opened + self.limits.age).min(now + self.limits.age / 8));
        self.open.num_lines += batch.record.num_lines;
        self.open.num_bytes += range.len_bytes();
        self.open.chunks.push(batch);
        if self.open.num_lines >= self.limits.rows || self.open.num_bytes >= self.limits.bytes {
            receipt.merge(self.close_group().await?);
        }
        Ok(receipt)
    }

    async fn flush(&mut self) -> Result<CommitReceipt, SinkError> {
        let mut receipt = self.close_group().await?;
        while !self.busy.is_empty() {
            receipt.merge(self.next_loaded().await?);
        }
        Ok(receipt)
    }

    async fn receipt(&mut self) -> Result<CommitReceipt, SinkError> {
        loop {
            let due = self.open.due.filter(|_| !self.idle.is_empty());
            tokio::select! {
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let receipt = self.close_group().await?;
                    if !receipt.is_empty() {
                        return Ok(receipt);
                    }
                }
                ended = self.busy.join_next(), if !self.busy.is_empty() => return self.settle(ended),
                else => std::future::pending().await,
            }
        }
    }

    async fn finish(&mut self) -> Result<(), SinkError> {
        self.indexing.abort();
        // they have nothing more to load: as many connections build
        let connections = mem::take(&mut self.idle).len();
        let mut tries = 1;
        let report = loop {
            match self.warehouse.build_indexes(Unindexed::All, connections).await {
                Err(failure) if failure.is_retriable() && tries < TRIES_AT_END => {
                    tracing::warn!(
                        "the last indexes cannot be built now; try {tries} of {TRIES_AT_END}: {failure}"
                    );
                    tries += 1;
                    tokio::time::sleep(PAUSE_AT_END).await;
                }
                built => break built?,
            }
        };
        if !report.busy.is_empty() {
            tracing::info!(leaves = report.busy.len(), "are in use, and get their indexes later");
        }
        Ok(())
    }
}

impl Drop for PostgresSink {
    fn drop(&mut self) {
        self.indexing.abort();
    }
}

/// Builds indexes while others load, until it is aborted; now and then also those that a process left to be built
/// which is gone.
async fn build_quiet_indexes(warehouse: Arc<Warehouse>) {
    let quiet = Unindexed::Quiet { silent: SILENT, overdue: OVERDUE };
    for look in 1.. {
        tokio::time::sleep(LOOK).await;
        let which = if look % LOOKS_PER_SWEEP == 0 { Unindexed::All } else { quiet };
        match warehouse.build_indexes(which, 1).await {
            Ok(report) if report.built.is_empty() => {}
            Ok(report) => tracing::info!(leaves = report.built.len(), "indexed"),
            // the loaders wait for Postgres to come back; this looks again
            Err(failure) => tracing::debug!("indexes cannot be built now: {failure}"),
        }
    }
}
