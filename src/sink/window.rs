//! Where aggregates of windows go besides the receiver's own state.
//!
//! Extension point: a new sink is one file here and one line in `cli::serve`.
use async_trait::async_trait;
use thiserror::Error;

use crate::client::ClientError;
use crate::store::StoreError;
use crate::store::windows::outbox::Entry;

mod queue;
mod table;

pub use queue::RedisQueue;
pub use table::{PostgresWindows, SqliteWindows};

/// Takes what happened to aggregates.
///
/// Contract: when [`Self::deliver`] returns, all of `entries` are durable there; what is delivered twice, because the
/// confirmation was lost, is there once. Entries come in order.
///
/// ```
/// use pipeline::model::WindowRow;
/// use pipeline::sink::window::{SqliteWindows, WindowSink};
/// use pipeline::store::SqliteStore;
/// use pipeline::store::windows::outbox::{Entry, Kind};
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("aggregates.db");
/// let row = WindowRow {
///     start_ms: 60_000,
///     end_ms: 120_000,
///     event_type: "click".into(),
///     count: 2,
///     sum_value: 0.5,
///     unique_users: 1,
///     unique_users_error: 0.0,
///     version: 1,
/// };
/// let mut sink = SqliteWindows::new(path.clone());
/// let entry = Entry { seq: 1, kind: Kind::Changed, row: row.clone() };
/// sink.deliver(&[entry.clone()]).await?;
/// sink.deliver(&[entry]).await?;
/// assert_eq!(SqliteStore::try_open(&path).await?.windows_since(0.0).await?, [row]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[async_trait]
pub trait WindowSink: Send {
    /// Its name in the outbox and in messages; no password.
    fn name(&self) -> &str;

    /// Whether it holds a table of the present state, or a list of what happened.
    fn is_table(&self) -> bool;

    /// Makes entries durable, all of them or, after an error, perhaps some.
    async fn deliver(&mut self, entries: &[Entry]) -> Result<(), WindowSinkError>;
}

/// Why a sink did not take entries.
#[derive(Debug, Error)]
pub enum WindowSinkError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Redis cannot be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Redis failed.
    #[error("redis at {address}: cannot {operation}")]
    Redis {
        /// Host and port.
        address: String,
        /// What was tried.
        operation: &'static str,
        /// What it said.
        source: redis::RedisError,
    },
}
