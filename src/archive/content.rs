//! Puts the bytes of chunks together again from their rows, rejects and blanks.
//!
//! Invariant: memory holds one batch of chunks, about [`BATCH_BYTES`] of source bytes, whatever the archive holds.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, new_null_array};
use arrow::compute::{cast, interleave};
use arrow::datatypes::{Field, Int32Type, Int64Type, SchemaRef};
use arrow::error::ArrowError;
use sha2::{Digest, Sha256};

use super::{ArchiveError, Holdings, LineFilter};
use crate::lake::LakeError;
use crate::ledger::{self, BLANKS, REJECTS};
use crate::log_type::LogType;
use crate::log_type::render::Renderer;
use crate::model::{ChunkRecord, LineEnding, TypeBatch, TypeRows};

/// Source bytes of the chunks that are read at once: each batch looks through every file that may hold rows of it.
pub(super) const BATCH_BYTES: u64 = 32 << 20;

/// Rebuilds every chunk of `records`, in their order, and gives it to `visit`, with whether it is what was read.
pub async fn each_chunk<'a>(
    holdings: &dyn Holdings,
    records: &[&'a ChunkRecord],
    visit: impl FnMut(&'a ChunkRecord, &[u8], bool) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    each_chunk_of(holdings, records, &LineFilter::default(), visit).await
}

/// The same of the chunks that hold lines that are wanted, which are all that `visit` gets; each chunk is put together
/// and compared as a whole nonetheless.
pub(super) async fn each_chunk_of<'a>(
    holdings: &dyn Holdings,
    records: &[&'a ChunkRecord],
    filter: &LineFilter,
    mut visit: impl FnMut(&'a ChunkRecord, &[u8], bool) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let wanted: Vec<_>;
    let records = match filter.wants_all() {
        true => records,
        false => {
            wanted = records.iter().copied().filter(|record| filter.may_be_in(record)).collect();
            &wanted[..]
        }
    };
    let mut content = Content { holdings, filter, types: HashMap::new() };
    let mut rest = records;
    while !rest.is_empty() {
        let (batch, behind) = rest.split_at(batch_len(rest));
        rest = behind;
        for (record, lines) in batch.iter().zip(content.lines(batch, None).await?) {
            let (bytes, wanted) = lines.into_bytes(record);
            let is_same = *Sha256::digest(&bytes) == record.content_sha256;
            match wanted {
                None => visit(record, &bytes, is_same)?,
                Some(wanted) if wanted.is_empty() && is_same => {}
                Some(wanted) => visit(record, &wanted, is_same)?,
            }
        }
    }
    Ok(())
}

/// A chunk as it is stored.
pub struct StoredChunk<'a> {
    /// Its entry.
    pub record: &'a ChunkRecord,
    /// What its rows, rejects and blanks give back.
    pub bytes: Vec<u8>,
    /// Whether those are the bytes that were read.
    pub is_same: bool,
    /// Its rows, in line order, as they were read from storage.
    pub types: Vec<TypeBatch>,
    /// Its rejects and blanks, rows of their tables.
    pub kept: [RecordBatch; 2],
}

/// Reads chunks whole; they should be few, for all of them are held at once.
pub async fn read_chunks<'a>(
    holdings: &dyn Holdings,
    records: &[&'a ChunkRecord],
) -> Result<Vec<StoredChunk<'a>>, ArchiveError> {
    let filter = &LineFilter::default();
    let mut content = Content { holdings, filter, types: HashMap::new() };
    let mut stored = BTreeMap::new();
    let lines = content.lines(records, Some(&mut stored)).await?;
    let kept = |table: &str, schema: SchemaRef, id: i64| {
        let rows = stored.get(table).map_or(&[][..], Vec::as_slice);
        rows_of_chunk(rows, id, &schema)
    };
    let mut chunks = Vec::with_capacity(records.len());
    for (record, lines) in records.iter().zip(lines) {
        let (bytes, _all) = lines.into_bytes(record);
        let mut types = Vec::with_capacity(record.types.len());
        for (name, of_type) in record.types.iter().filter(|(_, of_type)| of_type.rows > 0) {
            let table = Arc::clone(&content.types[&of_type.hash].table);
            let rows = stored.get(name).map_or(&[][..], Vec::as_slice);
            let batch = rows_of_chunk(rows, record.chunk_id, &table.schema)?;
            types.push(TypeBatch { table, batch });
        }
        chunks.push(StoredChunk {
            record,
            is_same: *Sha256::digest(&bytes) == record.content_sha256,
            bytes,
            types,
            kept: [
                kept(REJECTS, ledger::reject_columns(), record.chunk_id)?,
                kept(BLANKS, ledger::blank_columns(), record.chunk_id)?,
            ],
        });
    }
    Ok(chunks)
}

/// The rows of one chunk, in line order, with the columns of `schema` (what is stored plain may be a dictionary there);
/// one that is not stored is null.
fn rows_of_chunk(rows: &[RecordBatch], id: i64, schema: &SchemaRef) -> Result<RecordBatch, ArchiveError> {
    let only = HashMap::from([(id, 0)]);
    let mut of_chunk: Vec<(i32, usize, usize)> = Vec::new();
    for (number, batch) in rows.iter().enumerate() {
        of_chunk.extend(places(batch, &only).map(|(row, line, _)| (line, number, row)));
    }
    // pieces of an over-long line share theirs, and come as they were written
    of_chunk.sort_by_key(|(line, ..)| *line);
    let picked: Vec<(usize, usize)> = of_chunk.into_iter().map(|(_, number, row)| (number, row)).collect();
    let column = |field: &Arc<Field>| -> Result<ArrayRef, ArrowError> {
        let columns: Option<Vec<&dyn Array>> = (rows.iter())
            .map(|batch| batch.column_by_name(field.name()).map(|column| &**column as &dyn Array))
            .collect();
        match columns.filter(|columns| !columns.is_empty()) {
            Some(columns) => cast(&interleave(&columns, &picked)?, field.data_type()),
            None => Ok(new_null_array(field.data_type(), picked.len())),
        }
    };
    let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>, _>>();
    let batch = columns.and_then(|columns| RecordBatch::try_new(Arc::clone(schema), columns));
    batch.map_err(|cause| {
        let (location, reason) = ("the rows of a chunk".to_owned(), cause.to_string());
        LakeError::Corrupt { location, reason }.into()
    })
}

/// How many of `records` make a batch; at least one.
fn batch_len(records: &[&ChunkRecord]) -> usize {
    let ends = records.iter().scan(0, |end, record| {
        *end += record.range.len_bytes();
        Some(*end)
    });
    ends.take_while(|end| *end <= BATCH_BYTES).count().max(1)
}

/// Lines of chunks, as a place has them.
pub(super) struct Content<'a> {
    pub(super) holdings: &'a dyn Holdings,
    pub(super) filter: &'a LineFilter,
    /// Every version of a type that rows were read with, by hash.
    pub(super) types: HashMap<String, LogType>,
}

impl Content<'_> {
    /// The lines of each chunk of `batch` that are here, in no order; what was read goes to `stored`, by table.
    pub(super) async fn lines(
        &mut self,
        batch: &[&ChunkRecord],
        mut stored: Option<&mut BTreeMap<String, Vec<RecordBatch>>>,
    ) -> Result<Vec<Lines>, ArchiveError> {
        let positions: HashMap<i64, usize> =
            batch.iter().enumerate().map(|(position, record)| (record.chunk_id, position)).collect();
        let chunk_ids: HashSet<i64> = positions.keys().copied().collect();
        let times = batch.iter().filter_map(|record| record.time_range);
        let time_range = times.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        let mut lines: Vec<Lines> = batch.iter().map(|_| Lines::default()).collect();

        let mut hashes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for record in batch {
            let is_here = |(name, of_type): &(&String, &TypeRows)| {
                of_type.rows > 0 && !record.elsewhere.contains(*name)
            };
            for (name, of_type) in record.types.iter().filter(is_here) {
                hashes.entry(name).or_default().insert(&of_type.hash);
            }
        }
        for (name, hashes) in hashes {
            for hash in &hashes {
                self.compile(hash).await?;
            }
            for rows in self.holdings.rows(name, &chunk_ids, time_range).await? {
                for hash in &hashes {
                    let renderer = Renderer::try_new(&self.types[*hash], &rows)?;
                    let wanted = self.filter.wanted_rows(&self.types[*hash], &rows);
                    let is_read_with =
                        |record: &ChunkRecord| record.types.get(name).is_some_and(|of| of.hash == **hash);
                    for (row, line, position) in places(&rows, &positions) {
                        if is_read_with(batch[position]) {
                            lines[position].push(line, wanted[row], |out| renderer.line(row, out));
                        }
                    }
                }
                if let Some(stored) = &mut stored {
                    stored.entry(name.to_owned()).or_default().push(rows);
                }
            }
        }
        for (table, is_held) in [
            (REJECTS, batch.iter().any(|record| record.num_rejects > 0 || record.piece.is_some())),
            (BLANKS, batch.iter().any(|record| record.num_blanks > 0)),
        ] {
            let kept = if is_held { self.holdings.rows(table, &chunk_ids, None).await? } else { Vec::new() };
            let is_wanted = self.filter.wants_table(table) && self.filter.times.is_none();
            for rows in kept {
                let bytes = rows.column_by_name("bytes").and_then(|column| column.as_binary_opt::<i32>());
                let bytes = bytes.ok_or_else(|| lacks(table, "bytes"))?;
                for (row, line, position) in places(&rows, &positions) {
                    lines[position].push(line, is_wanted, |out| {
                        out.extend_from_slice(bytes.value(row));
                        true
                    });
                }
                if let Some(stored) = &mut stored {
                    stored.entry(table.to_owned()).or_default().push(rows);
                }
            }
        }
        Ok(lines)
    }

    async fn compile(&mut self, hash: &str) -> Result<(), ArchiveError> {
        if !self.types.contains_key(hash) {
            let text = self.holdings.type_text(hash).await?;
            let log_type = LogType::try_new(&format!("{hash} as it was kept"), &text)?;
            self.types.insert(hash.to_owned(), log_type);
        }
        Ok(())
    }
}

fn lacks(table: &str, column: &str) -> LakeError {
    LakeError::Corrupt { location: format!("table {table}"), reason: format!("there is no column {column}") }
}

/// (row, line, position of its chunk) of every row.
fn places<'a>(
    rows: &'a RecordBatch,
    positions: &'a HashMap<i64, usize>,
) -> impl Iterator<Item = (usize, i32, usize)> + 'a {
    let chunk_ids = rows["chunk_id"].as_primitive::<Int64Type>().values();
    let lines = rows["line"].as_primitive::<Int32Type>().values();
    let rows = chunk_ids.iter().zip(lines).enumerate();
    rows.filter_map(|(row, (chunk_id, line))| Some((row, *line, *positions.get(chunk_id)?)))
}

/// Lines of one chunk, as they come.
#[derive(Debug, Default)]
pub(super) struct Lines {
    text: Vec<u8>,
    places: Vec<Place>,
}

#[derive(Debug)]
struct Place {
    line: i32,
    start: usize,
    end: usize,
    /// The bytes are kept ones, which hold their own carriage return.
    is_kept: bool,
    is_wanted: bool,
}

impl Lines {
    /// `write` appends the line and says whether its bytes are kept ones.
    fn push(&mut self, line: i32, is_wanted: bool, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        let start = self.text.len();
        let is_kept = write(&mut self.text);
        self.places.push(Place { line, start, end: self.text.len(), is_kept, is_wanted });
    }

    /// Each line's number in its chunk, its bytes without the ending, and whether they are kept ones.
    pub(super) fn each(&self) -> impl Iterator<Item = (i32, &[u8], bool)> {
        self.places.iter().map(|place| (place.line, &self.text[place.start..place.end], place.is_kept))
    }

    /// The chunk's bytes, and those of the lines that are wanted, unless all are.
    pub(super) fn into_bytes(mut self, record: &ChunkRecord) -> (Vec<u8>, Option<Vec<u8>>) {
        self.places.sort_unstable_by_key(|place| place.line);
        let mut bytes = Vec::with_capacity(record.range.len_bytes() as usize);
        let mut wanted = self.places.iter().any(|place| !place.is_wanted).then(Vec::new);
        let last = self.places.len().saturating_sub(1);
        for (index, place) in self.places.iter().enumerate() {
            let start = bytes.len();
            bytes.extend_from_slice(&self.text[place.start..place.end]);
            if index < last || record.final_newline {
                let is_crlf = record.line_ending == LineEnding::CrLf && !place.is_kept;
                bytes.extend_from_slice(if is_crlf { b"\r\n" } else { b"\n" });
            }
            if let Some(wanted) = wanted.as_mut().filter(|_| place.is_wanted) {
                wanted.extend_from_slice(&bytes[start..]);
            }
        }
        (bytes, wanted)
    }
}
