//! Named jobs: submitted as rows of a database, run by workers, asked for by id.
//!
//! A [`Registry`] maps names to functions; a [`Worker`] claims rows and runs them. A function that runs steps
//! ([`TaskContext::in_parallel`], [`TaskContext::in_turn`]) is ended while they run and called again afterwards, when
//! steps that ended are answered from their rows: a parent that waits takes no slot, no memory, and outlives its
//! worker. Deliberately absent: cron and queues outside of the database.
mod built_in;
mod child;
mod context;
mod execution;
mod jobs;
mod registry;
mod schedule;
mod spec;
mod sql;
mod task_log;
mod worker;

use thiserror::Error;

pub use self::built_in::registry as built_in;
pub use self::context::{Step, TaskContext};
pub use self::registry::{Registry, TaskFailure};
pub use self::schedule::next_time;
pub use self::spec::{Kind, Parameter, TaskSpec};
pub use self::task_log::{DEFAULT_TASK_LOG, TaskLog};
pub use self::worker::{DEFAULT_LEASE, Worker, WorkerSummary};
pub use crate::store::tasks::{NewTask, Parameters, Task, TaskStatus, TaskStore, TaskStoreError};

/// Why a task cannot be submitted or run.
#[derive(Debug, Error)]
pub enum TaskError {
    /// Rows cannot be read or changed.
    #[error(transparent)]
    Store(#[from] TaskStoreError),
    /// No function has the name.
    #[error("there is no task named {name}{}; `pipeline task list` shows those there are", near_text(.near))]
    Unknown {
        /// What was asked for.
        name: String,
        /// Names that look like it.
        near: Vec<String>,
    },
    /// The task does not take these parameters.
    #[error("task {name}: {reason}")]
    Parameters {
        /// The task.
        name: String,
        /// What is wrong, and what would be right.
        reason: String,
    },
    /// A cron expression that is none.
    #[error(
        "{text:?} is no cron expression: {reason}; write minute hour day month weekday, as in \"0 3 * * *\""
    )]
    Cron {
        /// What was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A file that defines a task.
    #[error("{path}: {reason}")]
    Definition {
        /// The file.
        path: String,
        /// What is wrong with it, and the remedy.
        reason: String,
    },
    /// The task log cannot be written.
    #[error("{path}: the task log cannot be written; check the folder's permissions and the disk's room")]
    Log {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

fn near_text(names: &[String]) -> String {
    match names {
        [] => String::new(),
        names => format!(" (near: {})", names.join(", ")),
    }
}

impl Task {
    /// Submits a task and runs it in this process to its end; any worker that knows its steps may help.
    ///
    /// ```
    /// # use pipeline::task::{NewTask, Registry, Task, TaskFailure, TaskStatus, TaskStore};
    /// # use pipeline::store::{DatabaseLocation, DEFAULT_SCHEMA};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// #[derive(serde::Deserialize)]
    /// struct Greeting {
    ///     name: String,
    /// }
    /// let registry = Registry::new().with("greet", |context, greeting: Greeting| async move {
    ///     context.log(&format!("greeting {}", greeting.name)).await?;
    ///     Ok::<_, TaskFailure>(format!("hello {}", greeting.name))
    /// });
    /// let folder = tempfile::tempdir()?;
    /// let place = DatabaseLocation::Sqlite(folder.path().join("state.db"));
    /// let store = TaskStore::try_open(&place, DEFAULT_SCHEMA).await?;
    ///
    /// let new = NewTask::new("greet").with_id("first").with_parameter("name", "Ada");
    /// let task = Task::run(&store, &registry, new.clone()).await?;
    /// assert_eq!(task.status, TaskStatus::Completed);
    /// assert_eq!(task.result, Some("hello Ada".into()));
    ///
    /// // an id is used once
    /// assert!(Task::run(&store, &registry, new).await.unwrap_err().to_string().contains("first is there already"));
    /// # Ok(())
    /// # }
    /// ```
    pub async fn run(store: &TaskStore, registry: &Registry, new: NewTask) -> Result<Self, TaskError> {
        let id = Self::submit(store, registry, new).await?;
        let worker = Worker::new(store.clone(), registry.clone()).with_root(&id);
        worker.run(&crate::stage::shutdown::Shutdown::new()).await?;
        Ok(store.existing(&id).await?)
    }

    /// Checks a task against the registry and adds it for any worker to run; its id.
    pub async fn submit(store: &TaskStore, registry: &Registry, new: NewTask) -> Result<String, TaskError> {
        let new = registry.check(new)?;
        Ok(store.submit(&new).await?)
    }

    /// A task of any status.
    ///
    /// ```
    /// # use pipeline::task::{NewTask, Registry, Task, TaskFailure, TaskStatus, TaskStore};
    /// # use pipeline::store::{DatabaseLocation, DEFAULT_SCHEMA};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = tempfile::tempdir()?;
    /// # let place = DatabaseLocation::Sqlite(folder.path().join("state.db"));
    /// # let store = TaskStore::try_open(&place, DEFAULT_SCHEMA).await?;
    /// # let registry = pipeline::task::built_in(None)?;
    /// Task::submit(&store, &registry, NewTask::new("ping").with_id("p1")).await?;
    /// let task = Task::by_id(&store, "p1").await?.expect("it was submitted");
    /// assert_eq!((task.name.as_str(), task.status), ("ping", TaskStatus::Pending));
    /// assert!(Task::by_id(&store, "p2").await?.is_none());
    /// # Ok(())
    /// # }
    /// ```
    pub async fn by_id(store: &TaskStore, id: &str) -> Result<Option<Self>, TaskError> {
        Ok(store.by_id(id).await?)
    }
}
