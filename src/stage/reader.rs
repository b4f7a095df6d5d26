//! Source -> transport: decides what is lacking, reads it, ships it.
//!
//! Files are read one after the other, so that memory does not depend on their number; then objects of a store (see
//! `objects`). One input's failure is recorded and the others go on. A shutdown is seen between two chunks.
//! Deliberately absent: waiting for commits (the caller waits on the transport), and retries (a rerun ships what is
//! lacking).
use std::collections::HashSet;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::shutdown::Shutdown;
use crate::client::redacted;
use crate::model::{Ledger, RawChunk};
use crate::source::{
    self, Catalogue, CutOptions, End, FileReader, IdentifiedFile, Input, Object, Shard, SourceError,
};
use crate::telemetry::{Metric, Summary};
use crate::transport::{Producer, TransportError};

mod objects;
mod stream;
mod summary;
mod watch;

use summary::Outcome;
pub use summary::{ReadError, ReadSummary, SourceFailure, SourceRead};

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
    /// Read only this share of the files and parts of objects.
    pub shard: Option<Shard>,
    /// Objects that are larger are read in parts of about this size, and shared by parts.
    pub split_size_bytes: u64,
}

impl Default for ReadOptions {
    fn default() -> Self {
        Self {
            cut: CutOptions::default(),
            flush_interval: Duration::from_secs(1),
            watch: false,
            poll_interval: Duration::from_millis(250),
            source_name: None,
            shard: None,
            // seconds of work, against which a request for a border is nothing
            split_size_bytes: 256 << 20,
        }
    }
}

/// Fails if `paths` stand for nothing that could be read, or cannot be read so.
pub async fn check(paths: &[PathBuf], options: &ReadOptions) -> Result<(), ReadError> {
    expect_followable(paths, options)?;
    let paths = paths.to_vec();
    let source::Listing { inputs, failures } = match options.watch {
        // they may still come
        true => return Ok(()),
        false => blocking(move || source::list_some(&paths, 1)).await,
    };
    if !inputs.is_empty() {
        return Ok(());
    }
    let failures = failures.into_iter().map(|(path, error)| SourceFailure { path, error });
    Err(ReadError::nothing_to_read(failures.collect()))
}

fn expect_followable(paths: &[PathBuf], options: &ReadOptions) -> Result<(), ReadError> {
    let object = paths.iter().find(|path| source::is_object_url(path));
    match (options.watch, options.shard, object) {
        (true, _, Some(path)) => Err(ReadError::Watch(format!(
            "{} cannot be watched, a store tells of new objects only when it is listed; leave out --watch and run again for them",
            redacted(&path.to_string_lossy())
        ))),
        (true, Some(shard), _) => Err(ReadError::Watch(format!(
            "--shard {shard} deals out what there is, and --watch waits for more; give one of them"
        ))),
        _ => Ok(()),
    }
}

/// Ships what `ledger` lacks of the inputs that `paths` stand for.
pub async fn read(
    paths: &[PathBuf],
    options: &ReadOptions,
    ledger: Ledger,
    producer: &dyn Producer,
    shutdown: &Shutdown,
) -> Result<ReadSummary, ReadError> {
    expect_followable(paths, options)?;
    let shipper = Shipper { producer, shutdown };
    // a stream cannot be followed beyond its end
    if options.watch && paths.iter().any(|path| path != Path::new("-")) {
        return watch::watch(paths, options, ledger, shipper).await;
    }
    let catalogue = blocking(move || Catalogue::new(ledger)).await;
    let (mut listed, catalogue) = {
        let paths = paths.to_vec();
        blocking(move || list_and_identify(&paths, catalogue)).await
    };
    let mut summary = ReadSummary { shard: options.shard, ..ReadSummary::default() };
    for failure in listed.failures {
        summary.fail(failure.path, failure.error);
    }
    if listed.inputs.is_empty() && listed.objects.is_empty() {
        return Err(ReadError::nothing_to_read(summary.failures));
    }
    if let Some(shard) = options.shard {
        // after all of them were told from each other
        listed.inputs.retain(|input| match input {
            Identified::File(file) => shard.takes(&file.source.path, 0),
            Identified::Stream(_) => true,
        });
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
    let Once { catalogue, mut summary, .. } = once;
    objects::read(listed.objects, options, &catalogue, shipper, &mut summary).await?;
    Ok(summary)
}

enum Identified {
    File(IdentifiedFile),
    Stream(Input),
}

struct IdentifiedInputs {
    inputs: Vec<Identified>,
    /// Their store says what is needed of each when its turn comes.
    objects: Vec<Object>,
    failures: Vec<SourceFailure>,
}

/// Lists the inputs and says which source each file is; what is met twice is there once. Blocking.
fn list_and_identify(paths: &[PathBuf], mut catalogue: Catalogue) -> (IdentifiedInputs, Catalogue) {
    let source::Listing { inputs, failures } = source::list(paths);
    let mut failures: Vec<_> =
        failures.into_iter().map(|(path, error)| SourceFailure { path, error }).collect();
    let (mut met, mut order, mut facts) = (HashSet::new(), Vec::new(), Vec::new());
    let (mut objects, mut stdin_met) = (Vec::new(), false);
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
            Input::Object(object) => objects.push(object),
            Input::Stdin if std::mem::replace(&mut stdin_met, true) => {}
            stream => order.push(Some(stream)),
        }
    }
    let mut files = catalogue.resolve(facts).into_iter();
    let inputs = order.into_iter().filter_map(|stream| match stream {
        Some(stream) => Some(Identified::Stream(stream)),
        None => files.next().map(Identified::File),
    });
    objects.sort_unstable_by(|one: &Object, other| one.name().cmp(&other.name()));
    objects.dedup_by(|one, other| one.name() == other.name());
    (IdentifiedInputs { inputs: inputs.collect(), objects, failures }, catalogue)
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
        let outcome = match opened.await {
            Ok(reader) => ship_all(reader, self.shipper, &mut read).await?,
            Err(error) => Outcome::Failed(error),
        };
        Ok((read, outcome))
    }
}

/// Ships the chunks of a pass.
async fn ship_all(
    mut reader: FileReader,
    shipper: Shipper<'_>,
    read: &mut SourceRead,
) -> Result<Outcome, TransportError> {
    loop {
        let (back, chunk) = tokio::select! {
            biased;
            // a store may take long to answer
            () = shipper.shutdown.requested() => return Ok(Outcome::Interrupted),
            next = next_chunk(reader) => next,
        };
        reader = back;
        Metric::InputBytesRead.add(reader.take_raw_bytes());
        match chunk {
            Ok(Some(chunk)) if shipper.ship(&chunk, read).await? => {}
            Ok(Some(_)) => return Ok(Outcome::Interrupted),
            Ok(None) => return Ok(Outcome::Complete),
            Err(error) => return Ok(Outcome::Failed(error)),
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
