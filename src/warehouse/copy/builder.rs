//! One builder per column: values of the wire -> an Arrow array.
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Float64Builder, Int16Builder, Int32Builder, Int64Builder,
    StringBuilder, TimestampMicrosecondBuilder,
};

use super::inet::Inet;
use super::{JSONB_VERSION, POSTGRES_EPOCH, PgType, names};

#[derive(Debug)]
pub(super) enum Builder {
    Bool(BooleanBuilder),
    Int2(Int16Builder),
    Int4(Int32Builder),
    Int8(Int64Builder),
    Float8(Float64Builder),
    Text(StringBuilder),
    Inet(StringBuilder),
    Timestamptz(TimestampMicrosecondBuilder),
    Jsonb(StringBuilder),
    Bytea(BinaryBuilder),
    Names(StringBuilder),
}

/// Runs the same expression on whichever builder it is.
macro_rules! with_builder {
    ($self:expr, $builder:ident => $run:expr) => {
        match $self {
            Builder::Bool($builder) => $run,
            Builder::Int2($builder) => $run,
            Builder::Int4($builder) => $run,
            Builder::Int8($builder) => $run,
            Builder::Float8($builder) => $run,
            Builder::Text($builder) | Builder::Inet($builder) | Builder::Jsonb($builder) => $run,
            Builder::Names($builder) => $run,
            Builder::Timestamptz($builder) => $run,
            Builder::Bytea($builder) => $run,
        }
    };
}

impl Builder {
    pub(super) fn new(pg_type: PgType) -> Self {
        match pg_type {
            PgType::Bool => Self::Bool(BooleanBuilder::new()),
            PgType::Int2 => Self::Int2(Int16Builder::new()),
            PgType::Int4 => Self::Int4(Int32Builder::new()),
            PgType::Int8 => Self::Int8(Int64Builder::new()),
            PgType::Float8 => Self::Float8(Float64Builder::new()),
            PgType::Text | PgType::Json => Self::Text(StringBuilder::new()),
            PgType::Inet => Self::Inet(StringBuilder::new()),
            PgType::Timestamptz => Self::Timestamptz(
                TimestampMicrosecondBuilder::new().with_data_type(PgType::Timestamptz.arrow_type()),
            ),
            PgType::Jsonb => Self::Jsonb(StringBuilder::new()),
            PgType::Bytea => Self::Bytea(BinaryBuilder::new()),
            PgType::Names => Self::Names(StringBuilder::new()),
        }
    }

    pub(super) fn append_null(&mut self) {
        with_builder!(self, builder => builder.append_null());
    }

    /// Appends a value; `None` if it is none of the type.
    pub(super) fn append(&mut self, value: &[u8]) -> Option<()> {
        match self {
            Self::Bool(builder) => match value {
                [0] => builder.append_value(false),
                [1] => builder.append_value(true),
                _ => return None,
            },
            Self::Int2(builder) => builder.append_value(i16::from_be_bytes(value.try_into().ok()?)),
            Self::Int4(builder) => builder.append_value(i32::from_be_bytes(value.try_into().ok()?)),
            Self::Int8(builder) => builder.append_value(i64::from_be_bytes(value.try_into().ok()?)),
            Self::Float8(builder) => builder.append_value(f64::from_be_bytes(value.try_into().ok()?)),
            Self::Text(builder) => builder.append_value(simdutf8::basic::from_utf8(value).ok()?),
            Self::Inet(builder) => {
                // the builder's own buffer takes the text: no string per value
                write!(builder, "{}", Inet::from_wire(value)?).ok()?;
                builder.append_value("");
            }
            Self::Timestamptz(builder) => {
                let micros = i64::from_be_bytes(value.try_into().ok()?);
                // the least and the greatest are Postgres' infinities
                let is_finite = micros != i64::MIN && micros != i64::MAX;
                builder.append_value(micros.checked_add(POSTGRES_EPOCH).filter(|_| is_finite)?);
            }
            Self::Jsonb(builder) => {
                let text = value.strip_prefix(&[JSONB_VERSION])?;
                builder.append_value(simdutf8::basic::from_utf8(text).ok()?);
            }
            Self::Bytea(builder) => builder.append_value(value),
            Self::Names(builder) => builder.append_value(names::read(value)?),
        }
        Some(())
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        with_builder!(self, builder => Arc::new(builder.finish()))
    }
}
