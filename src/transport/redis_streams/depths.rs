//! What the consumers of one queue's streams have together: how much they take ahead, and what they show.
use std::sync::{Arc, Mutex, PoisonError};

use super::Depth;
use crate::telemetry::Metric;

/// One stream's part of a queue.
#[derive(Debug, Clone)]
pub(super) struct Share {
    /// As last seen, by stream.
    depths: Arc<Mutex<Vec<Depth>>>,
    number: usize,
    streams: usize,
}

impl Share {
    /// Of each of so many streams.
    pub(super) fn of_each(streams: usize) -> impl Iterator<Item = Self> {
        let depths = Arc::new(Mutex::new(vec![Depth::default(); streams]));
        (0..streams).map(move |number| Self { depths: Arc::clone(&depths), number, streams })
    }

    /// Its part of what all may take together.
    pub(super) fn of(&self, bytes: usize) -> usize {
        bytes / self.streams
    }

    /// Shows what is in all streams, now that this one was looked at.
    pub(super) fn show(&self, depth: Depth) {
        let mut depths = self.depths.lock().unwrap_or_else(PoisonError::into_inner);
        depths[self.number] = depth;
        let all = depths.iter().copied().fold(Depth::default(), Depth::and);
        Metric::QueueChunks.set(all.entries);
        Metric::QueueBytes.set(all.bytes);
        Metric::QueueOldestMillis.set(all.oldest_age.as_millis() as u64);
    }
}
