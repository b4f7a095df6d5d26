//! The first stage: downloads as many files at once as are allowed, while the next stage has room.
//!
//! Invariant: what waits (for its host, for another attempt, for another run that has the same item) is in the backlog
//! and holds nothing. An item's lock goes with its file through all stages.
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::backlog::{Backlog, Waiting};
use super::ending::Ended;
use super::simulate::Simulation;
use super::stages::{FetchedFile, Stage, StageError};
use super::{Job, Queued, is_done};
use crate::download::{DownloadError, Downloaded, Downloader, Failed, FileItem, Slot, Turn};
use crate::stage::shutdown::Shutdown;
use crate::store::{FetchRecord, Fetches};
use crate::telemetry::Metric;

/// How often it is looked whether another run has let go of an item.
const LOOK: Duration = Duration::from_millis(300);

#[derive(Clone)]
pub(super) struct Getting {
    pub(super) downloader: Arc<Downloader>,
    pub(super) simulation: Option<Simulation>,
    pub(super) revalidate: bool,
    /// Where another run may have kept that an item is done.
    pub(super) state: Option<(Arc<dyn Fetches>, String)>,
    /// Whether another run has items of this one.
    pub(super) is_shared: Arc<AtomicBool>,
    pub(super) to_pre_process: mpsc::Sender<Queued<Job>>,
    pub(super) to_end: mpsc::Sender<Ended>,
    pub(super) shutdown: Shutdown,
}

impl Getting {
    pub(super) async fn run(self, items: Vec<(FileItem, Option<FetchRecord>)>, downloads: usize) {
        let mut running = JoinSet::new();
        let mut backlog = Backlog::new(items);
        loop {
            let is_stopping = self.shutdown.is_requested();
            let mut due = None;
            while !is_stopping && running.len() < downloads.max(1) {
                // what is simulated asks no host
                let turn_at = |host: &str| match self.simulation {
                    Some(_) => Some(None),
                    None => self.downloader.try_turn(host).map(Some),
                };
                let Some((waiting, turn)) = backlog.next(turn_at) else {
                    due = backlog.due(|host| self.downloader.paused_until(host));
                    break;
                };
                running.spawn(self.clone().one(waiting, turn));
            }
            if running.is_empty() && (is_stopping || backlog.is_empty()) {
                break;
            }
            tokio::select! {
                Some(ended) = running.join_next() => match ended {
                    Ok(Some((waiting, until))) => backlog.put_back(waiting, until),
                    Ok(None) => {}
                    Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
                    Err(_cancelled) => {}
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                () = self.shutdown.requested(), if !is_stopping => {}
            }
        }
        for item in backlog.into_items() {
            self.end(Ended::not_started(item)).await;
        }
    }

    /// One attempt; what is to be tried again comes back with the time for that.
    async fn one(self, mut waiting: Waiting, turn: Option<Turn>) -> Option<(Waiting, Instant)> {
        let started = *waiting.started.get_or_insert_with(std::time::Instant::now);
        let slot = match self.downloader.lock(&waiting.item).await {
            Ok(Some(slot)) => slot,
            Ok(None) => {
                if !waiting.was_locked {
                    tracing::info!(name = waiting.item.name, "another run has the same file; waiting for it");
                }
                waiting.was_locked = true;
                self.is_shared.store(true, Ordering::Relaxed);
                return Some((waiting, Instant::now() + LOOK));
            }
            Err(error) => {
                self.end(Ended::failed(waiting.item, None, started, 0, Stage::Download, error.into())).await;
                return None;
            }
        };
        // beside another run it is worth a look before; else it costs nothing beside the download
        let is_shared = self.is_shared.load(Ordering::Relaxed);
        let looked_before = if is_shared { self.done_elsewhere(&waiting.item).await } else { None };
        if looked_before.is_some() {
            if !self.revalidate {
                self.end(Ended::skipped(waiting.item, slot)).await;
                return None;
            }
            waiting.record = looked_before;
        }
        tracing::debug!(name = waiting.item.name, url = waiting.item.shown_url(), "download starts");
        let got = match (self.simulation, &turn) {
            (Some(simulation), _) => simulation.download(&slot, &waiting.item).await,
            (None, Some(turn)) => match self.is_unchanged(&waiting, turn).await {
                Ok(true) => {
                    self.end(Ended::skipped(waiting.item, slot)).await;
                    return None;
                }
                Ok(false) => {
                    let Waiting { item, progress, .. } = &mut waiting;
                    let looking = async {
                        let is_of_use = !is_shared && !self.revalidate;
                        if is_of_use { self.done_elsewhere(item).await } else { None }
                    };
                    let downloading = self.downloader.download(item, &slot, progress, turn);
                    let (done, got) = tokio::join!(looking, downloading);
                    if done.is_some() {
                        self.is_shared.store(true, Ordering::Relaxed);
                        self.end(Ended::skipped(waiting.item, slot)).await;
                        return None;
                    }
                    got
                }
                Err(error) => Err(Failed { error, again_in: None }),
            },
            (None, None) => Err(Failed { error: DownloadError::Stopped, again_in: None }),
        };
        drop(turn);
        match got {
            Ok(downloaded) => self.hand_on(waiting, started, downloaded).await,
            Err(Failed { again_in: Some(wait), .. }) => return Some((waiting, Instant::now() + wait)),
            Err(Failed { error, .. }) => self.fail(waiting, started, slot, error).await,
        }
        None
    }

    async fn done_elsewhere(&self, item: &FileItem) -> Option<FetchRecord> {
        let (state, work) = self.state.as_ref()?;
        match state.find(work, &item.key()).await {
            Ok(record) => record.filter(|record| is_done(item, record)),
            Err(error) => {
                tracing::warn!("whether another run did the same cannot be seen: {error}");
                None
            }
        }
    }

    async fn is_unchanged(&self, waiting: &Waiting, turn: &Turn) -> Result<bool, DownloadError> {
        match &waiting.record {
            Some(record) if self.revalidate && waiting.progress.attempts == 0 => {
                self.downloader.is_unchanged(&waiting.item, record.etag.as_deref(), turn).await
            }
            _ => Ok(false),
        }
    }

    async fn hand_on(&self, waiting: Waiting, started: std::time::Instant, downloaded: Downloaded) {
        let Downloaded { slot, size, etag } = downloaded;
        let (item, attempts) = (waiting.item, waiting.progress.attempts);
        tracing::debug!(name = item.name, size, attempts, "downloaded");
        let path = slot.path.clone();
        let file = FetchedFile { item, files: vec![path.clone()], path, size, slot };
        // no other download starts before the next stage has room
        if let Ok(room) = self.to_pre_process.reserve().await {
            room.send(Queued::new(Job { file, started, attempts, etag }, Metric::DownloadedQueue));
        }
    }

    async fn fail(&self, waiting: Waiting, started: std::time::Instant, slot: Slot, error: DownloadError) {
        let Waiting { item, record, progress, .. } = waiting;
        if matches!(error, DownloadError::Stopped) {
            return self.end(Ended::not_started(item)).await;
        }
        // what was done stays so, and what another run does is its to say
        let is_kept = record.is_none() && !matches!(error, DownloadError::Locked { .. });
        let error = StageError::from(error);
        let ended = Ended::failed(item, None, started, progress.attempts.max(1), Stage::Download, error);
        self.end(ended.holding(slot, is_kept)).await;
    }

    async fn end(&self, ended: Ended) {
        // who takes it goes only after all of these tasks
        let _taken = self.to_end.send(ended).await;
    }
}
