//! Renders rows back to the lines they were read from.
//!
//! Invariant (law 2): a row without `raw` renders to its line byte for byte, its line ending aside.
use std::fmt::Write;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int16Array, RecordBatch, StringArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int16Type, Int64Type, TimestampMicrosecondType};
use thiserror::Error;

use super::template::Part;
use super::{ColumnType, LogType, split_form, timestamp};

/// A batch that is not of this log type.
#[derive(Debug, Error)]
#[error("rows of log type {log_type} cannot be rendered: {reason}")]
pub struct RenderError {
    log_type: String,
    reason: String,
}

impl RenderError {
    fn new(log_type: &LogType, reason: impl ToString) -> Self {
        Self { log_type: log_type.name().to_owned(), reason: reason.to_string() }
    }
}

/// The rows of one batch, ready to be rendered. Strings may be plain or dictionary-encoded.
#[derive(Debug)]
pub struct Renderer<'a> {
    log_type: &'a LogType,
    columns: Vec<Option<Values>>,
    form: Int16Array,
    raw: BinaryArray,
}

#[derive(Debug)]
enum Values {
    Text(StringArray),
    Integer(arrow::array::Int64Array),
    Float(Float64Array),
    Bool(BooleanArray),
    Timestamp(arrow::array::TimestampMicrosecondArray),
}

impl<'a> Renderer<'a> {
    /// Looks the type's columns up in `batch` by name; a column that an older version of the table lacks
    /// is NULL.
    pub fn try_new(log_type: &'a LogType, batch: &RecordBatch) -> Result<Self, RenderError> {
        let fail = |reason: String| RenderError { log_type: log_type.name().to_owned(), reason };
        let system = |name: &str, data_type: DataType| {
            let column =
                batch.column_by_name(name).ok_or_else(|| fail(format!("there is no column {name}")))?;
            cast(column, &data_type).map_err(|error| fail(error.to_string()))
        };
        let columns = log_type
            .columns
            .iter()
            .map(|column| {
                batch
                    .column_by_name(&column.name)
                    .map(|array| Values::try_new(column.column_type, array))
                    .transpose()
                    .map_err(|error| RenderError::new(log_type, error))
            })
            .collect::<Result<_, _>>()?;
        let form = system("form", DataType::Int16)?.as_primitive::<Int16Type>().clone();
        let raw = system("raw", DataType::Binary)?.as_binary::<i32>().clone();
        Ok(Self { log_type, columns, form, raw })
    }

    /// Appends the line of `row`, without its ending; says whether the bytes are kept ones, which hold
    /// their own carriage return.
    pub fn line(&self, row: usize, out: &mut Vec<u8>) -> bool {
        if self.raw.is_valid(row) {
            out.extend_from_slice(self.raw.value(row));
            return true;
        }
        let (variant, timestamp_form) = split_form(self.form.value(row));
        let Some(variant) = self.log_type.variants.get(usize::from(variant)) else { return false };
        for part in &variant.parts {
            match part {
                Part::Literal(bytes) => out.extend_from_slice(bytes),
                Part::Spaces => out.push(b' '),
                Part::Capture { name, .. } => {
                    let position = self.log_type.columns.iter().position(|column| column.name == *name);
                    let values = position.and_then(|position| self.columns[position].as_ref());
                    match values {
                        Some(Values::Timestamp(values))
                            if position == Some(self.log_type.timestamp_column) =>
                        {
                            timestamp::render(values.value(row), timestamp_form, out);
                        }
                        Some(values) => values.text(row, out),
                        None => {}
                    }
                }
            }
        }
        false
    }

    /// Appends the text of the row's event time as its line has it.
    pub fn timestamp_text(&self, row: usize, out: &mut Vec<u8>) {
        let Some(Values::Timestamp(values)) = &self.columns[self.log_type.timestamp_column] else { return };
        let form = split_form(self.form.value(row)).1;
        if form != timestamp::OTHER {
            return timestamp::render(values.value(row), form, out);
        }
        // a line that starts with its event time shows how it was written
        let kept = if self.raw.is_valid(row) { self.raw.value(row).trim_ascii_start() } else { &[] };
        match timestamp::Parser::default().parse(kept, values.value(row)) {
            Some(read) if read.micros == values.value(row) => out.extend_from_slice(&kept[..read.len_bytes]),
            _ => timestamp::render_plain(values.value(row), out),
        }
    }

    /// Appends a column's value as text; `false` if it is NULL.
    pub fn value_text(&self, column: usize, row: usize, out: &mut Vec<u8>) -> bool {
        match &self.columns[column] {
            Some(values) if values.is_valid(row) => {
                values.text(row, out);
                true
            }
            _ => false,
        }
    }
}

impl Values {
    fn try_new(column_type: ColumnType, array: &ArrayRef) -> Result<Self, arrow::error::ArrowError> {
        Ok(match column_type {
            ColumnType::String | ColumnType::Ip | ColumnType::Json => {
                Self::Text(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
            }
            ColumnType::U8 | ColumnType::U16 | ColumnType::U32 | ColumnType::U64 | ColumnType::I64 => {
                Self::Integer(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            ColumnType::F64 => Self::Float(cast(array, &DataType::Float64)?.as_primitive().clone()),
            ColumnType::Bool => Self::Bool(array.as_boolean().clone()),
            ColumnType::Timestamp => Self::Timestamp(
                cast(array, &super::timestamp_type())?.as_primitive::<TimestampMicrosecondType>().clone(),
            ),
        })
    }

    fn is_valid(&self, row: usize) -> bool {
        match self {
            Self::Text(values) => values.is_valid(row),
            Self::Integer(values) => values.is_valid(row),
            Self::Float(values) => values.is_valid(row),
            Self::Bool(values) => values.is_valid(row),
            Self::Timestamp(values) => values.is_valid(row),
        }
    }

    fn text(&self, row: usize, out: &mut Vec<u8>) {
        match self {
            Self::Text(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Self::Integer(values) => push_display(values.value(row), out),
            Self::Float(values) => push_display(values.value(row), out),
            Self::Bool(values) => push_display(values.value(row), out),
            Self::Timestamp(values) => timestamp::render_plain(values.value(row), out),
        }
    }
}

fn push_display(value: impl std::fmt::Display, out: &mut Vec<u8>) {
    struct Ascii<'a>(&'a mut Vec<u8>);
    impl Write for Ascii<'_> {
        fn write_str(&mut self, text: &str) -> std::fmt::Result {
            self.0.extend_from_slice(text.as_bytes());
            Ok(())
        }
    }
    // writing to memory cannot fail
    let _infallible = write!(Ascii(out), "{value}");
}
