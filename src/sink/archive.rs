//! The archive as a sink.
//!
//! Deliberately absent: the protocol; `lake` has it.
use async_trait::async_trait;

use super::{Sink, SinkError};
use crate::lake::{ArchiveWriter, LakeError};
use crate::model::{CommitReceipt, DecodedBatch, Ledger};

/// Writes to one archive.
#[derive(Debug)]
pub struct ArchiveSink {
    name: String,
    writer: ArchiveWriter,
}

impl ArchiveSink {
    /// Opens the archive at `location`, a path or URL, and creates it if there is none.
    pub async fn try_new(location: &str) -> Result<Self, SinkError> {
        Ok(Self { name: location.to_owned(), writer: ArchiveWriter::try_new(location).await? })
    }
}

#[async_trait]
impl Sink for ArchiveSink {
    fn name(&self) -> &str {
        &self.name
    }

    async fn ledger(&mut self) -> Result<Ledger, SinkError> {
        Ok(self.writer.ledger().await?)
    }

    async fn write(&mut self, batch: DecodedBatch) -> Result<Option<CommitReceipt>, SinkError> {
        self.writer.write(batch).await.map_err(of_lake)
    }

    async fn flush(&mut self) -> Result<Option<CommitReceipt>, SinkError> {
        self.writer.flush().await.map_err(of_lake)
    }
}

/// A group that was discarded is shipped again, whatever the reason.
fn of_lake(cause: LakeError) -> SinkError {
    match cause {
        LakeError::Overlap | LakeError::GroupExpired => SinkError::Overlap,
        cause => SinkError::Lake(cause),
    }
}
