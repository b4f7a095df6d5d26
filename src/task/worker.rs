//! Takes tasks that are due and runs them, until it is told to stop.
//!
//! Invariants: at most `concurrency` functions run; a worker that could not renew its leases for four fifths of their
//! time ends its runs, so that they have ended when another takes them; nothing that a function does ends the worker.
//! Time is measured by a clock that cannot be set.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::execution::{Stop, execute};
use super::{NewTask, Registry, Task, TaskContext, TaskError, TaskLog, TaskStore, next_time};
use crate::stage::shutdown::Shutdown;
use crate::store::tasks::{Beat, Claim, Ending, Lease, TaskStoreError};
use crate::telemetry;

/// A worker that was not heard of for this long has lost its tasks.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(10);
/// Looked for tasks at least so often, whether or not somebody says that there are any.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Tasks that end within this time after a request to stop are not handed back.
const GRACE: Duration = Duration::from_secs(2);
/// Pause after the database failed.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs of this process: who to tell to stop.
type Runs = Arc<Mutex<RunsById>>;
type RunsById = HashMap<String, (i64, Option<oneshot::Sender<Stop>>)>;

/// What a worker did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkerSummary {
    /// Runs begun.
    pub started: u64,
    /// Runs whose end was written.
    pub ended: u64,
}

/// Takes tasks that are due and runs them.
#[derive(Debug, Clone)]
pub struct Worker {
    store: TaskStore,
    registry: Registry,
    name: String,
    concurrency: usize,
    lease: Duration,
    root: Option<String>,
    log: Option<TaskLog>,
}

impl Worker {
    /// Four tasks at a time, a lease of [`DEFAULT_LEASE`], no task log.
    #[must_use]
    pub fn new(store: TaskStore, registry: Registry) -> Self {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let unique = uuid::Uuid::now_v7().simple().to_string();
        let name = format!("{}:{}:{}", host.trim(), std::process::id(), &unique[unique.len() - 6..]);
        Self { store, registry, name, concurrency: 4, lease: DEFAULT_LEASE, root: None, log: None }
    }

    /// The same with so many tasks at a time.
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency.max(1);
        self
    }

    /// The same with another time after which others may take its tasks.
    #[must_use]
    pub fn with_lease(mut self, lease: Duration) -> Self {
        self.lease = lease;
        self
    }

    /// The same for one task and the steps below it; it ends when that task has ended.
    #[must_use]
    pub fn with_root(mut self, id: &str) -> Self {
        self.root = Some(id.to_owned());
        self
    }

    /// The same with a task log.
    #[must_use]
    pub fn with_log(mut self, log: TaskLog) -> Self {
        self.log = Some(log);
        self
    }

    /// Works until `shutdown` is requested, or its one task has ended. Tasks that run then are handed back: the
    /// attempt does not count.
    pub async fn run(&self, shutdown: &Shutdown) -> Result<WorkerSummary, TaskError> {
        let runs = Runs::default();
        let leases = AbortOnDrop(tokio::spawn(self.clone().keep_leases(runs.clone())));
        let watch = AbortOnDrop(tokio::spawn(self.clone().watch_others()));
        let worked = self.work(shutdown, &runs).await;
        drop((leases, watch));
        worked
    }

    async fn work(&self, shutdown: &Shutdown, runs: &Runs) -> Result<WorkerSummary, TaskError> {
        let names = self.registry.names();
        let mut running: JoinSet<bool> = JoinSet::new();
        let mut summary = WorkerSummary::default();
        while !shutdown.is_requested() {
            let mark = self.store.mark().await;
            let free = self.concurrency - running.len();
            let claimed = match free {
                0 => Ok(Vec::new()),
                _ => self.claim(&names, free).await,
            };
            match claimed {
                Ok(claims) => {
                    for claim in claims {
                        summary.started += 1;
                        telemetry::Metric::TasksRunning.set(running.len() as u64 + 1);
                        let (stop, stopped) = oneshot::channel();
                        lock(runs).insert(claim.task.id.clone(), (claim.fence, Some(stop)));
                        running.spawn(self.clone().run_one(claim, stopped, runs.clone()));
                    }
                }
                Err(TaskStoreError::Store(error)) if error.is_retriable() => {
                    tracing::warn!("no task can be claimed now: {error}");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => return Err(error.into()),
            }
            if let Some(root) = &self.root
                && running.is_empty()
                && self.store.by_id(root).await?.is_none_or(|task| task.status.is_ended())
            {
                break;
            }
            let is_full = running.len() >= self.concurrency;
            tokio::select! {
                Some(ended) = running.join_next() => summary.ended += u64::from(ended.unwrap_or(false)),
                () = self.store.changed_since(&mark, LOOK_EVERY), if !is_full => {}
                () = shutdown.requested() => {}
            }
            while let Some(ended) = running.try_join_next() {
                summary.ended += u64::from(ended.unwrap_or(false));
            }
        }
        summary.ended += self.stop_all(&mut running, runs).await;
        Ok(summary)
    }

    async fn claim(&self, names: &[String], free: usize) -> Result<Vec<Claim>, TaskStoreError> {
        if !self.store.is_due(self.root.as_deref()).await? {
            return Ok(Vec::new());
        }
        self.store.claim(&self.name, names, self.root.as_deref(), self.lease, free).await
    }

    async fn stop_all(&self, running: &mut JoinSet<bool>, runs: &Runs) -> u64 {
        let mut ended = 0;
        let all_end = async {
            while let Some(run) = running.join_next().await {
                ended += u64::from(run.unwrap_or(false));
            }
        };
        if tokio::time::timeout(GRACE, all_end).await.is_err() {
            tell_all(runs, Stop::HandBack);
            while let Some(run) = running.join_next().await {
                ended += u64::from(run.unwrap_or(false));
            }
        }
        ended
    }

    /// One run; whether its end was written.
    async fn run_one(self, claim: Claim, stop: oneshot::Receiver<Stop>, runs: Runs) -> bool {
        let started = Instant::now();
        self.note("start", &claim.task, None);
        // a parent goes on where it began before it was due again
        if let Some(waited) = waited(&claim.task).filter(|waited| *waited >= 0.0) {
            telemetry::Summary::TaskWaiting.observe(waited);
        }
        let context =
            TaskContext { claim: claim.clone(), store: self.store.clone(), registry: self.registry.clone() };
        let ending = match self.registry.get(&claim.task.name) {
            Some(entry) => execute(entry, context, stop).await,
            None => Some(Ending::HandedBack),
        };
        let is_waiting = matches!(ending, Some(Ending::Waiting));
        let task = match &ending {
            Some(ending) => self.end(&claim, ending).await,
            None => None,
        };
        lock(&runs).remove(&claim.task.id);
        telemetry::Metric::TasksRunning.set(lock(&runs).len() as u64);
        let seconds = started.elapsed().as_secs_f64();
        match &task {
            Some(task) => {
                self.note(if is_waiting { "wait" } else { "end" }, task, Some(seconds));
                telemetry::task_ended(task.status.name(), seconds);
            }
            None => self.note("lost", &claim.task, Some(seconds)),
        }
        task.is_some()
    }

    /// Writes how a run ended, again and again while the lease lasts and the database does not answer.
    async fn end(&self, claim: &Claim, ending: &Ending) -> Option<Task> {
        let started = Instant::now();
        loop {
            match self.store.end(claim, ending).await {
                Ok(task) => return task,
                Err(TaskStoreError::Store(error))
                    if error.is_retriable() && started.elapsed() < self.lease =>
                {
                    tracing::warn!("the end of task {} cannot be written now: {error}", claim.task.id);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(error) => {
                    tracing::error!("the end of task {} is not written: {error}", claim.task.id);
                    return None;
                }
            }
        }
    }

    fn note(&self, event: &str, task: &Task, seconds: Option<f64>) {
        if let Some(log) = &self.log
            && let Err(error) = log.write(event, task, seconds)
        {
            tracing::error!("{error}");
        }
    }

    /// Renews the leases of this worker's runs, five times in the time of a lease.
    async fn keep_leases(self, runs: Runs) {
        let mut last = Instant::now();
        let limit = self.lease.mul_f64(0.8);
        loop {
            let held: Vec<_> = lock(&runs).iter().map(|(id, (fence, _))| (id.clone(), *fence)).collect();
            let asked = Instant::now();
            let left = limit.saturating_sub(last.elapsed());
            match tokio::time::timeout(left, self.store.beat(&held)).await {
                Ok(Ok(beats)) => {
                    last = asked;
                    for ((id, fence), beat) in held.iter().zip(beats) {
                        match beat {
                            Beat::Held => {}
                            Beat::CancelRequested => tell(&runs, id, *fence, Stop::Cancelled),
                            Beat::Lost => tell(&runs, id, *fence, Stop::Lost),
                        }
                    }
                }
                failed => {
                    if let Ok(Err(error)) = failed {
                        tracing::warn!("leases are not renewed: {error}");
                    }
                    if last.elapsed() >= limit {
                        tell_all(&runs, Stop::Lost);
                        last = Instant::now();
                    }
                }
            }
            tokio::time::sleep(self.lease / 5).await;
        }
    }

    /// Takes over the tasks of workers that are gone, and submits what is scheduled.
    async fn watch_others(self) {
        let mut seen: HashMap<String, (Lease, Instant)> = HashMap::new();
        loop {
            if let Err(error) = self.look_at_leases(&mut seen).await {
                tracing::warn!("the leases of others are not looked at: {error}");
            }
            if self.root.is_none()
                && let Err(error) = self.fire_schedules().await
            {
                tracing::warn!("schedules are not looked at: {error}");
            }
            tokio::time::sleep((self.lease / 10).min(Duration::from_secs(1))).await;
        }
    }

    async fn look_at_leases(
        &self,
        seen: &mut HashMap<String, (Lease, Instant)>,
    ) -> Result<(), TaskStoreError> {
        let leases = self.store.leases().await?;
        let now = Instant::now();
        let before = std::mem::take(seen);
        for lease in leases {
            let since = match before.get(&lease.id) {
                Some((known, since)) if *known == lease => *since,
                Some(_) | None => now,
            };
            if now.duration_since(since) >= lease.time {
                if let Some(task) = self.store.take_over(&lease).await? {
                    tracing::warn!(
                        "task {} is taken from {}",
                        task.id,
                        task.worker.as_deref().unwrap_or("?")
                    );
                    self.note("lost", &task, None);
                    if task.status.is_ended() {
                        telemetry::task_ended(task.status.name(), lease.time.as_secs_f64());
                    }
                }
                continue;
            }
            seen.insert(lease.id.clone(), (lease, since));
        }
        Ok(())
    }

    async fn fire_schedules(&self) -> Result<(), TaskError> {
        for schedule in self.store.due_schedules().await? {
            let next = match next_time(&schedule.cron, chrono::Utc::now()) {
                Ok(next) => next,
                // others are due all the same
                Err(error) => {
                    tracing::warn!("schedule {}: {error}", schedule.id);
                    continue;
                }
            };
            let new = NewTask { parameters: schedule.parameters.clone(), ..NewTask::new(&schedule.name) };
            match self.registry.check(new) {
                Ok(new) => drop(self.store.fire(&schedule, new, &next).await?),
                // a worker that knows more names will do it
                Err(error) => tracing::warn!("schedule {}: {error}", schedule.id),
            }
        }
        Ok(())
    }
}

fn lock(runs: &Runs) -> std::sync::MutexGuard<'_, RunsById> {
    runs.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds from the time that a task was due to its start, by the database's clock.
fn waited(task: &Task) -> Option<f64> {
    let time = |text: &str| chrono::DateTime::parse_from_rfc3339(text).ok();
    let start = task.start_time.as_deref().and_then(time);
    start.zip(time(&task.run_at)).map(|(start, due)| (start - due).num_milliseconds() as f64 / 1000.0)
}

fn tell(runs: &Runs, id: &str, fence: i64, stop: Stop) {
    if let Some((of_run, sender)) = lock(runs).get_mut(id)
        && *of_run == fence
        && let Some(sender) = sender.take()
    {
        // a run that has just ended does not hear it
        let _heard = sender.send(stop);
    }
}

fn tell_all(runs: &Runs, stop: Stop) {
    for (_, sender) in lock(runs).values_mut() {
        let _heard = sender.take().map(|sender| sender.send(stop));
    }
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
