//! Puts the bytes of chunks together again from their rows, rejects and blanks.
//!
//! Invariant: memory holds one batch of chunks, about [`BATCH_BYTES`] of source bytes, whatever the archive holds.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::{Int32Type, Int64Type};
use sha2::{Digest, Sha256};

use super::{ArchiveError, Holdings};
use crate::lake::LakeError;
use crate::log_type::LogType;
use crate::log_type::render::Renderer;
use crate::model::{ChunkRecord, LineEnding};

/// Source bytes of the chunks that are read at once: each batch looks through every file that may hold rows of it.
const BATCH_BYTES: u64 = 32 << 20;

/// Rebuilds every chunk of `records`, in their order, and gives it to `visit`, with whether it is what was read.
pub async fn each_chunk<'a>(
    holdings: &dyn Holdings,
    records: &[&'a ChunkRecord],
    mut visit: impl FnMut(&'a ChunkRecord, &[u8], bool) -> Result<(), ArchiveError>,
) -> Result<(), ArchiveError> {
    let mut content = Content { holdings, types: HashMap::new() };
    let mut rest = records;
    while !rest.is_empty() {
        let (batch, behind) = rest.split_at(batch_len(rest));
        rest = behind;
        for (record, lines) in batch.iter().zip(content.lines(batch).await?) {
            let bytes = lines.into_bytes(record);
            let is_same = *Sha256::digest(&bytes) == record.content_sha256;
            visit(record, &bytes, is_same)?;
        }
    }
    Ok(())
}

/// How many of `records` make a batch; at least one.
fn batch_len(records: &[&ChunkRecord]) -> usize {
    let ends = records.iter().scan(0, |end, record| {
        *end += record.range.len_bytes();
        Some(*end)
    });
    ends.take_while(|end| *end <= BATCH_BYTES).count().max(1)
}

struct Content<'a> {
    holdings: &'a dyn Holdings,
    /// Every version of a type that rows were read with, by hash.
    types: HashMap<String, LogType>,
}

impl Content<'_> {
    /// The lines of each chunk of `batch`, in no order.
    async fn lines(&mut self, batch: &[&ChunkRecord]) -> Result<Vec<Lines>, ArchiveError> {
        let positions: HashMap<i64, usize> =
            batch.iter().enumerate().map(|(position, record)| (record.chunk_id, position)).collect();
        let chunk_ids: HashSet<i64> = positions.keys().copied().collect();
        let times = batch.iter().filter_map(|record| record.time_range);
        let time_range = times.reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)));
        let mut lines: Vec<Lines> = batch.iter().map(|_| Lines::default()).collect();

        let mut hashes: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, of_type) in batch.iter().flat_map(|record| &record.types) {
            hashes.entry(name).or_default().insert(&of_type.hash);
        }
        for (name, hashes) in hashes {
            for hash in &hashes {
                self.compile(hash).await?;
            }
            for rows in self.holdings.rows(name, &chunk_ids, time_range).await? {
                for hash in &hashes {
                    let renderer = Renderer::try_new(&self.types[*hash], &rows)?;
                    let is_read_with =
                        |record: &ChunkRecord| record.types.get(name).is_some_and(|of| of.hash == **hash);
                    for (row, line, position) in places(&rows, &positions) {
                        if is_read_with(batch[position]) {
                            lines[position].push(line, |out| renderer.line(row, out));
                        }
                    }
                }
            }
        }
        for (table, is_held) in [
            ("rejects", batch.iter().any(|record| record.num_rejects > 0 || record.piece.is_some())),
            ("blanks", batch.iter().any(|record| record.num_blanks > 0)),
        ] {
            let kept = if is_held { self.holdings.rows(table, &chunk_ids, None).await? } else { Vec::new() };
            for rows in kept {
                let bytes = rows.column_by_name("bytes").and_then(|column| column.as_binary_opt::<i32>());
                let bytes = bytes.ok_or_else(|| lacks(table, "bytes"))?;
                for (row, line, position) in places(&rows, &positions) {
                    lines[position].push(line, |out| {
                        out.extend_from_slice(bytes.value(row));
                        true
                    });
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
struct Lines {
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
}

impl Lines {
    /// `write` appends the line and says whether its bytes are kept ones.
    fn push(&mut self, line: i32, write: impl FnOnce(&mut Vec<u8>) -> bool) {
        let start = self.text.len();
        let is_kept = write(&mut self.text);
        self.places.push(Place { line, start, end: self.text.len(), is_kept });
    }

    fn into_bytes(mut self, record: &ChunkRecord) -> Vec<u8> {
        self.places.sort_unstable_by_key(|place| place.line);
        let mut bytes = Vec::with_capacity(record.range.len_bytes() as usize);
        let last = self.places.len().saturating_sub(1);
        for (index, place) in self.places.iter().enumerate() {
            bytes.extend_from_slice(&self.text[place.start..place.end]);
            if index < last || record.final_newline {
                let is_crlf = record.line_ending == LineEnding::CrLf && !place.is_kept;
                bytes.extend_from_slice(if is_crlf { b"\r\n" } else { b"\n" });
            }
        }
        bytes
    }
}
