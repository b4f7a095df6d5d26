//! Accepted events -> archive, as lines of the log type `events`.
//!
//! The lines that the receiver kept are one source, named after its state; each goes the way of every line, so that
//! the archive's ledger takes it once, whatever is killed. What is in the archive is removed from the state.
//! Deliberately absent: any hold on the receiver; an archive that is away is caught up with.
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::shutdown::Shutdown;
use crate::client::{redacted, with_causes};
use crate::decode::Decoder;
use crate::log_type::{LogType, LogTypeError, LogTypes};
use crate::model::{RawChunk, Source};
use crate::sink::{ArchiveSink, Sink, SinkError};
use crate::store::{SqliteStore, StoreError};
use crate::webhook;

/// What has arrived is committed this often: every commit is a file per day of the events.
const INTERVAL: Duration = Duration::from_secs(30);
/// Or when there are so many bytes, which are held in memory several times.
const MAX_CHUNK_BYTES: usize = 4 << 20;
/// Pauses after failures grow up to this.
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Why events cannot be archived now.
#[derive(Debug, Error)]
pub enum EventArchiveError {
    /// The archive failed.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The state failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The type of the lines cannot be used.
    #[error(transparent)]
    LogType(#[from] LogTypeError),
}

/// After a request to stop, what waits is archived within this time or with the next start.
const DRAIN: Duration = Duration::from_secs(5);

/// Archives until `stop` is requested, then what is left.
pub async fn archive(store: SqliteStore, identity: String, location: String, stop: Shutdown) {
    let path = format!("webhook:{identity}");
    let id = Source::identity(&path, 0, 0, 0);
    let head_hash = Source::hash_head(&[]);
    let source = Source { path, device: 0, inode: 0, generation: 0, head_len_bytes: 0, head_hash, id };
    let source = Arc::new(source);
    let mut failures = 0_u32;
    loop {
        let is_last = stop.is_requested();
        let archived = match is_last {
            false => tokio::select! {
                archived = archive_all(&store, &source, &location) => archived,
                // what is under way may be for long: it is begun anew with a limit of time
                () = stop.requested() => continue,
            },
            true => match tokio::time::timeout(DRAIN, archive_all(&store, &source, &location)).await {
                Ok(archived) => archived,
                Err(_) => {
                    let location = redacted(&location);
                    tracing::warn!("{location}: does not answer; events wait for the next start");
                    return;
                }
            },
        };
        let pause = match archived {
            Ok(()) => {
                failures = 0;
                INTERVAL
            }
            Err(error) => {
                if failures == 0 {
                    let (location, why) = (redacted(&location), with_causes(&error));
                    tracing::warn!("{location}: events wait until it takes them: {why}");
                }
                failures += 1;
                MAX_PAUSE.min(Duration::from_millis(500) * 2_u32.saturating_pow(failures.min(8)))
            }
        };
        if is_last {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.requested() => {}
        }
    }
}

/// All that waits now, in chunks of bounded size. The archive is opened anew each time: nothing of it stays in memory
/// between two commits.
async fn archive_all(
    store: &SqliteStore,
    source: &Arc<Source>,
    location: &str,
) -> Result<(), EventArchiveError> {
    let mut waiting = store.event_lines(MAX_CHUNK_BYTES).await?;
    if waiting.is_none() {
        return Ok(());
    }
    let events = LogType::try_new("events", webhook::EVENTS_TYPE)?;
    let mut decoder = Decoder::new(&LogTypes::new(vec![Arc::new(events)]));
    let mut sink = ArchiveSink::try_new(location).await?;
    sink.ledger().await?;
    while let Some((first_byte, lines)) = waiting {
        let end_byte = first_byte + lines.len() as u64;
        let bytes = Bytes::from(lines);
        let chunk = RawChunk {
            source: Arc::clone(source),
            first_byte,
            content_sha256: Sha256::digest(&bytes).into(),
            bytes,
            reference_time: 0,
            piece: None,
            open: false,
        };
        // all of it, but after a kill between commit and removal
        for (from, to) in sink.lacking(&chunk.range()).await? {
            for part in chunk.part(from, to) {
                sink.write(decoder.decode(&part)).await?;
            }
        }
        sink.flush().await?;
        if sink.lacking(&chunk.range()).await?.is_empty() {
            store.remove_event_lines(end_byte).await?;
        }
        waiting = store.event_lines(MAX_CHUNK_BYTES).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_of_events_takes_its_own_examples() {
        let events = LogType::try_new("events", webhook::EVENTS_TYPE).unwrap();
        assert!(!events.examples.is_empty());
        let types = LogTypes::new(vec![Arc::new(events.clone())]);
        for example in &events.examples {
            let bytes = Bytes::from(format!("{}\n", example.line));
            let chunk = RawChunk {
                source: Arc::new(Source {
                    path: "test".to_owned(),
                    device: 0,
                    inode: 0,
                    generation: 0,
                    head_len_bytes: 0,
                    head_hash: 0,
                    id: 1,
                }),
                first_byte: 0,
                content_sha256: Sha256::digest(&bytes).into(),
                bytes,
                reference_time: 0,
                piece: None,
                open: false,
            };
            let batch = Decoder::new(&types).decode(&chunk);
            assert_eq!((batch.record.num_rows, batch.record.num_rejects), (1, 0), "{}", example.line);
        }
    }
}
