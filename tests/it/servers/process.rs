//! A server that cannot outlive the tests, whatever ends them.
//!
//! Between the test and the server stands a shell that waits for the end of its standard input. The test process
//! holds the other end of that pipe, so that even `kill -9` of it, which runs no destructor, closes the pipe:
//! the shell then kills the server and removes its folder. (A parent-death signal would come when the *thread*
//! that started the server ends, which every test's does.) All processes of a server hold its output pipe: its
//! end means that the last one is gone.
//!
//! Deliberately absent: any search for servers. Only what was started here is ever ended.
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Long enough for the slowest machine; reached only when something is broken.
pub(super) const DEADLINE: Duration = Duration::from_secs(60);

/// `sh -c WATCH sh FOLDER SIGNAL PROGRAM ARG..`. The word `keep` instead of the end of input leaves the folder.
const WATCH: &str = r#"
folder=$1 signal=$2
shift 2
"$@" </dev/null 2>&1 &
server=$!
echo "server-pid $server"
exec >/dev/null 2>&1
read -r word
kill -s "$signal" $server
kill -s CONT $server
(sleep 10; kill -s KILL $server) &
last_resort=$!
wait $server
kill $last_resort
if [ "$word" != keep ]; then
  umount "$folder/small"
  rm -rf "$folder"
fi
"#;

/// A running server, ended when dropped.
#[derive(Debug)]
pub(super) struct Process {
    watchdog: Child,
    stdin: ChildStdin,
    /// In a mutex only so that a server can be shared between threads.
    output: Mutex<Receiver<String>>,
    pub(super) pid: u32,
    seen: Vec<String>,
}

impl Process {
    /// Starts the command that `arguments` are, and waits until it prints `ready`. `Err` is what it printed when
    /// it ended before. `signal` is what ends it without leaving anything behind.
    pub(super) fn start(
        folder: &Path,
        signal: &str,
        arguments: &[String],
        ready: &str,
    ) -> Result<Self, String> {
        let mut watchdog = Command::new("sh")
            .args(["-c", WATCH, "sh"])
            .arg(folder)
            .arg(signal)
            .args(arguments)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for the tests; the watchdog has to outlive them a little
            .process_group(0)
            .spawn()
            .unwrap();
        let stdin = watchdog.stdin.take().unwrap();
        let from = BufReader::new(watchdog.stdout.take().unwrap());
        let (sender, output) = channel();
        thread::spawn(move || {
            for line in from.split(b'\n').map_while(Result::ok) {
                // nobody has to read on
                let _heard = sender.send(String::from_utf8_lossy(&line).into_owned());
            }
        });
        let mut process = Self { watchdog, stdin, output: Mutex::new(output), pid: 0, seen: Vec::new() };
        let pid = process.wait_for_line("server-pid ").map_err(|()| process.said())?;
        process.pid = pid.rsplit(' ').next().unwrap().parse().unwrap();
        match process.wait_for_line(ready) {
            Ok(_) => Ok(process),
            Err(()) => Err(process.said()),
        }
    }

    /// The next line of output that holds `text`; `Err` when the server ended.
    pub(super) fn wait_for_line(&mut self, text: &str) -> Result<String, ()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self
                .output
                .get_mut()
                .unwrap()
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    let found = line.contains(text).then(|| line.clone());
                    self.seen.push(line);
                    if let Some(line) = found {
                        return Ok(line);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err(()),
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?} in {DEADLINE:?}: {}", self.said()),
            }
        }
    }

    fn said(&self) -> String {
        self.seen.join("\n")
    }

    /// Sends a signal by its name. The server's id cannot have gone to another process: the shell keeps it.
    pub(super) fn signal(&self, name: &str) {
        let status = Command::new("kill").args(["-s", name, &self.pid.to_string()]).status().unwrap();
        assert!(status.success(), "kill -s {name}");
    }

    /// Waits until the last process of the server is gone.
    pub(super) fn wait(&mut self) {
        while self.wait_for_line("\n").is_ok() {}
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // where the watchdog is gone, so is the server
        let _told = self.stdin.write_all(b"keep\n").and_then(|()| self.stdin.flush());
        let _ended = self.watchdog.wait();
        while self.output.get_mut().unwrap().recv_timeout(DEADLINE).is_ok() {}
    }
}

/// A folder for a server's files that the server's own user can reach.
pub(super) fn folder() -> TempDir {
    tempfile::Builder::new().prefix("pipeline-test-").tempdir().unwrap()
}

/// A port that nobody listens on, below those that the system gives to outgoing connections: a server that is
/// stopped for a while finds its port free again.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    const FIRST: u16 = 15_000;
    const COUNT: u16 = 17_000;
    let start = u16::try_from(std::process::id() * 37 % u32::from(COUNT)).unwrap();
    loop {
        let offset = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + (start + offset % COUNT) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// Starts a server on a free port; on another one when somebody took it in between.
pub(super) fn on_free_port<T>(start: impl Fn(u16) -> Result<T, String>) -> T {
    let mut last = String::new();
    for _ in 0..5 {
        match start(free_port()) {
            Ok(server) => return server,
            Err(said) => last = said,
        }
    }
    panic!("a server does not start: {last}");
}

/// Whether a process runs; one that ended and was not waited for does not.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

/// The folder of a program that must be installed.
pub(super) fn program(name: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{name} is missing: apt-get install {package}, or run `.ci/run`"))
}

/// Waits until `is_so`, looking a few times in a second.
#[track_caller]
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < DEADLINE, "waited {DEADLINE:?} until {what}");
        thread::park_timeout(Duration::from_millis(20));
    }
}

/// `openssl` in a folder.
fn openssl(folder: &Path, arguments: &[&str]) {
    let openssl = program("openssl", "openssl");
    let output = Command::new(openssl).args(arguments).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// `ca.crt`, and `server.crt` with `server.key` for localhost and 127.0.0.1, signed by it.
pub(crate) fn make_certificates(folder: &Path) {
    let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let ca = ["req", "-x509", "-days", "2", "-subj", "/CN=tests", "-keyout", "ca.key", "-out", "ca.crt"];
    openssl(folder, &[&ca[..], &key].concat());
    let request = ["req", "-subj", "/CN=localhost", "-keyout", "server.key", "-out", "server.csr"];
    openssl(folder, &[&request[..], &key].concat());
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
    let sign = ["x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial"];
    openssl(folder, &[&sign[..], &["-days", "2", "-extfile", "names", "-out", "server.crt"]].concat());
}
