//! The archive in a bucket: what a folder promises, through a network that throttles, lags and breaks.
//!
//! Against a real S3 server on loopback, whose faults are drawn by a seed that every failure prints.
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::exactly_once::{Chaos, expect_exactly_once};
use super::servers::{Faults, S3Server, SECRET_KEY};
use super::support::{NO_TYPE, Site, gzip};

fn site_on(server: &S3Server) -> Site {
    let mut site = Site::new();
    server.serve(&mut site, "a/archive");
    site
}

#[test]
fn an_archive_in_a_bucket_holds_and_answers_what_one_in_a_folder_does() {
    let server = S3Server::start();
    let site = site_on(&server);
    site.generate(2, 5000);
    site.write("logs/odd.log", format!("{NO_TYPE}\n\n"));
    let in_bucket = site.run(&["logs"]);
    assert_eq!(in_bucket, site.run(&["logs", "--into", "folder"]));
    assert!(server.at("a/archive/chunks/_delta_log/00000000000000000001.json").exists());
    for sql in [
        "SELECT log_type, count(*) AS n, min(timestamp) AS first, max(raw_line) AS last FROM logs GROUP BY 1 ORDER BY 1",
        "SELECT src, sum(bytes_sent) AS bytes FROM firewall_logs GROUP BY src ORDER BY bytes DESC, src LIMIT 10",
        "SELECT count(*) AS n FROM rejects",
    ] {
        let of_folder = site.ok(&["query", "--output", "csv", "--from", "folder", sql]);
        assert_eq!(site.query(sql), of_folder, "{sql}");
    }
    expect_exactly_once(&site, "logs");
    site.expect_folder_restored("logs");
    let doctor = site.ok(&["doctor", "--via", "memory", "--into", &server.url("a/archive")]);
    assert!(doctor.contains("can be written, read and listed"), "{doctor}");
    // a first archive beside it, and one at the bucket's root
    for place in ["s3://logs/b", "s3://logs"] {
        assert_eq!(site.run(&["logs", "--into", place]), in_bucket, "{place}");
    }
    expect_exactly_once(&site, "logs");
}

#[test]
fn raw_logs_in_a_bucket_are_tables() {
    let server = S3Server::start();
    let site = site_on(&server);
    site.generate(2, 20_000);
    std::fs::create_dir_all(server.at("raw")).unwrap();
    std::fs::copy(site.at("logs/logs_0000.log"), server.at("raw/logs_0000.log")).unwrap();
    std::fs::write(server.at("raw/logs_0001.log.gz"), gzip(&site.read("logs/logs_0001.log"))).unwrap();
    let sql = "SELECT log_type, count(*) AS n, min(raw_line) AS first FROM logs GROUP BY 1 ORDER BY 1";
    let expected = site.ok(&["query", "--output", "csv", "--from", "raw:logs", sql]);
    assert_eq!(expected.lines().count(), 4);
    for from in ["raw:s3://logs/raw", "raw:s3://logs/raw/*", "raw:s3://logs/**/logs_000?.log*"] {
        assert_eq!(site.ok(&["query", "--output", "csv", "--from", from, sql]), expected, "{from}");
    }
    let error = site.error(1, &["query", "--from", "raw:s3://logs/raw/*.zst", sql]);
    assert!(error.contains("no object matches"), "{error}");
}

#[test]
fn a_large_file_goes_into_a_bucket_in_parts_and_comes_back() {
    let server = S3Server::start();
    let site = site_on(&server);
    // lines that no compression makes smaller
    let mut state = 42u64;
    let mut noise = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as u8
    };
    let mut text = Vec::new();
    while text.len() < 12 << 20 {
        text.extend(
            (0..1000).map(|_| noise()).map(|byte| if byte == b'\n' || byte == 0 { b'x' } else { byte }),
        );
        text.push(b'\n');
    }
    site.write("logs/noise.log", &text);
    server.fail(Faults { throttled: 100, cut_before: 30, cut_after: 30, ..Faults::default() }, 7);
    site.run(&["logs"]);
    assert!(server.happened().parts.load(Ordering::Relaxed) >= 2);
    site.expect_folder_restored("logs");
}

#[test]
fn two_writers_at_once_into_one_bucket_store_each_line_once() {
    let server = S3Server::start();
    let site = site_on(&server);
    site.generate(4, 3000);
    let writers = ["16KiB", "64KiB"].map(|size| site.start(&["run", "logs", "--chunk-size", size]));
    for writer in writers {
        writer.wait().expect_code(0);
    }
    expect_exactly_once(&site, "logs");
    assert_eq!(site.committed_lines(), 12_000);
}

#[test]
fn a_commit_whose_answer_is_lost_is_known_as_the_writers_own() {
    let server = S3Server::start();
    let site = site_on(&server);
    site.generate(1, 2000);
    // every other conditional put is done, and its connection cut before the answer
    server.fail(Faults { commit_cut_after: 500, ..Faults::default() }, 1);
    assert_eq!(site.run(&["logs"]).lines, 2000);
    assert!(server.happened().cut_after.load(Ordering::Relaxed) >= 3);
    server.fail(Faults::default(), 0);
    assert_eq!(site.number("SELECT count(DISTINCT \"group\") FROM chunks"), 1, "nothing was committed again");
    expect_exactly_once(&site, "logs");
}

#[test]
fn throttling_lag_and_cut_connections_lose_nothing_and_double_nothing() {
    let server = S3Server::start();
    let (site, mut chaos) = (site_on(&server), Chaos::new());
    site.ok(&["generate", "--out", "stock", "--files", "3", "--lines", "1000"]);
    std::fs::create_dir(site.at("logs")).unwrap();
    let faults = Faults { throttled: 40, slow: 20, cut_before: 12, cut_after: 12, commit_cut_after: 60 };
    for file in 0..3 {
        site.rename(&format!("stock/logs_{file:04}.log"), &format!("logs/logs_{file:04}.log"));
        server.fail(faults, chaos.below(u64::MAX));
        let other = site.start(&["run", "logs", "--chunk-size", "16KiB"]);
        site.ok(&["run", "logs", "--chunk-size", "50KiB"]);
        other.wait().expect_code(0);
    }
    server.fail(Faults::default(), 0);
    let happened = server.happened();
    let counts = [&happened.throttled, &happened.cut_before, &happened.cut_after];
    let counts = counts.map(|count| count.load(Ordering::Relaxed));
    println!("throttled, cut before, cut after: {counts:?}");
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
    assert_eq!(site.committed_lines(), 3000);
    expect_exactly_once(&site, "logs");
}

#[test]
fn runs_into_a_bucket_that_are_killed_lose_nothing_and_double_nothing() {
    let server = S3Server::start();
    let (site, mut chaos) = (site_on(&server), Chaos::new());
    let kills = 8;
    site.ok(&["generate", "--out", "stock", "--files", "9", "--lines", "1500"]);
    std::fs::create_dir(site.at("logs")).unwrap();
    let bring = |file: usize| {
        site.rename(&format!("stock/logs_{file:04}.log"), &format!("logs/logs_{file:04}.log"));
    };
    bring(0);
    let started = Instant::now();
    site.ok(&["run", "logs", "--into", &server.url("timing")]);
    let longest = started.elapsed() * 5 / 4;
    for round in 0..kills {
        server.fail(Faults { throttled: 30, cut_after: 30, ..Faults::default() }, chaos.below(u64::MAX));
        chaos.kill(&site, &["run", "logs", "--chunk-size", "16KiB"], longest);
        bring(round + 1);
    }
    server.fail(Faults::default(), 0);
    site.ok(&["run", "logs"]);
    chaos.expect_enough_kills();
    assert_eq!(site.committed_lines(), 9 * 1500);
    expect_exactly_once(&site, "logs");
}

#[test]
fn what_is_wrong_with_a_bucket_is_one_line_with_its_remedy_and_without_the_secret() {
    let server = S3Server::start();
    let mut site = site_on(&server);
    site.generate(1, 100);
    let expect = |site: &Site, code: i32, into: &str, part: &str| {
        let error = site.error(code, &["run", "logs", "-vv", "--log-file", "log", "--into", into]);
        assert!(error.contains(part), "{error}");
        let log = String::from_utf8(site.read("log")).unwrap();
        assert!(!error.contains(SECRET_KEY) && !log.contains(SECRET_KEY), "{error}\n{log}");
    };
    expect(&site, 3, "s3://missing/archive", "there is no such bucket; create it, or name another");
    site.set("AWS_MAX_ATTEMPTS", "2");
    server.fail(Faults { throttled: 1000, ..Faults::default() }, 1);
    expect(&site, 4, "s3://logs/archive", "storage is overloaded or failing; run again later");
    server.fail(Faults::default(), 0);
    let error = site.error(3, &["query", "--from", "s3://logs/none", "SELECT 1"]);
    assert_eq!(error, "no archive at s3://logs/none; write one with `pipeline run --into s3://logs/none`");
    site.set("AWS_SECRET_ACCESS_KEY", "wrong");
    expect(&site, 3, "s3://logs/archive", "access is denied; check the credentials in the environment");
    site.set("AWS_SECRET_ACCESS_KEY", SECRET_KEY);
    site.set("AWS_ALLOW_HTTP", "false");
    expect(&site, 3, "s3://logs/archive", "set AWS_ALLOW_HTTP=true");
    site.set("AWS_ALLOW_HTTP", "true");
    site.set("AWS_ACCESS_KEY_ID", "");
    site.set("AWS_EC2_METADATA_DISABLED", "true");
    expect(&site, 3, "s3://logs/archive", "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
    site.set("AWS_ACCESS_KEY_ID", "key");
    site.set("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{}", super::servers::free_port()));
    expect(&site, 4, "s3://logs/archive", "storage does not answer; check the network and the endpoint");
    let found = site.end(&["doctor", "--via", "memory", "--into", "s3://logs/archive"]).expect_code(4);
    assert!(
        found.stdout.contains("object storage at s3://logs/archive takes no connection"),
        "{}",
        found.stdout
    );
}
