//! What a producer sent and has no report of: kept, so that it can be shipped again whatever its origin.
//!
//! Invariants: a chunk leaves only when reports cover every byte of it, whatever cuts they have; `num_bytes` is
//! the sum of all frames kept. Deliberately absent: Redis.
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::frame::EncodedFrame;
use super::keys::EntryId;
use crate::model::{ByteRange, Source};

/// A chunk's place, and a number because an open last line and its successor have the same.
pub(super) type ChunkKey = (u64, u64, u64);

/// Chunks without a report, and those of them that have to be shipped.
#[derive(Debug, Default)]
pub(super) struct Unreported {
    chunks: BTreeMap<ChunkKey, Chunk>,
    entries: HashMap<EntryId, ChunkKey>,
    to_ship: VecDeque<ChunkKey>,
    num_bytes: usize,
    /// Length of the longest chunk ever kept: how far behind a report's range a chunk that it meets can begin.
    longest: u64,
    sent: u64,
}

#[derive(Debug)]
struct Chunk {
    frame: EncodedFrame,
    source: Arc<Source>,
    range: ByteRange,
    /// Parts without a report, ascending.
    missing: Vec<(u64, u64)>,
    /// Once it is in the stream, until it is known to have left it.
    shipped: Option<Shipped>,
    deaths: u32,
}

#[derive(Debug)]
struct Shipped {
    entry: EntryId,
    /// When it was last known to be there.
    seen: Instant,
}

/// A chunk whose frame was taken for something else.
#[derive(Debug)]
pub(super) struct Dead {
    /// How often, this time included.
    pub(super) deaths: u32,
    pub(super) source: Arc<Source>,
    pub(super) range: ByteRange,
}

impl Unreported {
    pub(super) fn num_bytes(&self) -> usize {
        self.num_bytes
    }

    pub(super) fn num_chunks(&self) -> usize {
        self.chunks.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Whether everything that is kept is in the stream, as far as is known.
    pub(super) fn is_shipped(&self) -> bool {
        self.chunks.len() == self.entries.len()
    }

    pub(super) fn insert(&mut self, frame: EncodedFrame, source: Arc<Source>, range: ByteRange) {
        self.sent += 1;
        self.num_bytes += frame.len_bytes();
        self.longest = self.longest.max(range.len_bytes());
        let key = (range.source_id, range.first_byte, self.sent);
        let missing = vec![(range.first_byte, range.end_byte)];
        self.chunks.insert(key, Chunk { frame, source, range, missing, shipped: None, deaths: 0 });
        self.to_ship.push_back(key);
    }

    /// The next chunk that is not in the stream.
    pub(super) fn next_to_ship(&mut self) -> Option<(ChunkKey, EncodedFrame)> {
        while let Some(key) = self.to_ship.pop_front() {
            if let Some(chunk) = self.chunks.get(&key) {
                return Some((key, chunk.frame.clone()));
            }
        }
        None
    }

    /// Whether it still has no report.
    pub(super) fn has(&self, key: &ChunkKey) -> bool {
        self.chunks.contains_key(key)
    }

    pub(super) fn shipped(&mut self, key: ChunkKey, entry: EntryId, now: Instant) {
        // the report may have been faster than the answer to XADD
        if let Some(chunk) = self.chunks.get_mut(&key) {
            chunk.shipped = Some(Shipped { entry, seen: now });
            self.entries.insert(entry, key);
        }
    }

    /// Takes a report that `range` is committed. Whether something left.
    pub(super) fn committed(&mut self, range: &ByteRange) -> bool {
        let ByteRange { source_id, first_byte, end_byte } = *range;
        let from = (source_id, first_byte.saturating_sub(self.longest), 0);
        let mut covered = Vec::new();
        for (key, chunk) in self.chunks.range_mut(from..(source_id, end_byte, 0)) {
            chunk.missing = without(&chunk.missing, (first_byte, end_byte));
            if chunk.missing.is_empty() {
                covered.push(*key);
            }
        }
        for key in &covered {
            if let Some(chunk) = self.chunks.remove(key) {
                self.num_bytes -= chunk.frame.len_bytes();
                chunk.shipped.map(|shipped| self.entries.remove(&shipped.entry));
            }
        }
        !covered.is_empty()
    }

    /// Takes a report that an entry was no frame. `None` if it is not one of these.
    pub(super) fn dead(&mut self, entry: EntryId) -> Option<Dead> {
        let key = self.entries.remove(&entry)?;
        let chunk = self.chunks.get_mut(&key)?;
        chunk.shipped = None;
        chunk.deaths += 1;
        let dead = Dead { deaths: chunk.deaths, source: Arc::clone(&chunk.source), range: chunk.range };
        self.to_ship.push_back(key);
        Some(dead)
    }

    /// Entries that should be in the stream.
    pub(super) fn entries(&self) -> Vec<EntryId> {
        self.entries.keys().copied().collect()
    }

    /// Those of `entries` that still should.
    pub(super) fn still(&self, entries: Vec<EntryId>) -> Vec<EntryId> {
        entries.into_iter().filter(|entry| self.entries.contains_key(entry)).collect()
    }

    /// Those of `entries` that were last seen `age` before `now` or earlier.
    pub(super) fn unseen(&self, entries: &[EntryId], age: Duration, now: Instant) -> Vec<EntryId> {
        let is_unseen = |entry: &&EntryId| {
            let chunk = self.entries.get(entry).and_then(|key| self.chunks.get(key));
            let shipped = chunk.and_then(|chunk| chunk.shipped.as_ref());
            shipped.is_some_and(|shipped| now.duration_since(shipped.seen) >= age)
        };
        entries.iter().filter(is_unseen).copied().collect()
    }

    pub(super) fn seen(&mut self, entry: EntryId, now: Instant) {
        let chunk = self.entries.get(&entry).and_then(|key| self.chunks.get_mut(key));
        if let Some(shipped) = chunk.and_then(|chunk| chunk.shipped.as_mut()) {
            shipped.seen = now;
        }
    }

    /// Has the chunks of entries shipped again that left the stream without a report. How many those are.
    pub(super) fn lost(&mut self, entries: &[EntryId]) -> usize {
        let mut keys: Vec<_> = entries.iter().filter_map(|entry| self.entries.remove(entry)).collect();
        // in the order in which they were sent
        keys.sort_unstable_by_key(|(_, _, number)| *number);
        for key in &keys {
            if let Some(chunk) = self.chunks.get_mut(key) {
                chunk.shipped = None;
            }
        }
        self.to_ship.extend(&keys);
        keys.len()
    }
}

/// `parts` without the bytes of `range`.
fn without(parts: &[(u64, u64)], (from, to): (u64, u64)) -> Vec<(u64, u64)> {
    let cut = |&(first, end): &(u64, u64)| [(first, end.min(from)), (first.max(to), end)];
    parts.iter().flat_map(cut).filter(|(first, end)| first < end).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn unreported(ranges: &[(u64, u64)]) -> Unreported {
        let mut unreported = Unreported::default();
        for &(first_byte, end_byte) in ranges {
            let source = Source {
                path: "a".into(),
                device: 0,
                inode: 0,
                generation: 0,
                head_len_bytes: 0,
                head_hash: 0,
                id: 1,
            };
            let payload = Bytes::from(vec![0; (end_byte - first_byte) as usize]);
            let frame = EncodedFrame { header: Bytes::from_static(b"head"), payload };
            unreported.insert(frame, source.into(), ByteRange { source_id: 1, first_byte, end_byte });
        }
        unreported
    }

    fn report(unreported: &mut Unreported, first_byte: u64, end_byte: u64) -> bool {
        unreported.committed(&ByteRange { source_id: 1, first_byte, end_byte })
    }

    fn entry(number: u64) -> EntryId {
        EntryId::parse(format!("1-{number}").as_bytes()).unwrap()
    }

    fn ship(unreported: &mut Unreported, number: u64) -> u64 {
        let (key, _) = unreported.next_to_ship().unwrap();
        unreported.shipped(key, entry(number), Instant::now());
        key.1
    }

    #[test]
    fn a_chunk_is_kept_until_reports_of_whatever_cuts_cover_it() {
        let mut chunks = unreported(&[(0, 10), (10, 30), (30, 40)]);
        assert_eq!(chunks.num_bytes(), 40 + 3 * 4);
        assert!(!report(&mut chunks, 15, 20));
        assert!(report(&mut chunks, 0, 15));
        assert_eq!(chunks.num_chunks(), 2);
        assert!(!chunks.committed(&ByteRange { source_id: 2, first_byte: 0, end_byte: 40 }));
        assert!(report(&mut chunks, 20, 35));
        assert!(!report(&mut chunks, 0, 35));
        assert!(report(&mut chunks, 35, 36) || report(&mut chunks, 36, 50));
        assert_eq!((chunks.num_bytes(), chunks.is_empty()), (0, true));
    }

    #[test]
    fn an_open_line_and_its_successor_are_two_chunks_at_one_place() {
        let mut chunks = unreported(&[(0, 5), (0, 20)]);
        assert!(report(&mut chunks, 0, 5));
        assert_eq!(chunks.num_chunks(), 1);
        assert!(report(&mut chunks, 0, 20));
        assert!(chunks.is_empty());
    }

    #[test]
    fn what_is_lost_is_shipped_again_in_the_order_it_was_sent() {
        let mut chunks = unreported(&[(0, 10), (10, 20), (20, 30)]);
        for number in 0..3 {
            assert_eq!(ship(&mut chunks, number), number * 10);
        }
        assert!(chunks.is_shipped() && chunks.next_to_ship().is_none());
        report(&mut chunks, 10, 20);
        assert_eq!(chunks.lost(&[entry(2), entry(1), entry(0), entry(7)]), 2);
        assert!(!chunks.is_shipped());
        assert_eq!((ship(&mut chunks, 3), ship(&mut chunks, 4)), (0, 20));
        assert!(chunks.is_shipped());
        assert_eq!(chunks.still(vec![entry(0), entry(3)]), [entry(3)]);
    }

    #[test]
    fn a_chunk_that_dies_is_shipped_again_and_its_deaths_are_counted() {
        let mut chunks = unreported(&[(0, 10)]);
        for death in 1..=3 {
            ship(&mut chunks, u64::from(death));
            assert_eq!(chunks.dead(entry(9)).map(|dead| dead.deaths), None);
            assert_eq!(chunks.dead(entry(u64::from(death))).unwrap().deaths, death);
        }
    }

    #[test]
    fn a_report_that_comes_before_the_answer_to_xadd_leaves_nothing_behind() {
        let mut chunks = unreported(&[(0, 10)]);
        let (key, _) = chunks.next_to_ship().unwrap();
        assert!(report(&mut chunks, 0, 10));
        chunks.shipped(key, entry(1), Instant::now());
        assert!(chunks.is_shipped() && chunks.is_empty() && chunks.entries().is_empty());
    }
}
