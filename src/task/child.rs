//! This same program as a child process, so that a job that crashes or is cancelled harms nobody.
//!
//! One thread per child starts it, reads what it says, and waits for its end: the kernel kills the child when that
//! thread ends, and so when this process is killed. Otherwise a killed worker's job would run on beside the second
//! attempt of its task.
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc as std_mpsc;
use std::thread;

use tokio::sync::{mpsc, oneshot};

use super::{TaskContext, TaskFailure};

/// Lines of a child that wait to be kept; it waits for room.
const QUEUE_LEN: usize = 1000;
/// More of standard output is no result, but an error.
const MAX_OUTPUT: u64 = 64 << 20;
/// A line is kept up to this length.
const MAX_LINE: u64 = 16 << 10;

/// How a child ended.
#[derive(Debug)]
pub(super) struct ChildEnd {
    /// `None` where a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    /// The last line that begins with `error: `, without that.
    pub(super) error: Option<String>,
}

enum Event {
    Stop,
    Output(io::Result<String>),
    ErrorsRead(Option<String>),
}

/// Kills the child when dropped.
struct StopOnDrop(std_mpsc::Sender<Event>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        // it may have ended
        let _heard = self.0.send(Event::Stop);
    }
}

/// Runs `pipeline ARGUMENTS..`; its standard error becomes lines of the task.
pub(super) async fn run(
    context: &TaskContext,
    arguments: Vec<String>,
    input: String,
) -> Result<ChildEnd, TaskFailure> {
    let program = std::env::current_exe()?;
    let log_types = context.registry.log_types().map(Path::to_owned);
    let (lines, said) = mpsc::channel(QUEUE_LEN);
    let (ended, end) = oneshot::channel();
    let (events, inbox) = std_mpsc::channel();
    let stop = StopOnDrop(events.clone());
    thread::Builder::new().name("child".to_owned()).spawn(move || {
        let mut command = Command::new(program);
        command.args(&arguments);
        if let Some(folder) = log_types {
            command.env("PIPELINE_LOG_TYPES", folder);
        }
        // who asked may have gone
        let _heard = ended.send(live_and_die(command, input, lines, events, &inbox));
    })?;
    let (kept, end) = tokio::join!(context.log_all(said), end);
    kept?;
    drop(stop);
    match end? {
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            Err(TaskFailure::Permanent(error.to_string()))
        }
        end => Ok(end?),
    }
}

fn live_and_die(
    mut command: Command,
    input: String,
    lines: mpsc::Sender<String>,
    events: std_mpsc::Sender<Event>,
    inbox: &std_mpsc::Receiver<Event>,
) -> io::Result<ChildEnd> {
    die_with_this_thread(&mut command);
    // a metrics address is the worker's own; a key press at the terminal is for the worker too
    command.env("PIPELINE_METRICS_ADDR", "none");
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    if let Some(mut stdin) = child.stdin.take() {
        // a child that does not read all of it says why
        thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    }
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let of_output = events.clone();
    thread::spawn(move || {
        let mut text = Vec::new();
        let read = stdout.map_or(Ok(0), |stdout| stdout.take(MAX_OUTPUT + 1).read_to_end(&mut text));
        let text = match read {
            Ok(_) if text.len() as u64 > MAX_OUTPUT => Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "it printed more than 64 MiB; narrow it, or add a LIMIT to its SQL",
            )),
            read => read.map(|_| String::from_utf8_lossy(&text).into_owned()),
        };
        drop(of_output.send(Event::Output(text)));
    });
    thread::spawn(move || drop(events.send(Event::ErrorsRead(forward(stderr, &lines)))));
    let (mut output, mut error) = (None, None);
    while output.is_none() || error.is_none() {
        match inbox.recv() {
            Ok(Event::Output(text)) => output = Some(text),
            Ok(Event::ErrorsRead(last)) => error = Some(last),
            Ok(Event::Stop) | Err(_) => return kill(child),
        }
    }
    let status = child.wait()?;
    Ok(ChildEnd {
        code: status.code(),
        stdout: output.transpose()?.unwrap_or_default(),
        error: error.flatten(),
    })
}

fn kill(mut child: Child) -> io::Result<ChildEnd> {
    child.kill()?;
    child.wait()?;
    Ok(ChildEnd { code: None, stdout: String::new(), error: None })
}

/// Hands on the lines; the last one that is an error.
fn forward(stderr: Option<impl Read>, lines: &mpsc::Sender<String>) -> Option<String> {
    let mut stderr = BufReader::new(stderr?);
    let mut last_error = None;
    let mut line = Vec::new();
    while stderr.by_ref().take(MAX_LINE).read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        if let Some(error) = text.strip_prefix("error: ") {
            last_error = Some(error.to_owned());
        }
        // nobody listens any more when the task is stopped
        let _heard = lines.blocking_send(text);
        line.clear();
    }
    last_error
}

#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "there is no safe interface to a child's death signal")]
fn die_with_this_thread(command: &mut Command) {
    use std::os::unix::process::CommandExt;
    // SAFETY: between fork and exec only prctl runs, which takes no lock and no memory.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
}

#[cfg(not(target_os = "linux"))]
fn die_with_this_thread(_: &mut Command) {}
