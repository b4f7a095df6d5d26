//! Transport within one process: a queue bounded in bytes, and the set of ranges not yet committed.
//!
//! A chunk's bytes count against the bound until a processor takes it; what is taken but not committed is
//! bounded by the sink's group. Deliberately absent: redelivery. If this process dies, the source files and
//! the ledger are the truth.
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Delivery, TransportError};
use crate::model::{ByteRange, RawChunk};

/// Both ends of a queue that holds at most `max_queue_bytes` (a single larger chunk passes alone).
pub fn memory(max_queue_bytes: usize) -> (MemoryProducer, MemoryConsumer) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let unreported = Arc::new(Unreported::default());
    let max_queue_bytes = max_queue_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
    let room = Arc::new(Semaphore::new(max_queue_bytes));
    let producer = MemoryProducer { sender, room, max_queue_bytes, unreported: Arc::clone(&unreported) };
    (producer, MemoryConsumer { receiver, unreported })
}

#[derive(Debug, Default)]
struct Unreported {
    ranges: Mutex<HashSet<ByteRange>>,
    changed: Notify,
    consumer_gone: AtomicBool,
}

impl Unreported {
    fn ranges(&self) -> std::sync::MutexGuard<'_, HashSet<ByteRange>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reader's end.
#[derive(Debug)]
pub struct MemoryProducer {
    sender: mpsc::UnboundedSender<(RawChunk, OwnedSemaphorePermit)>,
    room: Arc<Semaphore>,
    max_queue_bytes: usize,
    unreported: Arc<Unreported>,
}

impl MemoryProducer {
    /// Ships a chunk; waits while the queue is full.
    pub async fn send(&self, chunk: RawChunk) -> Result<(), TransportError> {
        let permits = chunk.bytes.len().clamp(1, self.max_queue_bytes) as u32;
        let permit =
            Arc::clone(&self.room).acquire_many_owned(permits).await.map_err(|_| TransportError::Closed)?;
        let range = chunk.range();
        self.unreported.ranges().insert(range);
        self.sender.send((chunk, permit)).map_err(|_| {
            self.unreported.ranges().remove(&range);
            TransportError::Closed
        })
    }

    /// Says that no chunk follows, then waits until every chunk sent is acknowledged: `true`; or the
    /// processor is gone: `false`.
    pub async fn finish(self) -> bool {
        drop(self.sender);
        loop {
            let changed = self.unreported.changed.notified();
            if self.unreported.ranges().is_empty() {
                return true;
            }
            if self.unreported.consumer_gone.load(Ordering::Acquire) {
                return false;
            }
            changed.await;
        }
    }
}

/// The processor's end.
#[derive(Debug)]
pub struct MemoryConsumer {
    receiver: mpsc::UnboundedReceiver<(RawChunk, OwnedSemaphorePermit)>,
    unreported: Arc<Unreported>,
}

impl MemoryConsumer {
    /// The next chunk, or `None` once the producer is dropped and the queue is empty.
    pub async fn receive(&mut self) -> Option<Delivery> {
        let (chunk, _room) = self.receiver.recv().await?;
        Some(Delivery { chunk })
    }

    /// Reports ranges as committed.
    pub fn ack(&self, ranges: &[ByteRange]) {
        let mut unreported = self.unreported.ranges();
        for range in ranges {
            unreported.remove(range);
        }
        drop(unreported);
        self.unreported.changed.notify_waiters();
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.unreported.consumer_gone.store(true, Ordering::Release);
        self.unreported.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;
    use crate::model::Source;

    fn chunk(first_byte: u64, len_bytes: usize) -> RawChunk {
        let source = Source {
            path: "a.log".into(),
            device: 1,
            inode: 1,
            generation: 0,
            head_len_bytes: 0,
            head_hash: 0,
            id: 7,
        };
        RawChunk {
            source: Arc::new(source),
            first_byte,
            bytes: Bytes::from(vec![b'x'; len_bytes]),
            content_sha256: [0; 32],
            reference_time: 0,
            piece: None,
            open: false,
        }
    }

    #[tokio::test]
    async fn a_full_queue_blocks_the_producer_until_a_chunk_is_taken() {
        let (producer, mut consumer) = memory(10);
        producer.send(chunk(0, 8)).await.unwrap();
        let second = producer.send(chunk(8, 8));
        tokio::pin!(second);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut second).await.is_err());
        assert_eq!(consumer.receive().await.unwrap().chunk.first_byte, 0);
        second.await.unwrap();
        assert_eq!(consumer.receive().await.unwrap().chunk.first_byte, 8);
    }

    #[tokio::test]
    async fn a_chunk_larger_than_the_queue_passes_alone() {
        let (producer, mut consumer) = memory(10);
        producer.send(chunk(0, 100)).await.unwrap();
        assert_eq!(consumer.receive().await.unwrap().chunk.bytes.len(), 100);
    }

    #[tokio::test]
    async fn finish_waits_for_the_last_ack() {
        let (producer, mut consumer) = memory(100);
        producer.send(chunk(0, 8)).await.unwrap();
        producer.send(chunk(8, 8)).await.unwrap();
        let (first, second) = (consumer.receive().await.unwrap(), consumer.receive().await.unwrap());
        let finish = producer.finish();
        tokio::pin!(finish);
        consumer.ack(&[first.range()]);
        assert!(tokio::time::timeout(Duration::from_millis(20), &mut finish).await.is_err());
        assert!(consumer.receive().await.is_none());
        consumer.ack(&[second.range()]);
        assert!(finish.await);
    }

    #[tokio::test]
    async fn finish_does_not_wait_for_a_processor_that_is_gone() {
        let (producer, consumer) = memory(100);
        producer.send(chunk(0, 8)).await.unwrap();
        drop(consumer);
        assert!(!producer.finish().await);
    }

    #[tokio::test]
    async fn a_gone_processor_is_an_error_not_a_hang() {
        let (producer, consumer) = memory(10);
        drop(consumer);
        assert_eq!(producer.send(chunk(0, 1)).await, Err(TransportError::Closed));
    }
}
