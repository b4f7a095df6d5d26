//! Which lines of a chunk are wanted: those of a log type, or of a time.
//!
//! Deliberately absent: conditions on other columns; `query` has them.
use std::collections::BTreeSet;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;

use crate::ledger::{BLANKS, REJECTS};
use crate::log_type::LogType;
use crate::model::ChunkRecord;

/// Which lines are wanted. All conditions must hold; without any, all lines are.
#[derive(Debug, Clone, Default)]
pub struct LineFilter {
    /// Log types; `rejects` and `blanks` name the lines that became no rows.
    pub types: Option<BTreeSet<String>>,
    /// Event times in microseconds since the epoch, from the first to before the second. Only rows have one.
    pub times: Option<(i64, i64)>,
}

impl LineFilter {
    /// Whether there is no condition.
    #[must_use]
    pub fn wants_all(&self) -> bool {
        self.types.is_none() && self.times.is_none()
    }

    pub(super) fn wants_table(&self, table: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.contains(table))
    }

    /// Whether the chunk may hold a line that is wanted.
    pub(super) fn may_be_in(&self, record: &ChunkRecord) -> bool {
        let rows = record.types.iter().filter(|(_, of_type)| of_type.rows > 0).map(|(name, _)| name.as_str());
        let is_in_time = self.times.is_none_or(|(from, to)| {
            record.time_range.is_some_and(|(first, last)| first < to && from <= last)
        });
        let rejects = (record.num_rejects > 0 || record.piece.is_some()).then_some(REJECTS);
        let blanks = (record.num_blanks > 0).then_some(BLANKS);
        let kept = rejects.into_iter().chain(blanks);
        is_in_time && rows.chain(kept).any(|table| self.wants_table(table))
    }

    /// Which rows of a table are wanted, by their event time.
    pub(super) fn wanted_rows(&self, log_type: &LogType, rows: &RecordBatch) -> Vec<bool> {
        if !self.wants_table(log_type.name()) {
            return vec![false; rows.num_rows()];
        }
        let Some((from, to)) = self.times else { return vec![true; rows.num_rows()] };
        let column = &log_type.table.schema.fields()[log_type.table.timestamp_column];
        let times = rows.column_by_name(column.name());
        let times = times.and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
        match times {
            Some(times) => times.iter().map(|time| time.is_some_and(|t| from <= t && t < to)).collect(),
            None => vec![false; rows.num_rows()],
        }
    }
}
