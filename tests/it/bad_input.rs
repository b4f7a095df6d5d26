//! Bad input and bad places: a one-line error with the remedy, the right exit code, nothing half-written, and
//! what was committed before stays.
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::support::{Ended, Running, Site, gzip, numbered_lines, python};

/// What each may hold at most: DESIGN gives 300 MiB to any job.
const PEAK_MIB: u64 = 300;

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// The command as a user whom permissions bind: root's own pass is taken away.
fn bound_by_permissions(site: &Site, arguments: &[&str]) -> Ended {
    let inner = site.command(arguments);
    if !is_root() {
        return Running::start(&mut site.command(arguments)).wait();
    }
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-dac_override,-dac_read_search", "--"]);
    command.arg(inner.get_program()).args(inner.get_args()).current_dir(inner.get_current_dir().unwrap());
    Running::start(&mut command).wait()
}

fn set_mode(path: PathBuf, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_path_that_stands_for_nothing_is_named_with_the_remedy() {
    let site = Site::new();
    fs::create_dir_all(site.at("empty")).unwrap();
    fs::create_dir_all(site.at("folder.log")).unwrap();
    site.write("file.log", numbered_lines(0, 1));
    for (path, expected) in [
        ("missing.log", "missing.log does not exist; check the path"),
        ("file.log/below.log", "cannot find file.log/below.log"),
        ("empty", "empty holds no *.log"),
        ("folder.log", "folder.log holds no *.log"),
        ("*.gz", "no file matches *.gz"),
    ] {
        let error = site.error(1, &["run", path]);
        assert!(error.contains(expected), "{error}");
    }
    let error = site.error(1, &["run"]);
    assert!(error.contains("data/logs does not exist"), "{error}");
}

#[test]
fn one_bad_path_does_not_stop_the_others() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 10));
    site.write("logs/z.log", numbered_lines(10, 10));
    let ended = site.end(&["run", "logs/a.log", "missing.log", "logs/z.log"]).expect_code(1);
    assert!(ended.only_error().contains("missing.log does not exist"));
    assert_eq!(site.committed_lines(), 20);
}

#[test]
fn an_unreadable_file_is_named_and_the_others_land() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 10));
    site.write("logs/secret.log", numbered_lines(10, 10));
    set_mode(site.at("logs/secret.log"), 0o000);
    let ended = bound_by_permissions(&site, &["run", "logs"]).expect_code(1);
    let error = ended.only_error();
    assert!(error.contains("secret.log") && error.contains("permission"), "{error}");
    assert_eq!(site.committed_lines(), 10);
    set_mode(site.at("logs/secret.log"), 0o600);
    assert_eq!(site.run(&["logs"]).lines, 10);
}

#[test]
fn of_a_damaged_gzip_the_whole_lines_before_the_damage_are_kept() {
    let site = Site::new();
    site.generate(1, 20_000);
    let text = site.read("logs/logs_0000.log");
    let whole = gzip(&text);
    site.write("logs/cut.log.gz", &whole[..whole.len() / 2]);
    let mut flipped = whole.clone();
    let middle = flipped.len() / 2;
    flipped[middle..middle + 64].fill(0xff);
    site.write("logs/flipped.log.gz", &flipped);
    site.write("logs/not.log.gz", "this is no gzip at all\n");
    let ended = site.end(&["run", "logs"]).expect_code(1);
    let errors = ended.errors();
    for name in ["cut.log.gz", "flipped.log.gz"] {
        assert!(errors.iter().any(|error| error.contains(name) && error.contains("damaged")), "{errors:?}");
    }
    site.verify(&[]);
    let restored = site.restore();
    assert!(restored["logs_0000.log"] == text);
    for name in ["cut.log", "flipped.log"] {
        let kept = &restored[name];
        assert!(text.starts_with(kept) && kept.ends_with(b"\n") && kept.len() > text.len() / 4, "{name}");
    }

    site.write("logs/cut.log.gz", &whole);
    site.write("logs/flipped.log.gz", &whole);
    fs::remove_file(site.at("logs/not.log.gz")).unwrap();
    assert!(site.run(&["logs"]).lines > 0, "mended files are read");
    site.verify(&["logs"]);
}

#[test]
fn a_binary_file_is_rejects_and_comes_back() {
    let site = Site::new();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let bytes: Vec<u8> = (0..300_000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    site.write("logs/a.log", &bytes);
    let counts = site.run(&["logs"]);
    assert_eq!(counts.rows.values().sum::<u64>(), 0);
    assert!(counts.rejects > 500, "{counts:?}");
    site.verify(&["logs"]);
    site.expect_restored(&[("a.log", bytes)]);
}

/// Feeds one line of `mib` MiB; the program must stay within its memory, and keep the line.
fn feed_one_line(mib: u64) {
    let site = Site::new();
    let run = site.command(&["run", "-", "--output", "json"]);
    let mut command = python("peak_memory.py");
    command.arg(run.get_program()).args(run.get_args()).current_dir(site.at(""));
    let mut running = Running::start(command.stdin(Stdio::piped()));
    let mut stdin = running.stdin();
    for number in 0..mib {
        stdin.write_all(&[b'a' + (number % 26) as u8; 1 << 20]).unwrap();
    }
    drop(stdin);
    let ended = running.wait().expect_code(0);
    let (summary, peak_kib) = ended.stdout.trim().rsplit_once('\n').unwrap();
    let summary: serde_json::Value = serde_json::from_str(summary).unwrap();
    assert_eq!((&summary["lines"], &summary["rejects"]), (&1.into(), &1.into()));
    assert_eq!(summary["input_bytes"], mib << 20);
    let peak_mib = peak_kib.parse::<u64>().unwrap() >> 10;
    assert!(peak_mib < PEAK_MIB, "{peak_mib} MiB at the peak");
    site.ok(&["verify", "--count", "--content"]);
}

#[test]
fn a_line_of_64_mib_is_kept_in_bounded_memory() {
    feed_one_line(64);
}

#[test]
#[ignore = "takes minutes: make chaos"]
fn a_line_of_2_gib_is_kept_in_bounded_memory() {
    feed_one_line(2048);
}

#[test]
fn a_type_file_with_an_error_is_named_with_its_line() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 1));
    site.write(
        "types/proxy.toml",
        "name  = \"proxy\"\ntable = \"proxy_logs\"\nlines = [\"{timestamp} {host}\"\n",
    );
    let error = site.error(3, &["run", "logs", "--log-types", "types"]);
    assert!(error.contains("types/proxy.toml") && error.contains("line "), "{error}");
    site.write(
        "types/proxy.toml",
        "name  = \"proxy\"\ntable = \"proxy_logs\"\nlines = [\"{timestamp} {host}\"]\n[columns]\ntimestamp = { type = \"timestamp\" }\nhost = { type = \"text\" }\n",
    );
    let error = site.error(3, &["run", "logs", "--log-types", "types"]);
    assert!(error.contains("types/proxy.toml") && error.contains("host"), "{error}");
    let error = site.error(3, &["run", "logs", "--log-types", "no-such-folder"]);
    assert!(error.contains("no-such-folder"), "{error}");
    assert!(!site.at("pipeline-data").exists(), "nothing is written before the types are read");
}

/// A small disk of its own, gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: PathBuf) -> Option<Self> {
        fs::create_dir_all(&path).unwrap();
        let mounted = mount(&path, "size=1m");
        mounted.then_some(Self(path))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // lazily: a program that still holds a file of it must not keep the folder from being removed
        let _unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn mount(path: &Path, options: &str) -> bool {
    let mut command = Command::new("mount");
    let command = command.args(["-t", "tmpfs", "-o", options, "none"]).arg(path).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn a_full_disk_is_named_and_the_run_is_completed_when_there_is_room() {
    let site = Site::new();
    let Some(disk) = SmallDisk::mount(site.at("pipeline-data")) else {
        println!("skipped: mounting a small disk is not permitted here");
        return;
    };
    site.write("logs/first.log", numbered_lines(0, 100));
    site.run(&["logs"]);
    site.generate(3, 50_000);
    for _ in 0..2 {
        let error = site.error(4, &["run", "logs"]);
        assert!(error.contains("the disk is full; free space and run again"), "{error}");
        assert_eq!(site.committed_lines(), 100);
    }
    assert!(mount(&disk.0, "remount,size=64m"));
    assert_eq!(site.run(&["logs"]).lines, 150_000);
    site.verify(&["logs"]);
}

#[test]
fn an_archive_that_cannot_be_written_is_named_and_stays_readable() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 10));
    site.run(&["logs"]);
    site.append("logs/a.log", numbered_lines(10, 10));
    let set_modes = |folder_mode| {
        let folders =
            Command::new("find").args(["pipeline-data", "-type", "d"]).current_dir(site.at("")).output();
        let folders = String::from_utf8(folders.unwrap().stdout).unwrap();
        folders.lines().for_each(|folder| set_mode(site.at(folder), folder_mode));
    };
    set_modes(0o555);
    let ended = bound_by_permissions(&site, &["run", "logs"]).expect_code(4);
    let error = ended.only_error();
    assert!(error.contains("pipeline-data/archive") && error.contains("not permitted"), "{error}");
    assert_eq!(bound_by_permissions(&site, &["query", "SELECT 1 AS one"]).code, Some(0));
    set_modes(0o755);
    assert_eq!(site.run(&["logs"]).lines, 10);
    site.verify(&["logs"]);
}

#[test]
fn a_file_where_the_archive_should_be_is_left_alone() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 1));
    site.write("taken", "mine");
    for arguments in [
        &["run", "logs", "--into", "taken"][..],
        &["query", "SELECT 1", "--from", "taken"],
        &["verify", "--into", "taken"],
        &["archive", "list", "--archive", "taken"],
    ] {
        let error = site.error(3, arguments);
        assert!(error.contains("taken is a file; name a folder"), "{error}");
    }
    assert_eq!(site.read("taken"), b"mine");
}

#[test]
fn where_there_is_no_archive_nothing_makes_one_but_run() {
    let site = Site::new();
    for arguments in [
        &["query", "SELECT 1"][..],
        &["verify"],
        &["archive", "list"],
        &["archive", "restore", "--out", "out"],
    ] {
        let error = site.error(3, arguments);
        assert!(error.contains("no archive at") && error.contains("pipeline run"), "{error}");
    }
    assert_eq!(fs::read_dir(site.at("")).unwrap().count(), 0);
}

#[test]
fn sql_that_cannot_run_is_one_line_that_says_what_to_do() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 5));
    site.run(&["logs"]);
    for (sql, expected) in [
        ("SELECT * FROM nope", "there are auth_logs, blanks, chunks, dns_logs, firewall_logs, logs, rejects"),
        ("SELECT nope FROM dns_logs", "nope"),
        ("SELEC 1", "SELEC"),
        ("SELECT * FROM dns_logs WHERE", "sql"),
        ("DROP TABLE dns_logs", "refused: DROP TABLE dns_logs"),
        ("INSERT INTO dns_logs SELECT * FROM dns_logs", "refused"),
        ("SELECT 1; DELETE FROM dns_logs", "refused"),
        ("COPY dns_logs TO 'out.csv'", "refused"),
        ("", "no SQL in the query; give a SELECT"),
    ] {
        let error = site.error(1, &["query", sql]);
        assert!(error.to_lowercase().contains(&expected.to_lowercase()), "{sql}: {error}");
        assert!(!error.contains("ParserError("), "{error}");
    }
    let error = site.error(1, &["query", "-f", "missing.sql"]);
    assert!(error.contains("missing.sql"), "{error}");
}

#[test]
fn wrong_usage_is_one_line_and_exit_2() {
    let site = Site::new();
    for (arguments, expected) in [
        (&["run", "--nope"][..], "--nope"),
        (&["runn"], "runn"),
        (&["run", "--chunk-size", "0"], "a size from 1B to 1GiB"),
        (&["run", "--flush-interval", "soon"], "a time such as 500ms"),
        (&["run", "--workers", "0"], "--workers"),
        (&["archive", "restore"], "--out"),
    ] {
        let error = site.error(2, arguments);
        assert!(error.contains(expected) && error.contains("--help"), "{error}");
    }
}

#[test]
fn wrong_settings_are_one_line_and_exit_3() {
    let site = Site::new();
    site.write("pipeline.toml", "chunk-size = [\n");
    let error = site.error(3, &["run"]);
    assert!(error.starts_with("pipeline.toml: line "), "{error}");
    site.write("pipeline.toml", "[run]\nchunk-sise = 1\n");
    let error = site.error(3, &["run"]);
    assert!(error.starts_with("pipeline.toml: chunk-sise"), "{error}");
}

#[test]
fn a_value_that_is_refused_is_named_with_the_place_where_it_was_set() {
    let mut site = Site::new();
    for settings in ["chunk-size = \"foo\"\n", "[run]\nchunk-size = \"foo\"\n"] {
        site.write("pipeline.toml", settings);
        let error = site.error(3, &["run"]);
        assert!(error.starts_with("pipeline.toml: chunk-size: invalid value 'foo'"), "{error}");
    }
    let error = site.error(2, &["run", "--chunk-size", "bar"]);
    assert!(error.starts_with("invalid value 'bar'"), "{error}");
    site.set("PIPELINE_CHUNK_SIZE", "foo");
    let error = site.error(2, &["run"]);
    assert!(error.starts_with("variable PIPELINE_CHUNK_SIZE: invalid value 'foo'"), "{error}");
}

#[test]
fn a_reader_that_goes_away_ends_completions_quietly() {
    let site = Site::new();
    let mut command = site.command(&["completions", "bash"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ended = Ended::of(child.wait_with_output().unwrap()).expect_code(0);
    assert_eq!(ended.stderr, "");
}

#[test]
fn generate_does_not_overwrite_and_says_how_to() {
    let site = Site::new();
    site.generate(1, 10);
    let before = site.read("logs/logs_0000.log");
    let error = site.error(1, &["generate", "--out", "logs", "--files", "1", "--lines", "20"]);
    assert!(error.contains("logs_0000.log") && error.contains("--force"), "{error}");
    assert_eq!(site.read("logs/logs_0000.log"), before);
    let error = site.error(1, &["generate", "--out", "other", "--types", "nope"]);
    assert!(error.contains("nope") && error.contains("auth, dns, firewall"), "{error}");
}

#[test]
fn a_damaged_compressed_file_that_is_replaced_by_a_good_copy_is_read_again() {
    let site = Site::new();
    let text = numbered_lines(0, 30_000);
    let good = gzip(text.as_bytes());
    // damaged in the middle: what comes out from there on is not what was packed
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 0x10;
    site.write("logs/a.log.gz", &bad);
    site.end(&["run", "logs"]).expect_code(1);
    let before = site.committed_lines();
    site.write("logs/a.log.gz", &good);
    site.end(&["run", "logs"]).expect_code(0);
    assert!(site.committed_lines() >= before, "nothing committed is taken back");
    let restored = site.restore();
    assert!(restored.values().any(|bytes| bytes == text.as_bytes()), "the good copy is all there");
}

#[test]
fn tables_without_their_ledger_are_not_written_to() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 10));
    site.run(&["logs"]);
    std::fs::remove_dir_all(site.at("pipeline-data/archive/chunks")).unwrap();
    site.write("logs/b.log", numbered_lines(10, 10));
    let error = site.error(1, &["run", "logs"]);
    assert!(error.contains("the ledger `chunks` is gone"), "{error}");
}

#[test]
fn a_missing_path_leaves_no_archive_behind() {
    let site = Site::new();
    site.error(1, &["run", "nowhere.log"]);
    assert!(!site.at("pipeline-data").exists());
}
