//! `archive compact`: fewer files and the same rows, beside writers and readers, whatever is killed.
use std::collections::BTreeMap;
use std::fs;

use serde_json::Value;

use super::exactly_once::{Chaos, expect_exactly_once, num_kills};
use super::lake_readers::expect_same_rows;
use super::servers::{Faults, S3Server};
use super::support::{AUTH_LINE, DNS_LINE, NO_TYPE, Site};

/// (files, rows, days) by table, as `archive list` has them.
fn listed(site: &Site) -> BTreeMap<String, (u64, u64, u64)> {
    let tables: Vec<Value> =
        serde_json::from_str(&site.ok(&["archive", "list", "--output", "json"])).unwrap();
    let number = |table: &Value, name: &str| table[name].as_u64().unwrap();
    let counts = |table: &Value| (number(table, "files"), number(table, "rows"), number(table, "days"));
    tables.iter().map(|table| (table["table"].as_str().unwrap().to_owned(), counts(table))).collect()
}

/// Several groups of all tables, each in files of its own.
fn fill(site: &Site, groups: usize, lines: usize) {
    let (groups_text, lines) = (groups.to_string(), lines.to_string());
    site.ok(&["generate", "--out", "stock", "--files", &groups_text, "--lines", &lines]);
    fs::create_dir(site.at("logs")).unwrap();
    for group in 0..groups {
        bring(site, group);
        site.append(&format!("logs/logs_{group:04}.log"), format!("{NO_TYPE} {group}\n\n"));
        site.run(&["logs"]);
    }
}

fn bring(site: &Site, file: usize) {
    site.rename(&format!("stock/logs_{file:04}.log"), &format!("logs/logs_{file:04}.log"));
}

const QUESTIONS: [&str; 4] = [
    "SELECT log_type, count(*) AS n, count(DISTINCT raw_line) AS lines FROM logs GROUP BY 1 ORDER BY 1",
    "SELECT src, count(*) AS n, sum(bytes_sent) AS bytes FROM firewall_logs GROUP BY src ORDER BY n DESC, src LIMIT 20",
    "SELECT count(*) AS n, min(timestamp) AS first, max(timestamp) AS last FROM dns_logs WHERE timestamp < '2024-01-15T00:20:00Z'",
    "SELECT chunk_id, count(*) AS n, sum(line) AS lines FROM auth_logs GROUP BY chunk_id ORDER BY chunk_id",
];

#[test]
fn compacting_leaves_one_file_per_table_and_day_and_every_row_as_it_was() {
    let site = Site::new();
    fill(&site, 5, 2000);
    let answers = || QUESTIONS.map(|sql| site.query(sql));
    let (before, expected) = (listed(&site), answers());
    let plan = site.ok(&["archive", "compact", "--dry-run"]);
    assert!(plan.contains("firewall") && plan.contains("chunks"), "{plan}");
    assert_eq!(listed(&site), before, "a plan changes nothing");
    let done: Vec<Value> =
        serde_json::from_str(&site.ok(&["archive", "compact", "--output", "json"])).unwrap();
    assert!(done.iter().all(|of| of["bytes_after"].is_u64()), "{done:?}");
    let after = listed(&site);
    for (table, (files, rows, days)) in &after {
        assert_eq!(*files, (*days).max(1), "{table}: {after:?}");
        let is_ledger = table == "chunks";
        // the compaction has an entry of its own
        assert_eq!(*rows, before[table].1 + u64::from(is_ledger), "{table}");
        assert!(before[table].0 > *files, "{table}: {before:?}");
    }
    assert_eq!(answers(), expected);
    expect_exactly_once(&site, "logs");
    expect_same_rows(&site);
    assert_eq!(site.ok(&["archive", "compact"]), "nothing to compact\n");
    assert_eq!(listed(&site), after);
    // and on it goes, from one file and new ones
    site.write("logs/more.log", format!("{DNS_LINE}\n{NO_TYPE}\n"));
    site.run(&["logs"]);
    site.ok(&["archive", "compact"]);
    assert_eq!(listed(&site)["rejects"], (1, before["rejects"].1 + 1, 0));
    expect_exactly_once(&site, "logs");
}

#[test]
fn an_open_line_in_a_compacted_file_is_replaced_by_its_longer_form() {
    let site = Site::new();
    fill(&site, 2, 1000);
    let (start, rest) = AUTH_LINE.split_at(AUTH_LINE.len() - 8);
    site.write("logs/open.log", format!("{DNS_LINE}\n{start}"));
    site.run(&["logs"]);
    site.ok(&["archive", "compact"]);
    site.append("logs/open.log", format!("{rest}\n"));
    site.run(&["logs"]);
    expect_exactly_once(&site, "logs");
    site.ok(&["archive", "compact"]);
    expect_exactly_once(&site, "logs");
    expect_same_rows(&site);
}

#[test]
fn compacting_beside_a_writer_and_a_reader_disturbs_neither() {
    let site = Site::new();
    let groups = 6;
    site.ok(&["generate", "--out", "stock", "--files", &groups.to_string(), "--lines", "1500"]);
    fs::create_dir(site.at("logs")).unwrap();
    bring(&site, 0);
    site.run(&["logs"]);
    for group in 1..groups {
        bring(&site, group);
        let compact = site.start(&["archive", "compact"]);
        let writer = site.start(&["run", "logs", "--chunk-size", "16KiB"]);
        let other = site.start(&["archive", "compact"]);
        let rows = site.number("SELECT count(*) FROM logs");
        assert!(
            rows == group as u64 * 1500 || rows == (group as u64 + 1) * 1500,
            "{rows} rows in group {group}"
        );
        for running in [compact, writer, other] {
            running.wait().expect_code(0);
        }
    }
    assert_eq!(site.committed_lines(), groups as u64 * 1500);
    expect_exactly_once(&site, "logs");
}

#[test]
fn compactions_and_commits_that_are_killed_lose_nothing_and_double_nothing() {
    let (site, mut chaos) = (Site::new(), Chaos::new());
    // 24, and 100 in `make chaos`
    let kills = num_kills() * 2;
    let lines_per_file = 400;
    let (files, lines) = ((kills + 1).to_string(), lines_per_file.to_string());
    site.ok(&["generate", "--out", "stock", "--files", &files, "--lines", &lines]);
    fs::create_dir(site.at("logs")).unwrap();
    bring(&site, 0);
    let started = std::time::Instant::now();
    site.ok(&["run", "logs"]);
    site.ok(&["archive", "compact"]);
    let longest = started.elapsed();
    for round in 0..kills {
        bring(&site, round + 1);
        let writer = site.start(&["run", "logs", "--chunk-size", "16KiB"]);
        if round % 3 == 0 {
            writer.wait().expect_code(0);
            chaos.kill(&site, &["archive", "compact"], longest);
        } else {
            chaos.kill(&site, &["archive", "compact"], longest);
            let _ended_before = writer.kill_after(chaos.time_within(longest / 2));
            chaos.expect_whole(&site);
        }
    }
    chaos.expect_enough_kills();
    site.ok(&["run", "logs"]);
    let on_disk = parquet_files(&site);
    site.ok(&["archive", "compact"]);
    assert!(on_disk > listed(&site).values().map(|(files, ..)| *files as usize).sum(), "orphans are on disk");
    assert_eq!(site.committed_lines(), ((kills + 1) * lines_per_file) as u64);
    expect_exactly_once(&site, "logs");
    expect_same_rows(&site);
}

fn parquet_files(site: &Site) -> usize {
    fn count(folder: &std::path::Path) -> usize {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        entries
            .map(|path| {
                if path.is_dir() {
                    count(&path)
                } else {
                    usize::from(path.extension().is_some_and(|e| e == "parquet"))
                }
            })
            .sum()
    }
    count(&site.at("pipeline-data/archive"))
}

#[test]
fn a_bucket_is_compacted_through_faults() {
    let server = S3Server::start();
    let mut site = Site::new();
    server.serve(&mut site, "archive");
    fill(&site, 3, 1000);
    let expected = QUESTIONS.map(|sql| site.query(sql));
    server.fail(
        Faults { throttled: 30, cut_before: 10, cut_after: 10, commit_cut_after: 200, ..Faults::default() },
        3,
    );
    site.ok(&["archive", "compact"]);
    server.fail(Faults::default(), 0);
    assert!(listed(&site).values().all(|(files, _, days)| *files == (*days).max(1)), "{:?}", listed(&site));
    assert_eq!(QUESTIONS.map(|sql| site.query(sql)), expected);
    expect_exactly_once(&site, "logs");
}
