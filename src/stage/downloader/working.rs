//! The middle stages: workers that take files from a queue, each with an instance of its own.
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt;
use tokio::sync::{Mutex, mpsc};

use super::ending::Ended;
use super::simulate::Simulation;
use super::stages::{PreProcessor, Processor, Stage, StageError};
use super::{Job, Queued};
use crate::stage::shutdown::Shutdown;
use crate::telemetry::Metric;

pub(super) type Shared = Arc<Mutex<mpsc::Receiver<Queued<Job>>>>;

/// One queue for several workers.
pub(super) fn shared(queue: mpsc::Receiver<Queued<Job>>) -> Shared {
    Arc::new(Mutex::new(queue))
}

#[derive(Clone)]
pub(super) struct Working {
    pub(super) to_end: mpsc::Sender<Ended>,
    pub(super) shutdown: Shutdown,
    pub(super) simulation: Option<Simulation>,
}

impl Working {
    pub(super) async fn pre_process(
        self,
        mut pre: Box<dyn PreProcessor>,
        queue: Shared,
        to_process: mpsc::Sender<Queued<Job>>,
    ) {
        while let Some(mut job) = self.next(&queue).await {
            tracing::debug!(name = job.file.item.name, "pre-processing starts");
            match unless_panicked(pre.pre_process(&mut job.file)).await {
                Ok(()) => {
                    if let Ok(room) = to_process.reserve().await {
                        room.send(Queued::new(job, Metric::PreProcessedQueue));
                    }
                }
                Err(error) => self.fail(job, Stage::PreProcess, error).await,
            }
        }
    }

    pub(super) async fn process(self, mut processor: Box<dyn Processor>, queue: Shared) {
        while let Some(mut job) = self.next(&queue).await {
            tracing::debug!(name = job.file.item.name, "processing starts");
            let simulated = match self.simulation {
                Some(simulation) => simulation.process(&job.file.item).await,
                None => Ok(()),
            };
            let processed = match simulated {
                Ok(()) => unless_panicked(processor.process(&mut job.file)).await,
                Err(error) => Err(error),
            };
            match processed {
                Ok(result) => {
                    let Job { file, started, attempts, etag } = job;
                    let ended = Ended::done(file, started, attempts, etag, result);
                    self.end(ended).await;
                }
                Err(error) => self.fail(job, Stage::Process, error).await,
            }
        }
    }

    /// The next file; after a request to stop, those that wait are put back, which costs nothing: they stay in the cache.
    async fn next(&self, queue: &Shared) -> Option<Job> {
        loop {
            let job = queue.lock().await.recv().await?.take();
            if !self.shutdown.is_requested() {
                return Some(job);
            }
            self.end(Ended::not_started(job.file.item)).await;
        }
    }

    async fn fail(&self, job: Job, stage: Stage, error: StageError) {
        let Job { file, started, attempts, .. } = job;
        let item = file.item.clone();
        self.end(Ended::failed(item, Some(file), started, attempts, stage, error)).await;
    }

    async fn end(&self, ended: Ended) {
        // who takes it goes only after all workers
        let _taken = self.to_end.send(ended).await;
    }
}

/// A panic of one stage is the failure of one item.
pub(super) async fn unless_panicked<T>(
    work: impl Future<Output = Result<T, StageError>>,
) -> Result<T, StageError> {
    AssertUnwindSafe(work).catch_unwind().await.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(ToString::to_string);
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(StageError::new(format!("the stage panicked: {text}")))
    })
}
