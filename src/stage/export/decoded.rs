//! Stored chunks as the decoder would give them, for a writer that takes what a decoder gives.
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::error::ArrowError;
use bytes::Bytes;

use super::ExportError;
use crate::archive::{Holdings, StoredChunk};
use crate::decode::Decoder;
use crate::log_type::{LogType, LogTypes};
use crate::model::{Blank, ChunkRecord, DecodedBatch, Reject, RejectReason, TypeBatch};
use crate::stage::replay::raw_chunk;
use crate::warehouse::Warehouse;

/// The parts of a chunk that the archive lacks, decoded with the types that it was decoded with, in the order in
/// which types are tried; `None` if that gives other rows than are stored.
pub(super) async fn decode_parts(
    warehouse: &Warehouse,
    chunk: &StoredChunk<'_>,
    parts: &[(u64, u64)],
) -> Result<Option<Vec<DecodedBatch>>, ExportError> {
    let declared: Vec<&str> = warehouse.types().iter().map(|log_type| log_type.name()).collect();
    let mut of_chunk: Vec<_> = chunk.record.types.iter().collect();
    of_chunk.sort_by_key(|(name, _)| declared.iter().position(|of| of == name).unwrap_or(declared.len()));
    let mut types = Vec::new();
    for (_, of_type) in of_chunk {
        let text = Holdings::type_text(warehouse, &of_type.hash).await?;
        types.push(Arc::new(LogType::try_new(&format!("{} as it was kept", of_type.hash), &text)?));
    }
    let mut decoder = Decoder::new(&LogTypes::new(types));
    let whole = raw_chunk(chunk.record, &chunk.bytes);
    if lines_by_type(&decoder.decode(&whole).types) != lines_by_type(&chunk.types) {
        tracing::warn!(
            "bytes {} to {} of {} are decoded otherwise now; give the --log-types that they were read with",
            chunk.record.range.first_byte,
            chunk.record.range.end_byte,
            chunk.record.source.path
        );
        return Ok(None);
    }
    let parts = parts.iter().flat_map(|(first, end)| whole.part(*first, *end));
    Ok(Some(parts.map(|part| decoder.decode(&part)).collect()))
}

/// The line numbers of each type's rows.
fn lines_by_type(types: &[TypeBatch]) -> BTreeMap<&str, Vec<i32>> {
    let lines = |rows: &RecordBatch| rows["line"].as_primitive::<Int32Type>().values().to_vec();
    let rows = types.iter().filter(|of_type| of_type.batch.num_rows() > 0);
    rows.map(|of_type| (of_type.table.name.as_str(), lines(&of_type.batch))).collect()
}

/// As the decoder gave it.
pub(super) fn as_decoded(chunk: StoredChunk<'_>) -> Result<DecodedBatch, ExportError> {
    let [rejects, blanks] = &chunk.kept;
    let (rejects, blanks) = (to_rejects(rejects, chunk.record)?, to_blanks(blanks, &chunk)?);
    let types = chunk.types.into_iter().map(with_compact_extra).collect::<Result<_, _>>()?;
    Ok(DecodedBatch { record: chunk.record.clone(), types, rejects, blanks, bytes: Bytes::from(chunk.bytes) })
}

/// Postgres gives `extra` back with spaces and in an order of its own.
fn with_compact_extra(of_type: TypeBatch) -> Result<TypeBatch, ExportError> {
    let TypeBatch { table, batch } = of_type;
    let Ok(position) = batch.schema().index_of("extra") else { return Ok(TypeBatch { table, batch }) };
    let compact = |text: &str| {
        let values = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(text);
        values.and_then(|values| serde_json::to_string(&values)).unwrap_or_else(|_| text.to_owned())
    };
    let extra: StringArray =
        batch.column(position).as_string::<i32>().iter().map(|text| text.map(compact)).collect();
    // its type is never a dictionary
    let mut columns = batch.columns().to_vec();
    columns[position] = Arc::new(extra);
    Ok(TypeBatch { table, batch: RecordBatch::try_new(batch.schema(), columns)? })
}

/// Of a place within the chunk; elsewhere is an error, for the rows are no chunk's.
fn span(start: Option<usize>, len_bytes: usize, record: &ChunkRecord) -> Result<(u32, u32), ArrowError> {
    let end = start.map(|start| start + len_bytes).filter(|end| *end as u64 <= record.range.len_bytes());
    match (start, end) {
        (Some(start), Some(end)) => Ok((start as u32, end as u32)),
        _ => Err(ArrowError::InvalidArgumentError(format!(
            "chunk {} of {} has rejects or blanks that lie outside of it; run `pipeline verify --count`",
            record.chunk_id, record.source.path
        ))),
    }
}

fn to_rejects(rows: &RecordBatch, record: &ChunkRecord) -> Result<Vec<Reject>, ArrowError> {
    let int = |name: &str| rows[name].as_primitive::<Int32Type>().clone();
    let (lines, pieces, columns) = (int("line"), int("piece"), int("column"));
    let offsets = rows["offset"].as_primitive::<Int64Type>();
    let (types, reasons) = (rows["log_type"].as_string::<i32>(), rows["reason"].as_string::<i32>());
    let bytes = rows["bytes"].as_binary::<i32>();
    let reject = |row: usize| {
        let start = offsets.value(row).cast_unsigned().checked_sub(record.range.first_byte);
        let start = start.and_then(|start| usize::try_from(start).ok());
        Ok(Reject {
            line: lines.value(row).cast_unsigned(),
            piece: pieces.value(row).cast_unsigned(),
            span: span(start, bytes.value(row).len(), record)?,
            log_type: types.is_valid(row).then(|| types.value(row).into()),
            column: columns.value(row).cast_unsigned(),
            // the words are what is kept
            reason: RejectReason::Refused(reasons.value(row).into()),
        })
    };
    (0..rows.num_rows()).map(reject).collect()
}

fn to_blanks(rows: &RecordBatch, chunk: &StoredChunk<'_>) -> Result<Vec<Blank>, ArrowError> {
    let mut starts = vec![0];
    if rows.num_rows() > 0 {
        starts.extend(memchr::memchr_iter(b'\n', &chunk.bytes).map(|newline| newline + 1));
    }
    let (lines, bytes) = (rows["line"].as_primitive::<Int32Type>(), rows["bytes"].as_binary::<i32>());
    let blank = |row: usize| {
        let line = lines.value(row).cast_unsigned();
        let start = starts.get(line as usize).copied();
        Ok(Blank { line, span: span(start, bytes.value(row).len(), chunk.record)? })
    };
    (0..rows.num_rows()).map(blank).collect()
}
