//! Every metric name, in one enum; log line and counter are emitted together.
//!
//! Counters live in one static array of atomics, so that the progress bar and the summary read what
//! `/metrics` shows. Deliberately absent: metric names anywhere else.
use std::sync::atomic::{AtomicU64, Ordering};

mod log;

pub use log::{LogFormat, LogGuard, LogOptions, init};

/// Something counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Metric {
    /// Bytes of input files known so far, as stored on disk.
    InputBytesTotal,
    /// Bytes of input files read, as stored on disk.
    InputBytesRead,
    /// (Decompressed) bytes shipped in chunks.
    ChunkBytesShipped,
    /// Chunks shipped.
    ChunksShipped,
    /// Lines decoded.
    LinesDecoded,
    /// Lines that became rows.
    RowsDecoded,
    /// Lines that no log type accepts.
    LinesRejected,
    /// Lines of white space only.
    LinesBlank,
    /// Rows that storage refused; they are kept as rejects.
    RowsRefused,
    /// Chunks committed.
    ChunksCommitted,
    /// Bytes added to storage.
    BytesStored,
    /// Groups committed.
    GroupsCommitted,
    /// Groups discarded because another writer was first.
    GroupsDiscarded,
    /// Input files that could not be read.
    SourcesFailed,
    /// Chunks shipped again because the stream lost them or a processor could not read them.
    ChunksReshipped,
    /// Chunks taken over from a processor that is gone.
    ChunksTakenOver,
    /// Stream entries moved to the dead letters.
    EntriesDeadLettered,
    /// Events posted to the webhook whose effect is durable.
    EventsAccepted,
    /// Events that were posted before, with the same identity.
    EventsDuplicate,
    /// Texts posted to the webhook that are no event; kept as rejects.
    EventsRejected,
    /// Events that corrected a closed window.
    EventsLate,
    /// Events whose window took no more; they are in the table of late events.
    EventsTooLate,
    /// Events counted as `other`, for there were too many types.
    EventsOfOtherType,
    /// Aggregates of windows that closed.
    AggregatesClosed,
    /// Corrections of aggregates of closed windows.
    AggregatesCorrected,
    /// Requests to the webhook that were not taken.
    RequestsRefused,
    /// Aggregates that sinks confirmed.
    AggregatesDelivered,
    /// Aggregates that sinks have yet to confirm, now.
    AggregatesWaiting,
    /// Pairs of window and event type in memory, now.
    WindowGroups,
}

impl Metric {
    /// All of them, in declaration order.
    pub const ALL: [Metric; 29] = [
        Self::InputBytesTotal,
        Self::InputBytesRead,
        Self::ChunkBytesShipped,
        Self::ChunksShipped,
        Self::LinesDecoded,
        Self::RowsDecoded,
        Self::LinesRejected,
        Self::LinesBlank,
        Self::RowsRefused,
        Self::ChunksCommitted,
        Self::BytesStored,
        Self::GroupsCommitted,
        Self::GroupsDiscarded,
        Self::SourcesFailed,
        Self::ChunksReshipped,
        Self::ChunksTakenOver,
        Self::EntriesDeadLettered,
        Self::EventsAccepted,
        Self::EventsDuplicate,
        Self::EventsRejected,
        Self::EventsLate,
        Self::EventsTooLate,
        Self::EventsOfOtherType,
        Self::AggregatesClosed,
        Self::AggregatesCorrected,
        Self::RequestsRefused,
        Self::AggregatesDelivered,
        Self::AggregatesWaiting,
        Self::WindowGroups,
    ];

    /// Name as `/metrics` shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::InputBytesTotal => "pipeline_input_bytes",
            Self::InputBytesRead => "pipeline_input_bytes_read_total",
            Self::ChunkBytesShipped => "pipeline_chunk_bytes_shipped_total",
            Self::ChunksShipped => "pipeline_chunks_shipped_total",
            Self::LinesDecoded => "pipeline_lines_decoded_total",
            Self::RowsDecoded => "pipeline_rows_decoded_total",
            Self::LinesRejected => "pipeline_lines_rejected_total",
            Self::LinesBlank => "pipeline_lines_blank_total",
            Self::RowsRefused => "pipeline_rows_refused_total",
            Self::ChunksCommitted => "pipeline_chunks_committed_total",
            Self::BytesStored => "pipeline_bytes_stored_total",
            Self::GroupsCommitted => "pipeline_groups_committed_total",
            Self::GroupsDiscarded => "pipeline_groups_discarded_total",
            Self::SourcesFailed => "pipeline_sources_failed_total",
            Self::ChunksReshipped => "pipeline_chunks_reshipped_total",
            Self::ChunksTakenOver => "pipeline_chunks_taken_over_total",
            Self::EntriesDeadLettered => "pipeline_entries_dead_lettered_total",
            Self::EventsAccepted => "pipeline_events_accepted_total",
            Self::EventsDuplicate => "pipeline_events_duplicate_total",
            Self::EventsRejected => "pipeline_events_rejected_total",
            Self::EventsLate => "pipeline_events_late_total",
            Self::EventsTooLate => "pipeline_events_too_late_total",
            Self::EventsOfOtherType => "pipeline_events_of_other_type_total",
            Self::AggregatesClosed => "pipeline_aggregates_closed_total",
            Self::AggregatesCorrected => "pipeline_aggregates_corrected_total",
            Self::RequestsRefused => "pipeline_requests_refused_total",
            Self::AggregatesDelivered => "pipeline_aggregates_delivered_total",
            Self::AggregatesWaiting => "pipeline_aggregates_waiting",
            Self::WindowGroups => "pipeline_window_groups",
        }
    }

    /// Adds to the counter.
    pub fn add(self, count: u64) {
        COUNTERS[self as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// Says what it is now, where it is no counter.
    pub fn set(self, value: u64) {
        COUNTERS[self as usize].store(value, Ordering::Relaxed);
    }

    /// Its present value.
    pub fn value(self) -> u64 {
        COUNTERS[self as usize].load(Ordering::Relaxed)
    }
}

/// All metrics in the text format of Prometheus.
#[must_use]
pub fn render_metrics() -> String {
    let mut text = String::new();
    for metric in Metric::ALL {
        let kind = if metric.name().ends_with("_total") { "counter" } else { "gauge" };
        text += &format!("# TYPE {0} {kind}\n{0} {1}\n", metric.name(), metric.value());
    }
    text
}

static COUNTERS: [AtomicU64; Metric::ALL.len()] = [const { AtomicU64::new(0) }; Metric::ALL.len()];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_metric_has_its_own_counter_and_a_unique_well_formed_name() {
        let names: HashSet<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        assert_eq!(names.len(), Metric::ALL.len());
        for (position, metric) in Metric::ALL.into_iter().enumerate() {
            assert_eq!(metric as usize, position);
            assert!(metric.name().starts_with("pipeline_"), "{}", metric.name());
        }
    }
}
