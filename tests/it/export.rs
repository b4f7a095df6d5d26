//! Days that move from Postgres to an archive: nothing lost, nothing twice, whatever is killed, whoever was first.
use std::time::Duration;

use super::exactly_once::{Chaos, num_kills};
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
    let questions = || -> Vec<String> {
        let mut files: Vec<_> = std::fs::read_dir(repository("sql/queries")).unwrap().flatten().collect();
        files.retain(|file| file.path().is_file());
        files.sort_by_key(std::fs::DirEntry::file_name);
        files.iter().map(|file| std::fs::read_to_string(file.path()).unwrap()).collect()
    };
    // an archive that was filled from the files answers as the one that was filled from Postgres must
    place.site.run(&["--into", "from-files", "logs"]);
    let expected: Vec<String> = questions()
        .iter()
        .map(|sql| place.site.ok(&["query", "--from", "from-files", "--output", "csv", sql]))
        .collect();

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
    let found: Vec<String> = questions().iter().map(|sql| place.site.query(sql)).collect();
    assert_eq!(found, expected);
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
