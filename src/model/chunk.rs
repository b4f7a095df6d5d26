//! A chunk on its way: raw bytes, then decoded batches, rejects and blanks.
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use xxhash_rust::xxh3::Xxh3;

use super::{ByteRange, ChunkRecord, Source};

/// Place of a chunk within an over-long line that is kept in pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// 0 for the line's first piece.
    pub index: u32,
    /// Whether the line ends with this piece.
    pub last: bool,
}

/// A run of whole lines of one source (or one piece of an over-long line), as read.
#[derive(Debug, Clone)]
pub struct RawChunk {
    /// Where the bytes come from.
    pub source: Arc<Source>,
    /// Offset of the first byte in the (decompressed) source.
    pub first_byte: u64,
    /// The source's own bytes, newlines included.
    pub bytes: Bytes,
    /// SHA-256 of `bytes`.
    pub content_sha256: [u8; 32],
    /// Dates without a year are read relative to this time: microseconds since the epoch.
    pub reference_time: i64,
    /// Set when the chunk is a piece of an over-long line and nothing else.
    pub piece: Option<Piece>,
    /// The chunk is one last line without a newline, of a source that may still grow.
    pub open: bool,
}

impl RawChunk {
    /// The bytes of the source that this chunk holds.
    pub fn range(&self) -> ByteRange {
        ByteRange {
            source_id: self.source.id,
            first_byte: self.first_byte,
            end_byte: self.first_byte + self.bytes.len() as u64,
        }
    }

    /// Short name of the chunk: a 64-bit hash of (source, first byte).
    pub fn chunk_id(&self) -> i64 {
        chunk_id(self.source.id, self.first_byte)
    }

    /// The bytes from `first_byte` to `end_byte` as chunks of their own. Where a cut is not between two lines,
    /// the part of a line beside it is a piece.
    pub fn part(&self, first_byte: u64, end_byte: u64) -> Vec<RawChunk> {
        let (start, end) = ((first_byte - self.first_byte) as usize, (end_byte - self.first_byte) as usize);
        if (start, end) == (0, self.bytes.len()) {
            return vec![self.clone()];
        }
        let is_last = end == self.bytes.len();
        if let Some(piece) = self.piece {
            let index = if start == 0 { piece.index } else { piece.index.max(1) };
            return vec![self.cut(start, end, Some(Piece { index, last: piece.last && is_last }))];
        }
        let bytes = &self.bytes[..end];
        let is_torn = |at: usize| at > 0 && self.bytes[at - 1] != b'\n';
        let behind_head = match is_torn(start) {
            true => memchr::memchr(b'\n', &bytes[start..]).map_or(end, |newline| start + newline + 1),
            false => start,
        };
        let before_tail = match is_torn(end) && !is_last {
            true => memchr::memrchr(b'\n', bytes).map_or(0, |newline| newline + 1).max(behind_head),
            false => end,
        };
        let head = Piece { index: 1, last: behind_head < end || !is_torn(end) || is_last };
        let parts = [
            (start, behind_head, Some(head)),
            (behind_head, before_tail, None),
            (before_tail, end, Some(Piece { index: 0, last: false })),
        ];
        let parts = parts.into_iter().filter(|(from, to, _)| from < to);
        parts.map(|(from, to, piece)| self.cut(from, to, piece)).collect()
    }

    fn cut(&self, start: usize, end: usize, piece: Option<Piece>) -> RawChunk {
        let bytes = self.bytes.slice(start..end);
        RawChunk {
            source: Arc::clone(&self.source),
            first_byte: self.first_byte + start as u64,
            content_sha256: Sha256::digest(&bytes).into(),
            bytes,
            reference_time: self.reference_time,
            piece,
            open: self.open && piece.is_none() && end == self.bytes.len(),
        }
    }
}

/// Short name of the chunk that starts at this byte of a source.
pub fn chunk_id(source_id: u64, first_byte: u64) -> i64 {
    let mut hash = Xxh3::new();
    hash.update(&source_id.to_le_bytes());
    hash.update(&first_byte.to_le_bytes());
    hash.digest() as i64
}

/// What the lines of a chunk end with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineEnding {
    /// `\n`
    Lf,
    /// `\r\n`
    CrLf,
}

/// Why a line is not a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RejectReason {
    /// No line template of any log type matches.
    NoTemplate,
    /// A template would match, but its timestamp cannot be read.
    Timestamp,
    /// A `key_value` line lacks a required key.
    RequiredKey,
    /// The line is longer than `--max-line-bytes`; kept in pieces.
    TooLong,
    /// It was a row, and storage refused it with these words.
    Refused(Arc<str>),
}

impl RejectReason {
    /// The text stored with the reject.
    pub fn as_str(&self) -> &str {
        match self {
            Self::NoTemplate => "no line template matches",
            Self::Timestamp => "timestamp cannot be read",
            Self::RequiredKey => "required key is missing",
            Self::TooLong => "line is longer than --max-line-bytes",
            Self::Refused(words) => words,
        }
    }
}

/// A line that no log type accepts, by its place in the chunk.
#[derive(Debug, Clone, PartialEq)]
pub struct Reject {
    /// Line within the chunk, from 0.
    pub line: u32,
    /// Piece of an over-long line, 0 otherwise.
    pub piece: u32,
    /// First and end byte within the chunk, without the newline.
    pub span: (u32, u32),
    /// The log type that came nearest.
    pub log_type: Option<Arc<str>>,
    /// Byte within the line up to which that type read.
    pub column: u32,
    /// Why.
    pub reason: RejectReason,
}

/// A line of white space only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blank {
    /// Line within the chunk, from 0.
    pub line: u32,
    /// First and end byte within the chunk, without the newline.
    pub span: (u32, u32),
}

/// What a sink must know of a log type's table; made from the type file.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Log type, and folder in the archive.
    pub log_type: String,
    /// Table name in SQL.
    pub name: String,
    /// Schema of its batches: the type's columns, then `chunk_id line form raw extra`. Strings may be
    /// dictionary-encoded; the stored schema has plain strings.
    pub schema: arrow::datatypes::SchemaRef,
    /// Type of each column in Postgres, in the order of the schema.
    pub postgres_types: Vec<&'static str>,
    /// Position of the event time column.
    pub timestamp_column: usize,
    /// Columns that analysts look up by value (`index = true`).
    pub indexed_columns: Vec<usize>,
    /// Hash of the type file.
    pub hash: String,
    /// The type file.
    pub text: String,
}

/// The rows of one log type in one chunk, in line order.
#[derive(Debug, Clone)]
pub struct TypeBatch {
    /// Their table.
    pub table: Arc<Table>,
    /// The rows; schema as in [`Table::schema`].
    pub batch: RecordBatch,
}

/// A decoded chunk: nothing of it is missing. Rows, rejects and blanks add up to its lines.
#[derive(Debug, Clone)]
pub struct DecodedBatch {
    /// The ledger entry to commit with the rows.
    pub record: ChunkRecord,
    /// One batch per log type that has rows.
    pub types: Vec<TypeBatch>,
    /// Lines that no type accepts, in line order.
    pub rejects: Vec<Reject>,
    /// Blank lines, in line order.
    pub blanks: Vec<Blank>,
    /// The chunk's bytes, which the spans of rejects and blanks point into.
    pub bytes: Bytes,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// First byte, text, and piece with whether it is the last.
    type Part = (u64, String, Option<(u32, bool)>);

    fn parts(first_byte: u64, end_byte: u64) -> Vec<Part> {
        let source = Source {
            path: "a.log".into(),
            device: 1,
            inode: 1,
            generation: 0,
            head_len_bytes: 0,
            head_hash: 0,
            id: 7,
        };
        let chunk = RawChunk {
            source: Arc::new(source),
            first_byte: 100,
            bytes: Bytes::from_static(b"one\ntwo\nthree\n"),
            content_sha256: [0; 32],
            reference_time: 0,
            piece: None,
            open: false,
        };
        let parts = chunk.part(first_byte, end_byte).into_iter();
        let text = |bytes: &Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let piece = |piece: Option<Piece>| piece.map(|piece| (piece.index, piece.last));
        parts.map(|part| (part.first_byte, text(&part.bytes), piece(part.piece))).collect()
    }

    #[test]
    fn a_part_between_lines_is_one_chunk() {
        assert_eq!(parts(100, 114), [(100, "one\ntwo\nthree\n".to_owned(), None)]);
        assert_eq!(parts(104, 114), [(104, "two\nthree\n".to_owned(), None)]);
        assert_eq!(parts(104, 108), [(104, "two\n".to_owned(), None)]);
    }

    #[test]
    fn a_line_that_a_part_tears_is_a_piece() {
        let head = (102, "e\n".to_owned(), Some((1, true)));
        assert_eq!(parts(102, 114), [head.clone(), (104, "two\nthree\n".to_owned(), None)]);
        let tail = (108, "th".to_owned(), Some((0, false)));
        assert_eq!(parts(102, 110), [head, (104, "two\n".to_owned(), None), tail]);
        assert_eq!(parts(105, 107), [(105, "wo".to_owned(), Some((1, false)))]);
    }
}
