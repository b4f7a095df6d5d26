//! Tasks: one suite for both databases, workers that are killed, steps, and the command.
mod campaign;
mod command;
mod store;
mod worker;

use pipeline::store::{DEFAULT_SCHEMA, DatabaseLocation};
use pipeline::task::{Task, TaskStatus, TaskStore};

use super::servers::{Database, Postgres};

/// A database for tasks of one test.
pub(crate) struct Place {
    pub(crate) url: String,
    /// Dropped with it.
    _postgres: Option<Database>,
    _folder: Option<tempfile::TempDir>,
}

impl Place {
    pub(crate) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("state.db").display());
        Self { url, _postgres: None, _folder: Some(folder) }
    }

    pub(crate) fn postgres() -> Self {
        let database = Postgres::shared().database();
        Self { url: database.url(), _postgres: Some(database), _folder: None }
    }

    /// One of each.
    pub(crate) fn both() -> [Self; 2] {
        [Self::sqlite(), Self::postgres()]
    }

    pub(crate) async fn open(&self) -> TaskStore {
        let location = DatabaseLocation::parse(&self.url).unwrap();
        TaskStore::try_open(&location, DEFAULT_SCHEMA).await.unwrap()
    }
}

/// Waits until a task is this.
pub(crate) async fn until(store: &TaskStore, id: &str, status: TaskStatus) -> Task {
    let look = async {
        loop {
            let mark = store.mark().await;
            let task = store.existing(id).await.unwrap();
            if task.status == status {
                return task;
            }
            assert!(!task.status.is_ended(), "{id} is {}: {:?}", task.status, task.error);
            store.changed_since(&mark, std::time::Duration::from_millis(100)).await;
        }
    };
    let limit = std::time::Duration::from_secs(120);
    tokio::time::timeout(limit, look).await.unwrap_or_else(|_| panic!("{id} does not become {status}"))
}
