//! SQL over archives, Postgres and raw logs: the only place that names DataFusion's session.
//!
//! Invariants: nothing but reading; files and row groups that cannot hold a matching row are not read; results
//! stream, and what a query must hold (sorts, groups) is bounded and spills to the temporary folder; a line that lies
//! in several places is read once (see `places`).
//! Deliberately absent: tables over paths or URLs named in the SQL. Only registered tables can be read.
mod counted;
mod date_trunc;
mod exact_time;
mod ip;
mod json;
mod logs;
mod output;
mod places;
mod postgres;
mod precount;
mod raw;
mod render;
mod report;
mod scan;
mod session;
mod table;
#[cfg(test)]
mod tests;
mod union;

use thiserror::Error;

use crate::archive::ArchiveError;
use crate::client::ClientError;
use crate::source::SourceError;

pub use counted::CountedStore;
pub use logs::LogsBranch;
pub use output::{OutputFormat, ResultPrinter};
pub use places::Places;
pub use render::TypeVersions;
pub use report::{Counter, Explained, Scan};
pub use session::{Query, Session};

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
    /// A result cannot be put in the form asked for.
    #[error("{0}")]
    Output(String),
}

impl From<datafusion::error::DataFusionError> for QueryError {
    fn from(error: datafusion::error::DataFusionError) -> Self {
        Self::Sql(one_line(&error))
    }
}

/// DataFusion's text in this project's form: one line, lowercase, without its internal prefixes.
fn one_line(error: &datafusion::error::DataFusionError) -> String {
    use datafusion::error::DataFusionError;

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
