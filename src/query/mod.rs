//! SQL over archives, Postgres and raw logs: the only place that names DataFusion's session.
//!
//! Invariants: nothing but reading; files and row groups that cannot hold a matching row are not read; results
//! stream, and what a query must hold (sorts, groups) is bounded and spills to the temporary folder; a line that lies
//! in several places is read once (see `places`).
//! Deliberately absent: tables over paths or URLs named in the SQL. Only registered tables can be read.
mod cluster;
mod counted;
mod date_trunc;
mod error;
mod exact_time;
mod ip;
mod json;
mod logs;
mod output;
mod places;
mod postgres;
mod precount;
mod raw;
mod render;
mod report;
mod scan;
mod session;
mod table;
#[cfg(test)]
mod tests;
mod union;

pub use cluster::{Cluster, ClusterToken, QueryWorker, WorkerFailure, WorkerOptions, WorkerTrouble};
pub use counted::CountedStore;
pub use error::QueryError;
pub use logs::LogsBranch;
pub use output::{OutputFormat, ResultPrinter};
pub use places::Places;
pub use render::TypeVersions;
pub use report::{Counter, Explained, Scan};
pub use session::{FirstRows, Query, Session};
