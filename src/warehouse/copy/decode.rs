//! A binary COPY, in pieces cut anywhere -> Arrow batches.
//!
//! Invariants: where the pieces are cut never matters, not even to where batches end; a row is taken whole or
//! kept back; nothing read from the stream can make it panic. Deliberately absent: dictionaries. What is read
//! back is compared and joined, and plain columns suit that.
use std::collections::VecDeque;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use thiserror::Error;

use super::builder::Builder;
use super::{HEADER, PgType, SIGNATURE_BYTES};

/// Rows per batch, unless told otherwise.
const BATCH_ROWS: usize = 8192;

/// A batch ends with the row that brings its values to this: Arrow's offsets end at 2 GiB, memory before that.
const BATCH_BYTES: usize = 32 << 20;

/// No value of Postgres is longer (`MaxAllocSize`): a longer one is not waited for.
const MAX_VALUE_BYTES: i32 = 1 << 30;

/// A stream that cannot be read as rows of the schema. Columns are counted from 1, rows from 0.
#[derive(Debug, Error)]
pub enum CopyDecodeError {
    /// Another number of types than columns.
    #[error("the schema has {fields} columns, but {types} postgres types are given; give one each")]
    Types {
        /// Columns of the schema.
        fields: usize,
        /// Types given.
        types: usize,
    },
    /// A column cannot hold the values of its Postgres type.
    #[error("column {name} is {arrow_type} and cannot hold {pg_type}; make it {expected}", pg_type = .pg_type.name(), expected = .pg_type.arrow_type())]
    Type {
        /// Name of the column.
        name: String,
        /// Its Arrow type.
        arrow_type: DataType,
        /// Its Postgres type.
        pg_type: PgType,
    },
    /// The signature is missing.
    #[error("this is not a binary COPY of postgres; make it with COPY .. TO STDOUT (FORMAT binary)")]
    Signature,
    /// The header says what no server since version 12 does.
    #[error(
        "the COPY header has flags {flags:#x} and an extension of {extension} bytes; \
         make the COPY with postgres 12 or later"
    )]
    Header {
        /// Its flags.
        flags: i32,
        /// Length of its extension.
        extension: i32,
    },
    /// A row of another table, or no row at all.
    #[error("row {row} of the COPY has {found} fields, not {expected}; name the columns in the COPY")]
    Fields {
        /// Which row.
        row: u64,
        /// Columns of the schema.
        expected: usize,
        /// Fields of the row.
        found: i16,
    },
    /// A field whose length its type does not have.
    #[error("row {row} of the COPY has a field of {len} bytes in column {column}; the stream is damaged")]
    FieldLength {
        /// Which row.
        row: u64,
        /// Which column.
        column: usize,
        /// Its length.
        len: i32,
    },
    /// A value that its type does not have, or Arrow cannot hold.
    #[error("row {row} of the COPY holds {value} in column {column}, which is no {pg_type} that can be read; leave it out of the COPY", pg_type = .pg_type.name())]
    Value {
        /// Which row.
        row: u64,
        /// Which column.
        column: usize,
        /// What the column holds.
        pg_type: PgType,
        /// The first bytes of the value, in hexadecimal.
        value: String,
    },
    /// There is more behind the end.
    #[error("the COPY goes on behind its trailer, after {rows} rows; pass one COPY at a time")]
    BehindTrailer {
        /// Rows of the stream.
        rows: u64,
    },
    /// The stream ends before its trailer.
    #[error("the COPY breaks off after {rows} rows, without its trailer; read it again")]
    Torn {
        /// Rows of the stream.
        rows: u64,
    },
    /// Rows that the schema does not allow.
    #[error("rows of the COPY do not fit the schema")]
    Batch(#[from] ArrowError),
    /// The stream went wrong before.
    #[error("the COPY could not be read before; begin a new one")]
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum State {
    Header,
    Rows,
    Behind,
    Failed,
}

/// Reads one COPY: [`push`](Self::push) what has arrived, take every [`next_batch`](Self::next_batch), and
/// [`flush`](Self::flush) at the end.
#[derive(Debug)]
pub struct CopyDecoder {
    schema: SchemaRef,
    types: Vec<PgType>,
    builders: Vec<Builder>,
    batch_rows: usize,
    state: State,
    /// The beginning of what has not arrived whole.
    kept: Vec<u8>,
    /// Rows read, and those of them that wait in the builders.
    rows: u64,
    num_waiting: usize,
    waiting_bytes: usize,
    ready: VecDeque<RecordBatch>,
}

impl CopyDecoder {
    /// A decoder of rows whose fields are of `types`, in the order of the schema's columns. Each column must be
    /// of its type's [`PgType::arrow_type`].
    pub fn try_new(schema: SchemaRef, types: Vec<PgType>) -> Result<Self, CopyDecodeError> {
        if schema.fields().len() != types.len() {
            return Err(CopyDecodeError::Types { fields: schema.fields().len(), types: types.len() });
        }
        for (field, pg_type) in schema.fields().iter().zip(&types) {
            if *field.data_type() != pg_type.arrow_type() {
                let (name, arrow_type) = (field.name().clone(), field.data_type().clone());
                return Err(CopyDecodeError::Type { name, arrow_type, pg_type: *pg_type });
            }
        }
        Ok(Self {
            schema,
            builders: types.iter().map(|pg_type| Builder::new(*pg_type)).collect(),
            types,
            batch_rows: BATCH_ROWS,
            state: State::Header,
            kept: Vec::new(),
            rows: 0,
            num_waiting: 0,
            waiting_bytes: 0,
            ready: VecDeque::new(),
        })
    }

    /// Sets how many rows a batch has; 1 at least.
    pub fn with_batch_rows(mut self, batch_rows: usize) -> Self {
        self.batch_rows = batch_rows.max(1);
        self
    }

    /// Takes the next bytes of the stream. After an error nothing more can be read.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), CopyDecodeError> {
        let result = if self.kept.is_empty() {
            self.decode(bytes).map(|len| self.kept.extend_from_slice(&bytes[len..]))
        } else {
            let mut kept = std::mem::take(&mut self.kept);
            kept.extend_from_slice(bytes);
            self.decode(&kept).map(|len| {
                kept.drain(..len);
                self.kept = kept;
            })
        };
        if result.is_err() {
            self.state = State::Failed;
        }
        result
    }

    /// The next full batch.
    pub fn next_batch(&mut self) -> Option<RecordBatch> {
        self.ready.pop_front()
    }

    /// The rows that are left when the stream has ended, after the last [`next_batch`](Self::next_batch);
    /// an error if it has not come to its end.
    pub fn flush(&mut self) -> Result<Option<RecordBatch>, CopyDecodeError> {
        match self.state {
            State::Behind => {}
            State::Failed => return Err(CopyDecodeError::Failed),
            State::Header | State::Rows => return Err(CopyDecodeError::Torn { rows: self.rows }),
        }
        self.finish_batch()?;
        Ok(self.ready.pop_front())
    }

    /// Reads what is whole; returns its length.
    fn decode(&mut self, bytes: &[u8]) -> Result<usize, CopyDecodeError> {
        let mut rest = bytes;
        loop {
            let step = match self.state {
                State::Failed => return Err(CopyDecodeError::Failed),
                State::Behind if rest.is_empty() => None,
                State::Behind => return Err(CopyDecodeError::BehindTrailer { rows: self.rows }),
                State::Header => self.header(rest)?,
                State::Rows => self.row(rest)?,
            };
            match step {
                Some(behind) => rest = behind,
                None => return Ok(bytes.len() - rest.len()),
            }
        }
    }

    /// Reads the header; returns what is behind it, `None` if it is not whole.
    fn header<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, CopyDecodeError> {
        let num_seen = bytes.len().min(SIGNATURE_BYTES);
        if bytes[..num_seen] != HEADER[..num_seen] {
            return Err(CopyDecodeError::Signature);
        }
        let mut rest = &bytes[num_seen..];
        let (Some(flags), Some(extension)) = (take_i32(&mut rest), take_i32(&mut rest)) else {
            return Ok(None);
        };
        if flags != 0 || extension != 0 {
            return Err(CopyDecodeError::Header { flags, extension });
        }
        self.state = State::Rows;
        Ok(Some(rest))
    }

    /// Reads a row or the trailer; returns what is behind it, `None` if it is not whole.
    fn row<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, CopyDecodeError> {
        let Some((num_fields, fields)) = bytes.split_first_chunk() else { return Ok(None) };
        let num_fields = i16::from_be_bytes(*num_fields);
        if num_fields == -1 {
            self.state = State::Behind;
            return Ok(Some(fields));
        }
        if usize::try_from(num_fields) != Ok(self.types.len()) {
            let (row, expected) = (self.rows, self.types.len());
            return Err(CopyDecodeError::Fields { row, expected, found: num_fields });
        }
        let mut rest = fields;
        for column in 1..=self.types.len() {
            let Some(len) = take_i32(&mut rest) else { return Ok(None) };
            if !(-1..=MAX_VALUE_BYTES).contains(&len) {
                return Err(CopyDecodeError::FieldLength { row: self.rows, column, len });
            }
            let Some((_, behind)) = rest.split_at_checked(len.max(0) as usize) else { return Ok(None) };
            rest = behind;
        }
        self.append(fields)?;
        self.waiting_bytes += fields.len() - rest.len();
        if self.num_waiting == self.batch_rows || self.waiting_bytes >= BATCH_BYTES {
            self.finish_batch()?;
        }
        Ok(Some(rest))
    }

    /// Appends the fields of a whole row to the builders.
    fn append(&mut self, mut fields: &[u8]) -> Result<(), CopyDecodeError> {
        for (index, builder) in self.builders.iter_mut().enumerate() {
            let len = take_i32(&mut fields).unwrap_or(-1);
            let Ok(len) = usize::try_from(len) else {
                builder.append_null();
                continue;
            };
            let (value, behind) = fields.split_at(len);
            fields = behind;
            if builder.append(value).is_none() {
                return Err(CopyDecodeError::Value {
                    row: self.rows,
                    column: index + 1,
                    pg_type: self.types[index],
                    value: hexadecimal(value),
                });
            }
        }
        self.rows += 1;
        self.num_waiting += 1;
        Ok(())
    }

    fn finish_batch(&mut self) -> Result<(), CopyDecodeError> {
        if self.num_waiting > 0 {
            let columns = self.builders.iter_mut().map(Builder::finish).collect();
            let num_rows = RecordBatchOptions::new().with_row_count(Some(self.num_waiting));
            let batch = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &num_rows)?;
            self.ready.push_back(batch);
            (self.num_waiting, self.waiting_bytes) = (0, 0);
        }
        Ok(())
    }
}

fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    let (value, behind) = bytes.split_first_chunk()?;
    *bytes = behind;
    Some(i32::from_be_bytes(*value))
}

fn hexadecimal(value: &[u8]) -> String {
    let mut text = String::from("0x");
    for byte in value.iter().take(16) {
        // writing to memory cannot fail
        let _infallible = write!(text, "{byte:02x}");
    }
    text + if value.len() > 16 { ".." } else { "" }
}
