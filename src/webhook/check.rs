//! One event as posted, field by field.
use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::model::Event;

/// An event may be this far ahead of the clock.
pub const MAX_AHEAD: Duration = Duration::from_secs(3600);

const MAX_TYPE_LEN: usize = 128;
const MAX_USER_LEN: usize = 256;
const MAX_ID_LEN: usize = 512;
const MAX_METADATA_LEN: usize = 16 << 10;

/// What makes two posts the same: 128 bits of a SHA-256, so that nobody can make up a second text for one.
pub type Id = [u8; 16];

/// The identity of everything in a request with this header.
#[must_use]
pub fn request_id(header: &[u8]) -> Id {
    id_of("request", header)
}

/// The identity of a request of which only some events were taken.
#[must_use]
pub fn in_part(request: &Id) -> Id {
    request.map(|byte| !byte)
}

fn id_of(kind: &str, text: impl AsRef<[u8]>) -> Id {
    let digest = Sha256::new().chain_update(kind).chain_update([0]).chain_update(text).finalize();
    let mut id = Id::default();
    id.copy_from_slice(&digest[..16]);
    id
}

/// What is wrong with an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field; none where the event is no JSON object.
    pub field: Option<&'static str>,
    /// What is wrong with it.
    pub reason: Cow<'static, str>,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.field {
            Some(field) => write!(out, "{field} {}", self.reason),
            None => out.write_str(&self.reason),
        }
    }
}

fn fault(field: &'static str, reason: impl Into<Cow<'static, str>>) -> Fault {
    Fault { field: Some(field), reason: reason.into() }
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    user_id: Option<&'a RawValue>,
    #[serde(borrow)]
    event_type: Option<&'a RawValue>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    metadata: Option<&'a RawValue>,
}

/// The event in `json`, and its own identity if it has one. Fields that are not known are ignored.
pub(super) fn check(json: &str, now_micros: i64) -> Result<(Option<Id>, Event), Fault> {
    if !json.trim_start().starts_with('{') {
        return Err(Fault { field: None, reason: "an event is a JSON object".into() });
    }
    let fields: Fields<'_> = serde_json::from_str(json)
        .map_err(|error| Fault { field: None, reason: format!("is not valid JSON: {error}").into() })?;
    let id = fields.id.map(|raw| text("id", raw, MAX_ID_LEN)).transpose()?;
    let user_id = fields.user_id.ok_or_else(|| fault("user_id", "is missing"))?;
    let event_type = fields.event_type.ok_or_else(|| fault("event_type", "is missing"))?;
    let event = Event {
        user_id: text("user_id", user_id, MAX_USER_LEN)?,
        event_type: type_of(event_type)?,
        value: fields.value.map_or(Ok(0.0), value)?,
        timestamp_micros: fields.timestamp.map_or(Ok(now_micros), |raw| timestamp(raw, now_micros))?,
        metadata: fields.metadata.map(metadata).transpose()?,
    };
    Ok((id.map(|id| id_of("event", &id)), event))
}

/// A string, or a number as its text: `42` and `"42"` are the same user.
fn text(field: &'static str, raw: &RawValue, max_len: usize) -> Result<String, Fault> {
    let json = raw.get();
    let text = match json.as_bytes() {
        [b'"', ..] => string(field, json)?.into_owned(),
        [b'-' | b'0'..=b'9', ..] => match json.parse::<f64>() {
            // 42.0 and 42 are one number; above 2^53 a float would change it
            Ok(number) if json.contains(['.', 'e', 'E']) && number.abs() < 9e15 => number.to_string(),
            _ => json.to_owned(),
        },
        _ => return Err(fault(field, "must be a string or a number")),
    };
    match text.len() {
        0 => Err(fault(field, "is empty")),
        len if len > max_len => Err(fault(field, format!("is longer than {max_len} bytes"))),
        _ => Ok(text),
    }
}

fn string<'a>(field: &'static str, json: &'a str) -> Result<Cow<'a, str>, Fault> {
    let inner = &json[1..json.len() - 1];
    if !inner.contains('\\') {
        return Ok(Cow::Borrowed(inner));
    }
    serde_json::from_str(json)
        .map(Cow::Owned)
        .map_err(|error| fault(field, format!("cannot be read: {error}")))
}

fn type_of(raw: &RawValue) -> Result<String, Fault> {
    let field = "event_type";
    if !raw.get().starts_with('"') {
        return Err(fault(field, "must be a string"));
    }
    let name = text(field, raw, MAX_TYPE_LEN)?;
    // databases refuse some of them, and a log line is broken by others
    if name.chars().any(char::is_control) {
        return Err(fault(field, "holds a control character"));
    }
    Ok(name)
}

fn number(field: &'static str, raw: &RawValue, expected: &'static str) -> Result<f64, Fault> {
    let json = raw.get();
    let text = match json.as_bytes() {
        [b'"', ..] => string(field, json)?,
        [b'-' | b'0'..=b'9', ..] => Cow::Borrowed(json),
        _ => return Err(fault(field, expected)),
    };
    // the standard library rounds correctly, so that a sum is the one of the numbers as written
    text.trim().parse().map_err(|_| fault(field, expected))
}

fn value(raw: &RawValue) -> Result<f64, Fault> {
    let value = number("value", raw, "must be a number, or a text that is one")?;
    if value.is_finite() && value.abs() <= Event::MAX_VALUE {
        Ok(value)
    } else {
        Err(fault("value", "is not a finite number of at most 1e280"))
    }
}

fn timestamp(raw: &RawValue, now_micros: i64) -> Result<i64, Fault> {
    let field = "timestamp";
    let rfc_3339 = match raw.get().as_bytes() {
        [b'"', ..] => DateTime::parse_from_rfc3339(&string(field, raw.get())?).ok(),
        _ => None,
    };
    let micros = match rfc_3339 {
        Some(time) => time.timestamp_micros(),
        None => {
            let expected = "must be seconds since the epoch, or RFC 3339 such as 2024-01-15T00:00:00Z";
            let micros = (number(field, raw, expected)? * 1e6).floor();
            if micros.is_nan() {
                return Err(fault(field, expected));
            }
            // saturates far ahead, where it is refused
            micros as i64
        }
    };
    let ahead = i64::try_from(MAX_AHEAD.as_micros()).unwrap_or(i64::MAX);
    if micros > now_micros.saturating_add(ahead) {
        return Err(fault(
            field,
            "is more than an hour ahead; are these seconds, and is the sender's clock right?",
        ));
    }
    if micros < 0 {
        return Err(fault(field, "is before 1970"));
    }
    Ok(micros)
}

fn metadata(raw: &RawValue) -> Result<String, Fault> {
    let json = raw.get();
    if !json.starts_with('{') {
        return Err(fault("metadata", "must be an object"));
    }
    if json.len() > MAX_METADATA_LEN {
        return Err(fault("metadata", format!("is longer than {MAX_METADATA_LEN} bytes")));
    }
    // outside of strings only: inside of them they are escaped
    Ok(json.replace(['\n', '\r'], " "))
}

/// The event as one line of JSON, the same for the same event; [`super::EVENTS_TYPE`] reads it.
#[must_use]
pub fn line(event: &Event) -> String {
    let time = DateTime::from_timestamp_micros(event.timestamp_micros).unwrap_or_default();
    let time = time.to_rfc3339_opts(SecondsFormat::Micros, true);
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    // as the log type renders it: 0 and not 0.0, so that the archive need not keep the line beside its columns
    let value = event.value;
    let mut line = format!(
        "{{\"timestamp\":\"{time}\",\"event_type\":{},\"user_id\":{},\"value\":{value}",
        quoted(&event.event_type),
        quoted(&event.user_id),
    );
    if let Some(metadata) = &event.metadata {
        line += ",\"metadata\":";
        line += metadata;
    }
    line.push('}');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_700_000_000_000_000;

    fn checked(json: &str) -> Event {
        check(json, NOW).unwrap_or_else(|fault| panic!("{json}: {fault}")).1
    }

    #[test]
    fn fields_have_the_forms_and_defaults_that_are_documented() {
        let event = checked(r#"{"user_id":42,"event_type":"click"}"#);
        assert_eq!((event.user_id.as_str(), event.value, event.timestamp_micros), ("42", 0.0, NOW));
        for (user, text) in [
            (r#""42""#, "42"),
            ("42.0", "42"),
            ("-1", "-1"),
            (r#""\u00e9""#, "é"),
            ("9007199254740993", "9007199254740993"),
        ] {
            assert_eq!(checked(&format!(r#"{{"user_id":{user},"event_type":"a"}}"#)).user_id, text);
        }
        for (value, number) in
            [("1.5", 1.5), (r#"" 2.5 ""#, 2.5), ("null", 0.0), ("-1e3", -1000.0), ("0.1", 0.1)]
        {
            let json = format!(r#"{{"user_id":1,"event_type":"a","value":{value}}}"#);
            assert_eq!(checked(&json).value, number, "{value}");
        }
        for (time, micros) in [
            ("1699999999.25", 1_699_999_999_250_000),
            (r#""2023-11-14T22:13:20Z""#, NOW),
            (r#""2023-11-14T23:13:20.5+01:00""#, NOW + 500_000),
            ("null", NOW),
            ("1700003600", NOW + 3_600_000_000),
        ] {
            let json = format!(r#"{{"user_id":1,"event_type":"a","timestamp":{time}}}"#);
            assert_eq!(checked(&json).timestamp_micros, micros, "{time}");
        }
        let event = checked("{\"user_id\":1,\"event_type\":\"a\",\"metadata\":{\"a\":\n[1]},\"unknown\":[]}");
        assert_eq!(event.metadata.as_deref(), Some("{\"a\": [1]}"));
    }

    #[test]
    fn a_fault_names_its_field() {
        let with = |more: &str| format!(r#"{{"user_id":1,"event_type":"a",{more}}}"#);
        for (json, field) in [
            ("[1]".to_owned(), None),
            ("{".to_owned(), None),
            (r#"{"event_type":"a"}"#.to_owned(), Some("user_id")),
            (r#"{"user_id":null,"event_type":"a"}"#.to_owned(), Some("user_id")),
            (r#"{"user_id":true,"event_type":"a"}"#.to_owned(), Some("user_id")),
            (r#"{"user_id":"","event_type":"a"}"#.to_owned(), Some("user_id")),
            (r#"{"user_id":1}"#.to_owned(), Some("event_type")),
            (r#"{"user_id":1,"event_type":7}"#.to_owned(), Some("event_type")),
            (r#"{"user_id":1,"event_type":"a\u0000b"}"#.to_owned(), Some("event_type")),
            (format!(r#"{{"user_id":1,"event_type":"{}"}}"#, "a".repeat(129)), Some("event_type")),
            (with(r#""value":"x""#), Some("value")),
            (with(r#""value":"nan""#), Some("value")),
            (with(r#""value":"inf""#), Some("value")),
            (with(r#""value":1e300"#), Some("value")),
            (with(r#""value":[]"#), Some("value")),
            (with(r#""timestamp":"yesterday""#), Some("timestamp")),
            (with(r#""timestamp":1700003601"#), Some("timestamp")),
            (with(r#""timestamp":1700000000000"#), Some("timestamp")),
            (with(r#""timestamp":"inf""#), Some("timestamp")),
            (with(r#""timestamp":-1"#), Some("timestamp")),
            (with(r#""metadata":[]"#), Some("metadata")),
            (with(r#""id":{}"#), Some("id")),
        ] {
            assert_eq!(check(&json, NOW).unwrap_err().field, field, "{json}");
        }
    }

    #[test]
    fn identities_are_of_their_kind_and_text() {
        let of = |id: &str| check(&format!(r#"{{"id":{id},"user_id":1,"event_type":"a"}}"#), NOW).unwrap().0;
        assert_eq!(of(r#""a""#), of(r#""\u0061""#));
        assert_ne!(of(r#""a""#), of(r#""b""#));
        assert_ne!(of(r#""a""#), Some(request_id(b"a")));
        assert_eq!(of("null"), None);
    }

    #[test]
    fn a_line_is_json_that_gives_the_event_back() {
        let json = r#"{"user_id":"a\"b","event_type":"c\\d","value":0.1,"timestamp":1700000000.000001,"metadata":{"k":"v"}}"#;
        let event = checked(json);
        assert_eq!(checked(&line(&event)), event);
        for value in [0.0, -1.0, 1e280, 5e-324] {
            let event = Event { value, ..event.clone() };
            assert_eq!(checked(&line(&event)), event);
        }
        assert!(line(&Event { value: -1.0, ..event.clone() }).contains(r#""value":-1,"#));
        assert_eq!(
            line(&event),
            r#"{"timestamp":"2023-11-14T22:13:20.000001Z","event_type":"c\\d","user_id":"a\"b","value":0.1,"metadata":{"k":"v"}}"#
        );
    }
}
