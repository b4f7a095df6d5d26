//! A list of Redis: one JSON object for each aggregate of a closed window, corrections in a list beside it.
//!
//! With the objects, in one transaction, goes the number of the last entry; what Redis has is not pushed again, even
//! where its answer was lost. In a cluster both lists and that number must be in one slot: give the name a
//! `{hash tag}`.
use async_trait::async_trait;

use super::{WindowSink, WindowSinkError};
use crate::client::redis::RESPONSE_TIMEOUT;
use crate::client::{RedisConfig, RedisConnection};
use crate::store::windows::outbox::{Entry, Kind};

/// Where closed windows are pushed to.
#[derive(Debug)]
pub struct RedisQueue {
    name: String,
    config: RedisConfig,
    list: String,
    corrections: String,
    mark: String,
    /// With the number of the last entry that Redis has.
    connection: Option<(RedisConnection, i64)>,
}

impl RedisQueue {
    /// `list` gets closed windows, `list:corrections` what changes them. `identity` tells this program's state from
    /// others that push to the same list. Connects at the first delivery.
    #[must_use]
    pub fn new(config: RedisConfig, list: &str, identity: &str) -> Self {
        Self {
            name: format!("{config}#{list}"),
            config,
            list: list.to_owned(),
            corrections: format!("{list}:corrections"),
            mark: format!("{list}:delivered:{identity}"),
            connection: None,
        }
    }

    async fn connect(&self) -> Result<(RedisConnection, i64), WindowSinkError> {
        let mut connection = self.config.connect(Some(RESPONSE_TIMEOUT)).await?;
        let delivered: Option<i64> = redis::cmd("GET")
            .arg(&self.mark)
            .query_async(&mut connection)
            .await
            .map_err(self.failed("ask what it has"))?;
        Ok((connection, delivered.unwrap_or(0)))
    }

    fn failed(&self, operation: &'static str) -> impl FnOnce(redis::RedisError) -> WindowSinkError {
        let address = self.config.address();
        move |source| WindowSinkError::Redis { address, operation, source }
    }
}

#[async_trait]
impl WindowSink for RedisQueue {
    fn name(&self) -> &str {
        &self.name
    }

    fn is_table(&self) -> bool {
        false
    }

    async fn deliver(&mut self, entries: &[Entry]) -> Result<(), WindowSinkError> {
        // an answer may be lost: whatever fails, the connection and what is known of it are given up
        let (mut connection, delivered) = match self.connection.take() {
            Some(open) => open,
            None => self.connect().await?,
        };
        let Some(last) = entries.last().map(|entry| entry.seq) else { return Ok(()) };
        let mut push = redis::pipe();
        push.atomic();
        for entry in entries.iter().filter(|entry| entry.seq > delivered) {
            let mut object = entry.row.json();
            let list = if entry.kind == Kind::Corrected {
                object["version"] = entry.row.version.into();
                &self.corrections
            } else {
                &self.list
            };
            push.lpush(list, object.to_string()).ignore();
        }
        push.set(&self.mark, last.max(delivered)).ignore();
        let () = push.query_async(&mut connection).await.map_err(self.failed("push aggregates"))?;
        self.connection = Some((connection, last.max(delivered)));
        Ok(())
    }
}
