//! The Postgres side: tables, leaves, indexes and the ledger that rows are loaded into.
//!
//! Deliberately absent: connecting (`client`), and when to load what (`sink`). Nothing here relies on what a
//! session remembers between transactions, so that a connection pooler may stand in between.
mod error;
mod indexes;
mod leaves;
mod schema;
mod state;

pub use error::WarehouseError;
pub use indexes::{IndexReport, Leaves, build_indexes};
pub use leaves::ensure_days;
pub use schema::migrate;
