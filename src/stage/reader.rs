//! Source -> transport: decides what is lacking, reads it, ships it.
//!
//! Files are read one after the other, so that memory does not depend on their number. One input's failure is
//! recorded and the others go on. A shutdown is seen between two chunks. Deliberately absent: waiting for
//! commits (the caller waits on the transport), and retries (a rerun ships what is lacking).
use std::collections::HashSet;
use std::fmt;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tracing::info;

use super::shutdown::Shutdown;
use crate::model::{Ledger, RawChunk};
use crate::source::{self, Catalogue, CutOptions, End, FileReader, IdentifiedFile, Input, SourceError};
use crate::telemetry::{Metric, Summary};
use crate::transport::{Producer, TransportError};

mod stream;
mod watch;

/// How to read.
#[derive(Debug, Clone)]
pub struct ReadOptions {
    /// Sizes at which to cut.
    pub cut: CutOptions,
    /// What has arrived is cut when a slow source has paused for this long.
    pub flush_interval: Duration,
    /// Go on when everything is read: new files, appended bytes, rotation, truncation.
    pub watch: bool,
    /// How often to look for those. Looking works on every file system, network ones too.
    pub poll_interval: Duration,
    /// Identity of standard input, which makes it resumable.
    pub source_name: Option<String>,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            cut: CutOptions::default(),
            flush_interval: Duration::from_secs(1),
            watch: false,
            poll_interval: Duration::from_millis(250),
            source_name: None,
        }
    }
}

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
    /// Whether the pass came to the end. Not so after a failure or a shutdown.
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
        match std::error::Error::source(&self.error) {
            None => write!(out, "{}", self.error),
            Some(cause) => write!(out, "{}: {cause}", self.error),
        }
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
}

/// Why reading as a whole ended early.
#[derive(Debug, Error)]
pub enum ReadError {
    /// No input can be read.
    #[error("nothing to read: {}", list_failures(.0))]
    NothingToRead(Vec<SourceFailure>),
    /// The chunks cannot be shipped.
    #[error(transparent)]
    Transport(#[from] TransportError),
}

fn list_failures(failures: &[SourceFailure]) -> String {
    let more = failures.len().saturating_sub(1);
    match (failures.first().map(ToString::to_string), more) {
        (None, _) => "no path given".to_owned(),
        (Some(first), 0) => first,
        (Some(first), more) => format!("{first} (and {more} more)"),
    }
}

/// Fails if `paths` stand for nothing that could be read.
pub fn check(paths: &[PathBuf]) -> Result<(), ReadError> {
    let source::Listing { inputs, failures } = source::list(paths);
    if !inputs.is_empty() {
        return Ok(());
    }
    let failures = failures.into_iter().map(|(path, error)| SourceFailure { path, error });
    Err(ReadError::NothingToRead(failures.collect()))
}

/// Ships what `ledger` lacks of the inputs that `paths` stand for.
pub async fn read(
    paths: &[PathBuf],
    options: &ReadOptions,
    ledger: Ledger,
    producer: &dyn Producer,
    shutdown: &Shutdown,
) -> Result<ReadSummary, ReadError> {
    let shipper = Shipper { producer, shutdown };
    // a stream cannot be followed beyond its end
    if options.watch && paths.iter().any(|path| path != Path::new("-")) {
        return watch::watch(paths, options, ledger, shipper).await;
    }
    let catalogue = blocking(move || Catalogue::new(ledger)).await;
    let (listed, catalogue) = {
        let paths = paths.to_vec();
        blocking(move || list_and_identify(&paths, catalogue)).await
    };
    let mut summary = ReadSummary::default();
    for failure in listed.failures {
        summary.fail(failure.path, failure.error);
    }
    if listed.inputs.is_empty() {
        return Err(ReadError::NothingToRead(summary.failures));
    }
    let unread = listed.inputs.iter().map(|input| match input {
        Identified::File(file) => file.unread_bytes(),
        Identified::Stream(_) => 0,
    });
    Metric::InputBytesTotal.add(unread.sum());
    let mut once = Once { options, catalogue, shipper, summary };
    for input in listed.inputs {
        if shutdown.is_requested() {
            once.summary.interrupted = true;
            break;
        }
        match input {
            Identified::File(file) => once.read_file(file).await?,
            Identified::Stream(input) => {
                let read = stream::read(&input, options, &mut once.catalogue, shipper).await?;
                once.summary.add(read.path, read.read, read.outcome);
            }
        }
    }
    Ok(once.summary)
}

enum Identified {
    File(IdentifiedFile),
    Stream(Input),
}

struct IdentifiedInputs {
    inputs: Vec<Identified>,
    failures: Vec<SourceFailure>,
}

/// Lists the inputs and says which source each file is; a file met twice is there once. Blocking.
fn list_and_identify(paths: &[PathBuf], mut catalogue: Catalogue) -> (IdentifiedInputs, Catalogue) {
    let source::Listing { inputs, failures } = source::list(paths);
    let mut failures: Vec<_> =
        failures.into_iter().map(|(path, error)| SourceFailure { path, error }).collect();
    let (mut met, mut order, mut facts) = (HashSet::new(), Vec::new(), Vec::new());
    let mut stdin_met = false;
    for input in inputs {
        match input {
            Input::File(_, stat) if !met.insert(stat.place) => {}
            Input::File(path, _) => {
                match source::open(&path).and_then(|file| catalogue.inspect(&path, &file)) {
                    Ok(file) => {
                        facts.push(file);
                        order.push(None);
                    }
                    Err(error) => failures.push(SourceFailure { path: path.display().to_string(), error }),
                }
            }
            Input::Stdin if std::mem::replace(&mut stdin_met, true) => {}
            stream => order.push(Some(stream)),
        }
    }
    let mut files = catalogue.resolve(facts).into_iter();
    let inputs = order.into_iter().filter_map(|stream| match stream {
        Some(stream) => Some(Identified::Stream(stream)),
        None => files.next().map(Identified::File),
    });
    (IdentifiedInputs { inputs: inputs.collect(), failures }, catalogue)
}

/// Runs what blocks off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(failed) => match failed.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // the runtime is going away, and this task with it
            Err(_cancelled) => std::future::pending().await,
        },
    }
}

/// How a pass over a source ended.
enum Outcome {
    /// At its end.
    Complete,
    /// At a shutdown.
    Interrupted,
    /// At an error.
    Failed(SourceError),
}

#[derive(Clone, Copy)]
struct Shipper<'a> {
    producer: &'a dyn Producer,
    shutdown: &'a Shutdown,
}

impl Shipper<'_> {
    /// Ships a chunk and counts it; `false` if a shutdown came first.
    async fn ship(self, chunk: &RawChunk, read: &mut SourceRead) -> Result<bool, TransportError> {
        tokio::select! {
            biased;
            () = self.shutdown.requested() => Ok(false),
            shipped = self.ship_even_at_shutdown(chunk, read) => shipped.map(|()| true),
        }
    }

    /// Ships a chunk and counts it.
    async fn ship_even_at_shutdown(
        self,
        chunk: &RawChunk,
        read: &mut SourceRead,
    ) -> Result<(), TransportError> {
        self.producer.send(chunk.clone()).await?;
        let len_bytes = chunk.bytes.len() as u64;
        Metric::ChunksShipped.add(1);
        Metric::ChunkBytesShipped.add(len_bytes);
        Summary::ChunkBytes.observe(len_bytes as f64);
        read.chunks_shipped += 1;
        read.bytes_shipped += len_bytes;
        Ok(())
    }
}

impl SourceRead {
    fn new(source: &crate::model::Source) -> Self {
        let (path, source_id) = (source.path.clone(), source.id);
        Self { path, source_id, bytes_shipped: 0, chunks_shipped: 0, complete: false }
    }
}

impl ReadSummary {
    fn add(&mut self, path: String, read: Option<SourceRead>, outcome: Outcome) {
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

    fn fail(&mut self, path: String, error: SourceError) {
        let failure = SourceFailure { path, error };
        Metric::SourcesFailed.add(1);
        // the command's error names it again when all is read
        info!("{failure}");
        self.failures.push(failure);
    }
}

/// Reads each file to the end it had when it was identified, once.
struct Once<'a> {
    options: &'a ReadOptions,
    catalogue: Catalogue,
    shipper: Shipper<'a>,
    summary: ReadSummary,
}

impl Once<'_> {
    async fn read_file(&mut self, file: IdentifiedFile) -> Result<(), TransportError> {
        let path = file.source.path.clone();
        match self.pass(&file).await? {
            (read, Outcome::Failed(SourceError::Shrunk { .. })) => {
                // what was read stays; the file's present content is another source
                self.summary.sources.push(read);
                match self.identify_as_new(file.path).await {
                    Ok(file) => {
                        Metric::InputBytesTotal.add(file.unread_bytes());
                        let (read, outcome) = self.pass(&file).await?;
                        self.summary.add(path, Some(read), outcome);
                    }
                    Err(error) => self.summary.fail(path, error),
                }
            }
            (read, outcome) => self.summary.add(path, Some(read), outcome),
        }
        Ok(())
    }

    async fn identify_as_new(&mut self, path: PathBuf) -> Result<IdentifiedFile, SourceError> {
        let mut catalogue = std::mem::take(&mut self.catalogue);
        let (catalogue, identified) = blocking(move || {
            let facts = source::open(&path).and_then(|file| catalogue.inspect(&path, &file));
            let identified = facts.map(|facts| catalogue.resolve(vec![facts.as_new_content()]).remove(0));
            (catalogue, identified)
        })
        .await;
        self.catalogue = catalogue;
        identified
    }

    async fn pass(&self, file: &IdentifiedFile) -> Result<(SourceRead, Outcome), TransportError> {
        let mut read = SourceRead::new(&file.source);
        if file.unread_bytes() == 0 {
            return Ok((read, Outcome::Complete));
        }
        let (file, cut) = (file.clone(), self.options.cut);
        let opened = blocking(move || FileReader::try_new(source::open(&file.path)?, &file, cut, End::Open));
        let mut reader = match opened.await {
            Ok(reader) => reader,
            Err(error) => return Ok((read, Outcome::Failed(error))),
        };
        loop {
            let (back, chunk) = next_chunk(reader).await;
            reader = back;
            Metric::InputBytesRead.add(reader.take_raw_bytes());
            let outcome = match chunk {
                Ok(Some(chunk)) if self.shipper.ship(&chunk, &mut read).await? => continue,
                Ok(Some(_)) => Outcome::Interrupted,
                Ok(None) => Outcome::Complete,
                Err(error) => Outcome::Failed(error),
            };
            return Ok((read, outcome));
        }
    }
}

/// Reads on, off the async threads.
async fn next_chunk(mut reader: FileReader) -> (FileReader, Result<Option<RawChunk>, SourceError>) {
    blocking(move || {
        let chunk = reader.next_chunk();
        (reader, chunk)
    })
    .await
}

#[cfg(test)]
mod tests;
