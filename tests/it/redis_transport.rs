//! What the transport over Redis promises beside the contract of all transports: nothing is lost with a processor,
//! with the stream or with the server, and nothing that is no frame stops the rest.
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use pipeline::client::RedisConfig;
use pipeline::model::{Ledger, RawChunk};
use pipeline::transport::{
    Compression, Consumer, Producer, RedisConsumer, RedisProducer, RedisStream, StreamOptions, TransportError,
};

use crate::servers::{Proxy, Redis, wait_until};
use crate::transport::{chunk, chunk_of, is_pending, receive, soon, source, stream};

const QUICK: Duration = Duration::from_millis(600);

fn quick(redis: &Redis) -> RedisStream {
    stream(redis, |options| options.takeover = QUICK)
}

async fn send(producer: &RedisProducer, chunks: impl IntoIterator<Item = RawChunk>) {
    for chunk in chunks {
        soon(producer.send(chunk)).await.unwrap().unwrap();
    }
    soon(producer.flush()).await.unwrap().unwrap();
}

fn chunks(numbers: std::ops::Range<u64>) -> impl Iterator<Item = RawChunk> {
    numbers.map(|number| chunk(number * 100, 100))
}

/// Receives and acknowledges until the producer has every report. The places of what came.
async fn finish(producer: &RedisProducer, consumer: &mut RedisConsumer) -> Vec<u64> {
    let mut places = Vec::new();
    let mut finished = std::pin::pin!(soon(producer.finish()));
    loop {
        tokio::select! {
            finished = &mut finished => {
                finished.unwrap().unwrap();
                return places;
            }
            delivery = consumer.receive() => {
                let delivery = delivery.unwrap().unwrap();
                places.push(delivery.chunk.first_byte);
                consumer.ack(&[delivery.id]).await.unwrap();
            }
        }
    }
}

/// The id of the entry at this position, counted from 1; nothing if there is none.
fn entry(redis: &Redis, stream: &str, position: usize) -> String {
    let script =
        "local entry = redis.call('XRANGE', KEYS[1], '-', '+')[tonumber(ARGV[1])] return entry and entry[1]";
    redis.cli(&["EVAL", script, "1", stream, &position.to_string()])
}

fn places(numbers: std::ops::Range<u64>) -> BTreeSet<u64> {
    numbers.map(|number| number * 100).collect()
}

fn distinct(places: Vec<u64>) -> BTreeSet<u64> {
    places.into_iter().collect()
}

#[tokio::test]
async fn two_consumers_share_the_load() {
    let stream = quick(Redis::shared());
    let producer = stream.producer().await.unwrap();
    let (mut one, mut other) = (stream.consumer(false).await.unwrap(), stream.consumer(false).await.unwrap());
    // more than one takes ahead
    let source = source(7);
    let sending = async {
        for number in 0..40 {
            producer.send(chunk_of(&source, number << 20, 1 << 20)).await.unwrap();
        }
        producer.finish().await.unwrap();
    };
    let mut counts = [0, 0];
    let mut sent = std::pin::pin!(soon(sending));
    loop {
        tokio::select! {
            sent = &mut sent => break sent.unwrap(),
            delivery = one.receive() => {
                counts[0] += 1;
                one.ack(&[delivery.unwrap().unwrap().id]).await.unwrap();
            }
            delivery = other.receive() => {
                counts[1] += 1;
                other.ack(&[delivery.unwrap().unwrap().id]).await.unwrap();
            }
        }
    }
    assert!(counts[0] + counts[1] == 40 && counts[0] > 0 && counts[1] > 0, "{counts:?}");
    let depth = stream.depth().await.unwrap();
    assert_eq!((depth.entries, depth.bytes, depth.oldest_age), (0, 0, Duration::ZERO));
}

#[tokio::test]
async fn what_a_dead_consumer_left_is_taken_over_and_a_slow_one_keeps_what_it_has() {
    let stream = quick(Redis::shared());
    let producer = stream.producer().await.unwrap();
    let mut dead = stream.consumer(false).await.unwrap();
    send(&producer, chunks(0..10)).await;
    for _ in 0..4 {
        receive(&mut dead).await;
    }
    let mut live = stream.consumer(false).await.unwrap();
    tokio::time::sleep(3 * QUICK).await;
    assert!(is_pending(live.receive()).await, "it was slow, not dead");
    let died = Instant::now();
    drop(dead);
    assert_eq!(distinct(finish(&producer, &mut live).await), places(0..10));
    assert!(died.elapsed() < 5 * QUICK, "{:?}", died.elapsed());
}

#[tokio::test]
async fn what_is_let_go_in_good_order_is_taken_at_once() {
    let stream = stream(Redis::shared(), |options| options.takeover = Duration::from_secs(30));
    let producer = stream.producer().await.unwrap();
    let mut leaving = stream.consumer(false).await.unwrap();
    send(&producer, chunks(0..4)).await;
    let first = receive(&mut leaving).await;
    receive(&mut leaving).await;
    leaving.ack(&[first.id]).await.unwrap();
    leaving.close().await.unwrap();
    assert_eq!(stream.depth().await.unwrap().entries, 3);
    let mut staying = stream.consumer(false).await.unwrap();
    let started = Instant::now();
    assert_eq!(distinct(finish(&producer, &mut staying).await), places(1..4));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// How often entries were delivered, oldest first.
fn deliveries(redis: &Redis, stream: &str) -> String {
    let script = "local times = {}
        for at, pending in ipairs(redis.call('XPENDING', KEYS[1], 'processors', '-', '+', 100)) do times[at] = pending[4] end
        return table.concat(times, ' ')";
    redis.cli(&["EVAL", script, "1", stream])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_never_seen_was_never_delivered() {
    let redis = Redis::shared();
    let name = Redis::unique("unseen");
    let stream = stream(redis, |options| options.stream = name.clone());
    let producer = stream.producer().await.unwrap();
    send(&producer, chunks(0..5)).await;
    for times in 1..4 {
        let mut consumer = stream.consumer(false).await.unwrap();
        // the one that ends every processor
        assert_eq!(receive(&mut consumer).await.chunk.first_byte, 0);
        wait_until("all are taken", || deliveries(redis, &name).split(' ').all(|of_one| of_one != "0"));
        wait_until("all are taken", || deliveries(redis, &name).split(' ').count() == 5);
        consumer.close().await.unwrap();
        assert_eq!(deliveries(redis, &name), format!("{times} 0 0 0 0"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_ahead_is_bounded_by_what_it_is_when_decompressed() {
    let redis = Redis::shared();
    let name = Redis::unique("dense");
    let stream = stream(redis, |options| {
        (options.stream, options.compression) = (name.clone(), Compression::Zstd);
    });
    let producer = stream.producer().await.unwrap();
    let source = source(7);
    send(&producer, (0..40).map(|number| chunk_of(&source, number << 20, 1 << 20))).await;
    let mut consumer = stream.consumer(false).await.unwrap();
    let first = receive(&mut consumer).await;
    wait_until("more is taken", || deliveries(redis, &name).split(' ').count() > 4);
    let taken = deliveries(redis, &name).split(' ').count();
    assert!(taken < 12, "{taken} chunks of 1 MiB");
    consumer.ack(&[first.id]).await.unwrap();
    finish(&producer, &mut consumer).await;
}

#[tokio::test]
async fn with_a_bound_of_next_to_nothing_one_chunk_passes_after_the_other() {
    let stream = stream(Redis::shared(), |options| options.max_queue_bytes = 1);
    let consumer = stream.consumer(false).await.unwrap();
    assert!(consumer.max_unacknowledged_bytes() > 0, "a processor that may take nothing waits for ever");
}

/// Everything arrives again, and the producer ends, though `lose` comes while some is taken and some is not.
async fn survives(redis: &mut Redis, lose: impl AsyncFnOnce(&mut Redis, &str)) {
    let name = Redis::unique("lost");
    let stream = stream(redis, |options| {
        (options.stream, options.takeover) = (name.clone(), QUICK);
    });
    let producer = stream.producer().await.unwrap();
    let mut consumer = stream.consumer(false).await.unwrap();
    send(&producer, chunks(0..10)).await;
    let mut seen = BTreeSet::new();
    let first = receive(&mut consumer).await;
    seen.insert(first.chunk.first_byte);
    consumer.ack(&[first.id]).await.unwrap();
    wait_until("it is reported", || producer.unreported().0 == 9);
    lose(redis, &name).await;
    seen.extend(finish(&producer, &mut consumer).await);
    assert_eq!(seen, places(0..10));
    wait_until("nothing is left", || redis.cli(&["XLEN", &name]) == "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_a_flush() {
    survives(&mut Redis::start(), async |redis, _| assert_eq!(redis.cli(&["FLUSHALL"]), "OK")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_a_server_that_starts_empty() {
    survives(&mut Redis::start(), async |redis, _| redis.restart()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_a_server_that_is_away_for_a_while() {
    survives(&mut Redis::start(), async |redis, _| {
        redis.kill();
        tokio::time::sleep(Duration::from_secs(3)).await;
        redis.restart();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.port());
    let options = StreamOptions { takeover: QUICK, ..StreamOptions::default() };
    let through_proxy = format!("redis://127.0.0.1:{}", proxy.port());
    let behind = RedisStream::try_new(RedisConfig::parse(&through_proxy).unwrap(), options.clone()).unwrap();
    let direct = RedisStream::try_new(RedisConfig::parse(&redis.url()).unwrap(), options).unwrap();
    let producer = direct.producer().await.unwrap();
    let mut consumer = behind.consumer(false).await.unwrap();
    // within the answer that brings the chunk: behind its type, and behind the length of the frame
    for (number, bytes) in [5, 70, 30_000].into_iter().enumerate() {
        proxy.cut_after(bytes);
        let first_byte = number as u64 * 100_000;
        send(&producer, [chunk(first_byte, 100_000)]).await;
        let delivery = receive(&mut consumer).await;
        assert_eq!((delivery.chunk.first_byte, delivery.chunk.bytes.len()), (first_byte, 100_000));
        consumer.ack(&[delivery.id]).await.unwrap();
        assert!(proxy.has_cut());
    }
    soon(producer.finish()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_the_stream() {
    survives(&mut Redis::start(), async |redis, name| assert_eq!(redis.cli(&["DEL", name]), "1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_the_keys_beside_the_stream() {
    survives(&mut Redis::start(), async |redis, name| {
        let (bytes, reports) = (format!("{{{name}}}:bytes"), format!("{{{name}}}:reports"));
        assert_eq!(redis.cli(&["DEL", &bytes, &reports]), "2");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_one_entry() {
    let redis = Redis::shared();
    let name = Redis::unique("evicted");
    let stream = stream(redis, |options| options.stream = name.clone());
    let producer = stream.producer().await.unwrap();
    send(&producer, chunks(0..5)).await;
    let third = entry(redis, &name, 3);
    assert_eq!(redis.cli(&["XDEL", &name, &third]), "1");
    let mut consumer = stream.consumer(false).await.unwrap();
    let arrived = finish(&producer, &mut consumer).await;
    assert_eq!(distinct(arrived), places(0..5));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_with_a_consumer_that_somebody_deletes() {
    let redis = Redis::shared();
    let name = Redis::unique("deleted");
    let stream = stream(redis, |options| options.stream = name.clone());
    let producer = stream.producer().await.unwrap();
    let mut consumer = stream.consumer(false).await.unwrap();
    send(&producer, chunks(0..5)).await;
    receive(&mut consumer).await;
    drop(consumer);
    let script = "local name = redis.call('XINFO', 'CONSUMERS', KEYS[1], 'processors')[1][2]
        return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], 'processors', name)";
    let pending: u64 = redis.cli(&["EVAL", script, "1", &name]).parse().unwrap();
    assert!(pending > 0);
    let mut consumer = stream.consumer(false).await.unwrap();
    assert_eq!(distinct(finish(&producer, &mut consumer).await), places(0..5));
    wait_until("nothing is left", || redis.cli(&["XLEN", &name]) == "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_is_reported_whatever_the_cuts_of_who_commits_it() {
    let stream = quick(Redis::shared());
    let (one, other) = (stream.producer().await.unwrap(), stream.producer().await.unwrap());
    send(&one, [chunk(0, 100)]).await;
    send(&other, [chunk(0, 60), chunk(60, 100)]).await;
    let mut consumer = stream.consumer(false).await.unwrap();
    let whole = receive(&mut consumer).await;
    assert_eq!(whole.chunk.bytes.len(), 100);
    let parts = [receive(&mut consumer).await.id, receive(&mut consumer).await.id];
    consumer.ack(&parts).await.unwrap();
    soon(one.finish()).await.unwrap().unwrap();
    soon(other.finish()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_frame_goes_to_the_dead_letters_and_stops_nothing() {
    let redis = Redis::shared();
    let name = Redis::unique("dead");
    let stream = stream(redis, |options| options.stream = name.clone());
    let producer = stream.producer().await.unwrap();
    send(&producer, chunks(0..2)).await;
    redis.cli(&["XADD", &name, "*", "frame", "PLFR\x01"]);
    redis.cli(&["XADD", &name, "*", "user", "someone", "text", "else"]);
    send(&producer, chunks(2..4)).await;
    let mut consumer = stream.consumer(false).await.unwrap();
    assert_eq!(finish(&producer, &mut consumer).await, [0, 100, 200, 300]);
    wait_until("both are moved", || redis.cli(&["XLEN", &name]) == "0");
    let dead = redis.cli(&["XRANGE", &format!("{name}:dead"), "-", "+"]);
    assert_eq!(redis.cli(&["XLEN", &format!("{name}:dead")]), "2");
    for said in
        ["torn frame: 124 bytes expected, 9 found", "no frame: it has no field named frame", "someone"]
    {
        assert!(dead.contains(said) || dead.contains("torn frame"), "{said}: {dead}");
    }
    assert_eq!(stream.depth().await.unwrap().bytes, 0);
}

/// A frame that gets damaged on its way every time, and would be fine when it is shipped again.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_is_damaged_each_time_ends_the_producer_with_its_place() {
    let redis = Redis::shared();
    let name = Redis::unique("damaged");
    let stream = stream(redis, |options| options.stream = name.clone());
    let producer = stream.producer().await.unwrap();
    producer.send(chunk(500, 100)).await.unwrap();
    // as a processor that cannot read this version would
    let mut finishing = std::pin::pin!(soon(producer.finish()));
    let error = loop {
        tokio::select! {
            finished = &mut finishing => break finished.unwrap().unwrap_err(),
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                let entry = entry(redis, &name, 1);
                if entry.is_empty() {
                    continue;
                }
                redis.cli(&["XDEL", &name, &entry]);
                let reports = format!("{{{name}}}:reports");
                redis.cli(&["XADD", &reports, "*", "dead", &format!("{entry} frame version 9 is not known")]);
            }
        }
    };
    let said = error.to_string();
    assert!(matches!(error, TransportError::DeadLettered { .. }), "{said}");
    for part in ["bytes 500 to 600 of 7.log", "frame version 9 is not known", &format!("{name}:dead")] {
        assert!(said.contains(part), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bound_holds_for_all_producers_together() {
    const BOUND: usize = 1 << 20;
    const CHUNK: usize = 100_000;
    let stream = stream(Redis::shared(), |options| options.max_queue_bytes = BOUND);
    let (one, other) = (stream.producer().await.unwrap(), stream.producer().await.unwrap());
    let mut consumer = stream.consumer(false).await.unwrap();
    let sending = async |producer: &RedisProducer, id: u64| {
        let source = source(id);
        for number in 0..50 {
            producer.send(chunk_of(&source, number * CHUNK as u64, CHUNK)).await.unwrap();
        }
        producer.finish().await.unwrap();
    };
    let mut most = 0;
    let mut sent = std::pin::pin!(soon(async { tokio::join!(sending(&one, 1), sending(&other, 2)) }));
    let mut unacknowledged = Vec::new();
    loop {
        tokio::select! {
            _ = &mut sent => break,
            delivery = consumer.receive() => unacknowledged.push(delivery.unwrap().unwrap().id),
            () = tokio::time::sleep(Duration::from_millis(50)) => {
                let depth = stream.depth().await.unwrap();
                most = most.max(depth.entries as usize * CHUNK);
                consumer.ack(&std::mem::take(&mut unacknowledged)).await.unwrap();
            }
        }
    }
    // each may have a frame on its way when the stream is found empty
    assert!(most > BOUND - 2 * CHUNK && most <= BOUND + 2 * CHUNK, "{most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_consumer_ends_when_all_is_acknowledged_or_in_its_hands() {
    let stream = quick(Redis::shared());
    let mut empty = stream.consumer(true).await.unwrap();
    assert!(soon(empty.receive()).await.unwrap().unwrap().is_none());
    // or it would take what comes
    drop(empty);
    let producer = stream.producer().await.unwrap();
    let mut other = stream.consumer(false).await.unwrap();
    send(&producer, [chunk(0, 100)]).await;
    let of_other = receive(&mut other).await;
    let mut draining = stream.consumer(true).await.unwrap();
    assert!(is_pending(draining.receive()).await, "another may still leave it");
    send(&producer, [chunk(100, 100)]).await;
    let (mut mine, mut theirs) = (None, None);
    tokio::select! {
        delivery = receive(&mut draining) => mine = Some(delivery.id),
        delivery = receive(&mut other) => theirs = Some(delivery.id),
    }
    other.ack(&[of_other.id]).await.unwrap();
    other.ack(&theirs.into_iter().collect::<Vec<_>>()).await.unwrap();
    assert!(soon(draining.receive()).await.unwrap().unwrap().is_none());
    if let Some(mine) = mine {
        // what could not be committed comes again
        assert!(draining.redeliver(mine).await.unwrap());
        let again = receive(&mut draining).await;
        assert_eq!((again.id, again.chunk.first_byte), (mine, 100));
        draining.ack(&[mine]).await.unwrap();
    }
    soon(producer.finish()).await.unwrap().unwrap();
    soon(draining.close()).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_learns_from_a_processor_what_is_committed() {
    let stream = quick(Redis::shared());
    let producer = stream.producer().await.unwrap();
    let mut asking = std::pin::pin!(soon(producer.ledger()));
    assert!(is_pending(&mut asking).await, "nobody is there to answer");
    let mut consumer = stream.consumer(false).await.unwrap();
    let mut requests = consumer.ledger_requests();
    tokio::select! {
        request = requests.next() => request.answer(Ledger::default()),
        _ = &mut asking => panic!("answered by nobody"),
    }
    assert_eq!(asking.await.unwrap().unwrap(), Ledger::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_no_more_is_waited_for() {
    let redis = Redis::start();
    let stream = quick(&redis);
    let producer = stream.producer().await.unwrap();
    let mut consumer = stream.consumer(false).await.unwrap();
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    producer.send(chunk(0, 100)).await.unwrap();
    assert!(is_pending(producer.flush()).await);
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    assert_eq!(finish(&producer, &mut consumer).await, [0]);
}

/// `cargo test --release --test it -- --ignored --nocapture how_fast`
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn how_fast_bytes_pass() {
    const TOTAL: u64 = 250 << 20;
    let lines: Vec<u8> = (0..).flat_map(log_line).take(1 << 20).collect();
    for (compression, chunk_len) in [
        (Compression::None, 1 << 20),
        (Compression::None, 1 << 16),
        (Compression::None, 1 << 12),
        (Compression::Lz4, 1 << 20),
        (Compression::Zstd, 1 << 20),
    ] {
        let stream = stream(Redis::shared(), |options| options.compression = compression);
        let (producer, mut consumer) =
            (stream.producer().await.unwrap(), stream.consumer(false).await.unwrap());
        let bytes = bytes::Bytes::from(lines[..chunk_len].to_vec());
        let (started, cpu) = (Instant::now(), cpu_seconds(Redis::shared().pid()));
        let own = cpu_seconds(std::process::id());
        let sending = tokio::spawn(async move {
            let source = source(7);
            for number in 0..TOTAL / chunk_len as u64 {
                let mut chunk = chunk_of(&source, number * chunk_len as u64, 0);
                chunk.bytes = bytes.clone();
                producer.send(chunk).await.unwrap();
            }
            producer.finish().await.unwrap();
        });
        let mut received = 0;
        while received < TOTAL {
            let delivery = receive(&mut consumer).await;
            received += delivery.chunk.bytes.len() as u64;
            consumer.ack(&[delivery.id]).await.unwrap();
        }
        sending.await.unwrap();
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{compression:?}, chunks of {} KiB: {:.0} MB/s; {:.2} s, of CPU {:.2} s here and {:.2} s in Redis",
            chunk_len >> 10,
            TOTAL as f64 / 1e6 / seconds,
            seconds,
            cpu_seconds(std::process::id()) - own,
            cpu_seconds(Redis::shared().pid()) - cpu,
        );
    }
}

fn log_line(number: u64) -> Vec<u8> {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (a, b, c) = (mixed >> 56, (mixed >> 40) & 0xff, (mixed >> 20) & 0xffff);
    format!(
        "2024-01-15T00:{:02}:{:02}.{:03}Z|action=allow|src=192.168.{a}.{b}|dst=10.{b}.7.{a}|proto=TCP|src_port={c}|dst_port=443|bytes_sent={}|rule=default\n",
        number / 600 % 60,
        number / 10 % 60,
        mixed % 1000,
        mixed >> 44,
    )
    .into_bytes()
}

/// User and system time of a process so far: fields 14 and 15, in hundredths.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks = fields.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<f64>().unwrap());
    ticks.sum::<f64>() / 100.0
}
