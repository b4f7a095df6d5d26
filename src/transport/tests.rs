//! What only the transport within one process promises. What every transport does: `tests/it/transport.rs`.
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::model::Source;

fn chunk(first_byte: u64, len_bytes: usize) -> RawChunk {
    let source = Source {
        path: "a.log".into(),
        device: 1,
        inode: 1,
        generation: 0,
        head_len_bytes: 0,
        head_hash: 0,
        id: 7,
    };
    RawChunk {
        source: Arc::new(source),
        first_byte,
        bytes: Bytes::from(vec![b'x'; len_bytes]),
        content_sha256: [0; 32],
        reference_time: 0,
        piece: None,
        open: false,
    }
}

async fn is_pending<T>(future: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_millis(50), future).await.is_err()
}

#[tokio::test]
async fn a_gone_processor_is_an_error_not_a_hang() {
    let (producer, consumer) = memory(10);
    producer.send(chunk(0, 4)).await.unwrap();
    drop(consumer);
    assert!(matches!(producer.send(chunk(4, 1)).await, Err(TransportError::Closed)));
    assert!(matches!(producer.finish().await, Err(TransportError::Closed)));
}

#[tokio::test]
async fn the_last_chunk_is_followed_by_the_end() {
    let (producer, mut consumer) = memory(10);
    producer.send(chunk(0, 8)).await.unwrap();
    assert!(is_pending(producer.finish()).await);
    let last = consumer.receive().await.unwrap().unwrap();
    assert!(consumer.receive().await.unwrap().is_none());
    consumer.ack(&[last.id]).await.unwrap();
    producer.finish().await.unwrap();
}

#[tokio::test]
async fn nobody_asks_for_the_ledger() {
    let (_producer, mut consumer) = memory(10);
    assert!(is_pending(consumer.ledger_requests().next()).await);
}
