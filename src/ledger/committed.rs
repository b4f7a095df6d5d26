//! What is committed, folded per source: the answer to whether a range may be committed too.
//!
//! Its size goes with the number of sources, not of chunks: ranges that touch are one. Only open lines keep
//! their whole entry, because a longer one that starts at the same byte takes their place.
use std::collections::{BTreeMap, BTreeSet};

use super::Split;
use crate::model::{ByteRange, ChunkRecord, KnownSource, Ledger};

/// The folded ledger.
#[derive(Debug, Default, Clone)]
pub struct Committed {
    ledger: Ledger,
    /// Open lines by (source, first byte).
    open: BTreeMap<(u64, u64), ChunkRecord>,
    splits: BTreeSet<Split>,
}

/// Whether a range may be committed.
#[derive(Debug, PartialEq)]
pub enum Verdict<'a> {
    /// No byte of it is committed.
    Free,
    /// It takes the place of this open line.
    Supersedes(&'a ChunkRecord),
    /// Some of its bytes are committed.
    Overlaps,
}

impl Committed {
    /// From what storage has folded: sources with their ranges, open lines, and how chunks were split.
    pub fn restore(known: Vec<KnownSource>, open: Vec<ChunkRecord>, splits: BTreeSet<Split>) -> Self {
        let mut committed = Self { splits, ..Self::default() };
        committed.ledger.sources = known.into_iter().map(|known| (known.source.id, known)).collect();
        for record in open {
            let ByteRange { source_id, first_byte, end_byte } = record.range;
            if let Some(known) = committed.ledger.sources.get_mut(&source_id) {
                known.open = Some((first_byte, end_byte));
            }
            committed.open.insert((source_id, first_byte), record);
        }
        committed
    }

    /// Takes what `fresh` knows of its sources in place of what was known of them.
    pub fn refresh(&mut self, fresh: Self) {
        for source_id in fresh.ledger.sources.keys() {
            self.open.retain(|(of, _), _| of != source_id);
        }
        self.ledger.sources.extend(fresh.ledger.sources);
        self.open.extend(fresh.open);
        self.splits.extend(fresh.splits);
    }

    /// How chunks were split that are not whole here, each way once.
    pub fn splits(&self) -> &BTreeSet<Split> {
        &self.splits
    }

    /// What it knows of every source.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Adds an entry; entries come in the order of their groups.
    pub fn insert(&mut self, record: &ChunkRecord) {
        if record.is_part() {
            self.splits.insert(Split::of(record));
        }
        let ByteRange { source_id, first_byte, end_byte } = record.range;
        let known = self.ledger.sources.entry(source_id).or_insert_with(|| KnownSource {
            source: (*record.source).clone(),
            committed: Vec::new(),
            open: None,
            last_chunk: (first_byte, end_byte, record.content_sha256),
        });
        // chunks are not always committed in the order in which the head of their source grew
        if record.source.head_len_bytes >= known.source.head_len_bytes {
            known.source = (*record.source).clone();
        }
        known.last_chunk = (first_byte, end_byte, record.content_sha256);
        self.open.remove(&(source_id, first_byte));
        if record.open {
            self.open.insert((source_id, first_byte), record.clone());
        } else {
            add_range(&mut known.committed, (first_byte, end_byte));
        }
        let last_open = self.open.range((source_id, 0)..=(source_id, u64::MAX)).next_back();
        known.open = last_open.map(|(_, record)| (record.range.first_byte, record.range.end_byte));
    }

    /// Whether `range` may be committed.
    pub fn verdict(&self, range: &ByteRange) -> Verdict<'_> {
        if let Some(known) = self.ledger.sources.get(&range.source_id) {
            let next = known.committed.partition_point(|(_, end)| *end <= range.first_byte);
            if known.committed.get(next).is_some_and(|(first, _)| *first < range.end_byte) {
                return Verdict::Overlaps;
            }
        }
        let mut open = self.open.range((range.source_id, 0)..(range.source_id, range.end_byte));
        match open.rfind(|(_, record)| record.range.overlaps(range)) {
            None => Verdict::Free,
            Some((_, record)) if supersedes(range, record) => Verdict::Supersedes(record),
            Some(_) => Verdict::Overlaps,
        }
    }

    /// The parts of `range` that may be committed, ascending.
    pub fn lacking(&self, range: &ByteRange) -> Vec<(u64, u64)> {
        let (mut first, end) = (range.first_byte, range.end_byte);
        let committed = self.ledger.sources.get(&range.source_id).map_or(&[][..], |known| &known.committed);
        let next = committed.partition_point(|(_, end)| *end <= first);
        let mut parts = Vec::new();
        for taken in committed[next..].iter().take_while(|taken| taken.0 < end) {
            if first < taken.0 {
                parts.push((first, taken.0));
            }
            first = taken.1;
        }
        if first < end {
            parts.push((first, end));
        }
        parts.into_iter().flat_map(|part| self.around_open(range.source_id, part)).collect()
    }

    /// An open line takes nothing of what supersedes it, which has to start at its first byte, and all of its bytes
    /// from anything else.
    fn around_open(&self, source_id: u64, (mut first, end): (u64, u64)) -> Vec<(u64, u64)> {
        let mut parts = Vec::new();
        for (_, open) in self.open.range((source_id, 0)..(source_id, end)) {
            let open = open.range;
            if open.end_byte <= first {
                continue;
            }
            if first < open.first_byte {
                parts.push((first, open.first_byte));
                first = open.first_byte;
            }
            if first > open.first_byte || end <= open.end_byte {
                first = open.end_byte;
            }
        }
        if first < end {
            parts.push((first, end));
        }
        parts
    }
}

fn supersedes(range: &ByteRange, open: &ChunkRecord) -> bool {
    range.first_byte == open.range.first_byte && range.end_byte > open.range.end_byte
}

fn add_range(ranges: &mut Vec<(u64, u64)>, (first, end): (u64, u64)) {
    let from = ranges.partition_point(|(_, known_end)| *known_end < first);
    let to = ranges.partition_point(|(known_first, _)| *known_first <= end);
    let merged = ranges[from..to].iter().fold((first, end), |(f, e), range| (f.min(range.0), e.max(range.1)));
    ranges.splice(from..to, [merged]);
}

/// Drops entries that a later group superseded, and sorts by (source, first byte). `entries` come with their
/// group.
pub fn newest(mut entries: Vec<(i64, ChunkRecord)>) -> Vec<ChunkRecord> {
    let key = |record: &ChunkRecord| (record.range.source_id, record.range.first_byte);
    entries.sort_by_key(|(group, record)| (key(record), std::cmp::Reverse(*group)));
    let mut seen = BTreeSet::new();
    entries.into_iter().filter(|(_, record)| seen.insert(key(record))).map(|(_, record)| record).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::record;

    #[test]
    fn ranges_that_touch_are_one_and_any_shared_byte_is_an_overlap() {
        let mut committed = Committed::default();
        for (first, end) in [(0, 10), (30, 40), (20, 30), (50, 60)] {
            committed.insert(&record(1, first, end));
        }
        assert_eq!(committed.ledger().sources[&1].committed, [(0, 10), (20, 40), (50, 60)]);
        let verdict =
            |first_byte, end_byte| committed.verdict(&ByteRange { source_id: 1, first_byte, end_byte });
        for free in [(10, 20), (40, 50), (60, 70)] {
            assert_eq!(verdict(free.0, free.1), Verdict::Free, "{free:?}");
        }
        for taken in [(9, 11), (0, 10), (15, 21), (39, 41), (10, 60), (59, 61)] {
            assert_eq!(verdict(taken.0, taken.1), Verdict::Overlaps, "{taken:?}");
        }
        assert_eq!(committed.verdict(&ByteRange { source_id: 2, first_byte: 0, end_byte: 5 }), Verdict::Free);
    }

    #[test]
    fn only_a_longer_range_from_the_same_byte_supersedes_an_open_line() {
        let mut committed = Committed::default();
        committed.insert(&record(1, 0, 10));
        committed.insert(&ChunkRecord { open: true, ..record(1, 10, 15) });
        let range = |first_byte, end_byte| ByteRange { source_id: 1, first_byte, end_byte };
        assert!(
            matches!(committed.verdict(&range(10, 16)), Verdict::Supersedes(open) if open.range.end_byte == 15)
        );
        for taken in [(10, 15), (10, 12), (11, 20)] {
            assert_eq!(committed.verdict(&range(taken.0, taken.1)), Verdict::Overlaps, "{taken:?}");
        }
        assert_eq!(committed.ledger().sources[&1].open, Some((10, 15)));
        committed.insert(&record(1, 10, 20));
        assert_eq!(committed.ledger().sources[&1].open, None);
        assert_eq!(committed.ledger().sources[&1].committed, [(0, 20)]);
    }

    #[test]
    fn what_is_lacking_of_a_range_is_what_may_be_committed() {
        let mut committed = Committed::default();
        for (first, end) in [(10, 20), (30, 40)] {
            committed.insert(&record(1, first, end));
        }
        committed.insert(&ChunkRecord { open: true, ..record(1, 40, 45) });
        let lacking =
            |first_byte, end_byte| committed.lacking(&ByteRange { source_id: 1, first_byte, end_byte });
        assert_eq!(lacking(0, 5), [(0, 5)]);
        assert_eq!(lacking(0, 35), [(0, 10), (20, 30)]);
        assert_eq!(lacking(12, 18), []);
        assert_eq!(lacking(15, 25), [(20, 25)]);
        assert_eq!(lacking(40, 45), []);
        assert_eq!(lacking(40, 43), []);
        assert_eq!(lacking(30, 60), [(40, 60)]);
        assert_eq!(lacking(42, 60), [(45, 60)]);
        committed.insert(&ChunkRecord { open: true, ..record(1, 70, 75) });
        committed.insert(&ChunkRecord { open: true, ..record(1, 80, 85) });
        let lacking =
            |first_byte, end_byte| committed.lacking(&ByteRange { source_id: 1, first_byte, end_byte });
        // a line that was open has grown: it and what follows it are no part of what comes before it
        assert_eq!(lacking(60, 78), [(60, 70), (70, 78)]);
        assert_eq!(lacking(60, 75), [(60, 70)]);
        assert_eq!(lacking(60, 90), [(60, 70), (70, 80), (80, 90)]);
        assert_eq!(lacking(72, 90), [(75, 80), (80, 90)]);
        for (first_byte, end_byte) in [(0, 35), (15, 25), (30, 60), (42, 60), (60, 78), (60, 90), (72, 90)] {
            for (first_byte, end_byte) in lacking(first_byte, end_byte) {
                let verdict = committed.verdict(&ByteRange { source_id: 1, first_byte, end_byte });
                assert_ne!(verdict, Verdict::Overlaps, "{first_byte}..{end_byte}");
            }
        }
    }

    #[test]
    fn of_entries_that_start_at_one_byte_the_later_group_counts() {
        let long = record(1, 10, 30);
        let entries = vec![
            (7, long.clone()),
            (5, ChunkRecord { open: true, ..record(1, 10, 15) }),
            (6, record(0, 0, 3)),
            (5, record(1, 0, 10)),
        ];
        assert_eq!(newest(entries), [record(0, 0, 3), record(1, 0, 10), long]);
    }
}
