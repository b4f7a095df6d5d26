//! What every sink keeps besides rows, in one form: ledger entries, rejects and blanks as rows, and the ledger
//! folded per source.
//!
//! Pure. The archive and Postgres have the same columns, so that one account of what was read serves both.
//! Deliberately absent: storage.
mod committed;
mod division;
mod kept;
mod part;
mod records;

pub use committed::{Committed, Verdict, newest};
pub use division::{Counted, Division, LeftOut, LeftOutOfPlace, OpenLine, Uncounted, Undivided, divide};
pub use kept::{blank_columns, blank_rows, reject_columns, reject_rows};
pub use part::{Share, Split};
pub use records::{EntryError, columns, of_rows, to_rows, unhex};

/// The ledger's table.
pub const CHUNKS: &str = "chunks";
/// The table of lines that no log type accepts.
pub const REJECTS: &str = "rejects";
/// The table of lines of white space only.
pub const BLANKS: &str = "blanks";
/// Column that names the chunk of a row, in every table.
pub const CHUNK_ID: &str = "chunk_id";

/// Arrow type of every point in time: microseconds since the epoch, UTC.
fn time_type() -> arrow::datatypes::DataType {
    arrow::datatypes::DataType::Timestamp(arrow::datatypes::TimeUnit::Microsecond, Some("UTC".into()))
}

#[cfg(test)]
pub(crate) mod tests;
