//! Chunks between their delivery and their acknowledgement: which sinks still lack what of them.
//!
//! Invariant: no byte is on its way twice. A delivery that shares bytes with one on its way waits until that one
//! is settled, and is then asked about anew. Deliberately absent: the chunks' bytes, once they are decoded.
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::model::{ByteRange, ChunkRecord, CommitReceipt, RawChunk};
use crate::sink::{self, Sink, SinkError};
use crate::transport::{Delivery, DeliveryId};

/// Positions of the sinks that lack a chunk.
pub(super) type Targets = Vec<usize>;

/// What a receipt brought to its end.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// Entries that every sink has now.
    pub(super) records: Vec<ChunkRecord>,
    /// Deliveries of which every sink has all.
    pub(super) done: Vec<DeliveryId>,
    /// Deliveries of which another writer committed a part; the rest has to come again.
    pub(super) again: Vec<DeliveryId>,
}

/// Deliveries that are not acknowledged.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// Taken, not yet looked at.
    arrived: VecDeque<Delivery>,
    /// By id.
    taken: HashMap<DeliveryId, Taken>,
    /// The parts of deliveries that some sink lacks, by their place.
    parts: BTreeMap<(u64, u64), Part>,
    num_bytes: usize,
    /// Looked at, and found to lack nothing.
    held_already: Vec<DeliveryId>,
}

#[derive(Debug)]
struct Taken {
    num_bytes: usize,
    /// Parts not yet settled.
    parts: usize,
    again: bool,
}

#[derive(Debug)]
struct Part {
    delivery: DeliveryId,
    range: ByteRange,
    /// Sinks that have not said what became of it.
    sinks: usize,
    /// Once it is decoded.
    record: Option<ChunkRecord>,
    again: bool,
}

impl InFlight {
    /// Bytes of chunks that are not acknowledged.
    pub(super) fn num_bytes(&self) -> usize {
        self.num_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// Whether a delivery waits to be looked at.
    pub(super) fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    pub(super) fn arrive(&mut self, delivery: Delivery) {
        self.num_bytes += delivery.chunk.bytes.len();
        self.arrived.push_back(delivery);
    }

    /// What is to be decoded for which sinks, of the deliveries that arrived and do not have to wait.
    pub(super) async fn next_chunks(
        &mut self,
        sinks: &mut [Box<dyn Sink>],
    ) -> Result<Vec<(RawChunk, Targets)>, SinkError> {
        let mut chunks = Vec::new();
        for _ in 0..self.arrived.len() {
            let Some(delivery) = self.arrived.pop_front() else { break };
            if self.is_on_its_way(&delivery.chunk.range()) {
                self.arrived.push_back(delivery);
                continue;
            }
            let mut lacking: BTreeMap<(u64, u64), Targets> = BTreeMap::new();
            for (position, sink) in sinks.iter_mut().enumerate() {
                for part in sink.lacking(&delivery.chunk.range()).await? {
                    lacking.entry(part).or_default().push(position);
                }
            }
            let mut wanted = Vec::new();
            for ((first_byte, end_byte), targets) in disjoint(lacking) {
                let range = ByteRange { source_id: delivery.chunk.source.id, first_byte, end_byte };
                let held = sink::parts_held(sinks, &range, &targets).await?;
                wanted.extend(as_held(&range, &held).into_iter().map(|part| (part, targets.clone())));
            }
            self.take(&delivery, wanted, &mut chunks);
        }
        Ok(chunks)
    }

    fn take(
        &mut self,
        delivery: &Delivery,
        wanted: Vec<(Wanted, Targets)>,
        chunks: &mut Vec<(RawChunk, Targets)>,
    ) {
        let before = chunks.len();
        for (Wanted { first_byte, end_byte, reference_time }, targets) in wanted {
            for mut part in delivery.chunk.part(first_byte, end_byte) {
                part.reference_time = reference_time.unwrap_or(part.reference_time);
                chunks.push((part, targets.clone()));
            }
        }
        let parts = &chunks[before..];
        let num_bytes = delivery.chunk.bytes.len();
        if parts.is_empty() {
            self.held_already.push(delivery.id);
            self.num_bytes -= num_bytes;
            return;
        }
        self.taken.insert(delivery.id, Taken { num_bytes, parts: parts.len(), again: false });
        for (part, targets) in parts {
            let range = part.range();
            let part =
                Part { delivery: delivery.id, range, sinks: targets.len(), record: None, again: false };
            self.parts.insert((range.source_id, range.first_byte), part);
        }
    }

    fn is_on_its_way(&self, range: &ByteRange) -> bool {
        let mut before = self.parts.range((range.source_id, 0)..(range.source_id, range.end_byte));
        before.next_back().is_some_and(|(_, part)| part.range.overlaps(range))
    }

    /// Deliveries that can be acknowledged because nothing of them was lacking.
    pub(super) fn take_held_already(&mut self) -> Vec<DeliveryId> {
        std::mem::take(&mut self.held_already)
    }

    pub(super) fn decoded(&mut self, record: &ChunkRecord) {
        if let Some(part) = self.parts.get_mut(&(record.range.source_id, record.range.first_byte)) {
            part.record = Some(record.clone());
        }
    }

    /// Takes what one sink says.
    pub(super) fn settle(&mut self, receipt: &CommitReceipt) -> Settled {
        let mut settled = Settled::default();
        for range in &receipt.ranges {
            self.settle_part(range, false, &mut settled);
        }
        for range in &receipt.overlapped {
            self.settle_part(range, true, &mut settled);
        }
        settled
    }

    fn settle_part(&mut self, range: &ByteRange, again: bool, settled: &mut Settled) {
        let key = (range.source_id, range.first_byte);
        let Some(part) = self.parts.get_mut(&key).filter(|part| part.range == *range) else { return };
        part.sinks -= 1;
        part.again |= again;
        if part.sinks > 0 {
            return;
        }
        let Some(part) = self.parts.remove(&key) else { return };
        let Some(taken) = self.taken.get_mut(&part.delivery) else { return };
        taken.parts -= 1;
        taken.again |= part.again;
        if !part.again {
            settled.records.extend(part.record);
        }
        if taken.parts == 0
            && let Some(taken) = self.taken.remove(&part.delivery)
        {
            self.num_bytes -= taken.num_bytes;
            if taken.again { &mut settled.again } else { &mut settled.done }.push(part.delivery);
        }
    }
}

/// Bytes that some sinks lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    first_byte: u64,
    end_byte: u64,
    /// If other sinks hold their part of them: what that was decoded with.
    reference_time: Option<i64>,
}

/// The bytes of `range`, cut and decoded as other sinks have done that hold their parts.
fn as_held(range: &ByteRange, held: &[ChunkRecord]) -> Vec<Wanted> {
    let is_within = |byte: &u64| (range.first_byte..=range.end_byte).contains(byte);
    let borders = held.iter().flat_map(|record| [record.range.first_byte, record.range.end_byte]);
    let borders: BTreeSet<u64> =
        borders.filter(is_within).chain([range.first_byte, range.end_byte]).collect();
    let borders: Vec<u64> = borders.into_iter().collect();
    let wanted = borders.windows(2).map(|pair| {
        let is_here =
            |record: &&ChunkRecord| record.range.first_byte < pair[1] && pair[0] < record.range.end_byte;
        let reference_time = held.iter().find(is_here).map(|record| record.reference_time);
        Wanted { first_byte: pair[0], end_byte: pair[1], reference_time }
    });
    wanted.collect()
}

/// Parts that no two share a byte, each with the sinks that lack it.
fn disjoint(lacking: BTreeMap<(u64, u64), Targets>) -> Vec<((u64, u64), Targets)> {
    if lacking.len() <= 1 {
        return lacking.into_iter().collect();
    }
    let mut borders: Vec<u64> = lacking.keys().flat_map(|(first, end)| [*first, *end]).collect();
    borders.sort_unstable();
    borders.dedup();
    let pairs = borders.windows(2).map(|pair| (pair[0], pair[1]));
    let with_targets = pairs.map(|(first, end)| {
        let covering = lacking.iter().filter(|((from, to), _)| *from <= first && end <= *to);
        let mut targets: Targets = covering.flat_map(|(_, targets)| targets).copied().collect();
        targets.sort_unstable();
        ((first, end), targets)
    });
    with_targets.filter(|(_, targets)| !targets.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::record;

    #[test]
    fn parts_that_sinks_lack_differently_are_cut_where_they_differ() {
        let lacking = BTreeMap::from([((0, 10), vec![0]), ((5, 20), vec![1]), ((30, 40), vec![0, 1])]);
        let expected =
            [((0, 5), vec![0]), ((5, 10), vec![0, 1]), ((10, 20), vec![1]), ((30, 40), vec![0, 1])];
        assert_eq!(disjoint(lacking), expected);
    }

    #[test]
    fn what_others_hold_of_a_chunk_is_cut_and_decoded_as_they_have_done() {
        let record = |first, end, reference_time| ChunkRecord { reference_time, ..record(1, first, end) };
        let wanted = |first, end, held: &[ChunkRecord]| -> Vec<_> {
            let range = ByteRange { source_id: 1, first_byte: first, end_byte: end };
            let of = |wanted: Wanted| (wanted.first_byte, wanted.end_byte, wanted.reference_time);
            as_held(&range, held).into_iter().map(of).collect()
        };
        assert_eq!(wanted(10, 40, &[]), [(10, 40, None)]);
        assert_eq!(wanted(10, 40, &[record(10, 40, 7)]), [(10, 40, Some(7))]);
        let held = [record(0, 15, 7), record(15, 30, 8), record(38, 60, 9)];
        let expected = [(10, 15, Some(7)), (15, 30, Some(8)), (30, 38, None), (38, 40, Some(9))];
        assert_eq!(wanted(10, 40, &held), expected);
    }
}
