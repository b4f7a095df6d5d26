//! The numbers of lines within a chunk, from what ledgers say of how many lie between two bytes.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::Counted;
use crate::model::ChunkRecord;

/// How many lines lie between two bytes of a source, as far as ledgers say it.
pub(super) struct Lines {
    /// By (source, byte): other bytes, and the lines from here to there.
    steps: BTreeMap<(u64, u64), Vec<(u64, i64)>>,
}

impl Lines {
    pub(super) fn new(places: &[&[ChunkRecord]], counted: &[Counted], sources: &HashSet<u64>) -> Self {
        let mut lines = Self { steps: BTreeMap::new() };
        let records = places.iter().flat_map(|records| records.iter()).map(|record| Counted {
            source_id: record.range.source_id,
            first_byte: record.range.first_byte,
            end_byte: record.range.end_byte,
            lines: record.num_lines,
        });
        for step in records.chain(counted.iter().copied()).filter(|step| sources.contains(&step.source_id)) {
            let count = step.lines.cast_signed();
            let mut add = |from, to, count| {
                lines.steps.entry((step.source_id, from)).or_default().push((to, count));
            };
            add(step.first_byte, step.end_byte, count);
            add(step.end_byte, step.first_byte, -count);
        }
        lines
    }

    /// The lines of each part of a chunk, or the bytes at which they cannot be told.
    pub(super) fn of_parts(
        &self,
        record: &ChunkRecord,
        parts: &[(u64, u64)],
    ) -> Result<Vec<(u64, u64)>, BTreeSet<u64>> {
        let range = record.range;
        let mut reached: HashMap<u64, i64> = HashMap::from([(range.first_byte, 0)]);
        let mut next = vec![range.first_byte];
        while let Some(byte) = next.pop() {
            let at = reached[&byte];
            for (to, lines) in self.steps.get(&(range.source_id, byte)).into_iter().flatten() {
                if !reached.contains_key(to) {
                    reached.insert(*to, at + lines);
                    next.push(*to);
                }
            }
        }
        let line_at = |byte: u64| reached.get(&byte).and_then(|line| u64::try_from(*line).ok());
        let cuts = parts.iter().flat_map(|(first, end)| [*first, *end]);
        let untold: BTreeSet<u64> = cuts.filter(|byte| line_at(*byte).is_none()).collect();
        if !untold.is_empty() {
            return Err(untold);
        }
        Ok(parts.iter().filter_map(|(first, end)| Some((line_at(*first)?, line_at(*end)?))).collect())
    }
}
