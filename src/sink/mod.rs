//! Where rows leave. A sink commits rows and the ledger entries of their chunks together.
//!
//! Extension point: a new sink is one file here and one line in `cli`.
use async_trait::async_trait;
use thiserror::Error;

use crate::lake::LakeError;
use crate::model::{CommitReceipt, DecodedBatch, Ledger};

mod archive;

pub use archive::ArchiveSink;

/// Takes decoded chunks and makes them durable.
///
/// Contract: a chunk is in a [`CommitReceipt`] only once its rows and its ledger entry are durable, both or
/// neither; a chunk whose range the ledger already holds is never stored again.
#[async_trait]
pub trait Sink: Send {
    /// Where it writes, for messages.
    fn name(&self) -> &str;

    /// What it holds already. Readers ship only what is lacking.
    async fn ledger(&mut self) -> Result<Ledger, SinkError>;

    /// Takes one chunk into the open group. Returns a receipt when that closed and committed a group.
    async fn write(&mut self, batch: DecodedBatch) -> Result<Option<CommitReceipt>, SinkError>;

    /// Commits the open group, if any.
    async fn flush(&mut self) -> Result<Option<CommitReceipt>, SinkError>;
}

/// Why a sink could not take or commit chunks.
#[derive(Debug, Error)]
pub enum SinkError {
    /// Another writer committed overlapping ranges first. The open group is discarded; read the ledger
    /// again and ship what is lacking.
    #[error("another writer committed some of the same bytes first")]
    Overlap,
    /// The archive failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
}

impl SinkError {
    /// Whether reading the ledger again and shipping what it lacks can succeed.
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Overlap)
    }
}
