//! Days that move from Postgres to an archive: nothing lost, nothing twice, whatever is killed, whoever was first.
use std::time::Duration;

use super::exactly_once::{Chaos, num_kills};
use super::schema::connect;
use super::servers::{Database, Postgres};
use super::support::{NO_TYPE, Site, numbered_lines, repository};

struct Place {
    site: Site,
    database: Database,
    url: String,
}

impl Place {
    /// About two days of standard lines with what is special at their end, in Postgres.
    fn filled() -> Self {
        let place = Self::empty();
        place.site.generate(2, 80_000);
        place.site.append(
            "logs/logs_0001.log",
            format!("{NO_TYPE}\n \t\n2024-01-15T00:00:03.731Z|action=a\0b|src=x|zone=dmz|at=1\r\nlast"),
        );
        place.site.run(&["--into", &place.url, "logs", "--chunk-size", "64KiB"]);
        place
    }

    fn empty() -> Self {
        let database = Postgres::shared().database();
        let url = database.url();
        Self { site: Site::new(), database, url }
    }

    fn export_command<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["archive", "export", "--from", &self.url, "--output", "json"], more].concat()
    }

    fn export(&self, more: &[&str]) -> serde_json::Value {
        serde_json::from_str(&self.site.ok(&self.export_command(more))).unwrap()
    }

    fn days_left(&self) -> u64 {
        let leaves =
            "SELECT count(*) FROM pg_class WHERE relispartition AND relkind = 'r' AND relname !~ 'default'";
        self.database.sql(leaves).trim().parse().unwrap()
    }

    /// Both places account for every line, and the archive gives the files back.
    fn expect_whole(&self) {
        self.site.ok(&["verify", "--count", "--content", "--into", &self.url, "logs"]);
        self.site.verify(&["logs"]);
        self.site.expect_folder_restored("logs");
    }
}

#[test]
fn days_move_to_the_archive_and_every_answer_stays_the_same() {
    let place = Place::filled();
    let answers = |from: &str| -> Vec<String> {
        let mut files: Vec<_> = std::fs::read_dir(repository("sql/queries")).unwrap().flatten().collect();
        files.retain(|file| file.path().is_file());
        files.sort_by_key(std::fs::DirEntry::file_name);
        let answer = |file: &std::fs::DirEntry| {
            let file = file.path();
            place.site.ok(&["query", "--from", from, "--output", "csv", "-f", file.to_str().unwrap()])
        };
        files.iter().map(answer).collect()
    };
    let expected = answers(&place.url);

    let plan = place.site.ok(&place.export_command(&["--dry-run"]));
    assert!(plan.contains("\"2024-01-15\"") && !place.site.at("pipeline-data/archive").exists());
    let before = place.days_left();
    assert_eq!(before, 6);
    let report = place.export(&[]);
    assert_eq!((report["written_rows"].as_u64(), place.days_left()), (Some(160_001), before));
    place.expect_whole();

    let report = place.export(&["--drop"]);
    assert_eq!((report["written_chunks"].as_u64(), place.days_left()), (Some(0), 0));
    let dropped = report["days"].as_array().unwrap().iter().map(|day| day["dropped_rows"].as_u64().unwrap());
    assert_eq!(dropped.sum::<u64>(), 160_001);
    assert_eq!(place.database.sql("SELECT count(*) FROM logs"), "0");
    place.expect_whole();
    assert_eq!(answers("pipeline-data/archive"), expected);
    // what was read already is not read again, here or there
    assert_eq!(place.site.run(&["--into", &place.url, "logs"]).lines, 0);
    assert_eq!(place.export(&["--drop"])["days"].as_array().unwrap().len(), 0);
}

#[test]
fn what_the_archive_holds_is_proven_and_not_written_again() {
    let place = Place::empty();
    place.site.write("logs/a.log", numbered_lines(0, 3000));
    place.site.run(&[
        "--into",
        &place.url,
        "--into",
        "pipeline-data/archive",
        "logs",
        "--chunk-size",
        "16KiB",
    ]);
    let report = place.export(&["--drop"]);
    assert_eq!(report["written_chunks"], 0);
    assert!(report["proven_chunks"].as_u64().unwrap() > 10);
    place.expect_whole();
}

#[test]
fn what_the_archive_holds_in_other_cuts_is_completed() {
    let place = Place::empty();
    place.site.write("logs/a.log", numbered_lines(0, 1000));
    place.site.run(&["logs", "--chunk-size", "10000B"]);
    place.site.append("logs/a.log", numbered_lines(1000, 2000));
    place.site.run(&["--into", &place.url, "logs", "--chunk-size", "16KiB"]);
    let report = place.export(&["--drop"]);
    assert_eq!(report["written_rows"], 2000);
    assert_eq!(place.days_left(), 0);
    place.expect_whole();
}

#[test]
fn what_a_replay_decoded_anew_stays_for_the_archive_has_it_otherwise() {
    let place = Place::empty();
    let log_type = "name = \"door\"\nlines = [\"{timestamp} door={door}\"]\n[columns]\n\
                    timestamp = { type = \"timestamp\" }\ndoor = { type = \"string\" }\n";
    let lines: String = (0..100).map(|n| format!("2024-01-15T00:00:03Z door={n}\n")).collect();
    for (name, cut) in [("same", "16KiB"), ("other", "1000B")] {
        place.site.write(&format!("{name}/a.log"), format!("{}{lines}", numbered_lines(0, 100)));
        place.site.run(&[name, "--chunk-size", "16KiB"]);
        place.site.run(&[name, "--into", &place.url, "--chunk-size", cut]);
    }
    place.site.write("types/door.toml", log_type);
    let with_door = |command: &[&str]| place.site.ok(&[command, &["--log-types", "types"]].concat());
    with_door(&["rejects", "replay", "--into", &place.url]);
    assert_eq!(place.database.sql("SELECT count(*) FROM door_logs"), "200");
    let ended = place.site.end(&place.export_command(&["--drop"])).expect_code(1);
    let errors = ended.errors();
    assert!(errors[0].contains("100 door") && errors[0].contains("100 rejects"), "{errors:?}");
    assert_eq!(place.database.sql("SELECT count(*) FROM door_logs"), "200");
    // an archive that got its rows from there has them as they are there
    place.export(&["--drop", "--archive", "new"]);
    assert_eq!(place.days_left(), 0);
    let count =
        with_door(&["query", "--from", "new", "SELECT count(*) AS n FROM door_logs", "--output", "csv"]);
    assert_eq!(count, "n\n200\n");
}

#[test]
fn a_part_is_decoded_by_the_types_in_the_order_in_which_they_are_tried() {
    let place = Place::empty();
    // behind `firewall` by name, but a site's types come first
    let log_type = "name = \"zfw\"\nlines = [\"{timestamp}|action=allow|src={src}|{rest*}\"]\n[columns]\n\
                    timestamp = { type = \"timestamp\" }\nsrc = { type = \"ip\" }\nrest = { type = \"string\" }\n";
    place.site.write("types/zfw.toml", log_type);
    let lines: Vec<_> = numbered_lines(0, 1000).lines().map(str::to_owned).collect();
    let other = |(n, line): (usize, &String)| match n % 3 {
        0 => line.replace("action=drop", "action=allow") + "\n",
        _ => format!("{line}\n"),
    };
    let lines: String = lines.iter().enumerate().map(other).collect();
    let border = lines.len() / 3 + lines[lines.len() / 3..].find('\n').unwrap() + 1;
    place.site.write("logs/a.log", &lines[..border]);
    let types = ["--log-types", "types"];
    place.site.run(&[&["logs", "--chunk-size", "7000B"], &types[..]].concat());
    place.site.write("logs/a.log", &lines);
    place.site.run(&[&["logs", "--into", &place.url, "--chunk-size", "16KiB"], &types[..]].concat());
    let rows = "SELECT (SELECT count(*) FROM zfw_logs) || ' ' || (SELECT count(*) FROM firewall_logs)";
    let before = place.database.sql(rows);
    assert!(!before.starts_with("0 "), "{before}");
    place.site.ok(&[&place.export_command(&["--drop"])[..], &types].concat());
    assert_eq!(place.database.sql(rows), "0 0");
    let sql = "SELECT (SELECT count(*) FROM zfw_logs) || ' ' || (SELECT count(*) FROM firewall_logs) AS n";
    let after = place.site.ok(&[&["query", sql, "--output", "csv"], &types[..]].concat());
    assert_eq!(after, format!("n\n{before}\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_without_a_leaf_get_one_and_a_long_reader_is_not_waited_for() {
    let place = Place::empty();
    let line = |day: usize| {
        numbered_lines(0, 1).replace("2024-01-15", &format!("2024-{:02}-{:02}", 1 + day / 28, 1 + day % 28))
    };
    // more days than one commit makes leaves for
    place.site.write("logs/a.log", (0..100).map(line).collect::<String>());
    place.site.run(&["--into", &place.url, "logs"]);
    assert_eq!(place.database.sql("SELECT count(*) FROM firewall_logs_default"), "36");
    let command = place.export_command(&["--drop"]);
    let reader = connect(&place.url).await;
    reader.batch_execute("BEGIN; SELECT count(*) FROM firewall_logs").await.unwrap();
    let ended = place.site.end(&command).expect_code(1);
    assert!(ended.errors().iter().any(|error| error.contains("in use; run again")), "{}", ended.stderr);
    reader.batch_execute("COMMIT").await.unwrap();
    place.export(&["--drop"]);
    assert_eq!(place.database.sql("SELECT count(*) FROM firewall_logs"), "0");
    assert_eq!(place.site.number("SELECT count(*) FROM firewall_logs"), 100);
    place.expect_whole();
}

#[test]
fn a_schema_or_an_archive_is_not_made_for_nothing() {
    let place = Place::empty();
    place.site.error(3, &place.export_command(&["--schema", "typo", "--drop"]));
    let schemas = "SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'typo'";
    assert_eq!(place.database.sql(schemas), "0");
    assert!(!place.site.at("pipeline-data/archive").exists());
}

#[test]
fn a_day_with_rows_that_nobody_accounts_for_stays() {
    let place = Place::empty();
    place.site.write("logs/a.log", numbered_lines(0, 100));
    place.site.run(&["--into", &place.url, "logs"]);
    place.database.sql("INSERT INTO firewall_logs (timestamp, chunk_id, line, form) SELECT timestamp, 5, 1, 0 FROM firewall_logs LIMIT 1");
    let ended = place.site.end(&place.export_command(&["--drop"])).expect_code(1);
    assert!(ended.errors()[0].contains("chunk 5"), "{}", ended.stderr);
    assert_eq!(place.database.sql("SELECT count(*) FROM firewall_logs"), "101");

    place.database.sql("DELETE FROM firewall_logs WHERE chunk_id = 5; UPDATE firewall_logs SET bytes_sent = 1 WHERE bytes_sent = 7");
    std::fs::remove_dir_all(place.site.at("pipeline-data")).unwrap();
    let ended = place.site.end(&place.export_command(&["--drop"])).expect_code(1);
    assert!(ended.errors()[0].contains("do not come back from postgres"), "{}", ended.stderr);
    assert_eq!(place.database.sql("SELECT count(*) FROM firewall_logs"), "100");
}

#[test]
fn an_export_that_is_killed_loses_nothing_and_doubles_nothing() {
    let place = Place::filled();
    let mut chaos = Chaos::new();
    // one that is left alone says how long it takes
    let started = std::time::Instant::now();
    place.site.ok(&place.export_command(&["--archive", "whole"]));
    let longest = started.elapsed() + Duration::from_millis(100);
    for _ in 0..num_kills() {
        let time = chaos.time_within(longest);
        place.site.start(&place.export_command(&["--drop"])).kill_after(time);
    }
    place.export(&["--drop"]);
    assert_eq!(place.days_left(), 0);
    place.expect_whole();
    let rows = place.site.number("SELECT count(*) FROM logs");
    assert_eq!(rows, 160_001);
}
