//! Decodes committed chunks anew, after a log type changed, and puts them in the place of what was decoded before.
//!
//! The bytes come from what is stored (rows, rejects and blanks give them back), so that no source file is needed,
//! and only bytes that are those that were read replace anything. Each chunk is replaced in one transaction:
//! readers see its old rows or its new ones. Deliberately absent: archives.
use std::sync::Arc;

use bytes::Bytes;
use thiserror::Error;

use super::shutdown::Shutdown;
use crate::archive::{ArchiveError, each_chunk};
use crate::decode::Decoder;
use crate::log_type::LogTypes;
use crate::model::{ByteRange, ChunkRecord, RawChunk, Source};
use crate::warehouse::{Loader, Warehouse, WarehouseError};

/// Source bytes of the chunks that are replayed at once.
const BATCH_BYTES: u64 = 16 << 20;

/// What a replay did.
#[derive(Debug, Default)]
pub struct ReplaySummary {
    /// Chunks looked at.
    pub chunks: u64,
    /// Chunks whose lines were decoded differently, and are replaced.
    pub replaced: u64,
    /// Rejects before and after, of the chunks looked at.
    pub rejects: (u64, u64),
    /// Rows before and after, of the chunks looked at.
    pub rows: (u64, u64),
    /// Chunks whose stored bytes are not those that were read; nothing of them is changed.
    pub damaged: Vec<(Arc<Source>, ByteRange)>,
    /// A request to stop came before the end.
    pub interrupted: bool,
}

/// Why a replay ended early. What was replaced until then stays.
#[derive(Debug, Error)]
pub enum ReplayError {
    /// What is stored cannot be read.
    #[error(transparent)]
    Read(#[from] ArchiveError),
    /// What was decoded cannot be stored.
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
}

/// Replays the chunks of `records`.
pub async fn replay(
    warehouse: &Arc<Warehouse>,
    types: &LogTypes,
    records: &[ChunkRecord],
    shutdown: &Shutdown,
) -> Result<ReplaySummary, ReplayError> {
    let mut summary = ReplaySummary::default();
    let (mut loader, mut decoder) = (Loader::new(Arc::clone(warehouse)), Decoder::new(types));
    let mut rest: Vec<&ChunkRecord> = records.iter().collect();
    while !rest.is_empty() && !shutdown.is_requested() {
        let mut len_bytes = 0;
        let fits = rest.iter().take_while(|record| {
            len_bytes += record.range.len_bytes();
            len_bytes <= BATCH_BYTES
        });
        let behind = rest.split_off(fits.count().max(1));
        let mut chunks = Vec::new();
        each_chunk(&**warehouse, &rest, |record, bytes, is_same| {
            match is_same {
                true => chunks.push((record, raw_chunk(record, bytes))),
                false => summary.damaged.push((Arc::clone(&record.source), record.range)),
            }
            Ok(())
        })
        .await?;
        for (before, chunk) in chunks {
            let decoded = decoder.decode(&chunk);
            let after = &decoded.record;
            summary.chunks += 1;
            summary.rejects.0 += before.num_rejects;
            summary.rows.0 += before.num_rows;
            let (mut rejects, mut rows) = (after.num_rejects, after.num_rows);
            if (&before.types, before.num_rejects) != (&after.types, after.num_rejects) {
                let loaded = loader.replace(vec![decoded]).await?;
                summary.replaced += loaded.records.len() as u64;
                let refused: u64 = loaded.refused_rows.values().sum();
                (rejects, rows) = (rejects + refused, rows - refused);
            }
            summary.rejects.1 += rejects;
            summary.rows.1 += rows;
        }
        rest = behind;
    }
    summary.interrupted = !rest.is_empty();
    Ok(summary)
}

pub(super) fn raw_chunk(record: &ChunkRecord, bytes: &[u8]) -> RawChunk {
    RawChunk {
        source: Arc::clone(&record.source),
        first_byte: record.range.first_byte,
        bytes: Bytes::copy_from_slice(bytes),
        content_sha256: record.content_sha256,
        reference_time: record.reference_time,
        piece: record.piece,
        open: record.open,
    }
}
