//! Columns of every type, every pattern of NULLs, plain, sliced and as dictionaries.
use std::net::IpAddr;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, DictionaryArray, Float64Array, Int16Array, Int32Array, Int64Array,
    StringArray, TimestampMicrosecondArray,
};
use proptest::prelude::*;
use proptest::sample::Index;

use super::super::PgType;

/// A batch's columns, all of one length.
pub(super) fn columns(max_rows: usize) -> impl Strategy<Value = Vec<(PgType, ArrayRef)>> {
    let num_rows = prop_oneof![4 => 0..20usize, 1 => 0..max_rows];
    num_rows.prop_flat_map(|num_rows| prop::collection::vec(column(num_rows), 1..9))
}

fn column(num_rows: usize) -> impl Strategy<Value = (PgType, ArrayRef)> {
    let pg_type = prop::sample::select(PgType::ALL.to_vec());
    let valid_percent = prop::sample::select(vec![0, 10, 50, 95, 100]);
    (pg_type, valid_percent, any::<bool>(), 0..4usize, 0..4usize).prop_flat_map(
        move |(pg_type, valid_percent, is_dictionary, before, behind)| {
            let len = before + num_rows + behind;
            let pick = (any::<Index>(), 0..100)
                .prop_map(move |(pick, percent)| (percent < valid_percent).then_some(pick));
            let picks = prop::collection::vec(pick, len);
            (values(pg_type), picks).prop_map(move |(values, picks)| {
                (pg_type, values.array(&picks, is_dictionary).slice(before, num_rows))
            })
        },
    )
}

/// Values of which a column is made.
#[derive(Debug, Clone)]
enum Values {
    Bool(Vec<bool>),
    Int2(Vec<i16>),
    Int4(Vec<i32>),
    Int8(Vec<i64>),
    Float8(Vec<f64>),
    Text(Vec<String>),
    Timestamptz(Vec<i64>),
    Bytea(Vec<Vec<u8>>),
}

fn values(pg_type: PgType) -> BoxedStrategy<Values> {
    fn some<T: std::fmt::Debug + Clone>(value: impl Strategy<Value = T>) -> impl Strategy<Value = Vec<T>> {
        prop::collection::vec(value, 1..6)
    }
    match pg_type {
        PgType::Bool => some(any::<bool>()).prop_map(Values::Bool).boxed(),
        PgType::Int2 => some(any::<i16>()).prop_map(Values::Int2).boxed(),
        PgType::Int4 => some(any::<i32>()).prop_map(Values::Int4).boxed(),
        PgType::Int8 => some(any::<i64>()).prop_map(Values::Int8).boxed(),
        PgType::Float8 => some(any::<f64>()).prop_map(Values::Float8).boxed(),
        PgType::Text => {
            let text = prop_oneof!["[a-z]{0,12}", "[^\\x00]{0,40}", "[a-z]{10,20}", "[a-z]{26,30}"];
            some(text).prop_map(Values::Text).boxed()
        }
        PgType::Inet => {
            let v4 = any::<[u8; 4]>().prop_map(|octets| IpAddr::from(octets).to_string());
            let v6 = any::<[u8; 16]>().prop_map(|octets| IpAddr::from(octets).to_string());
            prop_oneof![
                some(v4.clone()).prop_map(Values::Text),
                some(prop_oneof![v4, v6]).prop_map(Values::Text)
            ]
            .boxed()
        }
        // years 1 to 9999, which chrono and Postgres both know
        PgType::Timestamptz => {
            some(-62_135_596_800_000_000..253_402_300_800_000_000i64).prop_map(Values::Timestamptz).boxed()
        }
        PgType::Json | PgType::Jsonb => {
            some("\\{\"[a-z]{1,5}\": \"[a-z0-9 ]{0,30}\"\\}").prop_map(Values::Text).boxed()
        }
        PgType::Bytea => some(prop::collection::vec(any::<u8>(), 0..50)).prop_map(Values::Bytea).boxed(),
        PgType::Names => unreachable!("no log type has such a column"),
    }
}

impl Values {
    fn array(&self, picks: &[Option<Index>], is_dictionary: bool) -> ArrayRef {
        fn pick<'a, T>(values: &'a [T], picks: &'a [Option<Index>]) -> impl Iterator<Item = Option<&'a T>> {
            picks.iter().map(|pick| pick.as_ref().map(|index| index.get(values)))
        }
        match self {
            Self::Bool(values) => Arc::new(pick(values, picks).map(|v| v.copied()).collect::<BooleanArray>()),
            Self::Int2(values) => Arc::new(pick(values, picks).map(|v| v.copied()).collect::<Int16Array>()),
            Self::Int4(values) => Arc::new(pick(values, picks).map(|v| v.copied()).collect::<Int32Array>()),
            Self::Int8(values) => Arc::new(pick(values, picks).map(|v| v.copied()).collect::<Int64Array>()),
            Self::Float8(values) => {
                Arc::new(pick(values, picks).map(|v| v.copied()).collect::<Float64Array>())
            }
            Self::Text(values) if is_dictionary => dictionary(values, picks),
            Self::Text(values) => Arc::new(pick(values, picks).collect::<StringArray>()),
            Self::Timestamptz(values) => {
                let times: TimestampMicrosecondArray = pick(values, picks).map(|v| v.copied()).collect();
                Arc::new(times.with_timezone("UTC"))
            }
            Self::Bytea(values) => Arc::new(pick(values, picks).collect::<BinaryArray>()),
        }
    }
}

/// Every other NULL is a NULL key, the rest are keys of a NULL value.
fn dictionary(values: &[String], picks: &[Option<Index>]) -> ArrayRef {
    let null_value = values.len() as i32;
    let keys = picks.iter().enumerate().map(|(row, pick)| match pick {
        Some(index) => Some(index.index(values.len()) as i32),
        None => (row % 2 == 0).then_some(null_value),
    });
    let has_null_value = picks.iter().step_by(2).any(Option::is_none);
    let values = values.iter().map(Some).chain(has_null_value.then_some(None));
    let keys: Int32Array = keys.collect();
    Arc::new(DictionaryArray::new(keys, Arc::new(values.collect::<StringArray>())))
}
