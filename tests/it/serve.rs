//! `pipeline serve` as a process: what senders see, what is in the table, what a `kill -9` leaves.
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rusqlite::Connection;
use serde_json::{Value, json};

use super::servers::wait_until;
use super::support::{Site, gzip};

mod access;
mod archive;
mod load;
mod sinks;

/// A running receiver; killed when dropped.
pub(crate) struct Serve {
    child: Child,
    pub(crate) address: String,
    stderr: BufReader<std::process::ChildStderr>,
}

/// What a request got.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Serve {
    /// With a port of its own, and its state in `state.db` of the site.
    pub(crate) fn start(site: &Site, flags: &[&str]) -> Self {
        let all = [&["serve", "--listen", "127.0.0.1:0", "--database", "sqlite://state.db"], flags].concat();
        Self::start_command(&mut site.command(&all))
    }

    pub(crate) fn start_command(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let address = loop {
            let mut line = String::new();
            assert!(stderr.read_line(&mut line).unwrap() > 0, "it ended: {said}");
            if let Some((_, place)) = line.split_once("://").filter(|_| line.starts_with("listening on")) {
                break place.split('/').next().unwrap().to_owned();
            }
            said += &line;
        };
        Self { child, address, stderr }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/webhook", self.address)
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to stop; returns its exit code and what it said.
    pub(crate) fn terminate(mut self) -> (Option<i32>, String) {
        let status =
            Command::new("kill").args(["-s", "TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(status.success());
        let mut said = String::new();
        self.stderr.read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap().code(), said)
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream
    }

    pub(crate) fn post(&self, body: impl AsRef<[u8]>) -> Answer {
        self.post_with(&[], body)
    }

    #[track_caller]
    pub(crate) fn post_with(&self, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        self.try_post(headers, body.as_ref()).expect("an answer")
    }

    /// `None` where the connection ended without an answer.
    pub(crate) fn try_post(&self, headers: &[(&str, &str)], body: &[u8]) -> Option<Answer> {
        let mut stream = TcpStream::connect(&self.address).ok()?;
        let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let head = format!(
            "POST /webhook HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        // it may have answered and closed before it has all of it
        let _sent = stream.write_all(body);
        read_answer(&mut stream)
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        let mut stream = self.connect();
        write!(stream, "GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").unwrap();
        read_answer(&mut stream).unwrap()
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

pub(crate) fn read_answer(stream: &mut impl Read) -> Option<Answer> {
    let mut bytes = Vec::new();
    // a connection that is reset after its answer has answered
    let _ended = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    Some(Answer { status, head: head.to_lowercase(), body: body.to_owned() })
}

pub(crate) fn database(site: &Site) -> Connection {
    let connection = Connection::open(site.at("state.db")).unwrap();
    connection.busy_timeout(Duration::from_secs(60)).unwrap();
    connection
}

pub(crate) type Row = (u64, f64, f64, u64, u64);

/// count, sum, average, users and version by window start and type.
pub(crate) fn table(site: &Site) -> BTreeMap<(i64, String), Row> {
    let connection = database(site);
    let mut statement = connection
        .prepare("SELECT window_start, event_type, count, sum_value, avg_value, unique_users, version FROM aggregated_data")
        .unwrap();
    let rows = statement.query_map([], |row| {
        let key = (row.get::<_, f64>(0)? as i64, row.get(1)?);
        let count: i64 = row.get(2)?;
        let users: i64 = row.get(5)?;
        let version: i64 = row.get(6)?;
        Ok((key, (count as u64, row.get(3)?, row.get(4)?, users as u64, version as u64)))
    });
    rows.unwrap().map(Result::unwrap).collect()
}

pub(crate) fn number(site: &Site, sql: &str) -> i64 {
    database(site).query_row(sql, [], |row| row.get(0)).unwrap()
}

/// Long ago: no test depends on the clock.
pub(crate) const T0: i64 = 1_700_000_040;

pub(crate) fn event(user: u32, event_type: &str, value: f64, second: i64) -> Value {
    json!({ "user_id": user, "event_type": event_type, "value": value, "timestamp": T0 + second })
}

#[test]
fn events_in_every_form_are_in_the_table_when_they_are_answered() {
    let site = Site::new();
    let serve = Serve::start(&site, &[]);
    let answer = serve.post(event(1, "click", 0.1, 0).to_string());
    assert_eq!((answer.status, answer.body.as_str()), (200, "OK"));
    assert_eq!(table(&site)[&(T0, "click".into())], (1, 0.1, 0.1, 1, 1), "queryable before it closes");
    let array = json!([event(1, "click", 0.2, 1), event(2, "view", 5.0, 59)]).to_string();
    assert_eq!(serve.post(&array).body, "OK");
    let lines = format!("{}\n{}\n", event(3, "click", 0.3, 59), event(3, "view", 1.0, 60));
    assert_eq!(serve.post(&lines).body, "OK");
    let gzipped = gzip(
        json!({"user_id": "3", "event_type": "click", "timestamp": "2023-11-14T22:14:00Z"})
            .to_string()
            .as_bytes(),
    );
    assert_eq!(serve.post_with(&[("content-encoding", "gzip")], gzipped).body, "OK");
    let expected = BTreeMap::from([
        ((T0, "click".to_owned()), (4, 0.6, 0.15, 2, 2)),
        ((T0, "view".to_owned()), (1, 5.0, 5.0, 1, 1)),
        ((T0 + 60, "view".to_owned()), (1, 1.0, 1.0, 1, 1)),
    ]);
    assert_eq!(table(&site), expected, "0.1 + 0.2 + 0.3 is 0.6, rounded once");
    let (code, said) = serve.terminate();
    assert_eq!((code, said.as_str()), (Some(143), ""));
}

#[test]
fn bad_events_are_told_by_field_and_kept_and_the_good_ones_count() {
    let site = Site::new();
    let serve = Serve::start(&site, &[]);
    let answer = serve.post(r#"{"user_id":1}"#);
    assert_eq!(answer.status, 400);
    let told: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(told["errors"][0]["field"], "event_type");
    assert_eq!(serve.post("nonsense").status, 400);
    let mixed = json!([event(1, "a", 1.0, 0), { "user_id": 1, "event_type": "a", "value": "x" }, 7]);
    let answer = serve.post(mixed.to_string());
    let told: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!((answer.status, &told["accepted"], &told["rejected"]), (207, &json!(1), &json!(2)));
    assert_eq!(told["errors"][0]["index"], 1);
    assert_eq!(table(&site)[&(T0, "a".into())].0, 1);
    assert_eq!(number(&site, "SELECT count(*) FROM webhook_rejects"), 4);
    let ahead = json!({ "user_id": 1, "event_type": "a", "timestamp": 4_000_000_000_u32 });
    let answer = serve.post(ahead.to_string());
    assert!(answer.status == 400 && answer.body.contains("more than an hour ahead"), "{answer:?}");
    let metrics = serve.get("/metrics").body;
    assert!(metrics.contains("pipeline_events_accepted_total 1\n"), "{metrics}");
    assert!(metrics.contains("pipeline_events_rejected_total 5\n"), "{metrics}");
}

#[test]
fn health_readiness_and_unknown_paths() {
    let site = Site::new();
    let serve = Serve::start(&site, &[]);
    let health = serve.get("/health");
    assert_eq!((health.status, health.body.as_str()), (200, "Healthy"));
    assert_eq!(serve.get("/ready").status, 200);
    assert_eq!(serve.get("/webhook").status, 405);
    assert_eq!(serve.get("/nothing").status, 404);
}

#[test]
fn what_is_sent_again_with_its_identity_counts_once_even_after_a_kill() {
    let site = Site::new();
    let mut serve = Serve::start(&site, &[]);
    let one = event(1, "a", 1.0, 0).to_string();
    let mut with_id = event(1, "a", 1.0, 0);
    with_id["id"] = "e1".into();
    let batch = json!([with_id, with_id, event(2, "a", 1.0, 0), { "id": "bad" }]).to_string();
    for restart in 0..2 {
        for time in 0..2 {
            assert_eq!(serve.post_with(&[("webhook-id", "w1")], &one).status, 200);
            assert_eq!(serve.post_with(&[("idempotency-key", "w1")], &one).status, 200);
            assert_eq!(serve.post(with_id.to_string()).status, 200);
            // what of it was refused cannot be told from what counts by now
            let expected = if (restart, time) == (0, 0) { 207 } else { 409 };
            assert_eq!(serve.post_with(&[("webhook-id", "w2")], &batch).status, expected);
        }
        serve.kill();
        serve = Serve::start(&site, &[]);
    }
    // w1, e1, and the one of the batch that has none of its own
    assert_eq!(table(&site)[&(T0, "a".into())].0, 3);
    assert_eq!(number(&site, "SELECT count(*) FROM webhook_rejects"), 1);
    assert_eq!((serve.post(&one).status, serve.post(&one).status), (200, 200));
    assert_eq!(table(&site)[&(T0, "a".into())].0, 5, "without an identity two are two");
}

#[test]
fn what_was_refused_counts_when_it_is_sent_again_corrected_with_its_identity() {
    let site = Site::new();
    let serve = Serve::start(&site, &[]);
    let good = event(1, "a", 1.0, 0).to_string();
    let id = [("webhook-id", "w1")];
    for bad in ["{\"user_id\":1", r#"{"user_id":1}"#, "[7, 8]"] {
        assert_eq!(serve.post_with(&id, bad).status, 400, "{bad}");
    }
    assert_eq!(serve.post_with(&id, &good).status, 200);
    assert_eq!(table(&site)[&(T0, "a".into())].0, 1);
    // more windows at once than there is room for: each event counts when there is
    let minutes = |range: std::ops::Range<i64>| {
        let events = range.map(|minute| {
            let mut of_minute = event(1, "a", 1.0, minute * 60);
            of_minute["id"] = format!("m{minute}").into();
            of_minute
        });
        Value::from_iter(events).to_string()
    };
    let answer = serve.post(minutes(0..1100));
    let told: Value = serde_json::from_str(&answer.body).unwrap();
    let lacking = told["rejected"].as_u64().unwrap();
    assert!(answer.status == 207 && lacking > 0, "{answer:?}");
    assert_eq!(serve.post(minutes(0..1100)).status, 200);
    assert_eq!(number(&site, "SELECT sum(count) FROM aggregated_data"), 1101);
}

#[test]
fn late_events_correct_their_window_and_later_ones_go_to_the_late_table() {
    let site = Site::new();
    let mut serve = Serve::start(&site, &[]);
    serve.post(event(1, "a", 1.0, 0).to_string());
    serve.post(event(1, "a", 1.0, 60).to_string());
    assert_eq!(table(&site)[&(T0, "a".into())].4, 1);
    serve.post(event(2, "a", 2.0, 59).to_string());
    assert_eq!(table(&site)[&(T0, "a".into())], (2, 3.0, 1.5, 2, 2));
    serve.kill();
    let serve = Serve::start(&site, &[]);
    serve.post(event(3, "a", 3.0, 1).to_string());
    assert_eq!(table(&site)[&(T0, "a".into())], (3, 6.0, 2.0, 3, 3));
    serve.post(event(1, "a", 1.0, 120).to_string());
    let answer = serve.post(event(4, "a", 4.0, 2).to_string());
    assert_eq!((answer.status, answer.body.as_str()), (200, "OK"));
    assert_eq!(table(&site)[&(T0, "a".into())].0, 3);
    assert_eq!(number(&site, "SELECT count(*) FROM late_events"), 1);
    let metrics = serve.get("/metrics").body;
    assert!(metrics.contains("pipeline_events_late_total 1\n"), "{metrics}");
    assert!(metrics.contains("pipeline_events_too_late_total 1\n"), "{metrics}");
}

#[test]
fn more_event_types_than_the_cap_are_counted_as_other() {
    let site = Site::new();
    let serve = Serve::start(&site, &["--max-event-types", "2"]);
    let events: Vec<_> = (0..50).map(|number| event(number, &format!("t{number}"), 1.0, 0)).collect();
    assert_eq!(serve.post(json!(events).to_string()).body, "OK");
    let counts: Vec<_> = table(&site).into_iter().map(|((_, kind), row)| (kind, row.0)).collect();
    assert_eq!(counts, [("other".to_owned(), 48), ("t0".to_owned(), 1), ("t1".to_owned(), 1)]);
    assert!(serve.get("/metrics").body.contains("pipeline_events_of_other_type_total 48\n"));
}

#[test]
fn many_users_are_estimated_and_the_row_says_so() {
    let site = Site::new();
    let serve = Serve::start(&site, &[]);
    for batch in 0..5 {
        let events: Vec<_> = (0..1000).map(|user| event(batch * 1000 + user, "a", 1.0, 0)).collect();
        assert_eq!(serve.post(json!(events).to_string()).body, "OK");
    }
    let users = table(&site)[&(T0, "a".into())].3;
    assert!(users.abs_diff(5000) < 250, "{users}");
    assert_eq!(number(&site, "SELECT unique_users_error > 0 FROM aggregated_data"), 1);
}

#[test]
fn a_state_that_is_no_database_or_in_no_folder_is_an_error() {
    let site = Site::new();
    site.write(
        "state.db",
        "this is not a database, but a text that is longer than the header of one would be",
    );
    let error = site.error(4, &["serve", "--listen", "127.0.0.1:0", "--database", "sqlite://state.db"]);
    assert!(error.contains("state.db"), "{error}");
    let error = site.error(3, &["serve", "--database", "mysql://host/db"]);
    assert!(error.contains("write sqlite://PATH"), "{error}");
    let site = Site::new();
    let _serve = Serve::start(&site, &[]);
    let error = site.error(2, &["serve", "--listen", "127.0.0.1:0", "--database", "sqlite://state.db"]);
    assert!(error.contains("another `pipeline serve` has it"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = site.error(2, &["serve", "--listen", &address]);
    assert!(error.contains("name another with --listen"), "{error}");
}

/// A full disk is nothing that a test can make for a file in a folder of its own; a database that another process
/// holds for long is.
#[test]
fn while_state_cannot_be_written_nothing_is_promised_and_afterwards_all_goes_on() {
    let site = Site::new();
    let serve = Serve::start(&site, &[]);
    assert_eq!(serve.post(event(1, "a", 1.0, 0).to_string()).status, 200);
    let other = database(&site);
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(serve.post(event(1, "a", 1.0, 0).to_string()).status, 503);
    assert_eq!(serve.get("/ready").status, 503);
    assert_eq!(serve.get("/health").status, 200);
    other.execute_batch("ROLLBACK").unwrap();
    wait_until("it is ready", || serve.get("/ready").status == 200);
    wait_until("it takes events", || serve.post(event(1, "a", 1.0, 0).to_string()).status == 200);
    assert_eq!(table(&site)[&(T0, "a".into())].0, 2, "what was not answered OK is not there");
}
