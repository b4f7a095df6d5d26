//! Finds bytes and literals in a line, sixteen bytes at a time.
//!
//! A [`Window`] holds lines and at least [`PADDING`] bytes behind the last one, so that a load of sixteen bytes that
//! starts inside a line, or shortly behind it, never ends outside the window. What lies behind the line is never taken for a match. Log
//! fields are short: a call into `memchr` costs more than these loops, and most fields end within the first sixteen
//! bytes, so that how long a field is costs no mispredicted branch.
use super::vectors::{SPLAT, Vectors, WIDTH, equal};
use crate::log_type::program::Literal;

/// Readable bytes behind the last line: a literal may reach over its end before it is known that it does, and what is
/// looked at behind that.
pub(super) const PADDING: usize = 64;

/// What is looked at at once.
const LOAD: usize = 16;

/// Fixed bytes, what must not stand behind them, and what is looked for there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Near {
    literal: u128,
    /// Sixteen times the stop.
    stops: u128,
    /// A bit for each byte of `literal` that matters, and for each that must be equal.
    looked_at: u32,
    expected: u32,
    len_bytes: u8,
    pub(super) stop: u8,
}

impl Near {
    /// So many fixed bytes fit.
    pub(super) const MAX_BYTES: usize = LOAD - 1;

    pub(super) fn new(literal: &[u8], forbidden: Option<u8>, stop: u8) -> Self {
        let len_bytes = literal.len();
        let mut sixteen = [0; LOAD];
        sixteen[..len_bytes].copy_from_slice(literal);
        sixteen[len_bytes] = forbidden.unwrap_or(0);
        let expected = (1 << len_bytes) - 1;
        Self {
            literal: u128::from_le_bytes(sixteen),
            stops: u128::from(stop) * SPLAT,
            looked_at: expected | u32::from(forbidden.is_some()) << len_bytes,
            expected,
            len_bytes: len_bytes as u8,
            stop,
        }
    }
}

/// What a look found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// The fixed bytes stand here, and behind them nothing that must not.
    pub(super) is_there: bool,
    /// The place behind the fixed bytes.
    pub(super) behind: usize,
    /// Which of the 32 bytes from there on are the stop: a bit each, the lowest for the first.
    pub(super) stop: u32,
}

/// Bytes of lines. Positions are counted from its start; `end` is always that of the line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window<'a> {
    bytes: &'a [u8],
    /// The last place where a load of sixteen bytes can start.
    last: usize,
    last_look: usize,
}

impl<'a> Window<'a> {
    /// `bytes` hold at least [`PADDING`] bytes behind the last line.
    ///
    /// # Panics
    /// If they are fewer than that.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        assert!(bytes.len() >= PADDING, "a window has {PADDING} bytes behind its last line");
        Self { bytes, last: bytes.len() - LOAD, last_look: bytes.len() - PADDING }
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

    /// The byte at `at`.
    #[inline(always)]
    pub(super) fn byte(self, at: usize) -> u8 {
        self.bytes[at]
    }

    /// What stands at `at` and behind; `None` where fewer than [`PADDING`] bytes follow, which is not in a line.
    #[inline(always)]
    pub(super) fn look(self, vectors: impl Vectors, at: usize, near: &Near) -> Option<Look> {
        if at > self.last_look {
            return None;
        }
        let behind = at + usize::from(near.len_bytes) % WIDTH;
        #[expect(unsafe_code, reason = "a check for each of the loads is what they cost twice over")]
        // SAFETY: `behind` is less than 32 bytes behind `at`, and 64 are there.
        let (literal, next) = unsafe {
            let bytes = self.bytes.as_ptr();
            (bytes.add(at).cast::<[u8; LOAD]>().read(), &*bytes.add(behind).cast::<[u8; WIDTH]>())
        };
        let is_equal = equal(u128::from_le_bytes(literal), near.literal);
        Some(Look {
            is_there: is_equal & near.looked_at == near.expected,
            behind,
            stop: vectors.which(next, near.stops),
        })
    }

    /// First position of `byte` from `from` on, or one that is not before `end`.
    #[cold]
    #[inline(never)]
    pub(super) fn find_stop(self, byte: u8, from: usize, end: usize) -> usize {
        self.find_byte(byte, from, end).unwrap_or(end.max(from))
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
    equal(sixteen, u128::from(byte) * SPLAT).trailing_zeros() as usize
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
            let equal = equal(u128::from_le_bytes(sixteens[quarter]), u128::from(b'\n') * SPLAT);
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
