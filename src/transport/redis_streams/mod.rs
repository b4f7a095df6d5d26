//! Transport over a Redis stream: readers and processors are separate processes, as many of each as wanted.
//!
//! A frame is one entry of the stream and stays there until it is acknowledged: entries leave by XDEL only, never
//! by trimming. Redis is disposable: a producer keeps what has no report and ships it again when the stream lost
//! it, be it by `FLUSHALL`, a restart, a failover or eviction; so an entry may come twice, and the ledger, not the
//! stream, is what makes rows exact. Needs Redis 6.2.
//!
//! | key | type | content |
//! |---|---|---|
//! | `log_queue` | stream | frames, field `frame`; group `processors` |
//! | `log_queue:dead` | stream | entries that cannot be processed: `entry`, `reason`, then their own fields |
//! | `{log_queue}:bytes` | number | bytes in the stream, which bound it |
//! | `{log_queue}:reports` | stream | what became of frames; the newest 100,000 reports |
//! | `{log_queue}:ledger` | set | reply keys of readers that ask what is committed already |
//!
//! While Redis is away both ends wait. Deliberately absent: exactly-once delivery, and order between producers.
use std::time::Duration;

use super::TransportError;
use super::frame::Compression;
use crate::client::RedisConfig;

mod consumer;
mod fetch;
mod keys;
mod ledger_exchange;
mod link;
mod producer;
mod reports;
mod scripts;
mod shipping;
mod unreported;
mod upkeep;

pub use consumer::RedisConsumer;
pub use producer::RedisProducer;

use keys::Keys;
use link::Link;

/// How to use a stream. Readers and processors of one stream should agree on it.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Name of the stream.
    pub stream: String,
    /// Most bytes in the stream, and most that a producer keeps. A single larger chunk passes alone.
    pub max_queue_bytes: usize,
    /// Of frames sent.
    pub compression: Compression,
    /// What a processor has not touched for this long is another's. It touches what it holds thrice as often.
    pub takeover: Duration,
}

impl Default for StreamOptions {
    fn default() -> Self {
        Self {
            stream: "log_queue".to_owned(),
            max_queue_bytes: 64 << 20,
            compression: Compression::None,
            takeover: Duration::from_secs(10),
        }
    }
}

/// What is in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Frames not acknowledged.
    pub entries: u64,
    /// Their bytes, as far as producers counted them.
    pub bytes: u64,
    /// Age of the oldest.
    pub oldest_age: Duration,
}

/// A stream on a server.
#[derive(Debug, Clone)]
pub struct RedisStream {
    config: RedisConfig,
    options: StreamOptions,
    keys: Keys,
}

impl RedisStream {
    /// Connects to nothing yet.
    pub fn try_new(config: RedisConfig, options: StreamOptions) -> Result<Self, TransportError> {
        let keys = Keys::try_new(&options.stream)?;
        Ok(Self { config, options, keys })
    }

    /// A reader's end. Fails if the server cannot be reached now, after five tries; later it is waited for.
    pub async fn producer(&self) -> Result<RedisProducer, TransportError> {
        let link = Link::connect(&self.config).await?;
        RedisProducer::start(link, self.keys.clone(), self.options.clone()).await
    }

    /// A processor's end; with `drain` it ends when the stream is empty. Fails as [`Self::producer`] does.
    pub async fn consumer(&self, drain: bool) -> Result<RedisConsumer, TransportError> {
        let link = Link::connect(&self.config).await?;
        RedisConsumer::start(link, self.keys.clone(), self.options.clone(), drain).await
    }

    /// What is in the stream now.
    pub async fn depth(&self) -> Result<Depth, TransportError> {
        let link = Link::connect(&self.config).await?;
        let (entries, bytes, oldest_ms): (u64, u64, u64) = link.query(&scripts::depth(&self.keys)).await?;
        Ok(Depth { entries, bytes, oldest_age: Duration::from_millis(oldest_ms) })
    }
}
