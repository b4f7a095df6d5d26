//! The task log: a JSON line for every start and end of a task, appended by any number of processes.
//!
//! A line is one write to a file opened for appending, so that lines of two processes never mix and a killed process
//! loses none that it wrote. A file that is full is renamed and kept. Deliberately absent: a queue that may drop lines,
//! and removal of old files.
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use super::{Task, TaskError};

/// Where it is unless told otherwise.
pub const DEFAULT_TASK_LOG: &str = "./pipeline-data/task_log.log";
/// A file is renamed when it has this many bytes.
const MAX_BYTES: u64 = 16 << 20;

/// An open log; clones share the file.
#[derive(Debug, Clone)]
pub struct TaskLog {
    path: PathBuf,
    max_bytes: u64,
    file: Arc<Mutex<Option<File>>>,
}

impl TaskLog {
    /// Of this file, which is made with its folder when the first line is written.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), max_bytes: MAX_BYTES, file: Arc::default() }
    }

    /// The same with another size at which a file is renamed.
    #[must_use]
    pub fn with_max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// What happened to a task: `event` is `start`, `end` or `lost`.
    pub(super) fn write(&self, event: &str, task: &Task, seconds: Option<f64>) -> Result<(), TaskError> {
        let line = json!({
            "time": chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            "event": event,
            "id": task.id,
            "name": task.name,
            "status": task.status,
            "attempt": task.attempt,
            "worker": task.worker,
            "start_time": task.start_time,
            "end_time": task.end_time,
            "seconds": seconds,
            "error": task.error,
        });
        let failed = |source| TaskError::Log { path: self.path.display().to_string(), source };
        self.append(format!("{line}\n").as_bytes()).map_err(failed)
    }

    fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut held = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = match held.take() {
            // another process may have renamed it
            Some(file) if is_at(&file, &self.path) => file,
            Some(_) | None => self.open()?,
        };
        if file.metadata()?.len() >= self.max_bytes {
            self.rename()?;
            file = self.open()?;
        }
        file.write_all(line)?;
        *held = Some(file);
        Ok(())
    }

    fn open(&self) -> io::Result<File> {
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder)?;
        }
        OpenOptions::new().create(true).append(true).open(&self.path)
    }

    /// One process at a time, and only if it is still full: who holds the renamed file open finishes its line there.
    fn rename(&self) -> io::Result<()> {
        let lock = OpenOptions::new().create(true).append(true).open(self.path.with_extension("lock"))?;
        lock.lock()?;
        if self.path.metadata().is_ok_and(|metadata| metadata.len() >= self.max_bytes) {
            let time = chrono::Utc::now().format("%Y%m%dT%H%M%S%.6f");
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{time}"));
            std::fs::rename(&self.path, name)?;
        }
        Ok(())
    }
}

fn is_at(file: &File, path: &Path) -> bool {
    let same = |one: &std::fs::Metadata, other: &std::fs::Metadata| {
        (one.dev(), one.ino()) == (other.dev(), other.ino())
    };
    matches!((file.metadata(), path.metadata()), (Ok(one), Ok(other)) if same(&one, &other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_lost_when_several_writers_rotate() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/task_log.log");
        std::thread::scope(|scope| {
            for writer in 0..4 {
                let log = TaskLog::new(&path).with_max_bytes(500);
                scope.spawn(move || {
                    for number in 0..200 {
                        log.append(format!("{writer} {number}\n").as_bytes()).unwrap();
                    }
                });
            }
        });
        let mut lines = Vec::new();
        let mut files = 0;
        for entry in std::fs::read_dir(path.parent().unwrap()).unwrap() {
            let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
            files += usize::from(!text.is_empty());
            lines.extend(text.lines().map(str::to_owned));
        }
        lines.sort();
        lines.dedup();
        assert_eq!(lines.len(), 800);
        assert!(files > 5, "{files} files");
    }
}
