//! Why the warehouse could not be read or written, in words that name the thing and the remedy.
use thiserror::Error;
use tokio_postgres::error::SqlState;

use crate::client::ClientError;
use crate::client::postgres::is_retriable;

/// Why the warehouse could not be read or written. The message names the place and the remedy.
#[derive(Debug, Error)]
pub enum WarehouseError {
    /// The schema holds a table or view of this name that was not made here; it is never touched.
    #[error(
        "schema {schema} already has a {relation} that is not pipeline's; name another schema with --schema"
    )]
    NotOurs {
        /// The schema.
        schema: String,
        /// The table or view.
        relation: String,
    },
    /// A table cannot take the rows of a log type.
    #[error("table {table}: {reason}")]
    Incompatible {
        /// The table.
        table: String,
        /// Which column and how, and the remedy.
        reason: String,
    },
    /// The server cannot be reached, or refuses.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Rows do not have the columns that their log type declares.
    #[error("rows cannot be written to or read from postgres: {0}")]
    Rows(String),
    /// The server takes commands and does not end them.
    #[error("postgres takes connections and does not answer; check the server's load and locks")]
    Hangs,
    /// The server, or what the database holds, is not what this program can work with.
    #[error("{0}")]
    Unsupported(String),
    /// Postgres refused an operation, or the connection broke.
    #[error("{operation}: {reason}")]
    Database {
        /// What was attempted, on what.
        operation: String,
        /// What Postgres said, and the remedy where there is one.
        reason: String,
        /// The cause; `reason` holds its text, so it is not in the chain.
        cause: tokio_postgres::Error,
    },
}

impl WarehouseError {
    /// Wraps what Postgres said about an operation.
    pub(super) fn of(operation: impl ToString) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let operation = operation.to_string();
        move |cause| {
            let said = match cause.as_db_error() {
                Some(error) => error.message().lines().next().unwrap_or_default().to_owned(),
                None => cause.to_string(),
            };
            let reason = match remedy(&cause) {
                Some(remedy) => format!("{said}; {remedy}"),
                None => said,
            };
            Self::Database { operation, reason, cause }
        }
    }

    pub(super) fn group(cause: impl std::fmt::Display) -> Self {
        Self::Rows(cause.to_string())
    }

    /// Whether Postgres refuses the rows themselves: a value, a constraint, a trigger, a limit of its pages.
    pub(super) fn is_of_rows(&self) -> bool {
        let Self::Database { cause, .. } = self else { return false };
        cause.code().is_some_and(|code| ["22", "23", "54", "P0"].contains(&&code.code()[..2]))
    }

    /// Whether a table that was there is not there any more.
    pub(super) fn is_stale(&self) -> bool {
        let Self::Database { cause, .. } = self else { return false };
        cause.code() == Some(&SqlState::UNDEFINED_TABLE)
    }

    /// Postgres' own words, without the operation.
    pub(super) fn words(&self) -> String {
        match self {
            Self::Database { reason, .. } => reason.clone(),
            other => other.to_string(),
        }
    }

    /// Whether the same may succeed later: the connection broke, the server restarts or is full, or another
    /// transaction was in the way.
    pub fn is_retriable(&self) -> bool {
        let cause = match self {
            Self::Database { cause, .. } => cause,
            Self::Client(cause) => return cause.is_retriable(),
            Self::Hangs => return true,
            _ => return false,
        };
        match cause.code() {
            // a row came to the default leaf when its day had just been attached; a CHECK has a name
            Some(&SqlState::CHECK_VIOLATION) => {
                cause.as_db_error().is_some_and(|error| error.constraint().is_none())
            }
            _ => is_retriable(cause),
        }
    }

    /// Whether something else in the schema has the name of what was to be made.
    pub(super) fn is_name_taken(&self) -> bool {
        let Self::Database { cause, .. } = self else { return false };
        cause.code() == Some(&SqlState::DUPLICATE_TABLE)
    }

    /// Whether it is that another session holds a lock.
    pub(super) fn is_locked(&self) -> bool {
        let Self::Database { cause, .. } = self else { return false };
        let locked = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
        cause.code().is_some_and(|code| locked.contains(code))
    }
}

fn remedy(cause: &tokio_postgres::Error) -> Option<&'static str> {
    Some(match cause.code()?.code() {
        "42P07" => "rename or drop it, which is another table's or not pipeline's",
        "42501" => "ask the schema's owner to grant it, or name a schema of this user's with --schema",
        "53100" => "free disk space on the server",
        "53300" => {
            "raise max_connections, or put a pooler in front that keeps prepared statements (PgBouncer 1.21 or later with max_prepared_statements)"
        }
        "55P03" => "another session holds a lock on it: wait until it ends, or end it (pg_locks has its pid)",
        "25006" => "the server is read-only: name the primary, not a standby",
        _ => return None,
    })
}
