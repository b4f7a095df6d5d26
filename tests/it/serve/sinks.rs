//! Postgres and a Redis queue beside SQLite, each by itself, and away for a while.
use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{Serve, T0, event, table};
use crate::servers::{Postgres, Redis, wait_until};
use crate::support::Site;

fn queue(redis: &Redis, list: &str) -> Vec<Value> {
    let lines = redis.cli(&["LRANGE", list, "0", "-1"]);
    lines.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn closed_windows_are_pushed_once_with_seven_fields_and_corrections_beside_them() {
    let site = Site::new();
    let (redis, list) = (Redis::shared(), Redis::unique("windows"));
    let flags = ["--queue", &redis.url(), "--queue-name", &list];
    let mut serve = Serve::start(&site, &flags);
    let corrections = format!("{list}:corrections");
    serve.post(json!([event(1, "a", 1.5, 0), event(2, "a", 1.5, 1), event(1, "b", 1.0, 2)]).to_string());
    serve.post(event(1, "a", 1.0, 60).to_string());
    wait_until("the closed window is there", || queue(redis, &list).len() == 2);
    let pushed = queue(redis, &list);
    let a = pushed.iter().find(|one| one["event_type"] == "a").unwrap();
    let (start, end) = (T0 as f64, (T0 + 60) as f64);
    assert_eq!(
        a,
        &json!({ "window_start": start, "window_end": end, "event_type": "a", "count": 2,
                 "sum_value": 3.0, "avg_value": 1.5, "unique_users": 2 })
    );
    serve.kill();
    serve = Serve::start(&site, &flags);
    serve.post(event(3, "a", 1.0, 5).to_string());
    wait_until("the correction is there", || queue(redis, &corrections).len() == 1);
    let correction = &queue(redis, &corrections)[0];
    assert_eq!((&correction["count"], &correction["version"]), (&json!(3), &json!(2)));
    assert_eq!(queue(redis, &list).len(), 2, "nothing is pushed twice");
}

#[test]
fn a_sink_that_is_away_holds_up_nobody_and_catches_up() {
    let site = Site::new();
    let mut postgres = Postgres::start();
    let database = postgres.database();
    let mut redis = Redis::start();
    let flags = ["--database", &database.url(), "--queue", &redis.url(), "--window", "1s"];
    let serve = Serve::start(&site, &flags);
    let count = || database.sql("SELECT coalesce(sum(count), 0) FROM aggregated_data");
    serve.post(event(1, "a", 1.0, 0).to_string());
    wait_until("Postgres has it while its window is open", || {
        database.try_sql("SELECT 1 FROM aggregated_data").is_ok_and(|rows| rows == "1")
    });
    postgres.kill();
    redis.kill();
    for second in 1..20 {
        assert_eq!(serve.post(event(1, "a", 1.0, second).to_string()).status, 200);
        assert_eq!(serve.get("/ready").status, 200);
    }
    postgres.restart();
    wait_until("Postgres has caught up", || {
        database.try_sql("SELECT sum(count) FROM aggregated_data").is_ok_and(|sum| sum == "20")
    });
    redis.restart();
    wait_until("Redis has caught up", || queue(&redis, "pipeline_output").len() >= 19);
    let starts: BTreeSet<_> = queue(&redis, "pipeline_output")
        .iter()
        .map(|one| one["window_start"].as_f64().unwrap() as i64)
        .collect();
    assert!((T0..T0 + 19).all(|start| starts.contains(&start)));
    assert_eq!(count(), "20");
    let sqlite: u64 = table(&site).values().map(|row| row.0).sum();
    assert_eq!(sqlite, 20);
}

#[test]
fn what_a_queue_cannot_take_waits_for_the_next_name_of_it() {
    let site = Site::new();
    let redis = Redis::start();
    redis.cli(&["SET", "taken", "hello"]);
    let flags = ["--queue", &redis.url(), "--window", "1s", "--queue-name"];
    let serve = Serve::start(&site, &[&flags[..], &["taken"]].concat());
    serve.post(event(1, "a", 1.0, 0).to_string());
    serve.post(event(1, "a", 1.0, 10).to_string());
    wait_until("the queue is found to be none", || {
        serve.get("/metrics").body.contains("pipeline_aggregates_waiting 2\n")
    });
    let (code, said) = serve.terminate();
    assert!(code == Some(143) && said.contains("taken is no list; give another --queue-name"), "{said}");
    let serve = Serve::start(&site, &[&flags[..], &["free"]].concat());
    wait_until("another takes them", || queue(&redis, "free").len() == 2);
    drop(serve);
}

#[test]
fn a_table_that_is_new_gets_what_was_there_before() {
    let site = Site::new();
    let mut serve = Serve::start(&site, &[]);
    serve.post(event(1, "a", 1.0, 0).to_string());
    serve.kill();
    let database = Postgres::shared().database();
    let _serve = Serve::start(&site, &["--database", &database.url(), "--database", "sqlite://copy.db"]);
    wait_until("Postgres has it", || {
        database.try_sql("SELECT count FROM aggregated_data").is_ok_and(|rows| rows == "1")
    });
    let rows = "SELECT window_start, window_end, event_type, count, sum_value, avg_value, unique_users, version, id FROM aggregated_data";
    wait_until("the copy has it", || {
        let copy = rusqlite::Connection::open(site.at("copy.db")).unwrap();
        copy.query_row("SELECT count(*) FROM aggregated_data", [], |row| row.get::<_, i64>(0))
            .is_ok_and(|count| count == 1)
    });
    let postgres = database.sql(rows);
    let sqlite = rusqlite::Connection::open(site.at("copy.db")).unwrap();
    let id: i64 = sqlite.query_row("SELECT id FROM aggregated_data", [], |row| row.get(0)).unwrap();
    assert!(postgres.ends_with(&format!("|{id}")), "{postgres}");
}

#[test]
fn the_monitoring_queries_run_on_both() {
    let site = Site::new();
    let database = Postgres::shared().database();
    let serve = Serve::start(&site, &["--database", &database.url()]);
    serve.post(json!([event(1, "a", 1.0, 0), event(1, "a", 2.0, 61), event(1, "b", 5.0, 0)]).to_string());
    wait_until("Postgres has it", || {
        database.try_sql("SELECT count(*) FROM aggregated_data").is_ok_and(|rows| rows == "3")
    });
    let text = |name: &str| std::fs::read_to_string(crate::support::repository(name)).unwrap();
    let by_type = text("sql/monitoring/2_by_event_type.sql");
    assert_eq!(database.sql(&by_type), "a|2|2|1.5\nb|1|1|5");
    let latest = text("sql/monitoring/1_latest.sql");
    assert!(database.sql(&latest).starts_with(&format!("{}|{}|a|1|2|2|1|1", T0 + 60, T0 + 120)));
    let sqlite = super::database(&site);
    let first = |sql: &str| sqlite.query_row(sql, [], |row| row.get::<_, f64>(0)).unwrap();
    assert_eq!(first(&latest), (T0 + 60) as f64);
    let average = sqlite.query_row(&by_type, [], |row| row.get::<_, f64>(3)).unwrap();
    assert_eq!(average, 1.5);
}
