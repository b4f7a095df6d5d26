//! Indexes of leaves, built once a leaf is filled: rows load faster without.
//!
//! Invariants: killed at any moment it leaves no half-built index; who is in the way is left for the next time, and
//! said. Deliberately absent: when to build, which the loader decides.
use std::collections::BTreeSet;

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
    /// Those of earlier days than this one, counted from 1970-01-01.
    Before(i32),
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

/// Builds the indexes that these leaves of the types' tables lack, a transaction per leaf.
///
/// A build is a plain `CREATE INDEX`: loaders of that one leaf wait for it, readers do not. Two connections may
/// build at once; they take different leaves.
pub async fn build_indexes(
    client: &Client,
    schema: &str,
    types: &LogTypes,
    leaves: Leaves<'_>,
) -> Result<IndexReport, WarehouseError> {
    let mut report = IndexReport::default();
    for (leaf, indexes) in missing(client, schema, types, leaves).await? {
        let list = |value: &dyn Fn(&ddl::LeafIndex) -> String| {
            indexes.iter().map(value).collect::<Vec<_>>().join(", ")
        };
        let sql = format!(
            "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0;
             SET LOCAL lock_timeout = {LOCK_TIMEOUT_MILLIS};
             SELECT {}({}, ARRAY[{}], ARRAY[{}], ARRAY[{}]) AS built",
            qualified(schema, "pipeline_build_indexes"),
            literal(&qualified(schema, &leaf)),
            list(&|index| literal(&index.name)),
            list(&|index| literal(index.method)),
            list(&|index| literal(&index.column)),
        );
        let operation = format!("build the indexes of {schema}.{leaf}");
        match rows(client, &sql).await.map_err(WarehouseError::of(operation)) {
            Ok(rows) if rows.iter().any(|row| text(row, "built") == "t") => report.built.push(leaf),
            Ok(_) => report.busy.push(leaf),
            Err(error) if error.is_locked() => report.busy.push(leaf),
            Err(error) => return Err(error),
        }
    }
    Ok(report)
}

/// Leaves with the indexes they lack, the oldest day of each table first.
async fn missing(
    client: &Client,
    schema: &str,
    types: &LogTypes,
    leaves: Leaves<'_>,
) -> Result<Vec<(String, Vec<ddl::LeafIndex>)>, WarehouseError> {
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
         GROUP BY parent.relname, leaf.relname ORDER BY parent.relname, leaf.relname",
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
            // names end with the date, so those of one table are in its order
            Leaves::Before(day) => {
                leaf == ddl::default_leaf(&table) || date_of(&leaf) < date_of(&ddl::day_leaf(&table, day))
            }
            Leaves::Named(names) => names.contains(&leaf),
        };
        let present: BTreeSet<String> = serde_json::from_str(&text(row, "indexes")).unwrap_or_default();
        let lacking: Vec<_> = ddl::leaf_indexes(log_type, &leaf)
            .into_iter()
            .filter(|index| !present.contains(&index.name))
            .collect();
        if chosen && !lacking.is_empty() {
            missing.push((leaf, lacking));
        }
    }
    Ok(missing)
}

/// The date at the end of a leaf's name.
fn date_of(leaf: &str) -> &str {
    leaf.rsplit('_').next().unwrap_or_default()
}
