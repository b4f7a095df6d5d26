//! A list of Redis: one JSON object for each aggregate of a closed window, corrections in a list beside it.
//!
//! With the objects, in one transaction, goes the number of the last entry; what Redis has is not pushed again, even
//! where its answer was lost. In a cluster both lists and that number must be in one slot: give the name a
//! `{hash tag}`.
use async_trait::async_trait;

use super::{WindowSink, WindowSinkError};
use crate::client::redis::RESPONSE_TIMEOUT;
use crate::client::{RedisConfig, RedisConnection};
use crate::store::windows::outbox::{Entry, Kind, QUEUE};

/// All of it or nothing: a transaction would go on behind a push that fails.
const PUSH: &str = "
for list = 1, 2 do
    local kind = redis.call('TYPE', KEYS[list]).ok
    if kind ~= 'list' and kind ~= 'none' then
        return redis.error_reply('WRONGTYPE ' .. KEYS[list] .. ' is no list; give another --queue-name')
    end
end
for position = 2, #ARGV, 2 do
    redis.call('LPUSH', KEYS[tonumber(ARGV[position])], ARGV[position + 1])
end
redis.call('SET', KEYS[3], ARGV[1])
";

/// Where closed windows are pushed to.
#[derive(Debug)]
pub struct RedisQueue {
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
        // whatever the address and the list are called: what waits is for the queue that there is
        QUEUE
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
        let push = redis::Script::new(PUSH);
        let mut push = push.prepare_invoke();
        push.key(&self.list).key(&self.corrections).key(&self.mark).arg(last.max(delivered));
        for entry in entries.iter().filter(|entry| entry.seq > delivered) {
            let mut object = entry.row.json();
            let list = if entry.kind == Kind::Corrected {
                object["version"] = entry.row.version.into();
                2
            } else {
                1
            };
            push.arg(list).arg(object.to_string());
        }
        let () = push.invoke_async(&mut connection).await.map_err(self.failed("push aggregates"))?;
        self.connection = Some((connection, last.max(delivered)));
        Ok(())
    }
}
