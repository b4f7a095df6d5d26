//! Statements that several processes run: planned once here, in stages that workers read, shuffle and aggregate.
//!
//! Invariants: an answer is whole or an error: nothing of it is handed on before its last row has come, and a statement
//! that lost a worker is run anew, once, on the others. A worker reads only what its own `--from` names, with
//! credentials of its own. Coordinator and workers are of one version: plans and hashes mean the same in all of them.
//! Deliberately absent: a scheduler, stages kept on disk, and workers that join a running statement.
mod channel;
mod codec;
mod failure;
mod members;
mod panics;
mod session;
mod spool;
mod stores;
mod token;
mod worker;

pub use failure::{WorkerFailure, WorkerTrouble};
pub use members::Cluster;
pub use token::ClusterToken;
pub use worker::{QueryWorker, WorkerOptions};

pub(super) use panics::seen as panics_seen;
pub(super) use session::{distributed, stages};
pub(super) use spool::Spool;
pub(super) use stores::{Reads, store_url};

/// What a worker says that it is; a coordinator takes no other.
const VERSION: &str = concat!("pipeline ", env!("CARGO_PKG_VERSION"));
