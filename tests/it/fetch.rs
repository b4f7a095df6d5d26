//! `pipeline fetch` against a server that cuts, lies and forgets; killed at random; and held against local files.
//!
//! `PIPELINE_FETCH_FILES` (100) is the size of the large manifest, `PIPELINE_FETCH_KILLS` (5) the number of kills.
#![expect(clippy::disallowed_methods, reason = "a kill comes at a random time, which nothing announces")]
use std::collections::BTreeMap;
use std::fs;
use std::thread::sleep;
use std::time::Duration;

use pipeline::store::{Database, DatabaseLocation, FetchRecord};
use serde_json::{Value, json};

use super::campaign::Random;
use super::servers::{Adversary, Postgres, S3Server, content, log};
use super::support::{Ended, Site};

const FLAGS: [&str; 6] = ["fetch", "--files", "m.json", "--allow-private", "--download-cache", "cache"];

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn site(manifest: &[Value]) -> Site {
    let mut site = Site::new();
    site.set("PIPELINE_NO_SLEEP", "1");
    site.write("m.json", serde_json::to_vec(manifest).unwrap());
    site
}

fn fetch(site: &Site, more: &[&str]) -> Ended {
    site.end(&[&FLAGS[..], more].concat())
}

/// Reports by id.
fn reports(ended: &Ended) -> BTreeMap<String, Value> {
    let lines = ended.stdout.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let reports = lines.map(|report| (report["id"].as_str().unwrap_or_default().to_owned(), report));
    reports.collect()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What is in the cache but for the file that holds its locks.
fn cached(site: &Site) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(site.at("cache")).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| !path.ends_with(".locks")).collect()
}

#[test]
fn every_good_file_comes_whole_from_a_bad_server_and_every_bad_one_is_named() {
    let server = Adversary::start();
    let files = from_environment("PIPELINE_FETCH_FILES", 100);
    // of a hundred
    let behaviours = [
        ("good", 45, true),
        ("cut", 15, true),
        ("moved", 7, true),
        ("busy", 8, true),
        ("broken", 8, true),
        ("trickle", 3, true),
        ("forgets", 3, true),
        ("version", 2, true),
        ("short", 2, false),
        ("long", 2, false),
        ("missing", 3, false),
        ("circle", 2, false),
    ];
    let chosen = |number: u64| {
        let mut at = number % 100;
        let found = behaviours.iter().find(|(_, share, _)| match at.checked_sub(*share) {
            None => true,
            Some(rest) => {
                at = rest;
                false
            }
        });
        *found.unwrap()
    };
    let mut manifest = Vec::new();
    for number in 0..files {
        let (behaviour, _, _) = chosen(number);
        let size = if behaviour == "circle" { 1 } else { 20_000 + (number * 7919) % 30_000 };
        let mut entry = json!({
            "url": server.url(&format!("/{behaviour}/{number}/{size}?token=hunter2")),
            "id": format!("{number}"),
            "name": format!("file-{number}"),
        });
        if behaviour == "short" {
            // a length that is a lie is only seen by whoever knows the truth
            entry["sha256"] = sha256(&content(number, size as usize)).into();
        }
        manifest.push(entry);
    }
    let site = site(&manifest);
    let ended = fetch(&site, &["--post-processor", "keep:kept", "--output", "json", "-vv"]).expect_code(1);
    assert!(!format!("{}{}", ended.stdout, ended.stderr).contains("hunter2"));
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    let failed: Vec<_> = summary["failures"].as_array().unwrap().iter().map(|item| &item["id"]).collect();
    let mut good = 0;
    for number in 0..files {
        let (behaviour, _, is_good) = chosen(number);
        let name = format!("file-{number}");
        let size = 20_000 + (number * 7919) % 30_000;
        if is_good {
            let expected = match behaviour {
                "version" => content(number + 1_000_000, size as usize),
                _ => content(number, size as usize),
            };
            assert!(site.read(&format!("kept/{name}")) == expected, "{behaviour} {number}");
            good += 1;
        } else {
            assert!(failed.contains(&&json!(format!("{number}"))), "{behaviour} {number} is not named");
            assert!(ended.stderr.contains(&format!("error: {name} (http")), "{behaviour} {number}");
            assert!(!site.at(format!("kept/{name}")).exists(), "{behaviour} {number}");
        }
    }
    assert_eq!(summary["done"], good);
    assert_eq!(failed.len() as u64, files - good, "{failed:?}");
    let (received, again) = (&summary["bytes_received"], &summary["bytes_again"]);
    let (received, again) = (received.as_u64().unwrap(), again.as_u64().unwrap());
    assert!(received <= server.body_bytes());
    assert!(again * 20 < received, "{again} of {received} bytes came again");
    let left = cached(&site);
    let is_of_failed = |path: &std::path::PathBuf| {
        let path = path.to_string_lossy();
        failed.iter().any(|id| path.contains(&format!("file-{}.", id.as_str().unwrap())))
    };
    assert!(left.iter().all(is_of_failed), "only failed files stay in the cache: {left:?}");

    let again = fetch(&site, &["--post-processor", "keep:kept", "--output", "json"]).expect_code(1);
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(again["skipped"], good, "what is done is not done again");
}

#[test]
fn killed_at_random_nothing_is_lost_and_nothing_is_ingested_twice() {
    const LINES: u64 = 300;
    let server = Adversary::start();
    let seed = from_environment("PIPELINE_CHAOS_SEED", std::process::id().into());
    let kills = from_environment("PIPELINE_FETCH_KILLS", 5);
    let mut random = Random(seed);
    let files = 10 + 4 * kills;
    let manifest: Vec<_> = (0..files)
        .map(|number| json!({ "url": server.url(&format!("/logs/{number}/{LINES}.log")), "id": number }))
        .collect();
    let site = site(&manifest);
    let flags = [
        &FLAGS[..],
        &["--processor", "ingest", "--pre-processor", "decompress", "--downloads", "2", "--retries", "5"],
    ]
    .concat();
    let mut killed = 0;
    for _ in 0..kills {
        let running = site.start(&flags);
        sleep(Duration::from_millis(50 + random.below(700)));
        killed += u64::from(running.kill_after(Duration::ZERO).is_none());
    }
    let ended = site.end(&[&flags[..], &["--output", "json"]].concat()).expect_code(0);
    let summary: Value = serde_json::from_str(&ended.stdout).unwrap();
    let done = summary["done"].as_u64().unwrap() + summary["skipped"].as_u64().unwrap();
    assert_eq!(done, files, "seed {seed}, {killed} kills: {summary}");
    site.verify(&[]);
    let counts = site.query("SELECT count(*), count(DISTINCT bytes_sent) FROM firewall_logs");
    let expected = format!("{0},{0}", files * LINES);
    assert_eq!(counts.lines().nth(1), Some(expected.as_str()), "seed {seed}, {killed} kills");
    // what was received before a kill is received again only where it was in flight
    let once: u64 = (0..files).map(|number| log(number, LINES as usize).len() as u64).sum();
    let in_flight = kills * 2 * log(0, LINES as usize).len() as u64;
    assert!(server.body_bytes() <= once + in_flight, "seed {seed}: {} of {once}", server.body_bytes());
}

#[test]
fn fetched_and_ingested_is_what_ingesting_the_local_files_gives() {
    let site = site(&[]);
    site.generate(3, 500);
    let text = site.read("logs/logs_0000.log");
    site.write("served/a.log.gz", super::support::gzip(&text));
    site.write("served/b.log.zst", zstd::encode_all(&site.read("logs/logs_0001.log")[..], 3).unwrap());
    site.write("served/c.log", site.read("logs/logs_0002.log"));
    let names = ["a.log.gz", "b.log.zst", "c.log"];
    let url = |name: &str| format!("file://{}", site.at(format!("served/{name}")).display());
    let manifest: Vec<_> = names.iter().map(|name| json!({ "url": url(name), "team": "blue" })).collect();
    site.write("m.json", serde_json::to_vec(&manifest).unwrap());
    let work = ["--pre-processor", "decompress", "--processor", "ingest", "--post-processor", "report"];
    let ended = fetch(&site, &work).expect_code(0);
    let lines: u64 = reports(&ended).values().map(|item| item["result"]["lines"].as_u64().unwrap()).sum();
    assert_eq!(lines, 1500);
    site.verify(&[]);
    site.ok(&["run", "served", "--into", "local"]);
    let [fetched, local] = ["./pipeline-data/archive", "local"].map(|archive| {
        let sql = "SELECT log_type, raw_line, timestamp, parsed_data FROM logs";
        let csv = site.ok(&["query", "--from", archive, "--output", "csv", sql]);
        let mut rows: Vec<_> = csv.lines().map(str::to_owned).collect();
        rows.sort();
        rows
    });
    assert_eq!(fetched.len(), 1501);
    assert_eq!(fetched, local);
    // another cache, another state: the ledger alone knows
    let more = ["--again", "--download-cache", "elsewhere", "--database", "other.db"];
    let flags = ["fetch", "--files", "m.json"];
    let ended = site.end(&[&flags[..], &work, &more].concat()).expect_code(0);
    assert!(reports(&ended).values().all(|item| item["result"]["lines"] == 0), "{}", ended.stdout);
}

#[test]
fn only_what_failed_is_tried_again_where_that_is_asked_for() {
    let server = Adversary::start();
    let site = site(&[
        json!({ "url": server.url("/good/1/10"), "id": "good" }),
        json!({ "url": server.url("/good/2/10"), "id": "checked", "sha256": sha256(&content(2, 10)) }),
        json!({ "url": format!("file://{}", "/nonexistent/x"), "id": "bad" }),
        json!({ "id": "no url" }),
    ]);
    let error = fetch(&site, &["--strict", "--processor", "exec:true"]).expect_code(1).only_error();
    assert_eq!(error, "m.json: entry 3: url: is missing");
    assert_eq!(server.requests("/good/1/10"), 0, "--strict refuses the lot");
    let report = ["--post-processor", "report"];
    let first = reports(&fetch(&site, &report).expect_code(1));
    let statuses = |of: &BTreeMap<String, Value>| {
        of.values().map(|item| item["status"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    // the entry without an url too
    assert_eq!(statuses(&first), ["failed", "failed", "done", "done"]);
    assert_eq!((&first["bad"]["stage"], &first[""]["stage"]), (&json!("download"), &json!("manifest")));
    let second = reports(&fetch(&site, &[&report[..], &["--retry-failed"]].concat()).expect_code(1));
    assert_eq!(statuses(&second), ["failed", "failed", "skipped", "skipped"]);
    assert_eq!(server.requests("/good/1/10"), 1);
    let third = reports(&fetch(&site, &[&report[..], &["--revalidate"]].concat()).expect_code(1));
    assert_eq!(statuses(&third), ["failed", "failed", "skipped", "skipped"]);
    let heads = server.heads("/good/1/10");
    assert!(heads[1].to_lowercase().contains("if-none-match: \"1\""), "{heads:?}");
    fetch(&site, &["--again"]).expect_code(1);
    assert_eq!(server.requests("/good/1/10"), 3);
}

#[test]
fn a_cut_is_continued_after_a_restart_and_another_content_is_not() {
    let server = Adversary::start();
    let site = site(&[json!({ "url": server.url("/cut/5/90000"), "id": "cut" })]);
    fetch(&site, &["--retries", "1"]).expect_code(1);
    fetch(&site, &["--retries", "1"]).expect_code(1);
    fetch(&site, &["--retries", "1", "--post-processor", "keep:kept"]).expect_code(0);
    assert!(site.read("kept/90000") == content(5, 90000));
    let heads = server.heads("/cut/5/90000");
    let continues = |head: &String| head.to_lowercase().contains("range: bytes=") && head.contains("\"5\"");
    assert!(continues(&heads[1]) && continues(&heads[2]), "{heads:?}");
    assert_eq!(server.body_bytes(), 90000, "not a byte came twice");
}

#[test]
fn where_a_rest_does_not_say_its_place_all_of_it_is_asked_for() {
    let server = Adversary::start();
    let site = site(&[json!({ "url": server.url("/placeless/6/90000"), "id": "a" })]);
    fetch(&site, &["--post-processor", "keep:kept"]).expect_code(0);
    assert!(site.read("kept/90000") == content(6, 90000));
    assert_eq!(server.requests("/placeless/6/90000"), 3);
}

#[test]
fn what_a_manifest_must_not_reach_is_refused() {
    let server = Adversary::start();
    let site = site(&[
        json!({ "url": server.url("/good/1/10?token=hunter2"), "id": "address" }),
        json!({ "url": server.url("/good/1/10").replace("127.0.0.1", "localhost"), "id": "name" }),
        json!({ "url": "s3://bucket/key", "id": "scheme" }),
    ]);
    let refused = site.end(&["fetch", "--files", "m.json", "--download-cache", "cache"]).expect_code(1);
    assert_eq!(refused.errors().len(), 3);
    assert_eq!(refused.stderr.matches("--allow-private permits that").count(), 2, "{}", refused.stderr);
    assert!(!refused.stderr.contains("hunter2"));
    assert_eq!(server.requests("/good/1/10?token=hunter2"), 0);
    site.write("m.json", json!([{ "url": server.url("/inside/1/1"), "id": "inside" }]).to_string());
    let error = fetch(&site, &["--processor", "exec:true"]).expect_code(1).only_error();
    assert!(error.contains("the server redirects to file://, which is not followed"), "{error}");
    let db = site.read("pipeline-data/state.db");
    assert!(!db.windows(7).any(|bytes| bytes == b"hunter2"), "the state holds no query");
}

#[test]
fn a_stage_can_be_any_program_and_every_item_reaches_the_end() {
    let site = site(&[]);
    site.write("served/a.txt", "one\ntwo\n");
    let url = |name: &str| format!("file://{}", site.at(format!("served/{name}")).display());
    let manifest = [json!({ "url": url("a.txt"), "team": "blue" }), json!({ "url": url("missing.txt") })];
    site.write("m.json", serde_json::to_vec(&manifest).unwrap());
    let stages = [
        "--pre-processor",
        "exec:cat > /dev/null; echo '{\"checked\": true}'",
        "--processor",
        "exec:grep -o blue | head -1; wc -l < \"$1\"",
        "--post-processor",
        "exec:cat >> ends",
    ];
    fetch(&site, &stages).expect_code(1);
    let ends = String::from_utf8(site.read("ends")).unwrap();
    let mut ends: Vec<Value> = ends.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    ends.sort_by_key(|end| end["report"]["id"].to_string());
    assert_eq!(ends[0]["report"]["result"], "blue\n2");
    assert_eq!(ends[0]["report"]["fields"], json!({ "team": "blue", "checked": true }));
    assert_eq!(ends[1]["report"]["stage"], "download");
    let failing = ["--again", "--processor", "exec:echo no >&2; exit 3"];
    let ended = fetch(&site, &failing).expect_code(1);
    assert!(ended.stderr.contains("process: the command exited with 3: no"), "{}", ended.stderr);
    assert!(!cached(&site).is_empty(), "a file that failed is kept");
    let late = ["--processor", "exec:sleep 100; sleep 100", "--exec-timeout", "100ms"];
    let ended = fetch(&site, &late).expect_code(1);
    assert!(ended.stderr.contains("killed after 100ms"), "{}", ended.stderr);
}

#[test]
fn a_simulation_needs_no_network_and_repeats_itself() {
    let manifest: Vec<_> =
        (0..50).map(|number| json!({ "url": format!("https://h.invalid/{number}"), "id": number })).collect();
    let site = site(&manifest);
    let flags = ["--simulate-downloads", "--simulate-failures", "0.3", "--output", "json"];
    let outcome = || {
        let summary: Value = serde_json::from_str(&fetch(&site, &flags).expect_code(1).stdout).unwrap();
        let mut ids: Vec<_> =
            summary["failures"].as_array().unwrap().iter().map(|item| item["id"].to_string()).collect();
        ids.sort();
        (summary["done"].as_u64().unwrap(), ids)
    };
    let (done, failed) = outcome();
    assert!(done > 20 && failed.len() > 5 && done + failed.len() as u64 == 50);
    assert_eq!(outcome(), (done, failed), "nothing of it is kept as done");
    for work in [["--processor", "ingest"], ["--post-processor", "keep:kept"]] {
        let error = fetch(&site, &[&flags[..], &work].concat()).expect_code(2).only_error();
        assert!(error.contains("stores nothing"), "{error}");
    }
}

#[test]
fn two_runs_that_share_a_cache_do_each_file_once() {
    let server = Adversary::start();
    let manifest: Vec<_> = (0..12)
        .map(|number| json!({ "url": server.url(&format!("/trickle/{number}/20000")), "id": number }))
        .collect();
    let site = site(&manifest);
    let work = ["--processor", "exec:echo 1 >> runs; sleep 0.05; wc -c < \"$1\"", "--output", "json"];
    let flags = [&FLAGS[..], &work].concat();
    let summaries = std::thread::scope(|scope| {
        let runs = [(); 3].map(|()| scope.spawn(|| site.end(&flags).expect_code(0).stdout));
        runs.map(|run| serde_json::from_str::<Value>(&run.join().unwrap()).unwrap())
    });
    let sum = |field: &str| summaries.iter().map(|of| of[field].as_u64().unwrap()).sum::<u64>();
    assert_eq!((sum("done"), sum("skipped"), sum("failed")), (12, 24, 0), "{summaries:?}");
    assert_eq!(site.read("runs").len(), 24, "each of the twelve once");
    assert!(cached(&site).is_empty());
}

#[test]
fn what_is_in_the_cache_is_held_against_its_hash_and_a_rest_against_its_time() {
    let server = Adversary::start();
    let entry = json!({ "url": server.url("/good/1/1000"), "id": "a", "sha256": sha256(&content(1, 1000)) });
    let dated = json!({ "url": server.url("/dated/2/90000"), "id": "b" });
    let site = site(&[entry, dated]);
    fetch(&site, &["--processor", "exec:exit 1"]).expect_code(1);
    let whole = cached(&site).into_iter().find(|path| path.to_string_lossy().ends_with("-1000")).unwrap();
    fs::write(whole, content(9, 1000)).unwrap();
    fetch(&site, &["--post-processor", "keep:kept"]).expect_code(0);
    assert!(site.read("kept/1000") == content(1, 1000));
    assert!(site.read("kept/90000") == content(1_000_002, 90000), "not half of each");
}

#[test]
fn what_cannot_be_kept_is_named_and_waits_in_the_cache() {
    let server = Adversary::start();
    let site = site(&[json!({ "url": server.url("/good/1/1000"), "id": "a" })]);
    site.write("kept", "a file, where a folder is to be");
    let error = fetch(&site, &["--post-processor", "keep:kept"]).expect_code(1).only_error();
    assert!(error.contains("post_process: kept: the file cannot be kept: "), "{error}");
    fs::remove_file(site.at("kept")).unwrap();
    fetch(&site, &["--post-processor", "keep:kept"]).expect_code(0);
    assert!(site.read("kept/1000") == content(1, 1000));
    assert_eq!(server.requests("/good/1/1000"), 1);
}

#[test]
fn a_command_that_leaves_others_behind_ends_with_its_shell() {
    let site = site(&[]);
    site.write("a.txt", "one");
    site.write("m.json", json!([{ "url": format!("file://{}", site.at("a.txt").display()) }]).to_string());
    let started = std::time::Instant::now();
    let ended = fetch(&site, &["--processor", "exec:sleep 30 & echo hi", "--post-processor", "report"]);
    assert_eq!(reports(&ended.expect_code(0))["a"]["result"], "hi");
    assert!(started.elapsed() < Duration::from_secs(20));
}

#[test]
fn memory_does_not_depend_on_the_size_of_a_file() {
    let server = Adversary::start();
    let site = site(&[json!({ "url": server.url("/good/1/150000000"), "id": "big" })]);
    let mut command = std::process::Command::new("python3");
    let script = "import resource, subprocess, sys\n\
        code = subprocess.call(sys.argv[1:])\n\
        print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    command.args(["-c", script]).arg(env!("CARGO_BIN_EXE_pipeline")).args(FLAGS).args(["--quiet"]);
    let output = Ended::of(command.current_dir(site.at("")).output().unwrap()).expect_code(0).stdout;
    let (code, peak_kib) = output.trim().split_once(' ').unwrap();
    assert_eq!(code, "0");
    assert!(peak_kib.parse::<u64>().unwrap() < 128 << 10, "{peak_kib} KiB for a file of 150 MB");
}

#[tokio::test]
async fn progress_is_kept_alike_in_both_databases() {
    let site = Site::new();
    let postgres = Postgres::shared().database();
    let sqlite = format!("sqlite://{}", site.at("state/state.db").display());
    for url in [sqlite, postgres.url()] {
        let location = DatabaseLocation::parse(&url).unwrap();
        let fetches = Database::try_open(&location, "state").await.unwrap().fetches();
        assert!(fetches.load("work").await.unwrap().is_empty());
        let record = FetchRecord {
            key: "key".to_owned(),
            name: "naïve\u{1}".to_owned(),
            url: "http://h/a".to_owned(),
            stage: Some("download".to_owned()),
            error: Some("no 'answer'".to_owned()),
            size: 1 << 40,
            etag: Some("\"1\"".to_owned()),
            ..FetchRecord::default()
        };
        fetches.keep("work", vec![record.clone()]).await.unwrap();
        let others = ["one", "two"].map(|key| FetchRecord { key: key.to_owned(), ..record.clone() });
        fetches.keep("other", others.to_vec()).await.unwrap();
        assert_eq!(fetches.load("other").await.unwrap().len(), 2);
        let done = FetchRecord { done: true, stage: None, error: None, ..record };
        fetches.keep("work", vec![done.clone()]).await.unwrap();
        // another process sees what was kept
        let fetches = Database::try_open(&location, "state").await.unwrap().fetches();
        let loaded = fetches.load("work").await.unwrap();
        assert_eq!(loaded.into_values().collect::<Vec<_>>(), [done], "{url}");
    }
}

#[test]
fn an_object_of_a_bucket_is_fetched_where_its_scheme_is_allowed() {
    let server = S3Server::start();
    let mut site = site(&[json!({ "url": "s3://logs/day/a.log", "size": 100_000 })]);
    server.serve(&mut site, "archive");
    fs::create_dir_all(server.at("day")).unwrap();
    fs::write(server.at("day/a.log"), content(1, 100_000)).unwrap();
    fetch(&site, &["--schemes", "s3", "--post-processor", "keep:kept"]).expect_code(0);
    assert!(site.read("kept/a.log") == content(1, 100_000));
    site.write("m.json", json!([{ "url": "s3://logs/day/none.log" }]).to_string());
    let error = fetch(&site, &["--schemes", "s3", "--processor", "exec:true"]).expect_code(1).only_error();
    assert!(error.ends_with("download: cannot be read: there is no such object; check the url"), "{error}");
}
