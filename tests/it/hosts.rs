//! Several hosts: 2 readers, 3 processors, Redis and Postgres, each with an address of its own. Hosts are cut off, one
//! way or both, and slowed down, while files keep coming; then every line is held against what is stored.
//!
//! Hosts are network namespaces, where the user may make them; else addresses 127.0.0.x, with a proxy before each
//! server for each process, that breaks connections. `PIPELINE_HOSTS_ROUNDS` (1) is how often all of it is done,
//! `PIPELINE_CHAOS_SEED` repeats the choices of the first; every round prints its seed.
#![expect(clippy::disallowed_methods, reason = "faults come at random times, which nothing announces")]
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Instant;

use crate::campaign::{Random, assert_all_is_there_once, seed, setting, summary};
use crate::servers::{Database, Host, Lan, Postgres, Proxy, Redis};
use crate::support::{NO_TYPE, Running, Site};

const READERS: usize = 2;
const PROCESSORS: usize = 3;
const FAULTS: usize = 7;
/// Longer than it takes until another processor takes over.
const LONGEST_CUT_MS: u64 = 5000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// From everybody.
    CutReader,
    CutProcessor,
    CutRedis,
    CutPostgres,
    /// From one server: it is heard there, and hears no answer.
    ReaderWithoutRedis,
    ProcessorWithoutRedis,
    ProcessorWithoutPostgres,
    /// A processor whose every packet is late.
    SlowProcessor,
    KillProcessor,
}

const ALL: [Fault; 9] = [
    Fault::CutReader,
    Fault::CutProcessor,
    Fault::CutRedis,
    Fault::CutPostgres,
    Fault::ReaderWithoutRedis,
    Fault::ProcessorWithoutRedis,
    Fault::ProcessorWithoutPostgres,
    Fault::SlowProcessor,
    Fault::KillProcessor,
];

/// A reader or a processor on its host.
struct Worker {
    host: Host,
    /// Before Redis and Postgres, where hosts have no links.
    proxies: Option<[Proxy; 2]>,
    /// Where it finds Redis and Postgres.
    servers: [String; 2],
    running: Option<Running>,
}

struct Hosts {
    site: Site,
    redis: (Host, Redis),
    database: Database,
    postgres: (Host, Postgres),
    readers: Vec<Worker>,
    processors: Vec<Worker>,
    random: Random,
    seed: u64,
    /// Last: its namespaces go when nothing runs in them any more.
    lan: Lan,
}

impl Hosts {
    fn new(seed: u64) -> Self {
        let mut lan = Lan::new();
        let (redis_host, postgres_host) = (lan.host(), lan.host());
        let (redis, postgres) =
            (Redis::start_on(redis_host.clone()), Postgres::start_on(postgres_host.clone()));
        let database = postgres.database();
        let mut worker = || {
            let host = lan.host();
            let servers = [(redis_host.address(), redis.port()), (postgres_host.address(), postgres.port())];
            let proxies =
                (!lan.has_links()).then(|| servers.map(|(address, port)| Proxy::start_to(address, port)));
            let servers = match &proxies {
                Some(proxies) => {
                    [&proxies[0], &proxies[1]].map(|proxy| format!("127.0.0.1:{}", proxy.port()))
                }
                None => servers.map(|(address, port)| format!("{address}:{port}")),
            };
            Worker { host, proxies, servers, running: None }
        };
        let readers = (0..READERS).map(|_| worker()).collect();
        let processors = (0..PROCESSORS).map(|_| worker()).collect();
        let mut hosts = Self {
            site: Site::new(),
            redis: (redis_host, redis),
            database,
            postgres: (postgres_host, postgres),
            readers,
            processors,
            random: Random(seed),
            seed,
            lan,
        };
        std::fs::create_dir(hosts.site.at("logs")).unwrap();
        for number in 0..PROCESSORS {
            hosts.start_processor(number);
        }
        for number in 0..READERS {
            hosts.start_reader(number);
        }
        hosts
    }

    fn start(&self, worker: &Worker, arguments: &[&str]) -> Running {
        let via = format!("redis://{}", worker.servers[0]);
        let flags = ["--via", &via, "--takeover", "3s", "--max-queue-bytes", "4MiB"];
        Running::start(&mut worker.host.run(&self.site.command(&[arguments, &flags].concat())))
    }

    /// Both readers read every file, each cutting it its own way: whatever one ships the other ships too.
    fn start_reader(&mut self, number: usize) {
        let read = ["read", "logs", "--watch", "--flush-interval", "50ms", "--chunk-size"];
        let read = [&read[..], &[["16KiB", "50KiB"][number]]].concat();
        self.readers[number].running = Some(self.start(&self.readers[number], &read));
    }

    fn start_processor(&mut self, number: usize) {
        let into = self.database.url_at(&self.processors[number].servers[1]);
        let process = ["process", "--into", &into, "--commit-rows", "5000", "--commit-interval", "50ms"];
        let process = [&process[..], &["--workers", ["1", "2", "1"][number]]].concat();
        self.processors[number].running = Some(self.start(&self.processors[number], &process));
    }

    /// What happened; nothing where this machine cannot do it.
    fn strike(&mut self, fault: Fault) -> bool {
        let reader = self.random.below(READERS as u64) as usize;
        let processor = self.random.below(PROCESSORS as u64) as usize;
        let time = self.random.millis(LONGEST_CUT_MS);
        if fault == Fault::KillProcessor {
            // dropped is killed
            self.processors[processor].running = None;
            sleep(time / 4);
            self.start_processor(processor);
            return true;
        }
        if !self.lan.has_links() {
            // a cut without a link: connections break, and new ones are refused
            let (some, server): (Vec<&mut Worker>, _) = match fault {
                Fault::CutReader | Fault::ReaderWithoutRedis => (vec![&mut self.readers[reader]], 0..2),
                Fault::CutProcessor => (vec![&mut self.processors[processor]], 0..2),
                Fault::ProcessorWithoutRedis => (vec![&mut self.processors[processor]], 0..1),
                Fault::ProcessorWithoutPostgres => (vec![&mut self.processors[processor]], 1..2),
                Fault::CutRedis => (self.readers.iter_mut().chain(&mut self.processors).collect(), 0..1),
                Fault::CutPostgres => (self.processors.iter_mut().collect(), 1..2),
                Fault::SlowProcessor | Fault::KillProcessor => return false,
            };
            let mut proxies: Vec<&mut Proxy> = some
                .into_iter()
                .flat_map(|worker| &mut worker.proxies.as_mut().unwrap()[server.clone()])
                .collect();
            for proxy in &mut proxies {
                proxy.refuse(true);
                proxy.cut();
            }
            sleep(time);
            proxies.into_iter().for_each(|proxy| proxy.refuse(false));
            return true;
        }
        let (lan, redis, postgres) = (&self.lan, &self.redis.0, &self.postgres.0);
        let (reader, processor) = (&self.readers[reader].host, &self.processors[processor].host);
        let cut = |host: &Host| {
            lan.cut(host, true);
            sleep(time);
            lan.cut(host, false);
        };
        let silence = |server: &Host, client: &Host| {
            lan.silence(server, client, true);
            sleep(time);
            lan.silence(server, client, false);
        };
        match fault {
            Fault::CutReader => cut(reader),
            Fault::CutProcessor => cut(processor),
            Fault::CutRedis => cut(redis),
            Fault::CutPostgres => cut(postgres),
            Fault::ReaderWithoutRedis => silence(redis, reader),
            Fault::ProcessorWithoutRedis => silence(redis, processor),
            Fault::ProcessorWithoutPostgres => silence(postgres, processor),
            Fault::SlowProcessor if lan.slow(processor, 50) => {
                sleep(time);
                lan.hasten(processor);
            }
            Fault::SlowProcessor => {
                println!("skipped: this kernel cannot delay packets (netem)");
                return false;
            }
            Fault::KillProcessor => {}
        }
        true
    }

    /// No fault is one that a process may end of: they wait until it is over.
    fn assert_all_run(&mut self, after: Fault) {
        for worker in self.readers.iter_mut().chain(&mut self.processors) {
            if worker.running.as_mut().is_some_and(Running::has_ended) {
                let ended = worker.running.take().unwrap().wait();
                let seed = self.seed;
                panic!(
                    "PIPELINE_CHAOS_SEED={seed}: one ended by itself, {after:?}: {:?} {}",
                    ended.code, ended.stderr
                );
            }
        }
    }
}

fn round(seed: u64) {
    println!("PIPELINE_CHAOS_SEED={seed}");
    let started = Instant::now();
    let mut hosts = Hosts::new(seed);
    let files = 3 * (FAULTS + 1);
    hosts.site.ok(&["generate", "--out", "stock", "--files", &files.to_string(), "--lines", "1500"]);
    let mut struck: BTreeMap<Fault, u32> = BTreeMap::new();
    for number in 0..files {
        let name = format!("logs_{number:04}.log");
        hosts.site.append(&format!("stock/{name}"), format!("\n{NO_TYPE} {number}\n"));
        hosts.site.rename(&format!("stock/{name}"), &format!("logs/{name}"));
        if number % 3 == 2 && number / 3 < FAULTS {
            let wait = hosts.random.millis(400);
            sleep(wait);
            let fault = ALL[hosts.random.below(ALL.len() as u64) as usize];
            if hosts.strike(fault) {
                *struck.entry(fault).or_default() += 1;
            }
            hosts.assert_all_run(fault);
        }
    }

    // another reader comes to its end only once all is committed
    let ended = hosts.start(&hosts.readers[0], &["read", "logs"]).wait();
    assert_eq!(ended.code, Some(0), "PIPELINE_CHAOS_SEED={seed}: {}", ended.stderr);
    for worker in hosts.readers.iter_mut().chain(&mut hosts.processors) {
        let running = worker.running.take().unwrap();
        running.signal("INT");
        let ended = running.wait();
        assert_eq!(ended.code, Some(130), "PIPELINE_CHAOS_SEED={seed}: {}", ended.stderr);
    }
    let into = hosts.database.url_at(&hosts.processors[0].servers[1]);
    let verify = hosts.site.command(&["verify", "--count", "--content", "--into", &into, "logs"]);
    let verified = Running::start(&mut hosts.processors[0].host.run(&verify)).wait();
    assert_eq!(verified.code, Some(0), "PIPELINE_CHAOS_SEED={seed}: {}{}", verified.stdout, verified.stderr);
    assert_all_is_there_once(&hosts.site, &hosts.database, &summary(&struck, started), seed);
}

#[test]
fn hosts_that_are_cut_off_and_slowed_down_lose_nothing_and_double_nothing() {
    let first = seed();
    for number in 0..setting("PIPELINE_HOSTS_ROUNDS").unwrap_or(1) {
        round(first.wrapping_add(number));
    }
}
