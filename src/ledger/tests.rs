//! Entries that tests of the ledger and of the tables share.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::model::{ByteRange, ChunkRecord, LineEnding, Source};

/// An entry of nothing but a range.
pub(crate) fn record(source_id: u64, first_byte: u64, end_byte: u64) -> ChunkRecord {
    let source = Source {
        path: format!("/logs/{source_id}.log"),
        device: 1,
        inode: source_id,
        generation: 0,
        head_len_bytes: 0,
        head_hash: 0,
        id: source_id,
    };
    ChunkRecord {
        source: Arc::new(source),
        chunk_id: (source_id * 1_000_000 + first_byte) as i64,
        range: ByteRange { source_id, first_byte, end_byte },
        content_sha256: [0; 32],
        num_lines: 0,
        num_rows: 0,
        num_rejects: 0,
        num_blanks: 0,
        types: BTreeMap::new(),
        time_range: None,
        line_ending: LineEnding::Lf,
        final_newline: true,
        piece: None,
        open: false,
        reference_time: 0,
        elsewhere: BTreeSet::new(),
    }
}
