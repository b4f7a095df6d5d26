//! The reader's end: keeps what it sends until a processor reports it as committed.
//!
//! `send` hands over to a task that ships, so that reading goes on while Redis takes the bytes. All chunks of a source
//! go to one stream. Invariant: what is kept, for all streams together, is bounded like one stream.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::super::frame::{self, Compression};
use super::super::{Producer, TransportError};
use super::StreamOptions;
use super::keys::Keys;
use super::ledger_exchange;
use super::link::Link;
use super::reports::Reports;
use super::shipping;
use super::unreported::Unreported;
use crate::model::{Ledger, RawChunk};

/// What the producer and the tasks of one stream share.
#[derive(Debug)]
pub(super) struct Outbox {
    unreported: Mutex<Unreported>,
    /// Something is to be shipped.
    pub(super) work: Notify,
    /// Something was shipped, reported, or has failed for good, in this stream or another of the producer's.
    pub(super) changed: Arc<Notify>,
    failed: AtomicBool,
    error: Mutex<Option<TransportError>>,
}

impl Outbox {
    fn new(changed: Arc<Notify>) -> Self {
        let (unreported, error) = (Mutex::default(), Mutex::default());
        Self { unreported, work: Notify::new(), changed, failed: AtomicBool::new(false), error }
    }

    pub(super) fn unreported(&self) -> MutexGuard<'_, Unreported> {
        self.unreported.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every wait. The first error is what the caller gets.
    pub(super) fn fail(&self, error: TransportError) {
        let mut kept = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get_or_insert(error);
        self.failed.store(true, Ordering::Release);
        self.changed.notify_waiters();
    }

    fn check(&self) -> Result<(), TransportError> {
        if !self.failed.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut kept = self.error.lock().unwrap_or_else(PoisonError::into_inner);
        Err(kept.take().unwrap_or(TransportError::Closed))
    }
}

/// The reader's end of a queue.
#[derive(Debug)]
pub struct RedisProducer {
    link: Arc<Link>,
    /// Of the queue's first stream, where the ledger is asked for.
    keys: Keys,
    compression: Compression,
    max_queue_bytes: usize,
    /// One for each stream.
    outboxes: Vec<Arc<Outbox>>,
    /// As in every outbox.
    changed: Arc<Notify>,
    /// Held while room is looked for and taken.
    room: Mutex<()>,
    finished: AtomicBool,
    /// Ends with this.
    _tasks: JoinSet<()>,
}

impl RedisProducer {
    pub(super) async fn start(
        link: Link,
        keys: Keys,
        shards: Vec<Keys>,
        options: StreamOptions,
    ) -> Result<Self, TransportError> {
        let StreamOptions { compression, max_queue_bytes, .. } = options;
        let (link, changed) = (Arc::new(link), Arc::<Notify>::default());
        let (mut outboxes, mut tasks) = (Vec::new(), JoinSet::new());
        for shard in shards {
            let outbox = Arc::new(Outbox::new(Arc::clone(&changed)));
            let reports = Reports::start(link.another(), shard.clone(), Arc::clone(&outbox)).await?;
            tasks.spawn(reports.run());
            tasks.spawn(shipping::run(Arc::clone(&link), shard, max_queue_bytes, Arc::clone(&outbox)));
            outboxes.push(outbox);
        }
        let (room, finished) = (Mutex::new(()), AtomicBool::new(false));
        Ok(Self {
            link,
            keys,
            compression,
            max_queue_bytes,
            outboxes,
            changed,
            room,
            finished,
            _tasks: tasks,
        })
    }

    /// What is committed already, as the processors know it, who alone can ask the sinks. Waits for one that
    /// answers.
    pub async fn ledger(&self) -> Result<Ledger, TransportError> {
        ledger_exchange::ask(&self.link, &self.keys).await
    }

    /// How many chunks, of how many bytes on the wire, have no report yet.
    #[must_use]
    pub fn unreported(&self) -> (usize, usize) {
        self.outboxes.iter().fold((0, 0), |(chunks, bytes), outbox| {
            let unreported = outbox.unreported();
            (chunks + unreported.num_chunks(), bytes + unreported.num_bytes())
        })
    }

    /// Waits until `done` says so, or shipping failed for good.
    async fn until(&self, mut done: impl FnMut() -> bool) -> Result<(), TransportError> {
        loop {
            let changed = self.changed.notified();
            for outbox in &self.outboxes {
                outbox.check()?;
            }
            if done() {
                return Ok(());
            }
            changed.await;
        }
    }
}

#[async_trait]
impl Producer for RedisProducer {
    async fn send(&self, chunk: RawChunk) -> Result<(), TransportError> {
        if self.finished.load(Ordering::Acquire) {
            return Err(TransportError::Closed);
        }
        let frame = frame::encode(&chunk, self.compression, None)?;
        let len_bytes = frame.len_bytes();
        let outbox = &self.outboxes[(chunk.source.id % self.outboxes.len() as u64) as usize];
        let mut frame = Some(frame);
        self.until(|| {
            let _taking = self.room.lock().unwrap_or_else(PoisonError::into_inner);
            let (chunks, bytes) = self.unreported();
            if chunks > 0 && bytes + len_bytes > self.max_queue_bytes {
                return false;
            }
            if let Some(frame) = frame.take() {
                outbox.unreported().insert(frame, Arc::clone(&chunk.source), chunk.range());
            }
            true
        })
        .await?;
        outbox.work.notify_one();
        Ok(())
    }

    async fn flush(&self) -> Result<(), TransportError> {
        self.until(|| self.outboxes.iter().all(|outbox| outbox.unreported().is_shipped())).await
    }

    async fn finish(&self) -> Result<(), TransportError> {
        self.finished.store(true, Ordering::Release);
        self.until(|| self.outboxes.iter().all(|outbox| outbox.unreported().is_empty())).await
    }
}
