//! What every transport promises, held against each of them.
use std::sync::Arc;
use std::time::Duration;

use pipeline::client::RedisConfig;
use pipeline::model::{RawChunk, Source};
use pipeline::transport::{Compression, Consumer, Delivery, Producer, RedisStream, StreamOptions, memory};

use crate::servers::{Redis, RedisOptions};

/// Bytes of chunks and what they take beside that. One chunk of 8,000 bytes fits, two do not.
const QUEUE_BYTES: usize = 10_000;

/// Both ends of a queue of [`QUEUE_BYTES`].
type Ends = (Box<dyn Producer>, Box<dyn Consumer>);

pub(crate) fn source(id: u64) -> Arc<Source> {
    Arc::new(Source {
        path: format!("{id}.log"),
        device: 1,
        inode: id,
        generation: 0,
        head_len_bytes: 0,
        head_hash: 0,
        id,
    })
}

/// Of source 7; the bytes follow from the place.
pub(crate) fn chunk(first_byte: u64, len_bytes: usize) -> RawChunk {
    chunk_of(&source(7), first_byte, len_bytes)
}

pub(crate) fn chunk_of(source: &Arc<Source>, first_byte: u64, len_bytes: usize) -> RawChunk {
    let bytes = (first_byte..first_byte + len_bytes as u64).map(|at| (at % 251) as u8);
    RawChunk {
        source: Arc::clone(source),
        first_byte,
        bytes: bytes.collect::<Vec<_>>().into(),
        content_sha256: [3; 32],
        reference_time: 5,
        piece: None,
        open: false,
    }
}

/// The next chunk, which has to come.
#[track_caller]
pub(crate) fn receive(consumer: &mut dyn Consumer) -> impl Future<Output = Delivery> {
    let place = std::panic::Location::caller();
    async move {
        match soon(consumer.receive()).await {
            Ok(Ok(Some(delivery))) => delivery,
            other => panic!("{place}: {other:?}"),
        }
    }
}

/// What takes longer than any server needs is an error.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> Result<T, &'static str> {
    tokio::time::timeout(Duration::from_secs(60), future).await.map_err(|_elapsed| "hangs")
}

pub(crate) async fn is_pending<T>(future: impl Future<Output = T>) -> bool {
    tokio::time::timeout(Duration::from_millis(200), future).await.is_err()
}

async fn what_is_sent_arrives_as_it_was((producer, mut consumer): Ends) {
    for (first_byte, len_bytes) in [(0, 1), (1, 999), (1000, 3000)] {
        let sent = chunk(first_byte, len_bytes);
        producer.send(sent.clone()).await.unwrap();
        let received = receive(&mut *consumer).await;
        assert_eq!(format!("{:?}", received.chunk), format!("{sent:?}"));
        consumer.ack(&[received.id]).await.unwrap();
    }
    soon(producer.finish()).await.unwrap().unwrap();
}

async fn a_full_queue_blocks_the_producer_until_there_is_room((producer, mut consumer): Ends) {
    producer.send(chunk(0, 8000)).await.unwrap();
    let mut second = producer.send(chunk(8000, 8000));
    assert!(is_pending(&mut second).await);
    let first = receive(&mut *consumer).await;
    assert_eq!(first.chunk.first_byte, 0);
    consumer.ack(&[first.id]).await.unwrap();
    soon(second).await.unwrap().unwrap();
    assert_eq!(receive(&mut *consumer).await.chunk.first_byte, 8000);
}

async fn a_chunk_larger_than_the_queue_passes_alone((producer, mut consumer): Ends) {
    producer.send(chunk(0, 100_000)).await.unwrap();
    assert_eq!(receive(&mut *consumer).await.chunk.bytes.len(), 100_000);
}

async fn finish_waits_for_the_last_ack((producer, mut consumer): Ends) {
    producer.send(chunk(0, 4000)).await.unwrap();
    producer.send(chunk(4000, 4000)).await.unwrap();
    let (first, second) = (receive(&mut *consumer).await, receive(&mut *consumer).await);
    let mut finish = producer.finish();
    consumer.ack(&[first.id]).await.unwrap();
    assert!(is_pending(&mut finish).await);
    consumer.ack(&[second.id]).await.unwrap();
    soon(finish).await.unwrap().unwrap();
    soon(consumer.close()).await.unwrap().unwrap();
}

async fn a_receive_that_is_given_up_loses_nothing((producer, mut consumer): Ends) {
    for number in 0..20 {
        producer.send(chunk(number * 100, 100)).await.unwrap();
    }
    for number in 0..20 {
        let delivery = loop {
            // given up in whatever state it is in
            let receiving = tokio::time::timeout(Duration::from_micros(20), consumer.receive());
            if let Ok(received) = receiving.await {
                break received.unwrap().unwrap();
            }
        };
        assert_eq!(delivery.chunk.first_byte, number * 100);
    }
}

async fn keeps_the_contract(ends: impl AsyncFn() -> Ends) {
    what_is_sent_arrives_as_it_was(ends().await).await;
    a_full_queue_blocks_the_producer_until_there_is_room(ends().await).await;
    a_chunk_larger_than_the_queue_passes_alone(ends().await).await;
    finish_waits_for_the_last_ack(ends().await).await;
    a_receive_that_is_given_up_loses_nothing(ends().await).await;
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    keeps_the_contract(async || {
        let (producer, consumer) = memory(QUEUE_BYTES);
        (Box::new(producer) as Box<dyn Producer>, Box::new(consumer) as Box<dyn Consumer>)
    })
    .await;
}

/// A stream that no other test has.
pub(crate) fn stream(redis: &Redis, change: impl FnOnce(&mut StreamOptions)) -> RedisStream {
    stream_at(&redis.url(), change)
}

pub(crate) fn stream_at(url: &str, change: impl FnOnce(&mut StreamOptions)) -> RedisStream {
    let mut options = StreamOptions { stream: Redis::unique("queue"), ..StreamOptions::default() };
    change(&mut options);
    RedisStream::try_new(RedisConfig::parse(url).unwrap(), options).unwrap()
}

async fn redis_keeps_the_contract(redis: &Redis, compression: Compression) {
    redis_at_keeps_the_contract(&redis.url(), compression).await;
}

pub(crate) async fn redis_at_keeps_the_contract(url: &str, compression: Compression) {
    keeps_the_contract(async || {
        let stream = stream_at(url, |options| {
            (options.max_queue_bytes, options.compression) = (QUEUE_BYTES, compression);
        });
        let (producer, consumer) = (stream.producer().await.unwrap(), stream.consumer(false).await.unwrap());
        (Box::new(producer) as Box<dyn Producer>, Box::new(consumer) as Box<dyn Consumer>)
    })
    .await;
}

#[tokio::test]
async fn redis_keeps_the_contract_alone() {
    redis_keeps_the_contract(Redis::shared(), Compression::None).await;
}

#[tokio::test]
async fn redis_keeps_the_contract_with_a_password() {
    let options = RedisOptions { password: Some("secret"), ..RedisOptions::default() };
    redis_keeps_the_contract(&Redis::start_with(options), Compression::None).await;
}

#[tokio::test]
async fn redis_keeps_the_contract_with_tls() {
    let options = RedisOptions { tls: true, ..RedisOptions::default() };
    redis_keeps_the_contract(&Redis::start_with(options), Compression::None).await;
}

#[tokio::test]
async fn redis_keeps_the_contract_as_a_cluster() {
    let options = RedisOptions { cluster: true, ..RedisOptions::default() };
    redis_keeps_the_contract(&Redis::start_with(options), Compression::None).await;
}
