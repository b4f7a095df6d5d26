//! Which of several places each committed byte is read from, so that no row is read twice.
//!
//! Places come in an order, and a byte belongs to the first place whose ledger has it: what a later place has of it
//! is left out there. Cuts may differ from place to place. Where a later place has lacking and held bytes in one
//! chunk, lines are left out by their numbers, which the line counts of all ledgers tell: each entry says how many
//! lines lie between two bytes. Where they do not, the caller counts them in the chunk itself.
//!
//! Deliberately absent: storage, and any preference but the order.
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::Committed;
use crate::model::ChunkRecord;

/// What a place must not give, because another one does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Chunks of which it gives nothing.
    pub chunks: BTreeSet<i64>,
    /// Chunks of which it gives only these lines, (first, end), ascending.
    pub parts: BTreeMap<i64, Vec<(u64, u64)>>,
}

impl LeftOut {
    /// Whether the place gives all it has.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.parts.is_empty()
    }
}

/// How places share what is committed.
#[derive(Debug)]
pub struct Division {
    /// By place.
    pub left_out: Vec<LeftOut>,
    /// What all places together hold.
    pub committed: Committed,
    /// Last lines without a newline that a place gives, by source and first byte.
    pub open: BTreeMap<(u64, u64), OpenLine>,
}

/// A committed last line that may still be growing.
#[derive(Debug, Clone)]
pub struct OpenLine {
    /// The place that gives it.
    pub place: usize,
    /// Its entry.
    pub record: ChunkRecord,
}

/// Bytes within a chunk whose lines no ledger tells.
#[derive(Debug, Clone, PartialEq)]
pub struct Uncounted {
    /// The place that has the chunk.
    pub place: usize,
    /// The chunk.
    pub record: ChunkRecord,
    /// Where other places begin or end within it.
    pub bytes: BTreeSet<u64>,
}

/// That so many lines begin in a source from one byte up to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Identity of the source.
    pub source_id: u64,
    /// Offset of the first byte.
    pub first_byte: u64,
    /// Offset behind the last byte.
    pub end_byte: u64,
    /// Lines that begin there.
    pub lines: u64,
}

/// Divides what `places` hold, each given as its ledger. `counted` is what was counted of chunks that an earlier
/// call could not place.
pub fn divide(places: &[&[ChunkRecord]], counted: &[Counted]) -> Result<Division, Vec<Uncounted>> {
    let mut left_out = vec![LeftOut::default(); places.len()];
    let mut committed = Committed::default();
    let mut open: BTreeMap<(u64, u64), OpenLine> = BTreeMap::new();
    let mut partial = Vec::new();
    for (place, records) in places.iter().enumerate() {
        let mut given = Vec::with_capacity(records.len());
        for record in *records {
            let range = record.range;
            let mut parts = committed.lacking(&range);
            for part in &mut parts {
                let lines = |part: &(u64, u64)| (range.source_id, part.0)..(range.source_id, part.1);
                while let Some((key, line)) = open.range(lines(part)).next() {
                    let key = *key;
                    if line.record.range.end_byte < part.1 {
                        // the line has grown: of it, the earlier place has a beginning only
                        left_out[line.place].chunks.insert(line.record.chunk_id);
                        open.remove(&key);
                    } else {
                        part.1 = key.1;
                    }
                }
            }
            parts.retain(|(first, end)| first < end);
            if parts.is_empty() {
                left_out[place].chunks.insert(record.chunk_id);
                continue;
            }
            if parts != [(range.first_byte, range.end_byte)] {
                partial.push((place, record, parts));
            }
            given.push(record);
        }
        // ranges of one place do not overlap each other
        for record in given {
            match record.open {
                true => {
                    let line = OpenLine { place, record: record.clone() };
                    open.insert((record.range.source_id, record.range.first_byte), line);
                }
                false => committed.insert(record),
            }
        }
    }
    for line in open.values() {
        committed.insert(&line.record);
    }
    let sources: HashSet<u64> = partial.iter().map(|(_, record, _)| record.range.source_id).collect();
    let lines = Lines::new(places, counted, &sources);
    let mut uncounted = Vec::new();
    for (place, record, parts) in partial {
        match lines.of_parts(record, &parts) {
            Ok(parts) => {
                left_out[place].parts.insert(record.chunk_id, parts);
            }
            Err(bytes) => uncounted.push(Uncounted { place, record: record.clone(), bytes }),
        }
    }
    if uncounted.is_empty() { Ok(Division { left_out, committed, open }) } else { Err(uncounted) }
}

/// How many lines lie between two bytes of a source, as far as ledgers say it.
struct Lines {
    /// By (source, byte): other bytes, and the lines from here to there.
    steps: BTreeMap<(u64, u64), Vec<(u64, i64)>>,
}

impl Lines {
    fn new(places: &[&[ChunkRecord]], counted: &[Counted], sources: &HashSet<u64>) -> Self {
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
    fn of_parts(&self, record: &ChunkRecord, parts: &[(u64, u64)]) -> Result<Vec<(u64, u64)>, BTreeSet<u64>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::record;

    /// Ten bytes a line.
    fn lines(source: u64, first: u64, end: u64) -> ChunkRecord {
        let num_lines = (end - first) / 10;
        ChunkRecord { num_lines, chunk_id: chunk_id(source, first), ..record(source, first, end) }
    }

    fn chunk_id(source: u64, first: u64) -> i64 {
        crate::model::chunk_id(source, first)
    }

    fn left_out(places: &[&[ChunkRecord]]) -> Vec<LeftOut> {
        divide(places, &[]).unwrap().left_out
    }

    #[test]
    fn a_chunk_that_an_earlier_place_holds_is_left_out_however_it_was_cut() {
        let one = [lines(1, 0, 100), lines(1, 100, 200), lines(2, 0, 50)];
        let other = [lines(1, 0, 50), lines(1, 50, 150), lines(1, 150, 200), lines(3, 0, 10)];
        let division = left_out(&[&one, &other]);
        assert!(division[0].is_empty());
        assert_eq!(division[1].chunks, [0, 50, 150].map(|byte| chunk_id(1, byte)).into());
        assert!(division[1].parts.is_empty());
        assert!(left_out(&[&one, &[]]).iter().all(LeftOut::is_empty));
    }

    #[test]
    fn of_a_chunk_held_in_part_the_lacking_lines_are_given() {
        let one = [lines(1, 0, 30), lines(1, 50, 70)];
        let other = [lines(1, 0, 100)];
        // what lies between 30 and 50 is not told by the first, but follows from the whole and the beginning
        let uncounted = divide(&[&one, &other], &[]).unwrap_err();
        assert_eq!(uncounted[0].bytes, [50, 70].into());
        let counted = Counted { source_id: 1, first_byte: 0, end_byte: 50, lines: 5 };
        let division = divide(&[&one, &other], &[counted]).unwrap();
        assert_eq!(division.left_out[1].parts, [(chunk_id(1, 0), vec![(3, 5), (7, 10)])].into());
        assert!(division.left_out[1].chunks.is_empty());
        assert_eq!(division.committed.ledger().sources[&1].committed, [(0, 100)]);
    }

    #[test]
    fn neighbours_tell_the_lines_of_a_chunk_whose_beginning_no_other_place_shares() {
        let one = [lines(1, 0, 70)];
        let other = [lines(1, 0, 40), lines(1, 40, 120)];
        let second = &left_out(&[&one, &other])[1];
        assert_eq!(second.chunks, [chunk_id(1, 0)].into());
        assert_eq!(second.parts, [(chunk_id(1, 40), vec![(3, 8)])].into());
    }

    #[test]
    fn a_line_that_has_grown_is_read_where_it_is_longest() {
        let open = ChunkRecord { open: true, num_lines: 1, ..lines(1, 90, 95) };
        let longer = lines(1, 90, 120);
        let grown = left_out(&[std::slice::from_ref(&open), std::slice::from_ref(&longer)]);
        assert_eq!(grown[0].chunks, [chunk_id(1, 90)].into());
        assert!(grown[1].is_empty());
        let grown = left_out(&[&[longer], &[open]]);
        assert!(grown[0].is_empty());
        assert_eq!(grown[1].chunks, [chunk_id(1, 90)].into());
    }

    #[test]
    fn a_line_that_has_grown_within_a_longer_chunk_is_read_there_too() {
        let open = ChunkRecord { open: true, num_lines: 1, ..lines(1, 90, 95) };
        let division = divide(&[&[lines(1, 0, 90), open.clone()], &[lines(1, 0, 120)]], &[]).unwrap();
        assert_eq!(division.left_out[0].chunks, [chunk_id(1, 90)].into());
        assert_eq!(division.left_out[1].parts, [(chunk_id(1, 0), vec![(9, 12)])].into());
        assert!(division.open.is_empty());
        // the same line in both places is the first's
        let both = [lines(1, 0, 90), open.clone()];
        let division = divide(&[&both, &[lines(1, 0, 90), open]], &[]).unwrap();
        assert!(division.left_out[0].is_empty());
        assert_eq!(division.left_out[1].chunks, [chunk_id(1, 0), chunk_id(1, 90)].into());
        assert_eq!(division.open.len(), 1);
    }

    #[test]
    fn a_third_place_gives_what_the_first_two_lack() {
        let (one, two) = ([lines(1, 0, 50)], [lines(1, 0, 100)]);
        let three = [lines(1, 0, 100), lines(1, 100, 150)];
        let division = left_out(&[&one, &two, &three]);
        assert_eq!(division[1].parts, [(chunk_id(1, 0), vec![(5, 10)])].into());
        assert_eq!(division[2].chunks, [chunk_id(1, 0)].into());
    }
}
