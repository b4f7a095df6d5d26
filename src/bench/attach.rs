//! Watches a pipeline that was started elsewhere, until nothing happens any more.
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use super::pipeline_run::Rate;
use super::{BenchError, LedgerCounts, Queue, Sample, Schema};

/// How often is looked.
const LOOK: Duration = Duration::from_millis(250);

/// When to stop looking.
#[derive(Debug, Clone, Copy)]
pub struct AttachLimits {
    /// After so long,
    pub total: Duration,
    /// or after so long without a new committed chunk.
    pub idle: Duration,
}

impl Default for AttachLimits {
    fn default() -> Self {
        Self { total: Duration::from_secs(600), idle: Duration::from_secs(15) }
    }
}

/// Why it stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// [`AttachLimits::idle`] passed.
    NoProgress,
    /// [`AttachLimits::total`] passed.
    TimeLimit,
}

/// What was seen.
#[derive(Debug, Clone, Serialize)]
pub struct Attached {
    /// What was committed meanwhile.
    pub committed: LedgerCounts,
    /// From the start until the last chunk was committed.
    pub seconds: f64,
    /// The same as a rate.
    pub rows_per_second: f64,
    /// Why it stopped.
    pub ending: Ending,
}

/// Looks at the ledger of `schema` and at the queue.
pub async fn attach(
    schema: &Schema,
    mut queue: Option<Queue>,
    limits: AttachLimits,
    samples: &watch::Sender<Sample>,
) -> Result<Attached, BenchError> {
    let started = Instant::now();
    let before = schema.committed().await?;
    let mut rate = Rate::default();
    let (mut last, mut last_change) = (before, Duration::ZERO);
    loop {
        let committed = schema.committed().await?;
        let now = started.elapsed();
        if committed != last {
            (last, last_change) = (committed, now);
        }
        let depth = match &mut queue {
            Some(queue) => Some(queue.depth().await?),
            None => None,
        };
        let so_far = last.since(before);
        samples.send_replace(Sample {
            elapsed: now,
            committed: so_far,
            total_bytes: None,
            rows_per_second: rate.note(now, so_far.rows),
            queue: depth,
        });
        let ending = match () {
            () if now >= limits.total => Some(Ending::TimeLimit),
            () if now - last_change >= limits.idle => Some(Ending::NoProgress),
            () => None,
        };
        if let Some(ending) = ending {
            let seconds = last_change.as_secs_f64();
            let rows_per_second = so_far.rows as f64 / seconds.max(LOOK.as_secs_f64());
            return Ok(Attached { committed: so_far, seconds, rows_per_second, ending });
        }
        tokio::time::sleep(LOOK).await;
    }
}
