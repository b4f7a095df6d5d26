//! A connection to Redis that outlives the server: commands wait while it is away.
//!
//! Invariant: a command returns an error only for what waiting cannot help. It may have been carried out more than
//! once then; all commands of this transport allow that. Each task that blocks has a link of its own.
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, Value};

use super::super::TransportError;
use crate::client::redis::{RESPONSE_TIMEOUT, is_retriable};
use crate::client::{ClientError, RedisConfig, RedisConnection};
use crate::telemetry::Metric;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Whether the server is there, as far as the links of one end know. Said once, whoever notices; and that it is back
/// once all links that missed it have it again, for of a cluster a part may be away.
#[derive(Debug)]
struct Presence {
    config: RedisConfig,
    missed_by: AtomicUsize,
}

/// One connection, made anew when it is lost.
#[derive(Debug)]
pub(super) struct Link {
    presence: Arc<Presence>,
    misses_it: AtomicBool,
    /// What it was at the start.
    is_cluster: bool,
    connection: Mutex<Option<RedisConnection>>,
}

impl Link {
    /// Connects; at the start of a command only, because it gives up after some tries.
    pub(super) async fn connect(config: &RedisConfig) -> Result<Self, ClientError> {
        let connection = config.connect_at_start(Some(RESPONSE_TIMEOUT)).await?;
        let presence = Arc::new(Presence { config: config.clone(), missed_by: AtomicUsize::new(0) });
        Ok(Self::new(presence, connection.is_cluster(), Some(connection)))
    }

    fn new(presence: Arc<Presence>, is_cluster: bool, connection: Option<RedisConnection>) -> Self {
        let misses_it = AtomicBool::new(false);
        Self { presence, misses_it, is_cluster, connection: Mutex::new(connection) }
    }

    pub(super) fn is_cluster(&self) -> bool {
        self.is_cluster
    }

    /// Another connection to the same server, made when it is first used.
    pub(super) fn another(&self) -> Self {
        Self::new(Arc::clone(&self.presence), self.is_cluster, None)
    }

    /// What the server answers, however long it takes until it does.
    pub(super) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, TransportError> {
        match self.try_query(command).await? {
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.refused(error)),
        }
    }

    /// As [`Self::query`]; `None` if there is no such group, because the stream was lost. The task that takes
    /// entries makes it anew.
    pub(super) async fn query_group<T: FromRedisValue>(
        &self,
        command: &Cmd,
    ) -> Result<Option<T>, TransportError> {
        match self.try_query(command).await? {
            Ok(reply) => Ok(Some(reply)),
            // from a script, Redis 6 tells the code only in the text
            Err(error)
                if ["NOGROUP", "UNBLOCKED", "no such key"]
                    .iter()
                    .any(|text| error.to_string().contains(text)) =>
            {
                Ok(None)
            }
            Err(error) => Err(self.refused(error)),
        }
    }

    /// As [`Self::query`], but the server's own errors are the caller's to judge.
    pub(super) async fn try_query<T: FromRedisValue>(
        &self,
        command: &Cmd,
    ) -> Result<Result<T, RedisError>, TransportError> {
        let mut pause = FIRST_PAUSE;
        loop {
            let trouble = match self.connection().await {
                Ok(mut connection) => match command.query_async::<Value>(&mut connection).await {
                    Ok(reply) => {
                        self.back();
                        return Ok(redis::from_redis_value(reply).map_err(RedisError::from));
                    }
                    // nothing is converted yet: an answer that cannot be parsed broke off with its connection
                    Err(error) if is_retriable(&error) || error.kind() == ErrorKind::Parse => {
                        *self.lock() = None;
                        error.to_string()
                    }
                    Err(error) if is_full(&error) => error.to_string(),
                    Err(error) => return Ok(Err(error)),
                },
                Err(ClientError::Unreachable { source, .. }) => source.to_string(),
                Err(error) => return Err(error.into()),
            };
            // a connection that was closed is often had again at once: that is nothing to tell
            if pause > FIRST_PAUSE {
                self.lost(&trouble);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn lost(&self, error: &str) {
        let is_news = !self.misses_it.swap(true, Ordering::Relaxed);
        if is_news && self.presence.missed_by.fetch_add(1, Ordering::Relaxed) == 0 {
            Metric::RedisOutages.add(1);
            let address = self.presence.config.address();
            tracing::warn!("redis at {address} does not serve: {error}; waiting for it");
        }
    }

    fn back(&self) {
        let is_news = self.misses_it.load(Ordering::Relaxed) && self.misses_it.swap(false, Ordering::Relaxed);
        if is_news && self.presence.missed_by.fetch_sub(1, Ordering::Relaxed) == 1 {
            tracing::warn!("redis at {} is back", self.presence.config.address());
        }
    }

    pub(super) fn refused(&self, source: RedisError) -> TransportError {
        TransportError::Redis { address: self.presence.config.address(), source }
    }

    async fn connection(&self) -> Result<RedisConnection, ClientError> {
        if let Some(connection) = self.lock().clone() {
            return Ok(connection);
        }
        let connection = self.presence.config.connect(Some(RESPONSE_TIMEOUT)).await?;
        *self.lock() = Some(connection.clone());
        Ok(connection)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<RedisConnection>> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server is there, but takes no writes now: out of memory or disk, too few replicas, or busy with a script.
fn is_full(error: &RedisError) -> bool {
    matches!(error.code(), Some("OOM" | "MISCONF" | "NOREPLICAS" | "BUSY"))
}
