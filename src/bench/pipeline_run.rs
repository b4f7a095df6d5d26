//! One run of the pipeline in a process of its own, watched until every index is valid.
//!
//! The ledger says when rows are queryable, and the end of the process that all is acknowledged and indexed.
//! What watches costs one short query per [`LOOK`], on a connection that waits for nothing.
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::watch;

use super::process::{Measured, ProcessUse};
use super::queue::{Queue, QueueDepth};
use super::scratch::{LedgerCounts, Schema, StoredSize};
use super::{BenchError, ServerClocks};

/// How often the processes and the ledger are looked at: the exactness of the times.
const LOOK: Duration = Duration::from_millis(20);
/// How often the queue is looked at, which makes Redis touch a frame.
const LOOK_AT_QUEUE: Duration = Duration::from_millis(250);
/// Rates are over the last such time.
const RATE_OVER: Duration = Duration::from_secs(1);

/// What carries chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// A queue in the one process.
    Memory,
    /// Redis, between reader and processor.
    Redis {
        /// Its URL.
        url: String,
        /// A stream that nobody else uses.
        stream: String,
    },
}

/// What to run.
#[derive(Debug, Clone)]
pub struct PipelineRun {
    /// This program.
    pub program: PathBuf,
    /// What to read.
    pub paths: Vec<PathBuf>,
    /// Bytes in it, where they are known.
    pub total_bytes: Option<u64>,
    /// What carries chunks.
    pub via: Via,
    /// URL of the database.
    pub into: String,
    /// Other arguments of `pipeline run`.
    pub arguments: Vec<OsString>,
}

/// What a run looks like at a moment.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Sample {
    /// Since the start.
    pub elapsed: Duration,
    /// What is committed.
    pub committed: LedgerCounts,
    /// Bytes in all, where they are known.
    pub total_bytes: Option<u64>,
    /// Lately.
    pub rows_per_second: f64,
    /// What waits, where that can be seen.
    pub queue: Option<QueueDepth>,
}

/// What a run took.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RunFigures {
    /// What it committed.
    pub committed: LedgerCounts,
    /// From the start of the process until every row could be queried.
    pub queryable_seconds: f64,
    /// From the start until the process had ended, and with that every index was valid.
    pub indexed_seconds: f64,
    /// What the pipeline's process used.
    pub process: ProcessUse,
    /// CPU of the Postgres server meanwhile, where it is on this machine.
    pub postgres_cpu_seconds: Option<f64>,
    /// CPU of the Redis server meanwhile.
    pub redis_cpu_seconds: Option<f64>,
    /// The most that waited in the queue.
    pub deepest_queue: Option<QueueDepth>,
    /// Bytes that Postgres logged meanwhile.
    pub wal_bytes: u64,
    /// Bytes in the database.
    pub stored: StoredSize,
}

impl RunFigures {
    /// CPU of the pipeline's process for a million lines.
    pub fn cpu_seconds_per_million_lines(&self) -> Option<f64> {
        Some(self.process.cpu_seconds? / self.committed.lines.max(1) as f64 * 1e6)
    }

    /// Lines a second, until rows are queryable.
    pub fn lines_per_second(&self) -> f64 {
        self.committed.lines as f64 / self.queryable_seconds.max(1e-9)
    }
}

impl PipelineRun {
    /// Runs it into `schema`, which is empty. Each look is sent to `samples`.
    pub async fn measure(
        &self,
        schema: &Schema,
        mut queue: Option<&mut Queue>,
        clocks: &mut ServerClocks,
        samples: &watch::Sender<Sample>,
    ) -> Result<RunFigures, BenchError> {
        let (postgres, redis) = (clocks.postgres_seconds(), clocks.redis_seconds().await);
        let logged = schema.wal_bytes().await?;
        let started = Instant::now();
        let mut running = Measured::start(&mut self.command(schema.name()), "run")?;
        let mut rate = Rate::default();
        let mut figures = RunFigures::default();
        let (mut depth, mut next_depth) = (None, Duration::ZERO);
        loop {
            let ended = running.poll()?;
            let now = started.elapsed();
            if ended {
                figures.indexed_seconds = now.as_secs_f64();
            }
            let committed = schema.committed().await?;
            if committed != figures.committed {
                // seen now, committed at most one look ago
                figures.queryable_seconds = match ended {
                    true => figures.indexed_seconds,
                    false => started.elapsed().as_secs_f64(),
                };
                figures.committed = committed;
            }
            if let Some(queue) = &mut queue
                && now >= next_depth
            {
                next_depth = now + LOOK_AT_QUEUE;
                depth = Some(queue.depth().await?);
                let deepest = figures.deepest_queue.iter().chain(&depth);
                figures.deepest_queue = deepest.max_by_key(|depth| depth.frames).copied();
            }
            samples.send_replace(Sample {
                elapsed: now,
                committed,
                total_bytes: self.total_bytes,
                rows_per_second: rate.note(now, committed.rows),
                queue: depth,
            });
            if ended {
                break;
            }
            tokio::time::sleep(LOOK).await;
        }
        figures.process = running.finish()?.0;
        let since = |before: Option<f64>, now: Option<f64>| Some(now? - before?);
        figures.postgres_cpu_seconds = since(postgres, clocks.postgres_seconds());
        figures.redis_cpu_seconds = since(redis, clocks.redis_seconds().await);
        figures.wal_bytes = schema.wal_bytes().await?.saturating_sub(logged);
        figures.stored = schema.stored_size().await?;
        Ok(figures)
    }

    fn command(&self, schema: &str) -> Command {
        let mut run = Command::new(&self.program);
        run.args(["run", "--output", "json", "--schema", schema]).args(&self.arguments);
        // by variable, because a URL may hold a password, and everybody sees command lines
        run.env("PIPELINE_INTO", &self.into);
        match &self.via {
            Via::Memory => run.args(["--via", "memory"]),
            Via::Redis { url, stream } => run.env("PIPELINE_VIA", url).args(["--stream", stream]),
        };
        run.arg("--").args(&self.paths);
        run
    }
}

/// Rows a second over the last [`RATE_OVER`].
#[derive(Debug, Default)]
pub(super) struct Rate {
    seen: std::collections::VecDeque<(Duration, u64)>,
}

impl Rate {
    pub(super) fn note(&mut self, now: Duration, rows: u64) -> f64 {
        self.seen.push_back((now, rows));
        while self.seen.len() > 2 && self.seen.get(1).is_some_and(|(time, _)| now - *time >= RATE_OVER) {
            self.seen.pop_front();
        }
        let Some((first, before)) = self.seen.front() else { return 0.0 };
        let seconds = (now - *first).as_secs_f64();
        if seconds > 0.0 { rows.saturating_sub(*before) as f64 / seconds } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_second() {
        let mut rate = Rate::default();
        for tenth in 0..=20u64 {
            let rows = if tenth < 10 { tenth * 1_000 } else { 10_000 };
            rate.note(Duration::from_millis(tenth * 100), rows);
        }
        assert_eq!(rate.note(Duration::from_millis(2_100), 10_500), 500.0 / 1.0);
    }
}
