//! Looks for the lines that can matter by texts that they must hold, before any line is read.
//!
//! A search for a text runs at memory speed, which no reader of lines does. Deliberately absent: what a found line
//! says. It may hold the text elsewhere, so whoever asked looks at its values.
use memchr::memmem::Finder;
use memchr::{memchr, memrchr};

/// Texts of which a line must hold one.
#[derive(Debug, Clone)]
pub struct Needles(Vec<Finder<'static>>);

impl Needles {
    /// From texts that are not empty.
    pub fn new(texts: &[Vec<u8>]) -> Self {
        Self(texts.iter().map(|text| Finder::new(text).into_owned()).collect())
    }

    /// The lines of `bytes` that hold one of the texts, as first and end byte without the newline, ascending.
    pub(super) fn lines(&self, bytes: &[u8]) -> Vec<(usize, usize)> {
        let mut found: Vec<(usize, usize)> = Vec::new();
        for finder in &self.0 {
            let mut from = 0;
            while let Some(place) = finder.find(&bytes[from..]) {
                let place = from + place;
                let start = memrchr(b'\n', &bytes[..place]).map_or(0, |newline| newline + 1);
                let end = memchr(b'\n', &bytes[place..]).map_or(bytes.len(), |newline| place + newline);
                found.push((start, end));
                from = (end + 1).min(bytes.len());
            }
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_line_that_holds_a_text_is_found_once(
            text in "[abc\n]{0,80}",
            needles in prop::collection::vec("[abc]{1,3}", 1..4),
        ) {
            let bytes: Vec<Vec<u8>> = needles.iter().map(|needle| needle.clone().into_bytes()).collect();
            let found = Needles::new(&bytes).lines(text.as_bytes());
            let mut start = 0;
            let mut expected = Vec::new();
            for line in text.split('\n') {
                if needles.iter().any(|needle| line.contains(needle.as_str())) {
                    expected.push((start, start + line.len()));
                }
                start += line.len() + 1;
            }
            prop_assert_eq!(found, expected);
        }
    }
}
