//! What the tests share: a folder to work in, the program, and waiting for what it does.
//!
//! Deliberately absent: any knowledge of how the program works inside.
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Long enough for the slowest machine; reached only when something is broken.
const DEADLINE: Duration = Duration::from_secs(180);

/// One line of each built-in type, and one that no type accepts.
pub(crate) const FIREWALL_LINE: &str = "2024-01-15T00:00:03.731Z|action=reject|src=192.168.1.45|dst=10.51.194.72|proto=TCP|src_port=56374|dst_port=3306|bytes_sent=65009|rule=block_malware";
pub(crate) const DNS_LINE: &str =
    "2024-01-15T00:00:02.487Z client 192.168.1.246 query: github.com IN CNAME + (10.140.125.58) SERVFAIL";
pub(crate) const AUTH_LINE: &str = "2024-01-15T00:00:00.660Z auth-srv05 sshd[39933]: Accepted keyboard-interactive for unknown from 192.168.1.119 port 48032 ssh2";
pub(crate) const NO_TYPE: &str = "no log type takes this line";

/// The folder that a test works in; commands run there.
pub(crate) struct Site {
    folder: TempDir,
    variables: Vec<(String, String)>,
}

/// How a command ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Site {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    /// Sets a variable for every command from here on.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.into()));
    }

    pub(crate) fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.at(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().append(true).open(self.at(name)).unwrap();
        file.write_all(bytes.as_ref()).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        fs::read(self.at(name)).unwrap()
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).unwrap();
    }

    /// Standard data in `logs/logs_0000.log ..`.
    pub(crate) fn generate(&self, files: usize, lines_per_file: usize) {
        let (files, lines) = (files.to_string(), lines_per_file.to_string());
        self.ok(&["generate", "--out", "logs", "--files", &files, "--lines", &lines]);
    }

    /// The program in this folder, deaf to the variables of whoever runs the tests.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipeline"));
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            let theirs = ["PIPELINE_", "PG", "REDIS_", "LOG_DIR", "RUST_LOG", "AWS_"];
            if theirs.iter().any(|start| name.to_string_lossy().starts_with(start)) {
                command.env_remove(name);
            }
        }
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    pub(crate) fn end<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Ended {
        Ended::of(self.command(arguments).output().unwrap())
    }

    /// Standard output of a command that must succeed.
    pub(crate) fn ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> String {
        self.end(arguments).expect_code(0).stdout
    }

    /// The one-line error of a command that must fail with this code.
    pub(crate) fn error<S: AsRef<OsStr>>(&self, code: i32, arguments: &[S]) -> String {
        let ended = self.end(arguments).expect_code(code);
        let error = ended.only_error();
        assert_eq!(ended.stdout, "", "an error leaves nothing on standard output");
        error
    }

    /// The counts of a `run` that must succeed.
    pub(crate) fn run(&self, arguments: &[&str]) -> Counts {
        let all = [&["run", "--output", "json"], arguments].concat();
        Counts::of(&self.ok(&all))
    }

    /// The counts of a `run` that is fed `input` as standard input.
    pub(crate) fn run_fed(&self, arguments: &[&str], input: &[u8]) -> Counts {
        let all = [&["run", "--output", "json"], arguments].concat();
        Counts::of(&self.feed(&all, input).expect_code(0).stdout)
    }

    /// Feeds `input` to a command.
    pub(crate) fn feed(&self, arguments: &[&str], input: &[u8]) -> Ended {
        let mut running = Running::start(self.command(arguments).stdin(Stdio::piped()));
        let mut stdin = running.stdin();
        thread::scope(|scope| {
            // a program that ends before it took all of it is judged by how it ended
            scope.spawn(move || stdin.write_all(input).map_or((), drop));
            running.wait()
        })
    }

    pub(crate) fn start<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// The result of a statement, as CSV.
    pub(crate) fn query(&self, sql: &str) -> String {
        self.ok(&["query", "--output", "csv", sql])
    }

    /// The one number that a statement gives.
    pub(crate) fn number(&self, sql: &str) -> u64 {
        let csv = self.query(sql);
        csv.lines().nth(1).and_then(|line| line.parse().ok()).unwrap_or_else(|| panic!("{sql}: {csv}"))
    }

    /// Committed lines: what the ledger says. 0 where there is no archive yet.
    pub(crate) fn committed_lines(&self) -> u64 {
        let ended = self.end(&["verify", "--output", "json"]);
        if ended.code == Some(3) {
            return 0;
        }
        let reports: Value = serde_json::from_str(&ended.expect_code(0).stdout).unwrap();
        let sources = reports[0]["sources"].as_array().unwrap();
        sources.iter().map(|source| source["lines"].as_u64().unwrap()).sum()
    }

    /// Waits until so many lines are committed. Every look is a command of its own, so that none is a busy one.
    pub(crate) fn wait_for_lines(&self, lines: u64) {
        let started = Instant::now();
        let mut committed = 0;
        while started.elapsed() < DEADLINE {
            committed = self.committed_lines();
            if committed >= lines {
                break;
            }
        }
        assert_eq!(committed, lines, "lines committed");
    }

    /// Every check that `verify` has must pass.
    pub(crate) fn verify(&self, paths: &[&str]) {
        self.ok(&[&["verify", "--count", "--content"], paths].concat());
    }

    /// Restores everything to a new folder: bytes by relative path.
    pub(crate) fn restore(&self) -> BTreeMap<String, Vec<u8>> {
        self.restore_of(&[])
    }

    /// The same with these flags.
    pub(crate) fn restore_of(&self, flags: &[&str]) -> BTreeMap<String, Vec<u8>> {
        let out = tempfile::tempdir_in(self.folder.path()).unwrap();
        self.ok(&[&["archive", "restore", "--out", out.path().to_str().unwrap()], flags].concat());
        let mut files = BTreeMap::new();
        read_folder(out.path(), out.path(), &mut files);
        files
    }

    /// What is restored must be these files, byte for byte.
    pub(crate) fn expect_restored<N: AsRef<str>, B: AsRef<[u8]>>(&self, expected: &[(N, B)]) {
        let restored = self.restore();
        let names: Vec<_> = expected.iter().map(|(name, _)| name.as_ref()).collect();
        assert_eq!(restored.keys().collect::<Vec<_>>(), names);
        for (name, bytes) in expected {
            let name = name.as_ref();
            assert!(restored[name] == bytes.as_ref(), "{name} came back with other bytes");
        }
    }

    /// What is restored must be the files in `folder`.
    pub(crate) fn expect_folder_restored(&self, folder: &str) {
        let mut files = BTreeMap::new();
        read_folder(&self.at(folder), &self.at(folder), &mut files);
        self.expect_restored(&files.into_iter().collect::<Vec<_>>());
    }
}

fn read_folder(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read_folder(root, &path, files);
        } else {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.insert(name, fs::read(&path).unwrap());
        }
    }
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    pub(crate) fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "exit code; stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Lines of standard error that are errors, each checked for its form.
    #[track_caller]
    pub(crate) fn errors(&self) -> Vec<String> {
        let errors: Vec<_> = self.stderr.lines().filter_map(|line| line.strip_prefix("error: ")).collect();
        for error in &errors {
            let first = error.chars().next().unwrap();
            assert!(!first.is_uppercase(), "an error starts in lower case: {error}");
            assert!(!error.ends_with('.'), "an error ends without a full stop: {error}");
        }
        errors.into_iter().map(str::to_owned).collect()
    }

    /// The error, where standard error must hold nothing else.
    #[track_caller]
    pub(crate) fn only_error(&self) -> String {
        let [error] = <[String; 1]>::try_from(self.errors()).unwrap_or_else(|_| panic!("{}", self.stderr));
        assert_eq!(self.stderr, format!("error: {error}\n"), "one line");
        error
    }
}

/// What `run --output json` says.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) lines: u64,
    pub(crate) rows: BTreeMap<String, u64>,
    pub(crate) rejects: u64,
    pub(crate) blanks: u64,
}

impl Counts {
    #[track_caller]
    pub(crate) fn of(json: &str) -> Self {
        let summary: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
        let count = |name: &str| summary[name].as_u64().unwrap();
        let rows = summary["rows"].as_object().unwrap();
        let counts = Self {
            lines: count("lines"),
            rows: rows.iter().map(|(name, rows)| (name.clone(), rows.as_u64().unwrap())).collect(),
            rejects: count("rejects"),
            blanks: count("blanks"),
        };
        let accounted = counts.rows.values().sum::<u64>() + counts.rejects + counts.blanks;
        assert_eq!(accounted, counts.lines, "lines = rows + rejects + blanks: {json}");
        counts
    }
}

/// A program that runs; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stdout: Option<Receiver<String>>,
    stderr: Receiver<String>,
    seen: String,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = Some(lines(child.stdout.take().unwrap()));
        let stderr = lines(child.stderr.take().unwrap());
        Self { child, stdout, stderr, seen: String::new() }
    }

    pub(crate) fn stdin(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// What follows `start` in the first line of standard error that begins so.
    pub(crate) fn announced(&mut self, start: &str) -> String {
        loop {
            let line = self.stderr.recv_timeout(DEADLINE);
            let line = line.unwrap_or_else(|_| panic!("no line begins with {start:?}: {}", self.seen));
            self.seen.push_str(&line);
            if let Some(rest) = line.strip_prefix(start) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Whether it ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill -s {name}");
    }

    pub(crate) fn wait(mut self) -> Ended {
        let stdout: String = self.stdout.take().unwrap().iter().collect();
        self.seen.extend(self.stderr.iter());
        let status = self.child.wait().unwrap();
        Ended { code: status.code(), stdout, stderr: std::mem::take(&mut self.seen) }
    }

    /// `kill -9` after this time. Returns the exit status where the program ended by itself before.
    pub(crate) fn kill_after(mut self, time: Duration) -> Option<ExitStatus> {
        let deadline = Instant::now() + time;
        let stdout = self.stdout.take().unwrap();
        loop {
            match stdout.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return Some(self.child.wait().unwrap()),
                Err(RecvTimeoutError::Timeout) => break,
            }
        }
        self.child.kill().unwrap();
        let status = self.child.wait().unwrap();
        status.code().is_some().then_some(status)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // it may have ended by itself
        let _ended = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Lines as they come, from a thread of their own so that the program is never held up by a full pipe.
fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                break;
            }
            line.clear();
        }
    });
    receiver
}

/// Python with what `make venv` installs.
pub(crate) fn python(script: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python =
        std::env::var_os("PIPELINE_PYTHON").map_or(root.join("target/venv/bin/python"), PathBuf::from);
    assert!(
        python.exists(),
        "{} is missing: run `make venv` first, or name a Python that has tests/reference/requirements.txt in PIPELINE_PYTHON",
        python.display()
    );
    let mut command = Command::new(python);
    command.arg(root.join("tests/reference").join(script));
    command
}

/// Standard output of a command that must succeed.
#[track_caller]
pub(crate) fn output(command: &mut Command) -> String {
    Ended::of(command.output().unwrap()).expect_code(0).stdout
}

/// A file of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// `count` firewall lines, all different: `bytes_sent` counts from `first`.
pub(crate) fn numbered_lines(first: usize, count: usize) -> String {
    let mut text = String::new();
    for number in first..first + count {
        let second = number % 60;
        writeln!(
            text,
            "2024-01-15T00:00:{second:02}.000Z|action=drop|src=192.168.1.45|dst=10.0.0.1|proto=TCP|src_port=1024|dst_port=22|bytes_sent={number}|rule=ssh_admin"
        )
        .unwrap();
    }
    text
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
