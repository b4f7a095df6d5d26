//! `pipeline task` as people and scripts use it.
use std::time::Duration;

use serde_json::{Value, json};

use super::Place;
use crate::servers::Postgres;
use crate::support::{AUTH_LINE, DNS_LINE, FIREWALL_LINE, Site};

fn status(site: &Site, id: &str) -> Value {
    serde_json::from_str(&site.ok(&["task", "status", id, "--output", "json"])).unwrap()
}

#[test]
fn a_task_is_run_shown_and_its_id_taken() {
    for place in Place::both() {
        let mut site = Site::new();
        site.set("PIPELINE_DATABASE", &place.url);
        let run = site.end(&["task", "run", "ping", "--id", "p1", "--param", "say=hello"]).expect_code(0);
        assert!(run.stdout.starts_with("p1 - ping - completed\n"), "{}", run.stdout);
        assert!(run.stderr.contains(" hello\n"), "{}", run.stderr);
        let error = site.error(2, &["task", "run", "ping", "--id", "p1"]);
        assert!(error.contains("id p1 is there already"), "{error}");
        assert_eq!(status(&site, "p1")["result"], json!({ "said": "hello", "attempt": 1 }));
        assert!(site.ok(&["task", "logs", "p1"]).ends_with(" hello\n"));
        assert!(site.ok(&["task", "list"]).contains("ping  completed"));
        let log = String::from_utf8(site.read("pipeline-data/task_log.log")).unwrap();
        assert_eq!(log.lines().count(), 2, "{log}");
    }
}

#[test]
fn what_is_wrong_is_said_with_exit_code_2() {
    let site = Site::new();
    for (arguments, part) in [
        (&["task", "run", "pong"][..], "no task named pong (near: ping)"),
        (&["task", "run", "ping", "--param", "wait=soon"], "task ping: parameter wait: a time such as 30s"),
        (&["task", "run", "ping", "--param", "x=1"], "it has no parameter x; it takes wait, say"),
        (&["task", "run", "retention"], "parameter older-than is missing"),
        (&["task", "status", "none"], "no task with the id none"),
        (&["task", "cancel", "none"], "no task with the id none"),
        (&["task", "schedule", "ping", "--cron", "every day"], "is no cron expression"),
        (&["task", "schedule", "ping", "--cron", "0 0 3 * * *"], "it has 6 fields; write minute hour"),
        (&["task", "run", "verify", "--param", "into=postgres://a:secret@h/d"], "a password would be kept"),
    ] {
        let ended = site.end(arguments).expect_code(2);
        assert!(ended.only_error().contains(part), "{}", ended.stderr);
    }
}

#[test]
fn an_id_is_a_text_of_one_line_and_a_unique_key_is_of_one_kind_of_task() {
    let site = Site::new();
    for id in ["", " ", "a\nb - ping - completed"] {
        site.error(2, &["task", "submit", "ping", "--id", id]);
        site.error(2, &["run_task", id, "ping"]);
    }
    assert_eq!(site.ok(&["task", "submit", "ping", "--id", "p", "--unique", "k"]), "p\n");
    assert_eq!(site.ok(&["task", "submit", "ping", "--unique", "k"]), "p\n");
    for command in ["submit", "run"] {
        let error = site.error(2, &["task", command, "verify", "--unique", "k"]);
        assert!(error.contains("task p has that --unique key and runs ping"), "{error}");
    }
    assert_eq!(site.ok(&["list_tasks"]), "p - ping - pending\n");
}

#[test]
fn old_scripts_get_one_line_per_task() {
    let site = Site::new();
    assert_eq!(site.ok(&["run_task", "one", "ping"]), "one - ping - completed\n");
    assert_eq!(site.ok(&["task_status", "one"]), "one - ping - completed\n");
    assert_eq!(site.ok(&["task", "submit", "ping", "--id", "two"]), "two\n");
    let list = site.ok(&["list_tasks"]);
    let mut lines: Vec<_> = list.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one - ping - completed", "two - ping - pending"]);
}

#[test]
fn a_worker_drains_what_was_submitted_and_a_cancelled_task_is_not_run() {
    let site = Site::new();
    for id in ["a", "b", "c"] {
        site.ok(&["task", "submit", "ping", "--id", id]);
    }
    assert_eq!(site.ok(&["task", "cancel", "b"]), "cancelled\n");
    site.ok(&["task", "worker", "--drain"]);
    let statuses = ["a", "b", "c"].map(|id| status(&site, id)["status"].as_str().unwrap().to_owned());
    assert_eq!(statuses, ["completed", "cancelled", "completed"]);
    site.ok(&["task", "retry", "b"]);
    site.ok(&["task", "worker", "--drain"]);
    assert_eq!(status(&site, "b")["status"], "completed");
}

#[test]
fn a_task_that_makes_files_may_replace_them() {
    let site = Site::new();
    let make = ["task", "run", "generate", "--param", "out=gen", "--param", "files=1", "--param", "lines=10"];
    site.ok(&make);
    let ended = site.end(&make).expect_code(1);
    assert!(ended.stderr.contains("already exists; give --force"), "{}", ended.stderr);
    site.ok(&[&make[..], &["--param", "force=true"]].concat());
}

/// What it said before is kept, another worker runs it again, and the child does not live on.
#[test]
fn a_killed_workers_task_is_taken_over() {
    let site = Site::new();
    site.ok(&["task", "submit", "ping", "--id", "t", "--param", "wait=2s", "--param", "say=before"]);
    let worker = ["task", "worker", "--lease", "3s"];
    let first = site.start(&worker);
    crate::servers::wait_until("it says something", || site.ok(&["task", "logs", "t"]).contains("before"));
    assert!(first.kill_after(Duration::ZERO).is_none(), "it was killed");
    assert!(site.ok(&["task", "logs", "t"]).contains("before"));
    site.ok(&[&worker[..], &["--drain"]].concat());
    let task = status(&site, "t");
    assert_eq!((&task["status"], &task["attempt"]), (&json!("completed"), &json!(2)));
    let log = String::from_utf8(site.read("pipeline-data/task_log.log")).unwrap();
    let events: Vec<_> =
        log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone()).collect();
    assert_eq!(events, [json!("start"), json!("lost"), json!("start"), json!("end")]);
}

#[test]
fn a_job_of_the_program_is_a_task_and_its_failure_is_final() {
    let site = Site::new();
    site.write("logs/a.log", [FIREWALL_LINE, DNS_LINE, AUTH_LINE, ""].join("\n"));
    site.ok(&["task", "run", "ingest", "--id", "in", "--param", "paths=logs"]);
    let task = status(&site, "in");
    assert_eq!(task["result"]["lines"], 3, "{task}");
    site.ok(&["task", "run", "nightly", "--id", "n"]);
    let nightly = status(&site, "n");
    assert_eq!(nightly["steps"].as_array().unwrap().len(), 5, "{nightly}");
    let ended =
        site.end(&["task", "run", "ingest", "--id", "bad", "--param", "paths=nowhere"]).expect_code(1);
    assert!(ended.stderr.contains("nowhere"), "{}", ended.stderr);
    assert_eq!(status(&site, "bad")["attempt"], 1);
}

#[test]
fn the_hunting_questions_find_what_is_there() {
    let mut site = Site::new();
    let mut text = String::new();
    for second in 0..12 {
        text += &format!(
            "2024-01-15T00:00:{second:02}.000Z host1 sshd[1]: Failed password for root from 10.9.9.9 port 48032 ssh2\n"
        );
        text += &format!(
            "2024-01-15T01:{second:02}:00.000Z|action=allow|src=192.168.1.45|dst=10.0.0.{second}|proto=TCP|src_port=1024|dst_port=445|bytes_sent=1|rule=r\n"
        );
    }
    for minute in [0, 20, 40] {
        text += &format!(
            "2024-01-15T02:{minute:02}:00.000Z host1 sshd[1]: Failed password for root from 10.9.9.8 port 48032 ssh2\n"
        );
    }
    text += "2024-01-15T00:00:02.487Z client 192.168.1.246 query: sub.evil-domain.com IN A + (10.140.125.58) NOERROR\n";
    text += "2024-01-15T00:00:02.487Z client 192.168.1.247 query: notevil-domain.com IN A + (10.140.125.58) NOERROR\n";
    site.write("logs/a.log", text);
    site.run(&["logs"]);
    let database = Postgres::shared().database();
    site.run(&["logs", "--into", &database.url()]);
    // no parameter may hold a password
    site.set("PGPASSWORD", "pipeline");
    let postgres = format!("from={}", database.url().replace(":pipeline@", "@"));
    for from in ["from=./pipeline-data/archive", postgres.as_str()] {
        let rows = |name: &str, parameters: &[&str]| {
            let run = ["task", "run", name, "--output", "json", "--param", from];
            let task: Value = serde_json::from_str(&site.ok(&[&run[..], parameters].concat())).unwrap();
            task["result"]["rows"].as_array().unwrap().clone()
        };
        let found = rows("brute_force", &["--param", "failures=10", "--param", "window=30s"]);
        assert_eq!(found.len(), 1, "{from}: {found:?}");
        assert_eq!((&found[0]["source_ip"], &found[0]["most_in_window"]), (&json!("10.9.9.9"), &json!(12)));
        let found = rows("dns_iocs", &[]);
        assert_eq!(found.len(), 1, "{from}: {found:?}");
        assert_eq!(found[0]["query_domain"], "sub.evil-domain.com");
        let found = rows("lateral_movement", &[]);
        assert_eq!((found.len(), &found[0]["hosts"]), (1, &json!(12)), "{from}");
        let found = rows("top_talkers", &["--param", "limit=1"]);
        assert_eq!((&found[0]["src"], &found[0]["events"]), (&json!("192.168.1.45"), &json!(12)), "{from}");
        assert_eq!(rows("hourly_volume", &[]).len(), 4, "{from}");
    }
}

#[test]
fn a_file_of_two_statements_fails_instead_of_answering_half() {
    let site = Site::new();
    site.write("logs/a.log", [FIREWALL_LINE, ""].join("\n"));
    site.run(&["logs"]);
    site.write("tasks/two.sql", "-- task: two\nSELECT 1 AS a;\nSELECT 2 AS b;\n");
    site.write("tasks/one.sql", "-- task: one\nSELECT 1 AS a; -- the end\n");
    let run = |name: &str| site.end(&["task", "run", name, "--id", name, "--sql-tasks", "tasks"]);
    run("two").expect_code(1);
    let error = status(&site, "two")["error"].to_string();
    assert!(error.contains("several statements"), "{error}");
    run("one").expect_code(0);
    assert_eq!(status(&site, "one")["result"], json!({ "num_rows": 1, "rows": [{ "a": 1 }] }));
}

#[test]
fn a_schedule_is_listed_and_removed() {
    let site = Site::new();
    let listed = site.ok(&["task", "schedule", "ping", "--cron", "0 3 * * *", "--param", "say=x"]);
    assert!(listed.contains("0 3 * * *") && listed.contains("T03:00:00.000Z"), "{listed}");
    assert_eq!(site.ok(&["task", "schedule"]), listed);
    site.ok(&["task", "schedule", "--remove", "ping"]);
    assert!(!site.ok(&["task", "schedule"]).contains("ping"));
}

#[test]
fn a_job_reads_with_the_log_types_of_the_site() {
    let site = Site::new();
    let log_type = "name = \"door\"\nlines = [\"{timestamp} door={door}\"]\n[columns]\n\
                    timestamp = { type = \"timestamp\" }\ndoor = { type = \"string\" }\n";
    site.write("types/door.toml", log_type);
    site.write("door.log", "2024-01-15T00:00:03Z door=north\n");
    let run =
        ["task", "run", "ingest", "--log-types", "types", "--param", "paths=door.log", "--output", "json"];
    let task: serde_json::Value = serde_json::from_str(&site.ok(&run)).unwrap();
    assert_eq!(task["result"]["rejects"], 0, "{task}");
}
