//! What the ledger holds: sources, the byte ranges of them that are committed, and the counts of each.
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// One stream of bytes with an identity. Offsets of a compressed source count decompressed bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Source {
    /// Absolute path of the file as it was named when this was written, the URL of an object, or the name of a stream.
    pub path: String,
    /// Device number, 0 for a stream or an object.
    pub device: u64,
    /// Inode number, 0 for a stream or an object.
    pub inode: u64,
    /// Counts the contents that one path has had: 0, then one more after each truncation or replacement.
    pub generation: u32,
    /// How many of its first (decompressed) bytes `head_hash` covers, at most [`Source::HEAD_BYTES`]; of an object all,
    /// once its length is known (0 before, and above 2 GiB).
    pub head_len_bytes: u32,
    /// xxh3-64 of those bytes; of an object, of the ETag and size by which its store tells the content from others.
    pub head_hash: u64,
    /// Identity: does not change when the source grows or is renamed.
    pub id: u64,
}

impl Source {
    /// How many bytes at its start identify a source's content.
    pub const HEAD_BYTES: usize = 4096;

    /// The identity of a source first seen as (path, device, inode, generation). Two writers that meet
    /// the same new file at once come to the same identity, so that the ledger sees their overlap.
    pub fn identity(path: &str, device: u64, inode: u64, generation: u32) -> u64 {
        let mut hash = Xxh3::new();
        hash.update(path.as_bytes());
        for number in [device, inode, u64::from(generation)] {
            hash.update(&number.to_le_bytes());
        }
        hash.digest()
    }

    /// The hash that [`Source::head_hash`] holds, of at most the first [`Source::HEAD_BYTES`] of `head`.
    pub fn hash_head(head: &[u8]) -> u64 {
        xxh3_64(&head[..head.len().min(Self::HEAD_BYTES)])
    }
}

/// Half-open range of bytes of one source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteRange {
    /// [`Source::id`].
    pub source_id: u64,
    /// Offset of the first byte.
    pub first_byte: u64,
    /// Offset behind the last byte.
    pub end_byte: u64,
}

impl ByteRange {
    /// Number of bytes.
    pub fn len_bytes(&self) -> u64 {
        self.end_byte - self.first_byte
    }

    /// Whether both share a byte of the same source.
    pub fn overlaps(&self, other: &ByteRange) -> bool {
        self.source_id == other.source_id
            && self.first_byte < other.end_byte
            && other.first_byte < self.end_byte
    }
}

/// Rows of one log type in one chunk, and the version of the type that read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeRows {
    /// Number of rows.
    pub rows: u64,
    /// Hash of the type file's text, under which the archive keeps that text.
    pub hash: String,
    /// Lines that were rows of it until this place refused to store them; they are rejects.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub refused: u64,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// One entry of the ledger: a committed chunk. `num_lines = rows + rejects + blanks`, always.
#[derive(Debug, Clone, PartialEq)]
pub struct ChunkRecord {
    /// The source as it was known when the chunk was read.
    pub source: Arc<Source>,
    /// Short name of the chunk for rows: hash of (source, first byte).
    pub chunk_id: i64,
    /// Bytes of the source that the chunk holds.
    pub range: ByteRange,
    /// SHA-256 of the chunk's bytes, taken when they were read.
    pub content_sha256: [u8; 32],
    /// Lines that begin in this chunk (a continuing piece of an over-long line begins none).
    pub num_lines: u64,
    /// Lines that became rows.
    pub num_rows: u64,
    /// Lines that no log type accepts.
    pub num_rejects: u64,
    /// Lines of white space only.
    pub num_blanks: u64,
    /// Rows per log type name.
    pub types: BTreeMap<String, TypeRows>,
    /// Earliest and latest event time of the rows, microseconds since the epoch, UTC.
    pub time_range: Option<(i64, i64)>,
    /// What rendered rows end with. Kept bytes (raw, rejects, blanks) hold their own carriage return.
    pub line_ending: super::LineEnding,
    /// Whether the chunk's last byte is a newline.
    pub final_newline: bool,
    /// The chunk is this piece of an over-long line.
    pub piece: Option<super::Piece>,
    /// The chunk is one last line without a newline that may still be growing; a longer range that
    /// starts at the same byte supersedes it.
    pub open: bool,
    /// Dates without a year were read relative to this time, microseconds since the epoch.
    pub reference_time: i64,
    /// The tables (log types, `rejects`, `blanks`) whose rows of the chunk went to other places. Then `types` names
    /// every log type that there was, for those who hold the parts have to have decoded alike.
    pub elsewhere: BTreeSet<String>,
}

/// What a sink returns once chunks are durable: rows and ledger entries committed together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CommitReceipt {
    /// The chunks that are now committed, in the order they were written to the sink.
    pub ranges: Vec<ByteRange>,
    /// Written, but not stored: another writer had committed some of the same bytes, be it of a chunk in the
    /// same group. What is lacking of them has to be decoded anew.
    pub overlapped: Vec<ByteRange>,
    /// Rows by log type that storage refused; they are kept as rejects.
    pub refused_rows: BTreeMap<String, u64>,
    /// Bytes that the commit added to storage.
    pub stored_bytes: u64,
}

impl CommitReceipt {
    /// Adds what another receipt says.
    pub fn merge(&mut self, other: Self) {
        self.ranges.extend(other.ranges);
        self.overlapped.extend(other.overlapped);
        for (log_type, rows) in other.refused_rows {
            *self.refused_rows.entry(log_type).or_default() += rows;
        }
        self.stored_bytes += other.stored_bytes;
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty() && self.overlapped.is_empty()
    }
}

/// A source of which the ledger holds something.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KnownSource {
    /// Its newest identity record (path, head).
    pub source: Source,
    /// Committed ranges as (first byte, end byte), merged where they touch, ascending, open lines left out.
    pub committed: Vec<(u64, u64)>,
    /// A committed last line without a newline, which a longer one may supersede.
    pub open: Option<(u64, u64)>,
    /// Range and SHA-256 of the newest committed chunk: proof that the file still holds what was read.
    pub last_chunk: (u64, u64, [u8; 32]),
}

/// What one sink already holds, folded per source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ledger {
    /// Every source with a committed range, by identity.
    pub sources: BTreeMap<u64, KnownSource>,
}

impl Ledger {
    /// What both hold: a source that either knows, with the ranges that both have committed.
    pub fn intersect(mut self, other: Ledger) -> Ledger {
        for (id, known) in &mut self.sources {
            known.committed = match other.sources.get(id) {
                Some(of_other) => intersect(&known.committed, &of_other.committed),
                None => Vec::new(),
            };
            known.open = known
                .open
                .filter(|open| other.sources.get(id).is_some_and(|of_other| of_other.open == Some(*open)));
        }
        for (id, mut known) in other.sources {
            self.sources.entry(id).or_insert_with(|| {
                (known.committed, known.open) = (Vec::new(), None);
                known
            });
        }
        self
    }
}

/// The bytes that are in both lists of ascending ranges.
fn intersect(one: &[(u64, u64)], other: &[(u64, u64)]) -> Vec<(u64, u64)> {
    let (mut i, mut j, mut both) = (0, 0, Vec::new());
    while let (Some(left), Some(right)) = (one.get(i), other.get(j)) {
        let range = (left.0.max(right.0), left.1.min(right.1));
        if range.0 < range.1 {
            both.push(range);
        }
        if left.1 <= right.1 { i += 1 } else { j += 1 }
    }
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(sources: &[(u64, &[(u64, u64)])]) -> Ledger {
        let known = |id: u64, committed: &[(u64, u64)]| KnownSource {
            source: Source {
                path: "a".into(),
                device: 0,
                inode: 0,
                generation: 0,
                head_len_bytes: 0,
                head_hash: 0,
                id,
            },
            committed: committed.to_vec(),
            open: None,
            last_chunk: (0, 0, [0; 32]),
        };
        Ledger { sources: sources.iter().map(|(id, committed)| (*id, known(*id, committed))).collect() }
    }

    #[test]
    fn what_two_sinks_hold_is_what_both_have_of_every_source_either_knows() {
        let one = ledger(&[(1, &[(0, 10), (20, 30), (40, 50)]), (2, &[(0, 5)])]);
        let other = ledger(&[(1, &[(5, 25), (28, 45)]), (3, &[(0, 5)])]);
        let both = ledger(&[(1, &[(5, 10), (20, 25), (28, 30), (40, 45)]), (2, &[]), (3, &[])]);
        assert_eq!(one.clone().intersect(other.clone()), both);
        assert_eq!(other.intersect(one), both);
    }
}
