//! What a running task can do besides its work: say something, run steps.
use serde_json::Value as Json;
use tokio::sync::mpsc;

use super::{NewTask, Parameters, Registry, Task, TaskFailure, TaskStatus, TaskStore};
use crate::store::tasks::{Claim, StepOf};

/// Bytes of lines that are kept in one piece.
const PIECE_BYTES: usize = 64 << 10;

/// A task that another one runs.
#[derive(Debug, Clone)]
pub struct Step {
    name: String,
    task: NewTask,
    is_tolerated: bool,
}

impl Step {
    /// `name` is unique within the parent, and the same in each of its attempts: by it a step that completed is
    /// found again.
    #[must_use]
    pub fn new(name: &str, task: NewTask) -> Self {
        Self { name: name.to_owned(), task, is_tolerated: false }
    }

    /// The parent goes on when it fails.
    #[must_use]
    pub fn tolerated(mut self) -> Self {
        self.is_tolerated = true;
        self
    }
}

/// What a running task can do besides its work.
#[derive(Debug, Clone)]
pub struct TaskContext {
    pub(super) claim: Claim,
    pub(super) store: TaskStore,
    pub(super) registry: Registry,
}

impl TaskContext {
    /// The task as it was when this run began.
    #[must_use]
    pub fn task(&self) -> &Task {
        &self.claim.task
    }

    /// Keeps a line with the task. Once this returns it can be read, whatever happens to this process.
    pub async fn log(&self, line: &str) -> Result<(), TaskFailure> {
        let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
        let lines: Vec<_> = line.lines().map(|line| format!("{time} {line}")).collect();
        self.say(&lines.join("\n")).await
    }

    async fn say(&self, text: &str) -> Result<(), TaskFailure> {
        match self.store.say(&self.claim.task.id, self.claim.fence, text).await? {
            true => Ok(()),
            false => Err(TaskFailure::Failed("another worker has the task now".to_owned())),
        }
    }

    /// Keeps lines as they come, those that come together in one piece, until there are no more.
    pub(super) async fn log_all(&self, mut lines: mpsc::Receiver<String>) -> Result<(), TaskFailure> {
        while let Some(line) = lines.recv().await {
            let mut piece = stamped(&line);
            while piece.len() < PIECE_BYTES
                && let Ok(line) = lines.try_recv()
            {
                piece.push('\n');
                piece += &stamped(&line);
            }
            self.say(&piece).await?;
        }
        Ok(())
    }

    /// Runs steps beside each other; their tasks in the same order, all ended. The first failure that is not
    /// tolerated is an error, and cancels the steps that go on.
    ///
    /// Until all have ended the function is left by an error (which `?` hands on) and called again later.
    pub async fn in_parallel(&self, steps: Vec<Step>) -> Result<Vec<Task>, TaskFailure> {
        let known = self.store.children(&self.claim.task.id).await?;
        let mut tasks = Vec::with_capacity(steps.len());
        let mut is_waiting = false;
        for step in steps {
            let step_of = StepOf {
                parent: self.claim.task.id.clone(),
                step: step.name.clone(),
                parent_attempt: self.claim.task.attempt,
                is_tolerated: step.is_tolerated,
            };
            let Some(task) = known.iter().find(|task| task.step.as_deref() == Some(&step.name)) else {
                let new = self.registry.check(step.task).map_err(TaskFailure::permanent)?;
                self.store.submit(&NewTask { id: None, step_of: Some(step_of), ..new }).await?;
                is_waiting = true;
                continue;
            };
            match task.status {
                TaskStatus::Completed => tasks.push(task.clone()),
                TaskStatus::Pending | TaskStatus::Running => is_waiting = true,
                TaskStatus::Failed | TaskStatus::Cancelled => {
                    if task.parent_attempt < Some(self.claim.task.attempt) {
                        self.store.ask_again(&task.id, &step_of).await?;
                        is_waiting = true;
                    } else if step.is_tolerated {
                        tasks.push(task.clone());
                    } else {
                        let error = task.error.as_deref().unwrap_or("it gave no reason");
                        return Err(TaskFailure::Failed(format!(
                            "step {} ({}, task {}) {}: {error}",
                            step.name, task.name, task.id, task.status
                        )));
                    }
                }
            }
        }
        if is_waiting { Err(TaskFailure::Waiting) } else { Ok(tasks) }
    }

    /// Runs steps one after the other, each when the one before has ended; else as [`Self::in_parallel`].
    pub async fn in_turn(&self, steps: Vec<Step>) -> Result<Vec<Task>, TaskFailure> {
        let mut tasks = Vec::with_capacity(steps.len());
        for step in steps {
            tasks.extend(self.in_parallel(vec![step]).await?);
        }
        Ok(tasks)
    }

    /// A task that is called `name` and is given `parameters`.
    #[must_use]
    pub fn new_task(name: &str, parameters: Parameters) -> NewTask {
        NewTask { parameters, ..NewTask::new(name) }
    }

    /// What a step returned.
    #[must_use]
    pub fn result_of(task: &Task) -> Json {
        task.result.clone().unwrap_or_default()
    }
}

fn stamped(line: &str) -> String {
    let time = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true);
    format!("{time} {line}")
}
