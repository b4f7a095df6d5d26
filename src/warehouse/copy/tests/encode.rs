//! The encoder writes what a naive twin writes, whose values are made by `postgres-types`.
use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int16Array, Int32Array, StringArray,
    TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{Float64Type, Int16Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt8Type};
use bytes::BytesMut;
use chrono::DateTime;
use postgres_types::{IsNull, ToSql, Type};
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::{CopyEncodeError, CopyEncoder, PgType, Rows};
use super::arrays::columns;

/// The value as the crate `postgres-types` puts it on the wire.
fn to_sql(pg_type: PgType, value: &dyn ToSql) -> Vec<u8> {
    let mut out = BytesMut::new();
    let theirs = Type::from_oid(pg_type.oid()).unwrap();
    let written: Result<IsNull, Box<dyn Error + Sync + Send>> = value.to_sql_checked(&theirs, &mut out);
    assert!(matches!(written.unwrap(), IsNull::No));
    out.to_vec()
}

/// The naive twin: a row at a time, a value at a time.
fn naive(columns: &[(PgType, ArrayRef)], rows: impl Iterator<Item = usize>) -> Vec<u8> {
    let plain: Vec<_> = columns
        .iter()
        .map(|(pg_type, array)| (*pg_type, cast(array, &pg_type.arrow_type()).unwrap()))
        .collect();
    let mut out = Vec::new();
    for row in rows {
        out.extend((plain.len() as i16).to_be_bytes());
        for (pg_type, array) in &plain {
            if array.is_null(row) {
                out.extend((-1i32).to_be_bytes());
                continue;
            }
            let value: Box<dyn ToSql> = match pg_type {
                PgType::Bool => Box::new(array.as_boolean().value(row)),
                PgType::Int2 => Box::new(array.as_primitive::<Int16Type>().value(row)),
                PgType::Int4 => Box::new(array.as_primitive::<Int32Type>().value(row)),
                PgType::Int8 => Box::new(array.as_primitive::<Int64Type>().value(row)),
                PgType::Float8 => Box::new(array.as_primitive::<Float64Type>().value(row)),
                PgType::Text => Box::new(array.as_string::<i32>().value(row)),
                PgType::Inet => Box::new(array.as_string::<i32>().value(row).parse::<IpAddr>().unwrap()),
                PgType::Timestamptz => {
                    let micros = array.as_primitive::<TimestampMicrosecondType>().value(row);
                    Box::new(DateTime::from_timestamp_micros(micros).unwrap())
                }
                PgType::Json => {
                    let text = array.as_string::<i32>().value(row).as_bytes();
                    out.extend((text.len() as i32).to_be_bytes());
                    out.extend(text);
                    continue;
                }
                PgType::Jsonb => {
                    // the text is kept as it is; `json_is_what_they_write` compares the meaning
                    let text = array.as_string::<i32>().value(row).as_bytes();
                    out.extend((text.len() as i32 + 1).to_be_bytes());
                    out.push(1);
                    out.extend(text);
                    continue;
                }
                PgType::Bytea => Box::new(array.as_binary::<i32>().value(row)),
                PgType::Names => unreachable!("no log type has such a column"),
            };
            let value = to_sql(*pg_type, &*value);
            out.extend((value.len() as i32).to_be_bytes());
            out.extend(value);
        }
    }
    out
}

fn encoder(columns: &[(PgType, ArrayRef)]) -> CopyEncoder {
    let columns: Vec<_> = columns.iter().map(|(pg_type, array)| (*pg_type, array)).collect();
    CopyEncoder::try_new(&columns).unwrap()
}

proptest! {
    #[test]
    fn all_rows_are_written_as_the_naive_twin_writes_them(columns in columns(1500)) {
        let (encoder, num_rows) = (encoder(&columns), columns[0].1.len());
        prop_assert_eq!(encoder.num_rows(), num_rows);
        // what stands in the buffer stays
        let mut out = vec![7; 5];
        encoder.encode_rows(Rows::Run(0..num_rows), &mut out);
        prop_assert_eq!(&out[..5], &[7; 5]);
        prop_assert!(out[5..] == naive(&columns, 0..num_rows));
    }

    #[test]
    fn any_selection_is_written_in_its_order(
        columns in columns(600),
        picks in prop::collection::vec(any::<Index>(), 0..1200),
    ) {
        let num_rows = columns[0].1.len();
        let picks = if num_rows == 0 { Vec::new() } else { picks };
        let picked: Vec<u32> = picks.iter().map(|pick| pick.index(num_rows) as u32).collect();
        let (mut out, mut sorted) = (Vec::new(), picked.clone());
        encoder(&columns).encode_rows(Rows::Picked(&picked), &mut out);
        prop_assert!(out == naive(&columns, picked.iter().map(|row| *row as usize)));

        sorted.sort_unstable();
        if let (Some(first), Some(last)) = (sorted.first(), sorted.last()) {
            out.clear();
            let run = *first as usize..*last as usize + 1;
            encoder(&columns).encode_rows(Rows::Run(run.clone()), &mut out);
            prop_assert!(out == naive(&columns, run));
        }
    }

    #[test]
    fn buffers_are_full_to_within_a_row(columns in columns(1200), full_bytes in 1..5000usize) {
        let (encoder, num_rows) = (encoder(&columns), columns[0].1.len());
        let picked: Vec<u32> = (0..num_rows as u32).collect();
        for mut rows in [Rows::Run(0..num_rows), Rows::Picked(&picked)] {
            let mut whole = Vec::new();
            while !rows.is_empty() {
                let (first, mut out) = (num_rows - rows.len(), Vec::new());
                encoder.encode_until_full(&mut rows, full_bytes, &mut out);
                let end = num_rows - rows.len();
                prop_assert!(end > first);
                prop_assert!(rows.is_empty() || out.len() >= full_bytes);
                prop_assert!(out.len() - naive(&columns, end - 1..end).len() < full_bytes);
                whole.append(&mut out);
            }
            prop_assert!(whole == naive(&columns, 0..num_rows));
        }
    }
}

#[test]
fn a_row_after_another_fills_what_short_copies_left_behind() {
    // the last columns are too narrow for what a copy of 16 or 32 bytes writes behind an IPv4 address
    let inet = |texts: &[Option<&str>]| -> ArrayRef {
        let rows: DictionaryArray<Int32Type> = texts.iter().copied().collect();
        Arc::new(rows)
    };
    let port: ArrayRef = Arc::new(Int16Array::from(vec![Some(1), None, Some(3), None]));
    let short = inet(&[Some("10.0.0.1"), None, Some("10.0.0.2"), Some("10.0.0.1")]);
    let long = inet(&[Some("10.0.0.1"), Some("2001:db8::1"), None, Some("::")]);
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let all = [(PgType::Int2, &port), (PgType::Inet, &short), (PgType::Inet, &long)];
        let columns = order.map(|index: usize| (all[index].0, Arc::clone(all[index].1)));
        let mut out = Vec::new();
        encoder(&columns).encode_rows(Rows::Run(0..4), &mut out);
        assert_eq!(out, naive(&columns, 0..4), "{order:?}");
    }
}

#[test]
fn json_is_what_they_write() {
    let value = serde_json::json!({"zone": "dmz", "note": [1, null, "\u{e9}\""]});
    let text: ArrayRef = Arc::new(StringArray::from(vec![value.to_string()]));
    let mut ours = Vec::new();
    encoder(&[(PgType::Jsonb, text)]).encode_rows(Rows::Run(0..1), &mut ours);
    let theirs = to_sql(PgType::Jsonb, &value);
    let (ours, version) = (&ours[7..], ours[6]);
    assert_eq!(version, theirs[0]);
    let meaning = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).unwrap();
    assert_eq!(meaning(ours), meaning(&theirs[1..]));
}

#[test]
fn what_cannot_be_a_copy_is_refused_before_a_row_is_written() {
    let refusal = |columns: &[(PgType, ArrayRef)]| {
        let columns: Vec<_> = columns.iter().map(|(pg_type, array)| (*pg_type, array)).collect();
        CopyEncoder::try_new(&columns).unwrap_err().to_string()
    };
    let texts = |values: &[&str]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
    assert_eq!(
        refusal(&[(PgType::Text, texts(&["a"])), (PgType::Int4, texts(&["1"]))]),
        "column 2 is int4 in postgres and cannot be written from arrow type Utf8"
    );
    assert_eq!(
        refusal(&[(PgType::Text, texts(&["a"])), (PgType::Text, texts(&["a", "b"]))]),
        "column 2 has 2 rows, the first one has 1; pass columns of one batch"
    );
    assert_eq!(
        refusal(&[(PgType::Inet, texts(&["10.0.0.1", "localhost"]))]),
        "column 1 is inet and holds \"localhost\", which is no address; store such a column as text"
    );
    let many = vec![(PgType::Text, texts(&[])); 1601];
    assert_eq!(refusal(&many), "a postgres table has at most 1600 columns, not 1601; declare fewer");

    let at = |micros: i64| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from(vec![micros]).with_timezone("UTC"))
    };
    encoder(&[(PgType::Timestamptz, at(-210_866_803_200_000_000))]);
    assert!(refusal(&[(PgType::Timestamptz, at(-210_866_803_200_000_001))]).contains("before 4714-11-24 BC"));

    let local: ArrayRef = Arc::new(TimestampMicrosecondArray::from(vec![0]));
    let millis: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![0]).with_timezone("UTC"));
    let small_keys: DictionaryArray<UInt8Type> = ["a"].into_iter().collect();
    let numbers = DictionaryArray::new(Int32Array::from(vec![0]), Arc::new(Int32Array::from(vec![1])));
    for (pg_type, array) in [
        (PgType::Timestamptz, local),
        (PgType::Timestamptz, millis),
        (PgType::Text, Arc::new(small_keys) as ArrayRef),
        (PgType::Text, Arc::new(numbers)),
    ] {
        let error = CopyEncoder::try_new(&[(pg_type, &array)]).unwrap_err();
        assert!(matches!(error, CopyEncodeError::Type { column: 1, .. }), "{error}");
    }
}

#[test]
#[should_panic(expected = "out of bounds")]
fn a_row_that_is_not_there_is_a_bug_of_the_caller() {
    let ports: ArrayRef = Arc::new(Int16Array::from(vec![1, 2]));
    encoder(&[(PgType::Int2, ports)]).encode_rows(Rows::Picked(&[2]), &mut Vec::new());
}
