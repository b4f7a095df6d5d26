//! Transport over Redis streams: readers and processors are separate processes, as many of each as wanted.
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
//! In a cluster a queue is sixteen such streams, each in another part of the slots (`log_queue:shard:7` beside
//! `log_queue`), with dead letters and questions for the ledger in one place. All chunks of a source go to one of
//! them, so that they keep their order. The bound is each stream's; what a producer keeps is bounded for all together.
//!
//! While Redis is away both ends wait. Deliberately absent: exactly-once delivery, and order between producers.
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OnceCell;

use super::TransportError;
use super::frame::Compression;
use crate::client::RedisConfig;

mod consumer;
mod depths;
mod fetch;
mod keys;
mod ledger_exchange;
mod link;
mod producer;
mod reports;
mod scripts;
mod shipping;
mod stream_consumer;
mod unreported;
mod upkeep;

pub use consumer::RedisConsumer;
pub use producer::RedisProducer;

use keys::Keys;
use link::Link;

/// The streams that a queue of this name is, for one who looks at them from outside.
pub fn streams_of(queue: &str, is_cluster: bool) -> Result<Vec<String>, TransportError> {
    let keys = Keys::try_new(queue)?;
    Ok(if is_cluster {
        keys.shards().into_iter().map(|keys| keys.stream).collect()
    } else {
        vec![keys.stream]
    })
}

/// How to use a stream. Readers and processors of one stream should agree on it.
#[derive(Debug, Clone)]
pub struct StreamOptions {
    /// Name of the stream.
    pub stream: String,
    /// Most bytes in a stream, and most that a producer keeps. A single larger chunk passes alone.
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

/// What is in a queue.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Depth {
    /// Frames not acknowledged.
    pub entries: u64,
    /// Their bytes, as far as producers counted them.
    pub bytes: u64,
    /// Age of the oldest.
    pub oldest_age: Duration,
}

impl Depth {
    fn and(self, other: Self) -> Self {
        Self {
            entries: self.entries + other.entries,
            bytes: self.bytes + other.bytes,
            oldest_age: self.oldest_age.max(other.oldest_age),
        }
    }
}

/// A stream on a server, or a queue on a cluster.
#[derive(Debug, Clone)]
pub struct RedisStream {
    config: RedisConfig,
    options: StreamOptions,
    keys: Keys,
    /// For [`Self::depth`], which a display asks again and again.
    link: Arc<OnceCell<Link>>,
}

impl RedisStream {
    /// Connects to nothing yet.
    pub fn try_new(config: RedisConfig, options: StreamOptions) -> Result<Self, TransportError> {
        let keys = Keys::try_new(&options.stream)?;
        Ok(Self { config, options, keys, link: Arc::default() })
    }

    /// A reader's end. Fails if the server cannot be reached now, after five tries; later it is waited for.
    pub async fn producer(&self) -> Result<RedisProducer, TransportError> {
        let link = Link::connect(&self.config).await?;
        let shards = self.shards(&link);
        RedisProducer::start(link, self.keys.clone(), shards, self.options.clone()).await
    }

    /// A processor's end; with `drain` it ends when the stream is empty. Fails as [`Self::producer`] does.
    pub async fn consumer(&self, drain: bool) -> Result<RedisConsumer, TransportError> {
        let link = Link::connect(&self.config).await?;
        let shards = self.shards(&link);
        RedisConsumer::start(link, shards, &self.options, drain).await
    }

    /// What is in the stream now. Fails as [`Self::producer`] does the first time, and waits for the server later.
    pub async fn depth(&self) -> Result<Depth, TransportError> {
        let link = self.link.get_or_try_init(|| Link::connect(&self.config)).await?;
        let mut depth = Depth::default();
        for keys in self.shards(link) {
            let (entries, bytes, oldest_ms): (u64, u64, u64) = link.query(&scripts::depth(&keys)).await?;
            depth = depth.and(Depth { entries, bytes, oldest_age: Duration::from_millis(oldest_ms) });
        }
        Ok(depth)
    }

    fn shards(&self, link: &Link) -> Vec<Keys> {
        if link.is_cluster() { self.keys.shards() } else { vec![self.keys.clone()] }
    }
}
