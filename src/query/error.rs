//! Why a query failed, in one line: what DataFusion says, without what its layers put around it, and places that
//! were lost while they were read, which are told from mistakes in the SQL.
use std::error::Error;
use std::io;

use datafusion::error::DataFusionError;
use thiserror::Error;

use crate::archive::ArchiveError;
use crate::client::{ClientError, StorageFault, with_causes};
use crate::lake::LakeError;
use crate::source::SourceError;
use crate::warehouse::WarehouseError;

use super::cluster::WorkerFailure;

/// Why a query was refused or failed. One line; names the thing and, where there is one, the remedy.
#[derive(Debug, Error)]
pub enum QueryError {
    /// The text holds no statement.
    #[error("no SQL in the query; give a SELECT")]
    Empty,
    /// The statement would do something other than read.
    #[error("refused: {statement}; only queries, EXPLAIN, DESCRIBE and SHOW TABLES are run")]
    NotReading {
        /// The statement, cut to one short line.
        statement: String,
    },
    /// The statement cannot be parsed, planned or run.
    #[error("{0}")]
    Sql(String),
    /// An archive or a database that is to be read cannot be.
    #[error(transparent)]
    Place(#[from] ArchiveError),
    /// A location cannot be opened.
    #[error(transparent)]
    Location(#[from] ClientError),
    /// Raw input cannot be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A place stopped answering while it was read.
    #[error("{0}")]
    Lost(String),
    /// A worker was lost, or refuses.
    #[error(transparent)]
    Worker(#[from] WorkerFailure),
    /// There is nobody to run the statement.
    #[error("no worker of the cluster answers: {0}; start them with `pipeline query-worker`")]
    NoWorker(String),
    /// A cluster or a worker that cannot be as it was asked for.
    #[error("{0}")]
    Cluster(String),
    /// Places hold lines of a chunk in ways that cannot be told apart.
    #[error(
        "{place} has a part of the chunk at byte {first_byte} of {file}, and other places some of its lines, cut so that \
         they cannot be told apart; query {place} and the others that hold its parts without the rest"
    )]
    Torn {
        /// The place.
        place: String,
        /// The source.
        file: String,
        /// Offset of the chunk's first byte.
        first_byte: u64,
    },
    /// Lines of raw input may be in a place in part.
    #[error(
        "{place} has parts of chunks whose {tables} went to places that are not read, or are only being committed there, and raw: \
         files hold all of their lines; read those places too, one --from each, or leave raw: away"
    )]
    PartBesideRaw {
        /// The place.
        place: String,
        /// What went elsewhere.
        tables: String,
    },
    /// A result cannot be put in the form asked for.
    #[error("{0}")]
    Output(String),
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        if let Some(failure) = WorkerFailure::of(&error) {
            return Self::Worker(failure);
        }
        match lost(&error) {
            Some(lost) => Self::Lost(lost),
            None => Self::Sql(one_line(&error)),
        }
    }
}

/// A place that stopped answering, as the scans of it say so.
#[derive(Debug, Error)]
#[error("{0}")]
pub(super) struct Lost(String);

impl Lost {
    /// What a scan of Postgres at `address` ends with.
    pub(super) fn or_postgres(address: &str, error: WarehouseError) -> DataFusionError {
        match error.is_retriable() {
            true => external(Self(format!("{address}: {error}; check the server, and run again"))),
            false => external(error),
        }
    }

    /// What reading `location` from a store ends with.
    pub(super) fn or_storage(location: &str, error: object_store::Error) -> object_store::Error {
        match StorageFault::of(&error) {
            Some(fault) if fault.is_passing() => {
                let lost = Self(with_causes(&LakeError::storage("read", location)(error)));
                object_store::Error::Generic { store: "query", source: Box::new(lost) }
            }
            _ => error,
        }
    }
}

/// As DataFusion passes it on.
pub(super) fn external(error: impl Error + Send + Sync + 'static) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

fn lost(error: &DataFusionError) -> Option<String> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(Lost(said)) = this.downcast_ref() {
            return Some(said.clone());
        }
        if let Some(raw) = this.downcast_ref::<SourceError>()
            && raw.is_passing()
        {
            return Some(raw.in_one_line());
        }
        // its own source is that of what it holds
        let held = this.downcast_ref().and_then(io::Error::get_ref);
        cause = held.map_or_else(|| this.source(), |held| Some(held));
    }
    None
}

/// DataFusion's text in this project's form: one line, lowercase, without its internal prefixes.
fn one_line(error: &DataFusionError) -> String {
    let root = error.find_root();
    let text = match root {
        DataFusionError::Collection(errors) => return errors.first().map(one_line).unwrap_or_default(),
        DataFusionError::ResourcesExhausted(_) => {
            "the query needs more memory than it may use; narrow its time range or group by fewer columns"
                .to_owned()
        }
        DataFusionError::SQL(error, _) => error.to_string(),
        _ => root.strip_backtrace(),
    };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").replace("pipeline.archive.", "");
    let mut text = text.trim_end_matches('.');
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| text.strip_prefix(prefix)) {
        text = rest;
    }
    let mut letters = text.chars();
    match letters.next() {
        // A word in capitals stays; only a sentence's first letter is lowered.
        Some(first) if !letters.as_str().starts_with(char::is_uppercase) => {
            first.to_lowercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

/// What the layers below put before a message, one before the other.
const PREFIXES: [&str; 8] = [
    "Error during planning: ",
    "Execution error: ",
    "External error: ",
    "External: ",
    "Schema error: ",
    "Arrow error: ",
    "Parquet error: ",
    "Object Store error: ",
];
