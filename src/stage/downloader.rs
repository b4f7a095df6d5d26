//! Manifest -> files -> stages: many files at once, each through all of its stages, none lost on the way.
//!
//! ```text
//! items -> download -> [downloaded] -> pre-process -> [pre-processed] -> process -> [ended] -> post-process -> state
//! ```
//! Every queue is bounded, so a slow stage holds back the download. Invariants: every item reaches the post-processor
//! once, at whichever stage it failed; a file leaves the cache only after its end is kept in the state; a kill at any
//! point costs at most the bytes in flight. Deliberately absent: an order of items.
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::shutdown::Shutdown;
use crate::download::{
    DownloadError, DownloadOptions, Downloader, FileItem, Manifest, ManifestError, ManifestFault,
};
use crate::store::{FetchRecord, Fetches, StoreError};
use crate::telemetry::Metric;

mod backlog;
mod builtin;
mod ending;
mod exec;
mod getting;
mod ingest;
mod registry;
mod simulate;
mod stages;
mod working;

pub use builtin::{Checksum, Decompress, Keep, ReportLines, SharedWriter};
pub use exec::Exec;
pub use ingest::{Ingest, IngestOptions};
pub use registry::{Kind, NAMES, Named, SpecError, StageParts, Stages};
pub use simulate::Simulation;
pub use stages::{
    FetchedFile, ItemReport, Nothing, PostProcessor, PreProcessor, Processor, Stage, StageError, Status,
};

use ending::Ended;

/// Items whose end waits for the post-processor; more wait for room.
const ENDED_QUEUE: usize = 16;

/// How to fetch.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// How to download.
    pub download: DownloadOptions,
    /// Files that wait to be pre-processed; more hold back the download.
    pub download_queue: usize,
    /// Files that wait to be processed.
    pub pre_processing_queue: usize,
    /// Files pre-processed, and processed, at once.
    pub processing_limit: usize,
    /// Only items that failed before.
    pub retry_failed: bool,
    /// Items that are done too.
    pub again: bool,
    /// No network: delays and failures by chance.
    pub simulation: Option<Simulation>,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self {
            download: DownloadOptions::default(),
            download_queue: 10,
            pre_processing_queue: 10,
            processing_limit: 3,
            retry_failed: false,
            again: false,
            simulation: None,
        }
    }
}

/// Why nothing could be fetched, or not all of it. What fails with one item is in its report.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The cache cannot be used.
    #[error(transparent)]
    Download(#[from] DownloadError),
    /// The state cannot be read.
    #[error(transparent)]
    State(#[from] StoreError),
    /// The manifest cannot be used.
    #[error("{}: {fault}", path.display())]
    Manifest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: ManifestError,
    },
    /// The manifest cannot be read.
    #[error("{}: the manifest cannot be read; check the path", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
}

/// What became of a manifest.
#[derive(Debug, Default)]
pub struct FetchReport {
    /// Every item, in the order of their ends. A result or fields of a done one that are longer than 4 KiB went to the
    /// post-processor only.
    pub items: Vec<ItemReport>,
    /// Entries of the manifest that could not be used.
    pub faults: Vec<ManifestFault>,
    /// Bytes received.
    pub bytes_received: u64,
    /// Of those, bytes that had been received before.
    pub bytes_again: u64,
    /// A request to stop came before the end.
    pub interrupted: bool,
    /// How long it took.
    pub took: Duration,
}

impl FetchReport {
    /// How many items ended so.
    #[must_use]
    pub fn count(&self, status: Status) -> usize {
        self.items.iter().filter(|item| item.status == status).count()
    }

    /// Whether an item failed, or an entry could not be used.
    #[must_use]
    pub fn has_failures(&self) -> bool {
        !self.faults.is_empty() || self.count(Status::Failed) > 0
    }
}

/// Fetches the files of a manifest.
///
/// ```no_run
/// use pipeline::download::FileItem;
/// use pipeline::stage::downloader::{Fetch, FetchOptions, Status};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let items = vec![FileItem::try_new("https://example.org/app.log.gz")?];
/// let report = Fetch::new(FetchOptions::default()).run(items).await?;
/// assert_eq!(report.count(Status::Done), 1);
/// # Ok(())
/// # }
/// ```
pub struct Fetch {
    options: FetchOptions,
    stages: Stages,
    state: Option<(Arc<dyn Fetches>, String)>,
    shutdown: Shutdown,
}

impl std::fmt::Debug for Fetch {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Fetch").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Fetch {
    /// Downloads, and does nothing with the files.
    #[must_use]
    pub fn new(options: FetchOptions) -> Self {
        Self { options, stages: Stages::default(), state: None, shutdown: Shutdown::new() }
    }

    /// Does this with the files.
    #[must_use]
    pub fn with_stages(mut self, stages: Stages) -> Self {
        self.stages = stages;
        self
    }

    /// Keeps progress, and goes by what was kept; `work` names what is done with the files.
    #[must_use]
    pub fn with_state(mut self, state: Arc<dyn Fetches>, work: impl Into<String>) -> Self {
        self.state = Some((state, work.into()));
        self
    }

    /// Stops when this is requested: what runs is finished, nothing more is started.
    #[must_use]
    pub fn with_shutdown(mut self, shutdown: Shutdown) -> Self {
        self.shutdown = shutdown;
        self
    }

    /// Fetches what the manifest at `path` says.
    pub async fn run_manifest(self, path: &Path) -> Result<FetchReport, FetchError> {
        let text =
            std::fs::read(path).map_err(|source| FetchError::Unreadable { path: path.to_owned(), source })?;
        let manifest = Manifest::from_bytes(&text)
            .map_err(|fault| FetchError::Manifest { path: path.to_owned(), fault })?;
        self.run_entries(manifest).await
    }

    /// Fetches `items`. Ends well whatever becomes of them: the report says it.
    pub async fn run(self, items: Vec<FileItem>) -> Result<FetchReport, FetchError> {
        self.run_entries(Manifest { items, faults: Vec::new() }).await
    }

    /// Fetches the items of a manifest; its other entries reach the post-processor too.
    pub async fn run_entries(self, manifest: Manifest) -> Result<FetchReport, FetchError> {
        let Manifest { items, faults } = manifest;
        let started = Instant::now();
        let Self { options, stages, state, shutdown } = self;
        let known = match &state {
            Some((state, work)) if !options.again => state.load(work).await?,
            _ => HashMap::new(),
        };
        let mut download = options.download.clone();
        if options.simulation.is_some() {
            // never taken for a real file
            download.cache = download.cache.join("simulated");
        }
        let downloader = Arc::new(Downloader::try_new(download)?);
        let plan = Plan::new(items, &known, &options);
        let (to_pre_process, downloaded) = mpsc::channel(options.download_queue.max(1));
        let (to_process, pre_processed) = mpsc::channel(options.pre_processing_queue.max(1));
        let (to_end, mut ended) = mpsc::channel::<Ended>(ENDED_QUEUE);

        let mut tasks = JoinSet::new();
        let getting = getting::Getting {
            downloader: Arc::clone(&downloader),
            simulation: options.simulation,
            revalidate: options.download.revalidate,
            state: state.clone().filter(|_| options.simulation.is_none() && !options.again),
            is_shared: Arc::default(),
            to_pre_process,
            to_end: to_end.clone(),
            shutdown: shutdown.clone(),
        };
        tasks.spawn(getting.run(plan.items, options.download.downloads));
        let working = working::Working { to_end, shutdown: shutdown.clone(), simulation: options.simulation };
        let (downloaded, pre_processed) = (working::shared(downloaded), working::shared(pre_processed));
        for _ in 0..options.processing_limit.max(1) {
            let (pre, processor) = ((stages.pre_processor)(), (stages.processor)());
            tasks.spawn(working.clone().pre_process(pre, Arc::clone(&downloaded), to_process.clone()));
            tasks.spawn(working.clone().process(processor, Arc::clone(&pre_processed)));
        }
        drop((to_process, working));

        let mut ending = ending::Ending {
            post_processor: (stages.post_processor)(),
            state: state.filter(|_| options.simulation.is_none()),
            items: Vec::new(),
        };
        let skipped = plan.done_before.into_iter().map(|item| {
            let slot = downloader.cache().slot(&item);
            Ended::skipped(item, slot)
        });
        for fault in &faults {
            ending.see_fault(fault).await;
        }
        ending.end(skipped.collect()).await;
        ending.end(plan.left.into_iter().map(Ended::not_started).collect()).await;
        let mut some = Vec::new();
        // all that wait share one write to the state
        while ended.recv_many(&mut some, ENDED_QUEUE).await > 0 {
            ending.end(std::mem::take(&mut some)).await;
        }
        while let Some(task) = tasks.join_next().await {
            if let Err(failed) = task
                && failed.is_panic()
            {
                std::panic::resume_unwind(failed.into_panic());
            }
        }
        let (bytes_received, bytes_again) = downloader.received();
        Ok(FetchReport {
            items: ending.items,
            faults,
            bytes_received,
            bytes_again,
            interrupted: shutdown.is_requested(),
            took: started.elapsed(),
        })
    }
}

/// What is to be done, by what is known to be done already.
struct Plan {
    /// With what is known of them where that has to be asked about.
    items: Vec<(FileItem, Option<FetchRecord>)>,
    done_before: Vec<FileItem>,
    /// Not tried before, where only what failed is to be tried again.
    left: Vec<FileItem>,
}

impl Plan {
    fn new(items: Vec<FileItem>, known: &HashMap<String, FetchRecord>, options: &FetchOptions) -> Self {
        let mut plan = Self { items: Vec::new(), done_before: Vec::new(), left: Vec::new() };
        for item in items {
            let record = known.get(&item.key());
            let is_done = record.is_some_and(|record| is_done(&item, record));
            match (is_done, options.retry_failed) {
                (true, false) if options.download.revalidate => plan.items.push((item, record.cloned())),
                (true, _) => plan.done_before.push(item),
                (false, true) if record.is_none() => plan.left.push(item),
                (false, _) => plan.items.push((item, None)),
            }
        }
        plan
    }
}

/// Whether it is done, and what the manifest now says of it is what was done.
fn is_done(item: &FileItem, record: &FetchRecord) -> bool {
    record.done
        && item.size.is_none_or(|size| size == record.size)
        && item.sha256_text().is_none_or(|sha256| record.sha256.as_ref() == Some(&sha256))
}

/// A file in a queue, and what is known of how it came.
#[derive(Debug)]
struct Job {
    file: FetchedFile,
    started: Instant,
    attempts: u32,
    etag: Option<String>,
}

/// Counts what is in a queue at the moment.
struct Queued<T>(T, Metric);

impl<T> Queued<T> {
    fn new(of: T, gauge: Metric) -> Self {
        gauge.add(1);
        Self(of, gauge)
    }

    fn take(self) -> T {
        self.1.subtract(1);
        self.0
    }
}
