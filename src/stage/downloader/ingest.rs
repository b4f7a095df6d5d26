//! `ingest`: files through the log pipeline into sinks, each line exactly once however often a file comes.
//!
//! One task owns the sinks and the catalogue of what they hold. Files that wait are taken together, so that small ones
//! share a commit. A file goes by its item's URL, not by where it lies in a cache; what of it is committed is not
//! committed again, and content that changed under a URL is a new generation of it.
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::builtin::blocking;
use super::stages::{FetchedFile, Processor, StageError};
use crate::ledger::{Share, Split};
use crate::model::{ByteRange, ChunkRecord, CommitReceipt, DecodedBatch, Ledger};
use crate::sink::{self, Sink, SinkError};
use crate::source::{Catalogue, CutOptions, End, FileReader};
use crate::stage::processor::{self, DecoderPool, ProcessError, ProcessSummary};
use crate::transport::{MemoryProducer, Producer, memory};

/// Chunks between reader and processor hold at most this many bytes.
const QUEUE_BYTES: usize = 16 << 20;
/// Files that wait; a worker gives one at a time.
const REQUESTS: usize = 64;
/// Other writers may be first with some of the bytes so often.
const TRIES: usize = 5;

/// How to cut files.
#[derive(Debug, Clone, Copy, Default)]
pub struct IngestOptions {
    /// Sizes at which to cut.
    pub cut: CutOptions,
}

/// Hands files to the task that owns the sinks; cheap to clone.
#[derive(Debug, Clone)]
pub struct Ingest {
    requests: mpsc::Sender<Request>,
}

#[derive(Debug)]
enum Request {
    Files { files: Vec<NamedFile>, answer: oneshot::Sender<Result<Counts, String>> },
    Finish(oneshot::Sender<Result<ProcessSummary, String>>),
}

/// A file, and the name that its content goes by.
#[derive(Debug, Clone)]
struct NamedFile {
    path: PathBuf,
    name: String,
}

/// What was committed of one item's files.
#[derive(Debug, Clone, Default)]
struct Counts {
    lines: u64,
    rejects: u64,
    blanks: u64,
    rows: BTreeMap<String, u64>,
}

impl Counts {
    fn add(&mut self, record: &ChunkRecord) {
        self.lines += record.num_lines;
        self.rejects += record.num_rejects;
        self.blanks += record.num_blanks;
        for (log_type, of_type) in &record.types {
            *self.rows.entry(log_type.clone()).or_default() += of_type.rows;
        }
    }
}

impl Ingest {
    /// Starts the task in the current runtime.
    #[must_use]
    pub fn start(sinks: Vec<Box<dyn Sink>>, decoders: DecoderPool, options: IngestOptions) -> Self {
        let (requests, queue) = mpsc::channel(REQUESTS);
        let written = Written::default();
        let mut sinks = sinks;
        if !sinks.is_empty() {
            let inner = sinks.remove(0);
            sinks.insert(0, Box::new(Counted { inner, written: Arc::clone(&written) }));
        }
        let keeper = Keeper {
            sinks,
            decoders,
            options,
            catalogue: None,
            written,
            committed: ProcessSummary::default(),
        };
        tokio::spawn(keeper.run(queue));
        Self { requests }
    }

    /// Does what makes reading fast and may come after the last commit; returns what was committed in all.
    pub async fn finish(&self) -> Result<ProcessSummary, StageError> {
        let (answer, answered) = oneshot::channel();
        self.ask(Request::Finish(answer), answered).await
    }

    async fn ask<T>(
        &self,
        request: Request,
        answered: oneshot::Receiver<Result<T, String>>,
    ) -> Result<T, StageError> {
        let ended = || StageError::new("the ingest task ended; see the log, and run again");
        self.requests.send(request).await.map_err(|_| ended())?;
        answered.await.map_err(|_| ended())?.map_err(StageError::new)
    }
}

#[async_trait]
impl Processor for Ingest {
    async fn process(&mut self, file: &mut FetchedFile) -> Result<Value, StageError> {
        let source = file.item.source_name();
        let is_itself = file.files.len() == 1;
        let named = |path: &PathBuf| {
            let member = path.file_name().unwrap_or_default().to_string_lossy();
            let name = if is_itself { source.clone() } else { format!("{source}/{member}") };
            NamedFile { path: path.clone(), name }
        };
        let files = file.files.iter().map(named).collect();
        let (answer, answered) = oneshot::channel();
        let Counts { lines, rejects, blanks, rows } =
            self.ask(Request::Files { files, answer }, answered).await?;
        Ok(json!({ "lines": lines, "rows": rows, "rejects": rejects, "blanks": blanks }))
    }
}

/// Items of one round: their files, and who waits.
type Waiting = (Vec<NamedFile>, oneshot::Sender<Result<Counts, String>>);

struct Keeper {
    sinks: Vec<Box<dyn Sink>>,
    decoders: DecoderPool,
    options: IngestOptions,
    /// `None` where it has to be read from the sinks.
    catalogue: Option<Catalogue>,
    written: Written,
    committed: ProcessSummary,
}

impl Keeper {
    async fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut next = queue.recv().await;
        while let Some(request) = next.take() {
            let mut waiting: Vec<Waiting> = Vec::new();
            let mut request = Some(request);
            let mut finish = None;
            // all that wait now
            while let Some(one) = request {
                match one {
                    Request::Files { files, answer } => waiting.push((files, answer)),
                    Request::Finish(answer) => finish = Some(answer),
                }
                request = queue.try_recv().ok();
            }
            if !waiting.is_empty() {
                self.round(waiting).await;
            }
            if let Some(answer) = finish {
                let finished = self.finish().await;
                // who asked may be gone
                let _unheard = answer.send(finished.map_err(|error| words(&error)));
            }
            next = queue.recv().await;
        }
    }

    async fn finish(&mut self) -> Result<ProcessSummary, SinkError> {
        for sink in &mut self.sinks {
            sink.finish().await?;
        }
        Ok(self.committed.clone())
    }

    /// Commits all files of these items; says to each how that went.
    async fn round(&mut self, waiting: Vec<Waiting>) {
        let (items, answers): (Vec<_>, Vec<_>) = waiting.into_iter().unzip();
        let shipped = self.ship(&items).await;
        let written = std::mem::take(&mut *self.written.lock().unwrap_or_else(PoisonError::into_inner));
        match shipped {
            Ok(read) => {
                for (answer, read) in answers.into_iter().zip(read) {
                    let counted = read.map(|sources| {
                        let mut counts = Counts::default();
                        let of_item = written.iter().filter(|(range, _)| sources.contains(&range.source_id));
                        of_item.for_each(|(_, record)| counts.add(record));
                        counts
                    });
                    let _unheard = answer.send(counted);
                }
            }
            Err(error) => {
                // what is committed is only known by the ledger now
                self.catalogue = None;
                for answer in answers {
                    let _unheard = answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// Reads, decodes and commits; for each item the sources that it was, or why it could not be read.
    async fn ship(&mut self, items: &[Vec<NamedFile>]) -> Result<Vec<Result<Vec<u64>, String>>, String> {
        for _ in 0..TRIES {
            let catalogue = match self.catalogue.take() {
                Some(catalogue) => catalogue,
                None => {
                    let ledger: Ledger =
                        sink::ledger(&mut self.sinks).await.map_err(|error| words(&error))?;
                    blocking(move || Ok(Catalogue::new(ledger))).await.map_err(|error| error.to_string())?
                }
            };
            let (producer, mut consumer) = memory(QUEUE_BYTES);
            let cut = self.options.cut;
            let reading = async {
                let read = read_all(items, catalogue, cut, &producer).await;
                (read, producer.finish().await)
            };
            let processing = async {
                let processed = processor::process(
                    &mut consumer,
                    &self.decoders,
                    &mut self.sinks,
                    processor::IDLE,
                    None,
                    &mut self.committed,
                )
                .await;
                // a reader that waits for room in the queue is to learn that nobody takes from it
                drop(consumer);
                processed
            };
            match tokio::join!(reading, processing) {
                (_, Err(ProcessError::Overlap)) => {
                    tracing::info!("another writer committed some of the same bytes first; reading again");
                }
                (_, Err(error)) => return Err(words(&error)),
                ((read, finished), Ok(())) => {
                    finished.map_err(|error| words(&error))?;
                    let (read, catalogue) = read?;
                    self.catalogue = Some(catalogue);
                    return Ok(read);
                }
            }
        }
        Err("other writers commit the same bytes at the same time; run again when they are done".to_owned())
    }
}

type Read = (Vec<Result<Vec<u64>, String>>, Catalogue);

async fn read_all(
    items: &[Vec<NamedFile>],
    mut catalogue: Catalogue,
    cut: CutOptions,
    producer: &MemoryProducer,
) -> Result<Read, String> {
    let mut read = Vec::with_capacity(items.len());
    for files in items {
        let mut sources = Vec::new();
        let mut outcome = Ok(());
        for file in files {
            let (back, of_file) = read_file(file.clone(), catalogue, cut, producer, &mut sources).await?;
            catalogue = back;
            // the other files of the item are read all the same
            outcome = outcome.and(of_file);
        }
        read.push(outcome.map(|()| sources));
    }
    Ok((read, catalogue))
}

async fn read_file(
    file: NamedFile,
    mut catalogue: Catalogue,
    cut: CutOptions,
    producer: &MemoryProducer,
    sources: &mut Vec<u64>,
) -> Result<(Catalogue, Result<(), String>), String> {
    let opened = blocking(move || {
        let mut open = || {
            let handle: Arc<File> = crate::source::open(&file.path)?;
            let identified = catalogue.resolve_named(&file.name, &file.path, &handle)?;
            let id = identified.source.id;
            Ok((id, FileReader::try_new(handle, &identified, cut, End::Open)?))
        };
        let opened: Result<_, crate::source::SourceError> = open();
        Ok((catalogue, opened.map_err(|error| words(&error))))
    });
    let (back, opened) = opened.await.map_err(|error| error.to_string())?;
    catalogue = back;
    let (id, mut reader) = match opened {
        Ok(opened) => opened,
        Err(error) => return Ok((catalogue, Err(error))),
    };
    sources.push(id);
    loop {
        let next = blocking(move || {
            let chunk = reader.next_chunk();
            Ok((reader, chunk))
        });
        let (back, chunk) = next.await.map_err(|error| error.to_string())?;
        reader = back;
        match chunk {
            Ok(Some(chunk)) => {
                producer.send(chunk.clone()).await.map_err(|error| words(&error))?;
                catalogue.record_shipped(&chunk);
            }
            Ok(None) => return Ok((catalogue, Ok(()))),
            Err(error) => return Ok((catalogue, Err(words(&error)))),
        }
    }
}

fn words(error: &dyn std::error::Error) -> String {
    StageError::from(error).to_string()
}

/// Records of what was written in this round, by their bytes: a chunk that is written again counts once.
type Written = Arc<Mutex<HashMap<ByteRange, ChunkRecord>>>;

/// A sink that remembers what it was given.
struct Counted {
    inner: Box<dyn Sink>,
    written: Written,
}

#[async_trait]
impl Sink for Counted {
    fn name(&self) -> &str {
        self.inner.name()
    }

    async fn ledger(&mut self) -> Result<Ledger, SinkError> {
        self.inner.ledger().await
    }

    async fn lacking(&mut self, range: &ByteRange) -> Result<Vec<(u64, u64)>, SinkError> {
        self.inner.lacking(range).await
    }

    fn splits(&self) -> &BTreeSet<Split> {
        self.inner.splits()
    }

    async fn entries(&mut self, range: &ByteRange) -> Result<Vec<ChunkRecord>, SinkError> {
        self.inner.entries(range).await
    }

    fn share(&self) -> Option<&Share> {
        self.inner.share()
    }

    async fn write(&mut self, batch: DecodedBatch) -> Result<CommitReceipt, SinkError> {
        let record = batch.record.clone();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(record.range, record);
        self.inner.write(batch).await
    }

    async fn flush(&mut self) -> Result<CommitReceipt, SinkError> {
        self.inner.flush().await
    }

    async fn receipt(&mut self) -> Result<CommitReceipt, SinkError> {
        self.inner.receipt().await
    }

    async fn finish(&mut self) -> Result<(), SinkError> {
        self.inner.finish().await
    }
}
