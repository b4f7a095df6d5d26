//! What every transport promises, held against each of them.
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

async fn receive(consumer: &mut dyn Consumer) -> Delivery {
    consumer.receive().await.unwrap().unwrap()
}

async fn is_pending<T>(future: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_millis(50), future).await.is_err()
}

/// Both ends of a queue bounded to ten bytes.
type Ends = (Box<dyn Producer>, Box<dyn Consumer>);

fn memory_ends() -> Ends {
    let (producer, consumer) = memory(10);
    (Box::new(producer), Box::new(consumer))
}

async fn a_full_queue_blocks_the_producer_until_there_is_room((producer, mut consumer): Ends) {
    producer.send(chunk(0, 8)).await.unwrap();
    let mut second = producer.send(chunk(8, 8));
    assert!(is_pending(&mut second).await);
    let first = receive(&mut *consumer).await;
    assert_eq!(first.chunk.first_byte, 0);
    consumer.ack(&[first.id]).await.unwrap();
    second.await.unwrap();
    assert_eq!(receive(&mut *consumer).await.chunk.first_byte, 8);
}

async fn a_chunk_larger_than_the_queue_passes_alone((producer, mut consumer): Ends) {
    producer.send(chunk(0, 100)).await.unwrap();
    assert_eq!(receive(&mut *consumer).await.chunk.bytes.len(), 100);
}

async fn finish_waits_for_the_last_ack((producer, mut consumer): Ends) {
    producer.send(chunk(0, 4)).await.unwrap();
    producer.send(chunk(4, 4)).await.unwrap();
    let (first, second) = (receive(&mut *consumer).await, receive(&mut *consumer).await);
    let mut finish = producer.finish();
    consumer.ack(&[first.id]).await.unwrap();
    assert!(is_pending(&mut finish).await);
    consumer.ack(&[second.id]).await.unwrap();
    finish.await.unwrap();
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    a_full_queue_blocks_the_producer_until_there_is_room(memory_ends()).await;
    a_chunk_larger_than_the_queue_passes_alone(memory_ends()).await;
    finish_waits_for_the_last_ack(memory_ends()).await;
}

#[tokio::test]
async fn in_memory_a_gone_processor_is_an_error_not_a_hang() {
    let (producer, consumer) = memory(10);
    producer.send(chunk(0, 4)).await.unwrap();
    drop(consumer);
    assert!(matches!(producer.send(chunk(4, 1)).await, Err(TransportError::Closed)));
    assert!(matches!(producer.finish().await, Err(TransportError::Closed)));
}

#[tokio::test]
async fn in_memory_the_last_chunk_is_followed_by_the_end() {
    let (producer, mut consumer) = memory(10);
    producer.send(chunk(0, 8)).await.unwrap();
    assert!(is_pending(producer.finish()).await);
    let last = receive(&mut consumer).await;
    assert!(consumer.receive().await.unwrap().is_none());
    consumer.ack(&[last.id]).await.unwrap();
    producer.finish().await.unwrap();
}
