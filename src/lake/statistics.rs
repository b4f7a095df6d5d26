//! What the log says of a file besides its name and size: its rows, and the range of the column by which files are
//! pruned, which is the event time, or the ledger's group.
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType};
use serde_json::{Map, Value, json};

use super::delta::format_time;
use super::schema::Layout;

/// The rows seen so far.
#[derive(Debug, Default)]
pub(super) struct FileStatistics {
    num_rows: usize,
    null_times: usize,
    /// Microseconds since the epoch.
    times: Option<(i64, i64)>,
    groups: Option<(i64, i64)>,
}

impl FileStatistics {
    pub(super) fn of(layout: &Layout, batches: &[RecordBatch]) -> Self {
        let mut statistics = Self::default();
        batches.iter().for_each(|rows| statistics.add(layout, rows));
        statistics
    }

    pub(super) fn add(&mut self, layout: &Layout, rows: &RecordBatch) {
        self.num_rows += rows.num_rows();
        if let Some(times) = layout.timestamp.as_ref().and_then(|name| rows.column_by_name(name)) {
            self.null_times += times.null_count();
            let range = match times.data_type() {
                DataType::Timestamp(TimeUnit::Millisecond, _) => {
                    let times = times.as_primitive::<TimestampMillisecondType>();
                    let range = compute::min(times).zip(compute::max(times));
                    range.map(|(first, last)| (first.saturating_mul(1000), last.saturating_mul(1000)))
                }
                _ => times
                    .as_primitive_opt::<TimestampMicrosecondType>()
                    .and_then(|times| compute::min(times).zip(compute::max(times))),
            };
            self.times = both(self.times, range);
        }
        if layout.name == crate::ledger::CHUNKS
            && let Some(groups) =
                rows.column_by_name("group").and_then(|column| column.as_primitive_opt::<Int64Type>())
        {
            self.groups = both(self.groups, compute::min(groups).zip(compute::max(groups)));
        }
    }

    /// As Delta holds it.
    pub(super) fn to_json(&self, layout: &Layout) -> Value {
        let (mut min_values, mut max_values, mut null_count) = (Map::new(), Map::new(), Map::new());
        if let Some(name) = &layout.timestamp {
            if let Some((first, last)) = self.times {
                min_values.extend(format_time(first).map(|text| (name.clone(), text.into())));
                max_values.extend(format_time(last).map(|text| (name.clone(), text.into())));
            }
            null_count.insert(name.clone(), self.null_times.into());
        }
        if let Some((first, last)) = self.groups {
            min_values.insert("group".into(), first.into());
            max_values.insert("group".into(), last.into());
        }
        json!({
            "numRecords": self.num_rows,
            "minValues": min_values,
            "maxValues": max_values,
            "nullCount": null_count,
        })
    }
}

/// The range that holds both.
fn both(one: Option<(i64, i64)>, other: Option<(i64, i64)>) -> Option<(i64, i64)> {
    one.into_iter().chain(other).reduce(|one, other| (one.0.min(other.0), one.1.max(other.1)))
}
