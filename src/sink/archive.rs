//! The archive as a sink.
//!
//! Deliberately absent: the protocol; `lake` has it.
use std::collections::BTreeSet;

use async_trait::async_trait;

use super::{Sink, SinkError};
use crate::lake::{ArchiveWriter, LakeError};
use crate::ledger::Split;
use crate::model::{ByteRange, ChunkRecord, CommitReceipt, DecodedBatch, Ledger};

/// Writes to one archive.
#[derive(Debug)]
pub struct ArchiveSink {
    name: String,
    writer: ArchiveWriter,
    /// Ranges in the open group.
    open: Vec<ByteRange>,
    /// The ledger's entries, once they were asked for, and its version then.
    records: Option<(u64, Vec<ChunkRecord>)>,
}

impl ArchiveSink {
    /// Opens the archive at `location`, a path or URL, and creates it if there is none.
    pub async fn try_new(location: &str) -> Result<Self, SinkError> {
        let writer = ArchiveWriter::try_new(location).await?;
        Ok(Self { name: location.to_owned(), writer, open: Vec::new(), records: None })
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

    fn splits(&self) -> &BTreeSet<Split> {
        self.writer.committed().splits()
    }

    async fn entries(&mut self, range: &ByteRange) -> Result<Vec<ChunkRecord>, SinkError> {
        let version = self.writer.version();
        let records = match self.records.take() {
            Some((as_of, records)) if as_of == version => records,
            _ => self.writer.archive().records().await?,
        };
        let (_, records) = self.records.insert((version, records));
        Ok(records.iter().filter(|record| record.range.overlaps(range)).cloned().collect())
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
