//! Transport within one process: a queue bounded in bytes, and the set of deliveries not yet acknowledged.
//!
//! A chunk's bytes count against the bound until a processor takes it; what is taken but not committed is
//! bounded by the sink's group. Deliberately absent: redelivery. If this process dies, the source files and
//! the ledger are the truth.
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Consumer, Delivery, DeliveryId, Producer, TransportError};
use crate::model::RawChunk;
use crate::telemetry::Metric;

/// Both ends of a queue that holds at most `max_queue_bytes` (a single larger chunk passes alone).
pub fn memory(max_queue_bytes: usize) -> (MemoryProducer, MemoryConsumer) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let unreported = Arc::new(Unreported::default());
    let max_queue_bytes = max_queue_bytes.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
    let room = Arc::new(Semaphore::new(max_queue_bytes));
    let consumer = MemoryConsumer {
        receiver,
        room: Arc::clone(&room),
        max_queue_bytes,
        unreported: Arc::clone(&unreported),
    };
    let producer = MemoryProducer {
        sender: Mutex::new(Some(sender)),
        room,
        max_queue_bytes,
        next_id: AtomicU64::new(0),
        unreported,
    };
    (producer, consumer)
}

#[derive(Debug, Default)]
struct Unreported {
    deliveries: Mutex<HashSet<DeliveryId>>,
    changed: Notify,
    consumer_gone: AtomicBool,
}

impl Unreported {
    fn deliveries(&self) -> std::sync::MutexGuard<'_, HashSet<DeliveryId>> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Queued = (Delivery, OwnedSemaphorePermit);

/// The reader's end.
#[derive(Debug)]
pub struct MemoryProducer {
    /// `None` once finished.
    sender: Mutex<Option<mpsc::UnboundedSender<Queued>>>,
    room: Arc<Semaphore>,
    max_queue_bytes: usize,
    next_id: AtomicU64,
    unreported: Arc<Unreported>,
}

impl MemoryProducer {
    fn sender(&self) -> std::sync::MutexGuard<'_, Option<mpsc::UnboundedSender<Queued>>> {
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Producer for MemoryProducer {
    async fn send(&self, chunk: RawChunk) -> Result<(), TransportError> {
        let permits = chunk.bytes.len().clamp(1, self.max_queue_bytes) as u32;
        let permit = Arc::clone(&self.room).acquire_many_owned(permits).await;
        let permit = permit.map_err(|_| TransportError::Closed)?;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        self.unreported.deliveries().insert(id);
        let sent = match &*self.sender() {
            Some(sender) => sender.send((Delivery { id, chunk }, permit)).is_ok(),
            None => false,
        };
        if sent {
            Metric::QueueBytes.set((self.max_queue_bytes - self.room.available_permits()) as u64);
            return Ok(());
        }
        self.unreported.deliveries().remove(&id);
        Err(TransportError::Closed)
    }

    async fn finish(&self) -> Result<(), TransportError> {
        drop(self.sender().take());
        loop {
            let changed = self.unreported.changed.notified();
            if self.unreported.deliveries().is_empty() {
                return Ok(());
            }
            if self.unreported.consumer_gone.load(Ordering::Acquire) {
                return Err(TransportError::Closed);
            }
            changed.await;
        }
    }
}

/// The processor's end.
#[derive(Debug)]
pub struct MemoryConsumer {
    receiver: mpsc::UnboundedReceiver<Queued>,
    room: Arc<Semaphore>,
    max_queue_bytes: usize,
    unreported: Arc<Unreported>,
}

#[async_trait]
impl Consumer for MemoryConsumer {
    async fn receive(&mut self) -> Result<Option<Delivery>, TransportError> {
        let taken = self.receiver.recv().await;
        let delivery = taken.map(|(delivery, _room)| delivery);
        Metric::QueueChunks.set(self.receiver.len() as u64);
        Metric::QueueBytes.set((self.max_queue_bytes - self.room.available_permits()) as u64);
        Ok(delivery)
    }

    async fn ack(&mut self, deliveries: &[DeliveryId]) -> Result<(), TransportError> {
        let mut unreported = self.unreported.deliveries();
        for delivery in deliveries {
            unreported.remove(delivery);
        }
        drop(unreported);
        self.unreported.changed.notify_waiters();
        Ok(())
    }

    async fn redeliver(&mut self, _delivery: DeliveryId) -> Result<bool, TransportError> {
        Ok(false)
    }

    /// What is taken no longer counts against the queue.
    fn max_unacknowledged_bytes(&self) -> usize {
        usize::MAX
    }
}

impl Drop for MemoryConsumer {
    fn drop(&mut self) {
        self.unreported.consumer_gone.store(true, Ordering::Release);
        self.unreported.changed.notify_waiters();
    }
}
