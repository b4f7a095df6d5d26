//! A queue on a Redis Cluster: spread over its nodes, and complete whatever becomes of them.
//!
//! `PIPELINE_CLUSTER_FAULTS` (2) is the number of nodes that are lost in each campaign, `PIPELINE_CHAOS_SEED` repeats
//! its choices; every failure prints its seed.
#![expect(clippy::disallowed_methods, reason = "nodes are lost at random times, which nothing announces")]
use std::collections::BTreeMap;
use std::thread::sleep;

use pipeline::transport::{Compression, Consumer, Producer, RedisConsumer};

use crate::campaign::{Random, assert_all_is_there_once, seed, setting};
use crate::servers::{Postgres, RedisCluster, wait_until};
use crate::support::{NO_TYPE, Running, Site};
use crate::transport::{chunk_of, redis_at_keeps_the_contract, soon, source, stream_at};

const SOURCES: u64 = 48;
const CHUNKS: u64 = 10;

#[tokio::test]
async fn redis_keeps_the_contract_as_a_cluster_of_three() {
    let cluster = RedisCluster::start(false);
    redis_at_keeps_the_contract(&cluster.url(1), Compression::None).await;
}

/// Chunks by source, in the order in which they came, until `expected` came.
async fn take(consumers: [&mut RedisConsumer; 2], expected: u64) -> [BTreeMap<u64, Vec<u64>>; 2] {
    let mut taken = [BTreeMap::<u64, Vec<u64>>::new(), BTreeMap::new()];
    let [one, other] = consumers;
    for _ in 0..expected {
        let (number, delivery) = tokio::select! {
            delivery = one.receive() => (0, delivery.unwrap().unwrap()),
            delivery = other.receive() => (1, delivery.unwrap().unwrap()),
        };
        let consumer = if number == 0 { &mut *one } else { &mut *other };
        consumer.ack(&[delivery.id]).await.unwrap();
        taken[number].entry(delivery.chunk.source.id).or_default().push(delivery.chunk.first_byte);
    }
    taken
}

#[tokio::test]
async fn a_queue_is_spread_over_the_nodes_and_a_source_keeps_its_order() {
    let cluster = RedisCluster::start(false);
    let mut name = String::new();
    let stream = stream_at(&cluster.url(2), |options| name.clone_from(&options.stream));
    // both wait for every part before anything is there
    let (mut one, mut other) = (stream.consumer(false).await.unwrap(), stream.consumer(false).await.unwrap());
    let producer = stream.producer().await.unwrap();
    let sources: Vec<_> = (0..SOURCES).map(source).collect();
    for number in 0..CHUNKS {
        for source in &sources {
            soon(producer.send(chunk_of(source, number * 100, 100))).await.unwrap().unwrap();
        }
    }
    soon(producer.flush()).await.unwrap().unwrap();
    let all = SOURCES * CHUNKS;
    assert_eq!(stream.depth().await.unwrap().entries, all);
    // five or six of sixteen parts each
    let shares: Vec<_> = (0..3).map(|node| cluster.entries(node, &name)).collect();
    assert!(shares.iter().all(|share| (all * 5 / 16..=all * 6 / 16).contains(share)), "{shares:?} of {all}");

    let taken = soon(take([&mut one, &mut other], all)).await.unwrap();
    for of_one in &taken {
        assert!(!of_one.is_empty(), "both get a share: {taken:?}");
        assert!(of_one.values().all(|places| places.is_sorted()), "{of_one:?}");
    }
    let places = taken.iter().flat_map(BTreeMap::values).map(Vec::len).sum::<usize>();
    assert_eq!(places as u64, all);
    soon(producer.finish()).await.unwrap().unwrap();
    // what drains ends when every part is empty
    let mut draining = stream.consumer(true).await.unwrap();
    assert!(soon(draining.receive()).await.unwrap().unwrap().is_none());
    for mut consumer in [one, other, draining] {
        soon(consumer.close()).await.unwrap().unwrap();
    }
    assert_eq!(stream.depth().await.unwrap().entries, 0);
}

/// How a node is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// Killed, and back without what it had.
    Emptied,
    /// Killed for good, until its replica has taken over.
    Replaced,
    /// Stopped until its replica has taken over; then it goes on, and does not know yet.
    Overtaken,
}

struct Campaign {
    site: Site,
    cluster: RedisCluster,
    random: Random,
    seed: u64,
}

impl Campaign {
    fn lose_a_master(&mut self, losses: &[Loss]) {
        let masters = self.cluster.masters_seen_by(0);
        let victim = masters[self.random.below(masters.len() as u64) as usize];
        let loss = losses[self.random.below(losses.len() as u64) as usize];
        println!("node {victim} is lost: {loss:?}");
        match loss {
            Loss::Emptied => {
                self.cluster.kill(victim);
                sleep(self.random.millis(1500));
                self.cluster.restart(victim);
            }
            Loss::Replaced => {
                self.cluster.kill(victim);
                self.wait_for_another(victim);
                self.cluster.restart(victim);
            }
            Loss::Overtaken => {
                self.cluster.signal(victim, "STOP");
                self.wait_for_another(victim);
                self.cluster.signal(victim, "CONT");
            }
        }
        self.cluster.wait_until_whole();
    }

    fn wait_for_another(&self, victim: usize) {
        let witness = usize::from(victim == 0);
        wait_until("a replica has taken over", || {
            let seen = self.cluster.masters_seen_by(witness);
            seen.len() == 3 && !seen.contains(&victim)
        });
    }

    fn start(&self, arguments: &[&str]) -> Running {
        // any node will do, and each may be lost
        let via = self.cluster.url(arguments.len() % 3);
        let flags = ["--via", &via, "--takeover", "3s", "--max-queue-bytes", "1MiB"];
        self.site.start(&[arguments, &flags].concat())
    }

    fn assert_all_run(&self, running: &mut Vec<Running>) {
        if let Some(position) = running.iter_mut().position(Running::has_ended) {
            let ended = running.swap_remove(position).wait();
            panic!(
                "PIPELINE_CHAOS_SEED={}: one ended by itself: {:?} {}",
                self.seed, ended.code, ended.stderr
            );
        }
    }
}

fn nothing_is_lost(with_replicas: bool, losses: &[Loss]) {
    let faults = setting("PIPELINE_CLUSTER_FAULTS").unwrap_or(2);
    let seed = seed();
    println!("PIPELINE_CHAOS_SEED={seed}");
    let (site, cluster) = (Site::new(), RedisCluster::start(with_replicas));
    let database = Postgres::shared().database();
    let into = database.url();
    let mut campaign = Campaign { site, cluster, random: Random(seed), seed };
    std::fs::create_dir(campaign.site.at("logs")).unwrap();
    let files = 8 * (faults + 1);
    let count = files.to_string();
    campaign.site.ok(&["generate", "--out", "stock", "--files", &count, "--lines", "1500"]);

    let process =
        ["process", "--into", &into, "--into", "pipeline-data/archive", "--commit-interval", "50ms"];
    let mut running = vec![
        campaign.start(&process),
        campaign.start(&[&process[..], &["--workers", "1"]].concat()),
        campaign.start(&["read", "logs", "--watch", "--flush-interval", "50ms", "--chunk-size", "16KiB"]),
    ];
    for number in 0..files {
        let name = format!("logs_{number:04}.log");
        campaign.site.append(&format!("stock/{name}"), format!("\n{NO_TYPE} {number}\n"));
        campaign.site.rename(&format!("stock/{name}"), &format!("logs/{name}"));
        sleep(campaign.random.millis(300));
        if number % 8 == 5 && number / 8 < faults {
            campaign.lose_a_master(losses);
            campaign.assert_all_run(&mut running);
        }
    }

    // another reader comes to its end only once all is committed
    let ended = campaign.start(&["read", "logs"]).wait();
    assert_eq!(ended.code, Some(0), "PIPELINE_CHAOS_SEED={seed}: {}", ended.stderr);
    for running in running {
        running.signal("INT");
        let ended = running.wait();
        assert_eq!(ended.code, Some(130), "PIPELINE_CHAOS_SEED={seed}: {}", ended.stderr);
    }
    for place in [&into, "pipeline-data/archive"] {
        let verified = campaign.site.end(&["verify", "--count", "--content", "--into", place, "logs"]);
        assert_eq!(
            verified.code,
            Some(0),
            "PIPELINE_CHAOS_SEED={seed}: {}{}",
            verified.stdout,
            verified.stderr
        );
    }
    assert_all_is_there_once(&campaign.site, &database, &format!("{faults} nodes lost"), seed);
}

#[test]
fn a_node_that_comes_back_empty_loses_nothing() {
    nothing_is_lost(false, &[Loss::Emptied]);
}

#[test]
fn a_node_whose_replica_takes_over_loses_nothing() {
    nothing_is_lost(true, &[Loss::Replaced, Loss::Overtaken]);
}
