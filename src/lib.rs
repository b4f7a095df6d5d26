//! Raw security logs to a queryable archive, exactly once, with every input byte accounted for.
//!
//! The modules in the order a record meets them:
//!
//! | module | duty |
//! |---|---|
//! | [`source`] | where bytes enter: files, folders, standard input; cut into chunks of whole lines |
//! | [`transport`] | carries chunks from readers to processors, bounded in bytes |
//! | [`decode`] | chunk -> one Arrow batch per log type + rejects + blanks; pure |
//! | [`sink`] | where rows leave; commits rows and ledger together |
//! | [`lake`] | the archive's Delta tables: Parquet settings, group commit, read back |
//! | [`ledger`] | what every sink keeps besides rows, and the ledger folded per source |
//! | [`store`] | the program's own state, in SQLite or Postgres |
//! | [`warehouse`] | the Postgres side: schema, leaves, indexes |
//! | [`log_type`] | the declared kinds of line, compiled from one TOML file each |
//! | [`webhook`], [`window`] | events as they are posted, checked; their aggregates in windows by event time |
//! | [`stage`] | the long-running loops, the only place where the above meet |
//! | [`task`] | named jobs, submitted as rows, run by workers |
//! | [`download`] | files of a manifest of URLs, whole or an error |
//! | [`page`] | what people look at: a page that asks all of the above |
//! | [`archive`], [`query`], [`generate`] | restore and verify, SQL, test data |
//! | [`cost`] | measured figures times list prices; pure |
//! | [`bench`] | measures all of it in processes of its own, beside the old design |
//! | [`model`], [`telemetry`], [`client`] | nouns that cross a border, metric names, connection builders |
pub mod archive;
pub mod bench;
pub mod cli;
pub mod client;
pub mod config;
pub mod cost;
pub mod decode;
pub mod download;
pub mod generate;
pub mod lake;
pub mod ledger;
pub mod log_type;
pub mod model;
#[cfg(feature = "query")]
pub mod page;
#[cfg(feature = "query")]
pub mod query;
pub mod sink;
pub mod source;
pub mod stage;
pub mod store;
pub mod task;
pub mod telemetry;
pub mod transport;
pub mod warehouse;
pub mod webhook;
pub mod window;
