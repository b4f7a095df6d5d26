//! The processor's end of one stream: takes frames ahead, keeps them its own, and acknowledges behind the caller's
//! back.
//!
//! Invariants: what is in `Taken` is pending in the group under this consumer's name, as far as is known, and is
//! kept so by the upkeep task; a delivery keeps its number when it comes again.
use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinSet;

use super::super::{Consumer, Delivery, DeliveryId, LedgerRequests, TransportError};
use super::depths::Share;
use super::fetch::Fetcher;
use super::keys::{EntryId, Keys};
use super::link::Link;
use super::upkeep::{Upkeep, UpkeepCommand};
use super::{StreamOptions, ledger_exchange, scripts};
use crate::model::ByteRange;

/// Acknowledgements still unsent then are left: the entries come again and are found committed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Entries that are let go count as untouched for this long, so that others take them at once.
const LET_GO_MS: u64 = 24 * 3600 * 1000;

/// An entry in this consumer's hands.
#[derive(Debug, Clone, Copy)]
pub(super) struct TakenEntry {
    pub(super) entry: EntryId,
    pub(super) len_bytes: usize,
    pub(super) range: ByteRange,
}

#[derive(Debug, Default)]
pub(super) struct Taken {
    deliveries: HashMap<DeliveryId, TakenEntry>,
    /// Whether the caller has seen it, and so could have come to grief by it.
    entries: HashMap<EntryId, bool>,
    next_id: DeliveryId,
}

impl Taken {
    /// Has an entry kept from now on, before it is delivered; false if it is in our hands already.
    pub(super) fn hold(&mut self, entry: EntryId) -> bool {
        match self.entries.entry(entry) {
            MapEntry::Occupied(_) => false,
            MapEntry::Vacant(vacant) => {
                vacant.insert(false);
                true
            }
        }
    }

    /// The number of a new delivery of an entry that is held.
    pub(super) fn take(&mut self, taken: TakenEntry) -> DeliveryId {
        let id = self.next_id;
        self.next_id += 1;
        self.deliveries.insert(id, taken);
        id
    }

    fn seen(&mut self, id: DeliveryId) {
        let entry = self.deliveries.get(&id).map(|taken| taken.entry);
        if let Some(seen) = entry.and_then(|entry| self.entries.get_mut(&entry)) {
            *seen = true;
        }
    }

    fn get(&self, id: DeliveryId) -> Option<TakenEntry> {
        self.deliveries.get(&id).copied()
    }

    fn remove(&mut self, id: DeliveryId) -> Option<TakenEntry> {
        let taken = self.deliveries.remove(&id)?;
        self.entries.remove(&taken.entry);
        Some(taken)
    }

    pub(super) fn has(&self, entry: &EntryId) -> bool {
        self.entries.contains_key(entry)
    }

    pub(super) fn entries(&self) -> Vec<EntryId> {
        self.entries.keys().copied().collect()
    }

    fn seen_or_not(&self, seen: bool) -> Vec<EntryId> {
        self.entries.iter().filter(|(_, is_seen)| **is_seen == seen).map(|(entry, _)| *entry).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Another has it now. It is still acknowledged if it is committed here: whoever does so first.
    pub(super) fn lose(&mut self, entry: &EntryId) {
        self.entries.remove(entry);
    }
}

/// What the consumer and its tasks share.
#[derive(Debug)]
pub(super) struct Inbox {
    taken: Mutex<Taken>,
    deliveries: mpsc::UnboundedSender<Result<Delivery, TransportError>>,
    /// Bytes in the channel.
    pub(super) ahead: AtomicUsize,
    /// The channel has room again.
    pub(super) room: Notify,
    /// When draining: nothing is in the stream but what is in our hands.
    pub(super) exhausted: watch::Sender<bool>,
    /// Consumers of the group that are alive.
    pub(super) live: AtomicUsize,
}

impl Inbox {
    pub(super) fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn deliver(&self, delivery: Delivery) {
        self.exhausted.send_replace(false);
        self.ahead.fetch_add(delivery.chunk.bytes.len(), Ordering::Relaxed);
        // nobody receives any more only when this task is about to be ended
        let _unless_closed = self.deliveries.send(Ok(delivery));
    }

    pub(super) fn fail(&self, error: TransportError) {
        let _unless_closed = self.deliveries.send(Err(error));
    }
}

/// The processor's end of one stream.
#[derive(Debug)]
pub(super) struct StreamConsumer {
    link: Arc<Link>,
    keys: Keys,
    name: String,
    max_queue_bytes: usize,
    inbox: Arc<Inbox>,
    deliveries: mpsc::UnboundedReceiver<Result<Delivery, TransportError>>,
    exhausted: watch::Receiver<bool>,
    commands: mpsc::UnboundedSender<UpkeepCommand>,
    /// Take and keep entries; end with this.
    taking: JoinSet<()>,
    /// Ends with this.
    _acknowledging: JoinSet<()>,
}

impl StreamConsumer {
    pub(super) async fn start(
        link: Arc<Link>,
        keys: Keys,
        options: &StreamOptions,
        drain: bool,
        share: Share,
    ) -> Result<Self, TransportError> {
        let (sender, deliveries) = mpsc::unbounded_channel();
        let (exhausted_sender, exhausted) = watch::channel(false);
        let inbox = Arc::new(Inbox {
            taken: Mutex::default(),
            deliveries: sender,
            ahead: AtomicUsize::new(0),
            room: Notify::new(),
            exhausted: exhausted_sender,
            live: AtomicUsize::new(1),
        });
        let name = consumer_name();
        let fetcher = Fetcher {
            link: link.another(),
            keys: keys.clone(),
            consumer: name.clone(),
            inbox: Arc::clone(&inbox),
            takeover: options.takeover,
            drain,
            share: share.clone(),
        };
        fetcher.create_group().await?;
        let upkeep = Upkeep {
            link: Arc::clone(&link),
            keys: keys.clone(),
            consumer: name.clone(),
            inbox: Arc::clone(&inbox),
            takeover: options.takeover,
            share,
        };
        let (commands, to_do) = mpsc::unbounded_channel();
        let (mut taking, mut acknowledging) = (JoinSet::new(), JoinSet::new());
        taking.spawn(fetcher.run());
        taking.spawn(upkeep.clone().keep());
        acknowledging.spawn(upkeep.acknowledge(to_do));
        let max_queue_bytes = options.max_queue_bytes;
        Ok(Self {
            link,
            keys,
            name,
            max_queue_bytes,
            inbox,
            deliveries,
            exhausted,
            commands,
            taking,
            _acknowledging: acknowledging,
        })
    }

    /// Has others take what is in our hands now rather than when it is overdue, and leaves the group.
    /// What the caller has not seen was never delivered: else a chunk that ends every processor would take those
    /// behind it to the dead letters.
    async fn let_go(&self) -> Result<(), TransportError> {
        for seen in [true, false] {
            let entries = self.inbox.taken().seen_or_not(seen);
            for some in entries.chunks(scripts::MAX_ENTRIES) {
                let let_go = scripts::let_go(&self.keys, &self.name, some, LET_GO_MS, seen);
                let _lost: Option<Vec<usize>> = self.link.query_group(&let_go).await?;
            }
        }
        let tidy = scripts::tidy(&self.keys, u64::MAX, 0, Some(&self.name));
        let _live: Option<usize> = self.link.query_group(&tidy).await?;
        Ok(())
    }
}

/// Unique, and says who it is.
fn consumer_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = host.or_else(|| std::env::var("HOSTNAME").ok()).unwrap_or_else(|| "host".to_owned());
    let random = uuid::Uuid::now_v7().as_u128() as u32;
    format!("{}-{}-{random:08x}", host.trim(), std::process::id())
}

#[async_trait]
impl Consumer for StreamConsumer {
    async fn receive(&mut self) -> Result<Option<Delivery>, TransportError> {
        let delivery = tokio::select! {
            biased;
            delivery = self.deliveries.recv() => delivery,
            _ = self.exhausted.wait_for(|exhausted| *exhausted) => return Ok(None),
        };
        let delivery = delivery.unwrap_or(Err(TransportError::Closed))?;
        self.inbox.ahead.fetch_sub(delivery.chunk.bytes.len(), Ordering::Relaxed);
        self.inbox.room.notify_one();
        self.inbox.taken().seen(delivery.id);
        Ok(Some(delivery))
    }

    async fn ack(&mut self, deliveries: &[DeliveryId]) -> Result<(), TransportError> {
        let mut taken = self.inbox.taken();
        for entry in deliveries.iter().filter_map(|id| taken.remove(*id)) {
            // if the task is gone, it said why through `receive`
            let _unless_failed = self.commands.send(UpkeepCommand::Acknowledge(entry));
        }
        Ok(())
    }

    async fn redeliver(&mut self, delivery: DeliveryId) -> Result<bool, TransportError> {
        let Some(taken) = self.inbox.taken().get(delivery) else { return Ok(true) };
        let entry = super::fetch::read_entry(&self.link, &self.keys, taken.entry).await?;
        let frame = entry.and_then(|entry| entry.frame);
        match frame.map(super::super::frame::parse) {
            Some(Ok(frame)) => self.inbox.deliver(Delivery { id: delivery, chunk: frame.chunk }),
            // gone: acknowledged by another, or lost, and then its reader ships it again
            _ => drop(self.inbox.taken().remove(delivery)),
        }
        Ok(true)
    }

    fn max_unacknowledged_bytes(&self) -> usize {
        // what is taken still counts against the stream's bound
        let share = self.max_queue_bytes / 2 / self.inbox.live.load(Ordering::Relaxed).max(1);
        // with a bound of nothing, nothing could ever be taken
        share.max(1)
    }

    fn ledger_requests(&mut self) -> LedgerRequests {
        let (sender, requests) = mpsc::channel(1);
        let (link, keys, inbox) = (Arc::clone(&self.link), self.keys.clone(), Arc::clone(&self.inbox));
        self.taking.spawn(async move {
            if let Err(error) = ledger_exchange::serve(link, keys, sender).await {
                inbox.fail(error);
            }
        });
        LedgerRequests::new(requests)
    }

    async fn close(&mut self) -> Result<(), TransportError> {
        self.taking.shutdown().await;
        let (sender, sent) = oneshot::channel();
        let _unless_failed = self.commands.send(UpkeepCommand::Flush(sender));
        let closing = async {
            // an error means that the task ended, and it said why
            let _ended = sent.await;
            self.let_go().await
        };
        match tokio::time::timeout(CLOSE_TIMEOUT, closing).await {
            Ok(closed) => closed,
            Err(_elapsed) => {
                tracing::warn!(
                    "redis does not take the last acknowledgements; what they name will come again"
                );
                Ok(())
            }
        }
    }
}
