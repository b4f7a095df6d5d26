//! The Postgres side: rows as the bytes of a binary COPY, and back.
//!
//! What is here is pure: no connection, no file. Deliberately absent: text COPY, which Postgres parses several
//! times slower, and SQL `INSERT`.
mod copy;

pub use copy::{
    CopyDecodeError, CopyDecoder, CopyEncodeError, CopyEncoder, HEADER, PgType, Rows, TRAILER, UnknownPgType,
};
