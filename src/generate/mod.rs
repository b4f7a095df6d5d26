//! Test data: log lines of the declared types, drawn by the `[generate]` table of each type file.
//!
//! Invariants: the same types and seed give the same bytes on every machine (integer arithmetic only, one
//! stream of random numbers read in line order); how a run is cut into files does not change its lines;
//! memory does not depend on their number; a file under its final name is whole.
//! Deliberately absent: any log type. What lines look like is said by the type files alone.
pub mod events;
mod files;
mod line;
mod random;
mod spec;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use thiserror::Error;

pub use files::{FileSet, Generated};
pub use line::{Generator, LineType};
pub use spec::{Chooser, GenerateSpec, Numbered};

/// The standard data is made of these log types, in this order.
pub const STANDARD_TYPES: [&str; 3] = ["firewall", "dns", "auth"];

/// Why no lines can be generated. The message names the file or the type's column, and the remedy.
#[derive(Debug, Error)]
pub enum GenerateError {
    /// A type's `[generate]` table does not fit its template.
    #[error("log type {log_type}: [generate]: {reason}")]
    BadSpec {
        /// The log type.
        log_type: String,
        /// What is wrong, and the remedy.
        reason: String,
    },
    /// No log type was given.
    #[error("no log type to generate lines of; name at least one that has a [generate] table with --types")]
    NoTypes,
    /// A file of the run exists already; nothing was written.
    #[error("{} already exists; give --force to replace it, or another --out", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was attempted.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}
