//! `pipeline query` over several places: every line once, the same answers wherever it lies, and filters that reach
//! Postgres.
use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::servers::{Database, Postgres, wait_until};
use super::support::{
    DNS_LINE, FIREWALL_LINE, NO_TYPE, Site, gzip, numbered_lines, output, python, repository,
};

#[test]
fn a_hot_standby_answers_as_its_primary_does() {
    let (primary, site) = (Postgres::start(), Site::new());
    let standby = primary.standby();
    let database = primary.database();
    // from 16 MiB on a table is read by two connections, which have to see the same moment
    site.generate(2, 150_000);
    let replica = standby.database_of(&database);
    let loaded = site.run(&["--quiet", "--into", &database.url(), "logs"]);
    let at = primary.admin("SELECT pg_current_wal_lsn()");
    wait_until("the standby has it all", || {
        let behind = format!("SELECT pg_last_wal_replay_lsn() >= '{at}'");
        standby.admin(&behind) == "t"
    });
    for sql in ["SELECT count(*), count(raw_line) FROM logs", "SELECT max(src), max(dst) FROM firewall_logs"]
    {
        let answers =
            [&database.url(), &replica].map(|url| site.ok(&["query", "--output", "csv", sql, "--from", url]));
        assert_eq!(answers[0], answers[1]);
    }
    let counted = site.ok(&["query", "--output", "csv", "SELECT count(*) FROM logs", "--from", &replica]);
    assert_eq!(counted.lines().nth(1), Some(loaded.lines.to_string().as_str()));
    site.ok(&["verify", "--count", "--content", "--into", &replica]);
}

/// Files, an archive and a database of one test.
struct Place {
    site: Site,
    database: Database,
    url: String,
}

const ARCHIVE: &str = "pipeline-data/archive";

impl Place {
    fn new() -> Self {
        let database = Postgres::shared().database();
        let url = database.url();
        Self { site: Site::new(), database, url }
    }

    fn load(&self, into: &str, paths: &[&str], chunk_size: &str) {
        self.site.ok(&[&["run", "--quiet", "--chunk-size", chunk_size, "--into", into], paths].concat());
    }

    fn query(&self, from: &[&str], sql: &str) -> String {
        let from = from.iter().flat_map(|from| ["--from", *from]);
        let arguments: Vec<&str> = ["query", "--output", "csv", sql].into_iter().chain(from).collect();
        self.site.ok(&arguments)
    }

    fn explain(&self, from: &[&str], sql: &str) -> Value {
        let from = from.iter().flat_map(|from| ["--from", *from]);
        let arguments: Vec<&str> =
            ["query", "--explain", "--output", "json", sql].into_iter().chain(from).collect();
        serde_json::from_str(&self.site.ok(&arguments)).unwrap()
    }

    /// The answers to the six questions, one after the other.
    fn six_answers(&self, from: &[&str]) -> String {
        let mut files: Vec<_> = fs::read_dir(repository("sql/queries")).unwrap().flatten().collect();
        files.retain(|file| file.path().is_file());
        files.sort_by_key(fs::DirEntry::file_name);
        assert_eq!(files.len(), 6);
        let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file.path()).unwrap()).collect();
        self.site.write("all.sql", texts.concat());
        let from = from.iter().flat_map(|from| ["--from", *from]);
        let arguments: Vec<&str> =
            ["query", "--output", "csv", "-f", "all.sql"].into_iter().chain(from).collect();
        self.site.ok(&arguments)
    }

    /// Lines of the raw files, sorted.
    fn lines(&self, files: &[&str]) -> Vec<String> {
        let mut lines: Vec<_> = files
            .iter()
            .flat_map(|file| {
                let text = String::from_utf8(self.site.read(file)).unwrap();
                text.lines().map(str::to_owned).collect::<Vec<_>>()
            })
            .collect();
        lines.sort();
        lines
    }

    /// Lines as the view `logs` has them, sorted.
    fn raw_lines(&self, from: &[&str]) -> Vec<String> {
        let csv = self.query(from, "SELECT raw_line FROM logs");
        let mut lines: Vec<_> = csv.lines().skip(1).map(str::to_owned).collect();
        lines.sort();
        lines
    }
}

#[test]
fn the_six_questions_have_the_same_answers_wherever_the_rows_lie() {
    let place = Place::new();
    place.site.generate(4, 5000);
    let odd = format!("{FIREWALL_LINE}|zone=dmz|a=\"b c\"\n\n{NO_TYPE}\n  {DNS_LINE}\n");
    place.site.write("logs/odd.log", odd);
    place.load(ARCHIVE, &["logs"], "100KiB");
    place.load(&place.url, &["logs"], "100KiB");
    let expected = place.six_answers(&[ARCHIVE]);
    for from in [&[&place.url[..]][..], &[ARCHIVE, &place.url], &[&place.url, ARCHIVE]] {
        assert!(place.six_answers(from) == expected, "{from:?}");
    }
    // every column of every row, and what became no row
    for sql in [
        "SELECT * FROM firewall_logs ORDER BY chunk_id, line",
        "SELECT * FROM dns_logs ORDER BY chunk_id, line",
        "SELECT * FROM auth_logs ORDER BY chunk_id, line",
        "SELECT count(*) AS n FROM auth_logs",
        "SELECT * FROM rejects ORDER BY chunk_id, line",
        "SELECT chunk_id, line, encode(bytes, 'hex') AS bytes FROM blanks ORDER BY 1, 2",
        "SELECT chunk_id, source_id, file, first_byte, end_byte, lines, types, min_timestamp, line_ending FROM chunks ORDER BY source_id, first_byte",
        "SELECT id, log_type, raw_line, timestamp, source_file, parsed_data FROM logs ORDER BY id",
    ] {
        let expected = place.query(&[ARCHIVE], sql);
        assert!(expected.lines().count() > 1, "{sql}");
        assert!(place.query(&[&place.url], sql) == expected, "{sql}");
        assert!(place.query(&[&place.url, ARCHIVE], sql) == expected, "{sql}");
    }
}

#[test]
fn a_line_that_two_places_hold_is_read_once_however_they_cut_it() {
    let place = Place::new();
    for (file, first) in [("hot", 0), ("cold", 1000), ("both", 2000)] {
        place.site.write(&format!("logs/{file}.log"), numbered_lines(first, 1000));
    }
    place.site.write("logs/grown.log", numbered_lines(3000, 700));
    place.load(&place.url, &["logs/hot.log", "logs/both.log"], "7KiB");
    place.load(ARCHIVE, &["logs/cold.log", "logs/both.log", "logs/grown.log"], "20KiB");
    // the archive holds the first 700 lines, with the last of them open; Postgres all in other chunks
    place.site.append("logs/grown.log", numbered_lines(3700, 300));
    place.load(&place.url, &["logs/grown.log"], "9KiB");
    let files = ["logs/hot.log", "logs/cold.log", "logs/both.log", "logs/grown.log"];
    let (from, expected) = ([ARCHIVE, &place.url[..]], place.lines(&files));
    assert!(place.raw_lines(&from) == expected);
    assert_eq!(
        place.query(&from, "SELECT count(*) AS n, sum(bytes_sent) AS s FROM firewall_logs"),
        "n,s\n4000,7998000\n"
    );

    // a beginning that only the archive has: no cut of the one is a cut of the other
    let source = "SELECT source_id FROM chunks WHERE file LIKE '%grown.log' LIMIT 1";
    let first = format!("SELECT chunk_id FROM chunks WHERE source_id = ({source}) AND first_byte = 0");
    place.database.sql(&format!("DELETE FROM firewall_logs WHERE chunk_id = ({first})"));
    place.database.sql(&format!("DELETE FROM chunks WHERE chunk_id = ({first})"));
    assert!(place.raw_lines(&from) == expected);

    // the archive gets the rest, and a day goes from Postgres
    place.load(ARCHIVE, &["logs"], "1MiB");
    place.database.sql("DROP TABLE firewall_logs_20240115");
    assert!(place.raw_lines(&from) == expected);
    assert_eq!(place.query(&from, "SELECT sum(lines) AS n FROM chunks"), "n\n4000\n");
}

#[test]
fn a_last_line_that_has_grown_in_one_place_is_read_there() {
    let place = Place::new();
    let lines = numbered_lines(0, 3);
    let (before, after) = lines.split_at(lines.len() - 40);
    place.site.write("logs/a.log", before);
    place.load(ARCHIVE, &["logs"], "1MiB");
    place.site.append("logs/a.log", after);
    place.load(&place.url, &["logs"], "1MiB");
    for from in [[ARCHIVE, &place.url[..]], [&place.url[..], ARCHIVE]] {
        assert!(place.raw_lines(&from) == place.lines(&["logs/a.log"]), "{from:?}");
    }
}

#[test]
fn days_that_moved_are_read_in_the_archive_and_the_others_in_postgres() {
    let place = Place::new();
    let day = |ago: i64| (chrono::Utc::now() - chrono::Duration::days(ago)).format("%Y-%m-%d").to_string();
    let (old, new) = (day(60), day(0));
    let of = |day: &str, first, count| numbered_lines(first, count).replace("2024-01-15", day);
    // chunks of the one, of the other, and of both
    place.site.write("logs/a.log", of(&old, 0, 1000) + &of(&new, 1000, 1000));
    place.site.write("logs/b.log", of(&new, 2000, 1000));
    place.load(&place.url, &["logs"], "16KiB");
    place.site.ok(&["archive", "export", "--from", &place.url, "--older-than", "30d", "--drop"]);
    assert_eq!(place.database.sql("SELECT count(*) FROM firewall_logs"), "2000");
    let (from, expected) = ([ARCHIVE, &place.url[..]], place.lines(&["logs/a.log", "logs/b.log"]));
    assert!(place.raw_lines(&from) == expected);
    for (day, expected) in [(&old, "n,s\n1000,499500\n"), (&new, "n,s\n2000,3999000\n")] {
        let sql =
            format!("SELECT count(*) AS n, sum(bytes_sent) AS s FROM firewall_logs WHERE day = DATE '{day}'");
        assert_eq!(place.query(&from, &sql), expected, "{day}");
    }
    let warnings = |from: &[&str]| {
        let from = from.iter().flat_map(|from| ["--from", *from]);
        let arguments: Vec<&str> = ["query", "SELECT 1"].into_iter().chain(from).collect();
        place.site.end(&arguments).expect_code(0).stderr
    };
    assert!(
        warnings(&[&place.url]).contains("1 days of") && warnings(&[&place.url]).contains("--from file:///")
    );
    assert_eq!(warnings(&from), "");
}

#[test]
fn a_sites_log_type_is_read_from_a_database_without_its_file() {
    let place = Place::new();
    let log_type = "name = \"door\"\ntable = \"door_events\"\nlines = [\"{timestamp} door={door}\"]\n[columns]\n\
                    timestamp = { type = \"timestamp\" }\ndoor = { type = \"string\" }\n";
    place.site.write("types/door.toml", log_type);
    place.site.write("logs/a.log", "2024-01-15T00:00:03Z door=a\n");
    place.load(&place.url, &["--log-types", "types", "logs"], "1MiB");
    assert_eq!(place.query(&[&place.url], "SELECT door FROM door_events"), "door\na\n");
    assert_eq!(place.raw_lines(&[&place.url]), ["2024-01-15T00:00:03Z door=a"]);
}

#[test]
fn two_archives_are_one_table() {
    let place = Place::new();
    place.site.generate(2, 2000);
    place.load("one", &["logs/logs_0000.log"], "10KiB");
    place.load("two", &["logs"], "30KiB");
    let files = ["logs/logs_0000.log", "logs/logs_0001.log"];
    for from in [["one", "two"], ["two", "one"]] {
        assert!(place.raw_lines(&from) == place.lines(&files), "{from:?}");
    }
    assert!(place.six_answers(&["one", "two"]) == place.six_answers(&["two"]));
}

#[test]
fn raw_logs_are_tables_as_if_they_were_loaded() {
    let place = Place::new();
    // more than one chunk in a file
    place.site.generate(2, 12_000);
    let odd = format!("{FIREWALL_LINE}|zone=dmz\n\n{NO_TYPE}\r\n  {DNS_LINE}\n \t\n{FIREWALL_LINE}");
    place.site.write("logs/odd.log", &odd);
    place.load(ARCHIVE, &["logs"], "1MiB");
    let from = ["raw:logs"];
    assert!(place.six_answers(&from) == place.six_answers(&[ARCHIVE]));
    for sql in [
        "SELECT * FROM firewall_logs ORDER BY chunk_id, line",
        "SELECT * FROM auth_logs ORDER BY chunk_id, line",
        "SELECT count(*) AS n FROM auth_logs",
        "SELECT * FROM rejects ORDER BY chunk_id, line",
        "SELECT chunk_id, line, encode(bytes, 'hex') AS bytes FROM blanks ORDER BY 1, 2",
        "SELECT chunk_id, source_id, file, first_byte, end_byte, content_sha256, lines, rows, rejects, blanks, types, open FROM chunks ORDER BY source_id, first_byte",
        "SELECT id, log_type, raw_line, timestamp, source_file, parsed_data FROM logs ORDER BY id",
        "SELECT count(*) AS n, count(DISTINCT day) AS days FROM dns_logs",
        "SELECT line, src FROM firewall_logs WHERE src = '192.168.1.42' OR dst_port IN (3389, 8443) ORDER BY chunk_id, line",
        "SELECT line, rule FROM firewall_logs WHERE rule LIKE '%malware' AND action <> 'drop' ORDER BY chunk_id, line",
        "SELECT count(*) AS n FROM auth_logs WHERE status = 'Failed' AND raw IS NULL",
    ] {
        let expected = place.query(&[ARCHIVE], sql);
        assert!(place.query(&from, sql) == expected, "{sql}");
        // what the archive holds is not read again
        assert!(place.query(&["raw:logs", ARCHIVE], sql) == expected, "{sql}");
    }
    let explained =
        place.explain(&["raw:logs/*_0000.log"], "SELECT src FROM firewall_logs WHERE dst_port = 22");
    let plan = explained["plan"].to_string();
    assert!(plan.contains("columns=[src, dst_port]"), "{plan}");
    let size = place.site.read("logs/logs_0000.log").len() as u64;
    assert_eq!(
        (explained["scans"][0]["files"].as_u64(), explained["scans"][0]["bytes"].as_u64()),
        (Some(1), Some(size))
    );
}

#[test]
fn compressed_and_growing_raw_logs_are_read_with_what_is_loaded() {
    let place = Place::new();
    let lines = numbered_lines(0, 3000);
    let (before, after) = lines.split_at(lines.len() / 2 + 30);
    place.site.write("logs/a.log", before);
    place.load(ARCHIVE, &["logs"], "20KiB");
    place.site.append("logs/a.log", after);
    place.load(&place.url, &["logs"], "30KiB");
    place.site.append("logs/a.log", numbered_lines(3000, 500));
    place.site.write("logs/b.log.gz", gzip(numbered_lines(3500, 500).as_bytes()));
    let sum = "SELECT count(*) AS n, sum(bytes_sent) AS s FROM firewall_logs";
    for from in [&["raw:logs/a.log", "raw:logs/b.log.gz", "raw:logs"][..], &["raw:logs", &place.url, ARCHIVE]]
    {
        assert_eq!(place.query(from, sum), "n,s\n4000,7998000\n", "{from:?}");
        assert_eq!(place.query(from, "SELECT sum(lines) AS n FROM chunks WHERE file LIKE '%gz'"), "n\n500\n");
    }
    place.site.write("logs/c.log", zstd::encode_all(numbered_lines(0, 5).as_bytes(), 1).unwrap());
    assert_eq!(place.query(&["raw:logs/c.log"], sum), "n,s\n5,10\n");
    for (from, expected) in [
        ("raw:nothing", "nothing does not exist"),
        ("raw:*.txt", "no file matches *.txt"),
        ("raw:-", "- is a stream"),
    ] {
        let error = place.site.error(1, &["query", "--from", from, sum]);
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn filters_columns_and_limits_are_sent_to_postgres() {
    let place = Place::new();
    place.site.generate(1, 3000);
    place.load(&place.url, &["logs"], "100KiB");
    let from = [&place.url[..]];
    let scan = |sql: &str| {
        let explained = place.explain(&from, sql);
        let scans = explained["scans"].as_array().unwrap().clone();
        assert_eq!(scans.len(), 1, "{explained}");
        assert!(explained["plan"].to_string().contains("PostgresExec"), "{explained}");
        (scans[0]["sql"][0].as_str().unwrap().to_owned(), explained["rows"].as_u64().unwrap(), explained)
    };
    let (sql, ..) =
        scan("SELECT dst_port FROM firewall_logs WHERE src = '192.168.1.42' AND ip_in(dst, '10.0.0.0/8')");
    let table = "\"public\".\"firewall_logs\"";
    assert_eq!(
        sql,
        format!(
            "SELECT \"dst_port\" FROM {table} WHERE (\"src\" = '192.168.1.42'::inet) AND (\"dst\" <<= '10.0.0.0/8'::inet)"
        )
    );
    let (sql, rows, _) = scan("SELECT * FROM firewall_logs WHERE dst_port = 22 LIMIT 3");
    assert!(sql.ends_with(" WHERE (\"dst_port\" = 22) LIMIT 3"), "{sql}");
    assert_eq!(rows, 3);
    let (sql, ..) = scan(
        "SELECT count(*) FROM dns_logs WHERE timestamp >= '2024-01-15T05:00:00Z' AND day = DATE '2024-01-15'",
    );
    assert!(sql.contains("(\"timestamp\" >= '2024-01-15 05:00:00.000000+00'::timestamptz)"), "{sql}");
    assert!(sql.contains("\"timestamp\" < '2024-01-16 00:00:00.000000+00'::timestamptz"), "{sql}");
    // what only this side can tell stays on this side: the limit with it
    let (sql, rows, explained) = scan("SELECT src FROM firewall_logs WHERE src LIKE '192.168.1.4%' LIMIT 2");
    assert!(!sql.contains("LIKE") && !sql.contains("LIMIT"), "{sql}");
    assert_eq!(rows, 2);
    assert!(explained["scans"][0]["bytes"].as_u64().unwrap() > 0);

    // an archive that holds everything leaves Postgres nothing to send
    place.load(ARCHIVE, &["logs"], "1MiB");
    let explained = place.explain(&[ARCHIVE, &place.url], "SELECT count(src) FROM firewall_logs");
    let scans = explained["scans"].as_array().unwrap();
    assert_eq!(scans.len(), 2, "{explained}");
    assert_eq!(
        (scans[0]["files"].as_u64(), scans[1]["requests"].as_u64()),
        (Some(1), Some(0)),
        "{explained}"
    );
}

#[test]
fn a_condition_selects_the_same_rows_in_postgres_and_in_the_archive() {
    let place = Place::new();
    let lines = [
        "2024-01-15T00:00:00.000Z|action=drop|src=2001:db8::1|dst=10.0.0.1|rule=Zebra",
        "2024-01-15T23:59:59.999999Z|action=drop|src=::ffff:10.0.0.1|dst=10.0.0.255|dst_port=22|rule=apple%",
        "2024-01-16T00:00:00Z|action=allow|src=10.0.0.1|dst_port=70000|rule=\u{e4}pfel",
        "2024-01-16T12:00:00.000001Z|action=allow|src=nowhere|dst=10.1.0.1|bytes_sent=5|rule=it's \\ odd_",
        "1999-12-31T00:00:00Z|action=allow|dst=9.9.9.9|rule=",
        "2024-01-17T00:00:00Z|action=reject|src=192.168.1.1|dst=10.0.0.1|bytes_sent=18446744073709551615|zone=dmz",
    ];
    place.site.write("logs/a.log", lines.join("\n") + "\n");
    place.load(ARCHIVE, &["logs"], "1MiB");
    place.load(&place.url, &["logs"], "1MiB");
    let mut seen = BTreeSet::new();
    for condition in [
        "src = '10.0.0.1'",
        "src <> '10.0.0.1'",
        "NOT (src = '2001:DB8::1')",
        "src IN ('::ffff:10.0.0.1', '2001:db8::1')",
        "src NOT IN ('10.0.0.1', 'x')",
        "src IS NULL",
        "src < '2'",
        "ip_in(src, '10.0.0.0/8')",
        "NOT ip_in(src, '2001:db8::/32')",
        "ip_in(dst, '10.0.0.77/24')",
        "rule < 'a'",
        "rule >= 'apple'",
        "rule BETWEEN 'Z' AND 'b'",
        "rule LIKE '%e%'",
        "rule NOT LIKE 'a%'",
        "rule LIKE 'apple\\%'",
        "rule LIKE '%odd_'",
        "rule = 'it''s \\ odd_'",
        "rule = ''",
        "dst_port = 22",
        "dst_port IS NULL",
        "dst_port IN (22, 23) OR action = 'reject'",
        "NOT (dst_port = 22 OR action = 'drop')",
        "bytes_sent > 4",
        "bytes_sent BETWEEN 5 AND 6",
        "timestamp >= '2024-01-16T00:00:00Z'",
        "timestamp > '2024-01-16T12:00:00Z'",
        "timestamp = '2024-01-16T12:00:00.000001Z'",
        "timestamp < '2000-01-01T00:00:00Z'",
        "day = DATE '2024-01-15'",
        "day <> DATE '2024-01-15'",
        "day IN (DATE '2024-01-15', DATE '2024-01-17')",
        "day BETWEEN DATE '2024-01-16' AND DATE '2024-01-17'",
        "day < DATE '2024-01-16'",
        "day IS NULL",
        "NOT (day > DATE '2024-01-15')",
        "extra IS NOT NULL",
        "raw IS NULL AND extra IS NULL",
        "chunk_id <> 0 AND line >= 3",
    ] {
        let sql = format!("SELECT line FROM firewall_logs WHERE {condition} ORDER BY line");
        let expected = place.query(&[ARCHIVE], &sql);
        assert_eq!(place.query(&[&place.url], &sql), expected, "{condition}");
        seen.insert(expected);
    }
    assert!(seen.len() > 15, "the conditions tell rows apart: {seen:?}");
}

#[test]
fn a_place_that_cannot_be_read_is_named_with_the_remedy() {
    let place = Place::new();
    let sql = "SELECT 1";
    let error = place.site.error(3, &["query", "--from", &place.url, sql]);
    assert!(error.contains("holds no ledger") && error.contains("--schema"), "{error}");
    let error = place.site.error(3, &["query", "--from", "nothing/here", sql]);
    assert!(error.contains("nothing/here"), "{error}");
    let error = place.site.error(3, &["query", "--from", "postgres://host", sql]);
    assert!(error.contains("postgres://user@host:port/database"), "{error}");
    place.load(&place.url, &[repository("data/sample").to_str().unwrap()], "1MiB");
    let error = place.site.error(1, &["query", "--from", &place.url, "SELECT * FROM nope"]);
    assert!(error.contains("there are auth_logs, blanks"), "{error}");
    let error = place.site.error(2, &["query", "--explain", "--output", "csv", sql]);
    assert!(error.contains("--output json"), "{error}");
}

#[test]
fn a_prompt_runs_statements_and_commands_and_goes_on_after_errors() {
    let site = Site::new();
    site.generate(1, 500);
    site.run(&["logs"]);
    let typed = [
        "SELECT 1 AS one,",
        "  ';' AS two;",
        "SELEC 1;",
        "\\timing",
        "SELECT count(*) AS dns_rows FROM dns_logs;",
        "\\d",
        "\\d dns_logs",
        "\\nope",
        "^CSELECT count(*) FROM generate_series(1, 1000) AS a(x), generate_series(1, 10000000000) AS b(y) WHERE x % 7 < y % 5;",
        // the last of several Ctrl-C may come when the statement has ended already, and be this one's
        "SELECT 0;",
        "SELECT 41 + 1 AS answer;",
        "^D",
    ];
    site.write("typed", typed.join("\n"));
    let program = env!("CARGO_BIN_EXE_pipeline");
    let mut terminal = python("on_terminal.py");
    terminal.args(["> ", program, "query"]).current_dir(site.at("")).env("XDG_STATE_HOME", site.at("state"));
    let shown = output(terminal.stdin(fs::File::open(site.at("typed")).unwrap()));
    let count = site.number("SELECT count(*) FROM dns_logs");
    for expected in [
        " one | two",
        "error: sql parser error",
        "timing is on",
        &format!("{count:>9}\n"),
        "time: ",
        "rejects",
        "query_domain",
        "error: \\nope is no command; \\? lists them",
        "interrupted",
        "    42",
    ] {
        assert!(shown.contains(expected), "{expected:?} in\n{shown}");
    }
    let history = String::from_utf8(site.read("state/pipeline/query_history")).unwrap();
    assert!(history.contains("answer") && history.contains("generate_series"), "{history}");
}

#[test]
fn statements_come_from_standard_input_where_it_is_no_terminal() {
    let site = Site::new();
    site.write("logs/a.log", format!("{DNS_LINE}\n"));
    site.run(&["logs"]);
    let ended = site
        .feed(&["query", "--output", "csv", "--timing"], b"SELECT 1 AS one; SELECT count(*) AS n FROM logs;");
    let ended = ended.expect_code(0);
    assert_eq!(ended.stdout, "one\n1\nn\n1\n");
    let times: Vec<&str> = ended.stderr.lines().collect();
    assert!(times.len() == 2 && times.iter().all(|line| line.starts_with("time: ")), "{times:?}");
}
