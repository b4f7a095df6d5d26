//! The archive: one Delta Lake table per log type, plus `rejects`, `blanks` and the ledger `chunks`.
//!
//! Delta has no transaction across tables, and one chunk feeds several. So the commit point of everything is one
//! commit to `chunks`; see `commit` for the protocol and why each row lands exactly once. Deliberately absent:
//! deletion vectors, and any cache that would outlive an [`Archive`].
use std::sync::Arc;

use arrow::datatypes::SchemaRef;

mod archive;
mod audit;
mod bit_pack;
mod chain;
mod column_chunk;
mod commit;
mod compact;
mod data_file_name;
mod delta;
mod encode;
mod entries;
mod error;
mod lane;
mod merge;
mod orphans;
mod pages;
mod parquet_settings;
mod parquet_writer;
mod present;
mod read;
mod schema;
mod statistics;
mod supersede;
#[cfg(test)]
mod tests;
mod upload;
mod writer;

pub use archive::{Archive, Moment};
pub use audit::Damage;
pub use compact::Compaction;
pub use error::LakeError;
pub use writer::ArchiveWriter;

/// A table of the archive at one version: what a reader needs to scan it.
#[derive(Debug, Clone)]
pub struct TableSnapshot {
    /// Folder in the archive: a log type's name, `rejects`, `blanks` or `chunks`.
    pub name: String,
    /// Stored columns (plain strings, no dictionaries), without the partition column `day`.
    pub schema: SchemaRef,
    /// Whether the table is partitioned by `day` (date; null for event times out of range).
    pub partitioned: bool,
    /// Delta version.
    pub version: i64,
    /// Live data files.
    pub files: Vec<DataFile>,
}

impl TableSnapshot {
    /// The table of a log type of which the archive holds nothing yet.
    pub fn empty(table: &crate::model::Table) -> Result<Self, LakeError> {
        let layout = schema::Layout::of_type(table)?;
        Ok(Self {
            name: layout.name,
            schema: layout.schema,
            partitioned: true,
            version: -1,
            files: Vec::new(),
        })
    }
}

/// A live Parquet file of a table. It may lack columns that the table gained later, and holds timestamps in
/// milliseconds where all of its values are whole ones (see `parquet_settings`).
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// Location relative to the archive's root, URL-decoded.
    pub path: String,
    /// Bytes on disk.
    pub size_bytes: u64,
    /// Days since the epoch, `None` for the null partition or an unpartitioned table.
    pub day: Option<i32>,
    /// Rows.
    pub num_rows: u64,
    /// Earliest and latest `timestamp`, microseconds since the epoch, where the table has one.
    pub time_range: Option<(i64, i64)>,
}

/// Shared handle of a stored log type file.
pub type TypeText = Arc<str>;
