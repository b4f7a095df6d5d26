//! A body: one event, an array, or one event per line.
use serde_json::value::RawValue;
use thiserror::Error;

use super::check::{Fault, Id, check};
use crate::model::Event;

/// As many events may be in one body.
const MAX_EVENTS: usize = 10_000;

/// What a body held.
#[derive(Debug, Default, PartialEq)]
pub struct Posted {
    /// Good ones, in their order.
    pub events: Vec<PostedEvent>,
    /// The others.
    pub bad: Vec<BadEvent>,
    /// Whether it was an array or lines.
    pub is_batch: bool,
}

/// A good event.
#[derive(Debug, PartialEq)]
pub struct PostedEvent {
    /// The sender's own identity of it: a second event with the same one is the same event.
    pub id: Option<Id>,
    /// The event.
    pub event: Event,
}

/// An event that cannot be counted.
#[derive(Debug, PartialEq, Eq)]
pub struct BadEvent {
    /// Its place in the body, from 0 on.
    pub index: usize,
    /// What is wrong with it.
    pub fault: Fault,
    /// Its text.
    pub text: String,
}

/// A body of which nothing can be read.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadBody {
    /// Not UTF-8, not JSON, or empty.
    #[error("the body is not JSON: {0}")]
    NotJson(String),
    /// More than a body may hold.
    #[error("the body holds more than {MAX_EVENTS} events; send several")]
    TooManyEvents,
}

/// Reads a body. `is_lines` says that the sender calls it NDJSON; other bodies may be lines too. `now_micros` is the
/// time of events without one.
pub fn read(body: &[u8], is_lines: bool, now_micros: i64) -> Result<Posted, BadBody> {
    let text = simdutf8::compat::from_utf8(body).map_err(|error| BadBody::NotJson(error.to_string()))?;
    let text = text.trim();
    let mut posted = Posted::default();
    if text.is_empty() {
        return Err(BadBody::NotJson("it is empty".to_owned()));
    }
    if text.starts_with('[') && !is_lines {
        posted.is_batch = true;
        let events: Vec<&RawValue> =
            serde_json::from_str(text).map_err(|error| BadBody::NotJson(error.to_string()))?;
        return posted.add_all(events.into_iter().map(RawValue::get), now_micros);
    }
    let mut lines = text.lines().filter(|line| !line.trim().is_empty());
    let is_several = lines.by_ref().nth(1).is_some();
    if !is_lines {
        match serde_json::from_str::<&RawValue>(text) {
            Ok(event) => return posted.add_all([event.get()].into_iter(), now_micros),
            Err(error) if !is_several => return Err(BadBody::NotJson(error.to_string())),
            // several objects in a row, or one that is broken: its first line tells, or one that is a good event
            Err(error) => {
                let first = text.lines().next().unwrap_or_default();
                let has_good = || text.lines().any(|line| check(line.trim(), now_micros).is_ok());
                if serde_json::from_str::<&RawValue>(first).is_err() && !has_good() {
                    return Err(BadBody::NotJson(error.to_string()));
                }
            }
        }
    }
    posted.is_batch = true;
    posted.add_all(text.lines().map(str::trim).filter(|line| !line.is_empty()), now_micros)
}

impl Posted {
    fn add_all<'a>(
        mut self,
        events: impl Iterator<Item = &'a str>,
        now_micros: i64,
    ) -> Result<Self, BadBody> {
        for (index, text) in events.enumerate() {
            if index >= MAX_EVENTS {
                return Err(BadBody::TooManyEvents);
            }
            match check(text, now_micros) {
                Ok((id, event)) => self.events.push(PostedEvent { id, event }),
                Err(fault) => self.bad.push(BadEvent { index, fault, text: text.to_owned() }),
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"user_id":1,"event_type":"a"}"#;

    fn counts(body: &str, is_lines: bool) -> (usize, Vec<usize>, bool) {
        let posted = read(body.as_bytes(), is_lines, 0).unwrap_or_else(|error| panic!("{body}: {error}"));
        (posted.events.len(), posted.bad.iter().map(|bad| bad.index).collect(), posted.is_batch)
    }

    #[test]
    fn one_event_an_array_and_lines_are_told_apart() {
        assert_eq!(counts(EVENT, false), (1, vec![], false));
        assert_eq!(counts(&format!(" {EVENT}\n"), false), (1, vec![], false));
        assert_eq!(counts("{\"user_id\":1,\n\"event_type\":\"a\"}", false), (1, vec![], false));
        assert_eq!(counts(&format!("[{EVENT},{EVENT}]"), false), (2, vec![], true));
        assert_eq!(counts("[]", false), (0, vec![], true));
        assert_eq!(counts(&format!("{EVENT}\n\n{EVENT}\r\n"), false), (2, vec![], true));
        assert_eq!(counts(EVENT, true), (1, vec![], true));
    }

    #[test]
    fn a_bad_event_leaves_the_others() {
        assert_eq!(counts(&format!("[{EVENT},7,{EVENT}]"), false), (2, vec![1], true));
        assert_eq!(counts(&format!("{EVENT}\n{{\n{EVENT}"), false), (2, vec![1], true));
        assert_eq!(counts(&format!("{{\n{EVENT}\n{EVENT}"), false), (2, vec![0], true));
        assert_eq!(counts("7", false), (0, vec![0], false));
    }

    #[test]
    fn a_body_of_which_nothing_can_be_read_is_an_error() {
        for body in ["", " ", "{", "[1,", "nonsense", "{\n\"a\":"] {
            assert!(matches!(read(body.as_bytes(), false, 0), Err(BadBody::NotJson(_))), "{body}");
        }
        assert!(matches!(read(b"\xff", false, 0), Err(BadBody::NotJson(_))));
        let many = format!("[{}1]", "1,".repeat(10_000));
        assert_eq!(read(many.as_bytes(), false, 0), Err(BadBody::TooManyEvents));
    }
}
