//! Postgres' binary COPY format: Arrow columns -> bytes, bytes -> Arrow batches.
//!
//! ```text
//! stream   HEADER | row | row | .. | TRAILER
//!
//! HEADER   50 47 43 4F 50 59 0A FF 0D 0A 00 | 00 00 00 00 | 00 00 00 00
//!          P  G  C  O  P  Y  \n    \r \n \0 | flags i32   | length of an extension i32
//! row      number of fields i16 | field | field | ..
//! field    length of the value i32, -1: NULL | value
//! TRAILER  FF FF                                            a number of fields of -1
//!
//! value    bool         1 byte, 0 or 1
//!          int2 4 8     two's complement
//!          float8       IEEE 754
//!          timestamptz  i64, microseconds since 2000-01-01 00:00 UTC
//!          text bytea   the bytes
//!          jsonb        version u8 = 1 | the text
//!          inet         family u8, 2: v4, 3: v6 | prefix bits u8 | is cidr u8 | 4 or 16 u8 | address
//!          text[]       dimensions i32, 0 or 1 | has NULL i32 | oid of text | number of texts i32 | first index i32
//!                       | length, text | length, text | ..   (nothing behind the oid without a dimension)
//! ```
//!
//! All integers are big-endian. The layouts of values are those of each type's `recv` function in Postgres'
//! `src/backend/utils/adt`; the tests hold them against the crate `postgres-types` and a real server.
use arrow::datatypes::{DataType, TimeUnit};
use thiserror::Error;

mod builder;
mod column;
mod decode;
mod encode;
mod inet;
mod names;

pub use decode::{CopyDecodeError, CopyDecoder};
pub use encode::{CopyEncodeError, CopyEncoder, Rows};

/// What a stream begins with: signature, no flags, no extension.
pub const HEADER: [u8; 19] = *b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";

/// What a stream ends with.
pub const TRAILER: [u8; 2] = (-1i16).to_be_bytes();

/// Length of [`HEADER`]'s signature.
const SIGNATURE_BYTES: usize = 11;

/// A NULL field: a length of -1, no value.
const NULL: [u8; 4] = (-1i32).to_be_bytes();

/// 2000-01-01, where Postgres counts from, in microseconds since 1970-01-01.
const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Version of jsonb's wire format.
const JSONB_VERSION: u8 = 1;

/// A type of Postgres column that rows are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PgType {
    /// `boolean`
    Bool,
    /// `smallint`
    Int2,
    /// `integer`
    Int4,
    /// `bigint`
    Int8,
    /// `double precision`
    Float8,
    /// `text`
    Text,
    /// `inet`
    Inet,
    /// `timestamp with time zone`
    Timestamptz,
    /// `json`: the text as it was written
    Json,
    /// `jsonb`
    Jsonb,
    /// `bytea`
    Bytea,
    /// `text[]`: names, with commas between them in Arrow. The ledger alone has such a column.
    Names,
}

/// A Postgres type that no column of ours has.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("postgres type {0} is not one that rows are stored in; use {names}", names = names())]
pub struct UnknownPgType(String);

fn names() -> String {
    PgType::ALL.map(PgType::name).join(" ")
}

impl PgType {
    /// All that a column of a log type may have.
    pub const ALL: [PgType; 11] = [
        Self::Bool,
        Self::Int2,
        Self::Int4,
        Self::Int8,
        Self::Float8,
        Self::Text,
        Self::Inet,
        Self::Timestamptz,
        Self::Json,
        Self::Jsonb,
        Self::Bytea,
    ];

    /// Name in `pg_type`, which SQL accepts too.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::Int2 => "int2",
            Self::Int4 => "int4",
            Self::Int8 => "int8",
            Self::Float8 => "float8",
            Self::Text => "text",
            Self::Inet => "inet",
            Self::Timestamptz => "timestamptz",
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Bytea => "bytea",
            Self::Names => "_text",
        }
    }

    /// Name in the SQL standard, which `format_type` prints.
    pub fn sql_name(self) -> &'static str {
        match self {
            Self::Bool => "boolean",
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Float8 => "double precision",
            Self::Timestamptz => "timestamp with time zone",
            Self::Names => "text[]",
            Self::Text | Self::Inet | Self::Json | Self::Jsonb | Self::Bytea => self.name(),
        }
    }

    /// Object id, the same in every database (`src/include/catalog/pg_type.dat`).
    pub fn oid(self) -> u32 {
        match self {
            Self::Bool => 16,
            Self::Bytea => 17,
            Self::Int8 => 20,
            Self::Int2 => 21,
            Self::Int4 => 23,
            Self::Text => 25,
            Self::Float8 => 701,
            Self::Inet => 869,
            Self::Timestamptz => 1184,
            Self::Json => 114,
            Self::Jsonb => 3802,
            Self::Names => 1009,
        }
    }

    /// The type of either name.
    pub fn from_name(name: &str) -> Result<Self, UnknownPgType> {
        let is_named = |of: &Self| of.name() == name || of.sql_name() == name;
        Self::ALL.into_iter().find(is_named).ok_or_else(|| UnknownPgType(name.to_owned()))
    }

    /// The type of an object id; names are none that anybody's table may have.
    pub fn from_oid(oid: u32) -> Result<Self, UnknownPgType> {
        let has_oid = |of: &Self| of.oid() == oid;
        Self::ALL.into_iter().find(has_oid).ok_or_else(|| UnknownPgType(format!("of oid {oid}")))
    }

    /// Arrow type that values are read back as. To write, text, inet and jsonb may be dictionaries as well.
    pub fn arrow_type(self) -> DataType {
        match self {
            Self::Bool => DataType::Boolean,
            Self::Int2 => DataType::Int16,
            Self::Int4 => DataType::Int32,
            Self::Int8 => DataType::Int64,
            Self::Float8 => DataType::Float64,
            Self::Text | Self::Inet | Self::Json | Self::Jsonb | Self::Names => DataType::Utf8,
            Self::Timestamptz => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            Self::Bytea => DataType::Binary,
        }
    }
}

#[cfg(test)]
mod tests;
