//! Indexes of leaves, built once a leaf is filled: rows load faster without.
//!
//! Invariants: killed at any moment it leaves no half-built index; who is in the way is left for the next time, and
//! said. Deliberately absent: when to build, which the loader decides.
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use futures_util::future::join_all;
use tokio_postgres::Client;

use super::WarehouseError;
use super::state::{rows, text};
use crate::log_type::LogTypes;
use crate::log_type::ddl::{self, literal, qualified};

/// How long to wait for loaders of the leaf to commit; rows that come meanwhile wait as well.
const LOCK_TIMEOUT_MILLIS: u32 = 1_000;

/// Which leaves are to have their indexes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leaves<'a> {
    /// Every one.
    All,
    /// These, by name.
    Named(&'a [String]),
}

/// What became of the leaves that lacked an index.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexReport {
    /// Leaves that have them all now.
    pub built: Vec<String>,
    /// Leaves that a loader or another builder was at: ask again.
    pub busy: Vec<String>,
}

/// An index that a leaf lacks.
#[derive(Debug)]
pub(super) struct Missing {
    leaf: String,
    index: ddl::LeafIndex,
}

/// Builds the indexes that these leaves of the types' tables lack, a transaction for each, as many at once as there
/// are clients.
///
/// A build is a plain `CREATE INDEX`: loaders of that one leaf wait for it, readers do not. Two processes may build
/// at once; they take different indexes.
pub async fn build_indexes(
    clients: &[Client],
    schema: &str,
    types: &LogTypes,
    leaves: Leaves<'_>,
) -> Result<IndexReport, WarehouseError> {
    let Some(client) = clients.first() else { return Ok(IndexReport::default()) };
    let missing = missing(client, schema, types, leaves).await?;
    build(clients, schema, missing).await
}

/// Builds these, the biggest leaves first, so that all clients end at about the same time.
pub(super) async fn build(
    clients: &[Client],
    schema: &str,
    missing: Vec<Missing>,
) -> Result<IndexReport, WarehouseError> {
    let leaves: BTreeSet<String> = missing.iter().map(|missing| missing.leaf.clone()).collect();
    let missing = Mutex::new(missing.into_iter());
    let busy = Mutex::new(BTreeSet::new());
    let builds = join_all(clients.iter().map(async |client| {
        loop {
            let next = missing.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(Missing { leaf, index }) = next else { return Ok(()) };
            // waiting for the same loader again would be in vain
            let is_busy = busy.lock().unwrap_or_else(PoisonError::into_inner).contains(&leaf);
            if !is_busy && !build_one(client, schema, &leaf, &index).await? {
                busy.lock().unwrap_or_else(PoisonError::into_inner).insert(leaf);
            }
        }
    }));
    builds.await.into_iter().collect::<Result<(), WarehouseError>>()?;
    let busy = busy.into_inner().unwrap_or_else(PoisonError::into_inner);
    let built = leaves.difference(&busy).cloned().collect();
    Ok(IndexReport { built, busy: busy.into_iter().collect() })
}

/// Whether the leaf has the index now, or cannot have it; not if somebody is at the leaf.
async fn build_one(
    client: &Client,
    schema: &str,
    leaf: &str,
    index: &ddl::LeafIndex,
) -> Result<bool, WarehouseError> {
    let columns: Vec<String> = index.columns.iter().map(|column| literal(column)).collect();
    let sql = format!(
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0;
         SET LOCAL lock_timeout = {LOCK_TIMEOUT_MILLIS};
         SELECT {}({}, {}, {}, ARRAY[{}]) AS built",
        qualified(schema, "pipeline_build_index"),
        literal(&qualified(schema, leaf)),
        literal(&index.name),
        literal(index.method),
        columns.join(", "),
    );
    let operation = format!("build the indexes of {schema}.{leaf}");
    match rows(client, &sql).await.map_err(WarehouseError::of(operation)) {
        Ok(rows) => Ok(rows.iter().any(|row| text(row, "built") == "t")),
        Err(error) if error.is_locked() => Ok(false),
        // such as those of a day that was detached and renamed: nothing to end a command for
        Err(error) if error.is_name_taken() => {
            tracing::warn!("{error}");
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// The indexes that leaves lack, those of the biggest leaf first.
pub(super) async fn missing(
    client: &Client,
    schema: &str,
    types: &LogTypes,
    leaves: Leaves<'_>,
) -> Result<Vec<Missing>, WarehouseError> {
    let tables: Vec<_> = types.iter().map(|log_type| literal(&log_type.table.name)).collect();
    if tables.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT parent.relname AS table, leaf.relname AS leaf,
                json_agg(index.relname) FILTER (WHERE entry.indisvalid) AS indexes
         FROM pg_namespace AS namespace
         JOIN pg_class AS parent ON parent.relnamespace = namespace.oid AND parent.relname IN ({})
         JOIN pg_inherits AS inherits ON inherits.inhparent = parent.oid
         JOIN pg_class AS leaf ON leaf.oid = inherits.inhrelid
         LEFT JOIN pg_index AS entry ON entry.indrelid = leaf.oid
         LEFT JOIN pg_class AS index ON index.oid = entry.indexrelid
         WHERE namespace.nspname = {}
         GROUP BY parent.relname, leaf.relname, leaf.oid ORDER BY pg_relation_size(leaf.oid) DESC, leaf.relname",
        tables.join(", "),
        literal(schema)
    );
    let operation = format!("list the indexes of schema {schema}");
    let found = rows(client, &sql).await.map_err(WarehouseError::of(operation))?;
    let mut missing = Vec::new();
    for row in &found {
        let (table, leaf) = (text(row, "table"), text(row, "leaf"));
        let Some(log_type) = types.iter().find(|log_type| log_type.table.name == table) else { continue };
        let chosen = match leaves {
            Leaves::All => true,
            Leaves::Named(names) => names.contains(&leaf),
        };
        let present: BTreeSet<String> = serde_json::from_str(&text(row, "indexes")).unwrap_or_default();
        if chosen {
            let lacking = ddl::leaf_indexes(log_type, &leaf).into_iter();
            let lacking = lacking.filter(|index| !present.contains(&index.name));
            missing.extend(lacking.map(|index| Missing { leaf: leaf.clone(), index }));
        }
    }
    Ok(missing)
}
