//! `pipeline run`: what is read, what is not read twice, what is printed where.
use std::collections::BTreeMap;
use std::fs;

use super::support::{
    AUTH_LINE, Counts, DNS_LINE, FIREWALL_LINE, NO_TYPE, Site, gzip, numbered_lines, repository,
};

fn rows(of: &[(&str, u64)]) -> BTreeMap<String, u64> {
    of.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect()
}

/// What the lines of the generator are, by words that each type has and the others lack.
fn types_of(text: &str) -> BTreeMap<String, u64> {
    let count = |word| text.lines().filter(|line| line.contains(word)).count() as u64;
    rows(&[("auth", count(" sshd[")), ("dns", count(" query: ")), ("firewall", count("|action="))])
}

#[test]
fn every_generated_line_becomes_a_row_of_its_type_and_a_rerun_adds_nothing() {
    let site = Site::new();
    site.generate(3, 2000);
    let text: String = (0..3)
        .map(|file| String::from_utf8(site.read(&format!("logs/logs_000{file}.log"))).unwrap())
        .collect();
    let expected = Counts { lines: 6000, rows: types_of(&text), rejects: 0, blanks: 0 };
    assert_eq!(site.run(&["logs"]), expected);
    for (log_type, rows) in &expected.rows {
        assert_eq!(site.number(&format!("SELECT count(*) FROM {log_type}_logs")), *rows);
    }
    for chunk_size in ["1MiB", "1KiB", "777B", "64KiB"] {
        assert_eq!(site.run(&["logs", "--chunk-size", chunk_size]).lines, 0, "{chunk_size}");
    }
    site.verify(&["logs"]);
    site.expect_folder_restored("logs");
}

#[test]
fn lines_are_accounted_as_rows_rejects_and_blanks() {
    let site = Site::new();
    let text = format!("{FIREWALL_LINE}\r\n\n{NO_TYPE}\n \t \r\n  {AUTH_LINE}  \n{DNS_LINE}\n\r\n");
    site.write("logs/a.log", &text);
    let of = rows(&[("auth", 1), ("dns", 1), ("firewall", 1)]);
    assert_eq!(site.run(&["logs"]), Counts { lines: 7, rows: of, rejects: 1, blanks: 3 });
    assert_eq!(site.number("SELECT count(*) FROM rejects"), 1);
    site.expect_restored(&[("a.log", text)]);
}

#[test]
fn a_grown_file_gives_only_its_new_lines_whatever_the_chunk_size() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 50));
    assert_eq!(site.run(&["logs", "--chunk-size", "1KiB"]).lines, 50);
    site.append("logs/a.log", numbered_lines(50, 25));
    assert_eq!(site.run(&["logs", "--chunk-size", "300B"]).lines, 25);
    assert_eq!(site.run(&["logs"]).lines, 0);
    assert_eq!(site.number("SELECT count(DISTINCT bytes_sent) FROM firewall_logs"), 75);
    site.expect_restored(&[("a.log", numbered_lines(0, 75))]);
}

#[test]
fn a_rotated_file_is_read_on_under_its_new_name() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 50));
    assert_eq!(site.run(&["logs"]).lines, 50);
    site.append("logs/a.log", numbered_lines(50, 5));
    site.rename("logs/a.log", "logs/a.log.1");
    site.write("logs/a.log", numbered_lines(100, 10));
    assert_eq!(site.run(&["logs"]).lines, 15);
    assert_eq!(site.run(&["logs"]).lines, 0);
    assert_eq!(site.number("SELECT count(DISTINCT bytes_sent) FROM firewall_logs"), 65);
    site.verify(&["logs"]);
}

#[test]
fn a_renamed_file_adds_nothing_and_a_copy_is_another_file() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 50));
    assert_eq!(site.run(&["logs"]).lines, 50);
    site.rename("logs/a.log", "logs/b.log");
    assert_eq!(site.run(&["logs"]).lines, 0);
    fs::copy(site.at("logs/b.log"), site.at("logs/c.log")).unwrap();
    assert_eq!(site.run(&["logs"]).lines, 50);
    assert_eq!(site.run(&["logs"]).lines, 0);
    site.verify(&["logs"]);
}

#[test]
fn a_truncated_file_is_a_new_generation_and_the_old_one_stays() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 50));
    assert_eq!(site.run(&["logs"]).lines, 50);
    site.write("logs/a.log", numbered_lines(500, 20));
    assert_eq!(site.run(&["logs"]).lines, 20);
    assert_eq!(site.run(&["logs"]).lines, 0);
    let first = ("a.log", numbered_lines(0, 50));
    site.expect_restored(&[first, ("a.log.generation-1", numbered_lines(500, 20))]);
}

#[test]
fn a_last_line_that_is_completed_later_is_one_row_the_full_one() {
    let site = Site::new();
    let (start, rest) = FIREWALL_LINE.split_at(FIREWALL_LINE.len() - 6);
    site.write("logs/a.log", format!("{DNS_LINE}\n{start}"));
    site.run(&["logs"]);
    assert_eq!(site.query("SELECT rule FROM firewall_logs"), "rule\nblock_m\n");
    site.append("logs/a.log", format!("{rest}\n{AUTH_LINE}"));
    site.run(&["logs"]);
    assert_eq!(site.query("SELECT rule FROM firewall_logs"), "rule\nblock_malware\n");
    assert_eq!(site.run(&["logs"]).lines, 0);
    assert_eq!(site.committed_lines(), 3);
    site.verify(&["logs"]);
    site.expect_restored(&[("a.log", format!("{DNS_LINE}\n{FIREWALL_LINE}\n{AUTH_LINE}"))]);
}

#[test]
fn compressed_files_are_read_decompressed_and_come_back_so() {
    let site = Site::new();
    let texts: Vec<_> = (0..4).map(|file| numbered_lines(file * 100, 40 + file)).collect();
    site.write("logs/a.log.gz", gzip(texts[0].as_bytes()));
    site.write("logs/b.log.zst", zstd::encode_all(texts[1].as_bytes(), 1).unwrap());
    site.write("logs/c.log.gz", [gzip(texts[2].as_bytes()), gzip(texts[3].as_bytes())].concat());
    assert_eq!(site.run(&["logs", "--chunk-size", "2KiB"]).lines, 40 + 41 + 42 + 43);
    assert_eq!(site.run(&["logs"]).lines, 0);
    site.verify(&["logs"]);
    let third = format!("{}{}", texts[2], texts[3]);
    site.expect_restored(&[("a.log", &texts[0]), ("b.log", &texts[1]), ("c.log", &third)]);
}

#[test]
fn standard_input_is_new_each_time_unless_it_has_a_name() {
    let site = Site::new();
    let text = numbered_lines(0, 30);
    assert_eq!(site.run_fed(&["-"], text.as_bytes()).lines, 30);
    assert_eq!(site.run_fed(&["-"], text.as_bytes()).lines, 30);
    let named = ["-", "--source-name", "sensor-7"];
    assert_eq!(site.run_fed(&named, text.as_bytes()).lines, 30);
    assert_eq!(site.run_fed(&named, text.as_bytes()).lines, 0);
    let longer = numbered_lines(0, 45);
    assert_eq!(site.run_fed(&named, longer.as_bytes()).lines, 15);
    site.verify(&[]);
}

#[test]
fn paths_are_files_folders_and_globs_each_file_once() {
    let site = Site::new();
    for (index, name) in ["in/a.log", "in/b.log", "in/notes.txt", "deep/er/c.log", "d.txt"].iter().enumerate()
    {
        site.write(name, numbered_lines(index * 10, 10));
    }
    assert_eq!(site.run(&["in", "in/a.log", "in/*.log"]).lines, 20);
    assert_eq!(site.run(&["deep/**/*.log", "d.txt"]).lines, 20);
    assert_eq!(site.run(&["in/notes.txt", "in", "deep/er/c.log"]).lines, 10);
    assert_eq!(site.number("SELECT count(DISTINCT bytes_sent) FROM firewall_logs"), 50);
}

#[test]
fn an_over_long_line_is_one_reject_kept_whole() {
    let site = Site::new();
    let long = "x".repeat(64 << 10);
    let text = format!("{DNS_LINE}\n{long}\n{AUTH_LINE}\n");
    site.write("logs/a.log", &text);
    let counts = site.run(&["logs", "--max-line-bytes", "4KiB"]);
    assert_eq!((counts.lines, counts.rejects), (3, 1));
    assert_eq!(site.run(&["logs", "--max-line-bytes", "1KiB"]).lines, 0);
    site.verify(&["logs"]);
    site.expect_restored(&[("a.log", text)]);
}

#[test]
fn two_runs_at_once_into_one_archive_store_each_line_once() {
    let site = Site::new();
    site.generate(4, 10_000);
    let arguments = ["run", "logs", "--output", "json", "--chunk-size", "64KiB"];
    let both = [site.start(&arguments), site.start(&arguments)];
    let lines = both.map(|running| Counts::of(&running.wait().expect_code(0).stdout).lines);
    assert_eq!(lines.iter().sum::<u64>(), 40_000, "{lines:?}");
    site.verify(&["logs"]);
    site.expect_folder_restored("logs");
}

#[test]
fn rejects_fail_a_run_only_when_asked() {
    let site = Site::new();
    site.write("logs/a.log", format!("{DNS_LINE}\n{NO_TYPE}\n"));
    let ended = site.end(&["run", "logs", "--fail-on-rejects"]).expect_code(1);
    assert!(ended.stdout.contains("rejects                   1\n"), "{}", ended.stdout);
    assert_eq!(site.number("SELECT count(*) FROM rejects"), 1, "kept all the same");
    site.end(&["run", "logs", "--fail-on-rejects"]).expect_code(0);
}

#[test]
fn the_summary_is_on_standard_output_and_nothing_else_is() {
    let site = Site::new();
    site.write("logs/a.log", format!("{FIREWALL_LINE}\n{NO_TYPE}\n\n"));
    let ended = site.end(&["run", "logs"]).expect_code(0);
    assert_eq!(ended.stderr, "", "no bar and no colour in a pipe, no log without a reason");
    let first_words: Vec<_> = ended.stdout.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(first_words, ["firewall", "rejects", "blanks", "lines", "read", "stored", "took"]);
    assert!(!ended.stdout.contains('\x1b'), "{}", ended.stdout);

    site.append("logs/a.log", format!("{DNS_LINE}\n"));
    let ended = site.end(&["run", "logs", "-v"]).expect_code(0);
    assert!(ended.stderr.contains("committed") && !ended.stderr.contains('\x1b'), "{}", ended.stderr);
    assert!(ended.stdout.starts_with("dns "), "{}", ended.stdout);

    let ended = site.end(&["run", "logs", "--quiet"]).expect_code(0);
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), ("", ""));
    let json = site.end(&["run", "logs", "--output", "json", "--quiet"]).expect_code(0);
    assert_eq!(Counts::of(&json.stdout).lines, 0);
}

#[test]
fn logs_are_text_or_json_and_go_where_they_are_sent() {
    let site = Site::new();
    site.write("logs/a.log", format!("{DNS_LINE}\n"));
    let ended =
        site.end(&["run", "logs", "-v", "--log-format", "json", "--log-file", "log.json"]).expect_code(0);
    assert_eq!(ended.stderr, "");
    let log = String::from_utf8(site.read("log.json")).unwrap();
    let entries = log.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    assert!(entries.count() > 0, "{log}");
}

#[test]
fn a_flag_beats_a_variable_beats_the_file_beats_the_default() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 3));
    let archives = |site: &Site| {
        let names = ["pipeline-data/archive", "by-file", "by-variable", "by-flag"];
        names.map(|name| site.at(name).exists())
    };
    let run = |variable: bool, flag: bool| {
        let flag: &[&str] = if flag { &["--into", "by-flag"] } else { &[] };
        let mut command = site.command(&[&["run", "logs"], flag].concat());
        if variable {
            command.env("PIPELINE_INTO", "by-variable");
        }
        assert!(command.output().unwrap().status.success());
    };
    run(false, false);
    assert_eq!(archives(&site), [true, false, false, false]);
    site.write("pipeline.toml", "[run]\ninto = \"by-file\"\n");
    run(false, false);
    assert_eq!(archives(&site), [true, true, false, false]);
    run(true, false);
    assert_eq!(archives(&site), [true, true, true, false]);
    run(true, true);
    assert_eq!(archives(&site), [true; 4]);
}

#[test]
fn without_a_path_log_dir_is_read_or_else_data_logs() {
    let site = Site::new();
    site.write("data/logs/a.log", numbered_lines(0, 3));
    site.write("elsewhere/a.log", numbered_lines(0, 5));
    assert_eq!(site.run(&[]).lines, 3);
    let mut command = site.command(&["run", "--output", "json"]);
    let output = command.env("LOG_DIR", "elsewhere").output().unwrap();
    assert_eq!(Counts::of(&String::from_utf8(output.stdout).unwrap()).lines, 5);
}

#[test]
fn the_first_command_of_the_readme_works_anywhere() {
    let site = Site::new();
    let sample = repository("data/sample");
    let counts = site.run(&[sample.to_str().unwrap()]);
    assert!(counts.lines > 2000, "{counts:?}");
    let named: Vec<_> = counts.rows.keys().map(String::as_str).collect();
    assert_eq!(named, ["auth", "dns", "firewall"]);
    assert!(counts.rejects > 0 && counts.blanks > 0, "the sample shows both: {counts:?}");
    site.verify(&[sample.to_str().unwrap()]);
}
