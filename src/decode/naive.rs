//! The naive twin of the decoder: says what decoding means, a line at a time, with std's own searches and parsers.
//!
//! Written from the documents of `log_type` and the laws of the design, not from the decoder: a mistake has to be
//! made twice to go unseen. Deliberately absent: speed, and where a reject's line went wrong, which is advice.
use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::log_type::template::Part;
use crate::log_type::timestamp::{self, Parser, Timestamp};
use crate::log_type::{ColumnType, LogType, LogTypes};
use crate::model::RejectReason;

/// What a line became.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    Row(Row),
    Reject(RejectReason),
    Blank,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) log_type: String,
    pub(super) form: i16,
    /// By column, in canonical text.
    pub(super) values: Vec<Option<String>>,
    pub(super) raw: Option<Vec<u8>>,
    /// JSON with sorted keys.
    pub(super) extra: Option<String>,
}

/// Name -> text, as captured.
type Captures = BTreeMap<String, Vec<u8>>;

/// What the lines of `chunk` are, in order.
pub(super) fn decode(types: &LogTypes, chunk: &[u8], reference_time: i64) -> Vec<Outcome> {
    let mut lines: Vec<&[u8]> = chunk.split(|byte| *byte == b'\n').collect();
    let behind_last_newline = lines.pop().unwrap_or_default();
    let carriage_returns = lines.first().is_some_and(|line| line.ends_with(b"\r"));
    let mut outcomes: Vec<_> =
        lines.iter().map(|line| decode_line(types, line, carriage_returns, reference_time)).collect();
    if !behind_last_newline.is_empty() {
        // no ending is rendered behind it, so its carriage return is white space like any other
        outcomes.push(decode_line(types, behind_last_newline, false, reference_time));
    }
    outcomes
}

fn decode_line(types: &LogTypes, whole: &[u8], carriage_return: bool, reference_time: i64) -> Outcome {
    // what a row must render to for its line not to be kept
    let rendered = match carriage_return {
        true => whole.strip_suffix(b"\r"),
        false => Some(whole),
    };
    let text = trim(whole);
    if text.is_empty() {
        return Outcome::Blank;
    }
    for log_type in types.iter() {
        for (number, variant) in log_type.variants.iter().enumerate() {
            // in the template of pairs no value holds the separator: it would be several pairs
            let separator = log_type.key_value.as_ref().filter(|_| number == 0).map(|pairs| pairs.separator);
            let captures = take(&variant.parts, text, Some(reference_time), separator);
            if let Some(captures) = captures.filter(|captures| words_hold(log_type, captures)) {
                let time = read_time(&captures["timestamp"], reference_time).unwrap();
                let mut row = row(log_type, number, time, &captures, &[], reference_time);
                for (column, text) in &variant.set {
                    row.values[usize::from(*column)] = Some(text.clone());
                }
                let line = render(log_type, &variant.parts, &row, time);
                if row.extra.is_some() || Some(line.as_slice()) != rendered {
                    row.raw = Some(whole.to_vec());
                }
                return Outcome::Row(row);
            }
        }
        if let Ok(pairs) = read_pairs(log_type, text, reference_time) {
            let mut row = row(log_type, 63, pairs.time, &pairs.known, &pairs.unknown, reference_time);
            row.raw = Some(whole.to_vec());
            return Outcome::Row(row);
        }
    }
    Outcome::Reject(reason(types, text, reference_time))
}

/// A template whose value for a `word` column has a space is not the line's template.
fn words_hold(log_type: &LogType, captures: &Captures) -> bool {
    let mut words = log_type.columns.iter().filter(|column| column.word);
    words.all(|column| captures.get(&column.name).is_none_or(|text| !text.contains(&b' ')))
}

/// Of the first type that comes near: what it misses.
fn reason(types: &LogTypes, text: &[u8], reference_time: i64) -> RejectReason {
    for log_type in types.iter() {
        if let Err(Some(reason)) = read_pairs(log_type, text, reference_time) {
            return reason;
        }
        let fits = |captures: Captures| words_hold(log_type, &captures);
        if log_type.variants.iter().any(|variant| take(&variant.parts, text, None, None).is_some_and(fits)) {
            return RejectReason::Timestamp;
        }
    }
    RejectReason::NoTemplate
}

fn row(
    log_type: &LogType,
    variant: usize,
    time: Timestamp,
    captures: &Captures,
    unknown: &[(String, Vec<u8>)],
    reference_time: i64,
) -> Row {
    let mut extra: BTreeMap<String, String> =
        unknown.iter().map(|(key, text)| (key.clone(), storable(text))).collect();
    let mut values = vec![None; log_type.columns.len()];
    for (name, text) in captures {
        let column = log_type.columns.iter().position(|column| column.name == *name);
        let value = match column {
            Some(column) if column == log_type.timestamp_column => Some(plain(time.micros)),
            Some(column) => read_value(log_type.columns[column].column_type, text, reference_time),
            None => None,
        };
        match (column, value) {
            (Some(column), Some(value)) => values[column] = Some(value),
            _ => _ = extra.insert(name.clone(), storable(text)),
        }
    }
    Row {
        log_type: log_type.name().to_owned(),
        form: ((variant << 9) | usize::from(time.form)) as u16 as i16,
        values,
        raw: None,
        extra: (!extra.is_empty()).then(|| serde_json::json!(extra).to_string()),
    }
}

/// The captures of a template that takes all of `text`, none of them with `without` in it. Without a reference
/// time, anything is a time.
fn take(parts: &[Part], text: &[u8], reference_time: Option<i64>, without: Option<u8>) -> Option<Captures> {
    let mut captures = Captures::new();
    let mut text = text;
    for (at, part) in parts.iter().enumerate() {
        match part {
            Part::Literal(bytes) => text = text.strip_prefix(bytes.as_slice())?,
            Part::Spaces => {
                text = text.strip_prefix(b" ")?;
                while let Some(rest) = text.strip_prefix(b" ") {
                    text = rest;
                }
            }
            Part::Capture { name, last } => {
                let len_bytes = match (reference_time, parts.get(at + 1)) {
                    (Some(reference_time), _) if name == "timestamp" => {
                        Parser::default().parse(text, reference_time)?.len_bytes
                    }
                    (_, Some(Part::Literal(bytes))) if *last && without.is_none() => {
                        text.windows(bytes.len()).rposition(|window| window == bytes.as_slice())?
                    }
                    (_, Some(Part::Literal(bytes))) => {
                        text.windows(bytes.len()).position(|window| window == bytes.as_slice())?
                    }
                    (_, Some(_)) => text.iter().position(|byte| *byte == b' ')?,
                    (_, None) => text.len(),
                };
                let (value, rest) = text.split_at(len_bytes);
                if name != "timestamp" && without.is_some_and(|byte| value.contains(&byte)) {
                    return None;
                }
                captures.insert(name.clone(), value.to_vec());
                text = rest;
            }
        }
    }
    text.is_empty().then_some(captures)
}

/// What a row without `raw` says its line was, its ending aside.
fn render(log_type: &LogType, parts: &[Part], row: &Row, time: Timestamp) -> Vec<u8> {
    let mut line = Vec::new();
    for part in parts {
        match part {
            Part::Literal(bytes) => line.extend(bytes),
            Part::Spaces => line.push(b' '),
            Part::Capture { name, .. } if name == "timestamp" => {
                timestamp::render(time.micros, time.form, &mut line);
            }
            Part::Capture { name, .. } => {
                let column = log_type.columns.iter().position(|column| column.name == *name);
                let value = column.and_then(|column| row.values[column].as_ref());
                line.extend(value.map(String::as_bytes).unwrap_or_default());
            }
        }
    }
    line
}

struct Pairs {
    time: Timestamp,
    known: Captures,
    unknown: Vec<(String, Vec<u8>)>,
}

/// `key=value` pairs in any order. `Err(None)`: it is no line of pairs at all.
fn read_pairs(log_type: &LogType, text: &[u8], reference_time: i64) -> Result<Pairs, Option<RejectReason>> {
    if log_type.key_value.is_none() {
        return Err(None);
    }
    // the canonical template: {positional}|{positional}|key={column}|key={column}
    let (mut separator, mut assign) = (0, 0);
    let (mut positional, mut columns) = (Vec::new(), BTreeMap::new());
    let mut before: &[u8] = b"";
    for part in &log_type.variants[0].parts {
        match part {
            Part::Literal(bytes) => before = bytes,
            Part::Capture { name, .. } if before.len() < 2 => positional.push(name),
            Part::Capture { name, .. } => {
                (separator, assign) = (before[0], before[before.len() - 1]);
                columns.insert(before[1..before.len() - 1].to_vec(), name);
            }
            Part::Spaces => unreachable!("not in a template of pairs"),
        }
    }
    let (mut known, mut unknown) = (Captures::new(), Vec::new());
    let mut positional = positional.into_iter();
    let mut num_pairs = 0;
    for segment in text.split(|byte| *byte == separator) {
        if let Some(at) = segment.iter().position(|byte| *byte == assign) {
            num_pairs += 1;
            let (key, value) = (segment[..at].trim_ascii(), segment[at + 1..].trim_ascii());
            match columns.get(key) {
                Some(name) => _ = known.insert((*name).clone(), value.to_vec()),
                None if key.is_empty() => unknown.push(("_".to_owned(), value.to_vec())),
                None => unknown.push((storable(key), value.to_vec())),
            }
        } else if let Some(name) = positional.next() {
            known.insert(name.clone(), segment.trim_ascii().to_vec());
        } else if !segment.trim_ascii().is_empty() {
            unknown.push(("_".to_owned(), segment.trim_ascii().to_vec()));
        }
    }
    if num_pairs == 0 {
        return Err(None);
    }
    let time = known.get("timestamp").and_then(|text| read_time(text, reference_time));
    let time = time.ok_or(Some(RejectReason::Timestamp))?;
    let is_missing = |name: &String| !known.contains_key(name);
    if log_type.columns.iter().any(|column| column.required && is_missing(&column.name)) {
        return Err(Some(RejectReason::RequiredKey));
    }
    Ok(Pairs { time, known, unknown })
}

fn read_value(column_type: ColumnType, text: &[u8], reference_time: i64) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let trimmed = text.trim_ascii();
    let unsigned =
        |max: u64| trimmed.parse::<u64>().ok().filter(|value| *value <= max).map(|value| value.to_string());
    match column_type {
        ColumnType::String => (!text.contains('\0')).then(|| text.to_owned()),
        ColumnType::Json => {
            let is_json = serde_json::from_str::<serde_json::Value>(text).is_ok();
            (is_json && !text.contains("\\u0000")).then(|| text.to_owned())
        }
        ColumnType::Ip => trimmed.parse::<IpAddr>().ok().map(|address| address.to_string()),
        ColumnType::U8 => unsigned(u8::MAX.into()),
        ColumnType::U16 => unsigned(u16::MAX.into()),
        ColumnType::U32 => unsigned(u32::MAX.into()),
        ColumnType::U64 => unsigned(i64::MAX as u64),
        ColumnType::I64 => trimmed.parse::<i64>().ok().map(|value| value.to_string()),
        ColumnType::F64 => {
            trimmed.parse::<f64>().ok().filter(|value| value.is_finite()).map(|value| value.to_string())
        }
        ColumnType::Bool => match trimmed.to_ascii_lowercase().as_str() {
            "true" | "t" | "yes" | "y" | "1" => Some("true".to_owned()),
            "false" | "f" | "no" | "n" | "0" => Some("false".to_owned()),
            _ => None,
        },
        ColumnType::Timestamp => read_time(trimmed.as_bytes(), reference_time).map(|time| plain(time.micros)),
    }
}

/// A time that is all of `text`.
fn read_time(text: &[u8], reference_time: i64) -> Option<Timestamp> {
    Parser::default().parse(text, reference_time).filter(|time| time.len_bytes == text.len())
}

fn plain(micros: i64) -> String {
    let mut text = Vec::new();
    timestamp::render_plain(micros, &mut text);
    String::from_utf8(text).unwrap()
}

fn storable(text: &[u8]) -> String {
    String::from_utf8_lossy(text).replace('\0', "\u{fffd}")
}

fn trim(text: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| b" \t\r\x0b\x0c".contains(byte);
    let start = text.iter().position(|byte| !is_space(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &text[start..end]
}
