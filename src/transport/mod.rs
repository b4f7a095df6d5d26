//! Readers -> processors: carries chunks, bounded in bytes, and reports back what is committed.
//!
//! Contract, which every transport passes the same tests of (`tests/it/transport.rs`): what was sent is
//! delivered at least once, until it is acknowledged; a full queue makes the producer wait; the producer's
//! `finish` ends well only if everything it sent is acknowledged. Extension point: a transport is one file here.
use async_trait::async_trait;
use redis::RedisError;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::client::ClientError;
use crate::model::{Ledger, RawChunk};

pub mod frame;
mod memory;
mod redis_streams;

pub use frame::{Compression, FrameError};
pub use memory::{MemoryConsumer, MemoryProducer, memory};
pub use redis_streams::{Depth, RedisConsumer, RedisProducer, RedisStream, StreamOptions, streams_of};

/// The reader's end.
#[async_trait]
pub trait Producer: Send + Sync {
    /// Ships a chunk; waits while the queue is full.
    async fn send(&self, chunk: RawChunk) -> Result<(), TransportError>;

    /// Waits until everything sent is out of this process. It may still be lost with what carries it.
    async fn flush(&self) -> Result<(), TransportError> {
        Ok(())
    }

    /// Says that no chunk follows, then waits until every chunk sent is reported as committed.
    async fn finish(&self) -> Result<(), TransportError>;
}

/// The processor's end.
#[async_trait]
pub trait Consumer: Send {
    /// The next chunk; `None` once no more can come, but for what is delivered again. Safe to cancel: nothing is
    /// lost with a dropped future.
    async fn receive(&mut self) -> Result<Option<Delivery>, TransportError>;

    /// Reports deliveries as committed by every sink.
    async fn ack(&mut self, deliveries: &[DeliveryId]) -> Result<(), TransportError>;

    /// Has an unacknowledged delivery come again: what was decoded of it could not be committed. `false` if this
    /// transport has not kept it; then the reader has to ship it again.
    async fn redeliver(&mut self, delivery: DeliveryId) -> Result<bool, TransportError>;

    /// Bytes that may be taken and not yet acknowledged: more would leave no room for others to come.
    fn max_unacknowledged_bytes(&self) -> usize;

    /// Readers elsewhere that ask what is committed already. To be called once; none where reader and processor
    /// are one process.
    fn ledger_requests(&mut self) -> LedgerRequests {
        LedgerRequests(None)
    }

    /// Takes no more, and waits until every acknowledgement is out of this process.
    async fn close(&mut self) -> Result<(), TransportError> {
        Ok(())
    }
}

/// Questions for the ledger, as they come.
#[derive(Debug)]
pub struct LedgerRequests(Option<mpsc::Receiver<LedgerRequest>>);

impl LedgerRequests {
    fn new(requests: mpsc::Receiver<LedgerRequest>) -> Self {
        Self(Some(requests))
    }

    /// The next one; for ever where none can come. Safe to cancel.
    pub async fn next(&mut self) -> LedgerRequest {
        if let Some(requests) = &mut self.0
            && let Some(request) = requests.recv().await
        {
            return request;
        }
        std::future::pending().await
    }
}

/// A reader's question what is committed already. Dropped without an answer, it is asked again.
#[derive(Debug)]
pub struct LedgerRequest(oneshot::Sender<Ledger>);

impl LedgerRequest {
    fn new() -> (Self, oneshot::Receiver<Ledger>) {
        let (sender, answer) = oneshot::channel();
        (Self(sender), answer)
    }

    /// With what every sink holds.
    pub fn answer(self, ledger: Ledger) {
        // who asked may be gone
        let _unless_gone = self.0.send(ledger);
    }
}

/// Names a delivery to the consumer that made it.
pub type DeliveryId = u64;

/// A chunk handed to a processor.
#[derive(Debug)]
pub struct Delivery {
    /// What [`Consumer::ack`] takes back.
    pub id: DeliveryId,
    /// The chunk.
    pub chunk: RawChunk,
}

/// Why chunks cannot be sent or received.
#[derive(Debug, Error)]
pub enum TransportError {
    /// The other side is gone.
    #[error("the processor stopped before all chunks were committed; run again to ship what is lacking")]
    Closed,
    /// The service cannot be reached at the start, or refuses the connection.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Redis answers, but not what the transport needs.
    #[error(
        "redis at {address} refuses a command; check that it is Redis 6.2 or later, that its keys are only used by \
         pipeline, and what the user may do"
    )]
    Redis {
        /// Host and port.
        address: String,
        /// What Redis said.
        source: RedisError,
    },
    /// The name cannot be a stream's.
    #[error("{0:?} cannot be the name of a stream; use a name without braces, or with one {{tag}} in it")]
    StreamName(String),
    /// The chunk does not fit into a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Processors could not read a chunk however often it was shipped.
    #[error(
        "bytes {first_byte} to {end_byte} of {path} were refused each time they were shipped: {reason}; \
         see the stream {dead}, and run again when that is solved"
    )]
    DeadLettered {
        /// The source's path.
        path: String,
        /// Offset of the chunk's first byte.
        first_byte: u64,
        /// Offset behind its last byte.
        end_byte: u64,
        /// What the last processor said.
        reason: String,
        /// The dead-letter stream.
        dead: String,
    },
    /// A processor's answer cannot be understood.
    #[error("the ledger that a processor sent cannot be read: {0}; run the same version everywhere")]
    Ledger(String),
}

impl TransportError {
    /// Whether the same may succeed later without anybody changing a setting.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Client(error) => error.is_retriable(),
            Self::Redis { .. } | Self::StreamName(_) | Self::Frame(_) => false,
            Self::DeadLettered { .. } | Self::Ledger(_) => false,
        }
    }
}

#[cfg(test)]
mod tests;
