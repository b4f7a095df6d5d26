//! A chunk on its way: raw bytes, then decoded batches, rejects and blanks.
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
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
        let mut hash = Xxh3::new();
        hash.update(&self.source.id.to_le_bytes());
        hash.update(&self.first_byte.to_le_bytes());
        hash.digest() as i64
    }
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RejectReason {
    /// No line template of any log type matches.
    NoTemplate,
    /// A template would match, but its timestamp cannot be read.
    Timestamp,
    /// A `key_value` line lacks a required key.
    RequiredKey,
    /// The line is longer than `--max-line-bytes`; kept in pieces.
    TooLong,
}

impl RejectReason {
    /// The text stored with the reject.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoTemplate => "no line template matches",
            Self::Timestamp => "timestamp cannot be read",
            Self::RequiredKey => "required key is missing",
            Self::TooLong => "line is longer than --max-line-bytes",
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
