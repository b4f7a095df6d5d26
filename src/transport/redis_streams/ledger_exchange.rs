//! How a reader, which cannot ask the sinks, learns what they hold: it asks, and some processor answers.
//!
//! A question is a reply key in a set, so that asking again asks nothing new; set and answers expire, so that a
//! reader that went away leaves nothing. An answer is the ledger as JSON, compressed.
use std::io::Read;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::super::{LedgerRequest, TransportError};
use super::keys::Keys;
use super::link::Link;
use crate::model::Ledger;

/// A question is asked again this often: Redis or the processor that took it may be gone.
const ASK_AGAIN: Duration = Duration::from_secs(5);
const QUESTION_EXPIRES_S: u64 = 15;
const ANSWER_EXPIRES_S: u64 = 60;
/// How often an answer is looked for, and how often questions.
const ANSWER_INTERVAL: Duration = Duration::from_millis(20);
const QUESTION_INTERVAL: Duration = Duration::from_millis(100);
/// Waiting for longer than this is told.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than the ledger of a million sources takes.
const MAX_LEDGER_BYTES: u64 = 1 << 30;

pub(super) async fn ask(link: &Link, keys: &Keys) -> Result<Ledger, TransportError> {
    let reply = keys.reply(&uuid::Uuid::now_v7().simple().to_string());
    let started = Instant::now();
    let mut asked: Option<Instant> = None;
    let mut told = false;
    loop {
        if asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN) {
            let _added: i64 = link.query(redis::cmd("SADD").arg(&keys.requests).arg(&reply)).await?;
            let _set: i64 =
                link.query(redis::cmd("EXPIRE").arg(&keys.requests).arg(QUESTION_EXPIRES_S)).await?;
            asked = Some(Instant::now());
        }
        let answer: Option<Vec<u8>> = link.query(redis::cmd("GET").arg(&reply)).await?;
        if let Some(answer) = answer {
            let _deleted: i64 = link.query(redis::cmd("DEL").arg(&reply)).await?;
            return decode(&answer).map_err(|error| TransportError::Ledger(error.to_string()));
        }
        if !told && started.elapsed() >= PATIENCE {
            tracing::warn!("waiting for a processor to say what is committed already; is one running?");
            told = true;
        }
        tokio::time::sleep(ANSWER_INTERVAL).await;
    }
}

/// Passes questions on to the processor and answers on to the readers, until the processor is gone.
pub(super) async fn serve(
    link: Arc<Link>,
    keys: Keys,
    requests: mpsc::Sender<LedgerRequest>,
) -> Result<(), TransportError> {
    loop {
        tokio::time::sleep(QUESTION_INTERVAL).await;
        let reply: Option<String> = link.query(redis::cmd("SPOP").arg(&keys.requests)).await?;
        let Some(reply) = reply else { continue };
        let (request, answer) = LedgerRequest::new();
        if requests.send(request).await.is_err() {
            return Ok(());
        }
        // not answered: the reader asks again
        let Ok(ledger) = answer.await else { continue };
        let answer = encode(&ledger).map_err(|error| TransportError::Ledger(error.to_string()))?;
        let mut set = redis::cmd("SET");
        set.arg(&reply).arg(&answer[..]).arg("EX").arg(ANSWER_EXPIRES_S);
        let () = link.query(&set).await?;
    }
}

fn encode(ledger: &Ledger) -> std::io::Result<Vec<u8>> {
    let mut out = zstd::stream::Encoder::new(Vec::new(), 1)?;
    serde_json::to_writer(&mut out, ledger)?;
    out.finish()
}

fn decode(answer: &[u8]) -> std::io::Result<Ledger> {
    let decompressed = zstd::stream::Decoder::new(answer)?.take(MAX_LEDGER_BYTES);
    Ok(serde_json::from_reader(std::io::BufReader::new(decompressed))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KnownSource, Source};

    #[test]
    fn a_ledger_arrives_as_it_was() {
        let source = Source {
            path: "/a".into(),
            device: 1,
            inode: 2,
            generation: 3,
            head_len_bytes: 4,
            head_hash: u64::MAX,
            id: u64::MAX - 1,
        };
        let known = KnownSource {
            source,
            committed: vec![(0, 10), (20, u64::MAX)],
            open: Some((30, 40)),
            last_chunk: (20, 30, [255; 32]),
        };
        let ledger = Ledger { sources: [(u64::MAX - 1, known)].into() };
        assert_eq!(decode(&encode(&ledger).unwrap()).unwrap(), ledger);
        assert!(decode(b"something else").is_err());
    }
}
