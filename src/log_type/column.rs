//! Column types: what a value of a log line may be, and how it is stored.
use arrow::datatypes::{DataType, TimeUnit};
use serde::{Deserialize, Serialize};

/// Declared type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ColumnType {
    /// UTF-8 text without NUL.
    String,
    /// IPv4 or IPv6 address; canonical text.
    Ip,
    /// 0 to 255; stored as 16-bit signed.
    U8,
    /// 0 to 65535; stored as 32-bit signed.
    U16,
    /// 0 to 2^32 - 1; stored as 64-bit signed.
    U32,
    /// 0 to 2^63 - 1; stored as 64-bit signed (a larger value is NULL, its text kept).
    U64,
    /// 64-bit signed.
    I64,
    /// 64-bit float, finite.
    F64,
    /// `true` or `false`.
    Bool,
    /// A point in time, microseconds, UTC.
    Timestamp,
    /// A JSON value, kept as its text.
    Json,
}

impl ColumnType {
    /// All of them.
    pub const ALL: [ColumnType; 11] = [
        Self::String,
        Self::Ip,
        Self::U8,
        Self::U16,
        Self::U32,
        Self::U64,
        Self::I64,
        Self::F64,
        Self::Bool,
        Self::Timestamp,
        Self::Json,
    ];

    /// Name in a type file.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Ip => "ip",
            Self::U8 => "u8",
            Self::U16 => "u16",
            Self::U32 => "u32",
            Self::U64 => "u64",
            Self::I64 => "i64",
            Self::F64 => "f64",
            Self::Bool => "bool",
            Self::Timestamp => "timestamp",
            Self::Json => "json",
        }
    }

    /// Type in a batch. Strings and addresses are dictionary-encoded: security logs repeat them.
    pub fn arrow_type(self) -> DataType {
        match self {
            Self::String | Self::Ip => {
                DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
            }
            Self::U8 => DataType::Int16,
            Self::U16 => DataType::Int32,
            Self::U32 | Self::U64 | Self::I64 => DataType::Int64,
            Self::F64 => DataType::Float64,
            Self::Bool => DataType::Boolean,
            Self::Timestamp => timestamp_type(),
            Self::Json => DataType::Utf8,
        }
    }

    /// Type in Postgres.
    pub fn postgres_type(self) -> &'static str {
        match self {
            Self::String => "text",
            Self::Ip => "inet",
            Self::U8 => "smallint",
            Self::U16 => "integer",
            Self::U32 | Self::U64 | Self::I64 => "bigint",
            Self::F64 => "double precision",
            Self::Bool => "boolean",
            Self::Timestamp => "timestamptz",
            // not jsonb, which would not give the text back as it was
            Self::Json => "json",
        }
    }

    /// Largest value of an integer column that can be stored.
    pub fn integer_max(self) -> Option<u64> {
        match self {
            Self::U8 => Some(u64::from(u8::MAX)),
            Self::U16 => Some(u64::from(u16::MAX)),
            Self::U32 => Some(u64::from(u32::MAX)),
            Self::U64 | Self::I64 => Some(i64::MAX as u64),
            _ => None,
        }
    }
}

/// Arrow type of every point in time.
pub fn timestamp_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// A column of a log type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Name in lines, batches and tables.
    pub name: String,
    /// Declared type.
    pub column_type: ColumnType,
    /// Analysts look it up by value.
    pub index: bool,
    /// A `key_value` line without it is not of this type.
    pub required: bool,
    /// A template in which its value has a space does not match: another one may.
    pub word: bool,
    /// What it holds, for people.
    pub doc: String,
}
