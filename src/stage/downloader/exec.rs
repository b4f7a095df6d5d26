//! Any program as a stage: the file's path and the item's JSON on standard input, its standard output is the result.
//!
//! The command is the shell's, with the path as `$1` too. It runs in a process group of its own, so that Ctrl-C lets it
//! finish and a timeout ends all that it started. What it prints is bounded; an exit code other than 0 fails the item
//! with the last line of standard error.
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Value, json};

use super::builtin::blocking;
use super::stages::{FetchedFile, ItemReport, PostProcessor, PreProcessor, Processor, StageError, Status};

/// Of a program's output, so much is kept.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;
/// How often it is looked whether the program has ended.
const LOOK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// Runs a command for each file.
#[derive(Debug, Clone)]
pub struct Exec {
    command: String,
    timeout: Duration,
}

impl Exec {
    /// `command` is the shell's; it is killed after `timeout`.
    pub fn new(command: impl Into<String>, timeout: Duration) -> Self {
        Self { command: command.into(), timeout }
    }

    /// Runs it; returns what it printed.
    async fn run(&self, path: Option<&Path>, input: Value) -> Result<Value, StageError> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).arg("sh").args(path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command
            .spawn()
            .map_err(|error| StageError::new(format!("the command cannot be started: {error}")))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut input = serde_json::to_vec(&input)?;
        input.push(b'\n');
        // a program need not read its input
        let fed = blocking(move || Ok(stdin.map(|mut stdin| stdin.write_all(&input).is_ok())));
        let printed = blocking(move || Ok(read_bounded(stdout)));
        let complained = blocking(move || Ok(read_bounded(stderr)));
        let streams = async { tokio::join!(fed, printed, complained) };
        let mut running = Running { child, timeout: self.timeout, ended: false };
        let (status, (_, printed, complained)) = tokio::join!(running.ended(), streams);
        let (status, printed, complained) = (status?, printed?, complained?);
        if !status.success() {
            let said = String::from_utf8_lossy(&complained);
            let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
            let how = match status.code() {
                Some(code) => format!("the command exited with {code}"),
                None => "the command was killed".to_owned(),
            };
            return Err(StageError::new(match last.trim() {
                "" => how,
                last => format!("{how}: {last}"),
            }));
        }
        let text = String::from_utf8_lossy(&printed).trim().to_owned();
        Ok(match serde_json::from_str(&text) {
            Ok(value) => value,
            Err(_) if text.is_empty() => Value::Null,
            Err(_) => Value::String(text),
        })
    }
}

/// Reads to the end, and keeps the beginning.
fn read_bounded(from: Option<impl Read>) -> Vec<u8> {
    let Some(mut from) = from else { return Vec::new() };
    let mut kept = Vec::new();
    // what was printed until an error is what there is
    let _read = (&mut from).take(MAX_OUTPUT_BYTES).read_to_end(&mut kept);
    let _rest = io::copy(&mut from, &mut io::sink());
    kept
}

/// A program; killed with all that it started when dropped or late.
struct Running {
    child: Child,
    timeout: Duration,
    ended: bool,
}

impl Running {
    async fn ended(&mut self) -> Result<ExitStatus, StageError> {
        let (started, mut pause) = (Instant::now(), LOOK.0);
        loop {
            if let Some(status) = self.child.try_wait()? {
                self.ended = true;
                return Ok(status);
            }
            if started.elapsed() >= self.timeout {
                self.kill();
                return Err(StageError::new(format!(
                    "the command was killed after {:?}; give it longer by --exec-timeout",
                    self.timeout
                )));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK.1);
        }
    }

    fn kill(&mut self) {
        self.ended = true;
        let group = format!("-{}", self.child.id());
        // it may have ended by itself
        let _killed = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _waited = self.child.kill().and_then(|()| self.child.wait());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.kill();
        }
    }
}

fn input_of(file: &FetchedFile) -> Value {
    json!({ "path": file.path, "files": file.files, "size": file.size, "item": file.item.to_json() })
}

#[async_trait]
impl PreProcessor for Exec {
    /// An object that the command prints is added to the item's fields.
    async fn pre_process(&mut self, file: &mut FetchedFile) -> Result<(), StageError> {
        let result = self.run(file.files.first().map(AsRef::as_ref), input_of(file)).await?;
        if let Value::Object(fields) = result {
            file.item.fields.extend(fields);
        }
        Ok(())
    }
}

#[async_trait]
impl Processor for Exec {
    async fn process(&mut self, file: &mut FetchedFile) -> Result<Value, StageError> {
        self.run(file.files.first().map(AsRef::as_ref), input_of(file)).await
    }
}

#[async_trait]
impl PostProcessor for Exec {
    /// Runs for what was done or failed in this run.
    async fn post_process(
        &mut self,
        report: &mut ItemReport,
        file: Option<&FetchedFile>,
    ) -> Result<(), StageError> {
        if !matches!(report.status, Status::Done | Status::Failed) {
            return Ok(());
        }
        let mut input = file.map_or_else(|| json!({}), input_of);
        input["report"] = serde_json::to_value(&*report)?;
        self.run(file.and_then(|file| file.files.first()).map(AsRef::as_ref), input).await?;
        Ok(())
    }
}
