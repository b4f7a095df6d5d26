//! Why state cannot be read or written.
use std::path::PathBuf;

use thiserror::Error;

use crate::client::{self, ClientError};

/// Why state cannot be read or written.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The location names neither SQLite nor Postgres.
    #[error("{0} is no database for state; write sqlite://PATH or postgres://user@host:port/database")]
    Location(String),
    /// Postgres cannot be reached or refuses the connection.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// SQLite failed.
    #[error("{}: cannot {operation}; check that the file is a SQLite database, writable, on a disk with room", path.display())]
    Sqlite {
        /// The file.
        path: PathBuf,
        /// What was tried.
        operation: String,
        /// What SQLite said.
        source: rusqlite::Error,
    },
    /// The file's folder cannot be made.
    #[error("{}: the folder for state cannot be made", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Postgres failed.
    #[error("postgres at {address}: cannot {operation}")]
    Postgres {
        /// Host, port and database.
        address: String,
        /// What was tried.
        operation: String,
        /// What the server or the connection said.
        source: tokio_postgres::Error,
    },
    /// Another program's table has the name of one of ours.
    #[error("{place}: table {table} is not ours; name another schema or database")]
    NotOurs {
        /// The database.
        place: String,
        /// The table.
        table: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later without anybody changing a setting.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Client(error) => error.is_retriable(),
            Self::Postgres { source, .. } => client::postgres::is_retriable(source),
            Self::Sqlite { source, .. } => matches!(
                source.sqlite_error_code(),
                Some(
                    rusqlite::ErrorCode::DatabaseBusy
                        | rusqlite::ErrorCode::DatabaseLocked
                        | rusqlite::ErrorCode::DiskFull
                        | rusqlite::ErrorCode::SystemIoFailure
                )
            ),
            Self::Location(_) | Self::Folder { .. } | Self::NotOurs { .. } => false,
        }
    }
}
