//! Gets one file whole: as many attempts as it takes, each continuing where the last one was cut.
//!
//! A turn at the host and one of the download slots are held only while bytes flow, not while an attempt waits for the
//! next. Invariant: what is returned is in the cache, has the length and the hash that are known of it, and is on disk.
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::cache::{Part, Validators};
use super::hosts::Hosts;
use super::item::hex;
use super::remote::{Answer, Opened, Remote, Wanted};
use super::{Cache, DownloadError, DownloadOptions, FileItem, Slot};
use crate::telemetry::Metric;

/// Blocks between the network and the disk.
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
    /// Attempts that it took; 0 if it was here already.
    pub attempts: u32,
    /// Held until the next stage has room: no other download starts before.
    pub permit: OwnedSemaphorePermit,
}

/// A file that is not.
#[derive(Debug)]
pub struct Failed {
    /// Why, the last time.
    pub error: DownloadError,
    /// Attempts made.
    pub attempts: u32,
}

/// Downloads into one cache.
#[derive(Debug)]
pub struct Downloader {
    options: DownloadOptions,
    cache: Cache,
    remote: Remote,
    hosts: Hosts,
    slots: Arc<Semaphore>,
    stop: CancellationToken,
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
            slots: Arc::new(Semaphore::new(options.downloads.max(1))),
            stop: CancellationToken::new(),
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

    /// Lets what flows come to its end, and starts nothing more.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Bytes received, and those of them that had been received before.
    #[must_use]
    pub fn received(&self) -> (u64, u64) {
        (self.received.load(Ordering::Relaxed), self.again.load(Ordering::Relaxed))
    }

    /// A slot for one download.
    pub async fn slot(&self) -> Result<OwnedSemaphorePermit, DownloadError> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(DownloadError::Stopped),
            permit = Arc::clone(&self.slots).acquire_owned() => permit.map_err(|_| DownloadError::Stopped),
        }
    }

    /// Whether the content is still the one that the server called `etag`, which takes one request.
    pub async fn is_unchanged(&self, item: &FileItem, etag: Option<&str>) -> Result<bool, DownloadError> {
        let Some(etag) = etag else { return Ok(false) };
        let _permit = self.slot().await?;
        let known = Validators { etag: Some(etag.to_owned()), ..Validators::default() };
        Ok(match self.remote.ask(&item.url, Wanted::Changed(&known)).await {
            Ok(Answer::Unchanged) => true,
            Ok(Answer::Opened(opened)) => opened.validators.etag == known.etag,
            Ok(Answer::NoSuchRange) => false,
            // the download itself tries again and says why
            Err(error) if error.is_retriable() => false,
            Err(error) => return Err(error),
        })
    }

    /// Gets the file of `item`.
    pub async fn download(&self, item: &FileItem) -> Result<Downloaded, Failed> {
        let slot = self.cache.slot(item);
        let got = self.attempts(item, slot.clone()).await;
        if got.is_err() {
            let removed = tokio::task::spawn_blocking(move || slot.remove_if_empty()).await;
            if let Ok(Err(error)) = removed {
                tracing::warn!(name = item.name, "its empty part stays in the cache: {error}");
            }
        }
        got
    }

    async fn attempts(&self, item: &FileItem, slot: Slot) -> Result<Downloaded, Failed> {
        let (mut attempts, host) = (0, item.host());
        loop {
            let turn = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(Failed { error: DownloadError::Stopped, attempts }),
                turn = self.hosts.enter(&host) => turn,
            };
            let permit = self.slot().await.map_err(|error| Failed { error, attempts })?;
            match self.whole_attempt(item, &slot, &mut attempts).await {
                Ok((size, etag)) => {
                    turn.succeeded();
                    return Ok(Downloaded { slot, size, etag, attempts, permit });
                }
                Err(error) if !error.is_retriable() || attempts >= self.options.attempts => {
                    if error.is_busy() && !self.options.no_sleep {
                        turn.busy(error.retry_after().filter(|wait| *wait <= self.options.max_wait));
                    }
                    return Err(Failed { error, attempts });
                }
                Err(error) => {
                    tracing::info!(url = item.shown_url(), attempt = attempts, "download failed: {error}");
                    Metric::DownloadsRetried.add(1);
                    let asked = error.retry_after();
                    if asked.is_some_and(|asked| asked > self.options.max_wait) {
                        let error = DownloadError::ComeLater(asked.unwrap_or_default());
                        return Err(Failed { error, attempts });
                    }
                    if error.is_busy() && !self.options.no_sleep {
                        turn.busy(asked);
                    }
                    drop((turn, permit));
                    self.wait(attempts, asked).await.map_err(|error| Failed { error, attempts })?;
                }
            }
        }
    }

    /// Before the next attempt: as long as the server says, and never less than our own growing wait.
    async fn wait(&self, attempts: u32, asked: Option<Duration>) -> Result<(), DownloadError> {
        if self.options.no_sleep {
            return Ok(());
        }
        let wait = wait_after(attempts, fraction()).max(asked.unwrap_or_default());
        tokio::select! {
            () = self.stop.cancelled() => Err(DownloadError::Stopped),
            () = tokio::time::sleep(wait) => Ok(()),
        }
    }

    async fn whole_attempt(
        &self,
        item: &FileItem,
        slot: &Slot,
        attempts: &mut u32,
    ) -> Result<(u64, Option<String>), DownloadError> {
        let attempt = self.attempt(item, slot, attempts);
        match self.options.timeout {
            None => attempt.await,
            Some(timeout) => {
                tokio::time::timeout(timeout, attempt).await.unwrap_or(Err(DownloadError::Timeout(timeout)))
            }
        }
    }

    async fn attempt(
        &self,
        item: &FileItem,
        slot: &Slot,
        attempts: &mut u32,
    ) -> Result<(u64, Option<String>), DownloadError> {
        let here = {
            let slot = slot.clone();
            blocking(move || Ok(slot.complete())).await?
        };
        let here = here.filter(|(size, _)| item.size.is_none_or(|expected| expected == *size));
        if let Some((size, validators)) = &here
            && !self.options.revalidate
        {
            return Ok((*size, validators.etag.clone()));
        }
        *attempts += 1;
        if let Some((size, validators)) = here
            && (validators.etag.is_some() || validators.last_modified.is_some())
        {
            return match self.remote.ask(&item.url, Wanted::Changed(&validators)).await? {
                Answer::Unchanged => Ok((size, validators.etag)),
                Answer::Opened(opened) => {
                    let slot = slot.clone();
                    let part = blocking(move || slot.open_part()).await?;
                    self.save(item, part, opened).await
                }
                Answer::NoSuchRange => Err(DownloadError::Answer("no range was asked for".to_owned())),
            };
        }
        let part = {
            let slot = slot.clone();
            blocking(move || slot.open_part()).await?
        };
        // without either, nothing would tell that the rest is of another content
        let is_known = part.validators.if_range().is_some() || item.sha256.is_some();
        if part.len > 0 && is_known {
            if part.validators.total == Some(part.len) {
                return self.finish(item, part, None).await;
            }
            let answer = self.remote.ask(&item.url, Wanted::Rest(part.len, &part.validators)).await?;
            if let Answer::Opened(opened) = answer {
                return self.save(item, part, opened).await;
            }
        }
        match self.remote.ask(&item.url, Wanted::All).await? {
            Answer::Opened(opened) => self.save(item, part, opened).await,
            Answer::Unchanged | Answer::NoSuchRange => {
                Err(DownloadError::Answer("all of it was asked for".to_owned()))
            }
        }
    }

    /// Writes what comes behind what is there.
    async fn save(
        &self,
        item: &FileItem,
        mut part: Part,
        opened: Opened,
    ) -> Result<(u64, Option<String>), DownloadError> {
        let Opened { offset, validators, modified, mut bytes } = opened;
        let total = validators.total;
        if let (Some(expected), Some(received)) = (item.size, total)
            && expected != received
        {
            return Err(DownloadError::Size { expected, received });
        }
        self.again.fetch_add(part.len.saturating_sub(offset), Ordering::Relaxed);
        let part = blocking(move || {
            part.continue_at(offset, validators)?;
            Ok(part)
        })
        .await?;
        let (sender, receiver) = mpsc::channel::<Bytes>(QUEUE_BLOCKS);
        let writing = tokio::task::spawn_blocking(move || part.append(receiver));
        let limit = item.size.or(total).unwrap_or(u64::MAX);
        let mut at = offset;
        let ended = loop {
            match bytes.next().await {
                None => break None,
                Some(Err(error)) => break Some(error),
                Some(Ok(block)) => {
                    at += block.len() as u64;
                    self.received.fetch_add(block.len() as u64, Ordering::Relaxed);
                    Metric::DownloadBytes.add(block.len() as u64);
                    if at > limit {
                        break Some(DownloadError::Size { expected: limit, received: at });
                    }
                    if sender.send(block).await.is_err() {
                        // the writer says why
                        break None;
                    }
                }
            }
        };
        drop(sender);
        let part = joined(writing.await)?;
        let cut = |reason: String| DownloadError::Cut { received: part.len, expected: total, reason };
        match ended {
            Some(DownloadError::Cut { reason, .. }) => return Err(cut(reason)),
            Some(error @ DownloadError::Size { .. }) => {
                blocking(move || part.discard()).await?;
                return Err(error);
            }
            Some(error) => return Err(error),
            None if total.is_some_and(|total| part.len < total) => {
                return Err(cut("the connection was closed".to_owned()));
            }
            None => {}
        }
        self.finish(item, part, modified).await
    }

    /// Holds the whole against what is known of it.
    async fn finish(
        &self,
        item: &FileItem,
        mut part: Part,
        modified: Option<SystemTime>,
    ) -> Result<(u64, Option<String>), DownloadError> {
        let (expected_size, expected_sha256) = (item.size, item.sha256);
        blocking(move || {
            let Validators { etag, .. } = part.validators.clone();
            let size = part.len;
            if let Some(expected) = expected_size.filter(|expected| *expected != size) {
                part.discard()?;
                return Err(DownloadError::Size { expected, received: size });
            }
            if let Some(expected) = expected_sha256 {
                let received = part.sha256()?;
                if received != expected {
                    part.discard()?;
                    let (expected, received) = (hex(&expected), hex(&received));
                    return Err(DownloadError::Checksum { expected, received });
                }
            }
            part.finish(modified)?;
            Ok((size, etag))
        })
        .await
    }
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
