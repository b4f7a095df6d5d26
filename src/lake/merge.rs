//! Writes the rows of several files of one table and day into one file.
//!
//! Files come one after the other, so that row groups follow each other in time. Within a row group lines are sorted
//! by source and place: line numbers then cost next to nothing, and pages of one source ascend in time. Bounded: one
//! row group is in memory; the file goes to a local spool that no name leads to, and from there into the archive.
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, interleave_record_batch};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::LakeError;
use super::archive::Archive;
use super::data_file_name::data_file_name;
use super::delta::LiveFile;
use super::encode::add_action;
use super::lane::NewFile;
use super::parquet_writer::ParquetWriter;
use super::read::{FileRows, schema_of};
use super::schema::Layout;
use super::statistics::FileStatistics;
use super::upload::{Content, upload};
use crate::ledger::CHUNK_ID;

/// A row group closes at this many rows,
const GROUP_ROWS: usize = 1 << 19;
/// or with this many Arrow bytes.
const GROUP_BYTES: usize = 32 << 20;
/// Rows that are put into order at once.
const SORTED_ROWS: usize = 1 << 16;

/// What becomes of the rows.
#[derive(Debug, Clone, Default)]
pub(super) struct MergeOptions {
    /// Place of each chunk in the order of lines; without it rows stay in the order they come in.
    pub(super) ranks: Option<Arc<HashMap<i64, u32>>>,
    /// Rows of these chunks are left out.
    pub(super) without: Option<Arc<HashSet<i64>>>,
}

/// Stores a file with the rows of `files`, which are of the partition `day`. Nothing refers to it yet. `None` if no row
/// is left.
pub(super) async fn merge(
    archive: &Archive,
    layout: &Layout,
    day: Option<i32>,
    files: &[LiveFile],
    options: &MergeOptions,
) -> Result<Option<NewFile>, LakeError> {
    let schema = merged_schema(archive, layout, files).await?;
    let mut merged = MergedFile::try_new(layout, &schema, options.ranks.clone())?;
    for live in files {
        let mut rows = FileRows::open(archive.store(), &live.file, &schema, None).await?;
        while let Some(mut batch) = rows.next().await? {
            if let Some(without) = &options.without {
                batch = rows_without(&batch, without)
                    .map_err(|cause| LakeError::corrupt(&live.file.path, cause))?;
            }
            if merged.push(batch) {
                merged = merged.in_background(MergedFile::write_group).await?;
            }
        }
    }
    merged = merged.in_background(MergedFile::write_group).await?;
    if merged.num_rows == 0 {
        return Ok(None);
    }
    let stats = merged.statistics.to_json(layout);
    let spool = merged.finish()?;
    let content = Content::Spooled(Arc::new(spool.file), spool.len_bytes);
    let name = data_file_name(spool.hash);
    let (path, add) = add_action(layout, day, &name, content.len_bytes(), &stats);
    upload(archive.store().as_ref(), &path, &content).await?;
    Ok(Some(NewFile { path, size_bytes: content.len_bytes(), add }))
}

fn rows_without(rows: &RecordBatch, without: &HashSet<i64>) -> Result<RecordBatch, ArrowError> {
    let ids = rows.column_by_name(CHUNK_ID).and_then(|column| column.as_primitive_opt::<Int64Type>());
    let ids = ids.ok_or_else(|| ArrowError::SchemaError("column chunk_id is missing".into()))?;
    let stays: BooleanArray =
        ids.iter().map(|id| Some(!id.is_some_and(|id| without.contains(&id)))).collect();
    filter_record_batch(rows, &stays)
}

/// The table's columns: texts as dictionaries, which the writer needs, and times in milliseconds where all files have
/// them so.
async fn merged_schema(
    archive: &Archive,
    layout: &Layout,
    files: &[LiveFile],
) -> Result<SchemaRef, LakeError> {
    let mut in_micros: HashSet<String> = HashSet::new();
    for live in files {
        let schema = schema_of(archive.store(), &live.file).await?;
        let micros = schema
            .fields()
            .iter()
            .filter(|field| matches!(field.data_type(), DataType::Timestamp(TimeUnit::Microsecond, _)));
        in_micros.extend(micros.map(|field| field.name().clone()));
    }
    let merged = |field: &Arc<Field>| match field.data_type() {
        text @ (DataType::Utf8 | DataType::Binary) => {
            let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(text.clone()));
            Arc::new(field.as_ref().clone().with_data_type(dictionary))
        }
        DataType::Timestamp(_, zone) if !in_micros.contains(field.name()) => {
            let millis = DataType::Timestamp(TimeUnit::Millisecond, zone.clone());
            Arc::new(field.as_ref().clone().with_data_type(millis))
        }
        _ => Arc::clone(field),
    };
    Ok(Arc::new(Schema::new(layout.schema.fields().iter().map(merged).collect::<Vec<_>>())))
}

/// The file that is being written.
struct MergedFile {
    layout: Layout,
    writer: ParquetWriter<Spool>,
    ranks: Option<Arc<HashMap<i64, u32>>>,
    statistics: FileStatistics,
    num_rows: usize,
    /// Of the next row group.
    batches: Vec<RecordBatch>,
    rows: usize,
    len_bytes: usize,
    /// Where the dictionaries of the last batch are: batches of a file share them.
    dictionaries: Vec<usize>,
}

impl MergedFile {
    fn try_new(
        layout: &Layout,
        schema: &SchemaRef,
        ranks: Option<Arc<HashMap<i64, u32>>>,
    ) -> Result<Self, LakeError> {
        let spool = Spool::try_new().map_err(|cause| LakeError::of_spool(&layout.name, cause.into()))?;
        let writer = ParquetWriter::try_new(spool, layout, schema, GROUP_ROWS);
        Ok(Self {
            layout: layout.clone(),
            writer: writer.map_err(|cause| LakeError::encode(&layout.name, cause))?,
            ranks,
            statistics: FileStatistics::default(),
            num_rows: 0,
            batches: Vec::new(),
            rows: 0,
            len_bytes: 0,
            dictionaries: Vec::new(),
        })
    }

    /// Takes rows into the next row group. Whether it is full.
    fn push(&mut self, batch: RecordBatch) -> bool {
        if batch.num_rows() > 0 {
            let (len_bytes, dictionaries) = sizes(&batch, &self.dictionaries);
            self.len_bytes += len_bytes;
            self.dictionaries = dictionaries;
            self.rows += batch.num_rows();
            self.batches.push(batch);
        }
        self.rows >= GROUP_ROWS || self.len_bytes >= GROUP_BYTES
    }

    fn write_group(&mut self) -> Result<(), ParquetError> {
        let mut batches = std::mem::take(&mut self.batches);
        if let Some(ranks) = &self.ranks {
            batches = sorted(batches, ranks)?;
        }
        if !batches.is_empty() {
            batches.iter().for_each(|rows| self.statistics.add(&self.layout, rows));
            self.writer.write(&batches)?;
        }
        self.num_rows += self.rows;
        (self.rows, self.len_bytes) = (0, 0);
        self.dictionaries.clear();
        Ok(())
    }

    /// Encoding takes long enough to be in the way of other tasks.
    async fn in_background(
        mut self,
        work: impl FnOnce(&mut Self) -> Result<(), ParquetError> + Send + 'static,
    ) -> Result<Self, LakeError> {
        let table = self.layout.name.clone();
        let worked = tokio::task::spawn_blocking(move || work(&mut self).map(|()| self)).await;
        let worked = worked.map_err(|cause| LakeError::encode(&table, cause))?;
        worked.map_err(|cause| LakeError::of_spool(&table, cause))
    }

    fn finish(self) -> Result<Spool, LakeError> {
        self.writer.finish().map_err(|cause| LakeError::of_spool(&self.layout.name, cause))
    }
}

/// Bytes of a batch, without dictionaries at the places of `known`; and where its own are.
fn sizes(batch: &RecordBatch, known: &[usize]) -> (usize, Vec<usize>) {
    let mut len_bytes = 0;
    let mut dictionaries = Vec::new();
    for column in batch.columns() {
        let Some(dictionary) = column.as_any_dictionary_opt() else {
            len_bytes += column.get_array_memory_size();
            continue;
        };
        len_bytes += dictionary.keys().get_array_memory_size();
        let values = dictionary.values();
        let place = values.to_data().buffers().first().map_or(0, |buffer| buffer.as_ptr() as usize);
        if !known.contains(&place) {
            len_bytes += values.get_array_memory_size();
        }
        dictionaries.push(place);
    }
    (len_bytes, dictionaries)
}

/// The rows by rank of their chunk, then by line.
fn sorted(batches: Vec<RecordBatch>, ranks: &HashMap<i64, u32>) -> Result<Vec<RecordBatch>, ArrowError> {
    let mut places: Vec<(u32, i32, u32, u32)> = Vec::new();
    for (index, batch) in (0u32..).zip(&batches) {
        let missing = || ArrowError::SchemaError("columns chunk_id and line are missing".into());
        let ids = batch.column_by_name(CHUNK_ID).and_then(|column| column.as_primitive_opt::<Int64Type>());
        let lines = batch.column_by_name("line").and_then(|column| column.as_primitive_opt::<Int32Type>());
        let (ids, lines) = (ids.ok_or_else(missing)?, lines.ok_or_else(missing)?);
        let rows = ids.values().iter().zip(lines.values()).zip(0u32..);
        places.extend(
            rows.map(|((id, line), row)| (ranks.get(id).copied().unwrap_or(u32::MAX), *line, index, row)),
        );
    }
    if places.is_sorted() {
        return Ok(batches);
    }
    places.sort_unstable();
    let all: Vec<&RecordBatch> = batches.iter().collect();
    let pieces = places.chunks(SORTED_ROWS).map(|piece| {
        let rows: Vec<_> = piece.iter().map(|place| (place.2 as usize, place.3 as usize)).collect();
        interleave_record_batch(&all, &rows)
    });
    pieces.collect()
}

/// A local file without a name, which hashes what is written to it.
struct Spool {
    file: File,
    hash: Sha256,
    len_bytes: u64,
}

impl Spool {
    fn try_new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("pipeline-spool-{}", Uuid::new_v4().simple()));
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(Self { file, hash: Sha256::new(), len_bytes: 0 })
    }
}

impl Write for Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.len_bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
