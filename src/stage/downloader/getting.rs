//! The first stage: downloads as many files at once as are allowed, while the next stage has room.
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::ending::Ended;
use super::simulate::Simulation;
use super::stages::{FetchedFile, Stage};
use super::{Job, Queued};
use crate::download::{DownloadError, Downloaded, Downloader, Failed, FileItem};
use crate::stage::shutdown::Shutdown;
use crate::store::FetchRecord;
use crate::telemetry::Metric;

/// For each download, so many items may wait for their host or for another attempt beside it.
const WAITING_PER_DOWNLOAD: usize = 4;

#[derive(Clone)]
pub(super) struct Getting {
    pub(super) downloader: Arc<Downloader>,
    pub(super) simulation: Option<Simulation>,
    pub(super) revalidate: bool,
    pub(super) to_pre_process: mpsc::Sender<Queued<Job>>,
    pub(super) to_end: mpsc::Sender<Ended>,
    pub(super) shutdown: Shutdown,
}

impl Getting {
    pub(super) async fn run(self, items: Vec<(FileItem, Option<FetchRecord>)>, downloads: usize) {
        let mut running = JoinSet::new();
        let mut items = items.into_iter();
        let stop = async {
            self.shutdown.requested().await;
            self.downloader.stop();
            std::future::pending::<()>().await;
        };
        let all = async {
            loop {
                while running.len() < downloads.max(1) * (1 + WAITING_PER_DOWNLOAD)
                    && !self.shutdown.is_requested()
                {
                    let Some((item, record)) = items.next() else { break };
                    running.spawn(self.clone().one(item, record));
                }
                if running.join_next().await.is_none() {
                    break;
                }
            }
            for (item, _) in items {
                self.end(Ended::not_started(item)).await;
            }
        };
        tokio::select! {
            () = all => {}
            () = stop => {}
        }
    }

    async fn one(self, item: FileItem, record: Option<FetchRecord>) {
        let started = Instant::now();
        tracing::debug!(name = item.name, url = item.shown_url(), "download starts");
        let unchanged = match &record {
            Some(record) if self.revalidate => {
                self.downloader.is_unchanged(&item, record.etag.as_deref()).await
            }
            _ => Ok(false),
        };
        let got = match (unchanged, self.simulation) {
            (Ok(true), _) => {
                let slot = self.downloader.cache().slot(&item);
                return self.end(Ended::skipped(item, slot)).await;
            }
            (Err(error), _) => Err(Failed { error, attempts: 1 }),
            (Ok(false), Some(simulation)) => simulation.download(&self.downloader, &item).await,
            (Ok(false), None) => self.downloader.download(&item).await,
        };
        match got {
            Ok(Downloaded { slot, size, etag, attempts, permit }) => {
                tracing::debug!(name = item.name, size, attempts, "downloaded");
                let path = slot.path.clone();
                let file = FetchedFile { item, files: vec![path.clone()], path, size, slot };
                let job = Job { file, started, attempts, etag };
                if let Ok(room) = self.to_pre_process.reserve().await {
                    room.send(Queued::new(job, Metric::DownloadedQueue));
                }
                drop(permit);
            }
            Err(Failed { error: DownloadError::Stopped, .. }) => self.end(Ended::not_started(item)).await,
            Err(Failed { error, attempts }) => {
                let error = super::StageError::from(error);
                self.end(Ended::failed(item, None, started, attempts, Stage::Download, error)).await;
            }
        }
    }

    async fn end(&self, ended: Ended) {
        // who takes it goes only after all of these tasks
        let _taken = self.to_end.send(ended).await;
    }
}
