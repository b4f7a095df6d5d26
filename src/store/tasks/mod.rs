//! Rows of tasks: what is to be done, what is being done and by whom, what came of it.
//!
//! One set of statements for both databases. Who claimed a row holds a lease: a counter that goes up while the
//! worker lives. Who sees the same counter for the time of the lease, by a clock of its own that cannot be set,
//! may take the row; `fence` then goes up, and every write of the old owner, which names its fence, changes
//! nothing. So neither a set clock nor a stopped process makes a task run twice and both count. Deliberately
//! absent: what a task does.
mod leases;
mod rows;
mod schedules;
mod status;

use std::time::Duration;

use serde_json::{Map, Value as Json};
use thiserror::Error;

pub use self::leases::{Beat, Claim, Ending, Lease};
pub use self::rows::{Cancelled, Filter, TaskLine};
pub use self::schedules::Schedule;
pub use self::status::TaskStatus;
use super::{Database, DatabaseLocation, StoreError};

/// Named values of a task.
pub type Parameters = Map<String, Json>;

/// Why rows of tasks cannot be read or changed.
#[derive(Debug, Error)]
pub enum TaskStoreError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another task has the id.
    #[error("a task with the id {0} is there already; choose another id, or none")]
    IdTaken(String),
    /// No task has the id.
    #[error("there is no task with the id {0}; `pipeline task list` shows those there are")]
    NotFound(String),
    /// The task's status does not allow it.
    #[error("task {id} is {status}; {remedy}")]
    WrongStatus {
        /// The task.
        id: String,
        /// What it is.
        status: TaskStatus,
        /// What would have to be.
        remedy: &'static str,
    },
}

impl TaskStoreError {
    /// Whether the same may succeed later.
    pub fn is_retriable(&self) -> bool {
        matches!(self, Self::Store(error) if error.is_retriable())
    }
}

/// A row, as it was when it was read. Times are ISO 8601 texts in UTC.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Task {
    /// Unique.
    pub id: String,
    /// What it runs.
    pub name: String,
    /// Where it stands.
    pub status: TaskStatus,
    /// What it returned.
    pub result: Option<Json>,
    /// When its last attempt began; nothing while one is yet to begin.
    pub start_time: Option<String>,
    /// When it ended for good.
    pub end_time: Option<String>,
    /// What it was given.
    pub parameters: Parameters,
    /// Why its last attempt failed, with causes.
    pub error: Option<String>,
    /// Attempts begun, from 1.
    pub attempt: i64,
    /// It is failed after so many.
    pub max_attempts: i64,
    /// Attempts before it was retried by hand; they do not count.
    pub attempts_before: i64,
    /// Pause after the first failed attempt; it doubles.
    pub backoff_ms: i64,
    /// An attempt may take this long.
    pub timeout_ms: Option<i64>,
    /// Not before this time.
    pub run_at: String,
    /// When it was submitted.
    pub created_at: String,
    /// Who runs it, or did last.
    pub worker: Option<String>,
    /// When that one was last heard of.
    pub heartbeat: Option<String>,
    /// The task that runs it as a step.
    pub parent: Option<String>,
    /// The name of the step.
    pub step: Option<String>,
    /// The parent's attempt that asked for it last.
    pub parent_attempt: Option<i64>,
    /// Whether only its children run now.
    pub is_waiting: bool,
    /// At most one unended task has it.
    pub unique_key: Option<String>,
    /// The schedule that submitted it.
    pub schedule: Option<String>,
}

/// A step of a parent: which, for which attempt of it, and what its failure means.
#[derive(Debug, Clone)]
pub struct StepOf {
    /// The parent's id.
    pub parent: String,
    /// Unique within the parent.
    pub step: String,
    /// The parent's attempt.
    pub parent_attempt: i64,
    /// Whether the parent goes on when it fails.
    pub is_tolerated: bool,
}

/// A task to be submitted.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// A new one is made unless given.
    pub id: Option<String>,
    /// What to run.
    pub name: String,
    /// What it is given.
    pub parameters: Parameters,
    /// Attempts before it is failed.
    pub max_attempts: u32,
    /// Pause after the first failed attempt.
    pub backoff: Duration,
    /// How long an attempt may take.
    pub timeout: Option<Duration>,
    /// How much later than now.
    pub delay: Duration,
    /// While a task with this key is not ended, that one stands for this.
    pub unique_key: Option<String>,
    /// The schedule that submits it.
    pub schedule: Option<String>,
    /// Of a step.
    pub step_of: Option<StepOf>,
}

impl NewTask {
    /// Now, three attempts, a second of pause, no time limit.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            id: None,
            name: name.to_owned(),
            parameters: Parameters::new(),
            max_attempts: 3,
            backoff: Duration::from_secs(1),
            timeout: None,
            delay: Duration::ZERO,
            unique_key: None,
            schedule: None,
            step_of: None,
        }
    }

    /// The same with this id.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// The same with this parameter.
    #[must_use]
    pub fn with_parameter(mut self, name: &str, value: impl Into<Json>) -> Self {
        self.parameters.insert(name.to_owned(), value.into());
        self
    }
}

/// Tasks in a database; cheap to clone.
#[derive(Debug, Clone)]
pub struct TaskStore {
    database: Database,
}

impl TaskStore {
    /// Of an open database.
    #[must_use]
    pub fn new(database: Database) -> Self {
        Self { database }
    }

    /// Opens the database too. `schema` is for Postgres.
    pub async fn try_open(location: &DatabaseLocation, schema: &str) -> Result<Self, StoreError> {
        Ok(Self::new(Database::try_open(location, schema).await?))
    }

    /// A point in time, for [`Self::changed_since`].
    pub async fn mark(&self) -> Mark {
        match &self.database {
            Database::Postgres(_) => Mark(None),
            Database::Sqlite(store) => Mark(store.data_version().await),
        }
    }

    /// Resolves when rows may have changed since, or after `at_most`.
    pub async fn changed_since(&self, mark: &Mark, at_most: Duration) {
        let changed = async {
            match &self.database {
                // a notification that came before is kept for who waits next
                Database::Postgres(store) => store.notified().notified().await,
                Database::Sqlite(store) => {
                    while store.data_version().await == mark.0 {
                        tokio::time::sleep(SQLITE_LOOK).await;
                    }
                }
            }
        };
        // the timer ends the wait, and that is all it is for
        let _timed_out = tokio::time::timeout(at_most, changed).await;
    }
}

/// The state of a database at some time.
#[derive(Debug, Clone)]
pub struct Mark(Option<(i64, i64)>);

/// SQLite tells nobody that a file changed, but has a counter for it that costs microseconds.
const SQLITE_LOOK: Duration = Duration::from_millis(4);
