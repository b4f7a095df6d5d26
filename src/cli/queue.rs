//! What carries chunks from readers to processors: `--via` and the flags of a Redis stream.
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::UsageError;
use super::units::{parse_duration, parse_size};
use crate::client::{ClientError, RedisConfig, redacted};
use crate::transport::{Compression, RedisStream, StreamOptions};

/// What `--via` says.
#[derive(Debug, Clone)]
pub(super) enum Via {
    /// A bounded queue in this process.
    Memory,
    /// A stream at this URL.
    Redis(String),
}

impl Via {
    /// Not a parser of the command line's: that prints what it refuses, a password included.
    pub(super) fn parse(text: &str) -> Result<Self, UsageError> {
        match text {
            "memory" => Ok(Self::Memory),
            url if ["redis://", "rediss://"].iter().any(|scheme| url.starts_with(scheme)) => {
                Ok(Self::Redis(url.to_owned()))
            }
            other => {
                Err(UsageError(format!("--via {} is neither memory nor redis://host:port", redacted(other))))
            }
        }
    }
}

/// How to use a stream.
#[derive(Debug, Args)]
pub(super) struct StreamArgs {
    /// Name of the stream; readers and processors that share it share the work
    #[arg(long, value_name = "NAME", default_value = "log_queue", help_heading = "Redis")]
    stream: String,
    /// Most bytes in the stream: readers wait while it is full
    #[arg(long, value_name = "SIZE", default_value = "64MiB", value_parser = parse_size, help_heading = "Redis")]
    max_queue_bytes: usize,
    /// Compress chunks in the stream
    #[arg(long, value_enum, default_value_t, help_heading = "Redis")]
    compression: FrameCompression,
    /// Take over the chunks of a processor that has been silent for this long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration, help_heading = "Redis")]
    takeover: Duration,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum FrameCompression {
    /// The fastest within one machine
    #[default]
    None,
    /// A third of the bytes, for a network between
    Lz4,
    /// A sixth of the bytes, for a slow network
    Zstd,
}

impl StreamArgs {
    /// Connects to nothing yet. Without a URL it is the Redis of `docker-compose.yml`.
    pub(super) fn open(&self, url: &str) -> anyhow::Result<RedisStream> {
        let options = StreamOptions {
            stream: self.stream.clone(),
            max_queue_bytes: self.max_queue_bytes,
            compression: match self.compression {
                FrameCompression::None => Compression::None,
                FrameCompression::Lz4 => Compression::Lz4,
                FrameCompression::Zstd => Compression::Zstd,
            },
            takeover: self.takeover,
        };
        Ok(RedisStream::try_new(RedisConfig::parse(url)?, options)?)
    }
}

/// The URL of a command that can only go through Redis.
pub(super) fn redis_url(via: Option<&str>) -> anyhow::Result<String> {
    match via.map(Via::parse).transpose()? {
        Some(Via::Redis(url)) => Ok(url),
        None => Ok(crate::client::default_redis_url()),
        Some(Via::Memory) => Err(ClientError::BadUrl {
            location: "--via memory".to_owned(),
            reason: "ends with this process; name redis://host:port, or do both halves by `pipeline run`"
                .to_owned(),
        }
        .into()),
    }
}
