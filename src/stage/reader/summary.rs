//! What came of reading: what was shipped of each source, what could not be read, and why reading ended early.
use std::fmt;

use thiserror::Error;
use tracing::info;

use crate::model::Source;
use crate::source::{Shard, SourceError};
use crate::telemetry::Metric;
use crate::transport::TransportError;

/// What was read of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceRead {
    /// Its path, or the name of a stream.
    pub path: String,
    /// Identity in the ledger.
    pub source_id: u64,
    /// (Decompressed) bytes shipped this time.
    pub bytes_shipped: u64,
    /// Chunks shipped this time.
    pub chunks_shipped: u64,
    /// Whether the pass came to the end of what was to be read: of an object, this reader's parts of it. Not so after a
    /// failure or a shutdown.
    pub complete: bool,
}

/// An input that could not be read, or not to its end.
#[derive(Debug)]
pub struct SourceFailure {
    /// The input, as given or found.
    pub path: String,
    /// Why.
    pub error: SourceError,
}

/// The error and its cause, in one line that names the input.
impl fmt::Display for SourceFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.error.in_one_line())
    }
}

/// What was read.
#[derive(Debug, Default)]
pub struct ReadSummary {
    /// Every source looked at, in the order of reading; with nothing shipped if nothing was lacking.
    pub sources: Vec<SourceRead>,
    /// Every input that failed.
    pub failures: Vec<SourceFailure>,
    /// A shutdown came before the end.
    pub interrupted: bool,
    /// The share that was read, if not all was to be.
    pub shard: Option<Shard>,
}

/// Why reading as a whole ended early.
#[derive(Debug, Error)]
pub enum ReadError {
    /// No input can be read.
    #[error("nothing to read: {}", list_failures(.0))]
    NothingToRead(Vec<SourceFailure>),
    /// What cannot be followed was to be.
    #[error("{0}")]
    Watch(String),
    /// Object storage failed as a whole; what was shipped before stays.
    #[error("{0}")]
    Storage(SourceFailure),
    /// The chunks cannot be shipped.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

impl ReadError {
    /// What waiting mends is said first, and decides how a command ends.
    pub(super) fn nothing_to_read(mut failures: Vec<SourceFailure>) -> Self {
        failures.sort_by_key(|failure| !failure.error.is_passing());
        Self::NothingToRead(failures)
    }
}

fn list_failures(failures: &[SourceFailure]) -> String {
    let more = failures.len().saturating_sub(1);
    match (failures.first().map(ToString::to_string), more) {
        (None, _) => "no path given".to_owned(),
        (Some(first), 0) => first,
        (Some(first), more) => format!("{first} (and {more} more)"),
    }
}

/// How a pass over a source ended.
pub(super) enum Outcome {
    /// At its end.
    Complete,
    /// At a shutdown.
    Interrupted,
    /// At an error.
    Failed(SourceError),
}

impl SourceRead {
    pub(super) fn new(source: &Source) -> Self {
        let (path, source_id) = (source.path.clone(), source.id);
        Self { path, source_id, bytes_shipped: 0, chunks_shipped: 0, complete: false }
    }
}

impl ReadSummary {
    /// Whether some input was not read because its store gave no answer, or was busy.
    #[must_use]
    pub fn lacks_storage(&self) -> bool {
        self.failures.iter().any(|failure| failure.error.is_passing())
    }

    pub(super) fn add(&mut self, path: String, read: Option<SourceRead>, outcome: Outcome) {
        let complete = matches!(outcome, Outcome::Complete);
        if let Some(read) = read {
            info!(
                path = read.path,
                bytes = read.bytes_shipped,
                chunks = read.chunks_shipped,
                complete,
                "source read"
            );
            self.sources.push(SourceRead { complete, ..read });
        }
        match outcome {
            Outcome::Complete => {}
            Outcome::Interrupted => self.interrupted = true,
            Outcome::Failed(error) => self.fail(path, error),
        }
    }

    pub(super) fn fail(&mut self, path: String, error: SourceError) {
        let failure = SourceFailure { path, error };
        Metric::SourcesFailed.add(1);
        // the command's error names it again when all is read
        info!("{failure}");
        self.failures.push(failure);
    }
}
