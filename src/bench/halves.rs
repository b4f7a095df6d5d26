//! Reader and processor in processes of their own, into Postgres and an archive: the shares of CPU that each takes.
use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::BenchError;
use super::process::{Measured, ProcessUse};

/// How often the processes are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What to run. Everything it writes but Postgres is in `folder`, which is removed when this is dropped.
#[derive(Debug)]
pub struct HalvesRun {
    /// This program.
    pub program: PathBuf,
    /// What to read.
    pub paths: Vec<PathBuf>,
    /// URL of Redis, and a stream that nobody else uses.
    pub via: String,
    /// The stream.
    pub stream: String,
    /// URL of the database.
    pub into: String,
    /// An empty schema in it.
    pub schema: String,
    /// A folder of its own, which it makes.
    pub folder: PathBuf,
    /// Other arguments of both.
    pub common: Vec<OsString>,
    /// Other arguments of `read`.
    pub read: Vec<OsString>,
    /// Other arguments of `process`.
    pub process: Vec<OsString>,
}

/// What the two used.
#[derive(Debug, Clone)]
pub struct HalvesUse {
    /// `read`.
    pub read: ProcessUse,
    /// `process`.
    pub process: ProcessUse,
}

impl HalvesRun {
    /// Where the archive is.
    pub fn archive(&self) -> PathBuf {
        self.folder.join("archive")
    }

    /// Runs both until everything is committed in both places.
    pub async fn measure(&self) -> Result<HalvesUse, BenchError> {
        fs::create_dir_all(&self.folder)
            .map_err(BenchError::io(format!("create {}", self.folder.display())))?;
        let mut process = Measured::start(&mut self.process_command()?, "process")?;
        let mut read = Measured::start(&mut self.read_command(), "read")?;
        while !read.poll()? {
            if process.poll()? {
                // it says why
                process.finish()?;
                return Err(BenchError::Ended { command: "process" });
            }
            tokio::time::sleep(LOOK).await;
        }
        // everything is committed: that is when a reader ends
        let read = read.finish()?.0;
        process.stop();
        while !process.poll()? {
            tokio::time::sleep(LOOK).await;
        }
        Ok(HalvesUse { read, process: process.finish()?.0 })
    }

    fn read_command(&self) -> Command {
        let mut read = Command::new(&self.program);
        read.arg("read").args(&self.common).args(&self.read).args(["--stream", &self.stream]);
        read.env("PIPELINE_VIA", &self.via).arg("--").args(&self.paths);
        read
    }

    fn process_command(&self) -> Result<Command, BenchError> {
        let settings = self.folder.join("pipeline.toml");
        let into = [&self.into, &*self.archive().to_string_lossy()].map(toml::Value::from);
        let table = toml::Table::from_iter([("into".to_owned(), toml::Value::from(into.to_vec()))]);
        let text = toml::Table::from_iter([("process".to_owned(), toml::Value::from(table))]).to_string();
        // in a file of ours alone: a URL may hold a password, and everybody sees command lines
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&settings);
        file.and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(BenchError::io(format!("write {}", settings.display())))?;
        let mut process = Command::new(&self.program);
        process.arg("process").args(&self.common).args(&self.process);
        process.args(["--stream", &self.stream, "--schema", &self.schema]);
        process.env("PIPELINE_CONFIG", settings).env("PIPELINE_VIA", &self.via).env_remove("PIPELINE_INTO");
        Ok(process)
    }
}

impl Drop for HalvesRun {
    fn drop(&mut self) {
        // a folder of temporary files that stays is no reason to fail
        let _removed = fs::remove_dir_all(&self.folder);
    }
}
