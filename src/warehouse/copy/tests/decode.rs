//! The decoder reads what the encoder wrote, wherever the stream is cut, and refuses what is no COPY.
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int16Array, RecordBatch, StringArray};
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{Field, Schema, SchemaRef};
use proptest::prelude::*;

use super::super::{CopyDecodeError, CopyDecoder, CopyEncoder, HEADER, PgType, Rows, TRAILER};
use super::arrays::columns;

fn schema(types: &[PgType]) -> SchemaRef {
    let field =
        |(index, pg_type): (usize, &PgType)| Field::new(format!("c{index}"), pg_type.arrow_type(), true);
    Arc::new(Schema::new(types.iter().enumerate().map(field).collect::<Vec<_>>()))
}

fn stream(columns: &[(PgType, ArrayRef)]) -> Vec<u8> {
    let columns: Vec<_> = columns.iter().map(|(pg_type, array)| (*pg_type, array)).collect();
    let encoder = CopyEncoder::try_new(&columns).unwrap();
    let mut out = HEADER.to_vec();
    encoder.encode_rows(Rows::Run(0..encoder.num_rows()), &mut out);
    out.extend(TRAILER);
    out
}

fn decode<'a>(
    types: &[PgType],
    batch_rows: usize,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<RecordBatch>, CopyDecodeError> {
    let mut decoder = CopyDecoder::try_new(schema(types), types.to_vec())?.with_batch_rows(batch_rows);
    let mut batches = Vec::new();
    for piece in pieces {
        decoder.push(piece)?;
        batches.extend(std::iter::from_fn(|| decoder.next_batch()));
    }
    batches.extend(decoder.flush()?);
    Ok(batches)
}

/// One port per row.
fn ports(num_rows: i16) -> Vec<u8> {
    stream(&[(PgType::Int2, Arc::new(Int16Array::from_iter_values(0..num_rows)))])
}

proptest! {
    #[test]
    fn what_was_written_is_read_back(columns in columns(600), batch_rows in prop::sample::select(vec![1, 3, 100])) {
        let types: Vec<_> = columns.iter().map(|(pg_type, _)| *pg_type).collect();
        let plain = columns.iter().map(|(pg_type, array)| cast(array, &pg_type.arrow_type()).unwrap());
        let expected = RecordBatch::try_new(schema(&types), plain.collect()).unwrap();
        let batches = decode(&types, batch_rows, [&stream(&columns)[..]]).unwrap();
        if let Some((last, full)) = batches.split_last() {
            prop_assert!(full.iter().all(|batch| batch.num_rows() == batch_rows));
            prop_assert!((1..=batch_rows).contains(&last.num_rows()));
        }
        prop_assert_eq!(concat_batches(&schema(&types), &batches).unwrap(), expected);
    }

    #[test]
    fn cuts_never_matter(columns in columns(20), batch_rows in 1..5usize) {
        let types: Vec<_> = columns.iter().map(|(pg_type, _)| *pg_type).collect();
        let stream = stream(&columns);
        let whole = decode(&types, batch_rows, [&stream[..]]).unwrap();
        for len in [1, 2, 3, 7, 100] {
            prop_assert_eq!(&decode(&types, batch_rows, stream.chunks(len)).unwrap(), &whole);
        }
        for cut in (0..=stream.len()).step_by(1 + stream.len() / 200) {
            let (head, tail) = stream.split_at(cut);
            prop_assert_eq!(&decode(&types, batch_rows, [head, &[], tail]).unwrap(), &whole);
        }
    }

    #[test]
    fn a_torn_stream_is_never_taken_for_a_whole_one(columns in columns(20)) {
        let types: Vec<_> = columns.iter().map(|(pg_type, _)| *pg_type).collect();
        let stream = stream(&columns);
        for len in (0..stream.len()).step_by(1 + stream.len() / 200) {
            let error = decode(&types, 4, [&stream[..len]]).unwrap_err();
            prop_assert!(matches!(error, CopyDecodeError::Torn { .. }), "{error}");
        }
    }

    #[test]
    fn damage_is_an_error_or_another_value_and_never_a_panic(
        columns in columns(20), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let types: Vec<_> = columns.iter().map(|(pg_type, _)| *pg_type).collect();
        let mut stream = stream(&columns);
        *at.get_mut(&mut stream) = byte;
        let whole = decode(&types, 4, [&stream[..]]);
        let cut = decode(&types, 4, stream.chunks(5));
        prop_assert_eq!(whole.map_err(|e| e.to_string()), cut.map_err(|e| e.to_string()));
    }
}

#[test]
fn every_cut_position_gives_the_same_rows() {
    let stream = ports(40);
    let whole = decode(&[PgType::Int2], 7, [&stream[..]]).unwrap();
    assert_eq!(whole.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [7, 7, 7, 7, 7, 5]);
    for cut in 0..=stream.len() {
        assert_eq!(
            decode(&[PgType::Int2], 7, [&stream[..cut], &stream[cut..]]).unwrap(),
            whole,
            "cut at {cut}"
        );
    }
}

#[test]
fn a_network_keeps_its_prefix() {
    let nets: ArrayRef = Arc::new(StringArray::from(vec!["10.0.0.0/8", "10.0.0.1/32", "::/0", "fe80::1"]));
    let batches = decode(&[PgType::Inet], 9, [&stream(&[(PgType::Inet, nets)])[..]]).unwrap();
    let read: Vec<_> = batches[0].column(0).as_string::<i32>().iter().flatten().collect();
    assert_eq!(read, ["10.0.0.0/8", "10.0.0.1", "::/0", "fe80::1"]);
}

#[test]
fn an_empty_copy_has_no_batch() {
    assert_eq!(decode(&[PgType::Int2], 7, [&HEADER[..], &TRAILER]).unwrap(), []);
}

#[test]
fn foreign_streams_are_told_apart() {
    let message = |types: &[PgType], bytes: &[u8]| decode(types, 4, [bytes]).unwrap_err().to_string();
    let field = |value: &[u8]| {
        let mut stream = HEADER.to_vec();
        stream.extend([0, 1]);
        stream.extend((value.len() as u32).to_be_bytes());
        [&stream[..], value, &TRAILER].concat()
    };
    assert_eq!(
        message(&[PgType::Int2], b"1\t2\n"),
        "this is not a binary COPY of postgres; make it with COPY .. TO STDOUT (FORMAT binary)"
    );
    let mut with_oids = HEADER;
    with_oids[12] = 1;
    assert_eq!(
        message(&[PgType::Int2], &with_oids),
        "the COPY header has flags 0x10000 and an extension of 0 bytes; make the COPY with postgres 12 or later"
    );
    assert_eq!(
        message(&[PgType::Int2, PgType::Int2], &ports(1)),
        "row 0 of the COPY has 1 fields, not 2; name the columns in the COPY"
    );
    let mut negative = HEADER.to_vec();
    negative.extend([0, 1, 255, 255, 255, 254]);
    assert_eq!(
        message(&[PgType::Int2], &negative),
        "row 0 of the COPY has a field of -2 bytes in column 1; the stream is damaged"
    );
    assert_eq!(
        message(&[PgType::Int2], &[&ports(2)[..], &[0]].concat()),
        "the COPY goes on behind its trailer, after 2 rows; pass one COPY at a time"
    );
    assert_eq!(
        message(&[PgType::Int8], &ports(2)),
        "row 0 of the COPY holds 0x0000 in column 1, which is no int8 that can be read; leave it out of the COPY"
    );
    for (pg_type, value) in [
        (PgType::Bool, &[2][..]),
        (PgType::Text, b"\xff"),
        (PgType::Jsonb, b"\x02{}"),
        (PgType::Jsonb, b""),
        (PgType::Inet, &[2, 33, 0, 4, 1, 2, 3, 4]),
        (PgType::Timestamptz, &i64::MAX.to_be_bytes()),
        (PgType::Timestamptz, &i64::MIN.to_be_bytes()),
    ] {
        let error = decode(&[pg_type], 4, [&field(value)[..]]).unwrap_err();
        assert!(matches!(error, CopyDecodeError::Value { row: 0, column: 1, .. }), "{error}");
    }
}

#[test]
fn after_an_error_nothing_more_is_read() {
    let mut decoder = CopyDecoder::try_new(schema(&[PgType::Int2]), vec![PgType::Int2]).unwrap();
    decoder.push(b"nonsense").unwrap_err();
    assert!(matches!(decoder.push(&ports(1)), Err(CopyDecodeError::Failed)));
    assert!(matches!(decoder.flush(), Err(CopyDecodeError::Failed)));
}

#[test]
fn a_schema_that_cannot_hold_the_types_is_refused() {
    let refusal =
        |types: Vec<PgType>| CopyDecoder::try_new(schema(&[PgType::Int2]), types).unwrap_err().to_string();
    assert_eq!(refusal(vec![PgType::Text]), "column c0 is Int16 and cannot hold text; make it Utf8");
    assert_eq!(refusal(vec![]), "the schema has 1 columns, but 0 postgres types are given; give one each");
}
