//! Finds bytes and literals in a line, sixteen bytes at a time.
//!
//! A [`Window`] holds lines and at least [`PADDING`] bytes behind the last one, so that a load of sixteen bytes that
//! starts inside a line never ends outside the window. What lies behind the line is never taken for a match. Log
//! fields are short: a call into `memchr` costs more than these loops, and most fields end within the first sixteen
//! bytes, so that how long a field is costs no mispredicted branch.
use crate::log_type::program::Literal;

/// Readable bytes behind the last line.
pub(super) const PADDING: usize = 16;

/// Bytes of lines. Positions are counted from its start; `end` is always that of the line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    bytes: &'a [u8],
    /// The last place where a load of sixteen bytes can start.
    last: usize,
}

impl<'a> Window<'a> {
    /// `bytes` hold at least [`PADDING`] bytes behind the last line.
    ///
    /// # Panics
    /// If they are fewer than that.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        assert!(bytes.len() >= PADDING, "a window has {PADDING} bytes behind its last line");
        Self { bytes, last: bytes.len() - PADDING }
    }

    /// The bytes from `at` to `end`.
    pub(super) fn slice(self, at: usize, end: usize) -> &'a [u8] {
        &self.bytes[at..end]
    }

    #[inline(always)]
    fn load(self, at: usize) -> u128 {
        let at = at.min(self.last);
        #[expect(unsafe_code, reason = "a slice's own checks are what this costs four times over")]
        // SAFETY: `last` and the fifteen bytes behind it are in `bytes`, see `new`.
        let sixteen = unsafe { self.bytes.as_ptr().add(at).cast::<[u8; 16]>().read() };
        u128::from_le_bytes(sixteen)
    }

    /// First position of `byte` in `from..end`.
    #[inline(always)]
    pub(super) fn find_byte(self, byte: u8, from: usize, end: usize) -> Option<usize> {
        let mut at = from;
        while at < end {
            let found = at + first_equal(self.load(at), byte);
            if found < at + 16 {
                return (found < end).then_some(found);
            }
            at += 16;
        }
        None
    }

    /// Whether `literal` stands at `at`.
    #[inline(always)]
    pub(super) fn has(self, literal: &Literal, at: usize, end: usize) -> bool {
        let len_bytes = literal.bytes.len();
        // without a branch between the two: where lines of several types are mixed, it would often go the other way
        let has_head = (at + len_bytes <= end) & (self.load(at) & literal.head_mask == literal.head);
        has_head && (len_bytes <= 16 || self.has_rest(literal, at))
    }

    #[cold]
    #[inline(never)]
    fn has_rest(self, literal: &Literal, at: usize) -> bool {
        self.bytes[at + 16..at + literal.bytes.len()] == literal.bytes[16..]
    }

    /// First position at or after `from` where `literal` stands.
    #[inline(always)]
    pub(super) fn find(self, literal: &Literal, from: usize, end: usize) -> Option<usize> {
        let anchor = literal.anchor;
        // behind the last place where the anchor can stand
        let anchor_end = (end + anchor + 1).checked_sub(literal.bytes.len())?;
        let mut at = from + anchor;
        loop {
            let found = self.find_byte(literal.bytes[anchor], at, anchor_end)?;
            if self.has(literal, found - anchor, end) {
                return Some(found - anchor);
            }
            at = found + 1;
        }
    }

    /// Last position at or after `from` where `literal` stands.
    pub(super) fn find_last(self, literal: &Literal, from: usize, end: usize) -> Option<usize> {
        let mut last = self.find(literal, from, end)?;
        while let Some(found) = self.find(literal, last + 1, end) {
            last = found;
        }
        Some(last)
    }

    /// Number of spaces from `at` on.
    #[inline(always)]
    pub(super) fn count_spaces(self, at: usize, end: usize) -> usize {
        self.slice(at, end).iter().take_while(|byte| **byte == b' ').count()
    }
}

/// Position of the first of sixteen bytes, little endian, that equals `byte`; at least 16 where none does.
#[inline(always)]
fn first_equal(sixteen: u128, byte: u8) -> usize {
    equal(sixteen, byte).trailing_zeros() as usize
}

/// Which of sixteen bytes, little endian, equal `byte`: a bit each, the lowest for the first.
#[cfg(target_arch = "x86_64")]
#[inline(always)]
fn equal(sixteen: u128, byte: u8) -> u32 {
    use std::arch::x86_64::{_mm_cmpeq_epi8, _mm_movemask_epi8, _mm_set_epi64x, _mm_set1_epi8};
    #[expect(unsafe_code, reason = "the compiler does not find these instructions by itself; half the time")]
    // SAFETY: they are SSE2, which every processor of this kind has.
    let equal = unsafe {
        let bytes = _mm_set_epi64x((sixteen >> 64) as i64, sixteen as i64);
        _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(byte as i8)))
    };
    equal as u32
}

#[cfg(not(target_arch = "x86_64"))]
use equal_by_bytes as equal;

/// The same for any processor.
#[cfg(any(not(target_arch = "x86_64"), test))]
#[inline(always)]
fn equal_by_bytes(sixteen: u128, byte: u8) -> u32 {
    let bits = sixteen.to_le_bytes().map(|other| u32::from(other == byte));
    (0..16).fold(0, |equal, position| equal | bits[position] << position)
}

/// Positions of the newlines, ascending.
#[derive(Debug, Clone)]
pub(super) struct Newlines<'a> {
    bytes: &'a [u8],
    /// The end of the bytes that were looked at,
    end: usize,
    /// and which of the last 64 of them are newlines and were not given yet.
    found: u64,
}

impl<'a> Newlines<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, end: 0, found: 0 }
    }

    fn look(block: &[u8; 64]) -> u64 {
        let (sixteens, _) = block.as_chunks::<16>();
        (0..4).fold(0, |found, quarter| {
            let equal = equal(u128::from_le_bytes(sixteens[quarter]), b'\n');
            found | u64::from(equal) << (16 * quarter)
        })
    }
}

impl Iterator for Newlines<'_> {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        while self.found == 0 {
            let rest = self.bytes.get(self.end..)?;
            self.found = match rest.first_chunk() {
                Some(block) => Self::look(block),
                None if rest.is_empty() => return None,
                None => {
                    let mut block = [0; 64];
                    block[..rest.len()].copy_from_slice(rest);
                    Self::look(&block)
                }
            };
            self.end += 64;
        }
        let position = self.end - 64 + self.found.trailing_zeros() as usize;
        self.found &= self.found - 1;
        Some(position)
    }
}

#[cfg(test)]
mod tests {
    use memchr::memmem;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn vectors_find_what_a_look_at_each_byte_finds(bytes: [u8; 16], byte in prop::sample::select(vec![0, 1, 0x7f, 0x80, 0xff])) {
            // bytes that differ in few bits, so that some are equal
            let sixteen = u128::from_le_bytes(bytes.map(|random| [0, 1, byte, 0x80, 0xff][usize::from(random) % 5]));
            let expected = sixteen.to_le_bytes().iter().position(|other| *other == byte).unwrap_or(16);
            prop_assert_eq!(first_equal(sixteen, byte).min(16), expected);
            prop_assert_eq!(equal(sixteen, byte), equal_by_bytes(sixteen, byte));
        }

        #[test]
        fn newlines_are_what_memchr_finds(text in "[a\n]{0,300}|[a-z]{0,200}\n{0,3}") {
            let found: Vec<_> = Newlines::new(text.as_bytes()).collect();
            prop_assert_eq!(found, memchr::memchr_iter(b'\n', text.as_bytes()).collect::<Vec<_>>());
        }

        #[test]
        fn finds_what_memmem_finds(text in "[ab|=\u{0}\u{80}]{0,60}", needle in "[ab|=\u{80}]{1,12}", from in 0usize..60) {
            let text = text.as_bytes();
            // what lies behind the line is the needle: it must not be found
            let window = [text, needle.as_bytes(), &[b'a'; PADDING]].concat();
            let (line, end) = (Window::new(&window), text.len());
            let literal = Literal::new(needle.as_bytes());
            let rest = text.get(from..).unwrap_or_default();
            if from <= text.len() {
                prop_assert_eq!(line.find(&literal, from, end), memmem::find(rest, needle.as_bytes()).map(|at| at + from));
                prop_assert_eq!(line.find_last(&literal, from, end), memmem::rfind(rest, needle.as_bytes()).map(|at| at + from));
                prop_assert_eq!(line.has(&literal, from, end), rest.starts_with(needle.as_bytes()));
                prop_assert_eq!(line.find_byte(b' ', from, end), memchr::memchr(b' ', rest).map(|at| at + from));
            }
        }
    }
}
