//! Binary COPY against a real Postgres: what the encoder writes it takes, and what it sends the decoder reads.
use std::pin::pin;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, DictionaryArray, Float64Array, Int16Array, Int32Array, Int64Array,
    RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{Field, Int32Type, Schema};
use bytes::Bytes;
use futures_util::{SinkExt, TryStreamExt};
use pipeline::warehouse::{CopyDecoder, CopyEncoder, HEADER, PgType, Rows, TRAILER};
use tokio_postgres::{Client, NoTls};

use super::servers::{Database, Postgres};

/// What columns of log types have, and the ledger's.
const COLUMNS: [PgType; 12] = {
    let mut columns = [PgType::Names; 12];
    let mut at = 0;
    while at < PgType::ALL.len() {
        columns[at] = PgType::ALL[at];
        at += 1;
    }
    columns
};

/// Values of one type and what `::text` says of them in a session whose time zone is UTC.
fn column(pg_type: PgType) -> (ArrayRef, Vec<Option<&'static str>>) {
    let words = |values: &[Option<&str>]| -> ArrayRef {
        Arc::new(values.iter().copied().collect::<DictionaryArray<Int32Type>>())
    };
    match pg_type {
        PgType::Bool => (
            Arc::new(BooleanArray::from(vec![Some(true), Some(false), None, Some(true)])),
            vec![Some("true"), Some("false"), None, Some("true")],
        ),
        PgType::Int2 => (
            Arc::new(Int16Array::from(vec![Some(i16::MIN), Some(i16::MAX), Some(0), None])),
            vec![Some("-32768"), Some("32767"), Some("0"), None],
        ),
        PgType::Int4 => (
            Arc::new(Int32Array::from(vec![None, Some(i32::MIN), Some(i32::MAX), Some(65_535)])),
            vec![None, Some("-2147483648"), Some("2147483647"), Some("65535")],
        ),
        PgType::Int8 => (
            Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX, 0, -1])),
            vec![Some("-9223372036854775808"), Some("9223372036854775807"), Some("0"), Some("-1")],
        ),
        PgType::Float8 => (
            Arc::new(Float64Array::from(vec![Some(0.1), Some(-1.5e300), None, Some(f64::INFINITY)])),
            vec![Some("0.1"), Some("-1.5e+300"), None, Some("Infinity")],
        ),
        PgType::Text => {
            let texts =
                vec![Some("accept"), Some(""), None, Some("tab\t \\N \u{e9}\u{1f600} and then some more")];
            (words(&texts), texts)
        }
        PgType::Inet => {
            let texts = vec![Some("192.168.1.45"), None, Some("2001:db8::1"), Some("::ffff:10.0.0.1")];
            let stored =
                vec![Some("192.168.1.45/32"), None, Some("2001:db8::1/128"), Some("::ffff:10.0.0.1/128")];
            (words(&texts), stored)
        }
        PgType::Timestamptz => {
            let micros = vec![
                Some(1_705_276_803_731_001),
                Some(946_684_799_999_999),
                None,
                Some(-62_135_596_800_000_000),
            ];
            let texts = vec![
                Some("2024-01-15 00:00:03.731001+00"),
                Some("1999-12-31 23:59:59.999999+00"),
                None,
                Some("0001-01-01 00:00:00+00"),
            ];
            (Arc::new(TimestampMicrosecondArray::from(micros).with_timezone("UTC")), texts)
        }
        PgType::Json => {
            let texts = vec![Some("{ \"zone\":\"dmz\" }"), None, Some("1.50"), Some("[]")];
            (Arc::new(StringArray::from(texts.clone())), texts)
        }
        PgType::Jsonb => {
            // as Postgres prints it, so that what comes back is what was sent
            let texts = vec![None, Some("{\"zone\": \"dmz\"}"), Some("null"), Some("[1, \"\u{e9}\"]")];
            (Arc::new(StringArray::from(texts.clone())), texts)
        }
        PgType::Bytea => {
            let values = vec![Some(&b"\x00\xff|raw"[..]), None, Some(b""), Some(b"\\x")];
            let texts = vec![Some("\\x00ff7c726177"), None, Some("\\x"), Some("\\x5c78")];
            (Arc::new(BinaryArray::from(values)), texts)
        }
        PgType::Names => {
            let texts = vec![Some("auth,dns"), Some(""), None, Some("rejects")];
            let stored = vec![Some("{auth,dns}"), Some("{}"), None, Some("{rejects}")];
            (Arc::new(StringArray::from(texts)), stored)
        }
    }
}

async fn connect(database: &Database) -> Client {
    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let columns: Vec<_> = COLUMNS.iter().map(|of| format!("{0}_column {0}", of.name())).collect();
    let table = format!("CREATE TEMP TABLE copied (row serial, {})", columns.join(", "));
    client.batch_execute(&format!("SET timezone = 'UTC'; {table}")).await.unwrap();
    client
}

fn column_names() -> String {
    COLUMNS.map(|of| format!("{}_column", of.name())).join(", ")
}

async fn copy_in(client: &Client, encoder: &CopyEncoder, mut rows: Rows<'_>) -> u64 {
    let copy = format!("COPY copied ({}) FROM STDIN (FORMAT binary)", column_names());
    let mut sink = pin!(client.copy_in::<_, Bytes>(&copy).await.unwrap());
    sink.send(Bytes::from_static(&HEADER)).await.unwrap();
    while !rows.is_empty() {
        let mut buffer = Vec::new();
        encoder.encode_until_full(&mut rows, 64 << 10, &mut buffer);
        sink.send(Bytes::from(buffer)).await.unwrap();
    }
    sink.send(Bytes::from_static(&TRAILER)).await.unwrap();
    sink.finish().await.unwrap()
}

async fn copy_out(client: &Client) -> Vec<RecordBatch> {
    let fields = COLUMNS.map(|of| Field::new(of.name(), of.arrow_type(), true));
    let schema = Arc::new(Schema::new(fields.to_vec()));
    let mut decoder = CopyDecoder::try_new(schema, COLUMNS.to_vec()).unwrap();
    let query = format!("SELECT {} FROM copied ORDER BY row", column_names());
    let mut stream =
        pin!(client.copy_out(&format!("COPY ({query}) TO STDOUT (FORMAT binary)")).await.unwrap());
    let mut batches = Vec::new();
    while let Some(bytes) = stream.try_next().await.unwrap() {
        decoder.push(&bytes).unwrap();
        batches.extend(std::iter::from_fn(|| decoder.next_batch()));
    }
    batches.extend(decoder.flush().unwrap());
    batches
}

#[tokio::test]
async fn postgres_stores_what_was_encoded_and_sends_it_back() {
    let database = Postgres::shared().database();
    let client = connect(&database).await;
    let columns = COLUMNS.map(|pg_type| (pg_type, column(pg_type)));
    let arrays = columns.each_ref().map(|(pg_type, (array, _))| (*pg_type, array));
    let encoder = CopyEncoder::try_new(&arrays).unwrap();
    assert_eq!(copy_in(&client, &encoder, Rows::Run(0..4)).await, 4);

    for (pg_type, (_, expected)) in &columns {
        let query = format!("SELECT {}_column::text FROM copied ORDER BY row", pg_type.name());
        let rows = client.query(&query, &[]).await.unwrap();
        let found: Vec<Option<String>> = rows.iter().map(|row| row.get(0)).collect();
        let found: Vec<_> = found.iter().map(Option::as_deref).collect();
        assert_eq!(found, *expected, "{}", pg_type.name());
    }

    let batches = copy_out(&client).await;
    assert_eq!(batches.len(), 1);
    for ((pg_type, array), read) in arrays.iter().zip(batches[0].columns()) {
        let plain = cast(array, &pg_type.arrow_type()).unwrap();
        assert_eq!(read.as_ref(), plain.as_ref(), "{}", pg_type.name());
    }
}

#[tokio::test]
async fn postgres_takes_many_buffers_and_any_selection_of_rows() {
    let database = Postgres::shared().database();
    let client = connect(&database).await;
    let picked: Vec<u32> = (0..20_000).map(|row| row * 7 % 4).collect();
    let arrays = COLUMNS.map(|pg_type| (pg_type, column(pg_type).0));
    let arrays = arrays.each_ref().map(|(pg_type, array)| (*pg_type, array));
    let encoder = CopyEncoder::try_new(&arrays).unwrap();
    assert_eq!(copy_in(&client, &encoder, Rows::Picked(&picked)).await, 20_000);

    let batches = copy_out(&client).await;
    let mut row = 0;
    for batch in &batches {
        for ((pg_type, array), read) in arrays.iter().zip(batch.columns()) {
            let plain = cast(array, &pg_type.arrow_type()).unwrap();
            for index in 0..batch.num_rows() {
                let expected = plain.slice(picked[row + index] as usize, 1);
                let found = read.slice(index, 1);
                assert_eq!(found.as_ref(), expected.as_ref(), "{} of row {}", pg_type.name(), row + index);
            }
        }
        row += batch.num_rows();
    }
    assert_eq!(row, picked.len());
}
