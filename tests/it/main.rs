//! Integration tests: the real program, real files, one binary.
//!
//! One file per theme. Every test works in a folder of its own and ends what it starts; nothing sleeps to wait
//! for something: it waits for the thing. What the tests need besides Rust, `make venv` and `.ci/run` install.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that fails may panic, and say why")]

mod architecture;
mod archive;
mod backfill;
mod bad_input;
mod bench;
mod campaign;
mod cluster;
#[cfg(feature = "query")]
mod cluster_query;
mod compact;
mod connections;
mod copy;
mod cost;
mod damage;
mod doctor;
mod exactly_once;
mod export;
mod fetch;
mod hosts;
mod instructions;
mod lake_readers;
mod metrics;
mod object_store;
#[cfg(feature = "query")]
mod page;
mod postgres;
mod query;
mod query_places;
mod redis_transport;
mod restore;
mod run;
mod schema;
mod serve;
mod servers;
mod service_manager;
mod services;
mod split;
mod support;
mod tasks;
mod transport;
mod watch;
