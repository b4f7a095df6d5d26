//! Text -> dictionary key, each distinct text looked at once.
//!
//! A text of up to 15 bytes is its own hash key: one word, compared without touching the text. Texts are remembered
//! from chunk to chunk, as most come again: such a one is entered anew without being read. Where texts hardly
//! repeat, looking them up does not pay: a dictionary that grows by one value per row is as valid.
use xxhash_rust::xxh3::xxh3_64;

use super::matching::Span;
use super::vectors::equal;

/// What a text means: an index into the dictionary's values, or NULL; and whether it renders back. One number, of
/// which the usual case, an index of what renders back, is the index itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry(i32);

impl Entry {
    /// The column's type cannot hold the text.
    pub(super) const MISFIT: Entry = Entry(i32::MIN);
    /// Of an earlier chunk, in which it rendered back.
    const EARLIER_EXACT: Entry = Entry(i32::MIN + 1);
    /// Of an earlier chunk, whatever it was.
    const EARLIER: Entry = Entry(i32::MIN + 2);

    fn is_earlier(self) -> bool {
        self == Self::EARLIER_EXACT || self == Self::EARLIER
    }

    /// What is left of it in the next chunk.
    fn aged(self) -> Self {
        if self.0 >= 0 || self == Self::EARLIER_EXACT { Self::EARLIER_EXACT } else { Self::EARLIER }
    }

    pub(super) fn new(index: usize, exact: bool) -> Self {
        let index = index as i32;
        Self(if exact { index } else { -1 - index })
    }

    /// The index of a value that renders back; anything else is negative.
    #[inline(always)]
    pub(super) fn exact_index(self) -> i32 {
        self.0
    }

    /// Index and whether the value renders back; `None` for a misfit.
    pub(super) fn get(self) -> Option<(i32, bool)> {
        (self != Self::MISFIT).then_some(if self.0 >= 0 { (self.0, true) } else { (-1 - self.0, false) })
    }
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    /// See [`word`].
    word: u128,
    start: u32,
    len_bytes: u32,
    entry: Entry,
}

const FREE_SLOT: Slot = Slot { word: FREE, start: 0, len_bytes: 0, entry: Entry::MISFIT };

/// So many texts of earlier chunks are kept at most.
const MAX_REMEMBERED: usize = 4096;

/// Up to this size a table is mostly free.
const ROOMY_SLOTS: usize = 4096;

/// An open-addressing table, reused from chunk to chunk.
#[derive(Debug)]
pub(super) struct Dictionary {
    slots: Vec<Slot>,
    used: usize,
    /// Texts of this chunk.
    distinct: usize,
}

impl Dictionary {
    pub(super) fn new() -> Self {
        Self { slots: vec![FREE_SLOT; 64], used: 0, distinct: 0 }
    }

    /// Begins a chunk: no text has a key yet.
    pub(super) fn begin(&mut self) {
        self.distinct = 0;
        if self.used > MAX_REMEMBERED {
            self.slots.fill(FREE_SLOT);
            self.used = 0;
        }
        for slot in &mut self.slots {
            slot.entry = slot.entry.aged();
        }
    }

    /// Whether looking texts up pays, after so many were.
    pub(super) fn repeats(&self, num_rows: usize) -> bool {
        self.distinct * 2 < num_rows
    }

    /// Writes the keys of what stands at `spans`. `other` gives those of rows whose text has none yet, or does not
    /// render back, or is not of `bytes`.
    #[inline(always)]
    pub(super) fn keys(
        &mut self,
        bytes: &[u8],
        spans: &[Span],
        keys: &mut [i32],
        mut other: impl FnMut(&mut Self, usize) -> i32,
    ) {
        let mut row = 0;
        loop {
            row += self.known_keys(bytes, &spans[row..], &mut keys[row..]);
            match keys.get_mut(row) {
                Some(key) => *key = other(self, row),
                None => return,
            }
            row += 1;
        }
    }

    /// Writes keys up to the first row that has none which is known; gives its number.
    #[inline(always)]
    fn known_keys(&self, bytes: &[u8], spans: &[Span], keys: &mut [i32]) -> usize {
        let slots = self.slots.as_slice();
        for (row, (key, span)) in keys.iter_mut().zip(spans).enumerate() {
            match self.known(slots, bytes, *span) {
                Some(index) => *key = index,
                None => return row,
            }
        }
        keys.len().min(spans.len())
    }

    #[inline(always)]
    fn known(&self, slots: &[Slot], bytes: &[u8], span: Span) -> Option<i32> {
        let (start, len_bytes) = (span.start as usize, span.len_bytes as usize);
        let Some((mask, tag)) = SHORT.get(len_bytes) else {
            return self.known_long(bytes, start, len_bytes);
        };
        let sixteen = bytes.get(start..)?.first_chunk()?;
        let word = u128::from_le_bytes(*sixteen) & mask | tag;
        let mut position = hash(word) & (slots.len() - 1);
        loop {
            let slot = slots.get(position)?;
            if equal(slot.word, word) == 0xffff {
                return (slot.entry.exact_index() >= 0).then_some(slot.entry.exact_index());
            }
            if slot.word == FREE {
                return None;
            }
            position = (position + 1) & (slots.len() - 1);
        }
    }

    #[inline(never)]
    fn known_long(&self, bytes: &[u8], start: usize, len_bytes: usize) -> Option<i32> {
        let text = bytes.get(start..)?.get(..len_bytes)?;
        let word = word_of_long(text);
        let slot = self.slots.get(hash(word) & (self.slots.len() - 1))?;
        // first, as an earlier one's place means nothing in this chunk
        let is_known = slot.entry.exact_index() >= 0 && slot.word == word && slot.is(bytes, text);
        is_known.then_some(slot.entry.exact_index())
    }

    /// The entry of `bytes[start..][..len_bytes]`; `make` is asked once per distinct text, and told whether the text
    /// was found to render back before.
    pub(super) fn get(
        &mut self,
        bytes: &[u8],
        start: u32,
        len_bytes: u32,
        make: impl FnOnce(&[u8], bool) -> Entry,
    ) -> Entry {
        let text = text(bytes, start, len_bytes);
        let word = word(text);
        let mut position = hash(word) & (self.slots.len() - 1);
        let mut is_exact = false;
        loop {
            let slot = &self.slots[position];
            if slot.word == word && slot.entry.is_earlier() {
                // of long texts only the hash is the same for sure
                is_exact = slot.entry == Entry::EARLIER_EXACT && word < LONG;
                break;
            }
            if slot.word == word && (word < LONG || slot.is(bytes, text)) {
                return slot.entry;
            }
            if slot.word == FREE {
                break;
            }
            position = (position + 1) & (self.slots.len() - 1);
        }
        let entry = make(text, is_exact);
        self.enter(position, Slot { word, start, len_bytes, entry });
        entry
    }

    #[cold]
    fn enter(&mut self, position: usize, slot: Slot) {
        self.used += usize::from(self.slots[position].word == FREE);
        self.distinct += 1;
        self.slots[position] = slot;
        // few texts get a place to themselves: each that is found behind its place is a branch gone wrong
        let num_places = self.used * if self.slots.len() < ROOMY_SLOTS { 8 } else { 2 };
        if num_places <= self.slots.len() {
            return;
        }
        let larger = vec![FREE_SLOT; self.slots.len() * 2];
        for slot in std::mem::replace(&mut self.slots, larger) {
            if slot.word == FREE {
                continue;
            }
            let mut position = hash(slot.word) & (self.slots.len() - 1);
            while self.slots[position].word != FREE {
                position = (position + 1) & (self.slots.len() - 1);
            }
            self.slots[position] = slot;
        }
    }
}

impl Slot {
    /// Whether it is of this text, if it is of this chunk.
    fn is(&self, bytes: &[u8], other: &[u8]) -> bool {
        self.len_bytes as usize == other.len() && text(bytes, self.start, self.len_bytes) == other
    }
}

fn text(bytes: &[u8], start: u32, len_bytes: u32) -> &[u8] {
    &bytes[start as usize..][..len_bytes as usize]
}

/// Where a word's length is.
const LEN_SHIFT: u32 = 120;
/// No text has this word, and those from here on stand for the hash of a text.
const FREE: u128 = 0xfe << LEN_SHIFT;
const LONG: u128 = 0xff << LEN_SHIFT;

/// By number of bytes: which bits of a word they are, and the length, where a word has it.
const SHORT: [(u128, u128); 16] = {
    let mut short = [(0, 0); 16];
    let mut len_bytes = 1;
    while len_bytes < 16 {
        short[len_bytes] = (u128::MAX >> (128 - 8 * len_bytes), (len_bytes as u128) << LEN_SHIFT);
        len_bytes += 1;
    }
    short
};

/// The text itself and its length, if it has at most 15 bytes; its hash otherwise.
fn word(text: &[u8]) -> u128 {
    let mut sixteen = [0; 16];
    match sixteen.get_mut(..text.len()) {
        Some(bytes) if text.len() < 16 => {
            bytes.copy_from_slice(text);
            u128::from_le_bytes(sixteen) | (text.len() as u128) << LEN_SHIFT
        }
        _ => word_of_long(text),
    }
}

/// Of a text of at least sixteen bytes.
#[inline(always)]
fn word_of_long(text: &[u8]) -> u128 {
    let hash = match (text.first_chunk::<16>(), text.last_chunk::<16>()) {
        // the first and the last sixteen bytes are all of it
        (Some(first), Some(last)) if text.len() <= 32 => {
            let (first, last) = (u128::from_le_bytes(*first), u128::from_le_bytes(*last));
            hash(first ^ last.rotate_left(61)) as u64
        }
        _ => xxh3_64(text),
    };
    u128::from(hash) | LONG
}

/// Mixes the two halves of a word by one wide multiplication (the step that wyhash is made of).
#[inline(always)]
fn hash(word: u128) -> usize {
    let (low, high) = (word as u64, (word >> 64) as u64);
    let product = u128::from(low ^ 0xa076_1d64_78bd_642f) * u128::from(high ^ 0xe703_7ed1_a0b4_28db);
    (product as u64 ^ (product >> 64) as u64) as usize
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equal_texts_get_one_entry_and_different_ones_different_entries(texts in proptest::collection::vec("[a-c\u{0}]{0,3}|[ab]{14,19}", 0..1500)) {
            let bytes: Vec<u8> = texts.concat().into_bytes();
            let mut dictionary = Dictionary::new();
            let mut expected: HashMap<&str, Entry> = HashMap::new();
            let (mut start, mut next) = (0, 0);
            for text in &texts {
                let entry = dictionary.get(&bytes, start, text.len() as u32, |seen, _| {
                    assert_eq!(seen, text.as_bytes());
                    next += 1;
                    Entry::new(next - 1, true)
                });
                prop_assert_eq!(entry, *expected.entry(text).or_insert(entry));
                prop_assert_eq!(expected.len(), next);
                start += text.len() as u32;
            }
        }
    }

    #[test]
    fn texts_that_do_not_repeat_are_told_from_those_that_do() {
        for (distinct, repeats) in [(4000, false), (10, true)] {
            let bytes: Vec<u8> =
                (0..4000).flat_map(|number: u32| (number % distinct).to_le_bytes()).collect();
            let mut dictionary = Dictionary::new();
            for row in 0..4000 {
                dictionary.get(&bytes, row * 4, 4, |_, _| Entry::new(0, true));
            }
            assert_eq!(dictionary.repeats(4000), repeats);
        }
    }
}
