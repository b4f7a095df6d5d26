//! What is measured more than counted: how long things take, how big they are.
//!
//! Sum and count are of all time; quantiles are of the last [`WINDOW`] observations, so that they follow what happens.
//! Deliberately absent: buckets chosen in advance.
use std::sync::{Mutex, PoisonError};

/// Observations that quantiles are of.
const WINDOW: usize = 1024;
const QUANTILES: [f64; 3] = [0.5, 0.9, 0.99];

/// Something measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Summary {
    /// Seconds that a run of a task took.
    TaskProcessing,
    /// Seconds from a task's being due to its start.
    TaskWaiting,
    /// Seconds that decoding of a chunk took.
    Decode,
    /// Seconds from a chunk's arrival at the processor to its commit in every sink.
    Commit,
    /// Seconds that COPY of a group took.
    Copy,
    /// Lines of a committed group.
    GroupLines,
    /// Bytes of a chunk.
    ChunkBytes,
}

impl Summary {
    /// All of them, in declaration order.
    pub const ALL: [Self; 7] = [
        Self::TaskProcessing,
        Self::TaskWaiting,
        Self::Decode,
        Self::Commit,
        Self::Copy,
        Self::GroupLines,
        Self::ChunkBytes,
    ];

    /// Name as `/metrics` shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::TaskProcessing => "task_processing_seconds",
            Self::TaskWaiting => "pipeline_task_waiting_seconds",
            Self::Decode => "pipeline_decode_seconds",
            Self::Commit => "pipeline_commit_seconds",
            Self::Copy => "pipeline_copy_seconds",
            Self::GroupLines => "pipeline_group_lines",
            Self::ChunkBytes => "pipeline_chunk_bytes",
        }
    }

    /// What it says.
    #[must_use]
    pub fn help(self) -> &'static str {
        match self {
            Self::TaskProcessing => "Seconds that a run of a task took",
            Self::TaskWaiting => "Seconds from a task's being due to its start",
            Self::Decode => "Seconds that decoding of a chunk took",
            Self::Commit => "Seconds from a chunk's arrival at the processor to its commit in every sink",
            Self::Copy => "Seconds that COPY of a group to Postgres took",
            Self::GroupLines => "Lines of a committed group",
            Self::ChunkBytes => "Bytes of a chunk",
        }
    }

    /// Adds an observation.
    pub fn observe(self, value: f64) {
        let mut series = SERIES[self as usize].lock().unwrap_or_else(PoisonError::into_inner);
        series.sum += value;
        let position = usize::try_from(series.count % WINDOW as u64).unwrap_or(0);
        series.count += 1;
        match series.last.get_mut(position) {
            Some(slot) => *slot = value,
            None => series.last.push(value),
        }
    }

    /// In the text format of Prometheus.
    pub(super) fn render(self, out: &mut String) {
        let series = SERIES[self as usize].lock().unwrap_or_else(PoisonError::into_inner);
        let name = self.name();
        *out += &format!("# HELP {name} {}\n# TYPE {name} summary\n", self.help());
        let mut last = series.last.clone();
        let (sum, count) = (series.sum, series.count);
        drop(series);
        last.sort_by(f64::total_cmp);
        for quantile in QUANTILES {
            let position = (quantile * last.len() as f64) as usize;
            let value = last.get(position.min(last.len().saturating_sub(1))).copied().unwrap_or(f64::NAN);
            *out += &format!("{name}{{quantile=\"{quantile}\"}} {value}\n");
        }
        *out += &format!("{name}_sum {sum}\n{name}_count {count}\n");
    }
}

struct Series {
    sum: f64,
    count: u64,
    last: Vec<f64>,
}

static SERIES: [Mutex<Series>; Summary::ALL.len()] =
    [const { Mutex::new(Series { sum: 0.0, count: 0, last: Vec::new() }) }; Summary::ALL.len()];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_last_observations() {
        for number in 0..3000 {
            Summary::TaskWaiting.observe(f64::from(number));
        }
        let mut text = String::new();
        Summary::TaskWaiting.render(&mut text);
        assert!(text.contains("pipeline_task_waiting_seconds_count 3000\n"), "{text}");
        assert!(text.contains("{quantile=\"0.5\"} 2488\n"), "{text}");
    }
}
