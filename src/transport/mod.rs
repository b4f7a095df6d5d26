//! Readers -> processors: carries chunks, bounded in bytes, and reports back what is committed.
//!
//! Contract, which every transport passes the same tests of (`tests`): what was sent is delivered at least once,
//! until it is acknowledged; a full queue makes the producer wait; the producer's `finish` ends well only if
//! everything it sent is acknowledged. Extension point: a transport is one file here.
use async_trait::async_trait;
use thiserror::Error;

use crate::model::RawChunk;

pub mod frame;
mod memory;

pub use memory::{MemoryConsumer, MemoryProducer, memory};

/// The reader's end.
#[async_trait]
pub trait Producer: Send + Sync {
    /// Ships a chunk; waits while the queue is full.
    async fn send(&self, chunk: RawChunk) -> Result<(), TransportError>;

    /// Says that no chunk follows, then waits until every chunk sent is reported as committed.
    async fn finish(&self) -> Result<(), TransportError>;
}

/// The processor's end.
#[async_trait]
pub trait Consumer: Send {
    /// The next chunk; `None` once no more can come. Safe to cancel: nothing is lost with a dropped future.
    async fn receive(&mut self) -> Result<Option<Delivery>, TransportError>;

    /// Reports deliveries as committed by every sink.
    async fn ack(&mut self, deliveries: &[DeliveryId]) -> Result<(), TransportError>;

    /// Has an unacknowledged delivery come again: what was decoded of it could not be committed. `false` if this
    /// transport has not kept it; then the reader has to ship it again.
    async fn redeliver(&mut self, delivery: DeliveryId) -> Result<bool, TransportError>;

    /// Bytes that may be taken and not yet acknowledged: more would leave no room for others to come.
    fn max_unacknowledged_bytes(&self) -> usize;
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
}

#[cfg(test)]
mod tests;
