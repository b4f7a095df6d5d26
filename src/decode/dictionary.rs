//! Text -> dictionary key, each distinct text looked at once.
//!
//! A text of up to 16 bytes is its own hash key: two words and a length, compared without touching memory.
//! Where texts hardly repeat, looking them up does not pay: the dictionary then just grows by one value per
//! row, which is as valid.
use xxhash_rust::xxh3::xxh3_64;

/// What a text means: an index into the dictionary's values, or NULL; and whether it renders back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    /// Negative: the column's type cannot hold the text.
    pub(super) key: i32,
    pub(super) exact: bool,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    low: u64,
    high: u64,
    start: u32,
    len_bytes: u32,
    /// `EMPTY` marks a free slot.
    entry: Entry,
}

const EMPTY: Slot =
    Slot { low: 0, high: 0, start: 0, len_bytes: 0, entry: Entry { key: i32::MIN, exact: false } };

/// After this many rows it is decided whether texts repeat.
const TRIAL_ROWS: usize = 1024;

/// An open-addressing table, reused from chunk to chunk.
#[derive(Debug)]
pub(super) struct Dictionary {
    slots: Vec<Slot>,
    used: usize,
    rows: usize,
    repeats: bool,
}

impl Dictionary {
    pub(super) fn new() -> Self {
        Self { slots: vec![EMPTY; 64], used: 0, rows: 0, repeats: true }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        self.slots.fill(EMPTY);
        (self.used, self.rows, self.repeats) = (0, 0, true);
    }

    /// The entry of `bytes[start..][..len_bytes]`; `make` is asked once per distinct text, or per row where
    /// texts do not repeat.
    #[inline]
    pub(super) fn get(
        &mut self,
        bytes: &[u8],
        start: u32,
        len_bytes: u32,
        make: impl FnOnce(&[u8]) -> Entry,
    ) -> Entry {
        let text = &bytes[start as usize..][..len_bytes as usize];
        self.rows += 1;
        if !self.repeats {
            return make(text);
        }
        let (low, high) = words(bytes, start as usize, text);
        let mut position = fold(low, high ^ u64::from(len_bytes)) as usize & (self.slots.len() - 1);
        loop {
            let slot = self.slots[position];
            if slot.entry == EMPTY.entry {
                break;
            }
            if slot.low == low
                && slot.high == high
                && slot.len_bytes == len_bytes
                && (len_bytes <= 16 || bytes[slot.start as usize..][..len_bytes as usize] == *text)
            {
                return slot.entry;
            }
            position = (position + 1) & (self.slots.len() - 1);
        }
        let entry = make(text);
        self.slots[position] = Slot { low, high, start, len_bytes, entry };
        self.used += 1;
        if self.used * 2 > self.slots.len() {
            self.grow();
        }
        if self.rows == TRIAL_ROWS {
            self.repeats = self.used * 2 < self.rows;
        }
        entry
    }

    #[cold]
    fn grow(&mut self) {
        let larger = vec![EMPTY; self.slots.len() * 2];
        for slot in std::mem::replace(&mut self.slots, larger) {
            if slot.entry == EMPTY.entry {
                continue;
            }
            let hash = fold(slot.low, slot.high ^ u64::from(slot.len_bytes));
            let mut position = hash as usize & (self.slots.len() - 1);
            while self.slots[position].entry != EMPTY.entry {
                position = (position + 1) & (self.slots.len() - 1);
            }
            self.slots[position] = slot;
        }
    }
}

/// The text itself, if it has at most 16 bytes; its hash otherwise.
#[inline(always)]
fn words(bytes: &[u8], start: usize, text: &[u8]) -> (u64, u64) {
    if text.len() > 16 {
        return (xxh3_64(text), u64::MAX);
    }
    let word = |at: usize, len_bytes: usize| -> u64 {
        if len_bytes == 0 {
            return 0;
        }
        let mask = u64::MAX >> (64 - 8 * len_bytes.min(8) as u32);
        match bytes.get(start + at..).and_then(|rest| rest.first_chunk()) {
            Some(eight) => u64::from_le_bytes(*eight) & mask,
            None => {
                let mut eight = [0; 8];
                eight[..len_bytes].copy_from_slice(&text[at..at + len_bytes]);
                u64::from_le_bytes(eight)
            }
        }
    };
    (word(0, text.len().min(8)), word(8, text.len().saturating_sub(8)))
}

/// Mixes two words by one wide multiplication (the step that wyhash is made of).
#[inline(always)]
fn fold(low: u64, high: u64) -> u64 {
    let product = u128::from(low ^ 0xa076_1d64_78bd_642f) * u128::from(high ^ 0xe703_7ed1_a0b4_28db);
    product as u64 ^ (product >> 64) as u64
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
                let entry = dictionary.get(&bytes, start, text.len() as u32, |seen| {
                    assert_eq!(seen, text.as_bytes());
                    next += 1;
                    Entry { key: next - 1, exact: true }
                });
                if dictionary.repeats {
                    prop_assert_eq!(entry, *expected.entry(text).or_insert(entry));
                    prop_assert_eq!(expected.len(), next as usize);
                }
                start += text.len() as u32;
            }
        }
    }

    #[test]
    fn texts_that_do_not_repeat_are_not_looked_up() {
        let bytes: Vec<u8> = (0..4000).flat_map(|number: u32| number.to_le_bytes()).collect();
        let mut dictionary = Dictionary::new();
        let mut made = 0;
        for row in 0..4000 {
            dictionary.get(&bytes, row * 4, 4, |_| {
                made += 1;
                Entry { key: made - 1, exact: true }
            });
        }
        assert_eq!(made, 4000);
        assert!(!dictionary.repeats && dictionary.used == TRIAL_ROWS);
        dictionary.clear();
        assert!(dictionary.repeats);
    }
}
