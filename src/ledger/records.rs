//! Ledger entries as rows of `chunks`, and back.
//!
//! Unsigned 64-bit numbers (identities, hashes, inodes) are stored by their bits as signed ones, names of tables with
//! commas between them.
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray,
};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Int32Type, Int64Type, SchemaRef, TimestampMicrosecondType,
};
use arrow::error::ArrowError;

use thiserror::Error;

use super::kept::schema;
use super::{CHUNK_ID, time_type};
use crate::model::{ByteRange, ChunkRecord, LineEnding, Piece, Source};

/// An entry of the ledger that cannot be read.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("entry {row} of the ledger lacks a required value")]
pub struct EntryError {
    row: usize,
}

/// Columns of an entry.
pub fn columns() -> SchemaRef {
    schema(&[
        (CHUNK_ID, DataType::Int64),
        ("source_id", DataType::Int64),
        ("file", DataType::Utf8),
        ("device", DataType::Int64),
        ("inode", DataType::Int64),
        ("generation", DataType::Int32),
        ("head_len", DataType::Int32),
        ("head_hash", DataType::Int64),
        ("first_byte", DataType::Int64),
        ("end_byte", DataType::Int64),
        ("content_sha256", DataType::Utf8),
        ("lines", DataType::Int64),
        ("rows", DataType::Int64),
        ("rejects", DataType::Int64),
        ("blanks", DataType::Int64),
        ("types", DataType::Utf8),
        ("min_timestamp", time_type()),
        ("max_timestamp", time_type()),
        ("line_ending", DataType::Utf8),
        ("final_newline", DataType::Boolean),
        ("piece", DataType::Int32),
        ("piece_last", DataType::Boolean),
        ("open", DataType::Boolean),
        ("reference_time", time_type()),
        ("committed_at", time_type()),
        ("writer", DataType::Utf8),
        ("elsewhere", DataType::Utf8),
    ])
}

/// Entries as rows. `committed_at` is in microseconds since the epoch.
pub fn to_rows(records: &[ChunkRecord], committed_at: i64, writer: &str) -> Result<RecordBatch, ArrowError> {
    let long = |value: &dyn Fn(&ChunkRecord) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(records.iter().map(value)))
    };
    let int = |value: &dyn Fn(&ChunkRecord) -> Option<i32>| -> ArrayRef {
        Arc::new(records.iter().map(value).collect::<Int32Array>())
    };
    let text = |value: &dyn Fn(&ChunkRecord) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(records.iter().map(value)))
    };
    let flag = |value: &dyn Fn(&ChunkRecord) -> Option<bool>| -> ArrayRef {
        Arc::new(records.iter().map(value).collect::<BooleanArray>())
    };
    let time = |value: &dyn Fn(&ChunkRecord) -> Option<i64>| -> ArrayRef {
        let times: TimestampMicrosecondArray = records.iter().map(value).collect();
        Arc::new(times.with_timezone("UTC"))
    };
    let values = vec![
        long(&|record| record.chunk_id),
        long(&|record| record.source.id.cast_signed()),
        text(&|record| record.source.path.clone()),
        long(&|record| record.source.device.cast_signed()),
        long(&|record| record.source.inode.cast_signed()),
        int(&|record| Some(record.source.generation.cast_signed())),
        int(&|record| Some(record.source.head_len_bytes.cast_signed())),
        long(&|record| record.source.head_hash.cast_signed()),
        long(&|record| record.range.first_byte.cast_signed()),
        long(&|record| record.range.end_byte.cast_signed()),
        text(&|record| hex(&record.content_sha256)),
        long(&|record| record.num_lines.cast_signed()),
        long(&|record| record.num_rows.cast_signed()),
        long(&|record| record.num_rejects.cast_signed()),
        long(&|record| record.num_blanks.cast_signed()),
        text(&|record| serde_json::to_value(&record.types).unwrap_or_default().to_string()),
        time(&|record| record.time_range.map(|range| range.0)),
        time(&|record| record.time_range.map(|range| range.1)),
        text(&|record| match record.line_ending {
            LineEnding::Lf => "lf".to_owned(),
            LineEnding::CrLf => "crlf".to_owned(),
        }),
        flag(&|record| Some(record.final_newline)),
        int(&|record| record.piece.map(|piece| piece.index.cast_signed())),
        flag(&|record| record.piece.map(|piece| piece.last)),
        flag(&|record| Some(record.open)),
        time(&|record| Some(record.reference_time)),
        time(&|_| Some(committed_at)),
        text(&|_| writer.to_owned()),
        text(&|record| record.elsewhere.iter().map(String::as_str).collect::<Vec<_>>().join(",")),
    ];
    RecordBatch::try_new(columns(), values)
}

/// The entries of `rows`, in their order.
pub fn of_rows(rows: &RecordBatch) -> Result<Vec<ChunkRecord>, EntryError> {
    (0..rows.num_rows()).map(|row| record(rows, row).ok_or(EntryError { row })).collect()
}

fn record(rows: &RecordBatch, row: usize) -> Option<ChunkRecord> {
    let long = |name: &str| value::<Int64Type>(rows, name, row);
    let bits = |name: &str| long(name).map(i64::cast_unsigned);
    let int = |name: &str| value::<Int32Type>(rows, name, row).map(i32::cast_unsigned);
    let time = |name: &str| value::<TimestampMicrosecondType>(rows, name, row);
    let text = |name: &str| string(rows, name, row);
    let flag = |name: &str| {
        let flags = rows.column_by_name(name)?.as_boolean_opt()?;
        flags.is_valid(row).then(|| flags.value(row))
    };
    let source = Source {
        path: text("file")?.to_owned(),
        device: bits("device")?,
        inode: bits("inode")?,
        generation: int("generation")?,
        head_len_bytes: int("head_len")?,
        head_hash: bits("head_hash")?,
        id: bits("source_id")?,
    };
    let range =
        ByteRange { source_id: source.id, first_byte: bits("first_byte")?, end_byte: bits("end_byte")? };
    Some(ChunkRecord {
        source: Arc::new(source),
        chunk_id: long(CHUNK_ID)?,
        range,
        content_sha256: unhex(text("content_sha256")?)?,
        num_lines: bits("lines")?,
        num_rows: bits("rows")?,
        num_rejects: bits("rejects")?,
        num_blanks: bits("blanks")?,
        types: serde_json::from_str(text("types")?).ok()?,
        time_range: time("min_timestamp").zip(time("max_timestamp")),
        line_ending: if text("line_ending")? == "crlf" { LineEnding::CrLf } else { LineEnding::Lf },
        final_newline: flag("final_newline")?,
        piece: int("piece").zip(flag("piece_last")).map(|(index, last)| Piece { index, last }),
        open: flag("open")?,
        reference_time: time("reference_time")?,
        // an archive leaves it out where there is nothing, and did not have it at first
        elsewhere: text("elsewhere")
            .unwrap_or_default()
            .split(',')
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect(),
    })
}

fn value<T: ArrowPrimitiveType>(rows: &RecordBatch, name: &str, row: usize) -> Option<T::Native> {
    let column = rows.column_by_name(name)?.as_primitive_opt::<T>()?;
    column.is_valid(row).then(|| column.value(row))
}

fn string<'a>(rows: &'a RecordBatch, name: &str, row: usize) -> Option<&'a str> {
    let column = rows.column_by_name(name)?.as_string_opt::<i32>()?;
    column.is_valid(row).then(|| column.value(row))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The 32 bytes that 64 hexadecimal digits say.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (position, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(position * 2..position * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::model::TypeRows;

    #[test]
    fn every_field_of_an_entry_comes_back() {
        let source = Source {
            path: "/logs/ü.log".into(),
            device: u64::MAX,
            inode: 7,
            generation: 2,
            head_len_bytes: 4096,
            head_hash: u64::MAX - 1,
            id: u64::MAX / 3,
        };
        let plain = ChunkRecord {
            chunk_id: -5,
            range: ByteRange { source_id: source.id, first_byte: 10, end_byte: 1 << 40 },
            source: Arc::new(source),
            content_sha256: std::array::from_fn(|i| i as u8 * 7),
            num_lines: 9,
            num_rows: 4,
            num_rejects: 3,
            num_blanks: 2,
            types: [("dns".to_owned(), TypeRows { rows: 4, hash: "ab".into(), refused: 0 })].into(),
            time_range: Some((-1, 1_705_276_800_000_001)),
            line_ending: LineEnding::CrLf,
            final_newline: true,
            piece: None,
            open: false,
            reference_time: 123_456_789,
            elsewhere: BTreeSet::new(),
        };
        let piece = ChunkRecord {
            piece: Some(Piece { index: 3, last: true }),
            open: true,
            final_newline: false,
            time_range: None,
            line_ending: LineEnding::Lf,
            ..plain.clone()
        };
        let refused = TypeRows { rows: 3, hash: "ab".into(), refused: 1 };
        let part = ChunkRecord {
            types: [("dns".to_owned(), refused)].into(),
            elsewhere: ["blanks", "firewall"].map(str::to_owned).into(),
            ..plain.clone()
        };
        let records = [plain, piece, part];
        assert_eq!(of_rows(&to_rows(&records, 5, "w").unwrap()).unwrap(), records);
    }
}
