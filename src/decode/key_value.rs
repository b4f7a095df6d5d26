//! `key=value` pairs in any order, some missing, others unknown.
//!
//! Of a repeated key the last wins. A segment without an assignment sign that has no place of its own is
//! kept under the key `_`. Such rows always carry their line.
use super::matching::{Matcher, Span};
use crate::log_type::program::KeyValue;
use crate::log_type::timestamp::Timestamp;

/// Why a line is not one of pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KeyValueError {
    /// It has no pair at all.
    NoPair,
    /// Its event time is missing or cannot be read.
    Timestamp,
    /// A required key is missing.
    RequiredKey,
}

/// A line of pairs.
#[derive(Debug)]
pub(super) struct Pairs {
    pub(super) timestamp: Timestamp,
    /// By slot, relative to the line.
    pub(super) values: Vec<Span>,
    /// Unknown keys and their values, relative to the line, in line order.
    pub(super) unknown: Vec<(Span, Span)>,
}

/// Reads the pairs of a line; `required` lists slots.
pub(super) fn read(
    format: &KeyValue,
    num_slots: usize,
    required: &[u16],
    text: &[u8],
    matcher: &mut Matcher,
) -> Result<Pairs, KeyValueError> {
    let mut values = vec![Span::NULL; num_slots];
    let mut unknown = Vec::new();
    let mut time: Option<Span> = None;
    let mut positional = format.positional.iter();
    let mut has_pair = false;
    let mut start = 0;
    for segment in text.split(|byte| *byte == format.separator) {
        let whole = trimmed(text, start, start + segment.len());
        let assign = segment.iter().position(|byte| *byte == format.assign);
        let (key, value) = match assign {
            Some(at) => {
                has_pair = true;
                (trimmed(text, start, start + at), trimmed(text, start + at + 1, start + segment.len()))
            }
            None => (Span { start: start as u32, len_bytes: 0 }, whole),
        };
        start += segment.len() + 1;
        let known = format.keys.iter().find(|(name, _)| **name == *bytes_of(text, key));
        match (assign, known) {
            (Some(_), Some((_, Some(slot)))) => values[usize::from(*slot)] = value,
            (Some(_), Some((_, None))) => time = Some(value),
            (Some(_), None) => unknown.push((key, value)),
            (None, _) => match positional.next() {
                Some(Some(slot)) => values[usize::from(*slot)] = value,
                Some(None) => time = Some(value),
                None if value.len_bytes > 0 => unknown.push((key, value)),
                None => {}
            },
        }
    }
    if !has_pair {
        return Err(KeyValueError::NoPair);
    }
    let time = time.ok_or(KeyValueError::Timestamp)?;
    let timestamp = matcher
        .read_timestamp(&text[time.start as usize..])
        .filter(|timestamp| timestamp.len_bytes == time.len_bytes as usize)
        .ok_or(KeyValueError::Timestamp)?;
    if required.iter().any(|slot| values[usize::from(*slot)] == Span::NULL) {
        return Err(KeyValueError::RequiredKey);
    }
    Ok(Pairs { timestamp, values, unknown })
}

/// The span of `text[start..end]` without white space around it.
fn trimmed(text: &[u8], start: usize, end: usize) -> Span {
    let whole = &text[start..end];
    let leading = whole.len() - whole.trim_ascii_start().len();
    Span { start: (start + leading) as u32, len_bytes: whole.trim_ascii().len() as u32 }
}

fn bytes_of(text: &[u8], span: Span) -> &[u8] {
    &text[span.start as usize..][..span.len_bytes as usize]
}
