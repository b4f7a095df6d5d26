//! Rows -> the bytes of one Parquet file, and the Delta action that adds it.
//!
//! Row order is arrival order: lines of a chunk ascend, chunks of a source follow each other. Deliberately
//! absent: sorting, which would cost the line numbers their two bits each.
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit, TimestampMicrosecondType};
use bytes::Bytes;
use chrono::{NaiveDate, Utc};
use parquet::errors::ParquetError;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::data_file_name::data_file_name;
use super::parquet_writer::ParquetWriter;
use super::schema::{DAY, Layout};
use super::statistics::FileStatistics;
use super::{DataFile, LakeError};

/// Folder of rows without a usable day, as Hive names it.
const NULL_DAY: &str = "__HIVE_DEFAULT_PARTITION__";

/// A file ready to be put.
#[derive(Debug)]
pub(super) struct EncodedFile {
    /// Location relative to the archive's root.
    pub(super) path: String,
    pub(super) bytes: Bytes,
    /// The `add` action, for the file's table.
    pub(super) add: Value,
}

/// Encodes `batches`, which are of one schema, into one file of `layout` in the partition `day`.
pub(super) fn encode(
    layout: &Layout,
    day: Option<i32>,
    batches: &[RecordBatch],
) -> Result<EncodedFile, LakeError> {
    let failed = |cause: &dyn ToString| LakeError::encode(&layout.name, cause.to_string());
    let stats = FileStatistics::of(layout, batches).to_json(layout);
    let batches = in_whole_milliseconds(batches).map_err(|cause| failed(&cause))?;
    let bytes = write_parquet(layout, &batches).map_err(|cause| failed(&cause))?;

    let name = data_file_name(Sha256::new_with_prefix(&bytes));
    let (path, add) = add_action(layout, day, &name, bytes.len() as u64, &stats);
    Ok(EncodedFile { path, bytes, add })
}

/// One row group.
fn write_parquet(layout: &Layout, batches: &[RecordBatch]) -> Result<Bytes, ParquetError> {
    let schema = batches.first().map_or_else(|| Arc::clone(&layout.schema), RecordBatch::schema);
    let num_rows = batches.iter().map(RecordBatch::num_rows).sum();
    let mut file = ParquetWriter::try_new(Vec::new(), layout, &schema, num_rows)?;
    file.write(batches)?;
    Ok(Bytes::from(file.finish()?))
}

/// Where the file called `name` is, relative to the archive's root, and the `add` action for its table.
pub(super) fn add_action(
    layout: &Layout,
    day: Option<i32>,
    name: &str,
    len_bytes: u64,
    stats: &Value,
) -> (String, Value) {
    let (path, partition) = match (&layout.timestamp, day.and_then(date)) {
        (None, _) => (name.to_owned(), json!({})),
        (Some(_), None) => (format!("{DAY}={NULL_DAY}/{name}"), json!({DAY: null})),
        (Some(_), Some(date)) => (format!("{DAY}={date}/{name}"), json!({DAY: date.to_string()})),
    };
    let add = json!({"add": {
        "path": path,
        "partitionValues": partition,
        "size": len_bytes,
        "modificationTime": Utc::now().timestamp_millis(),
        "dataChange": true,
        "stats": stats.to_string(),
    }});
    (format!("{}/{path}", layout.name), add)
}

/// The `remove` action of a file that `encode` once made.
pub(super) fn remove_action(layout: &Layout, path: &str, file: &DataFile) -> Value {
    let partition = match &layout.timestamp {
        None => json!({}),
        Some(_) => json!({DAY: file.day.and_then(date).map(|date| date.to_string())}),
    };
    json!({"remove": {
        "path": path,
        "deletionTimestamp": Utc::now().timestamp_millis(),
        "dataChange": true,
        "extendedFileMetadata": true,
        "partitionValues": partition,
        "size": file.size_bytes,
    }})
}

fn date(day: i32) -> Option<NaiveDate> {
    NaiveDate::from_epoch_days(day)
}

/// Timestamp columns whose values are all whole milliseconds, in milliseconds; see `parquet_settings`.
fn in_whole_milliseconds(batches: &[RecordBatch]) -> Result<Vec<RecordBatch>, arrow::error::ArrowError> {
    let Some(first) = batches.first() else { return Ok(Vec::new()) };
    let schema = first.schema();
    let is_whole = |position: usize| {
        batches.iter().all(|batch| {
            let column = batch.column(position).as_primitive::<TimestampMicrosecondType>();
            column.iter().flatten().all(|micros| micros % 1000 == 0)
        })
    };
    let mut fields: Vec<Arc<Field>> = schema.fields().iter().cloned().collect();
    let mut whole = vec![false; fields.len()];
    for (position, field) in fields.iter_mut().enumerate() {
        if let DataType::Timestamp(TimeUnit::Microsecond, zone) = field.data_type()
            && is_whole(position)
        {
            let millis = DataType::Timestamp(TimeUnit::Millisecond, zone.clone());
            *field = Arc::new(Field::new(field.name(), millis, field.is_nullable()));
            whole[position] = true;
        }
    }
    let schema = Arc::new(Schema::new(fields));
    let in_millis = |column: &ArrayRef, zone: &DataType| -> ArrayRef {
        let micros = column.as_primitive::<TimestampMicrosecondType>();
        let millis: TimestampMillisecondArray = micros.unary(|micros| micros / 1000);
        Arc::new(millis.with_data_type(zone.clone()))
    };
    let convert = |batch: &RecordBatch| {
        let columns = batch.columns().iter().enumerate().map(|(position, column)| {
            if whole[position] {
                in_millis(column, schema.field(position).data_type())
            } else {
                Arc::clone(column)
            }
        });
        RecordBatch::try_new(Arc::clone(&schema), columns.collect())
    };
    batches.iter().map(convert).collect()
}
