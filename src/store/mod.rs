//! The program's own state: what is neither an archive nor a warehouse. In SQLite, or in Postgres.
//!
//! [`Database`] opens either and brings its tables to what this program needs; each kind of state is a file of its
//! own with a trait that both implement, held to one suite of tests. Invariant: what a call returned is on disk.
//! Deliberately absent: rows of logs, and a second writer's view of SQLite: one thread owns its connection.
mod error;
mod fetches;
mod postgres;
mod sqlite;
mod statement;
pub mod tasks;
pub mod windows;

use std::fmt;
use std::path::PathBuf;

pub use self::error::StoreError;
pub use self::fetches::{FetchRecord, Fetches};
pub use self::postgres::PostgresStore;
pub use self::sqlite::SqliteStore;
pub use self::statement::{Row, Statement, Value};
use crate::client::{PgConfig, is_postgres};

/// Where state is unless `--database` says otherwise.
pub const DEFAULT_DATABASE: &str = "sqlite://./pipeline-data/state.db";

/// The schema of state in Postgres unless told otherwise.
pub const DEFAULT_SCHEMA: &str = "public";

/// Tables of one kind of state, made once, in both dialects. What is released stays as it is; a change is one more.
#[derive(Debug)]
struct Migration {
    name: &'static str,
    sqlite: &'static str,
    postgres: &'static str,
}

/// All of them, in the order they are run.
const MIGRATIONS: &[Migration] = &[
    Migration {
        name: "0001_tasks",
        sqlite: include_str!("../../sql/store/0001_tasks.sqlite.sql"),
        postgres: include_str!("../../sql/store/0001_tasks.postgres.sql"),
    },
    Migration {
        name: "0001_fetches",
        sqlite: include_str!("../../sql/store/0001_fetches.sqlite.sql"),
        postgres: include_str!("../../sql/store/0001_fetches.postgres.sql"),
    },
    Migration {
        name: "0001_windows",
        sqlite: include_str!("../../sql/store/0001_windows.sqlite.sql"),
        postgres: include_str!("../../sql/store/0001_windows.postgres.sql"),
    },
];

/// A place for state, not yet opened. `Display` shows no password.
#[derive(Debug, Clone)]
pub enum DatabaseLocation {
    /// A file.
    Sqlite(PathBuf),
    /// A schema of a Postgres database.
    Postgres(Box<PgConfig>),
}

impl DatabaseLocation {
    /// Understands `sqlite://PATH` (or a bare path) and `postgres://..`. Errors are of the configuration.
    pub fn parse(url: &str) -> Result<Self, StoreError> {
        if is_postgres(url) {
            return Ok(Self::Postgres(Box::new(PgConfig::parse(url)?)));
        }
        let path = url.strip_prefix("sqlite://").or_else(|| url.strip_prefix("sqlite:")).unwrap_or(url);
        if path.is_empty() || path.contains("://") {
            return Err(StoreError::Location(crate::client::redacted(url)));
        }
        Ok(Self::Sqlite(path.into()))
    }
}

impl fmt::Display for DatabaseLocation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(out, "sqlite://{}", path.display()),
            Self::Postgres(config) => config.fmt(out),
        }
    }
}

/// An open database; cheap to clone, clones share the connection.
#[derive(Debug, Clone)]
pub enum Database {
    /// A file.
    Sqlite(SqliteStore),
    /// A schema of a Postgres database.
    Postgres(PostgresStore),
}

impl Database {
    /// Opens the place and makes the tables that are missing; a file's folder too. A Postgres that starts at the
    /// same time is waited for. `schema` is for Postgres only.
    pub async fn try_open(location: &DatabaseLocation, schema: &str) -> Result<Self, StoreError> {
        Ok(match location {
            DatabaseLocation::Sqlite(path) => Self::Sqlite(SqliteStore::try_open(path).await?),
            DatabaseLocation::Postgres(config) => {
                Self::Postgres(PostgresStore::try_open((**config).clone(), schema).await?)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_a_file_or_a_postgres() {
        let shown = |url| DatabaseLocation::parse(url).map(|location| location.to_string());
        assert_eq!(shown("state.db").unwrap(), "sqlite://state.db");
        assert_eq!(shown("sqlite:///var/lib/state.db").unwrap(), "sqlite:///var/lib/state.db");
        assert_eq!(shown("postgres://me:secret@host/db").unwrap(), "postgres://me:***@host/db");
        for bad in ["", "sqlite://", "mysql://host/db"] {
            assert!(shown(bad).unwrap_err().to_string().contains("write sqlite://PATH"), "{bad}");
        }
    }
}
