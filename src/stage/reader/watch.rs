//! Follows files: new ones, appended bytes, rotation, truncation, deletion. Looks at them again and again.
//!
//! Every look lists the inputs; a file that changed is identified against the catalogue, which holds what the
//! ledger holds and what was shipped since, and read from where that ends. So nothing about a file is kept
//! between two looks but its handle, and following is the same as running again. A handle stays open so that
//! a file that is renamed out of the inputs, or deleted, is read to its end. An unterminated line waits for
//! its newline, unless its file is gone. Deliberately absent: inotify, which sees no network file systems.
use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::{Instant, sleep};
use tracing::warn;

use super::{Outcome, ReadError, ReadOptions, ReadSummary, Shipper, SourceFailure, SourceRead};
use super::{blocking, next_chunk, stream};
use crate::model::Ledger;
use crate::source::{
    self, Catalogue, CutOptions, Encoding, End, FileReader, IdentifiedFile, Input, Listing, Place,
    SourceError, Stat,
};
use crate::telemetry::Metric;
use crate::transport::TransportError;

/// A file with more to read than this waits for the others to have their turn.
const CHUNKS_PER_TURN: usize = 16;
/// So many looks without a new byte, and a file that is no longer among the inputs is closed.
const LOOKS_BEFORE_CLOSING: u32 = 20;
/// Handles kept open; the files that are silent for longest are closed first.
const MAX_OPEN_FILES: usize = 256;

/// Follows the inputs until a shutdown; streams among them are read beside the files.
pub(super) async fn watch(
    paths: &[PathBuf],
    options: &ReadOptions,
    ledger: Ledger,
    shipper: Shipper<'_>,
) -> Result<ReadSummary, ReadError> {
    let first = list(paths).await;
    let mut stream_catalogue = Catalogue::new(ledger.clone());
    let streams = async {
        let mut summary = ReadSummary::default();
        for input in first.inputs.iter().filter(|input| !matches!(input, Input::File(..))) {
            let read = stream::read(input, options, &mut stream_catalogue, shipper).await?;
            summary.add(read.path, read.read, read.outcome);
        }
        Ok(summary)
    };
    let watch = Watch {
        paths,
        options,
        catalogue: Catalogue::new(ledger),
        shipper,
        seen: HashMap::new(),
        followed: HashMap::new(),
        decompressing: None,
        replaced: HashSet::new(),
        look: 0,
        reads: BTreeMap::new(),
        failing: BTreeMap::new(),
    };
    let (mut summary, of_streams) = futures_util::future::try_join(watch.run(), streams).await?;
    summary.sources.extend(of_streams.sources);
    summary.failures.extend(of_streams.failures);
    Ok(summary)
}

async fn list(paths: &[PathBuf]) -> Listing {
    let paths = paths.to_vec();
    blocking(move || source::list(&paths)).await
}

struct Watch<'a> {
    paths: &'a [PathBuf],
    options: &'a ReadOptions,
    catalogue: Catalogue,
    shipper: Shipper<'a>,
    /// What each path was when all of it had been read.
    seen: HashMap<PathBuf, Stat>,
    followed: HashMap<Place, Followed>,
    /// The compressed file being read: a pass over it cannot be taken up again, so it is kept. One at a time.
    decompressing: Option<(IdentifiedFile, FileReader)>,
    /// Compressed files that turned out to hold less than before.
    replaced: HashSet<Place>,
    look: u64,
    reads: BTreeMap<u64, SourceRead>,
    /// Inputs that cannot be read at present.
    failing: BTreeMap<String, SourceError>,
}

/// An open file.
struct Followed {
    path: PathBuf,
    file: Arc<File>,
    source_id: u64,
    /// When bytes were first seen that are too few for a chunk.
    waiting_since: Option<Instant>,
    /// The last look that found something to read.
    last_active: u64,
    silent_looks: u32,
}

/// How a turn ended.
enum Turn {
    /// With chunks left to read.
    More,
    Ended(Outcome),
}

impl Watch<'_> {
    async fn run(mut self) -> Result<ReadSummary, ReadError> {
        while !self.shipper.shutdown.is_requested() {
            self.look += 1;
            let more = self.look_once().await?;
            if !more {
                tokio::select! {
                    () = self.shipper.shutdown.requested() => {}
                    () = sleep(self.options.poll_interval) => {}
                }
            }
        }
        let failing = self.failing.into_iter().filter(|(_, error)| !is_empty_yet(error));
        let failures = failing.map(|(path, error)| SourceFailure { path, error }).collect();
        let sources = self.reads.into_values().collect();
        Ok(ReadSummary { sources, failures, interrupted: true, shard: None })
    }

    /// Looks at every input once; says whether there is more to read at once.
    async fn look_once(&mut self) -> Result<bool, TransportError> {
        let Listing { inputs, failures } = list(self.paths).await;
        let listed_failures: HashSet<_> = failures.iter().map(|(path, _)| path.clone()).collect();
        for (path, error) in failures {
            self.note_failure(path, error);
        }
        let mut present = HashSet::new();
        let files: Vec<_> = inputs
            .into_iter()
            .filter_map(|input| match input {
                Input::File(path, stat) => present.insert(stat.place).then_some((path, stat)),
                Input::Stdin | Input::Pipe(_) | Input::Object(_) => None,
            })
            .collect();
        let paths: HashSet<_> = files.iter().map(|(path, _)| path).collect();
        self.seen.retain(|path, _| paths.contains(path));
        self.failing.retain(|path, _| listed_failures.contains(path) || paths.contains(&PathBuf::from(path)));

        // files that are gone come first: what took their path is identified knowing all that they held
        let mut more = self.read_gone(&present).await?;
        let changed: Vec<_> = files.into_iter().filter(|(path, stat)| self.is_due(path, stat)).collect();
        for file in self.identify(changed).await {
            more |= self.read_changed(file).await?;
        }
        more |= self.decompress().await?;
        self.close_silent(&present);
        Ok(more)
    }

    /// Whether a file is to be read now.
    fn is_due(&mut self, path: &Path, stat: &Stat) -> bool {
        if self.seen.get(path) == Some(stat)
            || self.decompressing.as_ref().is_some_and(|(file, _)| file.path == path)
        {
            return false;
        }
        let Some(followed) = self.followed.get_mut(&stat.place) else { return true };
        let new_bytes = stat.size_bytes.checked_sub(self.catalogue.end_byte(followed.source_id));
        match new_bytes {
            Some(1..) if new_bytes < Some(self.options.cut.chunk_size_bytes as u64) => {
                let since = *followed.waiting_since.get_or_insert_with(Instant::now);
                since.elapsed() >= self.options.flush_interval
            }
            _ => true,
        }
    }

    async fn identify(&mut self, changed: Vec<(PathBuf, Stat)>) -> Vec<IdentifiedFile> {
        if changed.is_empty() {
            return Vec::new();
        }
        let (mut catalogue, replaced) =
            (std::mem::take(&mut self.catalogue), std::mem::take(&mut self.replaced));
        let (catalogue, identified, failures) = blocking(move || {
            let (mut facts, mut failures) = (Vec::new(), Vec::new());
            for (path, stat) in changed {
                let found = source::open(&path).and_then(|file| catalogue.inspect(&path, &file));
                match found
                    .map(|found| if replaced.contains(&stat.place) { found.as_new_content() } else { found })
                {
                    Ok(found) => facts.push(found),
                    // gone since it was listed: the next look knows
                    Err(SourceError::Missing { .. }) => {}
                    Err(error) => failures.push((path, stat, error)),
                }
            }
            let identified = catalogue.resolve(facts);
            (catalogue, identified, failures)
        })
        .await;
        self.catalogue = catalogue;
        for (path, stat, error) in failures {
            self.note_failure(path.display().to_string(), error);
            // tried again when it changes
            self.seen.insert(path, stat);
        }
        identified
    }

    async fn read_changed(&mut self, file: IdentifiedFile) -> Result<bool, TransportError> {
        if file.encoding != Encoding::Plain && self.decompressing.is_some() {
            return Ok(true);
        }
        let open_already = self.followed.get(&file.stat.place).map(|followed| Arc::clone(&followed.file));
        let (cut, to_open) = (self.options.cut, file.clone());
        let opened = blocking(move || {
            let handle = open_already.map_or_else(|| source::open(&to_open.path), Ok)?;
            let reader = FileReader::try_new(Arc::clone(&handle), &to_open, cut, End::Pause)?;
            Ok((handle, reader))
        });
        let (handle, reader) = match opened.await {
            Ok(opened) => opened,
            Err(SourceError::Missing { .. } | SourceError::Replaced { .. }) => return Ok(true),
            Err(error) => {
                self.end_pass(&file, Outcome::Failed(error));
                return Ok(false);
            }
        };
        if file.encoding != Encoding::Plain {
            self.decompressing = Some((file, reader));
            return Ok(true);
        }
        let followed = Followed {
            path: file.path.clone(),
            file: handle,
            source_id: file.source.id,
            waiting_since: None,
            last_active: self.look,
            silent_looks: 0,
        };
        self.followed.insert(file.stat.place, followed);
        match self.turn(&file, reader).await? {
            (_, Turn::More) => Ok(true),
            (_, Turn::Ended(outcome)) => Ok(self.end_pass(&file, outcome)),
        }
    }

    /// Gives the compressed file its turn.
    async fn decompress(&mut self) -> Result<bool, TransportError> {
        let Some((file, reader)) = self.decompressing.take() else { return Ok(false) };
        match self.turn(&file, reader).await? {
            (reader, Turn::More) => {
                self.decompressing = Some((file, reader));
                Ok(true)
            }
            (_, Turn::Ended(outcome)) => Ok(self.end_pass(&file, outcome)),
        }
    }

    /// Reads on files that are no longer among the inputs, by their handles.
    async fn read_gone(&mut self, present: &HashSet<Place>) -> Result<bool, TransportError> {
        let gone: Vec<_> = self.followed.keys().copied().filter(|place| !present.contains(place)).collect();
        let mut more = false;
        for place in gone {
            let followed = &self.followed[&place];
            let (path, handle) = (followed.path.clone(), Arc::clone(&followed.file));
            let closing = followed.silent_looks >= LOOKS_BEFORE_CLOSING;
            let (mut catalogue, cut) = (std::mem::take(&mut self.catalogue), self.options.cut);
            let tail = if closing { End::Open } else { End::Pause };
            let (catalogue, opened) = blocking(move || {
                let opened = read_by_handle(&mut catalogue, &path, handle, cut, tail);
                (catalogue, opened)
            })
            .await;
            self.catalogue = catalogue;
            let (mut shipped, mut ended) = (false, true);
            match opened {
                Ok(None) => {}
                Ok(Some((file, reader))) => {
                    let before = self.catalogue.end_byte(file.source.id);
                    let (_, turn) = self.turn(&file, reader).await?;
                    shipped = self.catalogue.end_byte(file.source.id) > before;
                    ended = matches!(turn, Turn::Ended(_));
                }
                Err(error) => self.note_failure(self.followed[&place].path.display().to_string(), error),
            }
            more |= !ended;
            if closing && ended {
                self.followed.remove(&place);
            } else if let Some(followed) = self.followed.get_mut(&place) {
                followed.silent_looks = if shipped { 0 } else { followed.silent_looks + 1 };
            }
        }
        Ok(more)
    }

    /// Ships some chunks of a file.
    async fn turn(
        &mut self,
        file: &IdentifiedFile,
        mut reader: FileReader,
    ) -> Result<(FileReader, Turn), TransportError> {
        let read = self.reads.entry(file.source.id).or_insert_with(|| SourceRead::new(&file.source));
        read.path.clone_from(&file.source.path);
        read.complete = false;
        for _ in 0..CHUNKS_PER_TURN {
            let (back, chunk) = next_chunk(reader).await;
            reader = back;
            let raw_bytes = reader.take_raw_bytes();
            Metric::InputBytesTotal.add(raw_bytes);
            Metric::InputBytesRead.add(raw_bytes);
            let outcome = match chunk {
                Ok(Some(chunk)) => match self.shipper.ship(&chunk, read).await? {
                    true => {
                        self.catalogue.record_shipped(&chunk);
                        continue;
                    }
                    false => Outcome::Interrupted,
                },
                Ok(None) => Outcome::Complete,
                Err(error) => Outcome::Failed(error),
            };
            read.complete = matches!(outcome, Outcome::Complete);
            return Ok((reader, Turn::Ended(outcome)));
        }
        Ok((reader, Turn::More))
    }

    /// Notes how a pass ended; says whether another one is due at once.
    fn end_pass(&mut self, file: &IdentifiedFile, outcome: Outcome) -> bool {
        match outcome {
            Outcome::Interrupted => return false,
            Outcome::Failed(SourceError::Shrunk { .. }) => {
                if file.encoding != Encoding::Plain {
                    self.replaced.insert(file.stat.place);
                }
                return true;
            }
            Outcome::Failed(error) => self.note_failure(file.source.path.clone(), error),
            Outcome::Complete => {
                self.failing.remove(&file.source.path);
            }
        }
        self.seen.insert(file.path.clone(), file.stat);
        false
    }

    fn note_failure(&mut self, path: String, error: SourceError) {
        if self.failing.get(&path).map(ToString::to_string) == Some(error.to_string()) {
            return;
        }
        let failure = SourceFailure { path, error };
        warn!("{failure}");
        if !is_empty_yet(&failure.error) {
            Metric::SourcesFailed.add(1);
        }
        self.failing.insert(failure.path, failure.error);
    }

    fn close_silent(&mut self, present: &HashSet<Place>) {
        let excess = self.followed.len().saturating_sub(MAX_OPEN_FILES);
        if excess > 0 {
            let open = self.followed.iter().filter(|(place, _)| present.contains(*place));
            let mut silent: Vec<_> = open.map(|(place, followed)| (followed.last_active, *place)).collect();
            silent.sort_unstable();
            for (_, place) in silent.into_iter().take(excess) {
                self.followed.remove(&place);
            }
        }
    }
}

/// Whether the input is worth a warning, but no failure: its first file may be still to come.
fn is_empty_yet(error: &SourceError) -> bool {
    matches!(error, SourceError::EmptyFolder { .. } | SourceError::NoMatch { .. })
}

/// Starts a pass over a file that has no name among the inputs, if it has unread bytes. Blocking.
fn read_by_handle(
    catalogue: &mut Catalogue,
    path: &Path,
    handle: Arc<File>,
    cut: CutOptions,
    tail: End,
) -> Result<Option<(IdentifiedFile, FileReader)>, SourceError> {
    let facts = catalogue.inspect(path, &handle)?;
    let (file, is_deleted) = (catalogue.resolve(vec![facts]).remove(0), source::is_deleted(path, &handle)?);
    if is_deleted {
        catalogue.release(file.source.id);
    }
    if file.unread_bytes() == 0 {
        return Ok(None);
    }
    FileReader::try_new(handle, &file, cut, tail).map(|reader| Some((file, reader)))
}
