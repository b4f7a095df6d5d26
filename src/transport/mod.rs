//! Readers -> processors: carries chunks, bounded in bytes, and reports back what is committed.
mod memory;

pub use memory::{MemoryConsumer, MemoryProducer, memory};

use thiserror::Error;

use crate::model::{ByteRange, RawChunk};

/// A chunk handed to a processor; acknowledged by its range once it is committed.
#[derive(Debug)]
pub struct Delivery {
    /// The chunk.
    pub chunk: RawChunk,
}

impl Delivery {
    /// What [`MemoryConsumer::ack`] takes back.
    pub fn range(&self) -> ByteRange {
        self.chunk.range()
    }
}

/// Why a chunk could not be sent.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TransportError {
    /// The other side is gone.
    #[error("the processor stopped before all chunks were taken")]
    Closed,
}
