//! Nothing lost, nothing twice, whatever is killed: `kill -9` at random times, again and again.
//!
//! `PIPELINE_CHAOS_KILLS` (12) and `PIPELINE_CHAOS_LINES` (150,000) give the size of each campaign,
//! `PIPELINE_CHAOS_SEED` repeats one; every failure prints its seed. `make chaos` runs the large one.
use std::collections::BTreeMap;
use std::fmt::Debug;
use std::str::FromStr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::support::{Site, numbered_lines};

fn setting<T: FromStr>(name: &str) -> Option<T>
where
    T::Err: Debug,
{
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

pub(crate) fn num_kills() -> usize {
    setting("PIPELINE_CHAOS_KILLS").unwrap_or(12)
}

fn num_lines() -> usize {
    setting("PIPELINE_CHAOS_LINES").unwrap_or(150_000)
}

/// Times to kill at: a seed gives the same ones each time.
pub(crate) struct Chaos {
    seed: u64,
    state: u64,
    kills: usize,
    in_time: usize,
}

impl Chaos {
    pub(crate) fn new() -> Self {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let seed = setting("PIPELINE_CHAOS_SEED").unwrap_or_else(now);
        println!("PIPELINE_CHAOS_SEED={seed}");
        Self { seed, state: seed, kills: 0, in_time: 0 }
    }

    /// splitmix64
    fn below(&mut self, end: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    pub(crate) fn time_within(&mut self, longest: Duration) -> Duration {
        Duration::from_micros(self.below(longest.as_micros() as u64))
    }

    /// Kills a `run` at a random time, and checks that what is there is whole.
    fn kill(&mut self, site: &Site, arguments: &[&str], longest: Duration) {
        let time = self.time_within(longest);
        self.kills += 1;
        match site.start(arguments).kill_after(time) {
            None => self.in_time += 1,
            Some(status) => assert!(status.success(), "a run failed by itself: {status}"),
        }
        self.expect_whole(site);
    }

    /// No archive yet, or one without a gap or a doubled row.
    fn expect_whole(&self, site: &Site) {
        let ended = site.end(&["verify", "--count"]);
        let seed = self.seed;
        assert!(
            matches!(ended.code, Some(0 | 3)),
            "PIPELINE_CHAOS_SEED={seed}: {}{}",
            ended.stdout,
            ended.stderr
        );
    }

    /// A campaign in which nothing was killed in time proves nothing.
    fn expect_enough_kills(&self) {
        println!("{} of {} were killed before they ended", self.in_time, self.kills);
        assert!(self.in_time * 4 >= self.kills, "PIPELINE_CHAOS_SEED={}", self.seed);
    }
}

/// How long a run over this folder takes when nothing is killed.
fn time_of_run(site: &Site, folder: &str) -> Duration {
    let started = Instant::now();
    site.ok(&["run", folder, "--into", "timing"]);
    started.elapsed()
}

/// Every table's rows as the text has them, and the original bytes from the archive.
fn expect_exactly_once(site: &Site, folder: &str) {
    assert_eq!(site.run(&[folder]).lines, 0, "a run after the last one has nothing to do");
    site.verify(&[folder]);
    let mut text = String::new();
    for entry in std::fs::read_dir(site.at(folder)).unwrap() {
        text.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let words = BTreeMap::from([("auth", " sshd["), ("dns", " query: "), ("firewall", "|action=")]);
    for (log_type, word) in words {
        let expected = text.lines().filter(|line| line.contains(word)).count() as u64;
        assert_eq!(site.number(&format!("SELECT count(*) FROM {log_type}_logs")), expected, "{log_type}");
    }
    expect_same_bytes(site, folder);
}

/// The originals come back, whatever names rotation has given them since.
fn expect_same_bytes(site: &Site, folder: &str) {
    let files = std::fs::read_dir(site.at(folder)).unwrap();
    let mut originals: Vec<_> = files.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect();
    let mut restored: Vec<_> = site.restore().into_values().collect();
    originals.sort();
    restored.sort();
    assert_eq!(restored.len(), originals.len());
    assert!(restored == originals, "other bytes came back");
}

#[test]
fn runs_that_are_killed_at_any_time_lose_nothing_and_double_nothing() {
    let (site, mut chaos) = (Site::new(), Chaos::new());
    let kills = num_kills();
    // a file more before each kill, so that there is always something left to do
    let lines_per_file = num_lines().div_ceil(kills + 1);
    let (files, lines) = ((kills + 1).to_string(), lines_per_file.to_string());
    site.ok(&["generate", "--out", "stock", "--files", &files, "--lines", &lines]);
    std::fs::create_dir(site.at("logs")).unwrap();
    let bring = |file: usize| {
        let name = format!("logs_{file:04}.log");
        site.rename(&format!("stock/{name}"), &format!("logs/{name}"));
    };
    bring(0);
    let longest = time_of_run(&site, "logs") * 5 / 4;
    let sizes = ["4KiB", "64KiB", "1MiB"];
    for round in 0..kills {
        let chunk_size = sizes[chaos.below(3) as usize];
        chaos.kill(&site, &["run", "logs", "--chunk-size", chunk_size], longest);
        bring(round + 1);
    }
    chaos.expect_enough_kills();
    site.ok(&["run", "logs"]);
    assert_eq!(site.committed_lines(), ((kills + 1) * lines_per_file) as u64);
    expect_exactly_once(&site, "logs");
}

#[test]
fn watches_that_are_killed_while_files_grow_and_rotate_lose_nothing_and_double_nothing() {
    let (site, mut chaos) = (Site::new(), Chaos::new());
    let kills = num_kills();
    let lines_per_step = num_lines() / 30 / kills;
    let mut lines = 0;
    let mut step = || {
        lines += lines_per_step;
        numbered_lines(lines - lines_per_step, lines_per_step)
    };
    site.write("logs/a.log", step());
    site.write("logs/b.log", step());
    let watch = ["run", "logs", "--watch", "--flush-interval", "20ms", "--chunk-size", "16KiB"];
    for round in 0..kills {
        let running = site.start(&watch);
        site.append("logs/a.log", step());
        site.append("logs/b.log", step());
        if round % 4 == 3 {
            site.rename("logs/a.log", &format!("logs/a.log.{round}"));
            site.write("logs/a.log", step());
        }
        // past the two seconds after which what has arrived is committed, now and then
        assert_eq!(running.kill_after(chaos.time_within(Duration::from_millis(3500))), None);
        chaos.expect_whole(&site);
    }
    let running = site.start(&watch);
    site.wait_for_lines(lines as u64);
    running.signal("INT");
    running.wait().expect_code(130);
    assert_eq!(site.number("SELECT count(DISTINCT bytes_sent) FROM firewall_logs"), lines as u64);
    expect_exactly_once(&site, "logs");
}

#[test]
fn two_runs_that_share_an_archive_and_are_killed_lose_nothing_and_double_nothing() {
    let (site, mut chaos) = (Site::new(), Chaos::new());
    let rounds = num_kills().div_ceil(2);
    let lines_per_file = num_lines() / 5 / (rounds + 1);
    let (files, lines) = ((rounds + 1).to_string(), lines_per_file.to_string());
    site.ok(&["generate", "--out", "stock", "--files", &files, "--lines", &lines]);
    std::fs::create_dir(site.at("logs")).unwrap();
    let bring = |file: usize| {
        let name = format!("logs_{file:04}.log");
        site.rename(&format!("stock/{name}"), &format!("logs/{name}"));
    };
    bring(0);
    let longest = time_of_run(&site, "logs") * 3 / 2;
    for round in 0..rounds {
        let other = site.start(&["run", "logs", "--chunk-size", "64KiB"]);
        chaos.kill(&site, &["run", "logs", "--chunk-size", "16KiB"], longest);
        match round % 2 {
            0 => drop(other.wait().expect_code(0)),
            _ => drop(other.kill_after(chaos.time_within(longest / 2))),
        }
        chaos.expect_whole(&site);
        bring(round + 1);
    }
    site.ok(&["run", "logs"]);
    assert_eq!(site.committed_lines(), ((rounds + 1) * lines_per_file) as u64);
    expect_exactly_once(&site, "logs");
}
