//! The Postgres side: tables, leaves, indexes and the ledger that rows are loaded into.
//!
//! Deliberately absent: connecting (`client`), and when to load what (`sink`). Nothing here relies on what a
//! session remembers between transactions but statements that are prepared by name, so that a connection pooler
//! that keeps those may stand in between: PgBouncer 1.21 or later with `max_prepared_statements` above 0.
mod connection;
mod copy;
mod days;
mod error;
mod group;
mod indexes;
mod kept;
mod leaves;
mod ledger;
mod loader;
mod moved;
mod read;
mod schema;
mod snapshot;
mod state;

pub use copy::{
    CopyDecodeError, CopyDecoder, CopyEncodeError, CopyEncoder, HEADER, PgType, Rows, TRAILER, UnknownPgType,
};
pub use days::{DayRows, split_by_day};
pub use error::WarehouseError;
pub use indexes::{IndexReport, Leaves, build_indexes};
pub use leaves::{EnsuredDays, ensure_days};
pub use loader::{Loaded, Loader};
pub use moved::{DayLeaf, Removal};
pub use schema::migrate;
pub use snapshot::{HeldTable, RowStream, Snapshot, TypeFile};

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio_postgres::Client;
use uuid::Uuid;

use crate::client::{PAUSE_AT_START, PgConfig, TRIES_AT_START};
use crate::ledger::{CHUNKS, Committed, Split};
use crate::log_type::LogTypes;
use crate::log_type::ddl::{self, qualified, quoted};
use crate::model::Table;

/// One schema of one database, migrated; what its loaders share.
pub struct Warehouse {
    config: PgConfig,
    schema: String,
    types: LogTypes,
    /// Names this process in the ledger.
    writer: String,
    leaves: Mutex<KnownLeaves>,
    /// Connections of readers, free until the next snapshot.
    idle_readers: Mutex<Vec<Client>>,
    /// Whether the ledger was seen to have [`ledger::ELSEWHERE`]: a schema that is only read is not migrated.
    knows_elsewhere: AtomicBool,
}

impl fmt::Debug for Warehouse {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Warehouse").field("config", &self.config).field("schema", &self.schema).finish()
    }
}

#[derive(Debug, Default)]
struct KnownLeaves {
    /// Days that have one, by table.
    ready: HashMap<String, HashSet<i32>>,
    /// Written to since their indexes were asked for: when first, and when last.
    unindexed: BTreeMap<String, (Instant, Instant)>,
    /// Tables that have a leaf's name and are none, which is said once.
    in_the_way: HashSet<String>,
}

impl Warehouse {
    /// The log types that it was opened with, in the order in which they are tried.
    pub fn types(&self) -> &LogTypes {
        &self.types
    }

    /// Connects, several times if the server is only starting, and brings the schema to what `types` need.
    pub async fn try_new(config: PgConfig, schema: &str, types: &LogTypes) -> Result<Self, WarehouseError> {
        let mut tries = 1;
        loop {
            let mut client = config.connect_at_start().await?;
            match migrate(&mut client, schema, types).await {
                // a step is in the schema whole or not at all
                Err(error) if error.is_retriable() && tries < TRIES_AT_START => {
                    let pause = PAUSE_AT_START.as_secs();
                    tracing::warn!("{error}; try {tries} of {TRIES_AT_START}, the next in {pause} s");
                    tries += 1;
                    tokio::time::sleep(PAUSE_AT_START).await;
                }
                Err(error) => return Err(error),
                Ok(()) => return Ok(Self::new(config, schema, types)),
            }
        }
    }

    fn new(config: PgConfig, schema: &str, types: &LogTypes) -> Self {
        Self {
            config,
            schema: schema.to_owned(),
            types: types.clone(),
            writer: Uuid::now_v7().to_string(),
            leaves: Mutex::default(),
            idle_readers: Mutex::default(),
            knows_elsewhere: AtomicBool::new(false),
        }
    }

    /// Tells this schema from every other, under whatever name the server is reached: by the microsecond at which that
    /// started, and what it numbers the database and the schema by.
    pub async fn identity(&self) -> Result<String, WarehouseError> {
        let sql = "SELECT concat_ws('/', extract(epoch FROM pg_postmaster_start_time()),
                                    (SELECT oid FROM pg_database WHERE datname = current_database()),
                                    to_regnamespace($1)::oid)";
        let client = self.config.connect().await?;
        let found = client.query_one(sql, &[&quoted(&self.schema)]).await;
        Ok(found.map_err(WarehouseError::of("ask for the identity of the schema"))?.get(0))
    }

    /// What is committed now, by any writer.
    pub async fn committed(&self) -> Result<Committed, WarehouseError> {
        let client = self.config.connect().await?;
        ledger::committed(&client, self, None).await
    }

    /// Whether the ledger says what is elsewhere. Asked until it does: somebody may migrate the schema meanwhile.
    async fn knows_elsewhere(&self, client: &Client) -> Result<bool, WarehouseError> {
        if self.knows_elsewhere.load(Ordering::Relaxed) {
            return Ok(true);
        }
        let sql = "SELECT EXISTS (SELECT FROM pg_attribute
                   WHERE attrelid = to_regclass($1) AND attname = $2 AND NOT attisdropped)";
        let found = client.query_one(sql, &[&self.table(CHUNKS), &ledger::ELSEWHERE]).await;
        let is_known = found.map_err(WarehouseError::of("look at the ledger's columns"))?.get(0);
        self.knows_elsewhere.store(is_known, Ordering::Relaxed);
        Ok(is_known)
    }

    /// How the chunks were split that are not whole here, each way once.
    pub async fn splits(&self) -> Result<BTreeSet<Split>, WarehouseError> {
        ledger::splits(&self.config.connect().await?, self, "true").await
    }

    /// Builds the indexes that leaves lack: of all, or only of those that were not written to for `silent`, or
    /// that have been without for `overdue`; over so many connections.
    pub async fn build_indexes(
        &self,
        which: Unindexed,
        connections: usize,
    ) -> Result<IndexReport, WarehouseError> {
        let names: Vec<String> = match which {
            Unindexed::All => Vec::new(),
            Unindexed::Quiet { silent, overdue } => {
                let is_due = |(first, last): &(Instant, Instant)| {
                    last.elapsed() >= silent || first.elapsed() >= overdue
                };
                let leaves = self.leaves();
                leaves
                    .unindexed
                    .iter()
                    .filter(|(_, times)| is_due(times))
                    .map(|(leaf, _)| leaf.clone())
                    .collect()
            }
        };
        let leaves = match which {
            Unindexed::All => Leaves::All,
            Unindexed::Quiet { .. } if names.is_empty() => return Ok(IndexReport::default()),
            Unindexed::Quiet { .. } => Leaves::Named(&names),
        };
        let mut clients = vec![self.config.connect().await?];
        let missing = indexes::missing(&clients[0], &self.schema, &self.types, leaves).await?;
        for _ in 1..connections.min(missing.len()) {
            clients.push(self.config.connect().await?);
        }
        let report = indexes::build(&clients, &self.schema, missing).await?;
        let busy: HashSet<&String> = report.busy.iter().collect();
        self.leaves().unindexed.retain(|leaf, _| {
            busy.contains(leaf) || matches!(which, Unindexed::Quiet { .. }) && !names.contains(leaf)
        });
        Ok(report)
    }

    fn table(&self, name: &str) -> String {
        qualified(&self.schema, name)
    }

    fn copy_into(&self, table: &Table, day: Option<i32>) -> String {
        let names = table.schema.fields().iter().map(|field| field.name().as_str());
        let target = day.map_or_else(|| table.name.clone(), |day| ddl::day_leaf(&table.name, day));
        self.copy_statement(&self.table(&target), names)
    }

    fn copy_statement<'a>(&self, table: &str, columns: impl Iterator<Item = &'a str>) -> String {
        let columns: Vec<String> = columns.map(quoted).collect();
        format!("COPY {table} ({}) FROM STDIN (FORMAT binary)", columns.join(", "))
    }

    fn leaves(&self) -> MutexGuard<'_, KnownLeaves> {
        self.leaves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unknown_leaves(&self, table: &str, days: &[i32]) -> Vec<i32> {
        let leaves = self.leaves();
        let ready = leaves.ready.get(table);
        days.iter().copied().filter(|day| !ready.is_some_and(|ready| ready.contains(day))).collect()
    }

    fn note_leaves(&self, table: &str, days: impl Iterator<Item = i32>) {
        self.leaves().ready.entry(table.to_owned()).or_default().extend(days);
    }

    fn note_in_the_way(&self, table: &str, names: Vec<String>) {
        let mut leaves = self.leaves();
        for name in names {
            if !leaves.in_the_way.contains(&name) {
                tracing::warn!(
                    "table {name} is no day of {table}; its rows go to {} until it is attached again, renamed or dropped",
                    ddl::default_leaf(table)
                );
                leaves.in_the_way.insert(name);
            }
        }
    }

    fn forget_leaves(&self) {
        self.leaves().ready.clear();
    }

    fn note_written<'a>(&self, jobs: impl Iterator<Item = (&'a Table, Option<i32>)>) {
        let now = Instant::now();
        let mut leaves = self.leaves();
        for (table, day) in jobs {
            let leaf =
                day.map_or_else(|| ddl::default_leaf(&table.name), |day| ddl::day_leaf(&table.name, day));
            leaves.unindexed.entry(leaf).or_insert((now, now)).1 = now;
        }
    }
}

/// Which leaves are to have their indexes now.
#[derive(Debug, Clone, Copy)]
pub enum Unindexed {
    /// All, whoever wrote to them.
    All,
    /// Those that this process wrote to, and that are likely to be filled.
    Quiet {
        /// Not written to for this long,
        silent: std::time::Duration,
        /// or without for this long.
        overdue: std::time::Duration,
    },
}
