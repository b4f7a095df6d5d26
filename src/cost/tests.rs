//! Figures by hand, and what the report promises about sources.
use chrono::NaiveDate;

use super::*;

const DAY: &str = "2026-11-22";

/// A run of round figures.
fn run() -> String {
    serde_json::json!({
        "recorded": { "date": "2026-11-20", "lines": 2_000_000, "cores": 2, "cpu": "a processor", "version": "0.1.0" },
        "queue": { "lines_per_second": 500_000.0, "lines_per_frame": 8_000.0, "bytes_per_line": 125.0,
            "messages_per_million_lines": 125.0 },
        "stages": {
            "read": { "cpu_seconds_per_million_lines": 0.25, "peak_bytes": 104_857_600 },
            "redis": { "cpu_seconds_per_million_lines": 0.2 },
            "decode_and_copy": { "cpu_seconds_per_million_lines": 0.5 },
            "process": { "cpu_seconds_per_million_lines": 1.0, "peak_bytes": 209_715_200 },
            "archive_writer": { "cpu_seconds_per_million_lines": 0.5 },
            "postgres": { "cpu_seconds_per_million_lines": 4.0 },
        },
        "postgres": { "table_bytes_per_row": 100.0, "index_bytes_per_row": 28.0, "wal_bytes_per_row": 128.0 },
        "archive": { "bytes_per_line": 8.0, "lines_per_group": 1_000_000.0, "tables": 4 },
        "old": {
            "lines_per_second": 500.0, "cpu_seconds_per_million_lines": 100.0,
            "postgres_cpu_seconds_per_million_lines": 200.0, "redis_cpu_seconds_per_million_lines": 50.0,
            "peak_bytes": 20_971_520, "message_bytes": 400.0, "table_bytes_per_row": 500.0,
            "index_bytes_per_row": 268.0, "wal_bytes_per_row": 1280.0,
        },
        "questions": [
            { "name": "1_host_window", "archive": { "bytes": 4_194_304, "requests": 30, "cpu_seconds": 0.036 },
              "postgres": { "bytes": 8192, "cpu_seconds": 0.0036 } },
        ],
        "bench": { "anything": 1 },
    })
    .to_string()
}

fn inputs() -> Inputs {
    let as_of: NaiveDate = DAY.parse().unwrap();
    let inputs = Inputs::of_prices(PRICES_NAME, PRICES, as_of).unwrap();
    let inputs = inputs.with_run("run.json", &run()).unwrap();
    inputs.with_retention(Retention { hot_days: 7.0, cold_days: 365.0 }).unwrap()
}

#[track_caller]
fn expect(report: &Report, row: &str, column: usize, expected: f64) {
    let value = report.row(row)[column];
    assert!((value - expected).abs() <= expected.abs() * 1e-9, "{row}: {value}, by hand {expected}");
}

/// Column of 100 M lines a day.
const HUNDRED_MILLION: usize = 2;

#[test]
fn a_hundred_million_lines_a_day_cost_what_they_cost_by_hand() {
    let report = Report::new(&inputs()).unwrap();
    let at = |row: &str, expected: f64| expect(&report, row, HUNDRED_MILLION, expected);
    // 100,000,000 / 8,000 = 12,500 full frames a day; one a second would be 86,400, of 1,157.4 lines each
    at("new_frames", 86_400.0);
    at("new_frame_bytes", 100e6 * 125.0 / 86_400.0);
    // half of a vCPU's day is 43,200 s; Redis takes 100 * 0.2 s of it, a small node gives 0.2 * 43,200 s
    at("new_redis_seconds", 20.0);
    at("new_queue_usd", 730.0 * 0.032);
    // 144,676 bytes are three units of 64 KiB: two times three and one delete
    at("new_sqs_requests", 365.0 / 12.0 * 86_400.0 * 7.0);
    at("new_sqs_usd", 365.0 / 12.0 * 86_400.0 * 7.0 / 1e6 * 0.40);
    // 0.25 + 1.0 + 0.5 s for a million; 300 MiB fit one task of half a GB, 10,800 s of CPU too
    at("new_cpu_seconds", 175.0);
    at("new_tasks", 1.0);
    at("new_compute_usd", 730.0 * (0.25 * 0.04048 + 0.5 * 0.004445));
    // 400 s a day: a burstable instance gives 17,280
    at("new_database_usd", 730.0 * 0.065);
    let hot_gb = 100e6 * 7.0 * 128.0 / 1_073_741_824.0 / 0.8;
    at("new_db_gb", hot_gb);
    // 256 bytes of rows, indexes and log for each of 1,157.4 lines a second in pages of 8 KiB, and 8 commits; twice, for peaks
    at("new_db_iops", (100e6 / 86_400.0 * 256.0 / 8192.0 + 8.0) / 0.5);
    at("new_storage_usd", hot_gb * 0.115);
    // a group every ten seconds: 8,640 a day, of four tables with a file and a log entry, put twice and read once
    at("new_puts", 8_640.0 * 8.0 * 2.0);
    let archive_gb = 100e6 * 365.0 * 8.0 / 1_073_741_824.0;
    let requests_usd = 365.0 / 12.0 * (138_240.0 * 0.005 + 69_120.0 * 0.0004) / 1000.0;
    at("new_archive_usd", archive_gb * 0.023 + requests_usd);

    // 100 * 50 s of Redis: a small node gives 8,640
    at("old_queue_usd", 730.0 * 0.032);
    // 10,000 s of CPU fit one task by CPU; 4.63 pairs of processes are five, of 20 MiB each
    at("old_workers", 5.0);
    at("old_tasks", 1.0);
    // 20,000 s of Postgres: above the burstable 17,280, below the 86,400 of a large one
    let old_gb = 100e6 * 365.0 * 768.0 / 1_073_741_824.0 / 0.8;
    at("old_db_gb", old_gb);
    at("old_servers", 1.0);
    at("old_database_usd", 730.0 * 0.168);
    // 12,000 IOPS are included, (1,157.4 * 2,048 / 8,192 + 1,157.4) * 2 are 2,894
    at("old_extra_iops", 0.0);
    at("old_storage_usd", old_gb * 0.115);
    let sum = |pipeline: &str| {
        let parts = ["queue", "compute", "database", "storage", "archive"];
        parts.map(|part| report.row(&format!("{pipeline}_{part}_usd"))[HUNDRED_MILLION]).iter().sum::<f64>()
    };
    at("old_total_usd", sum("old"));
    at("new_total_usd", sum("new"));
    let old = report.of("old").nth(HUNDRED_MILLION).unwrap();
    assert_eq!(old.dominant, "storage");
}

#[test]
fn what_grows_past_one_server_or_the_first_price_tier_pays_for_it() {
    let report = Report::new(&inputs()).unwrap();
    // ten billion: 2,000,000 s of Postgres a day, 86,400 s from each large instance
    expect(&report, "old_db_large", 4, 24.0);
    // 65,536 GB each
    let old_gb = 10e9 * 365.0 * 768.0 / 1_073_741_824.0 / 0.8;
    expect(&report, "old_servers", 4, f64::ceil(old_gb / 65_536.0));
    // 500,000 s of Redis a day, 43,200 s from each node's one command thread
    expect(&report, "old_queue_usd", 4, 730.0 * 12.0 * 0.158);
    // 30 billion requests a day are 912.5 billion a month
    let usd = (100e9 * 0.40 + 100e9 * 0.30 + 712.5e9 * 0.24) / 1e6;
    expect(&report, "old_sqs_usd", 4, usd);
}

#[test]
fn batches_pay_for_each_64_kib_and_each_message() {
    let report = Report::new(&inputs()).unwrap();
    // one line as JSON: sent, received, deleted
    expect(&report, "batch_requests", 0, 3e6);
    // ten of them in one request each
    expect(&report, "batch_requests", 1, 3e5);
    // 64 KiB of raw lines: 524 lines of 125 bytes
    expect(&report, "batch_requests", 4, 3e6 / 524.0);
    // 1 MiB: 8,388 lines, 16 units; 4 MiB: 64 units in four messages
    expect(&report, "batch_requests", 6, 33.0 * 1e6 / 8_388.0);
    expect(&report, "batch_requests", 7, (2.0 * 64.0 + 4.0) * 1e6 / 33_554.0);
}

#[test]
fn a_question_pays_for_cpu_and_requests_and_athena_for_ten_mib_at_least() {
    let report = Report::new(&inputs()).unwrap();
    // 36 ms a thousand times are 0.01 hours of a vCPU with its two GB
    expect(&report, "archive_usd", 0, 30.0 * 0.0004 + 0.01 * (0.04048 + 2.0 * 0.004445));
    // 3.6 ms a thousand times are 0.001 hours of one of two vCPUs
    expect(&report, "postgres_usd", 0, 0.001 * 0.168 / 2.0);
    // 4 MiB are billed as 10
    expect(&report, "athena_usd", 0, 30.0 * 0.0004 + 1000.0 * 10.0 / 1_048_576.0 * 5.0);
}

#[test]
fn few_lines_make_a_message_each_and_idle_receivers_pay() {
    let mut inputs = inputs();
    // a source that is cut once in ten minutes: 144 frames a day, while two receivers ask every 20 s
    inputs.set("assumption.flush_seconds", 600.0).unwrap();
    let report = Report::new(&inputs).unwrap();
    expect(&report, "new_frames", 0, 144.0);
    expect(&report, "new_sqs_empty", 0, 2.0 * 4_320.0 - 144.0);
}

#[test]
fn a_number_can_be_changed_and_an_unknown_name_proposes_near_ones() {
    let mut inputs = inputs();
    inputs.set("price.rds_gp3_gb", 0.23).unwrap();
    let report = Report::new(&inputs).unwrap();
    let changed = report.inputs.iter().find(|input| input.key == "price.rds_gp3_gb").unwrap();
    assert_eq!(changed.place, "--set price.rds_gp3_gb");
    assert_eq!(changed.flags, ["0.115 in data/prices.toml: price.rds_gp3_gb"]);
    let error = inputs.set("price.rds_gp_gb", 1.0).unwrap_err().to_string();
    assert!(error.contains("near it are price.rds_gp3_gb"), "{error}");
    let error = inputs.set("utilization", 1.0).unwrap_err().to_string();
    assert!(error.contains("assumption.utilisation"), "{error}");
    let error = inputs.set("xyzzy", 1.0).unwrap_err().to_string();
    assert_eq!(error, "--set xyzzy: there is no such number");
}

#[test]
fn a_division_by_nothing_and_a_missing_number_are_errors_that_name_the_row_or_key() {
    let mut without = inputs();
    without.set("assumption.utilisation", 0.0).unwrap();
    let error = Report::new(&without).unwrap_err().to_string();
    assert!(error.contains("a number that it divides by is 0"), "{error}");
    let as_of = DAY.parse().unwrap();
    let empty = Inputs::of_prices(PRICES_NAME, PRICES, as_of).unwrap();
    let empty = empty.with_run("run.json", r#"{"recorded": {}}"#).unwrap();
    let error = Report::new(&empty).unwrap_err().to_string();
    assert!(
        error.starts_with("run.postgres.table_bytes_per_row is in neither data/prices.toml nor run.json; "),
        "{error}"
    );
    assert!(error.contains("pipeline bench --baseline --record"), "{error}");
}

#[test]
fn prices_that_are_old_undated_or_unconfirmed_are_flagged() {
    let report = Report::new(&inputs()).unwrap();
    let flags = |key: &str| report.inputs.iter().find(|input| input.key == key).unwrap().flags.clone();
    assert_eq!(flags("price.athena_tb"), ["older than a year"]);
    assert_eq!(flags("price.db_m7g_large"), ["date unknown", "not confirmed"]);
    assert!(flags("price.ec2_m7g_large").is_empty());
    // the day after its year is over
    let later = Inputs::of_prices(PRICES_NAME, PRICES, "2027-06-18".parse().unwrap()).unwrap();
    assert_eq!(later.get("price.ec2_m7g_large").unwrap().flags, ["older than a year"]);
}

#[test]
fn the_report_names_the_source_of_every_number_that_a_formula_takes() {
    let report = Report::new(&inputs()).unwrap();
    let text = report.markdown("COST.svg");
    assert!(text.contains("![$ a month by lines a day, and what it goes into](COST.svg)"));
    for input in &report.inputs {
        assert!(text.contains(&format!("| `{}` |", input.key)), "{}", input.key);
    }
    let rows = report.sections.iter().flat_map(|section| &section.rows);
    for row in rows {
        assert!(text.contains(&format!("\n{} = {}\n", row.name, row.formula)), "{}", row.name);
    }
}

#[test]
fn every_price_limit_and_assumption_is_used() {
    let inputs = inputs();
    let report = Report::new(&inputs).unwrap();
    let file: toml::Table = toml::from_str(PRICES).unwrap();
    for (kind, entries) in &file {
        for key in entries.as_table().unwrap().keys() {
            let key = format!("{kind}.{key}");
            assert!(report.inputs.iter().any(|input| input.key == key), "{key} is in no formula");
        }
    }
}

#[test]
fn the_chart_has_both_lines_every_bar_and_no_background() {
    let svg = Report::new(&inputs()).unwrap().svg().unwrap();
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
    assert!(svg.matches("<polyline").count() >= 2, "{svg}");
    for text in ["old pipeline", "this pipeline", "100 M", "10 B", "queue", "archive"] {
        assert!(svg.contains(text), "{text}");
    }
    assert!(!svg.contains("#FFFFFF"), "it is seen on dark pages too");
}
