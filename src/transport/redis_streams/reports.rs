//! Reports: what processors say became of frames, and the task that reads them for a producer.
//!
//! Invariant: an entry and its report change in one step (`scripts::settle`), so that an entry that is gone while
//! all reports were read is lost. Deliberately absent: overdue reports of entries that are still there, because a
//! processor has them or will.
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;

use super::super::TransportError;
use super::keys::{EntryId, Keys};
use super::link::Link;
use super::producer::Outbox;
use super::scripts;
use crate::model::ByteRange;
use crate::telemetry::Metric;

/// Field of a report about a committed frame.
pub(super) const COMMITTED: &str = "committed";
/// Field of a report about an entry that was moved to the dead letters.
pub(super) const DEAD: &str = "dead";

/// Reports read at once.
const COUNT: usize = 1000;
/// A read ends after this long, so that what is missing is looked for.
const BLOCK_MS: u64 = 500;
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// An entry is looked for when it was not seen for this long, whatever the stream's length says. Rarely, because
/// Redis copies an entry to say that it is there.
const OVERDUE: Duration = Duration::from_secs(5);
/// A frame that is found damaged this often will not come through.
const MAX_DEATHS: u32 = 4;

/// The value of a [`COMMITTED`] field: source, first byte, end byte.
pub(super) fn committed(range: &ByteRange) -> String {
    format!("{} {} {}", range.source_id, range.first_byte, range.end_byte)
}

/// The value of a [`DEAD`] field: entry, reason.
pub(super) fn dead(entry: EntryId, reason: &str) -> String {
    format!("{entry} {reason}")
}

fn parse_committed(value: &str) -> Option<ByteRange> {
    let mut numbers = value.splitn(3, ' ').map(|number| number.parse::<u64>().ok());
    let range =
        ByteRange { source_id: numbers.next()??, first_byte: numbers.next()??, end_byte: numbers.next()?? };
    (range.first_byte <= range.end_byte).then_some(range)
}

fn parse_dead(value: &str) -> Option<(EntryId, &str)> {
    let (entry, reason) = value.split_once(' ')?;
    Some((EntryId::parse(entry.as_bytes())?, reason))
}

/// Reads reports from where they were when it started.
#[derive(Debug)]
pub(super) struct Reports {
    link: Link,
    keys: Keys,
    outbox: Arc<Outbox>,
    position: EntryId,
    checked: Instant,
}

type Entry = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>);

impl Reports {
    pub(super) async fn start(link: Link, keys: Keys, outbox: Arc<Outbox>) -> Result<Self, TransportError> {
        let mut reports = Self { link, keys, outbox, position: EntryId::default(), checked: Instant::now() };
        // older ones are of other runs: what they say may have been true of a sink that is gone
        reports.position = reports.newest().await?;
        Ok(reports)
    }

    /// Until it fails for good.
    pub(super) async fn run(mut self) {
        loop {
            if let Err(error) = self.step().await {
                return self.outbox.fail(error);
            }
        }
    }

    async fn step(&mut self) -> Result<(), TransportError> {
        self.read(Some(BLOCK_MS)).await?;
        if self.checked.elapsed() >= CHECK_INTERVAL {
            self.check().await?;
            self.checked = Instant::now();
        }
        Ok(())
    }

    async fn newest(&self) -> Result<EntryId, TransportError> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(&self.keys.reports).arg("+").arg("-").arg("COUNT").arg(1);
        let newest: Vec<Entry> = self.link.query(&command).await?;
        Ok(newest.first().and_then(|(id, _)| EntryId::parse(id)).unwrap_or_default())
    }

    /// Takes what is new. Whether there may be more.
    async fn read(&mut self, block_ms: Option<u64>) -> Result<bool, TransportError> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(COUNT);
        if let Some(block_ms) = block_ms {
            command.arg("BLOCK").arg(block_ms);
        }
        command.arg("STREAMS").arg(&self.keys.reports).arg(self.position.to_string());
        let streams: Value = match self.link.try_query(&command).await? {
            Ok(streams) => streams,
            // the key was deleted while the read was blocked
            Err(error) if error.code() == Some("UNBLOCKED") => return Ok(false),
            Err(error) => return Err(self.link.refused(error)),
        };
        let streams: Option<Vec<(Vec<u8>, Vec<Entry>)>> =
            redis::from_redis_value(streams).map_err(|error| self.link.refused(error.into()))?;
        let entries: Vec<Entry> = streams.into_iter().flatten().flat_map(|(_, entries)| entries).collect();
        let mut changed = false;
        for (id, fields) in &entries {
            self.position = EntryId::parse(id).unwrap_or(self.position);
            for (field, value) in fields {
                changed |= self.apply(field, &String::from_utf8_lossy(value))?;
            }
        }
        if changed {
            self.outbox.changed.notify_waiters();
        }
        Ok(entries.len() == COUNT)
    }

    fn apply(&self, field: &[u8], value: &str) -> Result<bool, TransportError> {
        let mut unreported = self.outbox.unreported();
        if field == COMMITTED.as_bytes() {
            return Ok(parse_committed(value).is_some_and(|range| unreported.committed(&range)));
        }
        let dead = (field == DEAD.as_bytes()).then(|| parse_dead(value)).flatten();
        let Some((entry, reason)) = dead else { return Ok(false) };
        let Some(of_ours) = unreported.dead(entry) else { return Ok(false) };
        if of_ours.deaths >= MAX_DEATHS {
            return Err(TransportError::DeadLettered {
                path: of_ours.source.path.clone(),
                first_byte: of_ours.range.first_byte,
                end_byte: of_ours.range.end_byte,
                reason: reason.to_owned(),
                dead: self.keys.dead.clone(),
            });
        }
        Metric::ChunksReshipped.add(1);
        self.outbox.work.notify_one();
        Ok(false)
    }

    /// Looks for entries that left the stream without a report.
    async fn check(&mut self) -> Result<(), TransportError> {
        let entries = self.outbox.unreported().entries();
        if entries.is_empty() {
            return Ok(());
        }
        let newest = self.newest().await?;
        if newest < self.position {
            // Redis was flushed or replaced, and its clock is behind. What was reported since is found missing
            // below, and found committed when it comes again.
            self.position = newest;
        }
        let length: usize = self.link.query(redis::cmd("XLEN").arg(&self.keys.stream)).await?;
        while self.read(None).await? {}
        let (entries, now) = (self.outbox.unreported().still(entries), Instant::now());
        // a stream shorter than what should be in it lacks some; else only what was not seen for long is looked for
        let suspects = match length < entries.len() {
            true => entries,
            false => self.outbox.unreported().unseen(&entries, OVERDUE, now),
        };
        let mut gone = Vec::new();
        for some in suspects.chunks(scripts::MAX_ENTRIES) {
            let exist: Vec<bool> = self.link.query(&scripts::exist(&self.keys, some)).await?;
            let mut unreported = self.outbox.unreported();
            for (entry, exists) in some.iter().zip(exist) {
                if exists { unreported.seen(*entry, now) } else { gone.push(*entry) }
            }
        }
        if gone.is_empty() {
            return Ok(());
        }
        while self.read(None).await? {}
        let lost = self.outbox.unreported().lost(&gone);
        if lost > 0 {
            tracing::warn!(
                "{lost} chunks are gone from {} without a report: sending them again",
                self.keys.stream
            );
            Metric::ChunksReshipped.add(lost as u64);
            self.outbox.work.notify_one();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_what_it_was_given_and_no_other_text_is_one() {
        let range = ByteRange { source_id: u64::MAX, first_byte: 1, end_byte: 2 };
        assert_eq!(parse_committed(&committed(&range)), Some(range));
        let entry = EntryId::parse(b"5-1").unwrap();
        assert_eq!(parse_dead(&dead(entry, "torn frame")), Some((entry, "torn frame")));
        for other in ["", "1", "1 2", "1 2 x", "1 3 2", "-1 2 3", "1 2 3 4"] {
            assert_eq!(parse_committed(other), None, "{other}");
        }
        assert_eq!(parse_dead("5 reason"), None);
    }
}
