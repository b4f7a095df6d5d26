//! The stages by name, as the command line gives them: `NAME` or `NAME:ARGUMENT`. A new one is one line here.
use std::fmt;
use std::fs::OpenOptions;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thiserror::Error;

use super::builtin::{Checksum, Decompress, Keep, ReportLines, SharedWriter};
use super::exec::Exec;
use super::ingest::Ingest;
use super::stages::{Nothing, PostProcessor, PreProcessor, Processor};
use crate::download::UnpackLimits;
use crate::stage::shutdown::Shutdown;

/// Which of the three traits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// [`PreProcessor`].
    Pre,
    /// [`Processor`].
    Process,
    /// [`PostProcessor`].
    Post,
}

/// A stage that can be named.
#[derive(Debug)]
pub struct Named {
    /// Which of the three it is.
    pub kind: Kind,
    /// Its name.
    pub name: &'static str,
    /// What its argument is called; `None` where it takes none.
    pub argument: Option<&'static str>,
    /// Whether it may go without.
    pub optional: bool,
    /// What it does.
    pub summary: &'static str,
}

const fn named(
    kind: Kind,
    name: &'static str,
    argument: Option<&'static str>,
    optional: bool,
    summary: &'static str,
) -> Named {
    Named { kind, name, argument, optional, summary }
}

/// All of them.
pub const NAMES: &[Named] = &[
    named(Kind::Pre, "none", None, false, "leaves the file as it is"),
    named(Kind::Pre, "decompress", None, false, "undoes gz, zst, zip and tar.gz"),
    named(Kind::Pre, "checksum", None, false, "adds the field sha256"),
    named(Kind::Pre, "exec", Some("COMMAND"), false, "a program; an object that it prints becomes fields"),
    named(Kind::Process, "none", None, false, "does nothing"),
    named(Kind::Process, "ingest", None, false, "runs the file through the log pipeline"),
    named(Kind::Process, "exec", Some("COMMAND"), false, "a program; what it prints is the result"),
    named(Kind::Post, "none", None, false, "does nothing"),
    named(Kind::Post, "report", Some("FILE"), true, "a JSON line for each item"),
    named(Kind::Post, "keep", Some("DIR"), false, "keeps the files in a folder"),
    named(Kind::Post, "exec", Some("COMMAND"), false, "a program, for each item at its end"),
];

/// A stage that cannot be had.
#[derive(Debug, Error)]
pub enum SpecError {
    /// No stage of that kind has the name.
    #[error("{given} is no {kind}; name one of {}", choices(*.kind))]
    Unknown {
        /// As given, without its argument.
        given: String,
        /// Which of the three.
        kind: Kind,
    },
    /// It takes an argument.
    #[error("{name} needs an argument; write {name}:{argument}")]
    Needs {
        /// The stage.
        name: &'static str,
        /// What its argument is called.
        argument: &'static str,
    },
    /// It takes none.
    #[error("{0} takes no argument; leave out what follows the colon")]
    TakesNone(&'static str),
    /// `ingest` without a place to write to.
    #[error("ingest needs a place to write to; name it by --into")]
    NoPlace,
    /// The file of `report` cannot be written.
    #[error("{path}: the report cannot be written; check the path")]
    Report {
        /// As given.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Pre => "pre-processor",
            Self::Process => "processor",
            Self::Post => "post-processor",
        })
    }
}

fn choices(kind: Kind) -> String {
    let of_kind = NAMES.iter().filter(|named| named.kind == kind);
    let choices = of_kind.map(|named| match (named.argument, named.optional) {
        (None, _) => named.name.to_owned(),
        (Some(argument), true) => format!("{}[:{argument}]", named.name),
        (Some(argument), false) => format!("{}:{argument}", named.name),
    });
    choices.collect::<Vec<_>>().join(", ")
}

/// What stages are built from.
pub struct StageParts {
    /// Where `ingest` writes.
    pub ingest: Option<Ingest>,
    /// What `decompress` may come to.
    pub limits: UnpackLimits,
    /// When `exec` is killed.
    pub exec_timeout: Duration,
    /// Where `report` writes without a file.
    pub out: SharedWriter,
    /// What ends commands of `exec` where it ends the process at once.
    pub shutdown: Shutdown,
}

type Make<T> = Arc<dyn Fn() -> Box<T> + Send + Sync>;

/// Makes the stages; each worker gets an instance of its own.
#[derive(Clone)]
pub struct Stages {
    pub(super) pre_processor: Make<dyn PreProcessor>,
    pub(super) processor: Make<dyn Processor>,
    pub(super) post_processor: Make<dyn PostProcessor>,
}

impl Default for Stages {
    fn default() -> Self {
        Self {
            pre_processor: Arc::new(|| Box::new(Nothing)),
            processor: Arc::new(|| Box::new(Nothing)),
            post_processor: Arc::new(|| Box::new(Nothing)),
        }
    }
}

impl Stages {
    /// By their names.
    pub fn parse(pre: &str, process: &str, post: &str, parts: StageParts) -> Result<Self, SpecError> {
        let StageParts { ingest, limits, exec_timeout, out, shutdown } = parts;
        let stages = Self::default();
        let stages = match split(Kind::Pre, pre)? {
            ("decompress", _) => stages.with_pre_processor(move || Box::new(Decompress { limits })),
            ("checksum", _) => stages.with_pre_processor(|| Box::new(Checksum)),
            ("exec", Some(command)) => {
                let exec = Exec::new(command, exec_timeout).with_shutdown(shutdown.clone());
                stages.with_pre_processor(move || Box::new(exec.clone()))
            }
            _ => stages,
        };
        let stages = match split(Kind::Process, process)? {
            ("ingest", _) => {
                let ingest = ingest.ok_or(SpecError::NoPlace)?;
                stages.with_processor(move || Box::new(ingest.clone()))
            }
            ("exec", Some(command)) => {
                let exec = Exec::new(command, exec_timeout).with_shutdown(shutdown.clone());
                stages.with_processor(move || Box::new(exec.clone()))
            }
            _ => stages,
        };
        Ok(match split(Kind::Post, post)? {
            ("report", None) => {
                stages.with_post_processor(move || Box::new(ReportLines::new(Arc::clone(&out))))
            }
            ("report", Some(path)) => {
                let file = OpenOptions::new().append(true).create(true).open(path);
                let file = file.map_err(|source| SpecError::Report { path: path.to_owned(), source })?;
                let out: SharedWriter = Arc::new(Mutex::new(file));
                stages.with_post_processor(move || Box::new(ReportLines::new(Arc::clone(&out))))
            }
            ("keep", Some(folder)) => {
                let keep = Keep::new(folder);
                stages.with_post_processor(move || Box::new(keep.clone()))
            }
            ("exec", Some(command)) => {
                let exec = Exec::new(command, exec_timeout).with_shutdown(shutdown.clone());
                stages.with_post_processor(move || Box::new(exec.clone()))
            }
            _ => stages,
        })
    }

    /// Another pre-processor.
    #[must_use]
    pub fn with_pre_processor(
        mut self,
        make: impl Fn() -> Box<dyn PreProcessor> + Send + Sync + 'static,
    ) -> Self {
        self.pre_processor = Arc::new(make);
        self
    }

    /// Another processor.
    #[must_use]
    pub fn with_processor(mut self, make: impl Fn() -> Box<dyn Processor> + Send + Sync + 'static) -> Self {
        self.processor = Arc::new(make);
        self
    }

    /// Another post-processor.
    #[must_use]
    pub fn with_post_processor(
        mut self,
        make: impl Fn() -> Box<dyn PostProcessor> + Send + Sync + 'static,
    ) -> Self {
        self.post_processor = Arc::new(make);
        self
    }
}

/// The stage's name and argument, checked against the registry.
pub(super) fn split(kind: Kind, given: &str) -> Result<(&'static str, Option<&str>), SpecError> {
    let (name, argument) = match given.split_once(':') {
        Some((name, argument)) => (name, Some(argument).filter(|argument| !argument.is_empty())),
        None => (given, None),
    };
    let found = NAMES.iter().find(|named| named.kind == kind && named.name == name);
    let Some(found) = found else { return Err(SpecError::Unknown { given: name.to_owned(), kind }) };
    match (found.argument, argument) {
        (None, Some(_)) => Err(SpecError::TakesNone(found.name)),
        (Some(needed), None) if !found.optional => {
            Err(SpecError::Needs { name: found.name, argument: needed })
        }
        _ => Ok((found.name, argument)),
    }
}

/// Whether a processor's name is `ingest`, so that the places it writes to are to be opened.
impl Stages {
    /// Whether this processor needs [`StageParts::ingest`].
    pub fn is_ingest(process: &str) -> Result<bool, SpecError> {
        Ok(split(Kind::Process, process)?.0 == "ingest")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_made_and_every_mistake_is_named() {
        for named in NAMES {
            let given = match named.argument {
                Some(_) => format!("{}:x:y", named.name),
                None => named.name.to_owned(),
            };
            let (name, argument) = split(named.kind, &given).unwrap();
            assert_eq!((name, argument), (named.name, named.argument.map(|_| "x:y")));
        }
        let error = split(Kind::Pre, "unzip").unwrap_err().to_string();
        assert_eq!(error, "unzip is no pre-processor; name one of none, decompress, checksum, exec:COMMAND");
        assert!(split(Kind::Post, "keep").unwrap_err().to_string().contains("write keep:DIR"));
        assert!(split(Kind::Process, "ingest:x").is_err());
    }
}
