//! What a schema holds, as far as it matters to migrate it: read in two round trips.
use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::WarehouseError;
use crate::log_type::ddl::{OURS, literal, qualified};

/// A schema as it is.
#[derive(Debug, Default)]
pub(super) struct State {
    /// As `server_version_num` says it.
    pub(super) server_version: u32,
    /// The database's.
    pub(super) encoding: String,
    pub(super) schema_exists: bool,
    /// Those of the names asked for that exist.
    pub(super) relations: BTreeMap<String, Relation>,
    /// Numbered files that were run.
    pub(super) applied: BTreeSet<i32>,
    /// Type files that were recorded, the earliest first.
    pub(super) versions: Vec<TypeVersion>,
}

/// A table or view, or whatever has its name.
#[derive(Debug)]
pub(super) struct Relation {
    pub(super) comment: String,
    /// Empty where it is not partitioned.
    pub(super) partition_key: String,
    /// Type by name.
    pub(super) columns: BTreeMap<String, String>,
}

/// A row of `log_types`.
#[derive(Debug)]
pub(super) struct TypeVersion {
    pub(super) hash: String,
    pub(super) name: String,
    pub(super) table_name: String,
    pub(super) text: String,
}

impl State {
    /// Looks for relations of these names.
    pub(super) async fn read(
        client: &Client,
        schema: &str,
        names: &[String],
    ) -> Result<Self, WarehouseError> {
        let names: Vec<_> = names.iter().map(|name| literal(name)).collect();
        let sql = format!(
            "SELECT current_setting('server_version_num') AS server_version,
                    current_setting('server_encoding') AS encoding,
                    namespace.oid AS namespace, class.relname AS name,
                    obj_description(class.oid, 'pg_class') AS comment,
                    pg_get_partkeydef(class.oid) AS partition_key,
                    (SELECT json_object_agg(attname, format_type(atttypid, atttypmod)) FROM pg_attribute
                     WHERE attrelid = class.oid AND attnum > 0 AND NOT attisdropped) AS columns
             FROM (SELECT) AS always
             LEFT JOIN pg_namespace AS namespace ON namespace.nspname = {}
             LEFT JOIN pg_class AS class ON class.relnamespace = namespace.oid AND class.relname IN ({})",
            literal(schema),
            names.join(", ")
        );
        let operation = format!("read what schema {schema} holds");
        let mut state = Self::default();
        for row in rows(client, &sql).await.map_err(WarehouseError::of(&operation))? {
            state.server_version = text(&row, "server_version").parse().unwrap_or(0);
            state.encoding = text(&row, "encoding");
            state.schema_exists = row.get("namespace").is_some();
            if let Some(name) = row.get("name") {
                let relation = Relation {
                    comment: text(&row, "comment"),
                    partition_key: text(&row, "partition_key"),
                    columns: serde_json::from_str(&text(&row, "columns")).unwrap_or_default(),
                };
                state.relations.insert(name.to_owned(), relation);
            }
        }
        let is_ours = |relation: &Relation| relation.comment.starts_with(OURS);
        if !["schema_migrations", "log_types"]
            .iter()
            .all(|name| state.relations.get(*name).is_some_and(is_ours))
        {
            return Ok(state);
        }
        let sql = format!(
            "SELECT version, NULL AS hash, NULL AS name, NULL AS table_name, NULL AS text FROM {}
             UNION ALL
             (SELECT NULL, hash, name, table_name, text FROM {} ORDER BY first_seen, hash)",
            qualified(schema, "schema_migrations"),
            qualified(schema, "log_types")
        );
        for row in rows(client, &sql).await.map_err(WarehouseError::of(&operation))? {
            match row.get("version").and_then(|version| version.parse().ok()) {
                Some(version) => {
                    state.applied.insert(version);
                }
                None => state.versions.push(TypeVersion {
                    hash: text(&row, "hash"),
                    name: text(&row, "name"),
                    table_name: text(&row, "table_name"),
                    text: text(&row, "text"),
                }),
            }
        }
        Ok(state)
    }
}

/// The rows of one query. In text, without a prepared statement: a pooler may send the next one elsewhere.
pub(super) async fn rows(client: &Client, sql: &str) -> Result<Vec<SimpleQueryRow>, tokio_postgres::Error> {
    let messages = client.simple_query(sql).await?;
    Ok(messages
        .into_iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        })
        .collect())
}

/// A column's text, empty for NULL.
pub(super) fn text(row: &SimpleQueryRow, column: &str) -> String {
    row.get(column).unwrap_or_default().to_owned()
}
