//! Downloads: a manifest of URLs becomes files in a cache, each whole and the right one, or an error that names it.
//!
//! [`FileItem`] is what is wanted, [`Downloader`] gets it: streamed to disk, resumed after a cut or a restart, tried
//! again where that can help, with a limit per host. Invariants: a file has its name in the cache only once all of it
//! is on disk; a name of a manifest or a server never leads out of the cache; nothing that is printed of a URL holds
//! its query or credentials; with private addresses refused, no byte is sent to one. Deliberately absent: what
//! becomes of a file (`stage::downloader`).
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

mod address;
mod cache;
mod hosts;
mod item;
mod known;
mod lock;
mod manifest;
mod name;
mod options;
mod remote;
mod transfer;
mod unpack;

pub use self::address::is_public;
pub use self::cache::{Cache, Slot, sha256_of};
pub use self::hosts::Turn;
pub use self::item::{FileItem, ItemFault, shown_url};
pub use self::manifest::{Manifest, ManifestError, ManifestFault};
pub use self::name::safe_name;
pub use self::options::DownloadOptions;
pub use self::transfer::{Downloaded, Downloader, Failed, Progress};
pub use self::unpack::{UnpackError, UnpackLimits, unpack};

/// Why a file could not be downloaded. No text of it holds a URL's query.
#[derive(Debug, Error)]
pub enum DownloadError {
    /// A scheme that is not among those allowed.
    #[error("{scheme}:// is not allowed; --schemes says what is, of http, https, file, s3, gs and az")]
    Scheme {
        /// The scheme.
        scheme: String,
    },
    /// An address of this machine's own networks.
    #[error("{host} is at {address}, a private address; --allow-private permits that")]
    PrivateAddress {
        /// The name, or the address itself.
        host: String,
        /// What it stands for.
        address: IpAddr,
    },
    /// The server answered with a status that is no success.
    #[error("the server answers {status}{}", if *status == 404 { " (not found); check the url" } else { "" })]
    Status {
        /// HTTP status code.
        status: u16,
        /// When to come again, as the server says.
        retry_after: Option<Duration>,
    },
    /// A chain of redirects without an end.
    #[error("more than {limit} redirects; check that the url does not lead in a circle")]
    Redirects {
        /// How many are followed.
        limit: usize,
    },
    /// A redirect that is not followed.
    #[error("the server redirects to {reason}")]
    Redirect {
        /// Where to, and why not.
        reason: String,
    },
    /// No connection, or no answer on it.
    #[error("cannot connect: {0}")]
    Connect(String),
    /// Certificates: the same again would give the same.
    #[error(
        "the server's certificate is not accepted: {0}; if you trust it, name who signed it in SSL_CERT_FILE"
    )]
    Certificate(String),
    /// The connection ended before the file did.
    #[error("cut after {received} bytes{}: {reason}", expected.map(|all| format!(" of {all}")).unwrap_or_default())]
    Cut {
        /// Bytes of the file that are here.
        received: u64,
        /// Its length, where the server says it.
        expected: Option<u64>,
        /// What ended it.
        reason: String,
    },
    /// The whole download took too long.
    #[error("not done after {0:?}; give it longer by --download-timeout")]
    Timeout(Duration),
    /// A length that is not the manifest's.
    #[error("{received} bytes instead of the {expected} that the manifest says")]
    Size {
        /// The manifest's.
        expected: u64,
        /// What came, or was announced.
        received: u64,
    },
    /// A server that contradicts itself.
    #[error("the server announces {announced} bytes and has {actual}; ask who runs it")]
    Length {
        /// By the length of its first answer.
        announced: u64,
        /// By its answer to a request for the rest.
        actual: u64,
    },
    /// Content that is not the manifest's.
    #[error("sha256 {received} instead of {expected}; the file is another one, or was damaged")]
    Checksum {
        /// The manifest's.
        expected: String,
        /// What came.
        received: String,
    },
    /// An answer that makes no sense.
    #[error("the server's answer cannot be used: {0}")]
    Answer(String),
    /// The file of a `file://` URL, or an object, cannot be read.
    #[error("cannot be read: {reason}")]
    Source {
        /// Why.
        reason: String,
        /// Whether to try again.
        is_retriable: bool,
    },
    /// The cache's own disk.
    #[error("{}: cannot {operation}; check the disk, or name another folder in --download-cache", path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process downloads the same.
    #[error("another process is downloading the same file into {}", path.display())]
    Locked {
        /// The part.
        path: PathBuf,
    },
    /// The folder of the cache may be changed by others.
    #[error("{} belongs to somebody else or can be changed by others; name another folder in --download-cache", path.display())]
    Untrusted {
        /// The folder.
        path: PathBuf,
    },
    /// The server wants to be left alone for longer than we wait.
    #[error("the server wants to be asked again in {0:?} only; run again then")]
    ComeLater(Duration),
    /// The program ends.
    #[error("stopped before it was downloaded")]
    Stopped,
}

impl DownloadError {
    /// Whether the same request may succeed a little later.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Cut { .. } | Self::Timeout(_) | Self::Answer(_) => true,
            // what a cut or a proxy damaged may come whole the next time
            Self::Size { .. } | Self::Checksum { .. } => true,
            // by who does not know of the item's lock; it ends some time
            Self::Locked { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            Self::Source { is_retriable, .. } => *is_retriable,
            _ => false,
        }
    }

    /// Whether the host asks for fewer requests.
    fn is_busy(&self) -> bool {
        matches!(self, Self::Status { status: 429 | 503, .. })
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    fn disk(path: &Path, operation: &'static str) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Disk { path, operation, source }
    }
}
