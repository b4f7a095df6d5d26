//! The Postgres side: rows as the bytes of a binary COPY, and back; which rows belong to which day's partition.
//!
//! What is here is pure: no connection, no file. Deliberately absent: text COPY, which Postgres parses several
//! times slower, and SQL `INSERT`.
mod copy;
mod days;

pub use copy::{
    CopyDecodeError, CopyDecoder, CopyEncodeError, CopyEncoder, HEADER, PgType, Rows, TRAILER, UnknownPgType,
};
pub use days::{DayRows, split_by_day};
