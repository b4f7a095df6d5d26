//! The reader's end: keeps what it sends until a processor reports it as committed.
//!
//! `send` hands over to a task that ships, so that reading goes on while Redis takes the bytes. Invariant: what is
//! kept is bounded like the stream itself.
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

/// What the producer and its tasks share.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    unreported: Mutex<Unreported>,
    /// Something is to be shipped.
    pub(super) work: Notify,
    /// Something was shipped, reported, or has failed for good.
    pub(super) changed: Notify,
    failed: AtomicBool,
    error: Mutex<Option<TransportError>>,
}

impl Outbox {
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

    /// Waits until `done` says so of what is unreported, or shipping failed for good.
    async fn until(&self, mut done: impl FnMut(&mut Unreported) -> bool) -> Result<(), TransportError> {
        loop {
            let changed = self.changed.notified();
            self.check()?;
            if done(&mut self.unreported()) {
                return Ok(());
            }
            changed.await;
        }
    }
}

/// The reader's end of a stream.
#[derive(Debug)]
pub struct RedisProducer {
    link: Arc<Link>,
    keys: Keys,
    compression: Compression,
    max_queue_bytes: usize,
    outbox: Arc<Outbox>,
    finished: AtomicBool,
    /// Ends with this.
    _tasks: JoinSet<()>,
}

impl RedisProducer {
    pub(super) async fn start(
        link: Link,
        keys: Keys,
        options: StreamOptions,
    ) -> Result<Self, TransportError> {
        let outbox = Arc::<Outbox>::default();
        let reports = Reports::start(link.another(), keys.clone(), Arc::clone(&outbox)).await?;
        let link = Arc::new(link);
        let mut tasks = JoinSet::new();
        tasks.spawn(reports.run());
        tasks.spawn(shipping::run(
            Arc::clone(&link),
            keys.clone(),
            options.max_queue_bytes,
            Arc::clone(&outbox),
        ));
        let StreamOptions { compression, max_queue_bytes, .. } = options;
        let finished = AtomicBool::new(false);
        Ok(Self { link, keys, compression, max_queue_bytes, outbox, finished, _tasks: tasks })
    }

    /// What is committed already, as the processors know it, who alone can ask the sinks. Waits for one that
    /// answers.
    pub async fn ledger(&self) -> Result<Ledger, TransportError> {
        ledger_exchange::ask(&self.link, &self.keys).await
    }

    /// How many chunks, of how many bytes on the wire, have no report yet.
    #[must_use]
    pub fn unreported(&self) -> (usize, usize) {
        let unreported = self.outbox.unreported();
        (unreported.num_chunks(), unreported.num_bytes())
    }
}

#[async_trait]
impl Producer for RedisProducer {
    async fn send(&self, chunk: RawChunk) -> Result<(), TransportError> {
        if self.finished.load(Ordering::Acquire) {
            return Err(TransportError::Closed);
        }
        let frame = frame::encode(&chunk, self.compression, None)?;
        let mut frame = Some(frame);
        self.outbox
            .until(|unreported| {
                let len_bytes = frame.as_ref().map_or(0, frame::EncodedFrame::len_bytes);
                if !unreported.is_empty() && unreported.num_bytes() + len_bytes > self.max_queue_bytes {
                    return false;
                }
                if let Some(frame) = frame.take() {
                    unreported.insert(frame, Arc::clone(&chunk.source), chunk.range());
                }
                true
            })
            .await?;
        self.outbox.work.notify_one();
        Ok(())
    }

    async fn flush(&self) -> Result<(), TransportError> {
        self.outbox.until(|unreported| unreported.is_shipped()).await
    }

    async fn finish(&self) -> Result<(), TransportError> {
        self.finished.store(true, Ordering::Release);
        self.outbox.until(|unreported| unreported.is_empty()).await
    }
}
