//! `pipeline query --cluster`: workers in processes of their own give the answers of one process, whole or not at all,
//! to those who have the token, of the places that they were started for.
use std::fs;
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant, SystemTime};

use super::servers::{Postgres, S3Server};
use super::support::{NO_TYPE, Running, Site, gzip, repository};

const ARCHIVE: &str = "pipeline-data/archive";

/// Workers of a site.
struct Workers {
    running: Vec<Running>,
    addresses: Vec<String>,
}

impl Workers {
    fn start(site: &Site, count: usize, flags: &[&str]) -> Self {
        let (running, addresses) = (0..count).map(|_| worker(site, "127.0.0.1:0", flags)).unzip();
        Self { running, addresses }
    }

    fn list(&self) -> String {
        self.addresses.join(",")
    }
}

fn worker(site: &Site, listen: &str, flags: &[&str]) -> (Running, String) {
    let mut worker = site.start(&[&["query-worker", "--listen", listen], flags].concat());
    let address = worker.announced("query worker at ");
    (worker, address)
}

/// An address where nobody listens.
fn nowhere() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Enough lines for every table to be worth three workers, with some that are no rows.
fn large_site() -> Site {
    let site = Site::new();
    site.generate(6, 50_000);
    site.append("logs/logs_0000.log", format!("{NO_TYPE}\n\n"));
    site.run(&["logs"]);
    site
}

/// Statements of the team, and joins, windows, sets and large groups. Those without ORDER BY are compared sorted.
fn statements() -> Vec<String> {
    let mut statements = Vec::new();
    for folder in ["sql/queries", "sql/queries/summary"] {
        let mut files: Vec<_> = fs::read_dir(repository(folder)).unwrap().flatten().collect();
        files.retain(|file| file.path().is_file());
        files.sort_by_key(fs::DirEntry::file_name);
        // as an argument, a comment at the start would be a flag
        let text = |file: &fs::DirEntry| {
            let text = fs::read_to_string(file.path()).unwrap();
            text.lines().filter(|line| !line.starts_with("--")).collect::<Vec<_>>().join("\n")
        };
        statements.extend(files.iter().map(text));
    }
    assert_eq!(statements.len(), 10);
    statements.extend(STATEMENTS.iter().map(|&sql| sql.to_owned()));
    statements
}

const STATEMENTS: &[&str] = &[
    "SELECT count(*) FROM firewall_logs",
    "SELECT count(*), min(timestamp), max(timestamp), sum(bytes_sent) FROM firewall_logs WHERE bytes_sent > 100",
    "SELECT src, dst, dst_port, count(*) AS n, sum(bytes_sent) AS b FROM firewall_logs GROUP BY src, dst, dst_port",
    "SELECT count(DISTINCT src) AS s, count(DISTINCT dst) AS d, count(DISTINCT src || ' ' || dst) AS p FROM firewall_logs",
    "SELECT src, approx_distinct(dst) > 0 AS some, median(bytes_sent) AS m FROM firewall_logs GROUP BY src",
    "SELECT action, proto, count(*), avg(bytes_sent)::bigint FROM firewall_logs GROUP BY GROUPING SETS ((action), (proto), ())",
    "SELECT src, count(*) AS n FROM firewall_logs GROUP BY src HAVING count(*) > 100",
    "SELECT * FROM firewall_logs WHERE ip_in(dst, '10.0.0.0/12') AND dst_port = 3306",
    "SELECT chunk_id, line FROM firewall_logs ORDER BY bytes_sent DESC, chunk_id, line LIMIT 50",
    "SELECT timestamp, src, bytes_sent FROM firewall_logs ORDER BY timestamp, src, bytes_sent, chunk_id, line",
    "SELECT timestamp FROM firewall_logs WHERE timestamp >= '2024-01-15T01:00:00.0005Z' ORDER BY timestamp LIMIT 7",
    "SELECT f.src, count(*) AS n FROM firewall_logs f JOIN dns_logs d ON f.src = d.client_ip WHERE f.dst_port = 22 AND d.query_type = 'A' GROUP BY f.src",
    "SELECT f.action, a.status, count(*) AS n FROM firewall_logs f JOIN auth_logs a ON f.src = a.source_ip AND date_trunc('minute', f.timestamp) = date_trunc('minute', a.timestamp) GROUP BY f.action, a.status",
    "SELECT a.username, count(f.src) AS n FROM auth_logs a LEFT JOIN firewall_logs f ON f.src = a.source_ip AND f.action = 'drop' AND f.dst_port = 23 WHERE a.status = 'Failed' GROUP BY a.username",
    "SELECT count(*) FROM auth_logs a FULL JOIN (SELECT DISTINCT src FROM firewall_logs WHERE dst_port = 3389) f ON f.src = a.source_ip",
    "SELECT src FROM firewall_logs WHERE src NOT IN (SELECT client_ip FROM dns_logs WHERE response_code = 'SERVFAIL') GROUP BY src",
    "SELECT count(*) FROM dns_logs d WHERE EXISTS (SELECT 1 FROM auth_logs a WHERE a.source_ip = d.client_ip AND a.status = 'Failed')",
    "SELECT count(*) FROM (SELECT src FROM firewall_logs INTERSECT SELECT client_ip FROM dns_logs INTERSECT SELECT source_ip FROM auth_logs) AS s",
    "SELECT count(*) FROM (SELECT src FROM firewall_logs EXCEPT SELECT client_ip FROM dns_logs WHERE query_type = 'MX') AS s",
    "SELECT src, timestamp, bytes_sent, row_number() OVER (PARTITION BY src ORDER BY bytes_sent DESC, timestamp, chunk_id, line) AS r FROM firewall_logs WHERE dst_port = 443",
    "SELECT src, lag(bytes_sent) OVER w AS before, sum(bytes_sent) OVER w AS so_far FROM firewall_logs WHERE dst_port = 80 WINDOW w AS (PARTITION BY src ORDER BY timestamp, chunk_id, line)",
    "SELECT hour, n, sum(n) OVER (ORDER BY hour) AS so_far FROM (SELECT date_trunc('hour', timestamp) AS hour, count(*) AS n FROM dns_logs GROUP BY 1) AS h ORDER BY hour",
    "SELECT src FROM (SELECT src, bytes_sent, max(bytes_sent) OVER (PARTITION BY dst) AS m FROM firewall_logs) AS t WHERE bytes_sent = m",
    "WITH top AS (SELECT src, count(*) AS n FROM firewall_logs GROUP BY src ORDER BY n DESC, src LIMIT 10) SELECT t.src, t.n, count(d.client_ip) AS q FROM top t LEFT JOIN dns_logs d ON d.client_ip = t.src GROUP BY t.src, t.n ORDER BY t.n DESC, t.src",
    "SELECT src FROM firewall_logs WHERE bytes_sent > (SELECT avg(bytes_sent) * 1.9 FROM firewall_logs)",
    "SELECT log_type, count(*) AS n, max(raw_line) AS last FROM logs GROUP BY log_type ORDER BY log_type",
    "SELECT parsed_data->>'src' AS src, count(*) AS n FROM logs WHERE log_type = 'firewall' AND parsed_data->>'action' = 'drop' GROUP BY 1",
    "SELECT raw_line, source_file FROM logs WHERE raw_line LIKE '%evil-domain.com%'",
    "SELECT f.dst, count(*) AS n FROM firewall_logs f CROSS JOIN (SELECT max(timestamp) AS t FROM dns_logs) AS d WHERE f.timestamp > d.t - interval '1 hour' GROUP BY f.dst",
    "SELECT reason, count(*) FROM rejects GROUP BY reason",
    "SELECT file, sum(lines) AS n FROM chunks GROUP BY file ORDER BY file",
    "SELECT count(*) FROM firewall_logs WHERE src = 'nobody'",
    "SELECT 1 AS one",
];

#[track_caller]
fn expect_same(ours: &str, expected: &str, sql: &str) {
    let is_ordered = sql.contains("ORDER BY") && !sql.contains("OVER (PARTITION") && !sql.contains("WINDOW");
    let lines = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        if !is_ordered {
            lines.sort();
        }
        lines
    };
    let (ours, expected) = (lines(ours), lines(expected));
    let first = ours.iter().zip(&expected).find(|(one, other)| one != other);
    assert!(ours == expected, "{sql}: {} rows, not {}; {first:?}", ours.len(), expected.len());
}

fn ask(site: &Site, from: &[&str], cluster: &str, sql: &str) -> String {
    let mut arguments = vec!["query", "--output", "csv", "--cluster", cluster, sql];
    arguments.extend(from.iter().flat_map(|from| ["--from", *from]));
    site.ok(&arguments)
}

fn alone(site: &Site, from: &[&str], sql: &str) -> String {
    let mut arguments = vec!["query", "--output", "csv", sql];
    arguments.extend(from.iter().flat_map(|from| ["--from", *from]));
    site.ok(&arguments)
}

#[test]
fn three_workers_give_the_answers_of_one_process() {
    let site = large_site();
    let workers = Workers::start(&site, 3, &[]);
    for sql in statements() {
        expect_same(&ask(&site, &[ARCHIVE], &workers.list(), &sql), &alone(&site, &[ARCHIVE], &sql), &sql);
    }
    // and they are what gave them
    let sql = "SELECT src, count(*) AS n FROM firewall_logs GROUP BY src";
    let plan = site.ok(&["query", "--explain", "--cluster", &workers.list(), sql]);
    assert!(plan.contains("Stage 1") && plan.contains("tasks=3"), "{plan}");
    let json = site.ok(&["query", "--explain", "--output", "json", "--cluster", &workers.list(), sql]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["rows"].as_u64().unwrap() > 10 && json["scans"][0]["bytes"].is_null(), "{json}");
    // all addresses of a name, and a list in a file
    site.write("workers", format!("# the cluster\n{}\n", workers.addresses.join("\n")));
    let port = workers.addresses[0].rsplit_once(':').unwrap().1;
    for cluster in ["@workers".to_owned(), format!("localhost:{port}")] {
        expect_same(&ask(&site, &[ARCHIVE], &cluster, sql), &alone(&site, &[ARCHIVE], sql), sql);
    }
}

#[test]
fn raw_logs_are_read_by_workers_and_no_line_twice() {
    let site = Site::new();
    site.generate(6, 2000);
    let last = site.read("logs/logs_0005.log");
    site.write("logs/logs_0005.log.gz", gzip(&last));
    fs::remove_file(site.at("logs/logs_0005.log")).unwrap();
    site.append("logs/logs_0000.log", format!("{NO_TYPE}\n"));
    site.run(&["logs/logs_0001.log", "logs/logs_0002.log"]);
    let workers = Workers::start(&site, 3, &["--from", "raw:logs", "--from", ARCHIVE]);
    for from in [&["raw:logs"][..], &["raw:logs/*.log"], &["raw:logs", ARCHIVE]] {
        for sql in [
            "SELECT src, dst_port, count(*) AS n FROM firewall_logs GROUP BY src, dst_port",
            "SELECT count(*) FROM dns_logs WHERE query_domain = 'evil-domain.com'",
            "SELECT timestamp, username, chunk_id, line FROM auth_logs",
            "SELECT raw_line FROM logs",
            "SELECT reason, count(*) FROM rejects GROUP BY reason",
            "SELECT first_byte, lines, file FROM chunks",
            "SELECT d.client_ip, count(*) FROM dns_logs d JOIN firewall_logs f ON f.src = d.client_ip GROUP BY d.client_ip",
        ] {
            expect_same(&ask(&site, from, &workers.list(), sql), &alone(&site, from, sql), sql);
        }
    }
    let sql = "SELECT count(*) FROM firewall_logs WHERE bytes_sent > 7";
    let plan = site.ok(&["query", "--explain", "--from", "raw:logs", "--cluster", &workers.list(), sql]);
    assert!(plan.contains("RawExec") && plan.contains("tasks=3"), "{plan}");
}

#[test]
fn only_those_who_have_the_token_are_served_and_only_what_the_worker_was_started_for() {
    let site = large_site();
    site.write("token", "hunter2\n");
    site.write("wrong", "hunter3\n");
    let sql = "SELECT src, count(*) AS n FROM firewall_logs GROUP BY src";
    let expected = alone(&site, &[ARCHIVE], sql);
    let workers = Workers::start(&site, 2, &["--token-file", "token"]);
    let cluster = workers.list();
    let with = |flags: &[&'static str]| {
        [&["query", "--output", "csv", "--cluster", cluster.as_str(), sql], flags].concat()
    };
    expect_same(&site.ok(&with(&["--token-file", "token"])), &expected, sql);
    for flags in [&["--token-file", "wrong"][..], &[]] {
        let error = site.error(3, &with(flags));
        assert!(error.contains(&workers.addresses[0]) && error.contains("token"), "{error}");
        assert!(!error.contains("hunter"), "{error}");
    }
    let in_variable = site.command(&with(&[])).env("PIPELINE_CLUSTER_TOKEN", "hunter2").output().unwrap();
    expect_same(&String::from_utf8(in_variable.stdout).unwrap(), &expected, sql);
    // another place than the archive that is asked about
    site.ok(&["run", "--quiet", "--into", "other", "logs/logs_0000.log"]);
    let others = Workers::start(&site, 2, &["--from", "other"]);
    let error = site.error(3, &["query", "--cluster", &others.list(), sql]);
    assert!(error.contains("does not read") && error.contains("--from file://"), "{error}");
    let error = site.error(3, &["query", "--cluster", &others.list(), "--from", "raw:logs", sql]);
    assert!(error.contains("does not read raw:") && error.contains("--from raw:"), "{error}");
    // others could reach it
    let error = site.error(3, &["query-worker", "--listen", "0.0.0.0:0"]);
    assert!(error.contains("0.0.0.0:0") && error.contains("--token-file"), "{error}");
    let (open, address) = worker(&site, "0.0.0.0:0", &["--token-file", "token"]);
    assert!(address.starts_with("0.0.0.0:"));
    drop(open);
}

#[test]
fn what_cannot_be_run_by_workers_is_told_before_anything_is_read() {
    let site = Site::new();
    let database = Postgres::shared().database();
    let somewhere = nowhere();
    let error = site.error(2, &["query", "--cluster", &somewhere, "--from", &database.url(), "SELECT 1"]);
    assert!(error.contains("--cluster") && error.contains("archive export"), "{error}");
    for (cluster, part) in [("host", "HOST:PORT"), ("@missing", "missing"), ("a:1,b", "b is no worker")] {
        let error = site.error(2, &["query", "--cluster", cluster, "SELECT 1"]);
        assert!(error.contains(part), "{error}");
    }
    let error = site.error(3, &["query-worker", "--listen", "127.0.0.1:0", "--from", &database.url()]);
    assert!(error.contains("archives and raw logs"), "{error}");
}

#[test]
fn workers_that_do_not_answer_are_left_out_and_named_where_none_does() {
    let site = large_site();
    let sql = "SELECT src, count(*) AS n FROM firewall_logs GROUP BY src";
    let workers = Workers::start(&site, 2, &[]);
    let (one, other) = (nowhere(), nowhere());
    let cluster = format!("{one},{}", workers.list());
    let ended = site.end(&["query", "--output", "csv", "--cluster", &cluster, sql]).expect_code(0);
    expect_same(&ended.stdout, &alone(&site, &[ARCHIVE], sql), sql);
    assert!(ended.stderr.contains(&one), "a warning names it: {}", ended.stderr);
    let ended = site.end(&["--quiet", "query", "--cluster", &format!("{one},{other}"), sql]).expect_code(4);
    let error = ended.only_error();
    assert!(error.contains(&one) && error.contains(&other) && error.contains("query-worker"), "{error}");
    assert_eq!(ended.stdout, "");
}

#[test]
fn workers_that_cannot_reach_their_storage_are_named_and_the_exit_code_is_4() {
    let server = S3Server::start();
    let mut site = Site::new();
    server.serve(&mut site, "archive");
    site.generate(6, 50_000);
    site.run(&["logs"]);
    fs::create_dir(server.at("raw")).unwrap();
    for file in fs::read_dir(site.at("logs")).unwrap().flatten() {
        fs::copy(file.path(), server.at("raw").join(file.file_name())).unwrap();
    }
    site.set("AWS_ENDPOINT_URL", format!("http://{}", nowhere()));
    site.set("AWS_MAX_ATTEMPTS", "1");
    let (archive, raw) = (server.url("archive"), format!("raw:{}", server.url("raw")));
    let workers = Workers::start(&site, 2, &["--from", &archive, "--from", &raw]);
    server.serve(&mut site, "archive");
    let sql = "SELECT src, count(*) AS n FROM firewall_logs GROUP BY src";
    for from in [&archive, &raw] {
        let error = site.error(4, &["query", "--cluster", &workers.list(), "--from", from, sql]);
        assert!(workers.addresses.iter().any(|worker| error.contains(worker)), "{error}");
        assert!(
            error.contains(" lacks its storage: ") && error.contains("storage does not answer"),
            "{error}"
        );
        assert_eq!(error.matches(from.trim_start_matches("raw:")).count(), 1, "{error}");
    }
}

#[test]
fn a_worker_with_little_memory_spills_and_gives_the_same_rows() {
    let site = large_site();
    let workers = Workers::start(&site, 2, &["--memory-limit", "32MiB"]);
    let sql = "SELECT * FROM firewall_logs ORDER BY rule, dst, bytes_sent, chunk_id, line";
    expect_same(&ask(&site, &[ARCHIVE], &workers.list(), sql), &alone(&site, &[ARCHIVE], sql), sql);
    let plan = site.ok(&["query", "--explain", "--cluster", &workers.list(), sql]);
    let sort = plan.lines().find(|line| line.contains("SortExec: ")).unwrap();
    assert!(sort.contains("spilled_bytes=") && !sort.contains("spilled_bytes=0.0 B"), "{sort}");
}

/// Every line is rendered, hashed and compared, so that the stages run for a while.
const LONG: &str = "SELECT log_type, count(*) AS n, count(DISTINCT raw_line) AS d, max(parsed_data) AS last FROM logs GROUP BY log_type ORDER BY log_type";

#[test]
fn a_worker_that_is_asked_to_stop_ends_its_stages_first() {
    let site = large_site();
    let mut workers = Workers::start(&site, 3, &[]);
    let expected = alone(&site, &[ARCHIVE], LONG);
    let started = Instant::now();
    expect_same(&ask(&site, &[ARCHIVE], &workers.list(), LONG), &expected, LONG);
    let half = started.elapsed() / 2;
    let query = site.start(&["query", "--output", "csv", "--cluster", &workers.list(), LONG]);
    let asked = workers.running.remove(0);
    // a pause, in which the query runs
    let (_sender, never) = channel::<()>();
    assert!(never.recv_timeout(half).is_err());
    asked.signal("TERM");
    assert_eq!(asked.wait().code, Some(143));
    expect_same(&query.wait().expect_code(0).stdout, &expected, LONG);
}

/// Kills a worker at a random time within a query, so often as PIPELINE_CLUSTER_KILLS says.
#[test]
fn a_query_whose_worker_is_killed_gives_the_whole_answer_or_an_error() {
    let kills: u32 = std::env::var("PIPELINE_CLUSTER_KILLS").map_or(3, |kills| kills.parse().unwrap());
    let site = large_site();
    let mut workers = Workers::start(&site, 3, &[]);
    let expected = alone(&site, &[ARCHIVE], LONG);
    let started = Instant::now();
    expect_same(&ask(&site, &[ARCHIVE], &workers.list(), LONG), &expected, LONG);
    let whole = started.elapsed();
    let mut seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
    println!("seed {seed}, a query takes {} ms", whole.as_millis());
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    let (mut whole_answers, mut retried, mut errors) = (0, 0, 0);
    for _ in 0..kills {
        let query = site.start(&["query", "--output", "csv", "--cluster", &workers.list(), LONG]);
        let after = Duration::from_millis(random(whole.as_millis() as u64));
        let victim = random(3) as usize;
        let killed = workers.running.remove(victim);
        let address = workers.addresses.remove(victim);
        assert_eq!(killed.kill_after(after), None, "the worker did not end by itself");
        let ended = query.wait();
        match ended.code {
            Some(0) => {
                expect_same(&ended.stdout, &expected, LONG);
                whole_answers += 1;
                retried += u32::from(ended.stderr.contains("run again"));
            }
            Some(4) => {
                assert!(ended.stdout.is_empty(), "never a part: {}", ended.stdout);
                assert!(ended.errors().iter().all(|error| error.contains(&address)), "{}", ended.stderr);
                errors += 1;
            }
            // what the first try held in the others may not be free yet
            Some(1) if ended.stderr.contains("needs more memory") => {
                assert!(ended.stdout.is_empty(), "never a part: {}", ended.stdout);
                errors += 1;
            }
            code => panic!("{code:?}: {}", ended.stderr),
        }
        let (again, address) = worker(&site, "127.0.0.1:0", &[]);
        workers.running.push(again);
        workers.addresses.push(address);
    }
    println!(
        "{kills} kills: {whole_answers} whole answers, {retried} of them the second time, {errors} errors"
    );
}
