//! A decoder for firewall lines as one writes it by hand, in plain Rust: what the template program is measured against.
//!
//! It gives the same columns for lines in the canonical form, and knows no other: no rejects, no pairs in another
//! order, no values that do not fit.
use std::net::Ipv4Addr;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Int16Array, Int32Array, Int64Array, RecordBatch, StringArray,
    StringDictionaryBuilder, TimestampMicrosecondArray,
};
use arrow::datatypes::{Int32Type, SchemaRef};
use pipeline::log_type::timestamp::{RFC3339_MILLIS_Z, days_from_date};
use pipeline::model::RawChunk;

/// The rows of a chunk; `None` for one that has any other line.
pub(super) fn decode(chunk: &RawChunk, schema: &SchemaRef) -> Option<RecordBatch> {
    let text = std::str::from_utf8(&chunk.bytes).ok()?;
    let mut texts: [StringDictionaryBuilder<Int32Type>; 5] = Default::default();
    let [action, src, dst, proto, rule] = &mut texts;
    let (mut times, mut source_ports, mut target_ports, mut sizes) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for line in text.lines() {
        let mut fields = line.split('|');
        times.push(micros(fields.next()?.as_bytes())?);
        action.append(fields.next()?.strip_prefix("action=")?).ok()?;
        src.append(address(fields.next()?.strip_prefix("src=")?)?).ok()?;
        dst.append(address(fields.next()?.strip_prefix("dst=")?)?).ok()?;
        proto.append(fields.next()?.strip_prefix("proto=")?).ok()?;
        source_ports.push(i32::from(fields.next()?.strip_prefix("src_port=")?.parse::<u16>().ok()?));
        target_ports.push(i32::from(fields.next()?.strip_prefix("dst_port=")?.parse::<u16>().ok()?));
        sizes.push(fields.next()?.strip_prefix("bytes_sent=")?.parse::<i64>().ok()?);
        rule.append(fields.next()?.strip_prefix("rule=")?).ok()?;
        if fields.next().is_some() {
            return None;
        }
    }
    let num_rows = times.len();
    let [action, src, dst, proto, rule] = texts.map(|mut text| Arc::new(text.finish()) as ArrayRef);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
        action,
        src,
        dst,
        proto,
        Arc::new(Int32Array::from(source_ports)),
        Arc::new(Int32Array::from(target_ports)),
        Arc::new(Int64Array::from(sizes)),
        rule,
        Arc::new(Int64Array::from(vec![chunk.chunk_id(); num_rows])),
        Arc::new(Int32Array::from_iter_values(0..num_rows as i32)),
        Arc::new(Int16Array::from(vec![RFC3339_MILLIS_Z as i16; num_rows])),
        Arc::new(BinaryArray::new_null(num_rows)),
        Arc::new(StringArray::new_null(num_rows)),
    ];
    RecordBatch::try_new(Arc::clone(schema), columns).ok()
}

fn address(text: &str) -> Option<&str> {
    text.parse::<Ipv4Addr>().ok().map(|_| text)
}

/// `2024-01-15T00:00:03.731Z`
fn micros(text: &[u8]) -> Option<i64> {
    let text: &[u8; 24] = text.try_into().ok()?;
    let number = |from: usize, to: usize| {
        text[from..to]
            .iter()
            .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
    };
    let is_formed = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':'), (19, b'.'), (23, b'Z')]
        .iter()
        .all(|(at, byte)| text[*at] == *byte);
    let days = days_from_date(number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let seconds = ((days * 24 + number(11, 13)?) * 60 + number(14, 16)?) * 60 + number(17, 19)?;
    is_formed.then_some(seconds * 1_000_000 + number(20, 23)? * 1000)
}
