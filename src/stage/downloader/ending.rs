//! The last stage: the post-processor, the state, and what is left in the cache.
use std::sync::Arc;
use std::time::Instant;

use serde_json::{Map, Value};

use super::stages::{FetchedFile, ItemReport, PostProcessor, Stage, StageError, Status};
use super::working::unless_panicked;
use crate::download::{FileItem, ManifestFault, Slot};
use crate::store::{FetchRecord, Fetches, StoreError};
use crate::telemetry::Metric;

/// A longer result or longer fields of an item that is done are not kept until the end of the run.
const SMALL_BYTES: usize = 4 << 10;

/// An item at its end.
#[derive(Debug)]
pub(super) struct Ended {
    item: FileItem,
    file: Option<FetchedFile>,
    /// What is held, and removed where there is no file any more.
    leftovers: Option<Slot>,
    report: ItemReport,
    etag: Option<String>,
    /// Whether the state is to know.
    is_kept: bool,
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

    /// Until its end is kept nobody else takes these places.
    pub(super) fn holding(self, slot: Slot, is_kept: bool) -> Self {
        Self { leftovers: Some(slot), is_kept, ..self }
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
        Self { item, file: None, leftovers: None, report, etag: None, is_kept: true }
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

    fn forget_what_is_long(&mut self) {
        let is_long =
            |of: &dyn Fn() -> serde_json::Result<String>| of().is_ok_and(|of| of.len() > SMALL_BYTES);
        if self.status == Status::Failed {
            return;
        }
        if is_long(&|| serde_json::to_string(&self.result)) {
            self.result = Value::Null;
        }
        if is_long(&|| serde_json::to_string(&self.fields)) {
            self.fields = Map::new();
        }
    }
}

pub(super) struct Ending {
    pub(super) post_processor: Box<dyn PostProcessor>,
    pub(super) state: Option<(Arc<dyn Fetches>, String)>,
    pub(super) items: Vec<ItemReport>,
}

impl Ending {
    /// Ends some items: the post-processor sees one after the other, their state is kept at once.
    pub(super) async fn end(&mut self, ended: Vec<Ended>) {
        let mut seen = Vec::with_capacity(ended.len());
        for mut one in ended {
            let taken = self.post_processor.post_process(&mut one.report, one.file.as_ref());
            if let Err(error) = unless_panicked(taken).await {
                match one.report.status {
                    Status::Done => one.report.fail(Stage::PostProcess, error),
                    _ => tracing::warn!(name = one.item.name, "the post-processor failed too: {error}"),
                }
            }
            seen.push(one);
        }
        if let Err(error) = unless_panicked(self.post_processor.flush()).await {
            fail_all(&mut seen, &error);
        }
        if let Err(error) = self.keep(&seen).await {
            tracing::warn!("the state cannot be kept, so {} items are done again: {error}", seen.len());
            fail_all(&mut seen, &StageError::from(error));
        }
        let done = |one: &mut Ended| match one.report.status {
            Status::Done | Status::Skipped => {
                one.file.take().map(|file| file.slot).or_else(|| one.leftovers.take())
            }
            Status::Failed | Status::NotStarted => None,
        };
        let slots: Vec<Slot> = seen.iter_mut().filter_map(done).collect();
        let removed =
            tokio::task::spawn_blocking(move || slots.iter().map(Slot::remove).find(Result::is_err)).await;
        if let Ok(Some(Err(error))) = removed {
            tracing::warn!("a file that is done stays in the cache: {error}");
        }
        for Ended { mut report, .. } in seen {
            count(&report);
            report.forget_what_is_long();
            self.items.push(report);
        }
    }

    /// Shows the post-processor an entry that is no item.
    pub(super) async fn see_fault(&mut self, fault: &ManifestFault) {
        let mut report = ItemReport {
            id: Value::Null,
            name: format!("entry {}", fault.index),
            url: String::new(),
            status: Status::Failed,
            stage: Some(Stage::Manifest),
            error: Some(fault.fault.to_string()),
            bytes: 0,
            attempts: 0,
            seconds: 0.0,
            result: Value::Null,
            fields: Map::new(),
        };
        if let Err(error) = unless_panicked(self.post_processor.post_process(&mut report, None)).await {
            tracing::warn!(name = report.name, "the post-processor failed too: {error}");
        }
    }

    async fn keep(&self, ended: &[Ended]) -> Result<(), StoreError> {
        let Some((state, work)) = &self.state else { return Ok(()) };
        let has_run =
            |one: &&Ended| one.is_kept && matches!(one.report.status, Status::Done | Status::Failed);
        let records = ended.iter().filter(has_run).map(|one| FetchRecord {
            key: one.item.key(),
            name: one.report.name.clone(),
            url: one.report.url.clone(),
            done: one.report.status == Status::Done,
            stage: one.report.stage.map(|stage| stage.as_str().to_owned()),
            error: one.report.error.clone(),
            size: one.report.bytes,
            etag: one.etag.clone(),
            sha256: one.item.sha256_text(),
        });
        let records: Vec<_> = records.collect();
        match records.is_empty() {
            true => Ok(()),
            false => state.keep(work, records).await,
        }
    }
}

/// What was well until here failed.
fn fail_all(ended: &mut [Ended], error: &StageError) {
    for one in ended.iter_mut().filter(|one| one.report.status == Status::Done) {
        one.report.fail(Stage::PostProcess, error.clone());
    }
}

fn count(report: &ItemReport) {
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
}
