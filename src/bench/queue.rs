//! How much waits between reader and processor.
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::BenchError;
use crate::client::RedisConnection;
use crate::transport::{self, TransportError};

/// Length, bytes, and the first entry's id: in a script, because a frame is as large as a chunk and is not wanted.
const LOOK: &str = "local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return {redis.call('XLEN', KEYS[1]), redis.call('GET', KEYS[2]) or '0', first and first[1] or false}";

/// The queue that is looked at.
pub struct Queue {
    connection: RedisConnection,
    /// Several in a cluster.
    streams: Vec<String>,
}

/// What waits in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct QueueDepth {
    /// Frames that are not acknowledged.
    pub frames: u64,
    /// Their bytes, where readers count them.
    pub bytes: Option<u64>,
    /// How long the first of them has been there.
    pub oldest: Option<Duration>,
}

impl Queue {
    /// Looks at the queue of this name.
    pub fn of(connection: RedisConnection, queue: &str) -> Result<Self, TransportError> {
        let streams = transport::streams_of(queue, connection.is_cluster())?;
        Ok(Self { connection, streams })
    }

    /// What waits now. An acknowledged frame is deleted, so that the length of a stream is what waits.
    pub async fn depth(&mut self) -> Result<QueueDepth, BenchError> {
        let mut depth = QueueDepth::default();
        for stream in &self.streams {
            let mut ask = redis::cmd("EVAL");
            ask.arg(LOOK).arg(2).arg(stream).arg(key(stream, "bytes"));
            let answer = ask.query_async(&mut self.connection).await;
            let (frames, bytes, first): (u64, Option<i64>, Option<String>) =
                answer.map_err(BenchError::redis("look at the queue"))?;
            depth.frames += frames;
            if let Some(bytes) = bytes {
                *depth.bytes.get_or_insert(0) += u64::try_from(bytes).unwrap_or(0);
            }
            depth.oldest = depth.oldest.max(first.and_then(|id| age(&id, SystemTime::now())));
        }
        Ok(depth)
    }

    /// Removes the queue with all that belongs to it.
    pub async fn remove(&mut self) -> Result<(), BenchError> {
        for stream in &self.streams {
            let keys = [stream.clone(), key(stream, "bytes"), key(stream, "reports"), key(stream, "ledger")];
            let removed = redis::cmd("DEL").arg(&keys).query_async(&mut self.connection).await;
            let () = removed.map_err(BenchError::redis("remove the queue"))?;
        }
        Ok(())
    }
}

/// What belongs to a stream has its name as hash tag, so that a cluster keeps it with the stream.
fn key(stream: &str, name: &str) -> String {
    match stream.contains('{') {
        true => format!("{stream}:{name}"),
        false => format!("{{{stream}}}:{name}"),
    }
}

/// An entry's id starts with the server's time in milliseconds.
fn age(id: &str, now: SystemTime) -> Option<Duration> {
    let millis = id.split('-').next()?.parse().ok()?;
    // another machine's clock may be ahead
    Some(now.duration_since(UNIX_EPOCH + Duration::from_millis(millis)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_as_old_as_its_id_says_and_never_younger_than_now() {
        let now = UNIX_EPOCH + Duration::from_millis(5_000);
        assert_eq!(age("3000-7", now), Some(Duration::from_secs(2)));
        assert_eq!(age("9000-0", now), Some(Duration::ZERO));
        assert_eq!(age("x-0", now), None);
    }
}
