//! Runs a log type's own examples: the tests that every type file carries.
use std::sync::Arc;

use arrow::array::RecordBatch;
use bytes::Bytes;

use super::Decoder;
use crate::log_type::render::Renderer;
use crate::log_type::spec::Example;
use crate::log_type::{LogType, LogTypes, timestamp};
use crate::model::{RawChunk, Source};

/// What is wrong with the type's examples, one line each; empty if they all hold.
pub fn check(log_type: &Arc<LogType>) -> Vec<String> {
    let mut decoder = Decoder::new(&LogTypes::new(vec![Arc::clone(log_type)]));
    log_type
        .examples
        .iter()
        .enumerate()
        .filter_map(|(index, example)| {
            let problem = check_one(&mut decoder, log_type, example).err()?;
            Some(format!("example {}: {problem} (line \"{}\")", index + 1, example.line))
        })
        .collect()
}

fn check_one(decoder: &mut Decoder, log_type: &LogType, example: &Example) -> Result<(), String> {
    let reference_time = match &example.reference_time {
        Some(text) => read_time(text).ok_or_else(|| format!("reference_time \"{text}\" is not RFC 3339"))?,
        None => 0,
    };
    let decoded = decoder.decode(&chunk_of(&example.line, reference_time));
    let row = match decoded.types.as_slice() {
        [] if example.reject => return Ok(()),
        [rows] if !example.reject => &rows.batch,
        [] => {
            let reject = decoded.rejects.first();
            let reason = reject.map_or("the line is blank", |reject| reject.reason.as_str());
            return Err(format!(
                "not a row: {reason}, read up to byte {}",
                reject.map_or(0, |reject| reject.column)
            ));
        }
        _ => return Err("became a row, but was to be rejected".into()),
    };
    check_rendering(log_type, row, &example.line)?;
    if let Some(unknown) = example.row.keys().find(|key| row.column_by_name(key).is_none()) {
        return Err(format!("there is no column {unknown}"));
    }
    let columns = log_type.columns.iter().map(|column| column.name.as_str()).chain(["extra"]);
    for name in columns {
        let found = value_text(log_type, row, name);
        let expected = example.row.get(name).map(|value| expected_text(value, name));
        if found != expected {
            let show = |text: Option<String>| text.map_or("NULL".into(), |text| format!("\"{text}\""));
            return Err(format!("{name} is {}, expected {}", show(found), show(expected)));
        }
    }
    Ok(())
}

/// Law 2: the row gives back its line.
fn check_rendering(log_type: &LogType, row: &RecordBatch, line: &str) -> Result<(), String> {
    let mut rendered = Vec::new();
    Renderer::try_new(log_type, row).map_err(|error| error.to_string())?.line(0, &mut rendered);
    match rendered == line.as_bytes() {
        true => Ok(()),
        false => Err(format!("renders to \"{}\"", String::from_utf8_lossy(&rendered))),
    }
}

/// A chunk of this line alone, of no file.
pub fn chunk_of(line: &str, reference_time: i64) -> RawChunk {
    let source = Source {
        path: "example".into(),
        device: 0,
        inode: 0,
        generation: 0,
        head_len_bytes: 0,
        head_hash: 0,
        id: 0,
    };
    RawChunk {
        source: Arc::new(source),
        first_byte: 0,
        bytes: Bytes::copy_from_slice(line.as_bytes()),
        content_sha256: [0; 32],
        reference_time,
        piece: None,
        open: false,
    }
}

fn read_time(text: &str) -> Option<i64> {
    let read = timestamp::Parser::default().parse(text.as_bytes(), 0)?;
    (read.len_bytes == text.len()).then_some(read.micros)
}

fn value_text(log_type: &LogType, row: &RecordBatch, name: &str) -> Option<String> {
    use arrow::array::{Array, AsArray};
    if name == "extra" {
        let extra = row.column_by_name("extra")?.as_string::<i32>();
        return extra.is_valid(0).then(|| extra.value(0).to_owned());
    }
    let renderer = Renderer::try_new(log_type, row).ok()?;
    let column = log_type.columns.iter().position(|column| column.name == name)?;
    let mut text = Vec::new();
    renderer.value_text(column, 0, &mut text).then(|| String::from_utf8_lossy(&text).into_owned())
}

/// An expected value in the text form that columns are compared in; times in any RFC 3339 form.
fn expected_text(value: &toml::Value, name: &str) -> String {
    let text = match value {
        toml::Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    match read_time(&text) {
        Some(micros) if name != "extra" && text.contains(':') => {
            let mut plain = Vec::new();
            timestamp::render_plain(micros, &mut plain);
            String::from_utf8_lossy(&plain).into_owned()
        }
        _ => text,
    }
}
