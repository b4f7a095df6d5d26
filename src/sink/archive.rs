//! The archive as a sink.
//!
//! Deliberately absent: the protocol; `lake` has it.
use async_trait::async_trait;

use super::{Sink, SinkError};
use crate::lake::{ArchiveWriter, LakeError};
use crate::model::{ByteRange, CommitReceipt, DecodedBatch, Ledger};

/// Writes to one archive.
#[derive(Debug)]
pub struct ArchiveSink {
    name: String,
    writer: ArchiveWriter,
    /// Ranges in the open group.
    open: Vec<ByteRange>,
}

impl ArchiveSink {
    /// Opens the archive at `location`, a path or URL, and creates it if there is none.
    pub async fn try_new(location: &str) -> Result<Self, SinkError> {
        let writer = ArchiveWriter::try_new(location).await?;
        Ok(Self { name: location.to_owned(), writer, open: Vec::new() })
    }

    /// A group that was discarded is to be decoded again, whatever the reason.
    async fn receipt_of(
        &mut self,
        outcome: Result<Option<CommitReceipt>, LakeError>,
    ) -> Result<CommitReceipt, SinkError> {
        match outcome {
            Ok(receipt) => {
                let receipt = receipt.unwrap_or_default();
                self.open.retain(|range| !receipt.ranges.contains(range));
                Ok(receipt)
            }
            Err(LakeError::Overlap | LakeError::GroupExpired) => {
                // learns what the other writer committed, so that the same group is not written again
                self.writer.ledger().await?;
                Ok(CommitReceipt { overlapped: std::mem::take(&mut self.open), ..CommitReceipt::default() })
            }
            Err(cause) => Err(SinkError::Lake(cause)),
        }
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

    async fn lacking(&mut self, range: &ByteRange) -> Result<Vec<(u64, u64)>, SinkError> {
        Ok(self.writer.committed().lacking(range))
    }

    async fn write(&mut self, batch: DecodedBatch) -> Result<CommitReceipt, SinkError> {
        self.open.push(batch.record.range);
        let outcome = self.writer.write(batch).await;
        self.receipt_of(outcome).await
    }

    async fn flush(&mut self) -> Result<CommitReceipt, SinkError> {
        let outcome = self.writer.flush().await;
        self.receipt_of(outcome).await
    }
}
