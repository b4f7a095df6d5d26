//! `pipeline run --watch`: follows files until a signal, and takes up where it was.
use super::support::{Counts, Running, Site, numbered_lines};

const WATCH: [&str; 6] = ["run", "logs", "--watch", "--flush-interval", "50ms", "--quiet"];

fn json(site: &Site) -> Running {
    site.start(&[&WATCH[..], &["--output", "json"]].concat())
}

#[test]
fn appended_bytes_new_files_rotation_and_truncation_are_followed() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 10));
    let running = json(&site);
    site.wait_for_lines(10);
    site.append("logs/a.log", numbered_lines(10, 10));
    site.write("logs/b.log", numbered_lines(1000, 10));
    site.wait_for_lines(30);
    site.rename("logs/a.log", "logs/a.log.1");
    site.append("logs/a.log.1", numbered_lines(20, 5));
    site.write("logs/a.log", numbered_lines(100, 10));
    site.wait_for_lines(45);
    site.write("logs/b.log", numbered_lines(2000, 3));
    site.wait_for_lines(48);
    running.signal("INT");
    let ended = running.wait().expect_code(130);
    assert_eq!(Counts::of(&ended.stdout).lines, 48);
    assert_eq!(site.number("SELECT count(DISTINCT bytes_sent) FROM firewall_logs"), 48);
    site.verify(&["logs"]);
}

#[test]
fn what_was_taken_is_committed_before_a_signal_ends_it_and_a_resumed_watch_adds_the_rest_once() {
    let site = Site::new();
    site.write("logs/a.log", numbered_lines(0, 20));
    let running = json(&site);
    site.wait_for_lines(20);
    running.signal("TERM");
    assert_eq!(Counts::of(&running.wait().expect_code(143).stdout).lines, 20);

    site.append("logs/a.log", numbered_lines(20, 20));
    let running = json(&site);
    site.wait_for_lines(40);
    running.signal("INT");
    assert_eq!(Counts::of(&running.wait().expect_code(130).stdout).lines, 20);
    assert_eq!(site.run(&["logs"]).lines, 0);
    site.expect_restored(&[("a.log", numbered_lines(0, 40))]);
}

#[test]
fn a_line_is_taken_only_once_it_is_complete() {
    let site = Site::new();
    let line = numbered_lines(7, 1);
    let (start, rest) = line.split_at(line.len() - 10);
    site.write("logs/a.log", format!("{}{start}", numbered_lines(0, 5)));
    let running = json(&site);
    site.wait_for_lines(5);
    site.append("logs/a.log", rest);
    site.wait_for_lines(6);
    running.signal("INT");
    assert_eq!(Counts::of(&running.wait().expect_code(130).stdout).rejects, 0);
    site.expect_restored(&[("a.log", numbered_lines(0, 5) + &line)]);
}

#[test]
fn a_folder_may_be_empty_at_first_and_a_file_may_come_later() {
    let site = Site::new();
    std::fs::create_dir(site.at("logs")).unwrap();
    let running = json(&site);
    site.write("logs/.hidden.log", "");
    site.write("logs/late.log", numbered_lines(0, 4));
    site.wait_for_lines(4);
    running.signal("INT");
    running.wait().expect_code(130);
}

#[test]
fn a_signal_ends_a_run_that_waits_for_standard_input_and_commits_what_came() {
    use std::io::Write;
    let site = Site::new();
    let mut command = site.command(&["run", "-", "--output", "json", "--flush-interval", "20ms"]);
    let mut running = Running::start(command.stdin(std::process::Stdio::piped()));
    let mut stdin = running.stdin();
    stdin.write_all(numbered_lines(0, 12).as_bytes()).unwrap();
    site.wait_for_lines(12);
    running.signal("INT");
    let ended = running.wait().expect_code(130);
    drop(stdin);
    assert_eq!(Counts::of(&ended.stdout).lines, 12);
}
