//! The last stage: the post-processor, the state, and what is left in the cache.
use std::sync::Arc;
use std::time::Instant;

use serde_json::Value;

use super::stages::{FetchedFile, ItemReport, PostProcessor, Stage, StageError, Status};
use super::working::unless_panicked;
use crate::download::{FileItem, Slot};
use crate::store::{FetchRecord, Fetches};
use crate::telemetry::Metric;

/// An item at its end.
#[derive(Debug)]
pub(super) struct Ended {
    item: FileItem,
    file: Option<FetchedFile>,
    /// What to remove where there is no file any more.
    leftovers: Option<Slot>,
    report: ItemReport,
    etag: Option<String>,
}

impl Ended {
    pub(super) fn done(
        file: FetchedFile,
        started: Instant,
        attempts: u32,
        etag: Option<String>,
        result: Value,
    ) -> Self {
        let mut ended = Self::new(file.item.clone(), Status::Done);
        ended.report.result = result;
        ended.timed(started, attempts).with_file(Some(file), etag)
    }

    pub(super) fn failed(
        item: FileItem,
        file: Option<FetchedFile>,
        started: Instant,
        attempts: u32,
        stage: Stage,
        error: StageError,
    ) -> Self {
        let mut ended = Self::new(item, Status::Failed);
        ended.report.fail(stage, error);
        ended.timed(started, attempts).with_file(file, None)
    }

    pub(super) fn skipped(item: FileItem, slot: Slot) -> Self {
        Self { leftovers: Some(slot), ..Self::new(item, Status::Skipped) }
    }

    pub(super) fn not_started(item: FileItem) -> Self {
        Self::new(item, Status::NotStarted)
    }

    fn new(item: FileItem, status: Status) -> Self {
        let report = ItemReport {
            id: item.id.clone(),
            name: item.name.clone(),
            url: item.shown_url(),
            status,
            stage: None,
            error: None,
            bytes: 0,
            attempts: 0,
            seconds: 0.0,
            result: Value::Null,
            fields: item.fields.clone(),
        };
        Self { item, file: None, leftovers: None, report, etag: None }
    }

    fn timed(mut self, started: Instant, attempts: u32) -> Self {
        self.report.seconds = started.elapsed().as_secs_f64();
        self.report.attempts = attempts;
        self
    }

    fn with_file(mut self, file: Option<FetchedFile>, etag: Option<String>) -> Self {
        self.report.bytes = file.as_ref().map_or(0, |file| file.size);
        self.file = file;
        self.etag = etag;
        self
    }
}

impl ItemReport {
    fn fail(&mut self, stage: Stage, error: StageError) {
        self.status = Status::Failed;
        self.stage = Some(stage);
        self.error = Some(error.to_string().replace('\n', " "));
    }
}

pub(super) struct Ending {
    pub(super) post_processor: Box<dyn PostProcessor>,
    pub(super) state: Option<(Arc<dyn Fetches>, String)>,
    pub(super) items: Vec<ItemReport>,
}

impl Ending {
    pub(super) async fn end(&mut self, ended: Ended) {
        let Ended { item, file, leftovers, mut report, etag } = ended;
        let taken = self.post_processor.post_process(&mut report, file.as_ref());
        if let Err(error) = unless_panicked(taken).await {
            match report.status {
                Status::Done => report.fail(Stage::PostProcess, error),
                _ => tracing::warn!(name = item.name, "the post-processor failed too: {error}"),
            }
        }
        if let Err(error) = self.keep(&item, &report, etag).await {
            tracing::warn!(name = item.name, "the state cannot be kept, so it is done again: {error}");
            if report.status == Status::Done {
                report.fail(Stage::PostProcess, StageError::from(error));
            }
        }
        let slot = match report.status {
            Status::Done | Status::Skipped => file.map(|file| file.slot).or(leftovers),
            Status::Failed | Status::NotStarted => None,
        };
        if let Some(slot) = slot {
            let removed = tokio::task::spawn_blocking(move || slot.remove()).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(name = item.name, "its file stays in the cache: {error}");
            }
        }
        match report.status {
            Status::Done => Metric::FilesDone.add(1),
            Status::Failed => {
                Metric::FilesFailed.add(1);
                tracing::info!(
                    name = report.name,
                    stage = report.stage.map(Stage::as_str),
                    "failed: {}",
                    report.error.as_deref().unwrap_or_default()
                );
            }
            Status::Skipped | Status::NotStarted => {}
        }
        self.items.push(report);
    }

    async fn keep(
        &self,
        item: &FileItem,
        report: &ItemReport,
        etag: Option<String>,
    ) -> Result<(), crate::store::StoreError> {
        let Some((state, work)) = &self.state else { return Ok(()) };
        if !matches!(report.status, Status::Done | Status::Failed) {
            return Ok(());
        }
        let record = FetchRecord {
            key: item.key(),
            name: report.name.clone(),
            url: report.url.clone(),
            done: report.status == Status::Done,
            stage: report.stage.map(|stage| stage.as_str().to_owned()),
            error: report.error.clone(),
            size: report.bytes,
            etag,
            sha256: item.sha256_text(),
        };
        state.keep(work, record).await
    }
}
