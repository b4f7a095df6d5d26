//! Measures the pipeline as its users run it: processes of its own, a schema of its own, the six questions.
//!
//! Invariants: what is measured runs in child processes, so that their CPU and memory are the pipeline's alone; a
//! schema that no bench made is never dropped; every figure says what it was taken from. Deliberately absent:
//! printing (`cli`), and a second implementation of anything that is measured but the old design it is compared to.
use std::error::Error as StdError;
use std::path::PathBuf;

use thiserror::Error;

use crate::client::ClientError;
use crate::generate::GenerateError;
use crate::lake::LakeError;
#[cfg(feature = "query")]
use crate::query::QueryError;

#[cfg(feature = "query")]
mod archive_use;
mod attach;
mod halves;
mod input;
mod old_line;
mod old_style;
mod pipeline_run;
mod postgres_use;
mod process;
mod questions;
mod queue;
mod queue_cost;
#[cfg(feature = "query")]
mod recording;
mod scratch;
mod servers;

#[cfg(feature = "query")]
pub use archive_use::{AnswerUse, ArchiveSize, archive_size, ask_archive};
pub use attach::{AttachLimits, Attached, Ending, attach};
pub use halves::{HalvesRun, HalvesUse};
pub use input::{Input, SEED};
pub use old_style::{OldFigures, OldMeasures, OldStyle, OldTable};
pub use pipeline_run::{PipelineRun, RunFigures, Sample, Via};
pub use postgres_use::{PostgresUse, ask_postgres};
pub use process::{ProcessUse, measure};
pub use questions::{Compared, Question, Timed, compare, questions, summaries, time};
pub use queue::{Queue, QueueDepth};
pub use queue_cost::{Prices, QueueCost, Way, queue_cost};
#[cfg(feature = "query")]
pub use recording::{Measures, Recording};
pub use scratch::{LedgerCounts, Schema, StoredSize};
pub use servers::ServerClocks;

/// Why a benchmark could not be taken.
#[derive(Debug, Error)]
pub enum BenchError {
    /// The schema is somebody's.
    #[error(
        "schema {schema} holds tables that no bench made; name another with --schema, or drop it yourself"
    )]
    NotScratch {
        /// The schema.
        schema: String,
    },
    /// A server refused, or was lost.
    #[error("cannot {operation}; check the server and run the benchmark again")]
    Server {
        /// What was attempted.
        operation: String,
        /// The server's words.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A process that is measured failed.
    #[error("`pipeline {command}`, which was measured, failed with {status}: {said}")]
    Child {
        /// Its first argument.
        command: String,
        /// How it ended.
        status: String,
        /// The last line of its standard error.
        said: String,
    },
    /// A process that is measured ended before its work was done.
    #[error(
        "`pipeline {command}`, which was measured, ended before everything was read; run the benchmark again"
    )]
    Ended {
        /// Its first argument.
        command: &'static str,
    },
    /// The CPU time of something is not known.
    #[error("the CPU time of {of} is unknown; {remedy}")]
    NoClock {
        /// Whose.
        of: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The archive that is measured cannot be read.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// The archive that is measured cannot be asked.
    #[cfg(feature = "query")]
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The operating system refused.
    #[error("cannot {operation}")]
    Io {
        /// What was attempted, on what.
        operation: String,
        /// The cause.
        source: std::io::Error,
    },
    /// There is nothing to measure with.
    #[error("{} holds no line; name files with lines, or leave the paths out for generated ones", path.display())]
    NoLines {
        /// The first of the paths.
        path: PathBuf,
    },
    /// The old design and the new one disagree.
    #[error(
        "question {question}: the old SQL on the old table and the new SQL give different answers; \
         compare them with --keep"
    )]
    Disagree {
        /// Its name.
        question: &'static str,
    },
    /// No lines could be generated.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A server cannot be reached.
    #[error("the benchmark needs a server")]
    Client(#[from] ClientError),
}

impl BenchError {
    fn postgres(operation: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        let operation = operation.into();
        // the server's own words need no "db error" before them
        |error| match error.as_db_error().cloned() {
            Some(error) => BenchError::Server { operation, source: error.into() },
            None => BenchError::Server { operation, source: error.into() },
        }
    }

    fn redis(operation: impl Into<String>) -> impl FnOnce(redis::RedisError) -> Self {
        let operation = operation.into();
        |error| BenchError::Server { operation, source: error.into() }
    }

    fn io(operation: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let operation = operation.into();
        |source| BenchError::Io { operation, source }
    }
}
