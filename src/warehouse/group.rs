//! Chunks that are committed together, and the COPY statements that their rows make. Pure.
//!
//! Invariant: every row of the group is in exactly one statement.
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Int32Type, TimestampMicrosecondType};
use arrow::error::ArrowError;
use memchr::memchr_iter;

use super::copy::{CopyEncodeError, CopyEncoder, PgType, UnknownPgType};
use super::days::{DayRows, split_by_day};
use crate::model::{DecodedBatch, Reject, RejectReason, Table, TypeBatch};

/// With more days than this in a table, those with few rows go through the partitioned table in one statement,
const MAX_LEAF_STATEMENTS: usize = 16;
/// few being less than this: a statement costs about as much as so many rows.
const MIN_LEAF_ROWS: usize = 256;

/// Why a group's rows cannot be written. Its batches are not what its log types declare.
#[derive(Debug, thiserror::Error)]
pub(super) enum GroupError {
    /// A column cannot be encoded.
    #[error(transparent)]
    Encode(#[from] CopyEncodeError),
    /// A table has a type that is none of ours.
    #[error(transparent)]
    Type(#[from] UnknownPgType),
    /// Columns do not fit together.
    #[error(transparent)]
    Arrow(#[from] ArrowError),
}

/// Some rows of a batch, ready to be written.
pub(super) struct Part<'a> {
    /// Position of the chunk in the group.
    pub(super) chunk: usize,
    /// Position of the batch in the chunk.
    pub(super) of_type: usize,
    pub(super) encoder: &'a CopyEncoder,
    pub(super) rows: DayRows,
}

/// The rows of one COPY statement.
pub(super) struct CopyJob<'a> {
    pub(super) table: &'a Arc<Table>,
    /// The leaf, as days since the epoch; `None`: the partitioned table, which routes each row.
    pub(super) day: Option<i32>,
    pub(super) parts: Vec<Part<'a>>,
}

/// Encoders of every batch of a group, by chunk.
pub(super) type Encoders = Vec<Vec<CopyEncoder>>;

/// Prepares every batch to be written.
pub(super) fn encoders(group: &[DecodedBatch]) -> Result<Encoders, GroupError> {
    let of_chunk = |chunk: &DecodedBatch| chunk.types.iter().map(encoder).collect::<Result<_, GroupError>>();
    group.iter().map(of_chunk).collect()
}

fn encoder(rows: &TypeBatch) -> Result<CopyEncoder, GroupError> {
    let types = rows.table.postgres_types.iter().map(|name| PgType::from_name(name));
    let types = types.collect::<Result<Vec<_>, _>>()?;
    let columns: Vec<(PgType, &ArrayRef)> = types.into_iter().zip(rows.batch.columns()).collect();
    Ok(CopyEncoder::try_new(&columns)?)
}

/// The rows of each table by day.
pub(super) type Days<'a> = BTreeMap<&'a str, (&'a Arc<Table>, BTreeMap<Option<i32>, Vec<Part<'a>>>)>;

/// Splits a group by table and day. `today` in days since the epoch.
pub(super) fn by_day<'a>(group: &'a [DecodedBatch], encoders: &'a Encoders, today: i32) -> Days<'a> {
    let mut tables = Days::new();
    for (chunk, decoded) in group.iter().enumerate() {
        for (of_type, rows) in decoded.types.iter().enumerate() {
            let times = rows.batch.column(rows.table.timestamp_column);
            let (_, days) = tables.entry(&rows.table.name).or_insert_with(|| (&rows.table, BTreeMap::new()));
            let encoder = &encoders[chunk][of_type];
            for (day, rows) in split_by_day(times.as_primitive::<TimestampMicrosecondType>(), today) {
                days.entry(day).or_default().push(Part { chunk, of_type, encoder, rows });
            }
        }
    }
    tables
}

/// The statements for one table. Days for which `has_leaf` is false go to the partitioned table.
pub(super) fn jobs<'a>(
    table: &'a Arc<Table>,
    days: BTreeMap<Option<i32>, Vec<Part<'a>>>,
    has_leaf: impl Fn(i32) -> bool,
) -> Vec<CopyJob<'a>> {
    let is_many = days.len() > MAX_LEAF_STATEMENTS;
    let (mut jobs, mut routed) = (Vec::new(), Vec::new());
    for (day, parts) in days {
        let num_rows: usize = parts.iter().map(|part| part.rows.rows().len()).sum();
        match day.filter(|day| has_leaf(*day) && !(is_many && num_rows < MIN_LEAF_ROWS)) {
            Some(day) => jobs.push(CopyJob { table, day: Some(day), parts }),
            None => routed.extend(parts),
        }
    }
    if !routed.is_empty() {
        jobs.push(CopyJob { table, day: None, parts: routed });
    }
    jobs
}

/// Where the lines of a chunk are.
struct LineIndex<'a> {
    bytes: &'a [u8],
    newlines: Vec<u32>,
}

impl<'a> LineIndex<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, newlines: memchr_iter(b'\n', bytes).map(|at| at as u32).collect() }
    }

    /// A line's span and bytes, without its newline.
    fn line(&self, number: u32) -> ((u32, u32), &'a [u8]) {
        let number = number as usize;
        let start = number.checked_sub(1).map_or(0, |before| self.newlines[before] + 1);
        let end = self.newlines.get(number).copied().unwrap_or(self.bytes.len() as u32);
        ((start, end), &self.bytes[start as usize..end as usize])
    }
}

/// A row that Postgres refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RefusedRow {
    pub(super) chunk: usize,
    pub(super) of_type: usize,
    pub(super) row: usize,
    pub(super) words: Arc<str>,
}

/// Makes rejects of refused rows. The chunk's lines are as many as before.
pub(super) fn reject_refused(group: &mut [DecodedBatch], refused: &[RefusedRow]) -> Result<(), ArrowError> {
    let mut of_batch: BTreeMap<(usize, usize), Vec<&RefusedRow>> = BTreeMap::new();
    for row in refused {
        of_batch.entry((row.chunk, row.of_type)).or_default().push(row);
    }
    for ((chunk, of_type), refused) in of_batch {
        let chunk = &mut group[chunk];
        let lines = LineIndex::new(&chunk.bytes);
        let rows = &mut chunk.types[of_type];
        let mut stays = vec![true; rows.batch.num_rows()];
        let numbers = rows.batch["line"].as_primitive::<Int32Type>().values();
        for row in &refused {
            stays[row.row] = false;
            let number = numbers[row.row].cast_unsigned();
            chunk.rejects.push(Reject {
                line: number,
                piece: 0,
                span: lines.line(number).0,
                log_type: Some(rows.table.log_type.as_str().into()),
                column: 0,
                reason: RejectReason::Refused(Arc::clone(&row.words)),
            });
        }
        rows.batch = filter_record_batch(&rows.batch, &BooleanArray::from(stays))?;
        let record = &mut chunk.record;
        if let Some(of_type) = record.types.get_mut(&rows.table.log_type) {
            of_type.rows -= refused.len() as u64;
            of_type.refused += refused.len() as u64;
        }
        record.num_rows -= refused.len() as u64;
        record.num_rejects += refused.len() as u64;
        chunk.rejects.sort_by_key(|reject| reject.line);
    }
    Ok(())
}
