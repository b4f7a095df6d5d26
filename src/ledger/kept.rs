//! Rejects and blanks of a chunk as rows of their tables.
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;

use super::CHUNK_ID;
use crate::model::{ByteRange, DecodedBatch};

/// Columns of the table `rejects`.
pub fn reject_columns() -> SchemaRef {
    schema(&[
        (CHUNK_ID, DataType::Int64),
        ("line", DataType::Int32),
        ("piece", DataType::Int32),
        ("offset", DataType::Int64),
        ("file", DataType::Utf8),
        ("column", DataType::Int32),
        ("log_type", DataType::Utf8),
        ("reason", DataType::Utf8),
        ("bytes", DataType::Binary),
    ])
}

/// Columns of the table `blanks`.
pub fn blank_columns() -> SchemaRef {
    schema(&[(CHUNK_ID, DataType::Int64), ("line", DataType::Int32), ("bytes", DataType::Binary)])
}

pub(super) fn schema(columns: &[(&str, DataType)]) -> SchemaRef {
    let fields: Vec<_> = columns.iter().map(|(name, kind)| Field::new(*name, kind.clone(), true)).collect();
    Arc::new(Schema::new(fields))
}

/// The chunk's rejects, in line order.
pub fn reject_rows(batch: &DecodedBatch) -> Result<RecordBatch, ArrowError> {
    let rejects = &batch.rejects;
    let ByteRange { first_byte, .. } = batch.record.range;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![batch.record.chunk_id; rejects.len()])),
        Arc::new(Int32Array::from_iter_values(rejects.iter().map(|reject| reject.line.cast_signed()))),
        Arc::new(Int32Array::from_iter_values(rejects.iter().map(|reject| reject.piece.cast_signed()))),
        Arc::new(Int64Array::from_iter_values(
            rejects.iter().map(|reject| (first_byte + u64::from(reject.span.0)).cast_signed()),
        )),
        Arc::new(StringArray::from_iter_values(rejects.iter().map(|_| &batch.record.source.path))),
        Arc::new(Int32Array::from_iter_values(rejects.iter().map(|reject| reject.column.cast_signed()))),
        Arc::new(rejects.iter().map(|reject| reject.log_type.as_deref()).collect::<StringArray>()),
        Arc::new(StringArray::from_iter_values(rejects.iter().map(|reject| reject.reason.as_str()))),
        Arc::new(BinaryArray::from_iter_values(rejects.iter().map(|reject| kept_bytes(batch, reject.span)))),
    ];
    RecordBatch::try_new(reject_columns(), columns)
}

/// The chunk's blanks, in line order.
pub fn blank_rows(batch: &DecodedBatch) -> Result<RecordBatch, ArrowError> {
    let blanks = &batch.blanks;
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(vec![batch.record.chunk_id; blanks.len()])),
        Arc::new(Int32Array::from_iter_values(blanks.iter().map(|blank| blank.line.cast_signed()))),
        Arc::new(BinaryArray::from_iter_values(blanks.iter().map(|blank| kept_bytes(batch, blank.span)))),
    ];
    RecordBatch::try_new(blank_columns(), columns)
}

fn kept_bytes(batch: &DecodedBatch, span: (u32, u32)) -> &[u8] {
    &batch.bytes[span.0 as usize..span.1 as usize]
}
