//! The task that puts frames into the stream, in order, as long as there is room.
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::RedisWrite;

use super::super::TransportError;
use super::super::frame::EncodedFrame;
use super::keys::{EntryId, FRAME, Keys};
use super::link::Link;
use super::producer::Outbox;
use super::scripts;
use super::unreported::ChunkKey;

/// How often a full stream is asked for room.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

pub(super) async fn run(link: Arc<Link>, keys: Keys, max_queue_bytes: usize, outbox: Arc<Outbox>) {
    loop {
        let next = outbox.unreported().next_to_ship();
        let Some((key, frame)) = next else {
            outbox.work.notified().await;
            continue;
        };
        if let Err(error) = ship(&link, &keys, max_queue_bytes, &outbox, key, &frame).await {
            return outbox.fail(error);
        }
        outbox.changed.notify_waiters();
    }
}

async fn ship(
    link: &Link,
    keys: &Keys,
    max_queue_bytes: usize,
    outbox: &Outbox,
    key: ChunkKey,
    frame: &EncodedFrame,
) -> Result<(), TransportError> {
    let reserve = scripts::reserve(keys, frame.len_bytes(), max_queue_bytes);
    let mut pause = SHORTEST_PAUSE;
    while !link.query::<bool>(&reserve).await? {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        // what an earlier run shipped may be reported meanwhile
        if !outbox.unreported().has(&key) {
            return Ok(());
        }
    }
    let entry: Vec<u8> = link.query(&add(keys, frame)).await?;
    let entry = EntryId::parse(&entry).ok_or_else(|| {
        link.refused((redis::ErrorKind::UnexpectedReturnType, "XADD gave no entry id").into())
    })?;
    outbox.unreported().shipped(key, entry, Instant::now());
    Ok(())
}

/// Never with MAXLEN: what is trimmed would be lost until the reader notices.
fn add(keys: &Keys, frame: &EncodedFrame) -> redis::Cmd {
    let mut command = redis::cmd("XADD");
    command.arg(&keys.stream).arg("*").arg(FRAME);
    command.reserve_space_for_args([frame.len_bytes()]);
    // header and payload become one argument here, where they have to be copied anyway
    let mut argument = command.writer_for_next_arg();
    let _infallible = std::io::Write::write_all(&mut argument, &frame.header)
        .and_then(|()| std::io::Write::write_all(&mut argument, &frame.payload));
    drop(argument);
    command
}
