//! Makes and migrates a schema: the numbered SQL files, one table per log type, the view `logs`.
//!
//! Invariants: what is not ours is never touched; columns are only ever added; any number of processes may start
//! at once. The first two round trips tell whether there is anything to do; if so it is done under the schema's
//! advisory lock, from what is read again there. Deliberately absent: renaming, dropping and retyping columns.
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::{Client, IsolationLevel, Transaction};

use super::WarehouseError;
use super::state::State;
use crate::log_type::ddl::{self, OURS, TypeVersions, literal, qualified, quoted};
use crate::log_type::{LogType, LogTypes};

/// The numbered SQL files, each run once, in order, in a transaction of its own. What is released stays as it is.
const MIGRATIONS: &[(&str, &str)] = &[
    ("0001_ledger", include_str!("../../sql/0001_ledger.sql")),
    ("0002_roles", include_str!("../../sql/0002_roles.sql")),
    ("0003_text", include_str!("../../sql/0003_text.sql")),
    ("0004_days", include_str!("../../sql/0004_days.sql")),
    ("0005_indexes", include_str!("../../sql/0005_indexes.sql")),
    ("0006_detached_days", include_str!("../../sql/0006_detached_days.sql")),
    ("0007_moved", include_str!("../../sql/0007_moved.sql")),
    ("0008_elsewhere", include_str!("../../sql/0008_elsewhere.sql")),
];

/// What the files make, besides functions and roles.
const TABLES: &[&str] =
    &["schema_migrations", "sources", "chunks", "rejects", "blanks", "log_types", "moved"];

const VIEW: &str = "logs";

/// The first whose SQL functions may be parsed when they are made.
const MIN_SERVER_VERSION: u32 = 140_000;

/// Definitions wait so long for a table that somebody uses: whoever wants to read it then waits as well.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
/// Then the table's queue of locks is left for this long, so that those who waited have their turn,
const PAUSE: Duration = Duration::from_secs(1);
/// and this often it is tried again: five minutes in all.
const TRIES: u32 = 100;

/// Brings `schema` to what this program and these log types need, from whatever it is, nothing included. Waits
/// while others use tables that have to change, for five minutes.
pub async fn migrate(client: &mut Client, schema: &str, types: &LogTypes) -> Result<(), WarehouseError> {
    for tried in 1..TRIES {
        match try_to_migrate(client, schema, types).await {
            Err(error) if error.is_locked() => {
                if tried == 1 {
                    tracing::warn!("waiting for it for up to five minutes: {error}");
                }
                tokio::time::sleep(PAUSE).await;
            }
            ended => return ended,
        }
    }
    try_to_migrate(client, schema, types).await
}

async fn try_to_migrate(client: &mut Client, schema: &str, types: &LogTypes) -> Result<(), WarehouseError> {
    let wanted = Wanted { schema, types };
    let state = wanted.read(client).await?;
    let missing: Vec<_> =
        (1..).zip(MIGRATIONS).filter(|(version, _)| !state.applied.contains(version)).collect();
    if missing.is_empty() && wanted.changes(&state)?.is_empty() {
        return Ok(());
    }
    for (version, (name, sql)) in missing {
        let operation = format!("migrate schema {schema} to {name}");
        let transaction = locked(client, schema, state.schema_exists).await?;
        if !wanted.read(transaction.client()).await?.applied.contains(&version) {
            let record = format!("INSERT INTO schema_migrations VALUES ({version}, {})", literal(name));
            let run = transaction.batch_execute(&format!("{sql}\n{record};")).await;
            run.map_err(WarehouseError::of(&operation))?;
        }
        transaction.commit().await.map_err(WarehouseError::of(&operation))?;
    }
    let operation = format!("make the tables of schema {schema}");
    let transaction = locked(client, schema, true).await?;
    let changes = wanted.changes(&wanted.read(transaction.client()).await?)?;
    transaction.batch_execute(&changes).await.map_err(WarehouseError::of(&operation))?;
    transaction.commit().await.map_err(WarehouseError::of(&operation))
}

/// A transaction that has the schema to itself, as far as definitions go, with it first in `search_path`.
async fn locked<'a>(
    client: &'a mut Client,
    schema: &str,
    schema_exists: bool,
) -> Result<Transaction<'a>, WarehouseError> {
    let operation = format!("lock schema {schema}");
    let start = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start();
    let transaction = start.await.map_err(WarehouseError::of(&operation))?;
    // waits as long as it takes for the others, but not for long with a table locked: readers would queue behind
    let lock = format!(
        "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; {};
         SET LOCAL lock_timeout = {}; SET LOCAL standard_conforming_strings = on;
         SET LOCAL search_path = {}, pg_temp",
        advisory_lock(schema),
        LOCK_TIMEOUT.as_millis(),
        quoted(schema)
    );
    transaction.batch_execute(&lock).await.map_err(WarehouseError::of(&operation))?;
    if !schema_exists {
        let create = format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema));
        let create = transaction.batch_execute(&create).await;
        create.map_err(WarehouseError::of(format!("create schema {schema}")))?;
    }
    Ok(transaction)
}

/// The statement that takes the lock under which definitions of a schema change; `sql/0004_days.sql` takes it too.
pub(super) fn advisory_lock(schema: &str) -> String {
    format!("SELECT pg_advisory_xact_lock(hashtextextended('pipeline ' || {}, 0))", literal(schema))
}

/// What a schema is to become.
struct Wanted<'a> {
    schema: &'a str,
    types: &'a LogTypes,
}

impl Wanted<'_> {
    /// What there is, as far as it matters; an error if that cannot become what is wanted.
    async fn read(&self, client: &Client) -> Result<State, WarehouseError> {
        let mut names: Vec<_> = TABLES.iter().chain([&VIEW]).map(|name| (*name).to_owned()).collect();
        for log_type in self.types.iter() {
            names.push(log_type.table.name.clone());
            names.push(ddl::default_leaf(&log_type.table.name));
        }
        let state = State::read(client, self.schema, &names).await?;
        if state.server_version < MIN_SERVER_VERSION {
            return Err(WarehouseError::Unsupported(format!(
                "the server is Postgres {}; version {} or later is needed",
                state.server_version / 10_000,
                MIN_SERVER_VERSION / 10_000
            )));
        }
        if state.encoding != "UTF8" {
            return Err(WarehouseError::Unsupported(format!(
                "the database's encoding is {}; create one with ENCODING 'UTF8' TEMPLATE template0",
                state.encoding
            )));
        }
        let newest = state.applied.last().copied().unwrap_or(0);
        if usize::try_from(newest).is_ok_and(|newest| newest > MIGRATIONS.len()) {
            return Err(WarehouseError::Unsupported(format!(
                "schema {} was migrated by a newer pipeline (step {newest}); update this one",
                self.schema
            )));
        }
        match state.relations.iter().find(|(_, relation)| !relation.comment.starts_with(OURS)) {
            Some((name, _)) => {
                Err(WarehouseError::NotOurs { schema: self.schema.to_owned(), relation: name.clone() })
            }
            None => Ok(state),
        }
    }

    /// The statements that tables and view lack, besides the numbered files; empty if none.
    fn changes(&self, state: &State) -> Result<String, WarehouseError> {
        let mut out = String::new();
        for log_type in self.types.iter() {
            out.push_str(&self.table_changes(state, log_type)?);
            if !state.versions.iter().any(|version| version.hash == log_type.table.hash) {
                let table = &log_type.table;
                let values =
                    [&table.hash, &table.log_type, &table.name, &table.text].map(|text| literal(text));
                // the clock, not the transaction's start: the order of these is that of the locks
                let _infallible = writeln!(
                    out,
                    "INSERT INTO {} (hash, name, table_name, text, first_seen) VALUES ({}, clock_timestamp());",
                    qualified(self.schema, "log_types"),
                    values.join(", ")
                );
            }
        }
        if let Some((view, comment)) = ddl::logs_view(&self.versions(state)?, self.schema)
            && state.relations.get(VIEW).is_none_or(|stored| stored.comment != comment)
        {
            let name = qualified(self.schema, VIEW);
            let comment = literal(&comment);
            let _infallible = write!(out, "{view}COMMENT ON VIEW {name} IS {comment};\n{}", self.grant(VIEW));
        }
        Ok(out)
    }

    fn table_changes(&self, state: &State, log_type: &LogType) -> Result<String, WarehouseError> {
        let table = &log_type.table.name;
        let refuse = |reason: String| WarehouseError::Incompatible { table: table.clone(), reason };
        let elsewhere = |version: &&super::state::TypeVersion| {
            version.name == log_type.name() && version.table_name != *table
        };
        if let Some(version) = state.versions.iter().find(elsewhere) {
            return Err(refuse(format!(
                "rows of log type {} are in table {}; keep that table, or give the changed log type another name",
                log_type.name(),
                version.table_name
            )));
        }
        let default = ddl::default_leaf(table);
        let Some(stored) = state.relations.get(table) else {
            let create = ddl::table(log_type, self.schema);
            return Ok(create + &self.grant(table) + &self.grant(&default));
        };
        if stored.comment != ddl::table_comment(log_type) {
            let made_for = stored.comment.trim_start_matches(OURS);
            return Err(refuse(format!(
                "it holds {made_for}; give log type {} another table",
                log_type.name()
            )));
        }
        if stored.partition_key != "RANGE (\"timestamp\")" {
            let reason = "it is not partitioned by its event time; give the log type another name and table";
            return Err(refuse(reason.to_owned()));
        }
        let mut out = String::new();
        for (name, kind) in ddl::columns(log_type) {
            match stored.columns.get(&name).map(String::as_str) {
                // what Postgres calls it when asked
                Some("timestamp with time zone") if kind == "timestamptz" => {}
                Some(stored) if stored == kind => {}
                Some(stored) => {
                    return Err(refuse(format!(
                        "column {name} is {stored} and the type file says {kind}; give the changed log type another name and table"
                    )));
                }
                None => {
                    let table = qualified(self.schema, table);
                    let _infallible =
                        writeln!(out, "ALTER TABLE {table} ADD COLUMN {} {kind};", quoted(&name));
                }
            }
        }
        if !state.relations.contains_key(&default) {
            // without it, a row of a day that has no leaf would be an error
            out = ddl::table(log_type, self.schema) + &self.grant(&default) + &out;
        }
        Ok(out)
    }

    fn grant(&self, relation: &str) -> String {
        let relation = literal(&qualified(self.schema, relation));
        format!("SELECT {}({relation});\n", qualified(self.schema, "pipeline_grant"))
    }

    /// All versions by type, those included that are only now recorded.
    fn versions(&self, state: &State) -> Result<Vec<TypeVersions>, WarehouseError> {
        let mut by_name: std::collections::BTreeMap<String, Vec<Arc<LogType>>> = Default::default();
        for version in &state.versions {
            let known = self.types.iter().find(|log_type| log_type.table.hash == version.hash);
            let log_type = match known {
                Some(log_type) => Arc::clone(log_type),
                None => {
                    let origin = format!("{} in {}.log_types", version.hash, self.schema);
                    let read = LogType::try_new(&origin, &version.text);
                    Arc::new(read.map_err(|error| {
                        WarehouseError::Unsupported(format!(
                            "{error}; rows were read with it, so restore its text from a backup"
                        ))
                    })?)
                }
            };
            by_name.entry(version.name.clone()).or_default().push(log_type);
        }
        for log_type in self.types.iter() {
            let known = by_name.entry(log_type.name().to_owned()).or_default();
            if !known.iter().any(|version| version.table.hash == log_type.table.hash) {
                known.push(Arc::clone(log_type));
            }
        }
        let versions = by_name.into_values().filter_map(|mut versions| {
            let newest = versions.pop()?;
            Some(TypeVersions { newest, earlier: versions })
        });
        Ok(versions.collect())
    }
}
