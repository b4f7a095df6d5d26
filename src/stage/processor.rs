//! Transport -> decode -> sink -> ack: the loop that every record goes through.
//!
//! Invariants: chunks reach the sink in the order they were received, whichever core decoded them; a chunk is
//! acknowledged only once a receipt names it. Deliberately absent: retries. After an error nothing is
//! acknowledged, and what the ledger lacks is shipped again.
use std::collections::{BTreeMap, HashMap};
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesOrdered;
use tokio::task::spawn_blocking;

use crate::decode::Decoder;
use crate::log_type::LogTypes;
use crate::model::{ByteRange, ChunkRecord, CommitReceipt, DecodedBatch};
use crate::sink::{Sink, SinkError};
use crate::telemetry::Metric;
use crate::transport::{Delivery, MemoryConsumer};

/// What has arrived is committed when nothing more arrives for this long.
const IDLE: Duration = Duration::from_secs(2);

/// What was committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessSummary {
    /// Lines in the chunks.
    pub lines: u64,
    /// Rows by log type.
    pub rows: BTreeMap<String, u64>,
    /// Lines that no type accepts.
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
}

/// Takes chunks until there are no more; returns when the last one is committed. What was committed before an
/// error is in `committed`.
pub async fn process(
    consumer: &mut MemoryConsumer,
    decoders: &DecoderPool,
    sink: &mut dyn Sink,
    committed: &mut ProcessSummary,
) -> Result<(), SinkError> {
    let mut decoding = FuturesOrdered::new();
    let mut pending = HashMap::new();
    let mut more = true;
    loop {
        let receipt = tokio::select! {
            delivery = consumer.receive(), if more && decoding.len() < decoders.workers => {
                match delivery {
                    Some(delivery) => decoding.push_back(decoders.decode(delivery)),
                    None => more = false,
                }
                None
            }
            Some(batch) = decoding.next() => {
                pending.insert(batch.record.range, batch.record.clone());
                sink.write(batch).await?
            }
            () = tokio::time::sleep(IDLE), if more && !pending.is_empty() => sink.flush().await?,
            else => break,
        };
        if let Some(receipt) = receipt {
            acknowledge(consumer, &receipt, committed, &mut pending);
        }
    }
    if let Some(receipt) = sink.flush().await? {
        acknowledge(consumer, &receipt, committed, &mut pending);
    }
    Ok(())
}

/// Reports what a receipt names as committed, and counts it.
fn acknowledge(
    consumer: &MemoryConsumer,
    receipt: &CommitReceipt,
    committed: &mut ProcessSummary,
    pending: &mut HashMap<ByteRange, ChunkRecord>,
) {
    consumer.ack(&receipt.ranges);
    for record in receipt.ranges.iter().filter_map(|range| pending.remove(range)) {
        committed.add(&record);
    }
    committed.stored_bytes += receipt.stored_bytes;
    Metric::GroupsCommitted.add(1);
    Metric::ChunksCommitted.add(receipt.ranges.len() as u64);
    Metric::BytesStored.add(receipt.stored_bytes);
    tracing::info!(chunks = receipt.ranges.len(), bytes = receipt.stored_bytes, "committed");
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

    fn decode(&self, delivery: Delivery) -> impl Future<Output = DecodedBatch> + use<> {
        let idle = Arc::clone(&self.idle);
        let decoder = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut decoder = decoder.unwrap_or_else(|| Decoder::new(&self.types));
        let decoding = spawn_blocking(move || {
            let batch = decoder.decode(&delivery.chunk);
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
