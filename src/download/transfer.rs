//! Gets one file whole, one attempt at a time, each continuing where the last one was cut.
//!
//! Who calls waits between attempts and holds the item's lock and a turn at its host during one. Invariant: what is
//! returned is in the cache, has the length and the hash that are known of it, and is on disk.
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::cache::{Here, Part, Validators};
use super::hosts::{Hosts, Turn};
use super::known::Known;
use super::remote::{Answer, Opened, Remote, Wanted};
use super::{Cache, DownloadError, DownloadOptions, FileItem, Slot};
use crate::telemetry::Metric;

/// Blocks between the network and the disk; what a kill costs.
const QUEUE_BLOCKS: usize = 16;
/// Waits between attempts grow from the first to the second of these.
const WAITS: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(10));

/// A file that is here.
#[derive(Debug)]
pub struct Downloaded {
    /// Its places in the cache.
    pub slot: Slot,
    /// Its length.
    pub size: u64,
    /// What the server calls this content.
    pub etag: Option<String>,
}

/// A file that is not.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub error: DownloadError,
    /// When to try again; `None` where that is of no use.
    pub again_in: Option<Duration>,
}

/// What was done for an item so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Progress {
    /// Attempts made; 0 if it was here already.
    pub attempts: u32,
    /// Bytes that were received and are not kept.
    thrown: u64,
}

/// Downloads into one cache.
#[derive(Debug)]
pub struct Downloader {
    options: DownloadOptions,
    cache: Cache,
    remote: Remote,
    hosts: Hosts,
    received: AtomicU64,
    again: AtomicU64,
}

impl Downloader {
    /// Opens the cache. Asks nobody yet.
    pub fn try_new(options: DownloadOptions) -> Result<Self, DownloadError> {
        Ok(Self {
            cache: Cache::try_open(&options.cache)?,
            remote: Remote::try_new(&options)?,
            hosts: Hosts::new(options.per_host),
            received: AtomicU64::new(0),
            again: AtomicU64::new(0),
            options,
        })
    }

    /// The cache.
    #[must_use]
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// Bytes received, and those of them that had been received before.
    #[must_use]
    pub fn received(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.again.load(Ordering::Relaxed))
    }

    /// A turn at a host, if it may be asked now.
    #[must_use]
    pub fn try_turn(&self, host: &str) -> Option<Turn> {
        self.hosts.try_enter(host)
    }

    /// Until when a host is left alone.
    #[must_use]
    pub fn paused_until(&self, host: &str) -> Option<Instant> {
        self.hosts.paused_until(host)
    }

    /// The item's places, for this run alone until they are dropped; `None` while another run has them.
    pub async fn lock(&self, item: &FileItem) -> Result<Option<Slot>, DownloadError> {
        let slot = self.cache.slot(item);
        blocking(move || slot.try_locked()).await
    }

    /// Whether the content is still the one that the server called `etag`, which takes one request.
    pub async fn is_unchanged(
        &self,
        item: &FileItem,
        etag: Option<&str>,
        turn: &Turn,
    ) -> Result<bool, DownloadError> {
        let Some(etag) = etag else { return Ok(false) };
        let known = Validators { etag: Some(etag.to_owned()), ..Validators::default() };
        Ok(match self.remote.ask(&item.url, Wanted::Changed(&known)).await {
            Ok(Answer::Unchanged) => true,
            Ok(Answer::Opened(opened)) => opened.validators.etag == known.etag,
            Ok(Answer::NoSuchRange) => false,
            // the download itself tries again and says why
            Err(error) if error.is_retriable() && !error.is_busy() => false,
            Err(error) => {
                self.tell_host(&error, turn);
                return Err(error);
            }
        })
    }

    /// One attempt to get the file of `item` into `slot`, which is locked.
    pub async fn download(
        &self,
        item: &FileItem,
        slot: &Slot,
        progress: &mut Progress,
        turn: &Turn,
    ) -> Result<Downloaded, Failed> {
        let error = match self.attempt(item, slot, progress).await {
            Ok((size, etag)) => {
                turn.succeeded();
                return Ok(Downloaded { slot: slot.clone(), size, etag });
            }
            Err(error) => error,
        };
        let failed = self.failed(item, error, progress.attempts, turn);
        if failed.again_in.is_none() {
            let slot = slot.clone();
            let removed = tokio::task::spawn_blocking(move || slot.remove_if_empty()).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(name = item.name, "its empty part stays in the cache: {error}");
            }
        }
        Err(failed)
    }

    fn failed(&self, item: &FileItem, error: DownloadError, attempts: u32, turn: &Turn) -> Failed {
        self.tell_host(&error, turn);
        let asked = error.retry_after();
        if !error.is_retriable() || attempts >= self.options.attempts {
            return Failed { error, again_in: None };
        }
        tracing::info!(url = item.shown_url(), attempt = attempts, "download failed: {error}");
        if let Some(asked) = asked.filter(|asked| *asked > self.options.max_wait) {
            return Failed { error: DownloadError::ComeLater(asked), again_in: None };
        }
        Metric::DownloadsRetried.add(1);
        // as long as the server says, and never less than our own growing wait
        let wait = match self.options.no_sleep {
            true => Duration::ZERO,
            false => wait_after(attempts, fraction()).max(asked.unwrap_or_default()),
        };
        Failed { error, again_in: Some(wait) }
    }

    fn tell_host(&self, error: &DownloadError, turn: &Turn) {
        if error.is_busy() && !self.options.no_sleep {
            turn.busy(error.retry_after().filter(|wait| *wait <= self.options.max_wait));
        }
    }

    /// What runs on other threads and holds the part is waited for: the time is up between two blocks.
    async fn attempt(
        &self,
        item: &FileItem,
        slot: &Slot,
        progress: &mut Progress,
    ) -> Result<(u64, Option<String>), DownloadError> {
        let deadline = self.options.timeout.map(|timeout| Instant::now() + timeout);
        let here = {
            let (slot, size, sha256) = (slot.clone(), item.size, item.sha256);
            blocking(move || slot.look(size, sha256.as_ref())).await?
        };
        let part = match here {
            Here::Whole(size, validators) if !self.options.revalidate => return Ok((size, validators.etag)),
            Here::Whole(size, validators) => {
                progress.attempts += 1;
                return self.renew(item, slot, (size, validators), progress, deadline).await;
            }
            Here::Part(part) => part,
        };
        progress.attempts += 1;
        // without either, nothing would tell that the rest is of another content
        let is_known = part.validators.if_range().is_some() || item.sha256.is_some();
        if part.len > 0 && is_known {
            if part.validators.total == Some(part.len) {
                let known = Known::of(item, None);
                let len = part.len;
                return finished(move || known.finish(part), len, progress).await;
            }
            let answer = self.ask(item, Wanted::Rest(part.len, &part.validators), deadline).await?;
            if let Answer::Opened(opened) = answer {
                return self.save(item, part, opened, progress, deadline).await;
            }
        }
        match self.ask(item, Wanted::All, deadline).await? {
            Answer::Opened(opened) => self.save(item, part, opened, progress, deadline).await,
            Answer::Unchanged | Answer::NoSuchRange => {
                Err(DownloadError::Answer("all of it was asked for".to_owned()))
            }
        }
    }

    /// Asks whether the whole file is still what the server has, and gets what it has now.
    async fn renew(
        &self,
        item: &FileItem,
        slot: &Slot,
        (size, validators): (u64, Validators),
        progress: &mut Progress,
        deadline: Option<Instant>,
    ) -> Result<(u64, Option<String>), DownloadError> {
        let is_known = validators.etag.is_some() || validators.last_modified.is_some();
        let wanted = if is_known { Wanted::Changed(&validators) } else { Wanted::All };
        match self.ask(item, wanted, deadline).await? {
            Answer::Unchanged => Ok((size, validators.etag)),
            Answer::Opened(opened) => {
                let slot = slot.clone();
                let part = blocking(move || {
                    // what is kept of the new content must not be taken for what is known of the old
                    slot.remove_whole()?;
                    slot.open_part()
                })
                .await?;
                self.save(item, part, opened, progress, deadline).await
            }
            Answer::NoSuchRange => Err(DownloadError::Answer("no range was asked for".to_owned())),
        }
    }

    async fn ask(
        &self,
        item: &FileItem,
        wanted: Wanted<'_>,
        deadline: Option<Instant>,
    ) -> Result<Answer, DownloadError> {
        self.within(deadline, self.remote.ask(&item.url, wanted)).await?
    }

    async fn within<T>(
        &self,
        deadline: Option<Instant>,
        work: impl Future<Output = T>,
    ) -> Result<T, DownloadError> {
        match deadline {
            None => Ok(work.await),
            Some(deadline) => timeout_at(deadline, work)
                .await
                .map_err(|_| DownloadError::Timeout(self.options.timeout.unwrap_or_default())),
        }
    }

    /// Writes what comes behind what is there.
    async fn save(
        &self,
        item: &FileItem,
        mut part: Part,
        opened: Opened,
        progress: &mut Progress,
        deadline: Option<Instant>,
    ) -> Result<(u64, Option<String>), DownloadError> {
        let Opened { offset, validators, modified, mut bytes } = opened;
        let total = validators.total;
        if let (Some(expected), Some(received)) = (item.size, total)
            && expected != received
        {
            return Err(DownloadError::Size { expected, received });
        }
        self.again.fetch_add(part.len.saturating_sub(offset), Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel::<Bytes>(QUEUE_BLOCKS);
        let mut to_write = Some(move |is_whole| {
            part.continue_at(offset, validators, is_whole)?;
            part.append(receiver)
        });
        let mut writing = None;
        let limit = item.size.or(total).unwrap_or(u64::MAX);
        let mut at = offset;
        let ended = loop {
            match self.within(deadline, bytes.next()).await {
                Ok(None) => break None,
                Err(error) | Ok(Some(Err(error))) => break Some(error),
                Ok(Some(Ok(block))) => {
                    at += block.len() as u64;
                    self.received.fetch_add(block.len() as u64, Ordering::Relaxed);
                    Metric::DownloadBytes.add(block.len() as u64);
                    if at > limit {
                        break Some(DownloadError::Size { expected: limit, received: at });
                    }
                    // a small file is written in one go: a thread that waits for each block takes longer
                    if sender.capacity() == 0
                        && let Some(write) = to_write.take()
                    {
                        writing = Some(tokio::task::spawn_blocking(move || write(false)));
                    }
                    if sender.send(block).await.is_err() {
                        // the writer says why
                        break None;
                    }
                }
            }
        };
        drop(sender);
        let thrown = progress.thrown.min(at.saturating_sub(offset));
        progress.thrown -= thrown;
        self.again.fetch_add(thrown, Ordering::Relaxed);
        let cut = |reason: String| DownloadError::Cut { received: at, expected: total, reason };
        let ended = match ended {
            Some(DownloadError::Cut { reason, .. }) => Some(cut(reason)),
            None if total.is_some_and(|total| at < total) => {
                Some(cut("the connection was closed".to_owned()))
            }
            other => other,
        };
        let known = Known::of(item, modified);
        let part = match (writing, to_write) {
            (Some(writing), _) => joined(writing.await)?,
            (None, Some(write)) if ended.is_none() => {
                return finished(move || known.finish(write(true)?), at, progress).await;
            }
            (None, Some(write)) => blocking(move || write(false)).await?,
            (None, None) => return Err(DownloadError::Stopped),
        };
        match ended {
            None => finished(move || known.finish(part), at, progress).await,
            Some(error @ DownloadError::Size { .. }) => {
                progress.thrown += part.len;
                blocking(move || part.discard()).await?;
                Err(error)
            }
            Some(error) => Err(error),
        }
    }
}

/// Ends a file of `len` bytes, which count as thrown away where they are not what is known.
async fn finished(
    finish: impl FnOnce() -> Result<(u64, Option<String>), DownloadError> + Send + 'static,
    len: u64,
    progress: &mut Progress,
) -> Result<(u64, Option<String>), DownloadError> {
    let finished = blocking(finish).await;
    if let Err(DownloadError::Size { .. } | DownloadError::Checksum { .. }) = &finished {
        progress.thrown += len;
    }
    finished
}

/// Grows from 4 s to 10 s; `fraction` of 1 makes it the longest that it may be after so many attempts.
fn wait_after(attempts: u32, fraction: f64) -> Duration {
    let longest = WAITS.0.mul_f64(1.6_f64.powi(attempts.min(16) as i32)).min(WAITS.1);
    WAITS.0 + (longest - WAITS.0).mul_f64(fraction)
}

/// From 0 to 1: so that clients that were cut at once do not come back at once.
fn fraction() -> f64 {
    // the low half of a version 7 uuid is random
    (uuid::Uuid::now_v7().as_u64_pair().1 >> 11 & 0xffff_ffff) as f64 / f64::from(u32::MAX)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DownloadError> + Send + 'static,
) -> Result<T, DownloadError> {
    joined(tokio::task::spawn_blocking(work).await)
}

fn joined<T>(done: Result<Result<T, DownloadError>, tokio::task::JoinError>) -> Result<T, DownloadError> {
    match done {
        Ok(done) => done,
        Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
        Err(_cancelled) => Err(DownloadError::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_from_four_to_ten_seconds() {
        assert_eq!(wait_after(1, 0.0), Duration::from_secs(4));
        assert_eq!(wait_after(1, 1.0), Duration::from_millis(6400));
        assert_eq!(wait_after(9, 1.0), Duration::from_secs(10));
        assert!((0.0..=1.0).contains(&fraction()));
    }
}
