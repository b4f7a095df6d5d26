//! The task that takes entries: new ones, and those of consumers that are gone.
//!
//! Invariants: at most its share of [`AHEAD_BYTES`], one chunk and one reply as it came are taken ahead of the processor; an entry that
//! is no frame, or that nobody comes to terms with, goes to the dead letters and is never retried for ever.
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::{Cmd, Value};

use super::super::frame;
use super::super::{Delivery, TransportError};
use super::depths::Share;
use super::keys::{EntryId, FRAME, GROUP, Keys};
use super::link::Link;
use super::stream_consumer::{Inbox, TakenEntry};
use super::{reports, scripts};
use crate::telemetry::Metric;

/// Taken ahead of the processor: enough to hide Redis, little enough to leave something to other processors.
const AHEAD_BYTES: usize = 4 << 20;
/// Wanted size of one reply's chunks when they are decompressed; of which, too, this is a share.
const REPLY_BYTES: usize = 2 << 20;
const MAX_COUNT: usize = 256;
const MAX_BLOCK: Duration = Duration::from_secs(1);
/// As long as a drained stream may stay empty before that is noticed.
const DRAIN_BLOCK: Duration = Duration::from_millis(50);
/// Taken over in one step.
const TAKEOVER_COUNT: usize = 4;
/// An entry that was delivered this often without being acknowledged kills whoever takes it.
const MAX_DELIVERIES: u64 = 16;

/// An entry as it is in the stream.
pub(super) struct Entry {
    id: EntryId,
    pub(super) frame: Option<Bytes>,
    /// All fields but the frame.
    others: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    fn len_bytes(&self) -> usize {
        self.frame.as_ref().map_or(0, Bytes::len)
    }
}

pub(super) struct Fetcher {
    pub(super) link: Link,
    pub(super) keys: Keys,
    pub(super) consumer: String,
    pub(super) inbox: Arc<Inbox>,
    pub(super) takeover: Duration,
    pub(super) drain: bool,
    pub(super) share: Share,
}

impl Fetcher {
    /// The group sees the stream from its beginning: readers may have started first.
    pub(super) async fn create_group(&self) -> Result<(), TransportError> {
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(&self.keys.stream).arg(GROUP).arg(0).arg("MKSTREAM");
        match self.link.try_query::<()>(&command).await? {
            Err(error) if error.code() != Some("BUSYGROUP") => Err(self.link.refused(error)),
            _ => Ok(()),
        }
    }

    pub(super) async fn run(self) {
        if let Err(error) = self.fetch().await {
            self.inbox.fail(error);
        }
    }

    async fn fetch(&self) -> Result<(), TransportError> {
        let interval = self.takeover / 5;
        let block = interval.min(if self.drain { DRAIN_BLOCK } else { MAX_BLOCK });
        let mut taken_over = Instant::now();
        let mut count = 1;
        loop {
            self.wait_for_room().await;
            if taken_over.elapsed() >= interval {
                self.take_over().await?;
                taken_over = Instant::now();
                continue;
            }
            let entries = self.read(count, block).await?;
            if entries.is_empty() && self.drain {
                let length: usize = self.link.query(redis::cmd("XLEN").arg(&self.keys.stream)).await?;
                // what is left is in our hands: it goes when it is acknowledged
                if length <= self.inbox.taken().len() {
                    self.inbox.exhausted.send_replace(true);
                }
            }
            let num_entries = entries.len();
            let len_bytes = self.accept(entries).await?;
            if num_entries > 0 {
                let reply_bytes = self.share.of(REPLY_BYTES);
                count = (reply_bytes * num_entries / len_bytes.max(1)).clamp(1, MAX_COUNT);
            }
        }
    }

    fn has_room(&self) -> bool {
        self.inbox.ahead.load(Ordering::Relaxed) < self.share.of(AHEAD_BYTES)
    }

    async fn wait_for_room(&self) {
        while !self.has_room() {
            self.inbox.room.notified().await;
        }
    }

    async fn read(&self, count: usize, block: Duration) -> Result<Vec<Entry>, TransportError> {
        let mut command = redis::cmd("XREADGROUP");
        command.arg("GROUP").arg(GROUP).arg(&self.consumer).arg("COUNT").arg(count);
        command.arg("BLOCK").arg(block.as_millis().max(1) as u64);
        command.arg("STREAMS").arg(&self.keys.stream).arg(">");
        if let Some(streams) = self.link.query_group(&command).await? {
            return Ok(entries_of_streams(streams));
        }
        self.create_group().await?;
        Ok(Vec::new())
    }

    /// Takes what consumers left that do not touch their entries any more, among them this one, if an answer to
    /// it was lost.
    async fn take_over(&self) -> Result<(), TransportError> {
        let idle_ms = self.takeover.as_millis() as u64;
        while self.has_room() {
            let mut pending = redis::cmd("XPENDING");
            pending.arg(&self.keys.stream).arg(GROUP).arg("IDLE").arg(idle_ms);
            pending.arg("-").arg("+").arg(TAKEOVER_COUNT * 4);
            let overdue = self.link.query_group::<Vec<(Vec<u8>, Vec<u8>, u64, u64)>>(&pending).await?;
            let Some(overdue) = overdue else { return self.create_group().await };
            let overdue = overdue.iter().filter_map(|(id, _, _, times)| Some((EntryId::parse(id)?, *times)));
            let overdue: Vec<_> = overdue.filter(|(id, _)| !self.inbox.taken().has(id)).collect();
            let (hopeless, others): (Vec<_>, Vec<_>) =
                overdue.into_iter().partition(|(_, times)| *times >= MAX_DELIVERIES);
            for (id, times) in &hopeless {
                let reason = format!("delivered {times} times and never committed");
                match read_entry(&self.link, &self.keys, *id).await? {
                    Some(entry) => self.bury(entry, &reason).await?,
                    None => self.forget(*id).await?,
                }
            }
            let ids: Vec<_> = others.iter().take(TAKEOVER_COUNT).map(|(id, _)| id.to_string()).collect();
            if ids.is_empty() {
                return Ok(());
            }
            let mut claim = redis::cmd("XCLAIM");
            claim.arg(&self.keys.stream).arg(GROUP).arg(&self.consumer).arg(idle_ms).arg(&ids);
            let claimed: Option<Value> = self.link.query_group(&claim).await?;
            let Some(claimed) = claimed else { return self.create_group().await };
            let entries = entries_of(claimed);
            if !entries.is_empty() {
                tracing::info!("took over {} chunks that another processor left", entries.len());
                Metric::ChunksTakenOver.add(entries.len() as u64);
            }
            self.accept(entries).await?;
        }
        Ok(())
    }

    /// Delivers one after the other, as there is room for what they are when decompressed. How many bytes that was.
    async fn accept(&self, mut entries: Vec<Entry>) -> Result<usize, TransportError> {
        // kept from now on, however long the last of them waits
        {
            let mut taken = self.inbox.taken();
            entries.retain(|entry| taken.hold(entry.id));
        }
        let mut delivered = 0;
        for entry in entries {
            self.wait_for_room().await;
            if !self.inbox.taken().has(&entry.id) {
                // another has it now
                continue;
            }
            let len_bytes = entry.len_bytes();
            let parsed = match entry.frame.clone() {
                Some(frame) => frame::parse(frame).map_err(|error| error.to_string()),
                None => Err(format!("no frame: it has no field named {FRAME}")),
            };
            match parsed {
                Ok(frame) => {
                    let range = frame.chunk.range();
                    let id = self.inbox.taken().take(TakenEntry { entry: entry.id, len_bytes, range });
                    delivered += frame.chunk.bytes.len();
                    self.inbox.deliver(Delivery { id, chunk: frame.chunk });
                }
                Err(reason) => {
                    delivered += len_bytes;
                    let id = entry.id;
                    self.bury(entry, &reason).await?;
                    self.inbox.taken().lose(&id);
                }
            }
        }
        Ok(delivered)
    }

    /// Moves an entry to the dead letters, then out of the stream: better there twice than nowhere.
    async fn bury(&self, entry: Entry, reason: &str) -> Result<(), TransportError> {
        tracing::error!("entry {} of {} goes to {}: {reason}", entry.id, self.keys.stream, self.keys.dead);
        Metric::EntriesDeadLettered.add(1);
        let mut add = redis::cmd("XADD");
        add.arg(&self.keys.dead).arg("*").arg("entry").arg(entry.id.to_string());
        add.arg("reason").arg(reason);
        if let Some(frame) = &entry.frame {
            add.arg(FRAME).arg(&frame[..]);
        }
        for (field, value) in &entry.others {
            add.arg(field).arg(value);
        }
        let _id: Vec<u8> = self.link.query(&add).await?;
        self.settle(entry.id, entry.len_bytes(), reason).await
    }

    /// Ends the pending state of an entry that is not in the stream any more.
    async fn forget(&self, id: EntryId) -> Result<(), TransportError> {
        self.settle(id, 0, "deleted from the stream by somebody else").await
    }

    async fn settle(&self, id: EntryId, len_bytes: usize, reason: &str) -> Result<(), TransportError> {
        let report = [(reports::DEAD, reports::dead(id, reason))];
        let _freed: u64 = self.link.query(&scripts::settle(&self.keys, &[(id, len_bytes)], &report)).await?;
        Ok(())
    }
}

/// An entry that may be gone.
pub(super) async fn read_entry(
    link: &Link,
    keys: &Keys,
    id: EntryId,
) -> Result<Option<Entry>, TransportError> {
    let mut command: Cmd = redis::cmd("XRANGE");
    command.arg(&keys.stream).arg(id.to_string()).arg(id.to_string());
    Ok(entries_of(link.query(&command).await?).pop())
}

/// The entries in the reply to a read of one stream. Their bytes are moved, not copied.
fn entries_of_streams(reply: Value) -> Vec<Entry> {
    let entries = match reply {
        Value::Array(streams) => match streams.into_iter().next() {
            Some(Value::Array(stream)) => stream.into_iter().nth(1),
            _ => None,
        },
        Value::Map(streams) => streams.into_iter().next().map(|(_, entries)| entries),
        _ => None,
    };
    entries.map(entries_of).unwrap_or_default()
}

/// What is not an entry, such as the nil that stands for a deleted one, is left out.
fn entries_of(reply: Value) -> Vec<Entry> {
    let Value::Array(entries) = reply else { return Vec::new() };
    entries.into_iter().filter_map(entry_of).collect()
}

fn entry_of(value: Value) -> Option<Entry> {
    let Value::Array(parts) = value else { return None };
    let mut parts = parts.into_iter();
    let (Value::BulkString(id), Value::Array(fields)) = (parts.next()?, parts.next()?) else { return None };
    let mut entry = Entry { id: EntryId::parse(&id)?, frame: None, others: Vec::new() };
    let mut fields = fields.into_iter();
    while let (Some(Value::BulkString(field)), Some(Value::BulkString(value))) =
        (fields.next(), fields.next())
    {
        if field == FRAME.as_bytes() && entry.frame.is_none() {
            entry.frame = Some(value.into());
        } else {
            entry.others.push((field, value));
        }
    }
    Some(entry)
}
