//! A child process whose CPU time and peak memory are known when it has ended.
//!
//! From `/proc`, where there is one: `getrusage` of a child also counts what its parent held when it was forked.
//! Deliberately absent: `wait` before the figures of the ended process are read, for it takes them away.
use std::fs;
use std::io::Read;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::BenchError;

/// Ticks of `/proc/PID/stat` in a second: `USER_HZ`, which Linux keeps at this for programs.
const TICKS_PER_SECOND: f64 = 100.0;

/// What a process used, as far as the system tells.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ProcessUse {
    /// The command.
    pub command: String,
    /// User and system time.
    pub cpu_seconds: Option<f64>,
    /// The most memory that was resident at once.
    pub peak_bytes: Option<u64>,
}

/// The exit code of this program after SIGTERM, when it drained.
const STOPPED: i32 = 143;

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Runs a command of this program to its end: what it used, and what it wrote to standard output.
pub async fn measure(command: &mut Command, name: &str) -> Result<(ProcessUse, String), BenchError> {
    let mut running = Measured::start(command, name)?;
    while !running.poll()? {
        tokio::time::sleep(LOOK).await;
    }
    running.finish()
}

/// Something is done for so long, and so often at least, to know its CPU: the system's clock of that ticks every 10 ms.
const REPEAT_FOR: Duration = Duration::from_millis(500);
const REPEAT_AT_LEAST: u32 = 3;

/// CPU seconds by `clock` that it takes to do something once.
pub(super) async fn mean_cpu_seconds(
    clock: impl Fn() -> Result<f64, BenchError>,
    ask: impl AsyncFn() -> Result<(), BenchError>,
) -> Result<f64, BenchError> {
    let (mut rounds, started, before) = (0, Instant::now(), clock()?);
    while rounds < REPEAT_AT_LEAST || started.elapsed() < REPEAT_FOR {
        ask().await?;
        rounds += 1;
    }
    Ok((clock()? - before) / f64::from(rounds))
}

/// What it wrote to standard output and to standard error.
type Output = (JoinHandle<Vec<u8>>, JoinHandle<Vec<u8>>);

/// A command of this program that runs; killed when dropped.
pub(super) struct Measured {
    child: Child,
    used: ProcessUse,
    output: Option<Output>,
    ended: Option<ExitStatus>,
    /// Whether it was told to end: then the signal is no failure.
    is_stopped: bool,
}

impl Measured {
    /// Starts `command`; `name` is what it is called in the report.
    pub(super) fn start(command: &mut Command, name: &str) -> Result<Self, BenchError> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(BenchError::io(format!("start `pipeline {name}`")))?;
        // read as it comes, so that the program is never held up by a full pipe
        let output = child.stdout.take().map(collect).zip(child.stderr.take().map(collect));
        let used = ProcessUse { command: name.to_owned(), ..ProcessUse::default() };
        Ok(Self { child, used, output, ended: None, is_stopped: false })
    }

    /// Looks at it; whether it has ended. To be asked often: its memory is known only while it runs.
    pub(super) fn poll(&mut self) -> Result<bool, BenchError> {
        if self.ended.is_some() {
            return Ok(true);
        }
        let pid = self.child.id();
        self.used.peak_bytes = self.used.peak_bytes.max(peak_bytes(pid));
        let is_running = match ProcStat::read(pid) {
            Some(stat) => {
                self.used.cpu_seconds = Some(stat.own_cpu_seconds);
                // a zombie: it has ended, and its times are whole
                stat.state != 'Z'
            }
            None => true,
        };
        let operation = format!("wait for `pipeline {}`", self.used.command);
        self.ended = match is_running && self.used.cpu_seconds.is_some() {
            true => None,
            false => self.child.try_wait().map_err(BenchError::io(operation))?,
        };
        Ok(self.ended.is_some())
    }

    /// Tells it to end, as Ctrl-C or a supervisor would.
    #[expect(unsafe_code, reason = "the standard library only kills")]
    pub(super) fn stop(&mut self) {
        self.is_stopped = true;
        if let Ok(pid) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: no memory is involved; the child is not waited for yet, so that the number is still its own
            unsafe { libc::kill(pid, libc::SIGTERM) };
        }
    }

    /// What it used and what it wrote to standard output; an error if it failed. It must have ended.
    pub(super) fn finish(mut self) -> Result<(ProcessUse, String), BenchError> {
        let status = match self.ended {
            Some(status) => status,
            None => self.child.wait().map_err(BenchError::io("wait for a process"))?,
        };
        let (stdout, stderr) = self.output.take().map_or_else(Default::default, |(stdout, stderr)| {
            // a thread that only reads does not panic
            (stdout.join().unwrap_or_default(), stderr.join().unwrap_or_default())
        });
        let used = std::mem::take(&mut self.used);
        let is_told = self.is_stopped && status.code() == Some(STOPPED);
        if !status.success() && !is_told {
            let stderr = String::from_utf8_lossy(&stderr);
            let said = stderr.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            return Err(BenchError::Child { command: used.command, status: status.to_string(), said });
        }
        Ok((used, String::from_utf8_lossy(&stdout).into_owned()))
    }
}

impl Drop for Measured {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // it may have ended by itself
            let _ended = self.child.kill().and_then(|()| self.child.wait());
        }
    }
}

fn collect(mut from: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // what came before the pipe broke is what there is to show
        let _read = from.read_to_end(&mut bytes);
        bytes
    })
}

/// The line of `/proc/PID/stat`, as far as it is used.
pub(super) struct ProcStat {
    /// Name of the executable.
    pub(super) name: String,
    pub(super) state: char,
    pub(super) parent: u32,
    pub(super) own_cpu_seconds: f64,
    /// Of children that were waited for.
    pub(super) children_cpu_seconds: f64,
}

impl ProcStat {
    pub(super) fn read(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// `4242 (name, with anything) S 1 ..`: the name ends at the last parenthesis.
    fn parse(line: &str) -> Option<Self> {
        let (start, rest) = line.rsplit_once(')')?;
        let name = start.split_once('(')?.1.to_owned();
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // fields are numbered from 1 in proc(5), and the state is number 3
        let seconds = |number: usize| Some(fields.get(number - 3)?.parse::<f64>().ok()? / TICKS_PER_SECOND);
        Some(Self {
            name,
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            own_cpu_seconds: seconds(14)? + seconds(15)?,
            children_cpu_seconds: seconds(16)? + seconds(17)?,
        })
    }
}

fn peak_bytes(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_may_hold_blanks_and_parentheses() {
        let line = "42 (a) S (b)) Z 7 42 42 0 -1 4194304 1 2 3 4 150 50 1000 200 20 0 1 0 5 6";
        let stat = ProcStat::parse(line).unwrap();
        assert_eq!((stat.name.as_str(), stat.state, stat.parent), ("a) S (b)", 'Z', 7));
        assert_eq!((stat.own_cpu_seconds, stat.children_cpu_seconds), (2.0, 12.0));
    }
}
