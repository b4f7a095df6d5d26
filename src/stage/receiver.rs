//! Webhook -> windows -> state: takes what is posted, commits it in groups, and only then answers.
//!
//! One writer owns the windows. It takes all requests that wait, counts them in memory, and writes what changed in
//! one transaction; requests that arrive meanwhile are the next group, so that a slow disk makes groups larger, not
//! the queue longer; waiting a moment for more made it slower. Where a transaction fails, memory is read anew from what is on disk.
//!
//! Invariants: a request is answered after its transaction; what is in memory is what journal and saved state give;
//! the queue is bounded in requests and bytes, and who comes to a full one is told so. Deliberately absent: HTTP
//! (`routes`), and sinks other than the state itself (`delivery`).
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use self::writer::Writer;
use crate::client::with_causes;
use crate::store::windows::{self, outbox};
use crate::store::{SqliteStore, StoreError};
use crate::telemetry::Metric;
use crate::webhook::{Id, PostedEvent};
use crate::window::{DamagedState, SavedGroup, Settings, Windows};

pub mod delivery;
pub mod routes;
mod writer;

/// As many requests are committed together.
const MAX_GROUP: usize = 1024;
/// How often windows are looked at when nothing comes.
const TICK: Duration = Duration::from_millis(200);
/// Pause before what failed is tried again.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(500);
/// Why a receiver cannot run.
#[derive(Debug, Error)]
pub enum ReceiverError {
    /// Its state cannot be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its state is damaged.
    #[error("{place}: {source}; move the file away to start anew")]
    Damaged {
        /// The file.
        place: String,
        /// What is damaged.
        source: DamagedState,
    },
}

/// What a receiver is to do.
#[derive(Debug, Clone)]
pub struct ReceiverOptions {
    /// How windows are cut.
    pub settings: Settings,
    /// Requests that may wait.
    pub max_queue_size: usize,
    /// Bytes that bodies hold together which are being read or wait; at least those of one body twice.
    pub max_queue_bytes: usize,
    /// Outboxes to fill, by name.
    pub sinks: Vec<SinkOutbox>,
    /// Whether lines are kept for an archive.
    pub keeps_lines: bool,
}

/// A sink's part of the outbox.
#[derive(Debug, Clone)]
pub struct SinkOutbox {
    /// Its name.
    pub name: String,
    /// Whether it gets every change (a table), or what is closed and its corrections (a queue).
    pub is_table: bool,
}

/// One request, checked.
#[derive(Debug)]
pub struct Request {
    /// The sender's own identity of it.
    pub id: Option<Id>,
    /// Good events.
    pub events: Vec<PostedEvent>,
    /// What is to be kept as a reject.
    pub rejects: Vec<RejectedText>,
    /// Its bytes in the queue, given back when it is dropped.
    pub permit: Option<OwnedSemaphorePermit>,
}

/// Text that is no event.
#[derive(Debug)]
pub struct RejectedText {
    /// The field that is wrong.
    pub field: Option<&'static str>,
    /// What is wrong with it.
    pub reason: String,
    /// The text.
    pub text: String,
}

/// What a request got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Its effect is durable; so many of its events found no room in memory and are rejects.
    Committed {
        /// Events for which no window could be opened.
        num_without_room: usize,
    },
    /// A request with the same identity was taken before, but not all of its events.
    TakenInPart,
    /// The queue is full.
    Full,
    /// State cannot be written now; the effect is not durable, as far as known.
    Failed,
}

type Queued = (Request, oneshot::Sender<Answer>);

/// Takes requests; clones share the queue.
#[derive(Debug, Clone)]
pub struct Receiver {
    queue: mpsc::Sender<Queued>,
    bytes: Arc<Semaphore>,
    is_healthy: Arc<AtomicBool>,
}

impl Receiver {
    /// Restores the windows, and starts the writer in a task; it ends, with everything saved, when the last clone of
    /// the receiver is dropped.
    pub async fn try_start(
        store: SqliteStore,
        options: ReceiverOptions,
    ) -> Result<(Self, WriterTask), ReceiverError> {
        let (queue, requests) = mpsc::channel(options.max_queue_size);
        let bytes = Arc::new(Semaphore::new(options.max_queue_bytes));
        let is_healthy = Arc::new(AtomicBool::new(true));
        let windows = restore(&store, options.settings).await?;
        let writer = Box::new(Writer::new(windows, options.sinks.clone(), options.keeps_lines));
        let serving = Loop { store, options, requests, is_healthy: Arc::clone(&is_healthy) };
        let task = tokio::spawn(serving.run(writer));
        Ok((Self { queue, bytes, is_healthy }, task))
    }

    /// Waits until the request's effect is durable.
    pub async fn take(&self, request: Request) -> Answer {
        let (answer, answered) = oneshot::channel();
        match self.queue.try_send((request, answer)) {
            Ok(()) => answered.await.unwrap_or(Answer::Failed),
            Err(mpsc::error::TrySendError::Full(_)) => Answer::Full,
            Err(mpsc::error::TrySendError::Closed(_)) => Answer::Failed,
        }
    }

    /// Room for bytes of a body; `None` where there is none now.
    #[must_use]
    pub fn reserve(&self, len: usize) -> Option<OwnedSemaphorePermit> {
        let len = u32::try_from(len).ok()?;
        Arc::clone(&self.bytes).try_acquire_many_owned(len).ok()
    }

    /// Why it cannot take a request now.
    #[must_use]
    pub fn obstacle(&self) -> Option<&'static str> {
        if !self.is_healthy.load(Ordering::Relaxed) {
            return Some("state cannot be written");
        }
        (self.queue.capacity() == 0).then_some("the queue is full")
    }
}

/// Ends when everything is saved.
pub type WriterTask = tokio::task::JoinHandle<Result<(), ReceiverError>>;

async fn restore(store: &SqliteStore, settings: Settings) -> Result<Windows, ReceiverError> {
    let saved = store.call("read windows", windows::load).await?;
    let damaged = |source| ReceiverError::Damaged { place: store.path().display().to_string(), source };
    let groups = saved.groups.into_iter().map(|(start_ms, end_ms, event_type, state)| SavedGroup {
        bounds: (start_ms, end_ms),
        event_type,
        state,
    });
    let groups: Vec<_> = groups.collect();
    let mut windows = Windows::try_restore(settings, saved.marks, &groups).map_err(damaged)?;
    for entries in &saved.journal {
        windows.replay(entries).map_err(damaged)?;
    }
    Ok(windows)
}

struct Loop {
    store: SqliteStore,
    options: ReceiverOptions,
    requests: mpsc::Receiver<Queued>,
    is_healthy: Arc<AtomicBool>,
}

impl Loop {
    async fn run(mut self, mut writer: Box<Writer>) -> Result<(), ReceiverError> {
        let mut group = Vec::with_capacity(MAX_GROUP);
        let mut last_event = Instant::now();
        let silence = Duration::from_millis(self.options.settings.length_ms.unsigned_abs());
        let mut tick = tokio::time::interval(TICK.min(silence));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let mut is_end = false;
            tokio::select! {
                biased;
                received = self.requests.recv_many(&mut group, MAX_GROUP) => is_end = received == 0,
                _ = tick.tick() => {}
            }
            let is_silent = last_event.elapsed() >= silence;
            let requests = std::mem::take(&mut group);
            let is_probe = !self.is_healthy.load(Ordering::Relaxed);
            let step = writer::Step { now_micros: now_micros(), is_silent, is_probe, is_end };
            let written = self
                .store
                .call("commit events", move |connection| writer.write(connection, requests, step))
                .await;
            writer = match written {
                Ok(written) => {
                    self.is_healthy.store(true, Ordering::Relaxed);
                    if written.has_counted() {
                        last_event = Instant::now();
                    }
                    written
                }
                Err(error) => {
                    if self.is_healthy.swap(false, Ordering::Relaxed) {
                        let why = with_causes(&error);
                        tracing::error!("events are refused until state can be written: {why}");
                    }
                    self.recover(error).await?
                }
            };
            if is_end {
                return Ok(());
            }
        }
    }

    /// The state that is on disk. Tries until it can be read, while requests are refused.
    async fn recover(&mut self, error: StoreError) -> Result<Box<Writer>, ReceiverError> {
        if !error.is_retriable() && !matches!(error, StoreError::Sqlite { .. }) {
            return Err(error.into());
        }
        loop {
            tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            while self.requests.try_recv().is_ok() {}
            match restore(&self.store, self.options.settings).await {
                Ok(windows) => {
                    let options = &self.options;
                    return Ok(Box::new(Writer::new(windows, options.sinks.clone(), options.keeps_lines)));
                }
                Err(ReceiverError::Store(error)) => tracing::warn!("state cannot be read yet: {error}"),
                Err(error) => return Err(error),
            }
        }
    }
}

/// The clock: microseconds since the epoch.
fn now_micros() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_micros()).unwrap_or(i64::MAX)
}

/// Counts what the outbox of a sink gets.
fn kinds_of(sink: &SinkOutbox) -> &'static [outbox::Kind] {
    if sink.is_table { &[outbox::Kind::Changed] } else { &[outbox::Kind::Closed, outbox::Kind::Corrected] }
}

/// Says how many groups are in memory.
fn report_groups(windows: &Windows) {
    Metric::WindowGroups.set(windows.num_groups() as u64);
}
