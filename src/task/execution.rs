//! One run of a task: its function, until it returns, panics, takes too long, or is told to stop.
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::registry::{Entry, Outcome};
use super::{Task, TaskContext, TaskFailure};
use crate::store::tasks::Ending;

/// The pause before another attempt grows up to this.
const MAX_BACKOFF: Duration = Duration::from_secs(300);

/// Why a run is to end before its function returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Somebody cancelled the task.
    Cancelled,
    /// The worker ends.
    HandBack,
    /// Another worker has the task, or may have it.
    Lost,
}

/// A function that runs on; ended where it next waits when this is dropped.
struct Running(JoinHandle<Outcome>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Runs it. `None` where nothing is to be written: the task is not this worker's any more.
pub(super) async fn execute(
    entry: &Entry,
    context: TaskContext,
    stop: oneshot::Receiver<Stop>,
) -> Option<Ending> {
    let task = context.task().clone();
    let parameters = task.parameters.clone();
    // called on a thread of the runtime, where a panic is an answer like others
    let function = entry.function.clone();
    let called = async move { function(context, parameters).await };
    let mut running = Running(tokio::spawn(AssertUnwindSafe(called).catch_unwind().map(answer)));
    let limit = task.timeout_ms.and_then(|millis| u64::try_from(millis).ok()).map(Duration::from_millis);
    let too_long = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        outcome = &mut running.0 => outcome.unwrap_or_else(|error| Err(TaskFailure::from(error))),
        () = too_long => {
            let limit = limit.unwrap_or_default().as_secs_f64();
            Err(TaskFailure::Failed(format!("timed out: it may take {limit} s")))
        }
        Ok(stop) = stop => {
            return match stop {
                Stop::Cancelled => Some(Ending::Cancelled),
                Stop::HandBack => Some(Ending::HandedBack),
                Stop::Lost => None,
            };
        }
    };
    Some(match outcome {
        Ok(result) => Ending::Completed(result),
        Err(TaskFailure::Waiting) => Ending::Waiting,
        Err(TaskFailure::Permanent(error)) => Ending::Failed { error, retry_after: None },
        Err(TaskFailure::Failed(error)) => Ending::Failed { error, retry_after: pause(&task) },
    })
}

fn answer(called: Result<Outcome, Box<dyn std::any::Any + Send>>) -> Outcome {
    called.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        Err(TaskFailure::Failed(format!("it panicked: {text}")))
    })
}

/// `backoff`, doubled with every attempt; `None` after the last.
fn pause(task: &Task) -> Option<Duration> {
    let failed = task.attempt - task.attempts_before;
    if failed >= task.max_attempts {
        return None;
    }
    let factor = 2u32.saturating_pow(u32::try_from(failed - 1).unwrap_or(0));
    let backoff = Duration::from_millis(task.backoff_ms.unsigned_abs());
    Some(backoff.saturating_mul(factor).min(MAX_BACKOFF))
}
