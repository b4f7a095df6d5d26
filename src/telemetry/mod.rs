//! Every metric name, in one enum; log line and counter are emitted together.
//!
//! Counters live in one static array of atomics, so that the progress bar and the summary read what
//! `/metrics` shows. Deliberately absent: metric names anywhere else.
use std::sync::atomic::{AtomicU64, Ordering};

mod exposition;
mod log;
mod service_manager;
mod summary;

pub use self::exposition::{metrics_table, render_metrics, uptime_millis};
pub use self::log::{LogFormat, LogGuard, LogOptions, init};
pub use self::service_manager::{tell_alive, tell_ready, tell_stopping};
pub use self::summary::Summary;

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
    /// Times that Redis was found not to serve.
    RedisOutages,
    /// Attempts to commit to Postgres that failed and are made again.
    CommitsRetried,
    /// Runs of tasks that ended well.
    TasksCompleted,
    /// Tasks that failed for good.
    TasksFailed,
    /// Tasks that were cancelled.
    TasksCancelled,
    /// Runs that are to be tried again, that wait for steps, or that were handed back.
    TasksPending,
    /// Lines of committed chunks.
    LinesCommitted,
    /// Rows of committed chunks.
    RowsCommitted,
    /// Rejects of committed chunks.
    RejectsCommitted,
    /// Blank lines of committed chunks.
    BlanksCommitted,
    /// (Decompressed) bytes decoded.
    BytesDecoded,
    /// Bytes of rows sent to Postgres by COPY.
    CopiedBytes,
    /// Chunks between readers and processors, now.
    QueueChunks,
    /// Bytes between readers and processors, now.
    QueueBytes,
    /// Age in milliseconds of the oldest chunk in the stream, now; `/metrics` says seconds.
    QueueOldestMillis,
    /// Chunks that a processor has taken and not committed, now.
    InFlightChunks,
    /// Bytes that a processor has taken and not committed, now.
    InFlightBytes,
    /// When the oldest of them came: milliseconds after this process began; 0: there is none. `/metrics` says seconds.
    OldestInFlight,
    /// Tasks that this worker runs, now.
    TasksRunning,
    /// Bytes of files received.
    DownloadBytes,
    /// Attempts at a download that failed and are made again.
    DownloadsRetried,
    /// Files of the manifest that are done.
    FilesDone,
    /// Files of the manifest that failed.
    FilesFailed,
    /// Files that wait to be pre-processed, at this moment.
    DownloadedQueue,
    /// Files that wait to be processed, at this moment.
    PreProcessedQueue,
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
    pub const ALL: [Metric; 54] = [
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
        Self::RedisOutages,
        Self::CommitsRetried,
        Self::TasksCompleted,
        Self::TasksFailed,
        Self::TasksCancelled,
        Self::TasksPending,
        Self::LinesCommitted,
        Self::RowsCommitted,
        Self::RejectsCommitted,
        Self::BlanksCommitted,
        Self::BytesDecoded,
        Self::CopiedBytes,
        Self::QueueChunks,
        Self::QueueBytes,
        Self::QueueOldestMillis,
        Self::InFlightChunks,
        Self::InFlightBytes,
        Self::OldestInFlight,
        Self::TasksRunning,
        Self::DownloadBytes,
        Self::DownloadsRetried,
        Self::FilesDone,
        Self::FilesFailed,
        Self::DownloadedQueue,
        Self::PreProcessedQueue,
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
            Self::RedisOutages => "pipeline_redis_outages_total",
            Self::CommitsRetried => "pipeline_commits_retried_total",
            Self::TasksCompleted => "task_count_total{status=\"completed\"}",
            Self::TasksFailed => "task_count_total{status=\"failed\"}",
            Self::TasksCancelled => "task_count_total{status=\"cancelled\"}",
            Self::TasksPending => "task_count_total{status=\"pending\"}",
            Self::LinesCommitted => "pipeline_lines_committed_total",
            Self::RowsCommitted => "pipeline_rows_committed_total",
            Self::RejectsCommitted => "pipeline_rejects_committed_total",
            Self::BlanksCommitted => "pipeline_blanks_committed_total",
            Self::BytesDecoded => "pipeline_bytes_decoded_total",
            Self::CopiedBytes => "pipeline_copied_bytes_total",
            Self::QueueChunks => "pipeline_queue_chunks",
            Self::QueueBytes => "pipeline_queue_bytes",
            Self::QueueOldestMillis => "pipeline_queue_oldest_seconds",
            Self::InFlightChunks => "pipeline_in_flight_chunks",
            Self::InFlightBytes => "pipeline_in_flight_bytes",
            Self::OldestInFlight => "pipeline_in_flight_oldest_start_seconds",
            Self::TasksRunning => "pipeline_tasks_running",
            Self::DownloadBytes => "pipeline_download_bytes_total",
            Self::DownloadsRetried => "pipeline_downloads_retried_total",
            Self::FilesDone => "pipeline_files_done_total",
            Self::FilesFailed => "pipeline_files_failed_total",
            Self::DownloadedQueue => "pipeline_downloaded_queue",
            Self::PreProcessedQueue => "pipeline_pre_processed_queue",
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

    /// What it says.
    pub fn help(self) -> &'static str {
        match self {
            Self::InputBytesTotal => "Bytes of input files known so far, as stored on disk",
            Self::InputBytesRead => "Bytes of input files read, as stored on disk",
            Self::ChunkBytesShipped => "(Decompressed) bytes shipped in chunks",
            Self::ChunksShipped => "Chunks shipped",
            Self::LinesDecoded => "Lines decoded",
            Self::RowsDecoded => "Lines that became rows",
            Self::LinesRejected => "Lines that no log type accepts",
            Self::LinesBlank => "Lines of white space only",
            Self::RowsRefused => "Rows that storage refused; they are kept as rejects",
            Self::ChunksCommitted => "Chunks committed",
            Self::BytesStored => "Bytes added to storage",
            Self::GroupsCommitted => "Groups committed",
            Self::GroupsDiscarded => "Groups discarded because another writer was first",
            Self::SourcesFailed => "Input files that could not be read",
            Self::ChunksReshipped => {
                "Chunks shipped again because the stream lost them or a processor could not read them"
            }
            Self::ChunksTakenOver => "Chunks taken over from a processor that is gone",
            Self::EntriesDeadLettered => "Stream entries moved to the dead letters",
            Self::RedisOutages => "Times that Redis was found not to serve",
            Self::CommitsRetried => "Attempts to commit to Postgres that failed and are made again",
            Self::TasksCompleted => "Runs of tasks that completed",
            Self::TasksFailed => "Tasks that failed for good",
            Self::TasksCancelled => "Tasks that were cancelled",
            Self::TasksPending => {
                "Runs that are to be tried again, that wait for steps, or that were handed back"
            }
            Self::LinesCommitted => "Lines of committed chunks",
            Self::RowsCommitted => "Rows of committed chunks",
            Self::RejectsCommitted => "Rejects of committed chunks",
            Self::BlanksCommitted => "Blank lines of committed chunks",
            Self::BytesDecoded => "(Decompressed) bytes decoded",
            Self::CopiedBytes => "Bytes of rows sent to Postgres by COPY",
            Self::QueueChunks => "Chunks between readers and processors, now",
            Self::QueueBytes => "Bytes between readers and processors, now",
            Self::QueueOldestMillis => "Age in seconds of the oldest chunk in the stream, now",
            Self::InFlightChunks => "Chunks that a processor has taken and not committed, now",
            Self::InFlightBytes => "Bytes that a processor has taken and not committed, now",
            Self::OldestInFlight => {
                "When the oldest of them came: seconds after the start of this process; 0: there is none"
            }
            Self::TasksRunning => "Tasks that this worker runs, now",
            Self::DownloadBytes => "Bytes of files received",
            Self::DownloadsRetried => "Attempts at a download that failed and are made again",
            Self::FilesDone => "Files of the manifest that are done",
            Self::FilesFailed => "Files of the manifest that failed",
            Self::DownloadedQueue => "Files that wait to be pre-processed, now",
            Self::PreProcessedQueue => "Files that wait to be processed, now",
            Self::EventsAccepted => "Events posted to the webhook whose effect is durable",
            Self::EventsDuplicate => "Events that were posted before, with the same identity",
            Self::EventsRejected => "Texts posted to the webhook that are no event; kept as rejects",
            Self::EventsLate => "Events that corrected a closed window",
            Self::EventsTooLate => "Events whose window took no more; they are in the table of late events",
            Self::EventsOfOtherType => "Events counted as `other`, for there were too many types",
            Self::AggregatesClosed => "Aggregates of windows that closed",
            Self::AggregatesCorrected => "Corrections of aggregates of closed windows",
            Self::RequestsRefused => "Requests to the webhook that were not taken",
            Self::AggregatesDelivered => "Aggregates that sinks confirmed",
            Self::AggregatesWaiting => "Aggregates that sinks have yet to confirm, now",
            Self::WindowGroups => "Pairs of window and event type in memory, now",
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

    /// Takes back what was added: for what is counted as it is at the moment.
    pub fn subtract(self, count: u64) {
        COUNTERS[self as usize].fetch_sub(count, Ordering::Relaxed);
    }

    /// Its present value.
    pub fn value(self) -> u64 {
        COUNTERS[self as usize].load(Ordering::Relaxed)
    }
}

/// A run of a task ended after so many seconds, and the task now has this status.
pub fn task_ended(status: &str, seconds: f64) {
    Summary::TaskProcessing.observe(seconds);
    let metric = match status {
        "completed" => Metric::TasksCompleted,
        "failed" => Metric::TasksFailed,
        "cancelled" => Metric::TasksCancelled,
        _ => Metric::TasksPending,
    };
    metric.add(1);
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
            let starts = ["pipeline_", "task_count_total{"];
            assert!(starts.iter().any(|start| metric.name().starts_with(start)), "{}", metric.name());
        }
    }
}
