//! What went into an archive, given back and accounted for: restore and verify.
//!
//! Both go by the ledger, source by source, chunk by chunk. Deliberately absent: changing anything in the archive.
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use thiserror::Error;

use crate::lake::{Damage, LakeError};
use crate::log_type::LogTypeError;
use crate::log_type::render::RenderError;
use crate::model::{ChunkRecord, Source};
use crate::warehouse::WarehouseError;

mod content;
mod holdings;
mod line_filter;
mod restore;
mod together;
mod verify;

pub use content::{StoredChunk, each_chunk, read_chunks};
pub use holdings::{Holdings, OfArchive};
pub use line_filter::LineFilter;
pub use restore::{RestoredFile, restore};
pub use together::{Together, verify_together};
pub use verify::{Checks, GivenFile, Report, SourceReport, verify};

/// Why an archive could not be read back, or files not be written.
#[derive(Debug, Error)]
pub enum ArchiveError {
    /// The archive cannot be read.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// Postgres cannot be read.
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
    /// A kept type file does not compile.
    #[error(transparent)]
    LogType(#[from] LogTypeError),
    /// Rows do not have their type's columns.
    #[error(transparent)]
    Render(#[from] RenderError),
    /// Lines of a chunk are in other places.
    #[error(
        "the archive has a part only of the chunk at byte {first_byte} of {path}, whose {tables} went to other places; restore \
         from an archive that has all, or read the lines with `pipeline query`, one --from for each place"
    )]
    Part {
        /// Its source.
        path: String,
        /// Offset of its first byte.
        first_byte: u64,
        /// What is elsewhere.
        tables: String,
    },
    /// A file that would be written is there already.
    #[error("{} exists; restore to another folder, or replace it with --force", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {operation} {}; check the path, its permissions and the space left", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// Something that is not as it must be. Its text names the place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// These bytes of the source are in no committed chunk.
    Gap {
        /// Offset of the first byte.
        first_byte: u64,
        /// Offset behind the last.
        end_byte: u64,
    },
    /// These bytes of the source are in two committed chunks.
    Overlap {
        /// Offset of the first byte.
        first_byte: u64,
        /// Offset behind the last.
        end_byte: u64,
    },
    /// The lines of a chunk are not its rows, rejects and blanks.
    Accounting {
        /// Offset of its first byte.
        first_byte: u64,
        /// Lines it has.
        lines: u64,
        /// Rows, rejects and blanks it has.
        accounted: u64,
    },
    /// A table holds another number of rows of a chunk than the ledger says.
    Count {
        /// The table.
        table: String,
        /// Offset of the chunk's first byte.
        first_byte: u64,
        /// Rows by the ledger.
        expected: u64,
        /// Rows in the table.
        found: u64,
    },
    /// What a chunk's lines render to is not what was read.
    Content {
        /// Offset of its first byte.
        first_byte: u64,
        /// Offset behind its last.
        end_byte: u64,
    },
    /// Rows that went to another place are in none of those that were looked at.
    PartMissing {
        /// Their table.
        table: String,
        /// Offset of the first byte.
        first_byte: u64,
        /// Offset behind the last.
        end_byte: u64,
        /// The place that says so.
        place: String,
    },
    /// Two places are to have the same rows.
    PartTwice {
        /// Their table.
        table: String,
        /// Offset of the first byte.
        first_byte: u64,
        /// Offset behind the last.
        end_byte: u64,
        /// The places.
        places: (String, String),
    },
    /// Places have parts that are not of one whole.
    PartsDiffer {
        /// Offset of the first byte.
        first_byte: u64,
        /// Offset behind the last.
        end_byte: u64,
        /// How.
        what: &'static str,
        /// The places.
        places: (String, String),
    },
    /// A table holds rows of a chunk that the ledger does not have.
    UnknownChunk {
        /// The table.
        table: String,
        /// The chunk.
        chunk_id: i64,
        /// Its rows.
        rows: u64,
    },
    /// The file holds bytes that are not in the archive: it grew, or was not read to its end.
    Unread {
        /// How many.
        len_bytes: u64,
    },
    /// Nothing of the file is in the archive.
    NotArchived,
    /// A data file or an entry of the ledger is not as it was committed.
    Damage(Damage),
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gap { first_byte, end_byte } => write!(out, "bytes {first_byte} to {end_byte} are missing"),
            Self::Overlap { first_byte, end_byte } => {
                write!(out, "bytes {first_byte} to {end_byte} are there twice")
            }
            Self::Accounting { first_byte, lines, accounted } => {
                write!(
                    out,
                    "chunk at byte {first_byte}: {lines} lines, but {accounted} rows, rejects and blanks"
                )
            }
            Self::Count { table, first_byte, expected, found } => {
                let rows = |number: u64| if number == 1 { "row" } else { "rows" };
                let rows = rows(*found);
                write!(
                    out,
                    "chunk at byte {first_byte}: {table} holds {found} {rows}, the ledger says {expected}"
                )
            }
            Self::Content { first_byte, end_byte } => {
                write!(out, "bytes {first_byte} to {end_byte} do not come back as they were read")
            }
            Self::PartMissing { table, first_byte, end_byte, place } => write!(
                out,
                "bytes {first_byte} to {end_byte}: {place} has a part, and their {table} are in none of the places given; \
                 give all of them with --into, or run again, which ships what a place lacks"
            ),
            Self::PartTwice { table, first_byte, end_byte, places: (one, other) } => {
                write!(
                    out,
                    "bytes {first_byte} to {end_byte}: both {one} and {other} were to have their {table}"
                )
            }
            Self::PartsDiffer { first_byte, end_byte, what, places: (one, other) } => {
                write!(out, "bytes {first_byte} to {end_byte} of {one} and of {other} {what}")
            }
            Self::UnknownChunk { table, chunk_id, rows } => {
                write!(
                    out,
                    "table {table} holds {rows} rows of chunk {chunk_id}, which the ledger does not have"
                )
            }
            Self::Unread { len_bytes } => write!(out, "{len_bytes} bytes are not stored yet; run again"),
            Self::NotArchived => write!(out, "nothing of it is stored; run on it"),
            Self::Damage(damage) => damage.fmt(out),
        }
    }
}

/// All committed chunks of one source, ascending.
#[derive(Debug)]
struct SourceChunks {
    /// As its newest chunk names it.
    source: Source,
    chunks: Vec<ChunkRecord>,
}

impl SourceChunks {
    /// The committed chunks by source; sources by path, so that what was written together is read together.
    async fn read(holdings: &dyn Holdings) -> Result<Vec<Self>, ArchiveError> {
        let mut sources: BTreeMap<u64, Vec<ChunkRecord>> = BTreeMap::new();
        for record in holdings.records().await? {
            sources.entry(record.range.source_id).or_default().push(record);
        }
        let mut names = holdings.ledger().await?.sources;
        let mut sources: Vec<_> = sources
            .into_iter()
            .map(|(id, chunks)| Self {
                source: names.remove(&id).map_or_else(|| (*chunks[0].source).clone(), |known| known.source),
                chunks,
            })
            .collect();
        sources.sort_by(|one, other| {
            let key = |of: &Source| (of.path.clone(), of.generation, of.id);
            key(&one.source).cmp(&key(&other.source))
        });
        Ok(sources)
    }

    fn end_byte(&self) -> u64 {
        self.chunks.last().map_or(0, |chunk| chunk.range.end_byte)
    }

    /// Where its ranges do not follow each other from the first byte on.
    fn range_findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut end = 0;
        for range in self.chunks.iter().map(|chunk| chunk.range) {
            if range.first_byte > end {
                findings.push(Finding::Gap { first_byte: end, end_byte: range.first_byte });
            } else if range.first_byte < end {
                findings.push(Finding::Overlap {
                    first_byte: range.first_byte,
                    end_byte: end.min(range.end_byte),
                });
            }
            end = end.max(range.end_byte);
        }
        findings
    }
}
