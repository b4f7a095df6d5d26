//! Finds bytes and literals in a line, eight bytes at a time.
//!
//! A [`Line`] is a window on the chunk that goes on for at least [`PADDING`] bytes behind the line, so that a
//! load of eight bytes that starts inside the line never ends outside the window. What lies behind the line
//! is never taken for a match. Log fields are short: a call into `memchr` costs more than these loops.
use crate::log_type::program::Literal;

/// Readable bytes behind a line.
pub(super) const PADDING: usize = 16;

const LOW_BITS: u64 = 0x0101_0101_0101_0101;
const HIGH_BITS: u64 = 0x8080_8080_8080_8080;

/// One line in a window that is longer than it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    window: &'a [u8],
    len_bytes: usize,
}

impl<'a> Line<'a> {
    /// `window` holds the line and at least [`PADDING`] bytes more.
    pub(super) fn new(window: &'a [u8], len_bytes: usize) -> Self {
        debug_assert!(window.len() >= len_bytes + PADDING);
        Self { window, len_bytes }
    }

    pub(super) fn len_bytes(self) -> usize {
        self.len_bytes
    }

    /// The bytes from `at` to the line's end.
    pub(super) fn from(self, at: usize) -> &'a [u8] {
        &self.window[at..self.len_bytes]
    }

    #[inline(always)]
    fn load(self, at: usize) -> u64 {
        match self.window.get(at..).and_then(|rest| rest.first_chunk()) {
            Some(bytes) => u64::from_le_bytes(*bytes),
            None => 0,
        }
    }

    /// First position of `byte` in `from..end`.
    #[inline(always)]
    pub(super) fn find_byte(self, byte: u8, from: usize, end: usize) -> Option<usize> {
        let splat = u64::from(byte) * LOW_BITS;
        let mut at = from;
        while at < end {
            let difference = self.load(at) ^ splat;
            // the lowest high bit that is set marks the first byte equal to `byte`
            let zeros = difference.wrapping_sub(LOW_BITS) & !difference & HIGH_BITS;
            if zeros != 0 {
                let found = at + zeros.trailing_zeros() as usize / 8;
                return (found < end).then_some(found);
            }
            at += 8;
        }
        None
    }

    /// Whether `literal` stands at `at`.
    #[inline(always)]
    pub(super) fn has(self, literal: &Literal, at: usize) -> bool {
        let len_bytes = literal.bytes.len();
        at + len_bytes <= self.len_bytes
            && self.load(at) & literal.head_mask == literal.head
            && (len_bytes <= 8 || self.window[at + 8..at + len_bytes] == literal.bytes[8..])
    }

    /// First position at or after `from` where `literal` stands.
    #[inline(always)]
    pub(super) fn find(self, literal: &Literal, from: usize) -> Option<usize> {
        let anchor = literal.anchor;
        // behind the last place where the anchor can stand
        let end = (self.len_bytes + anchor + 1).checked_sub(literal.bytes.len())?;
        let mut at = from + anchor;
        loop {
            let found = self.find_byte(literal.bytes[anchor], at, end)?;
            if self.has(literal, found - anchor) {
                return Some(found - anchor);
            }
            at = found + 1;
        }
    }

    /// Last position at or after `from` where `literal` stands.
    pub(super) fn find_last(self, literal: &Literal, from: usize) -> Option<usize> {
        let mut last = self.find(literal, from)?;
        while let Some(found) = self.find(literal, last + 1) {
            last = found;
        }
        Some(last)
    }

    /// First space at or after `from`.
    pub(super) fn find_space(self, from: usize) -> Option<usize> {
        self.find_byte(b' ', from, self.len_bytes)
    }

    /// Whether there is a space in `from..end`.
    pub(super) fn has_space(self, from: usize, end: usize) -> bool {
        self.find_byte(b' ', from, end).is_some()
    }

    /// Number of spaces from `at` on.
    #[inline(always)]
    pub(super) fn count_spaces(self, at: usize) -> usize {
        self.from(at).iter().take_while(|byte| **byte == b' ').count()
    }
}

#[cfg(test)]
mod tests {
    use memchr::memmem;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn finds_what_memmem_finds(text in "[ab|=\u{0}\u{80}]{0,60}", needle in "[ab|=\u{80}]{1,12}", from in 0usize..60) {
            let text = text.as_bytes();
            // what lies behind the line is the needle: it must not be found
            let window = [text, needle.as_bytes(), &[b'a'; PADDING]].concat();
            let line = Line::new(&window, text.len());
            let literal = Literal::new(needle.as_bytes());
            let rest = text.get(from..).unwrap_or_default();
            if from <= text.len() {
                prop_assert_eq!(line.find(&literal, from), memmem::find(rest, needle.as_bytes()).map(|at| at + from));
                prop_assert_eq!(line.find_last(&literal, from), memmem::rfind(rest, needle.as_bytes()).map(|at| at + from));
                prop_assert_eq!(line.has(&literal, from), rest.starts_with(needle.as_bytes()));
                prop_assert_eq!(line.find_space(from), memchr::memchr(b' ', rest).map(|at| at + from));
            }
        }
    }
}
