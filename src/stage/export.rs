//! Sealed days, from Postgres to an archive: chunks that the archive lacks are written to it, what it then holds of
//! them is proven to give back the bytes that were read, and the day's leaves can go.
//!
//! Whole chunks are exported, rejects and blanks with them, as if a processor had just decoded them. So the
//! archive's ledger decides who owns a row: what it holds is read from there. Killed at any moment, rows are in
//! Postgres, or in both places; the next run continues. Deliberately absent: rows whose day has no leaf.
mod agreement;
mod decoded;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use thiserror::Error;

use self::agreement::disagreement;
use self::decoded::{as_decoded, decode_parts};
use super::shutdown::Shutdown;
use crate::archive::{ArchiveError, OfArchive, each_chunk, read_chunks};
use crate::lake::{ArchiveWriter, LakeError, Moment};
use crate::log_type::LogTypeError;
use crate::model::{ByteRange, ChunkRecord, Source};
use crate::warehouse::{DayLeaf, Removal, Warehouse, WarehouseError};

/// Source bytes of the chunks that are exported at once.
const BATCH_BYTES: u64 = 16 << 20;
/// Days between two looks at the whole archive: their leaves go together.
const DAYS_AT_ONCE: usize = 16;
/// Other writers may be first so often.
const TRIES: usize = 5;

/// What to export.
#[derive(Debug, Clone, Copy)]
pub struct ExportOptions {
    /// Days before this one, counted from 1970-01-01.
    pub before: i32,
    /// Of those, the leaves of days before this one go.
    pub drop_before: Option<i32>,
}

/// What became of the rows of one log type and day.
#[derive(Debug)]
pub struct ExportedDay {
    /// The leaf.
    pub leaf: DayLeaf,
    /// Chunks that may hold rows of the day.
    pub chunks: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Its rows are in the archive, and in Postgres.
    Archived,
    /// Its rows are in the archive alone.
    Dropped {
        /// How many.
        rows: u64,
    },
    /// It stays: why, and what to do.
    Kept(String),
}

/// What an export did.
#[derive(Debug, Default)]
pub struct ExportSummary {
    /// The leaves of the days, in their order.
    pub days: Vec<ExportedDay>,
    /// Chunks that the archive lacked, and has now.
    pub written_chunks: u64,
    /// Their rows.
    pub written_rows: u64,
    /// Chunks of the archive that were read back.
    pub proven_chunks: u64,
    /// Bytes that the archive grew by.
    pub stored_bytes: u64,
    /// Chunks whose stored bytes are not those that were read: in Postgres (false) or in the archive (true).
    pub damaged: Vec<(Arc<Source>, ByteRange, bool)>,
    /// Tables whose days before the first that stays have rows without a leaf, which are not exported, and how many.
    pub unsettled: Vec<(String, u64)>,
    /// A request to stop came before the end.
    pub interrupted: bool,
}

/// Why an export ended early. What was exported until then stays, in both places or where it belongs.
#[derive(Debug, Error)]
pub enum ExportError {
    /// What is stored cannot be read.
    #[error(transparent)]
    Read(#[from] ArchiveError),
    /// Postgres failed.
    #[error(transparent)]
    Warehouse(#[from] WarehouseError),
    /// The archive failed.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A kept type file does not compile.
    #[error(transparent)]
    LogType(#[from] LogTypeError),
    /// Rows cannot be put in the archive's form.
    #[error("rows cannot be exported: {0}")]
    Rows(#[from] arrow::error::ArrowError),
}

/// What there is to do, without doing it.
pub async fn plan(warehouse: &Warehouse, options: ExportOptions) -> Result<Vec<DayLeaf>, ExportError> {
    Ok(warehouse.leaves_before(options.before).await?)
}

/// Exports the days to the archive of `writer`.
pub async fn export(
    warehouse: &Warehouse,
    writer: &mut ArchiveWriter,
    options: ExportOptions,
    shutdown: &Shutdown,
) -> Result<ExportSummary, ExportError> {
    let mut days: BTreeMap<i32, Vec<DayLeaf>> = BTreeMap::new();
    let unsettled = warehouse.settle_days_before(options.before).await?;
    for leaf in plan(warehouse, options).await? {
        days.entry(leaf.day).or_default().push(leaf);
    }
    let summary = ExportSummary { unsettled, ..ExportSummary::default() };
    let mut export =
        Export { warehouse, writer, options, proven: HashSet::new(), busy: HashSet::new(), summary };
    let days: Vec<_> = days.into_iter().collect();
    for some in days.chunks(DAYS_AT_ONCE) {
        export.days(some, shutdown).await?;
        if shutdown.is_requested() {
            export.summary.interrupted = true;
            break;
        }
    }
    Ok(export.summary)
}

struct Export<'a> {
    warehouse: &'a Warehouse,
    writer: &'a mut ArchiveWriter,
    options: ExportOptions,
    /// Ranges of the archive that were proven: chunks reach over midnight.
    proven: HashSet<ByteRange>,
    /// Log types whose table somebody uses: whoever waits for it holds up everybody behind.
    busy: HashSet<String>,
    summary: ExportSummary,
}

impl Export<'_> {
    async fn days(&mut self, days: &[(i32, Vec<DayLeaf>)], shutdown: &Shutdown) -> Result<(), ExportError> {
        let mut of_days = Vec::new();
        for (day, leaves) in days {
            if shutdown.is_requested() {
                return Ok(());
            }
            let records = self.warehouse.records_of_day(*day).await?;
            if let Some(part) = records.iter().find(|record| record.is_part()) {
                let reason = format!("postgres has {}", a_part_of(part));
                of_days.push((records, Some(reason), false));
                continue;
            }
            let written_before = self.summary.written_chunks;
            self.write_all(&records).await?;
            let is_written = self.summary.written_chunks > written_before;
            // days that are kept are not read back again by every export until they go
            let is_kept = self.options.drop_before.is_some() && !leaves.iter().any(|leaf| self.goes(leaf));
            of_days.push((records, None, is_written || !is_kept));
        }
        if let Some((last, _)) = days.last() {
            let mut records = self.warehouse.timeless_records_before(last + 1).await?;
            records.retain(|record| !record.is_part());
            self.write_all(&records).await?;
        }
        let moment = self.writer.archive().moment().await?;
        for ((_, leaves), (records, refused, is_to_be_read)) in days.iter().zip(of_days) {
            let lacking = match refused {
                Some(reason) => Some(reason),
                None => self.prove(&records, &moment, is_to_be_read).await?,
            };
            for leaf in leaves {
                if shutdown.is_requested() {
                    return Ok(());
                }
                let outcome = match &lacking {
                    Some(reason) => Some(Outcome::Kept(reason.clone())),
                    None => self.drop(leaf, &records).await?,
                };
                let chunks = records.len() as u64;
                let day = outcome.map(|outcome| ExportedDay { leaf: leaf.clone(), chunks, outcome });
                self.summary.days.extend(day);
            }
        }
        Ok(())
    }

    /// Writes what the archive lacks of these chunks, whoever else writes to it.
    async fn write_all(&mut self, records: &[ChunkRecord]) -> Result<(), ExportError> {
        let mut tries = 1;
        loop {
            match self.write(records).await {
                // another writer took some of it first: what is left is asked for again
                Err(ExportError::Lake(LakeError::Overlap)) if tries < TRIES => tries += 1,
                written => return written,
            }
        }
    }

    async fn write(&mut self, records: &[ChunkRecord]) -> Result<(), ExportError> {
        self.writer.ledger().await?;
        let is_whole = |record: &ChunkRecord, parts: &[(u64, u64)]| {
            parts == [(record.range.first_byte, record.range.end_byte)]
        };
        let committed = self.writer.committed();
        let lacking = records.iter().map(|record| (record, committed.lacking(&record.range)));
        let lacking: Vec<(&ChunkRecord, _)> = lacking.filter(|(_, parts)| !parts.is_empty()).collect();
        let mut rest = &lacking[..];
        while !rest.is_empty() {
            let mut len_bytes = 0;
            let fits = rest.iter().take_while(|(record, _)| {
                len_bytes += record.range.len_bytes();
                len_bytes <= BATCH_BYTES
            });
            let (batch, behind) = rest.split_at(fits.count().max(1));
            let of_batch: Vec<&ChunkRecord> = batch.iter().map(|(record, _)| *record).collect();
            let stored = read_chunks(self.warehouse, &of_batch).await?;
            for (chunk, (record, parts)) in stored.into_iter().zip(batch) {
                if !chunk.is_same {
                    let of_chunk = format!("chunk_id = {}", record.chunk_id);
                    // its last line may have grown, or a replay replaced it, while it was read
                    if self.warehouse.records(&of_chunk).await?.first() == Some(*record) {
                        self.damaged(record, false);
                    }
                    continue;
                }
                let decoded = match is_whole(record, parts) {
                    true => vec![as_decoded(chunk)?],
                    // somebody archived the same bytes, cut differently
                    false => match decode_parts(self.warehouse, &chunk, parts).await? {
                        Some(decoded) => decoded,
                        // the archive goes on lacking them, so their days stay
                        None => continue,
                    },
                };
                for batch in decoded {
                    self.summary.written_chunks += 1;
                    self.summary.written_rows += batch.record.num_rows;
                    let receipt = self.writer.write(batch).await?;
                    self.summary.stored_bytes += receipt.map_or(0, |receipt| receipt.stored_bytes);
                }
            }
            rest = behind;
        }
        let receipt = self.writer.flush().await?;
        self.summary.stored_bytes += receipt.map_or(0, |receipt| receipt.stored_bytes);
        Ok(())
    }

    /// Whether the ledger of the archive says the same of these chunks, and, if they are to be read back, whether it
    /// gives their bytes back; says why not.
    async fn prove(
        &mut self,
        records: &[ChunkRecord],
        moment: &Moment,
        is_to_be_read: bool,
    ) -> Result<Option<String>, ExportError> {
        let archived = &moment.records[..];
        let mut wanted: HashSet<ByteRange> = HashSet::new();
        for record in records {
            let overlapping = overlapping(archived, &record.range);
            let mut end = record.range.first_byte;
            for held in overlapping {
                if held.range.first_byte > end {
                    break;
                }
                if held.is_part() {
                    return Ok(Some(format!("the archive has {}", a_part_of(held))));
                }
                end = end.max(held.range.end_byte);
                wanted.insert(held.range);
            }
            if end < record.range.end_byte {
                return Ok(Some(format!(
                    "the archive lacks bytes {end} to {} of {}",
                    record.range.end_byte, record.source.path
                )));
            }
            if let Some(reason) = self.disagreement(record, archived).await? {
                return Ok(Some(reason));
            }
        }
        if !is_to_be_read {
            return Ok(None);
        }
        let fresh: Vec<&ChunkRecord> = (archived.iter())
            .filter(|held| wanted.contains(&held.range) && !self.proven.contains(&held.range))
            .collect();
        let mut differing = Vec::new();
        let holdings = OfArchive::at(self.writer.archive(), moment.clone());
        each_chunk(&holdings, &fresh, |record, _, is_same| {
            differing.extend((!is_same).then_some(record));
            Ok(())
        })
        .await?;
        self.summary.proven_chunks += fresh.len() as u64;
        self.proven = wanted;
        for record in &differing {
            self.proven.remove(&record.range);
            self.damaged(record, true);
        }
        Ok((!differing.is_empty()).then(|| "the archive does not give back what was read".to_owned()))
    }

    /// Whether the archive decoded the record's bytes as Postgres did; says why not.
    async fn disagreement(
        &self,
        record: &ChunkRecord,
        archived: &[ChunkRecord],
    ) -> Result<Option<String>, ExportError> {
        let own = std::slice::from_ref(record);
        if overlapping(archived, &record.range).all(|held| held.range == record.range) {
            return Ok(disagreement(record, own, archived));
        }
        let of_source = format!("source_id = {}", record.range.source_id.cast_signed());
        Ok(disagreement(record, &self.warehouse.records(&of_source).await?, archived))
    }

    /// Whether the leaf is one to drop.
    fn goes(&self, leaf: &DayLeaf) -> bool {
        self.options.drop_before.is_some_and(|before| leaf.day < before)
    }

    /// What became of a leaf whose rows are archived; nothing if somebody else took it away.
    async fn drop(
        &mut self,
        leaf: &DayLeaf,
        records: &[ChunkRecord],
    ) -> Result<Option<Outcome>, ExportError> {
        if !self.goes(leaf) {
            return Ok(Some(Outcome::Archived));
        }
        let archive = self.writer.archive().url().to_string();
        let removal = match self.busy.contains(&leaf.log_type) {
            true => Removal::Busy,
            false => self.warehouse.remove_leaf(leaf, records, &archive).await?,
        };
        Ok(Some(match removal {
            Removal::Removed(rows) => Outcome::Dropped { rows },
            Removal::Busy => {
                self.busy.insert(leaf.log_type.clone());
                Outcome::Kept("its table is in use; run again".to_owned())
            }
            Removal::Gone => return Ok(None),
            Removal::Changed => Outcome::Kept("rows came to it meanwhile; run again".to_owned()),
            Removal::Unaccounted(chunk) => Outcome::Kept(format!(
                "it holds rows of chunk {chunk} that the ledger does not account for; run `pipeline verify --count`"
            )),
        }))
    }

    fn damaged(&mut self, record: &ChunkRecord, in_archive: bool) {
        self.summary.damaged.push((Arc::clone(&record.source), record.range, in_archive));
    }
}

/// Why a chunk cannot be exported.
fn a_part_of(record: &ChunkRecord) -> String {
    let tables: Vec<&str> = record.elsewhere.iter().map(String::as_str).collect();
    format!(
        "a part only of the chunk at byte {} of {}, whose {} went to other places; such days stay where they are",
        record.range.first_byte,
        record.source.path,
        tables.join(", ")
    )
}

/// The entries, sorted by source and first byte, that share a byte with `range`. Entries do not overlap each other.
fn overlapping<'a>(sorted: &'a [ChunkRecord], range: &ByteRange) -> impl Iterator<Item = &'a ChunkRecord> {
    let range = *range;
    let is_before = move |record: &ChunkRecord| {
        (record.range.source_id, record.range.end_byte) <= (range.source_id, range.first_byte)
    };
    let first = sorted.partition_point(is_before);
    sorted[first..].iter().take_while(move |record| record.range.overlaps(&range))
}
