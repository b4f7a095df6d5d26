//! Why the archive could not be read or written, in words that name the thing and the remedy.
use std::error::Error as _;
use std::io;

use deltalake_core::DeltaTableError;
use parquet::errors::ParquetError;
use thiserror::Error;

use crate::client::{ClientError, StorageFault, condensed};

/// Why the archive could not be read or written. The message names the place and the remedy.
#[derive(Debug, Error)]
pub enum LakeError {
    /// There is no archive where one was to be read.
    #[error("no archive at {url}; write one with `pipeline run --into {url}`")]
    NotFound {
        /// The archive.
        url: String,
    },
    /// The place given is not one an archive can have.
    #[error("archive {url}: {reason}")]
    BadUrl {
        /// The archive.
        url: String,
        /// What is wrong with it, and the remedy.
        reason: String,
    },
    /// Another writer committed overlapping ranges first.
    #[error("another writer committed some of the same bytes first")]
    Overlap,
    /// The open group is so old that its files may be taken for garbage; it was discarded.
    #[error("the open group is too old to commit; its lines must be shipped again")]
    GroupExpired,
    /// A log type's stored columns differ from the type file's in a way that is not an addition.
    #[error("table {table}: {reason}")]
    IncompatibleSchema {
        /// The table.
        table: String,
        /// Which column and how.
        reason: String,
    },
    /// Storage refused an operation.
    #[error("{operation} {location}: {hint}")]
    Storage {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        location: String,
        /// The remedy.
        hint: String,
        /// The cause.
        #[source]
        source: object_store::Error,
    },
    /// Something stored cannot be understood.
    #[error("{location}: {reason}")]
    Corrupt {
        /// The file or table.
        location: String,
        /// What is wrong.
        reason: String,
    },
    /// A table's rows could not be encoded. Its batches are not what its log type declares.
    #[error("table {table}: rows cannot be encoded as parquet: {reason}")]
    Encode {
        /// The table.
        table: String,
        /// What is wrong.
        reason: String,
    },
}

impl LakeError {
    /// Wraps what storage said of an operation on a location.
    pub fn storage(
        operation: &'static str,
        location: impl ToString,
    ) -> impl FnOnce(object_store::Error) -> Self {
        let location = location.to_string();
        move |source| {
            let source = condensed(source);
            Self::Storage { operation, location, hint: remedy(operation, &source), source }
        }
    }

    pub(super) fn corrupt(location: impl ToString, reason: impl ToString) -> Self {
        let reason = reason.to_string();
        let first_line = reason.lines().next().unwrap_or_default();
        Self::Corrupt {
            location: location.to_string(),
            reason: format!("{first_line}; restore this file from a copy, or archive to another place"),
        }
    }

    pub(super) fn of_delta(location: &str, cause: DeltaTableError) -> Self {
        match cause {
            DeltaTableError::ObjectStore { source } => Self::storage("read", location)(source),
            other => {
                if let Some((first, next)) = gap(&other.to_string()) {
                    return Self::corrupt(
                        location,
                        format!("its log lacks what is between {first} and {next}"),
                    );
                }
                // the kernel hides what storage said in its text
                let source = object_store::Error::Generic { store: "delta", source: other.into() };
                match (StorageFault::of(&source), source) {
                    (None, object_store::Error::Generic { source, .. }) => Self::corrupt(location, source),
                    (_, source) => Self::storage("read", location)(source),
                }
            }
        }
    }

    /// A file is written to a local one first.
    pub(super) fn of_spool(table: &str, cause: ParquetError) -> Self {
        let location = std::env::temp_dir();
        match cause {
            ParquetError::External(cause) => {
                let source = object_store::Error::Generic { store: "spool", source: cause };
                Self::storage("write to", location.display())(source)
            }
            cause => Self::encode(table, cause),
        }
    }

    pub(super) fn encode(table: &str, cause: impl ToString) -> Self {
        Self::Encode { table: table.to_owned(), reason: cause.to_string() }
    }
}

/// The two files of a log that the kernel's text says versions are missing between.
fn gap(text: &str) -> Option<(&str, &str)> {
    let (_, found) = text.split_once("found gap: ")?;
    let mut names = found.split("filename: \"").skip(1).filter_map(|rest| rest.split('"').next());
    Some((names.next()?, names.next()?))
}

impl From<ClientError> for LakeError {
    fn from(cause: ClientError) -> Self {
        match cause {
            ClientError::BadUrl { location, reason } => Self::BadUrl { url: location, reason },
            // no archive is behind these; what they say holds all the same
            ClientError::Unreachable { ref address, .. } | ClientError::Refused { ref address, .. } => {
                Self::BadUrl { url: address.clone(), reason: cause.to_string() }
            }
        }
    }
}

fn remedy(operation: &str, cause: &object_store::Error) -> String {
    if let Some(fault) = StorageFault::of(cause) {
        return fault.remedy().to_owned();
    }
    let mut source = cause.source();
    while let Some(inner) = source {
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            return match io.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "the disk is full; free space and run again".to_owned()
                }
                io::ErrorKind::ReadOnlyFilesystem => {
                    "the file system is read-only; make it writable".to_owned()
                }
                io::ErrorKind::PermissionDenied => "not permitted; give this user access to it".to_owned(),
                io::ErrorKind::NotFound if operation == "read" => {
                    "a file that the log names is gone; restore it from a copy".to_owned()
                }
                io::ErrorKind::NotFound => "its folder cannot be made; name another place".to_owned(),
                _ => format!("{io}; check the storage and run again"),
            };
        }
        source = inner.source();
    }
    "storage failed; check it and run again".to_owned()
}
