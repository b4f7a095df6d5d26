//! Parquet settings: how each column of a file is encoded, and what is kept beside it for pruning.
//!
//! A file's rows are all known before it is written, so the encoding of a number column is chosen by what a
//! sample of its values would cost, not by its name. Timestamps that are all whole milliseconds are stored as
//! such: the factor 1000 would cost 10 bits per value. DuckDB, Polars and the Python deltalake package read
//! either unit right, also both in one table.
use std::collections::HashSet;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{
    DataType, Int16Type, Int32Type, Int64Type, Schema, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType,
};
use parquet::basic::Encoding;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::schema::types::ColumnPath;

use super::pages::compression;
use super::present::Present;
use super::schema::Layout;

/// On the standard data level 3 saves 0.2 % and level 9 no more: what is left is noise that no level compresses.
pub(super) const ZSTD_LEVEL: i32 = 1;
/// Rows per page: the grain of pruning within a file.
pub(super) const PAGE_ROWS: usize = 65_536;
/// Chance that a bloom filter names a file that lacks the value.
pub(super) const BLOOM_FALSE_POSITIVES: f64 = 0.05;
/// Values that a sample holds at most.
const SAMPLE: usize = 4096;

/// How a column is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ColumnPlan {
    /// By hand: indices into a dictionary of strings.
    Dictionary,
    /// By hand: indices into a dictionary of numbers.
    NumberDictionary,
    /// By hand: numbers in this encoding.
    Number(Encoding),
    /// By the Parquet crate, which tries a dictionary.
    Crate,
}

/// The plan of each column of `batches`.
pub(super) fn column_plans(batches: &[RecordBatch]) -> Vec<ColumnPlan> {
    let Some(first) = batches.first() else { return Vec::new() };
    let plan = |position: usize| match first.schema().field(position).data_type() {
        DataType::Dictionary(_, values) if matches!(**values, DataType::Utf8 | DataType::Binary) => {
            ColumnPlan::Dictionary
        }
        DataType::Int16 | DataType::Int32 => number_plan(&sample(batches, position), 4),
        DataType::Int64 | DataType::Timestamp(_, _) => number_plan(&sample(batches, position), 8),
        _ => ColumnPlan::Crate,
    };
    (0..first.num_columns()).map(plan).collect()
}

/// Settings of a file of `layout` that holds `num_rows` rows of `schema`.
pub(super) fn properties(layout: &Layout, schema: &Schema, num_rows: usize) -> WriterProperties {
    let mut settings = WriterProperties::builder()
        .set_compression(compression())
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_write_batch_size(8192)
        .set_created_by(concat!("pipeline ", env!("CARGO_PKG_VERSION")).to_owned());
    for field in schema.fields() {
        let path = ColumnPath::from(field.name().as_str());
        if layout.indexed.contains(field.name()) {
            settings = settings
                .set_column_bloom_filter_enabled(path.clone(), true)
                .set_column_bloom_filter_fpp(path.clone(), BLOOM_FALSE_POSITIVES)
                // the filter is folded down to what the column's real values need
                .set_column_bloom_filter_max_ndv(path.clone(), num_rows.max(1) as u64);
        }
        if layout.timestamp.as_ref() == Some(field.name()) {
            settings = settings.set_column_statistics_enabled(path.clone(), EnabledStatistics::Page);
        }
    }
    settings.build()
}

/// The values of a column of integers or timestamps.
pub(super) fn integers(columns: &[ArrayRef]) -> Present<i64> {
    let mut values = Present::with_capacity(columns.iter().map(|column| column.len()).sum());
    for column in columns {
        let nulls = column.nulls();
        match column.data_type() {
            DataType::Int16 => {
                let narrow = column.as_primitive::<Int16Type>().values();
                values.extend(narrow.iter().map(|value| i64::from(*value)), nulls);
            }
            DataType::Int32 => {
                let narrow = column.as_primitive::<Int32Type>().values();
                values.extend(narrow.iter().map(|value| i64::from(*value)), nulls);
            }
            DataType::Int64 => {
                values.extend(column.as_primitive::<Int64Type>().values().iter().copied(), nulls);
            }
            DataType::Timestamp(TimeUnit::Millisecond, _) => {
                let millis = column.as_primitive::<TimestampMillisecondType>().values();
                values.extend(millis.iter().copied(), nulls);
            }
            DataType::Timestamp(TimeUnit::Microsecond, _) => {
                let micros = column.as_primitive::<TimestampMicrosecondType>().values();
                values.extend(micros.iter().copied(), nulls);
            }
            _ => {}
        }
    }
    values
}

/// The first values of a number column.
fn sample(batches: &[RecordBatch], position: usize) -> Vec<i64> {
    let mut columns = Vec::new();
    let mut room = SAMPLE;
    for batch in batches {
        let column = batch.column(position).slice(0, batch.num_rows().min(room));
        room -= column.len();
        columns.push(column);
    }
    integers(&columns).values().to_vec()
}

/// The cheapest plan by bits per value.
fn number_plan(values: &[i64], width_bytes: usize) -> ColumnPlan {
    if values.len() < 16 {
        return ColumnPlan::Crate;
    }
    let mut distinct = HashSet::new();
    let mut are_few = |value| {
        distinct.insert(value);
        distinct.len() <= values.len() / 4
    };
    if values.iter().all(&mut are_few) {
        return ColumnPlan::NumberDictionary;
    }
    let is_steady = delta_bits(values) <= split_bits(values, width_bytes);
    ColumnPlan::Number(if is_steady { Encoding::DELTA_BINARY_PACKED } else { Encoding::BYTE_STREAM_SPLIT })
}

/// Bits per value of DELTA_BINARY_PACKED: each miniblock takes the width of its largest difference.
fn delta_bits(values: &[i64]) -> f64 {
    let differences: Vec<i64> = values.windows(2).map(|pair| pair[1].wrapping_sub(pair[0])).collect();
    let blocks = differences.chunks(32);
    let bits = blocks.map(|block| {
        let (low, high) = block.iter().fold((i64::MAX, i64::MIN), |(l, h), d| (l.min(*d), h.max(*d)));
        let width = 64 - high.wrapping_sub(low).cast_unsigned().leading_zeros();
        f64::from(width) * block.len() as f64
    });
    bits.sum::<f64>() / differences.len() as f64
}

/// Bits per value of BYTE_STREAM_SPLIT and an entropy coder behind it: one stream per byte position.
fn split_bits(values: &[i64], width_bytes: usize) -> f64 {
    let total = values.len() as f64;
    let stream_bits = |position: usize| {
        let mut counts = [0u32; 256];
        for value in values {
            counts[usize::from(value.to_le_bytes()[position])] += 1;
        }
        let share = |count: u32| f64::from(count) / total;
        counts
            .iter()
            .filter(|count| **count > 0)
            .map(|count| -share(*count) * share(*count).log2())
            .sum::<f64>()
    };
    (0..width_bytes).map(stream_bits).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, range: i64) -> Vec<i64> {
        let mut state = 42u64;
        let mut next = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) as i64) % range
        };
        (0..count).map(|_| next()).collect()
    }

    #[test]
    fn each_kind_of_number_column_gets_the_encoding_that_suits_it() {
        let ascending: Vec<i64> = (0..4096).map(|line| line * 2).collect();
        let times: Vec<i64> =
            noise(4096, 1000).iter().zip(0..).map(|(ms, i)| 1_705_276_800_000 + i * 1000 + ms).collect();
        assert_eq!(
            number_plan(&ascending, 4),
            ColumnPlan::Number(Encoding::DELTA_BINARY_PACKED),
            "line numbers"
        );
        assert_eq!(number_plan(&times, 8), ColumnPlan::Number(Encoding::DELTA_BINARY_PACKED), "event times");
        let split = ColumnPlan::Number(Encoding::BYTE_STREAM_SPLIT);
        assert_eq!(number_plan(&noise(4096, 65536), 4), split, "source ports");
        assert_eq!(number_plan(&noise(4096, 13), 4), ColumnPlan::NumberDictionary, "destination ports");
        assert_eq!(number_plan(&[7; 4096], 8), ColumnPlan::NumberDictionary, "chunk ids");
        assert_eq!(number_plan(&[], 8), ColumnPlan::Crate, "an empty column");
    }

    #[test]
    fn extreme_numbers_do_not_overflow_the_estimate() {
        let values: Vec<i64> =
            (0..64).map(|i| if i % 2 == 0 { i64::MIN + i } else { i64::MAX - i }).collect();
        assert_ne!(number_plan(&values, 8), ColumnPlan::Crate);
    }
}
