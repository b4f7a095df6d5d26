//! One stream of mixed log types into several places by log type: every line in exactly one of them, whatever is
//! killed between their commits, and the same answers as from one place that has all.
use std::fs;

use serde_json::Value;

use super::schema::connect;
use super::servers::{Database, Postgres, Redis, wait_until};
use super::support::{AUTH_LINE, DNS_LINE, FIREWALL_LINE, NO_TYPE, Running, Site, repository};

/// Files of all types, and two databases: the first has the firewall's lines, the other the rest.
struct Split {
    site: Site,
    firewall: Database,
    rest: Database,
    /// As `--into` takes them.
    into: [String; 2],
}

const ALL: &str = "pipeline-data/archive";

impl Split {
    fn new() -> Self {
        let (firewall, rest) = (Postgres::shared().database(), Postgres::shared().database());
        let into = [format!("{}#types=firewall", firewall.url()), rest.url()];
        let site = Site::new();
        site.generate(3, 3000);
        let odd = format!(
            "{FIREWALL_LINE}|zone=dmz|a=\"b c\"\n\n{NO_TYPE}\n  {DNS_LINE}\r\n{AUTH_LINE}\n \n{NO_TYPE}"
        );
        site.write("logs/odd.log", odd);
        Self { site, firewall, rest, into }
    }

    fn flags<'a>(&'a self, command: &[&'a str]) -> Vec<&'a str> {
        [command, &["--into", &self.into[0], "--into", &self.into[1]]].concat()
    }

    fn run(&self, chunk_size: &str) {
        self.site.ok(&self.flags(&["run", "--quiet", "--chunk-size", chunk_size, "logs"]));
    }

    fn urls(&self) -> [String; 2] {
        [self.firewall.url(), self.rest.url()]
    }

    fn query(&self, from: &[&str], sql: &str) -> String {
        let from = from.iter().flat_map(|from| ["--from", *from]);
        let arguments: Vec<&str> = ["query", "--output", "csv", sql].into_iter().chain(from).collect();
        self.site.ok(&arguments)
    }

    /// What all places say together, of which nothing may be wrong.
    fn expect_whole(&self) -> Value {
        let flags = self.flags(&["verify", "--count", "--content", "--output", "json", "logs"]);
        let reports: Value = serde_json::from_str(&self.site.ok(&flags)).unwrap();
        let together = reports[2].clone();
        assert_eq!((&together["together"], &together["whole"]), (&true.into(), &true.into()), "{reports}");
        assert_eq!(together["chunks"], together["compared"], "{reports}");
        together
    }

    /// Both give what a place gives that has all.
    fn expect_same_answers(&self) {
        self.site.ok(&["run", "--quiet", "--into", ALL, "logs"]);
        let [firewall, rest] = self.urls();
        let from = [&firewall[..], &rest];
        for sql in [
            "SELECT raw_line, log_type, timestamp, source_file, parsed_data FROM logs ORDER BY 1, 2, 3, 4, 5",
            "SELECT count(*) AS n, count(indexed_at) AS of_chunks FROM logs",
            "SELECT encode(bytes, 'hex') AS bytes, reason FROM rejects ORDER BY 1, 2",
            "SELECT encode(bytes, 'hex') AS bytes FROM blanks ORDER BY 1",
            "SELECT sum(lines) AS lines, sum(rows) AS rows, sum(rejects) AS r, sum(blanks) AS b FROM chunks",
        ] {
            let expected = self.query(&[ALL], sql);
            assert_eq!(self.query(&from, sql), expected, "{sql}");
            assert_eq!(self.query(&[&rest, &firewall], sql), expected, "{sql}");
            // a copy beside them adds nothing
            assert_eq!(self.query(&[&firewall, &rest, ALL], sql), expected, "{sql}");
            assert_eq!(self.query(&[&firewall, ALL], sql), expected, "{sql}");
        }
    }
}

#[test]
fn every_line_is_in_one_of_two_databases_and_both_account_for_all() {
    let split = Split::new();
    split.run("100KiB");
    let counts = |database: &Database| {
        database.sql(
            "SELECT (SELECT count(*) FROM firewall_logs) > 0, (SELECT count(*) FROM dns_logs) > 0,
                    (SELECT count(*) FROM auth_logs) > 0, (SELECT count(*) FROM rejects), (SELECT count(*) FROM blanks)",
        )
    };
    assert_eq!((counts(&split.firewall), counts(&split.rest)), ("t|f|f|0|0".into(), "f|t|t|2|2".into()));
    for (database, elsewhere) in [(&split.firewall, "{auth,blanks,dns,rejects}"), (&split.rest, "{firewall}")]
    {
        assert_eq!(database.sql("SELECT DISTINCT elsewhere FROM chunks"), elsewhere);
        assert_eq!(database.sql("SELECT sum(lines), sum(rejects), sum(blanks) FROM chunks"), "9007|2|2");
        // the one knows what the other has, and is whole by itself
        let verified = split.site.ok(&["verify", "--count", "--content", "--into", &database.url(), "logs"]);
        assert!(verified.contains("chunks are here in part"), "{verified}");
        assert!(!verified.contains("together"), "{verified}");
        // but not its content
        assert!(verified.contains("parts not compared") && verified.contains("--count counts"), "{verified}");
        let report = |flags: &[&str]| {
            let url = database.url();
            let flags = [&["verify", "--output", "json", "--into", &url], flags].concat();
            let reports: Value = serde_json::from_str(&split.site.ok(&flags)).unwrap();
            reports[0].clone()
        };
        let with_content = report(&["--content"]);
        assert!(with_content["parts_not_compared"].as_u64().unwrap() > 8, "{with_content}");
        assert_eq!(report(&[])["parts_not_compared"], Value::Null);
    }
    let together = split.expect_whole();
    let verified = split.site.ok(&split.flags(&["verify", "logs"]));
    assert!(!verified.contains("in one command"), "{verified}");
    let place = split.rest.url().replace(":pipeline@", ":***@");
    assert!(verified.lines().any(|line| line == place), "{place}: {verified}");
    let parts: Vec<&str> = (verified.lines().filter(|line| line.contains(" in part")))
        .filter_map(|line| line.split(" chunks ").next()?.rsplit(' ').next())
        .collect();
    assert!(parts.len() == 3 && parts[0] == parts[1] && parts[1] == parts[2], "{verified}");
    assert!(together["chunks"].as_u64().unwrap() > 8, "{together}");
    split.expect_same_answers();
    let again = split.flags(&["run", "--output", "json", "logs"]);
    let again: Value = serde_json::from_str(&split.site.ok(&again)).unwrap();
    assert_eq!(again["lines"], 0);
}

#[test]
fn a_copy_is_verified_beside_the_parts_and_a_place_that_lacks_its_part_is_named() {
    let split = Split::new();
    split.run("100KiB");
    split.site.ok(&["run", "--quiet", "--into", ALL, "logs"]);
    let [firewall, rest] = split.urls();
    split.site.ok(&["verify", "--content", "--into", &firewall, "--into", &rest, "--into", ALL]);
    split.site.ok(&["verify", "--into", &firewall, "--into", ALL]);
    split.rest.sql("DELETE FROM dns_logs; DELETE FROM chunks WHERE file LIKE '%logs_0001.log'");
    let verified = split.site.end(&["verify", "--count", "--into", &rest]).expect_code(1);
    assert!(verified.stderr.contains("dns holds 0 rows"), "{}", verified.stderr);
    let verified = split.site.end(&["verify", "--into", &firewall, "--into", &rest]).expect_code(1);
    let missing =
        verified.errors().into_iter().filter(|error| error.contains("are in none of the places given"));
    let missing: Vec<String> = missing.collect();
    assert!(missing.iter().any(|error| error.contains("their auth are in none")), "{missing:?}");
    assert!(missing.iter().all(|error| error.contains("logs_0001.log")), "{missing:?}");
}

#[test]
fn a_part_beside_a_place_that_has_all_is_compared_with_it_however_both_are_cut() {
    let split = Split::new();
    split.run("37KiB");
    split.site.ok(&["run", "--quiet", "--chunk-size", "100KiB", "--into", ALL, "logs"]);
    let [firewall, rest] = split.urls();
    let verify = |places: &[&str]| {
        let places = places.iter().flat_map(|place| ["--into", *place]);
        let flags: Vec<&str> =
            ["verify", "--content", "--output", "json"].into_iter().chain(places).collect();
        split.site.end(&flags)
    };
    for places in [[&firewall[..], ALL], [ALL, &rest]] {
        let reports: Value = serde_json::from_str(&verify(&places).expect_code(0).stdout).unwrap();
        let together = &reports[2];
        assert!(together["chunks"].as_u64().unwrap() > 20, "{together}");
        assert_eq!(together["chunks"], together["compared"], "{together}");
        assert_eq!(together["parts_not_compared"], 0);
    }
    // a row that is lost is not filled up from the copy, and one that is changed is not taken for it
    let one_of = |table: &str| {
        format!(
            "(chunk_id, line) = (SELECT chunk_id, line FROM {table} WHERE raw IS NULL ORDER BY 1, 2 LIMIT 1)"
        )
    };
    split.firewall.sql(&format!("DELETE FROM firewall_logs WHERE {}", one_of("firewall_logs")));
    split
        .rest
        .sql(&format!("UPDATE dns_logs SET query_domain = query_domain || 'x' WHERE {}", one_of("dns_logs")));
    for place in [&firewall, &rest] {
        let verified = verify(&[place, ALL]).expect_code(1);
        let reports: Value = serde_json::from_str(&verified.stdout).unwrap();
        let findings = reports[2]["findings"].as_array().unwrap();
        assert!(findings.len() == 1, "{reports}");
        assert!(findings[0].as_str().unwrap().contains("do not come back as they were read"), "{reports}");
    }
}

#[test]
fn lines_that_were_changed_in_one_part_are_found_by_their_content() {
    let split = Split::new();
    split.run("100KiB");
    split.firewall.sql(
        "UPDATE firewall_logs SET bytes_sent = bytes_sent + 1
         WHERE (chunk_id, line) = (SELECT chunk_id, line FROM firewall_logs WHERE raw IS NULL ORDER BY 1, 2 LIMIT 1)",
    );
    let [firewall, rest] = split.urls();
    split.site.ok(&["verify", "--count", "--content", "--into", &firewall]);
    let verified =
        split.site.end(&["verify", "--content", "--into", &firewall, "--into", &rest]).expect_code(1);
    let errors = verified.errors();
    assert!(errors.len() == 1 && errors[0].contains("do not come back as they were read"), "{errors:?}");
}

#[test]
fn the_six_questions_have_the_same_answers_from_parts() {
    let split = Split::new();
    split.run("64KiB");
    split.site.ok(&["run", "--quiet", "--into", ALL, "logs"]);
    let mut files: Vec<_> = fs::read_dir(repository("sql/queries")).unwrap().flatten().collect();
    files.retain(|file| file.path().is_file());
    files.sort_by_key(fs::DirEntry::file_name);
    let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file.path()).unwrap()).collect();
    split.site.write("all.sql", texts.concat());
    let answers = |from: &[&str]| {
        let from = from.iter().flat_map(|from| ["--from", *from]);
        let arguments: Vec<&str> =
            ["query", "--output", "csv", "-f", "all.sql"].into_iter().chain(from).collect();
        split.site.ok(&arguments)
    };
    let [firewall, rest] = split.urls();
    assert_eq!(answers(&[&firewall, &rest]), answers(&[ALL]));
    assert_eq!(answers(&[&rest, &firewall]), answers(&[ALL]));
}

#[test]
fn one_of_the_parts_says_what_is_not_read_and_raw_files_are_not_mixed_with_it() {
    let split = Split::new();
    split.run("100KiB");
    let [firewall, rest] = split.urls();
    let count = ["query", "SELECT count(*) FROM firewall_logs", "--from", &firewall];
    let ended = split.site.end(&count).expect_code(0);
    assert!(ended.stderr.contains("went to places that are not read"), "{}", ended.stderr);
    let error = split.site.error(3, &[&count[..], &["--from", "raw:logs"]].concat());
    assert!(error.contains("read those places too"), "{error}");
    split.site.append("logs/odd.log", format!("\n{DNS_LINE}\n{FIREWALL_LINE}\n"));
    let lines = |from: &[&str]| split.query(from, "SELECT count(*) AS n FROM logs");
    assert_eq!(lines(&[&firewall, &rest, "raw:logs"]), lines(&["raw:logs"]));
}

#[test]
fn what_does_not_name_every_type_once_is_a_mistake_of_usage_by_flag_variable_and_file() {
    let mut split = Split::new();
    let firewall = split.into[0].clone();
    let error = split.site.error(2, &["run", "logs", "--into", &firewall]);
    assert!(error.contains("log type auth is to go nowhere") && !error.contains(":pipeline@"), "{error}");
    let unknown = format!("{}#types=http", split.rest.url());
    let error = split.site.error(2, &["process", "--into", &firewall, "--into", &unknown]);
    assert!(error.contains("there is no log type http; there are auth, dns, firewall"), "{error}");
    let twice = format!("{}#types=firewall,dns,auth", split.rest.url());
    let error = split.site.error(2, &["run", "logs", "--into", &firewall, "--into", &twice]);
    assert!(error.contains("log type firewall is to go to"), "{error}");

    let into = format!("into = [\"{}\", \"{}\"]\n", split.into[0], split.into[1]);
    split.site.write("pipeline.toml", into);
    split.site.ok(&["run", "--quiet", "logs"]);
    split.site.ok(&["verify", "--count", "--content", "logs"]);
    split.expect_whole();
    split.site.write("pipeline.toml", "");
    split.site.set("PIPELINE_INTO", split.into.join(" "));
    let verified = split.site.ok(&["verify", "logs"]);
    assert!(verified.contains("together"), "{verified}");
    let again = split.site.run(&["logs"]);
    assert_eq!(again.lines, 0);
    let summary = split.site.ok(&["run", "logs"]);
    let named = |place: &str| summary.contains(&place.replace(":pipeline@", ":***@"));
    assert!(split.into.iter().all(|place| named(place)) && !summary.contains(":pipeline@"), "{summary}");
    split.site.set("PIPELINE_INTO", "/no/data/a /no/data/b");
    let error = split.site.error(2, &["run", "logs"]);
    assert!(error.contains("give each place an --into of its own") && error.contains("file:///"), "{error}");
}

#[test]
fn commands_of_one_place_say_so_where_several_are_set_and_say_where_rejects_are_not() {
    let mut split = Split::new();
    split.run("1MiB");
    let commands = [
        &["rejects", "list"][..],
        &["rejects", "show", "1:1"],
        &["rejects", "replay"],
        &["replay", "--from", "2000-01-01", "--to", "2100-01-01"],
        &["init-db"],
    ];
    let expect_refused = |site: &Site| {
        for command in commands {
            let error = site.error(2, command);
            assert!(
                error.contains("takes one --into, and pipeline.toml or PIPELINE_INTO has several"),
                "{error}"
            );
        }
    };
    split.site.write("pipeline.toml", format!("into = [\"{}\", \"{}\"]\n", split.into[0], split.into[1]));
    expect_refused(&split.site);
    let list = |place: &str| split.site.end(&["rejects", "list", "--into", place]).expect_code(0);
    let of_firewall = list(&split.into[0]);
    assert!(of_firewall.stderr.contains("whose rejects went to another place"), "{}", of_firewall.stderr);
    let of_rest = list(&split.into[1]);
    assert!(of_rest.stderr.is_empty() && of_rest.stdout.contains("odd.log"), "{}", of_rest.stderr);
    split.site.write("pipeline.toml", "");
    split.site.set("PIPELINE_INTO", split.into.join(" "));
    expect_refused(&split.site);
}

#[test]
fn places_that_are_not_written_to_by_type_take_no_types() {
    let site = Site::new();
    for command in [
        &["query", "SELECT 1", "--from", "a#types=dns"][..],
        &["query-worker", "--from", "a#types=dns"],
        &["archive", "list", "--archive", "a#types=dns"],
        &["archive", "compact", "--archive", "a#types=dns"],
        &["archive", "restore", "--out", "out", "--archive", "a#types=dns"],
        &["archive", "export", "--archive", "a#types=dns"],
        &["archive", "export", "--from", "postgres://h/logs#types=dns"],
        &["serve", "--listen", "127.0.0.1:0", "--archive", "a#types=dns"],
    ] {
        let error = site.error(2, command);
        assert!(error.contains("only --into of run, process and fetch takes #types="), "{error}");
    }
}

#[test]
fn one_place_under_two_names_is_refused_before_anything_is_stored() {
    let (site, database) = (Site::new(), Postgres::shared().database());
    site.generate(1, 500);
    for other in [
        "./tw".to_owned(),
        site.at("tw").display().to_string(),
        format!("file://{}/", site.at("tw").display()),
    ] {
        let error = site.error(2, &["run", "logs", "--into", "tw#types=firewall", "--into", &other]);
        assert!(error.contains("are the same place"), "{error}");
        assert!(!site.at("tw").exists());
    }
    let alias = database.url().replace("127.0.0.1", "localhost");
    let types = format!("{}#types=firewall", database.url());
    let error = site.error(3, &["run", "--quiet", "logs", "--into", &types, "--into", &alias]);
    assert!(error.contains("is the same place as") && !error.contains(":pipeline@"), "{error}");
    assert_eq!(database.sql("SELECT count(*) FROM chunks"), "0");
    // another database of the server is another place
    let other = Postgres::shared().database();
    site.ok(&["run", "--quiet", "logs", "--into", &types, "--into", &other.url()]);
}

#[test]
fn another_split_of_the_same_places_is_refused_with_the_remedy() {
    let split = Split::new();
    split.run("1MiB");
    let [firewall, rest] = split.urls();
    let dns = format!("{firewall}#types=dns,firewall");
    for (flags, says) in [
        (vec!["--into", &dns[..], "--into", &rest], "whose dns went elsewhere"),
        (vec!["--into", &firewall], "went elsewhere, and is now to have them"),
        (vec!["--into", &rest], "whose firewall went elsewhere"),
    ] {
        let error = split.site.error(3, &[&["run", "--quiet", "logs"], &flags[..]].concat());
        assert!(error.contains(says) && error.contains("another --schema"), "{error}");
    }
    // a part is not repaired, decoded anew or restored
    let condition = ["replay", "--from", "2000-01-01", "--to", "2100-01-01", "--into", &rest];
    let error = split.site.error(3, &condition);
    assert!(error.contains("has a part only of the chunk at byte"), "{error}");
    let error = split.site.error(3, &["rejects", "replay", "--into", &rest]);
    assert!(error.contains("has a part only of the chunk at byte"), "{error}");
    split.rest.sql("DELETE FROM dns_logs");
    let ended = split.site.end(&["verify", "--repair", "--into", &rest, "logs"]).expect_code(3);
    assert!(ended.stderr.contains("parts are not repaired"), "{}", ended.stderr);
    assert!(ended.stderr.contains("write the files to other places"), "{}", ended.stderr);
    assert_eq!(split.rest.sql("SELECT count(*) > 0 FROM chunks"), "t");
}

#[test]
fn a_database_that_had_all_may_have_a_part_from_now_on() {
    let split = Split::new();
    split.site.ok(&["run", "--quiet", "--chunk-size", "64KiB", "--into", &split.rest.url(), "logs"]);
    split.site.append("logs/odd.log", format!("\n{FIREWALL_LINE}\n{DNS_LINE}\n{NO_TYPE}\n"));
    split.run("100KiB");
    assert_eq!(split.rest.sql("SELECT count(*) > 0 FROM chunks WHERE elsewhere = '{}'"), "t");
    let [firewall, rest] = split.urls();
    split.site.ok(&["verify", "--count", "--content", "--into", &firewall, "--into", &rest, "logs"]);
    split.expect_same_answers();
    assert_eq!(split.site.run(&split.flags(&["logs"])).lines, 0);
}

#[test]
fn days_of_parts_stay_in_their_database() {
    let split = Split::new();
    split.run("1MiB");
    let exported =
        split.site.end(&["archive", "export", "--drop", "--from", &split.rest.url()]).expect_code(1);
    assert!(exported.stderr.contains("postgres has a part only of the chunk at byte"), "{}", exported.stderr);
    assert_eq!(split.rest.sql("SELECT count(*) FROM moved"), "0");
    split.expect_whole();
}

#[test]
fn archives_have_parts_too_and_do_not_restore_them_as_wholes() {
    let split = Split::new();
    let run =
        ["run", "--quiet", "--chunk-size", "100KiB", "logs", "--into", "one#types=dns,auth", "--into", "two"];
    split.site.ok(&run);
    let verified =
        split.site.ok(&["verify", "--count", "--content", "--into", "one", "--into", "two", "logs"]);
    assert!(verified.contains("one and two together"), "{verified}");
    split.site.ok(&["verify", "--count", "--content", "--into", "one"]);
    let error = split.site.error(3, &["archive", "restore", "--archive", "one", "--out", "out"]);
    assert!(error.contains("the archive has a part only"), "{error}");
    assert!(!split.site.at("out").exists());
    split.site.ok(&["run", "--quiet", "--into", ALL, "logs"]);
    let sql = "SELECT raw_line, log_type FROM logs ORDER BY 1, 2";
    assert_eq!(split.query(&["one", "two"], sql), split.query(&[ALL], sql));
    split.site.ok(&["archive", "compact", "--archive", "one"]);
    assert_eq!(split.query(&["two", "one"], sql), split.query(&[ALL], sql));
    assert_eq!(split.site.run(&run[4..]).lines, 0);
    // an archive and a database
    let mixed = ["run", "--quiet", "logs", "--into", "three#types=firewall", "--into", &split.into[1]];
    split.site.ok(&mixed);
    assert_eq!(split.query(&["three", &split.rest.url()], sql), split.query(&[ALL], sql));
    split.site.ok(&[
        "verify",
        "--count",
        "--content",
        "--into",
        "three",
        "--into",
        &split.rest.url(),
        "logs",
    ]);
}

/// Takes a lock in a database that keeps commits from their end, and readers not.
async fn hold_commits(database: &Database) -> tokio_postgres::Client {
    let client = connect(&database.url()).await;
    client.batch_execute("BEGIN; LOCK TABLE sources IN SHARE MODE").await.unwrap();
    client
}

/// Starts a command, and kills it once the first database has committed and the other waits.
async fn kill_between_commits(split: &Split, arguments: &[&str]) {
    for database in [&split.firewall, &split.rest] {
        split.site.ok(&["init-db", "--into", &database.url()]);
    }
    let lock = hold_commits(&split.rest).await;
    let running: Running = split.site.start(arguments);
    wait_until("the first database has committed", || {
        split.firewall.sql("SELECT count(*) > 0 FROM chunks") == "t"
    });
    running.kill_after(std::time::Duration::ZERO);
    lock.batch_execute("ROLLBACK").await.unwrap();
}

#[tokio::test]
async fn killed_between_the_two_commits_nothing_is_lost_and_nothing_is_there_twice() {
    let split = Split::new();
    // one connection commits in the order of the bytes, so that what is there has no gap
    let run = split.flags(&[
        "run",
        "--quiet",
        "--chunk-size",
        "50KiB",
        "--commit-rows",
        "1000",
        "--workers",
        "1",
        "logs",
    ]);
    kill_between_commits(&split, &run).await;
    assert_eq!(split.rest.sql("SELECT count(*) FROM chunks"), "0");
    let [firewall, rest] = split.urls();
    split.site.ok(&["verify", "--count", "--into", &firewall]);
    let verified = split.site.end(&["verify", "--into", &firewall, "--into", &rest]).expect_code(1);
    assert!(verified.stderr.contains("are in none of the places given"), "{}", verified.stderr);
    // whatever it is cut into now, and with a file that grew
    split.site.append("logs/odd.log", format!("\n{FIREWALL_LINE}\n{DNS_LINE}\n"));
    split.run("37KiB");
    split.expect_whole();
    split.expect_same_answers();
}

#[tokio::test]
async fn log_types_are_not_changed_between_the_two_commits() {
    let split = Split::new();
    let run = split.flags(&["run", "--quiet", "--chunk-size", "50KiB", "--commit-rows", "1000", "logs"]);
    kill_between_commits(&split, &run).await;
    let new = "name = \"new\"\nlines = [\"{timestamp} no log type takes this {what}\"]\n[columns]\n\
               timestamp = { type = \"timestamp\" }\nwhat = { type = \"string\" }\n";
    split.site.write("types/new.toml", new);
    let changed = [&run[..], &["--log-types", "types"]].concat();
    let error = split.site.end(&changed).expect_code(3).errors().remove(0);
    assert!(error.contains("decoded with other log types than there are now"), "{error}");
    split.run("50KiB");
    split.expect_whole();
    // then they may be
    split.site.write(
        "logs/later.log",
        format!("{NO_TYPE}\n2024-01-15T00:00:03Z no log type takes this one\n{DNS_LINE}\n"),
    );
    split.site.ok(&changed);
    split.site.ok(&split.flags(&["verify", "--count", "--content", "logs"]));
    let [firewall, rest] = split.urls();
    assert_eq!(split.query(&[&firewall, &rest], "SELECT what FROM new_logs"), "what\none\n");
    assert_eq!(split.rest.sql("SELECT count(*) FROM new_logs"), "1");
}

#[tokio::test]
async fn processors_of_a_stream_fill_both_databases_also_after_one_was_killed() {
    let split = Split::new();
    let redis = Redis::start();
    let (via, takeover) = (redis.url(), "1s");
    let queue = ["--via", &via, "--takeover", takeover];
    let process = split.flags(&[&["process", "--commit-rows", "1000"], &queue[..]].concat());
    let read =
        split.site.start(&["read", "logs", "--chunk-size", "50KiB", "--via", &via, "--takeover", takeover]);
    kill_between_commits(&split, &process).await;
    let processors = [split.site.start(&process), split.site.start(&process)];
    read.wait().expect_code(0);
    for processor in processors {
        processor.signal("TERM");
        processor.wait().expect_code(143);
    }
    split.expect_whole();
    split.expect_same_answers();
}

#[test]
fn readers_that_cut_differently_and_processors_that_are_killed_leave_parts_that_fit() {
    let split = Split::new();
    split.site.ok(&["generate", "--out", "more", "--files", "4", "--lines", "20000", "--seed", "7"]);
    let redis = Redis::start();
    let via = redis.url();
    let queue = ["--via", &via, "--takeover", "1s"];
    let process = split
        .flags(&[&["process", "--commit-rows", "500", "--commit-interval", "20ms"], &queue[..]].concat());
    let mut processors = vec![split.site.start(&process), split.site.start(&process)];
    let read = |size: &str| {
        let read = ["read", "logs", "more", "--chunk-size", size];
        split.site.start(&[&read[..], &queue].concat())
    };
    let readers = [read("16KiB"), read("50KiB")];
    let committed = || -> u64 {
        let held = "SELECT coalesce(to_regclass('chunks')::text, '')";
        match split.firewall.sql(held).as_str() {
            "" => 0,
            _ => split.firewall.sql("SELECT count(*) FROM chunks").parse().unwrap(),
        }
    };
    for kill in 1..=4 {
        wait_until("more is committed", || committed() > kill * 20);
        let killed = processors.remove(0);
        killed.kill_after(std::time::Duration::ZERO);
        processors.push(split.site.start(&process));
    }
    for reader in readers {
        reader.wait().expect_code(0);
    }
    for processor in processors {
        processor.signal("TERM");
        processor.wait().expect_code(143);
    }
    let flags = split.flags(&["verify", "--count", "--content", "logs", "more"]);
    let verified = split.site.ok(&flags);
    println!("{}", verified.lines().last().unwrap());
    split.site.ok(&["run", "--quiet", "--into", ALL, "logs", "more"]);
    let [firewall, rest] = split.urls();
    let sql =
        "SELECT log_type, count(*) AS n, count(indexed_at) AS of_chunks, min(raw_line) AS first FROM logs
               GROUP BY 1 ORDER BY 1";
    for from in [[&firewall[..], &rest], [&rest[..], &firewall]] {
        assert_eq!(split.query(&from, sql), split.query(&[ALL], sql));
    }
}

#[test]
fn a_row_that_one_database_refuses_is_a_reject_there_and_read_once() {
    let split = Split::new();
    split.site.ok(&["init-db", "--into", &split.firewall.url()]);
    split.firewall.sql("ALTER TABLE firewall_logs ADD CONSTRAINT no_ssh CHECK (dst_port <> 22)");
    split.run("100KiB");
    let refused: u64 = split.firewall.sql("SELECT count(*) FROM rejects").parse().unwrap();
    assert!(refused > 0);
    let kept = "SELECT sum(rejects) FROM chunks";
    assert_eq!(split.firewall.sql(kept), (refused + 2).to_string());
    for database in [&split.firewall, &split.rest] {
        split.site.ok(&["verify", "--count", "--into", &database.url()]);
    }
    split.expect_whole();
    let [firewall, rest] = split.urls();
    for from in [[&firewall[..], &rest], [&rest[..], &firewall]] {
        let count =
            split.query(&from, "SELECT (SELECT count(*) FROM logs) + (SELECT count(*) FROM rejects) AS n");
        assert_eq!(count, "n\n9005\n");
        assert_eq!(split.query(&from, "SELECT count(*) AS n FROM rejects"), format!("n\n{}\n", refused + 2));
    }
}

#[test]
fn a_schema_of_before_is_read_as_it_is() {
    let (site, database) = (Site::new(), Postgres::shared().database());
    site.generate(1, 500);
    site.ok(&["run", "--quiet", "--into", &database.url(), "logs"]);
    database.sql("ALTER TABLE chunks DROP COLUMN elsewhere; DELETE FROM schema_migrations WHERE version = 8");
    site.ok(&["verify", "--count", "--content", "--into", &database.url(), "logs"]);
    let count = ["query", "--output", "csv", "SELECT count(*) AS n FROM logs", "--from", &database.url()];
    assert_eq!(site.ok(&count), "n\n500\n");
    assert_eq!(site.run(&["--into", &database.url(), "logs"]).lines, 0);
    assert_eq!(database.sql("SELECT DISTINCT elsewhere FROM chunks"), "{}");
}
