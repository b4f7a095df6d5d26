//! A SQLite file, owned by one thread: calls come to it through a bounded queue, in order.
//!
//! Invariant: what a call committed is on disk when it returns (`synchronous = FULL`, write-ahead log). Readers of
//! other processes are never in the way; a writer of another process is waited for.
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::{Connection, ErrorCode, TransactionBehavior};
use tokio::sync::{mpsc, oneshot};

use super::{MIGRATIONS, StoreError};

/// Another process' transaction is waited for this long.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries where it has to be asked again.
const BUSY_PAUSE: Duration = Duration::from_millis(10);
/// Calls that wait their turn; more wait for room.
const QUEUE_LEN: usize = 64;

type Call = Box<dyn FnOnce(&mut Connection) + Send>;

/// An open file; clones share its thread, which ends with the last of them.
#[derive(Debug, Clone)]
pub struct SqliteStore {
    path: PathBuf,
    calls: mpsc::Sender<Call>,
}

impl SqliteStore {
    /// Opens or makes the file and its folder, and makes the tables that are missing.
    pub async fn try_open(path: &Path) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)
                .map_err(|source| StoreError::Folder { path: folder.to_owned(), source })?;
        }
        let (calls, mut queue) = mpsc::channel::<Call>(QUEUE_LEN);
        let (opened, is_open) = oneshot::channel();
        let file = path.to_owned();
        std::thread::Builder::new()
            .name("sqlite".to_owned())
            .spawn(move || {
                let mut connection = match open(&file) {
                    Ok(connection) => connection,
                    Err(error) => return drop(opened.send(Err(error))),
                };
                if opened.send(Ok(())).is_err() {
                    return;
                }
                while let Some(call) = queue.blocking_recv() {
                    call(&mut connection);
                }
            })
            .map_err(|source| StoreError::Folder { path: path.to_owned(), source })?;
        let store = Self { path: path.to_owned(), calls };
        match is_open.await {
            Ok(Ok(())) => Ok(store),
            Ok(Err(source)) => Err(store.failed("open it", source)),
            Err(_) => Err(store.failed("open it", gone())),
        }
    }

    /// Runs `work` on the connection's thread; `operation` completes "cannot ..".
    pub async fn call<T: Send + 'static>(
        &self,
        operation: &str,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        // who asked may have gone; the work is done all the same
        let call: Call = Box::new(move |connection| drop(answer.send(work(connection))));
        if self.calls.send(call).await.is_err() {
            return Err(self.failed(operation, gone()));
        }
        answered.await.unwrap_or_else(|_| Err(gone())).map_err(|source| self.failed(operation, source))
    }

    /// Differs from an earlier one when a connection, this one or another, changed the file since.
    pub async fn data_version(&self) -> Option<(i64, i64)> {
        let read = |connection: &mut Connection| {
            let of_others = connection.pragma_query_value(None, "data_version", |row| row.get(0))?;
            let own = connection.query_row("SELECT total_changes()", [], |row| row.get(0))?;
            Ok((of_others, own))
        };
        self.call("see whether it changed", read).await.ok()
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn failed(&self, operation: &str, source: rusqlite::Error) -> StoreError {
        StoreError::Sqlite { path: self.path.clone(), operation: operation.to_owned(), source }
    }
}

/// What a call gets whose thread ended by a panic.
fn gone() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT),
        Some("the thread of the database ended".to_owned()),
    )
}

fn open(path: &Path) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    write_ahead(&connection)?;
    connection.pragma_update(None, "synchronous", "full")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    migrate(&mut connection)?;
    Ok(connection)
}

/// The file's switch to a write-ahead log does not wait for others by itself.
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let started = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "wal") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
                    && started.elapsed() < BUSY_TIMEOUT =>
            {
                std::thread::park_timeout(BUSY_PAUSE);
            }
            done => return done,
        }
    }
}

fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction
        .execute_batch("CREATE TABLE IF NOT EXISTS store_migrations (name TEXT PRIMARY KEY) STRICT")?;
    for migration in MIGRATIONS {
        let added =
            transaction.execute("INSERT OR IGNORE INTO store_migrations VALUES (?)", [migration.name])?;
        if added == 1 {
            transaction.execute_batch(migration.sqlite)?;
        }
    }
    transaction.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_made_with_its_folder_and_keeps_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/state.db");
        let store = SqliteStore::try_open(&path).await.unwrap();
        let write = "CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (7)";
        store.call("write", move |connection| connection.execute_batch(write)).await.unwrap();
        let error = store.call("read", |connection| connection.execute_batch("SELECT nothing")).await;
        assert!(error.unwrap_err().to_string().contains("cannot read"));
        drop(store);
        let store = SqliteStore::try_open(&path).await.unwrap();
        let read = |connection: &mut Connection| {
            connection.query_row("SELECT n FROM t", [], |row| row.get::<_, i64>(0))
        };
        assert_eq!(store.call("read", read).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        std::fs::write(
            &path,
            "not a database, but long enough to be taken for the header of one, as it is here",
        )
        .unwrap();
        let error = SqliteStore::try_open(&path).await.unwrap_err();
        assert!(error.to_string().contains("state.db"), "{error}");
        assert!(!error.is_retriable());
    }
}
