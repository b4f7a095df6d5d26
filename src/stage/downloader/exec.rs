//! Any program as a stage: the file's path and the item's JSON on standard input, its standard output is the result.
//!
//! The command is the shell's, with the path as `$1` too. It runs in a process group of its own, so that Ctrl-C lets it
//! finish, a second one ends it, and a timeout ends all that it started. What it leaves running is killed when it ends.
//! What it prints is bounded; an exit code other than 0 fails the item with the last line of standard error.
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};

use super::builtin::blocking;
use super::stages::{FetchedFile, ItemReport, PostProcessor, PreProcessor, Processor, StageError, Status};
use crate::stage::groups::Group;
use crate::stage::shutdown::Shutdown;

/// Of a program's output, so much is kept.
const MAX_OUTPUT_BYTES: u64 = 1 << 20;
/// How often it is looked whether the program has ended.
const LOOK: (Duration, Duration) = (Duration::from_millis(2), Duration::from_millis(100));

/// Runs a command for each file.
#[derive(Debug, Clone)]
pub struct Exec {
    command: String,
    timeout: Duration,
    shutdown: Shutdown,
}

impl Exec {
    /// `command` is the shell's; it is killed after `timeout`.
    pub fn new(command: impl Into<String>, timeout: Duration) -> Self {
        Self { command: command.into(), timeout, shutdown: Shutdown::new() }
    }

    /// A second signal, which ends the process at once, ends the command too.
    #[must_use]
    pub fn with_shutdown(self, shutdown: Shutdown) -> Self {
        Self { shutdown, ..self }
    }

    /// Runs it; returns what it printed.
    async fn run(&self, path: Option<&Path>, input: Value) -> Result<Value, StageError> {
        let mut command = Command::new("sh");
        command.arg("-c").arg(&self.command).arg("sh").args(path);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (mut child, group) = self
            .shutdown
            .groups()
            .spawn(&mut command)
            .map_err(|error| StageError::new(format!("the command cannot be started: {error}")))?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut input = serde_json::to_vec(&input)?;
        input.push(b'\n');
        // a program need not read its input
        let fed = blocking(move || Ok(stdin.map(|mut stdin| stdin.write_all(&input).is_ok())));
        let printed = blocking(move || Ok(read_bounded(stdout)));
        let complained = blocking(move || Ok(read_bounded(stderr)));
        let mut running = Running { child, group };
        // who holds the streams may not be of the group
        let all = async { tokio::join!(running.ended(), fed, printed, complained) };
        let (status, _, printed, complained) =
            tokio::time::timeout(self.timeout, all).await.map_err(|_| {
                StageError::new(format!(
                    "the command was killed after {:?}; give it longer by --exec-timeout",
                    self.timeout
                ))
            })?;
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

/// A program; killed with all that it started when dropped.
struct Running {
    child: Child,
    group: Group,
}

impl Running {
    async fn ended(&mut self) -> Result<ExitStatus, StageError> {
        let mut pause = LOOK.0;
        loop {
            if let Some(status) = self.child.try_wait()? {
                // what it left behind may hold its output open
                self.group.kill();
                return Ok(status);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK.1);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.group.kill();
        // without it a zombie stays
        let _waited = self.child.wait();
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
