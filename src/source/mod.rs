//! Where bytes enter: paths become files, files become sources with an identity, sources become chunks.
//!
//! Invariants: concatenating the chunks of a source gives its (decompressed) bytes; memory does not depend
//! on the length of a file, a line or a list of inputs' contents. Deliberately absent: parsing of lines, and
//! `async` around files and objects (`stage::reader` calls these blocking parts off the async threads).
use std::error::Error as _;
use std::io;

use thiserror::Error;

use crate::client::{ClientError, StorageFault, condensed, redacted};

mod chunker;
mod encoding;
mod file;
mod identity;
mod input;
mod object;
mod shard;
mod stream;

pub use chunker::{Chunker, Cut, CutOptions, End};
pub use encoding::Encoding;
pub use file::{Extent, FileReader, ReadAt, is_deleted, open, split};
pub use identity::{Catalogue, FileFacts, IdentifiedFile, IdentifiedObject, Place, Stat};
pub use input::{Input, Listing, list, list_some};
pub use object::{Buckets, Object, ObjectFacts, is_object_url};
pub use shard::Shard;
pub use stream::{Block, read_pipe, read_stdin};

/// Why an input could not be read. One input's error never stops the others.
#[derive(Debug, Error)]
pub enum SourceError {
    /// The path names nothing.
    #[error("{path} does not exist; check the path")]
    Missing {
        /// As given.
        path: String,
    },
    /// The glob matches nothing.
    #[error("no file matches {pattern}; check the pattern and the folder it is relative to")]
    NoMatch {
        /// As given.
        pattern: String,
    },
    /// The glob cannot be understood.
    #[error("{pattern} is not a glob: {reason}; quote a literal bracket as [[]")]
    BadPattern {
        /// As given.
        pattern: String,
        /// What is wrong where.
        reason: String,
    },
    /// The folder holds no log files.
    #[error("{path} holds no *.log, *.log.gz or *.log.zst file; name the files or a glob such as '{path}/*'")]
    EmptyFolder {
        /// As given.
        path: String,
    },
    /// Something that can be read once only, where it would have to be read again.
    #[error("{path} is a stream, which can be read once only; {remedy}")]
    Stream {
        /// As given or found.
        path: String,
        /// What to do instead.
        remedy: &'static str,
    },
    /// The operating system refused.
    #[error("cannot {operation} {path}: {hint}")]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        path: String,
        /// The remedy.
        hint: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A compressed input is damaged or cut short.
    #[error(
        "{path} is damaged {encoding} near byte {raw_byte} (byte {byte} decompressed): {reason}; whole lines before it are read, copy the file again for the rest"
    )]
    Corrupt {
        /// The input.
        path: String,
        /// Its compression.
        encoding: &'static str,
        /// Place in the file as stored.
        raw_byte: u64,
        /// Place in the decompressed bytes.
        byte: u64,
        /// What the decompressor says.
        reason: String,
    },
    /// The file holds fewer bytes than were read of it before: its content was replaced.
    #[error("{path} became shorter while it was read; run again to read its new content")]
    Shrunk {
        /// The file.
        path: String,
    },
    /// A URL stands for no object.
    #[error(
        "no object matches {location}; check the bucket and the path: a folder stands for the *.log, *.log.gz and *.log.zst below it, other names for themselves or by a glob (folder/**)"
    )]
    NoObject {
        /// As given, without a password.
        location: String,
    },
    /// An object has other content than when it was listed.
    #[error("{path} was overwritten while it was read; run again to read its new content")]
    Overwritten {
        /// The object.
        path: String,
    },
    /// A location in object storage cannot be opened.
    #[error(transparent)]
    Location(#[from] ClientError),
    /// Object storage failed.
    #[error("cannot {operation} {location}: {hint}")]
    Storage {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        location: String,
        /// The remedy.
        hint: &'static str,
        /// The cause.
        #[source]
        source: object_store::Error,
    },
    /// Another file took the path between listing and reading.
    #[error("{path} was replaced by another file before it was read; run again")]
    Replaced {
        /// The file.
        path: String,
    },
}

impl SourceError {
    /// What the operating system said of an operation on a path; or what a store did, where it is that.
    pub fn io(operation: &'static str, path: &str, source: io::Error) -> Self {
        let source = match source.downcast::<Self>() {
            Ok(of_store) => return of_store,
            Err(source) => source,
        };
        let path = path.to_owned();
        let hint = match source.kind() {
            io::ErrorKind::NotFound => return Self::Missing { path },
            io::ErrorKind::PermissionDenied => "give this user permission to read it",
            io::ErrorKind::IsADirectory => "name the files in it",
            _ => "check the file and the disk it is on",
        };
        Self::Io { operation, path, hint, source }
    }

    /// What object storage said of an operation on a location.
    fn storage(operation: &'static str, location: &str, source: object_store::Error) -> Self {
        let source = condensed(source);
        let hint = StorageFault::of(&source).map_or("check the storage and run again", StorageFault::remedy);
        Self::Storage { operation, location: redacted(location), hint, source }
    }

    /// What is wrong with the storage as a whole, if that is it: the next object would fail alike.
    #[must_use]
    pub fn fault(&self) -> Option<StorageFault> {
        match self {
            Self::Storage { source, .. } => StorageFault::of(source),
            _ => None,
        }
    }

    /// Whether its store gave no answer, or was busy.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        self.fault().is_some_and(StorageFault::is_passing)
    }

    /// The error and its cause, in one line.
    #[must_use]
    pub fn in_one_line(&self) -> String {
        match self.source() {
            Some(cause) => format!("{self}: {cause}"),
            None => self.to_string(),
        }
    }
}
