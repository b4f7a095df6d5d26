//! Transport -> decode -> sinks -> ack: the loop that every record goes through.
//!
//! Invariants: chunks reach the sinks in the order they were received, whichever core decoded them; a delivery is
//! acknowledged only once every sink has committed all of its bytes. Deliberately absent: waiting for a service
//! that is away (the sinks and the transport do).
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::select_all;
use futures_util::stream::FuturesOrdered;
use thiserror::Error;
use tokio::task::spawn_blocking;

use super::shutdown::Shutdown;
use crate::decode::Decoder;
use crate::log_type::LogTypes;
use crate::model::{ChunkRecord, CommitReceipt, DecodedBatch, RawChunk};
use crate::sink::{self, Sink, SinkError};
use crate::telemetry::{Metric, Summary, tell_alive};
use crate::transport::{Consumer, TransportError};

mod in_flight;
mod waits;

use in_flight::{InFlight, Settled, Targets};
use waits::{Waits, count_committed};

/// What has arrived in memory is committed when nothing more arrives for this long.
pub const IDLE: Duration = Duration::from_secs(2);
/// A loop that has nothing to do comes round this often, to say that it is alive.
const ROUND: Duration = Duration::from_secs(1);
/// After a request to stop, what is taken is committed within this time or left to others.
const DRAIN: Duration = Duration::from_secs(20);

/// What was committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessSummary {
    /// Lines in the chunks.
    pub lines: u64,
    /// Rows by log type.
    pub rows: BTreeMap<String, u64>,
    /// Lines that no type accepts, or whose row storage refused.
    pub rejects: u64,
    /// Lines of white space only.
    pub blanks: u64,
    /// (Decompressed) bytes of the chunks.
    pub input_bytes: u64,
    /// Bytes that the commits added to storage.
    pub stored_bytes: u64,
}

impl ProcessSummary {
    fn add(&mut self, record: &ChunkRecord) {
        self.lines += record.num_lines;
        for (log_type, of_type) in &record.types {
            *self.rows.entry(log_type.clone()).or_default() += of_type.rows;
        }
        self.rejects += record.num_rejects;
        self.blanks += record.num_blanks;
        self.input_bytes += record.range.len_bytes();
    }

    fn refuse(&mut self, refused_rows: &BTreeMap<String, u64>) {
        for (log_type, refused) in refused_rows {
            if let Some(rows) = self.rows.get_mut(log_type) {
                *rows = rows.saturating_sub(*refused);
                self.rejects += refused;
            }
        }
    }
}

/// Why processing ended early. What is not acknowledged is not lost: the transport or the sources have it.
#[derive(Debug, Error)]
pub enum ProcessError {
    /// A sink failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The transport failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// Another writer was first with some of the bytes, and the transport has not kept the rest.
    #[error("another writer committed some of the same bytes first; what is lacking must be read again")]
    Overlap,
    /// What was taken could not be committed in time after a request to stop.
    #[error(
        "stopped before all chunks taken were committed; they stay in the queue and will be delivered again"
    )]
    Abandoned,
}

/// Takes chunks until there are no more, or until `stop` is requested, which only a transport that keeps what is
/// not acknowledged may be given; returns when the last one taken is committed. What has arrived is committed when
/// nothing more arrives for `idle`. What was committed before an error is in `committed`.
pub async fn process(
    consumer: &mut dyn Consumer,
    decoders: &DecoderPool,
    sinks: &mut [Box<dyn Sink>],
    idle: Duration,
    stop: Option<&Shutdown>,
    committed: &mut ProcessSummary,
) -> Result<(), ProcessError> {
    let mut processor = Processor {
        consumer,
        decoders,
        sinks,
        idle,
        in_flight: InFlight::default(),
        waits: Waits::default(),
        more: true,
        committed,
    };
    let drained = async {
        requested(stop).await;
        tokio::time::sleep(DRAIN).await;
    };
    let processed = tokio::select! {
        processed = processor.run(stop) => processed,
        () = drained => return Err(ProcessError::Abandoned),
    };
    if let Err(ProcessError::Overlap) = processed {
        processor.leave_nothing_open().await?;
    }
    processed
}

async fn requested(stop: Option<&Shutdown>) {
    match stop {
        Some(stop) => stop.requested().await,
        None => std::future::pending().await,
    }
}

struct Processor<'a> {
    consumer: &'a mut dyn Consumer,
    decoders: &'a DecoderPool,
    sinks: &'a mut [Box<dyn Sink>],
    idle: Duration,
    in_flight: InFlight,
    waits: Waits,
    /// Whether to receive.
    more: bool,
    committed: &'a mut ProcessSummary,
}

impl Processor<'_> {
    async fn run(&mut self, stop: Option<&Shutdown>) -> Result<(), ProcessError> {
        let mut decoding = FuturesOrdered::new();
        let mut ledger_requests = self.consumer.ledger_requests();
        loop {
            // decoded here, in the order of arrival, by as many as there are cores
            for (chunk, targets) in self.in_flight.next_chunks(self.sinks).await? {
                let decoded = self.decoders.decode(chunk);
                decoding.push_back(async { (decoded.await, targets) });
            }
            let held_already = self.in_flight.take_held_already();
            if !held_already.is_empty() {
                self.waits.end(&held_already);
                self.consumer.ack(&held_already).await?;
            }
            let is_idle = self.in_flight.is_empty() && decoding.is_empty();
            if is_idle {
                tell_alive();
            }
            let has_room = self.in_flight.num_bytes() < self.consumer.max_unacknowledged_bytes();
            let is_behind = decoding.len() >= self.decoders.workers;
            if decoding.is_empty() && !(self.more && has_room) {
                self.flush().await?;
                if !self.more && !self.in_flight.has_arrived() {
                    return Ok(());
                }
                continue;
            }
            tokio::select! {
                biased;
                () = requested(stop), if self.more => self.more = false,
                request = ledger_requests.next() => match sink::ledger(self.sinks).await {
                    Ok(ledger) => request.answer(ledger),
                    // the reader asks again
                    Err(error) if error.is_retriable() => tracing::warn!("the ledger cannot be read now: {error}"),
                    Err(error) => return Err(error.into()),
                },
                Some((batch, targets)) = decoding.next() => self.write(batch, &targets).await?,
                (sink, receipt) = next_receipt(self.sinks) => self.settle(sink, receipt?).await?,
                delivery = self.consumer.receive(), if self.more && has_room && !is_behind => match delivery? {
                    Some(delivery) => {
                        self.waits.begin(&delivery);
                        self.in_flight.arrive(delivery);
                    }
                    None => self.more = false,
                },
                () = tokio::time::sleep(self.idle), if self.more && !self.in_flight.is_empty() => {
                    self.flush().await?;
                }
                () = tokio::time::sleep(ROUND), if is_idle => {}
            }
        }
    }

    async fn write(&mut self, batch: DecodedBatch, targets: &Targets) -> Result<(), ProcessError> {
        self.in_flight.decoded(&batch.record);
        tell_alive();
        for &sink in targets {
            let receipt = self.sinks[sink].write(batch.clone()).await?;
            self.settle(sink, receipt).await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), ProcessError> {
        for sink in 0..self.sinks.len() {
            let receipt = self.sinks[sink].flush().await?;
            self.settle(sink, receipt).await?;
        }
        Ok(())
    }

    /// What is in the sinks is committed, or found to overlap, before anybody ships to them anew: they must not hold
    /// a byte that comes again.
    async fn leave_nothing_open(&mut self) -> Result<(), ProcessError> {
        for sink in 0..self.sinks.len() {
            let receipt = self.sinks[sink].flush().await?;
            match self.settle(sink, receipt).await {
                Ok(()) | Err(ProcessError::Overlap) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Acknowledges what all sinks now have, and counts it.
    async fn settle(&mut self, sink: usize, receipt: CommitReceipt) -> Result<(), ProcessError> {
        if receipt.is_empty() {
            return Ok(());
        }
        tell_alive();
        let name = self.sinks[sink].name();
        tracing::info!(sink = name, chunks = receipt.ranges.len(), bytes = receipt.stored_bytes, "committed");
        Metric::GroupsCommitted.add(u64::from(!receipt.ranges.is_empty()));
        Metric::ChunksCommitted.add(receipt.ranges.len() as u64);
        Metric::BytesStored.add(receipt.stored_bytes);
        self.committed.stored_bytes += receipt.stored_bytes;
        Metric::RowsRefused.add(receipt.refused_rows.values().sum());
        if !receipt.overlapped.is_empty() {
            tracing::info!(sink = name, chunks = receipt.overlapped.len(), "another writer was first");
            Metric::GroupsDiscarded.add(1);
        }
        let Settled { records, done, again } = self.in_flight.settle(&receipt);
        records.iter().for_each(|record| self.committed.add(record));
        count_committed(&records);
        Metric::InFlightBytes.set(self.in_flight.num_bytes() as u64);
        self.waits.end(&done);
        self.waits.end(&again);
        self.committed.refuse(&receipt.refused_rows);
        if !done.is_empty() {
            self.consumer.ack(&done).await?;
        }
        for delivery in again {
            if !self.consumer.redeliver(delivery).await? {
                return Err(ProcessError::Overlap);
            }
            self.more = true;
        }
        Ok(())
    }
}

/// The first receipt of any sink that commits by itself.
async fn next_receipt(sinks: &mut [Box<dyn Sink>]) -> (usize, Result<CommitReceipt, SinkError>) {
    let receipts = sinks
        .iter_mut()
        .enumerate()
        .map(|(position, sink)| Box::pin(async move { (position, sink.receipt().await) }));
    select_all(receipts).await.0
}

/// Decodes on several cores at once; a decoder keeps its buffers from chunk to chunk.
#[derive(Debug)]
pub struct DecoderPool {
    types: LogTypes,
    workers: usize,
    idle: Arc<Mutex<Vec<Decoder>>>,
}

impl DecoderPool {
    /// At most `workers` chunks are decoded at once.
    pub fn new(types: LogTypes, workers: usize) -> Self {
        Self { types, workers, idle: Arc::default() }
    }

    fn decode(&self, chunk: RawChunk) -> impl Future<Output = DecodedBatch> + use<> {
        let idle = Arc::clone(&self.idle);
        let decoder = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut decoder = decoder.unwrap_or_else(|| Decoder::new(&self.types));
        let decoding = spawn_blocking(move || {
            let started = Instant::now();
            Metric::BytesDecoded.add(chunk.bytes.len() as u64);
            let batch = decoder.decode(&chunk);
            Summary::Decode.observe(started.elapsed().as_secs_f64());
            idle.lock().unwrap_or_else(PoisonError::into_inner).push(decoder);
            batch
        });
        async {
            let batch = decoding.await.unwrap_or_else(|error| resume_unwind(error.into_panic()));
            Metric::LinesDecoded.add(batch.record.num_lines);
            Metric::RowsDecoded.add(batch.record.num_rows);
            Metric::LinesRejected.add(batch.record.num_rejects);
            Metric::LinesBlank.add(batch.record.num_blanks);
            batch
        }
    }
}
