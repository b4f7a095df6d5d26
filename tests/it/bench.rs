//! `pipeline bench`, and the old design that it compares with: same answers, and where they cannot be the same.
use std::collections::BTreeSet;
use std::fs;
use std::thread;
use std::time::Duration;

use pipeline::bench::{AttachLimits, Ending, Sample, Schema, attach};
use pipeline::client::PgConfig;
use serde_json::Value;
use tokio::sync::watch;

use super::servers::{Postgres, Redis, wait_until};
use super::support::{FIREWALL_LINE, Site, numbered_lines, output, python, repository};

const OLD_TABLE: &str = "CREATE TABLE old.logs (id bigserial PRIMARY KEY, log_type text, raw_line text, \
    \"timestamp\" text, source_file text, parsed_data jsonb, indexed_at timestamptz DEFAULT now())";

fn question(folder: &str, number: usize) -> String {
    let files = fs::read_dir(repository("sql/queries").join(folder)).unwrap();
    let mut paths = files.map(|entry| entry.unwrap().path());
    let start = format!("{number}_");
    let path = paths.find(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&start)).unwrap();
    fs::read_to_string(path).unwrap()
}

/// `2024-01-15 05:00:00.12+00` and `2024-01-15T05:00:00.120Z` are one time.
fn same_times(text: &str) -> String {
    let value = |value: &str| {
        if !value.starts_with("2024-01-") {
            return value.to_owned();
        }
        let time = value.trim_end_matches("+00").trim_end_matches('Z').replace('T', " ");
        if time.contains('.') { time.trim_end_matches('0').trim_end_matches('.').to_owned() } else { time }
    };
    let lines = text.lines().map(|line| line.split('|').map(value).collect::<Vec<_>>().join("|"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Answers are compared as sets: addresses have another order as text. Of a ranking's last places, several may
/// have equal claims.
fn clear_places(text: &str, is_ranking: bool) -> (BTreeSet<String>, Vec<String>) {
    let events = |line: &str| line.rsplit('|').next().unwrap().to_owned();
    let counts: Vec<_> = if is_ranking { text.lines().map(events).collect() } else { Vec::new() };
    let is_clear = |line: &&str| counts.last().is_none_or(|last| events(line) != *last);
    (text.lines().filter(is_clear).map(str::to_owned).collect(), counts)
}

#[test]
fn old_sql_on_old_table_and_view_new_sql_and_plain_python_give_the_same_answers() {
    let (database, redis) = (Postgres::shared().database(), Redis::shared());
    let site = Site::new();
    // one line per second: into the hour from 05:00 that the first question asks for
    site.generate(1, 20_000);
    site.ok(&["run", "--into", &database.url(), "logs"]);
    database.sql(&format!("CREATE SCHEMA old; {OLD_TABLE}"));
    // the old table is filled by the old way, line by line
    let mut old_design = site.command(&["bench", "--as-old-design", "--schema", "old", "logs"]);
    old_design.args(["--baseline-lines", "20000", "--via", &redis.url(), "--into", &database.url()]);
    let figures: Value = serde_json::from_str(&output(&mut old_design)).unwrap();
    assert_eq!(figures["lines"], 20_000);
    for number in 1..=6 {
        let ask = |schema: &str, sql: &str| {
            database.sql(&format!("SET search_path = {schema}; SET TimeZone = 'UTC'; {sql}"))
        };
        let new = ask("public", &question("", number));
        assert!(new.lines().count() > 2, "question {number} has an answer");
        for schema in ["public", "old"] {
            assert!(ask(schema, &question("old", number)) == new, "question {number}, old SQL in {schema}");
        }
        let number_text = number.to_string();
        let csv = output(python("six_questions.py").arg(&number_text).arg(site.at("logs")));
        let reference = csv.lines().skip(1).collect::<Vec<_>>().join("\n").replace(',', "|");
        let is_ranking = number >= 5;
        assert_eq!(
            clear_places(&same_times(&new), is_ranking),
            clear_places(&same_times(&reference), is_ranking),
            "question {number}"
        );
    }
}

#[test]
fn text_times_of_the_old_sql_miss_what_a_time_finds() {
    let database = Postgres::shared().database();
    let site = Site::new();
    let times = [
        "2024-01-15T05:00:00Z",
        "2024-01-15T05:00:00.500Z",
        "2024-01-15T06:00:00Z",
        "2024-01-15T06:00:00.500Z",
        // 05:30 and 03:30 in UTC
        "2024-01-15T07:30:00+02:00",
        "2024-01-15T05:30:00+02:00",
    ];
    let line = FIREWALL_LINE.replace("192.168.1.45", "192.168.1.42");
    let lines: Vec<_> = times.iter().map(|time| line.replace("2024-01-15T00:00:03.731Z", time)).collect();
    site.write("logs/a.log", lines.join("\n"));
    site.ok(&["run", "--into", &database.url(), "logs"]);
    let times_where = |condition: &str| {
        database.sql(&format!("SELECT \"timestamp\" FROM logs WHERE {condition} ORDER BY \"timestamp\""))
    };
    let new = times_where(
        "\"timestamp\"::timestamptz >= '2024-01-15T05:00:00Z' AND \"timestamp\"::timestamptz < '2024-01-15T06:00:00Z'",
    );
    assert_eq!(new, "2024-01-15T05:00:00.500Z\n2024-01-15T05:00:00Z\n2024-01-15T07:30:00+02:00");
    // the old SQL, as the team writes it: right for times in UTC, and blind to offsets
    let old = times_where("\"timestamp\" BETWEEN '2024-01-15T05:00:00' AND '2024-01-15T06:00:00'");
    assert_eq!(old, "2024-01-15T05:00:00.500Z\n2024-01-15T05:00:00Z\n2024-01-15T05:30:00+02:00");
    // and with bounds in Z: a fraction sorts before the Z, at both ends
    let old = times_where("\"timestamp\" BETWEEN '2024-01-15T05:00:00Z' AND '2024-01-15T06:00:00Z'");
    assert_eq!(
        old,
        "2024-01-15T05:00:00Z\n2024-01-15T05:30:00+02:00\n2024-01-15T06:00:00.500Z\n2024-01-15T06:00:00Z"
    );
    let count = |sql: String| database.sql(&sql).lines().count();
    assert_eq!((count(question("", 1)), count(question("old", 1))), (3, 3), "as many, but not the same");
}

#[test]
fn a_bench_reports_every_figure_records_what_costs_and_leaves_nothing() {
    let (database, redis) = (Postgres::shared().database(), Redis::shared());
    let site = Site::new();
    let mut command = site.command(&["bench", "--lines", "20000", "--chunk-size", "100KiB", "--baseline"]);
    command.args(["--baseline-lines", "100", "--output", "json", "--into", &database.url()]);
    command.args(["--via", &redis.url(), "--record", "runs/first.json"]);
    let report: Value = serde_json::from_str(&output(&mut command)).unwrap();
    assert_eq!(report["run"]["committed"]["lines"], 20_000, "{report}");
    assert_eq!(report["run"]["committed"]["rows"], 20_000);
    assert!(report["run"]["deepest_queue"].is_object(), "{report}");
    assert_eq!(redis.cli(&["KEYS", "*pipeline_bench*"]), "");
    assert_eq!(report["unindexed_leaves"], 0);
    assert_eq!(report["baseline"]["old"]["lines"], 100);
    for pointer in [
        "/run/queryable_seconds",
        "/run/indexed_seconds",
        "/lines_per_second_queryable",
        "/cpu_seconds_per_million_lines",
        "/peak_bytes",
        "/table_bytes_per_row",
        "/index_bytes_per_row",
        "/baseline/queryable_ratio",
        "/baseline/indexed_ratio",
        "/queue_cost/frames/dollars_per_day",
        "/queue_cost/message_per_line/dollars_per_day",
    ] {
        let figure = report.pointer(pointer).and_then(Value::as_f64);
        assert!(figure.is_some_and(|figure| figure > 0.0), "{pointer}: {figure:?} in {report}");
    }
    let seconds = |name: &str| report["run"][name].as_f64().unwrap();
    assert!(seconds("queryable_seconds") <= seconds("indexed_seconds"));
    assert_eq!(report["questions"].as_array().unwrap().len(), 6);
    assert_eq!(report["baseline"]["questions"].as_array().unwrap().len(), 6);
    assert_eq!(report["summaries"].as_array().unwrap().len(), 4);
    let recording: Value = serde_json::from_slice(&site.read("runs/first.json")).unwrap();
    assert_eq!(recording["recorded"]["lines"], 20_000);
    assert_eq!(recording["bench"], report);
    for pointer in [
        "/queue/lines_per_frame",
        "/stages/read/peak_bytes",
        "/stages/process/peak_bytes",
        "/postgres/wal_bytes_per_row",
        "/archive/bytes_per_line",
        "/old/message_bytes",
        "/old/index_bytes_per_row",
        "/old/wal_bytes_per_row",
    ] {
        let figure = recording.pointer(pointer).and_then(Value::as_f64);
        assert!(figure.is_some_and(|figure| figure > 0.0), "{pointer}: {figure:?} in {recording}");
    }
    let questions = recording["questions"].as_array().unwrap();
    assert_eq!(questions.len(), 6);
    for question in questions {
        let figure = |pointer: &str| question.pointer(pointer).and_then(Value::as_u64).unwrap();
        // a file has a footer and columns
        assert!(figure("/archive/requests") >= 2, "{question}");
        assert!(figure("/archive/bytes") > 0, "{question}");
        assert!(figure("/postgres/bytes") > 0, "{question}");
    }
    // a cost report can be made of it, all five volumes of both pipelines
    let cost = site.ok(&["cost", "--run", "runs/first.json", "--output", "json"]);
    let cost: Value = serde_json::from_str(&cost).unwrap();
    assert_eq!(cost["totals"].as_array().unwrap().len(), 10);
    let left = database.sql("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'pipeline_bench%'");
    assert_eq!(left, "");
}

#[test]
fn a_bench_drops_its_own_schema_and_nobody_elses() {
    let database = Postgres::shared().database();
    let site = Site::new();
    let bench = [
        "bench",
        "--lines",
        "100",
        "--into",
        &database.url(),
        "--schema",
        "kept",
        "--keep",
        "--via",
        "memory",
    ];
    for _ in 0..2 {
        site.ok(&bench);
        assert_eq!(database.sql("SELECT count(*) FROM kept.logs"), "100");
    }
    database.sql("COMMENT ON SCHEMA kept IS 'of the sales department'");
    let error = site.error(3, &bench);
    assert!(error.contains("schema kept holds tables that no bench made; name another"), "{error}");
    assert_eq!(database.sql("SELECT count(*) FROM kept.logs"), "100");
}

#[test]
fn a_measured_pipeline_that_fails_says_why() {
    let database = Postgres::shared().database();
    let site = Site::new();
    let error = site.error(1, &["bench", "missing.log", "--via", "memory", "--into", &database.url()]);
    assert!(error.starts_with("`pipeline run`, which was measured, failed with exit status: "), "{error}");
    assert!(error.contains("missing.log"), "{error}");
}

#[test]
fn a_recording_needs_the_old_design_and_a_queue() {
    let site = Site::new();
    let error = site.error(2, &["bench", "--record", "run.json"]);
    assert!(error.contains("--baseline"), "{error}");
    let error = site.error(3, &["bench", "--baseline", "--record", "run.json", "--via", "memory"]);
    assert_eq!(error, "--via memory: has no queue to record; name redis://host:port");
}

#[test]
fn attach_counts_what_another_process_commits_and_stops_when_nothing_more_comes() {
    let database = Postgres::shared().database();
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 5_000));
    site.ok(&["run", "--into", &database.url(), "logs/a.log"]);
    site.write("logs/b.log", numbered_lines(0, 7_000));
    let limits = AttachLimits { total: Duration::from_secs(60), idle: Duration::from_secs(4) };
    let attached = thread::scope(|scope| {
        let (samples, mut seen) = watch::channel(Sample::default());
        let watching = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let samples = samples;
            runtime.block_on(async {
                let client = PgConfig::parse(&database.url()).unwrap().connect().await.unwrap();
                attach(&Schema::of(client, "public"), None, limits, &samples).await.unwrap()
            })
        });
        // what was there before it looked is not counted
        wait_until("it looks", || seen.has_changed().unwrap());
        seen.mark_unchanged();
        site.ok(&["run", "--into", &database.url(), "logs/b.log"]);
        watching.join().unwrap()
    });
    assert_eq!((attached.committed.lines, attached.ending), (7_000, Ending::NoProgress));
    assert!(attached.seconds > 0.0 && attached.rows_per_second > 0.0);
}
