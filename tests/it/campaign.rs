//! The kill campaign of the two halves: readers, processors, Redis and Postgres are killed, stopped, emptied and cut
//! off, in any order, while files keep coming; then every line is held against what is stored.
//!
//! `PIPELINE_CHAOS_FAULTS` (16) is the number of faults, `PIPELINE_CHAOS_SEED` repeats a campaign's choices; every
//! failure prints its seed. `make chaos` runs the large one.
#![expect(clippy::disallowed_methods, reason = "faults come at random times, which nothing announces")]
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::servers::{Database, Postgres, Proxy, Redis};
use super::support::{NO_TYPE, Running, Site};

const LINES_PER_FILE: usize = 3000;

/// Faults, and how often each is chosen.
const FAULTS: [(Fault, u64); 9] = [
    (Fault::KillReader, 5),
    (Fault::KillProcessor, 5),
    (Fault::StopReader, 2),
    (Fault::StopProcessor, 3),
    (Fault::FlushRedis, 3),
    (Fault::RestartRedis, 2),
    (Fault::StopPostgres, 3),
    (Fault::CutConnections, 3),
    (Fault::FillDisk, 1),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    KillReader,
    KillProcessor,
    StopReader,
    StopProcessor,
    FlushRedis,
    RestartRedis,
    StopPostgres,
    CutConnections,
    FillDisk,
}

/// splitmix64
#[derive(Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn fault(&mut self) -> Fault {
        let mut at = self.below(FAULTS.iter().map(|(_, weight)| weight).sum());
        let chosen = FAULTS.iter().find(|(_, weight)| match at.checked_sub(*weight) {
            Some(rest) => {
                at = rest;
                false
            }
            None => true,
        });
        chosen.unwrap().0
    }

    pub(crate) fn millis(&mut self, longest: u64) -> Duration {
        Duration::from_millis(self.below(longest))
    }
}

struct Campaign {
    site: Site,
    redis: Redis,
    postgres: Postgres,
    database: Database,
    /// In front of Redis and of Postgres.
    proxies: [Proxy; 2],
    readers: Vec<Running>,
    processors: Vec<Running>,
    random: Random,
    has_small_disk: bool,
}

impl Campaign {
    fn new(seed: u64) -> Self {
        let small_disk = Postgres::start_on_small_disk(512);
        let has_small_disk = small_disk.is_some();
        let postgres = small_disk.unwrap_or_else(Postgres::start);
        let (redis, database) = (Redis::start(), postgres.database());
        let proxies = [Proxy::start(redis.port()), Proxy::start(postgres.port())];
        let mut campaign = Self {
            site: Site::new(),
            redis,
            postgres,
            database,
            proxies,
            readers: Vec::new(),
            processors: Vec::new(),
            random: Random(seed),
            has_small_disk,
        };
        std::fs::create_dir(campaign.site.at("logs")).unwrap();
        for number in 0..2 {
            let (reader, processor) = (campaign.reader(number), campaign.processor(number));
            campaign.readers.push(reader);
            campaign.processors.push(processor);
        }
        campaign
    }

    fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.proxies[0].port())
    }

    fn postgres_url(&self) -> String {
        let direct = self.database.url();
        direct.replace(&format!(":{}/", self.postgres.port()), &format!(":{}/", self.proxies[1].port()))
    }

    /// Both readers read every file, each cutting it its own way: whatever one ships the other ships too.
    fn reader(&self, number: usize) -> Running {
        let chunk_size = ["16KiB", "50KiB"][number];
        let via = self.redis_url();
        let read = [
            "read",
            "logs",
            "--watch",
            "--flush-interval",
            "50ms",
            "--chunk-size",
            chunk_size,
            "--via",
            &via,
        ];
        self.site.start(&[&read[..], &["--max-queue-bytes", "4MiB", "--takeover", "3s"]].concat())
    }

    fn processor(&self, number: usize) -> Running {
        let (via, into) = (self.redis_url(), self.postgres_url());
        let process =
            ["process", "--via", &via, "--into", &into, "--takeover", "3s", "--max-queue-bytes", "4MiB"];
        let more = ["--workers", ["1", "3"][number], "--commit-rows", "5000", "--commit-interval", "50ms"];
        self.site.start(&[&process[..], &more].concat())
    }

    fn strike(&mut self, fault: Fault) {
        let victim = self.random.below(2) as usize;
        match fault {
            Fault::KillReader => self.readers[victim] = self.reader(victim),
            Fault::KillProcessor => self.processors[victim] = self.processor(victim),
            Fault::StopReader => self.pause(false, victim),
            // longer than it takes for its chunks to be taken over, now and then
            Fault::StopProcessor => self.pause(true, victim),
            Fault::FlushRedis => drop(self.redis.cli(&["FLUSHALL"])),
            Fault::RestartRedis => {
                self.redis.kill();
                sleep(self.random.millis(500));
                self.redis.restart();
            }
            Fault::StopPostgres => {
                self.postgres.stop_immediate();
                sleep(self.random.millis(500));
                self.postgres.restart();
            }
            Fault::CutConnections => self.proxies.iter().for_each(Proxy::cut),
            Fault::FillDisk if self.has_small_disk => {
                self.postgres.fill_disk();
                sleep(self.random.millis(1000));
                self.postgres.free_disk();
            }
            Fault::FillDisk => {}
        }
    }

    fn pause(&mut self, is_processor: bool, victim: usize) {
        let time = self.random.millis(4000);
        let running = if is_processor { &self.processors[victim] } else { &self.readers[victim] };
        running.signal("STOP");
        sleep(time);
        running.signal("CONT");
    }

    /// No fault is one that a process may end of: they wait until it is over.
    fn assert_all_run(&mut self, after: Fault, seed: u64) {
        for running in [&mut self.readers, &mut self.processors] {
            if let Some(number) = running.iter_mut().position(Running::has_ended) {
                let ended = running.swap_remove(number).wait();
                panic!(
                    "PIPELINE_CHAOS_SEED={seed}: a process ended by itself, {after:?}: {:?} {}",
                    ended.code, ended.stderr
                );
            }
        }
    }
}

pub(crate) fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

/// The one that is to be repeated, or a new one.
pub(crate) fn seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    setting("PIPELINE_CHAOS_SEED").unwrap_or_else(now)
}

#[test]
fn halves_that_are_killed_stopped_emptied_and_cut_off_lose_nothing_and_double_nothing() {
    let faults = setting("PIPELINE_CHAOS_FAULTS").unwrap_or(16) as usize;
    let seed = seed();
    println!("PIPELINE_CHAOS_SEED={seed}");
    let started = Instant::now();
    let mut campaign = Campaign::new(seed);
    let (files, lines) = (faults + 1, LINES_PER_FILE.to_string());
    campaign.site.ok(&["generate", "--out", "stock", "--files", &files.to_string(), "--lines", &lines]);
    let mut struck: BTreeMap<Fault, u32> = BTreeMap::new();
    for number in 0..files {
        let name = format!("logs_{number:04}.log");
        campaign.site.append(&format!("stock/{name}"), format!("\n{NO_TYPE} {number}\n"));
        campaign.site.rename(&format!("stock/{name}"), &format!("logs/{name}"));
        if number < faults {
            let wait = campaign.random.millis(600);
            sleep(wait);
            let fault = campaign.random.fault();
            *struck.entry(fault).or_default() += 1;
            campaign.strike(fault);
            campaign.assert_all_run(fault, seed);
        }
    }

    // another reader comes to its end only once all is committed
    let via = campaign.redis_url();
    let read = campaign.site.start(&["read", "logs", "--via", &via, "--max-queue-bytes", "4MiB"]);
    let ended = read.wait();
    assert_eq!(ended.code, Some(0), "PIPELINE_CHAOS_SEED={seed}: {}", ended.stderr);
    for running in campaign.readers.drain(..).chain(campaign.processors.drain(..)) {
        running.signal("INT");
        let ended = running.wait();
        assert_eq!(ended.code, Some(130), "PIPELINE_CHAOS_SEED={seed}: {}", ended.stderr);
    }
    let into = campaign.database.url();
    let verified = campaign.site.end(&["verify", "--count", "--content", "--into", &into, "logs"]);
    assert_eq!(verified.code, Some(0), "PIPELINE_CHAOS_SEED={seed}: {}{}", verified.stdout, verified.stderr);
    let what = format!("{faults} faults: {}", summary(&struck, started));
    assert_all_is_there_once(&campaign.site, &campaign.database, &what, seed);
}

/// Ends a campaign that `what` describes: each line is stored once.
pub(crate) fn assert_all_is_there_once(site: &Site, database: &Database, what: &str, seed: u64) {
    let (lines, lost, doubled) = compare(site, database);
    println!("{what}, {lines} lines: {lost} lost, {doubled} doubled, seed {seed}");
    assert_eq!((lost, doubled), (0, 0), "PIPELINE_CHAOS_SEED={seed}");
}

/// Which faults struck how often, and in which time.
pub(crate) fn summary(struck: &BTreeMap<impl std::fmt::Debug, u32>, started: Instant) -> String {
    let faults: Vec<String> = struck.iter().map(|(fault, times)| format!("{times} {fault:?}")).collect();
    format!("{} in {:.0} s", faults.join(", "), started.elapsed().as_secs_f64())
}

/// Holds the lines of the files, by their content, against rows, rejects and blanks: lines, lost, doubled.
fn compare(site: &Site, database: &Database) -> (usize, i64, i64) {
    let mut balance: BTreeMap<String, i64> = BTreeMap::new();
    let mut lines = 0;
    for file in std::fs::read_dir(site.at("logs")).unwrap() {
        for line in std::fs::read_to_string(file.unwrap().path()).unwrap().lines() {
            *balance.entry(line.to_owned()).or_default() += 1;
            lines += 1;
        }
    }
    let stored = database.sql(
        "SET jit = off; SELECT '=' || raw_line FROM logs
         UNION ALL SELECT '=' || convert_from(bytes, 'UTF8') FROM rejects
         UNION ALL SELECT '=' || convert_from(bytes, 'UTF8') FROM blanks",
    );
    for line in stored.lines().filter_map(|line| line.strip_prefix('=')) {
        *balance.entry(line.to_owned()).or_default() -= 1;
    }
    let lost = balance.values().filter(|left| **left > 0).sum();
    let doubled: i64 = balance.values().filter(|left| **left < 0).sum();
    (lines, lost, -doubled)
}
