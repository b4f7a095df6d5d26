//! `pipeline load`, and what holds under it: exactness through kills, bounded memory.
use std::collections::BTreeMap;
use std::process::Command;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::{Serve, T0, event, number, table};
use crate::servers::free_port;
use crate::support::{Ended, Site};

fn load(site: &Site, serve: &Serve, arguments: &[&str]) -> Ended {
    let url = serve.url();
    let fixed = ["--url", &url, "--database", "sqlite://state.db", "--output", "json"];
    site.end(&[&["load"], arguments, &fixed].concat())
}

#[test]
fn every_kind_of_load_is_accepted_and_checked() {
    let site = Site::new();
    let serve = Serve::start(&site, &["--window", "1s"]);
    for (arguments, sent) in [
        (&["single", "--check"][..], 1),
        (&["burst", "--size", "50", "--interval", "100ms", "--count", "3", "--check"], 150),
        (&["steady", "--rate", "100", "--duration", "1s", "--check"], 100),
        (&["steady", "--rate", "20", "--duration", "1s", "--batch", "10", "--check"], 200),
        // the same seed twice: what the first run sent is not what the second sends
        (&["steady", "--rate", "100", "--duration", "500ms", "--retry", "--check"], 50),
        (&["steady", "--rate", "100", "--duration", "500ms", "--retry", "--check"], 50),
        (&["variable", "--min", "50", "--max", "100", "--duration", "1s", "--check"], 51),
        (&["custom", "--event-type", "own", "--value", "-1.5", "--metadata", "{\"a\":1}", "--count", "3"], 3),
    ] {
        let ended = load(&site, &serve, arguments).expect_code(0);
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!((&report["sent"], &report["accepted"]), (&json!(sent), &json!(sent)), "{arguments:?}");
        if arguments.contains(&"--check") {
            assert_eq!(report["check"]["differences"], json!([]), "{arguments:?}");
            assert!(report["check"]["aggregates"].as_u64().unwrap() > 0);
        }
    }
    assert_eq!(
        number(&site, "SELECT sum(sum_value) = -4.5 FROM aggregated_data WHERE event_type = 'own'"),
        1
    );
}

#[test]
fn the_check_finds_what_is_wrong() {
    let site = Site::new();
    let serve = Serve::start(&site, &["--window", "1h"]);
    load(&site, &serve, &["steady", "--rate", "0", "--duration", "300ms", "--check"]).expect_code(0);
    let other = Serve::start_command(&mut site.command(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--database",
        "sqlite://other.db",
    ]));
    // what is accepted there is not in the table that is looked at
    let mut command = site.command(&["load", "single", "--check", "--database", "sqlite://state.db"]);
    let url = other.url();
    let running = command.args(["--url", &url]);
    let ended = Ended::of(running.output().unwrap()).expect_code(1);
    assert!(ended.stdout.contains("differ"), "{}", ended.stdout);
    let nobody = format!("http://127.0.0.1:{}/webhook", free_port());
    let error = site.error(4, &["load", "single", "--url", &nobody]);
    assert!(error.contains("no connection"), "{error}");
    let error = site.error(2, &["load", "custom", "--event-type", "a", "--value", "nan", "--url", &nobody]);
    assert!(error.contains("--value"), "{error}");
}

/// At least 50 kills when `PIPELINE_CHAOS_KILLS` says so (`make chaos`).
#[test]
fn killed_under_load_every_event_that_was_answered_counts_once() {
    let kills: u32 = std::env::var("PIPELINE_CHAOS_KILLS").map_or(8, |text| text.parse().unwrap());
    let site = Site::new();
    let port = free_port().to_string();
    let address = format!("127.0.0.1:{port}");
    let start = || {
        let flags = ["serve", "--listen", &address, "--database", "sqlite://state.db", "--window", "2s"];
        Serve::start_command(site.command(&flags).args(["--allowed-lateness", "1h"]))
    };
    let mut serve = start();
    let duration = format!("{}ms", 400 * u64::from(kills) + 1000);
    let url = serve.url();
    let load = site.start(&[
        "load",
        "steady",
        "--rate",
        "0",
        "--duration",
        &duration,
        "--connections",
        "16",
        "--retry",
        "--check",
        "--url",
        &url,
        "--database",
        "sqlite://state.db",
        "--output",
        "json",
    ]);
    let mut accepted = 0;
    for kill in 0..kills {
        // different moments of a commit
        let more = u64::from(50 + kill * 37 % 200);
        crate::servers::wait_until("it counts events", || {
            let counted = number(&site, "SELECT coalesce(sum(count), 0) FROM aggregated_data") as u64;
            counted >= accepted + more
        });
        serve.kill();
        accepted = number(&site, "SELECT coalesce(sum(count), 0) FROM aggregated_data") as u64;
        serve = start();
    }
    let ended = load.wait().expect_code(0);
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["check"]["differences"], json!([]));
    let counted: u64 = table(&site).values().map(|row| row.0).sum();
    assert_eq!(report["accepted"], counted, "{report}");
    assert!(report["retried"].as_u64().unwrap() > 0, "kills were felt: {report}");
}

/// User, type, value and second; and what it is shuffled by.
type Shuffled = ((u32, u32, f64, i64), u32);
/// How many events, their values and their users, by window and type.
type Expected = BTreeMap<(i64, String), (u64, Vec<f64>, std::collections::BTreeSet<u32>)>;

/// Bodies of a shuffle, each with what happens after it.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    Again,
    Restart,
}

#[test]
fn a_hundred_shuffles_with_restarts_and_retries_give_the_table_of_a_plain_reference() {
    let shuffles: u32 = std::env::var("PIPELINE_SHUFFLES").map_or(12, |text| text.parse().unwrap());
    let one = (0..30_u32, 0..4_u32, -1e6..1e6_f64, 0..59_i64);
    let strategy = (
        prop::collection::vec((one, any::<u32>()), 20..80),
        prop::collection::vec(
            prop_oneof![12 => Just(Then::Nothing), 4 => Just(Then::Again), 1 => Just(Then::Restart)],
            10,
        ),
        1..30_usize,
        prop_oneof![Just("10s"), Just("1s"), Just("60s")],
    );
    let config = Config { cases: shuffles, failure_persistence: None, ..Config::default() };
    let run = |(mut events, then, cut, window): (Vec<Shuffled>, Vec<Then>, usize, &str)| {
        let length: i64 = window.trim_end_matches('s').parse().unwrap();
        let mut expected = Expected::new();
        for ((user, kind, value, second), _) in &events {
            let start = (T0 + second).div_euclid(length) * length;
            let row = expected.entry((start, format!("t{kind}"))).or_default();
            row.0 += 1;
            row.1.push(*value);
            row.2.insert(*user);
        }
        events.sort_by_key(|(_, key)| *key);
        let site = Site::new();
        let flags = ["--window", window, "--allowed-lateness", "60s"];
        let mut serve = Serve::start(&site, &flags);
        for (number, (part, then)) in events.chunks(cut).zip(then.into_iter().cycle()).enumerate() {
            let bodies: Vec<_> = part
                .iter()
                .map(|((user, kind, value, second), _)| event(*user, &format!("t{kind}"), *value, *second))
                .collect();
            let (id, body) = (format!("part{number}"), json!(bodies).to_string());
            assert_eq!(serve.post_with(&[("webhook-id", &id)], &body).status, 200);
            if then == Then::Restart {
                serve.kill();
                serve = Serve::start(&site, &flags);
            }
            if then != Then::Nothing {
                assert_eq!(serve.post_with(&[("webhook-id", &id)], &body).status, 200);
            }
        }
        let expected: BTreeMap<_, _> = expected
            .into_iter()
            .map(|(key, (count, values, users))| {
                let sum = exact_sum(&values);
                (key, (count, sum, sum / count as f64, users.len() as u64))
            })
            .collect();
        let found: BTreeMap<_, _> =
            table(&site).into_iter().map(|(key, row)| (key, (row.0, row.1, row.2, row.3))).collect();
        assert_eq!(found, expected);
        Ok(())
    };
    TestRunner::new(config).run(&strategy, run).unwrap();
}

/// Python's exact sum.
fn exact_sum(values: &[f64]) -> f64 {
    let python = format!("import math; print(repr(math.fsum({values:?})))");
    let output = Command::new("python3").args(["-c", &python]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

/// Resident memory of a process in KiB.
fn resident_kib(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn hostile_keys_do_not_fill_memory() {
    let site = Site::new();
    let serve = Serve::start(&site, &["--window", "1s", "--max-body-size", "4MiB"]);
    let answer = serve.post(event(1, "a", 1.0, 0).to_string());
    assert_eq!(answer.status, 200);
    let calm = resident_kib(serve.child.id());
    // new types, users, windows and identities in every event
    for batch in 0..40_u32 {
        let events: Vec<_> = (0..5000_u32)
            .map(|number| {
                let key = batch * 5000 + number;
                let mut event = event(key, &format!("type{}", key % 3000), 1.0, i64::from(key % 61));
                event["id"] = format!("id{key}").into();
                event
            })
            .collect();
        let status = serve.post(json!(events).to_string()).status;
        assert!([200, 207].contains(&status), "{status}");
    }
    let peak = resident_kib(serve.child.id());
    assert!(peak < 100 << 10, "{calm} KiB, then {peak} KiB");
    let counted: u64 = table(&site).values().map(|row| row.0).sum();
    assert_eq!(counted + number(&site, "SELECT count(*) FROM late_events") as u64, 200_001);
}

#[test]
fn a_single_event_gives_a_closed_window_when_nothing_follows() {
    let site = Site::new();
    let serve = Serve::start(&site, &["--window", "100ms"]);
    assert_eq!(serve.post(event(1, "a", 1.0, 0).to_string()).status, 200);
    crate::servers::wait_until("the clock closes it", || {
        serve.get("/metrics").body.contains("pipeline_aggregates_closed_total 1\n")
    });
    assert_eq!(serve.post(event(1, "a", 1.0, 0).to_string()).status, 200);
    let row = table(&site)[&(T0, "a".into())];
    assert_eq!((row.0, row.4), (2, 2), "what comes behind corrects it");
}
