//! Where rows leave. A sink commits rows and the ledger entries of their chunks together.
//!
//! Extension point: a new sink is one file here and one line in `cli`.
use std::collections::BTreeSet;

use async_trait::async_trait;
use thiserror::Error;

use crate::lake::LakeError;
use crate::ledger::{Share, Split};
use crate::model::{ByteRange, ChunkRecord, CommitReceipt, DecodedBatch, Ledger};
use crate::warehouse::WarehouseError;

mod archive;
mod part;
mod postgres;
pub mod window;

pub use archive::ArchiveSink;
pub use part::{PartError, PartSink, expect_share, parts_held};
pub use postgres::{GroupLimits, PostgresSink};

/// Takes decoded chunks and makes them durable.
///
/// Contract: a range is in [`CommitReceipt::ranges`] only once its rows and its ledger entry are durable, both or
/// neither; a range of which the ledger already holds a byte is never stored. Every range written is named by
/// exactly one receipt, as committed or as refused.
#[async_trait]
pub trait Sink: Send {
    /// Where it writes, for messages.
    fn name(&self) -> &str;

    /// What it holds already. Readers ship only what is lacking.
    async fn ledger(&mut self) -> Result<Ledger, SinkError>;

    /// The parts of `range` that it does not hold, ascending, as far as it knows: it may be told otherwise when
    /// it commits.
    async fn lacking(&mut self, range: &ByteRange) -> Result<Vec<(u64, u64)>, SinkError>;

    /// How the chunks were split of which it holds a part, as of the last look at its ledger.
    fn splits(&self) -> &BTreeSet<Split>;

    /// The entries of its ledger that share a byte with `range`.
    async fn entries(&mut self, range: &ByteRange) -> Result<Vec<ChunkRecord>, SinkError>;

    /// What it keeps of a chunk, if that is not all.
    fn share(&self) -> Option<&Share> {
        None
    }

    /// Takes one chunk into the open group; waits while it has no room. Returns a receipt when groups were closed.
    async fn write(&mut self, batch: DecodedBatch) -> Result<CommitReceipt, SinkError>;

    /// Closes and commits everything written; returns when that is done.
    async fn flush(&mut self) -> Result<CommitReceipt, SinkError>;

    /// Waits for groups that are being committed behind the caller's back. Safe to cancel. For ever, where
    /// there are none.
    async fn receipt(&mut self) -> Result<CommitReceipt, SinkError> {
        std::future::pending().await
    }

    /// Does what makes reading fast and may come after the last commit.
    async fn finish(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// What all of `sinks` hold.
pub async fn ledger(sinks: &mut [Box<dyn Sink>]) -> Result<Ledger, SinkError> {
    let mut held: Option<Ledger> = None;
    for sink in sinks {
        let of_sink = sink.ledger().await?;
        held = Some(match held {
            Some(held) => held.intersect(of_sink),
            None => of_sink,
        });
    }
    Ok(held.unwrap_or_default())
}

/// Why a sink could not take or commit chunks.
#[derive(Debug, Error)]
pub enum SinkError {
    /// The archive failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Postgres failed.
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
    /// What it holds are other parts of chunks than it is to have.
    #[error(transparent)]
    Part(#[from] PartError),
}

impl SinkError {
    /// Whether the same may succeed later.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Lake(_) | Self::Part(_) => false,
            Self::Warehouse(error) => error.is_retriable(),
        }
    }
}
