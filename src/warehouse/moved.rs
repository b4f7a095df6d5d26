//! Days whose rows moved to an archive: which leaves are there, and taking one away.
//!
//! Invariant: a leaf goes in one transaction with the record of how many rows of which chunk it held, and only while
//! the ledger is as it was when they were found in the archive. So every row is in one place or in both, and
//! counting still adds up. Deliberately absent: looking into the archive (`stage/export`).
use std::collections::{BTreeMap, HashMap};

use tokio_postgres::Client;

use super::error::WarehouseError;
use super::leaves::{LOCK_TIMEOUT, PAUSES, ensure_days};
use super::read::time;
use super::schema::advisory_lock;
use super::{Warehouse, ledger};
use crate::ledger::CHUNKS;
use crate::log_type::ddl::{self, literal};
use crate::model::{ChunkRecord, FIRST_DAY, MAX_NEW_DAYS, MICROS_PER_DAY};

/// Table of what moved.
pub(super) const MOVED: &str = "moved";

/// The rows of a log type and a day, in a table of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DayLeaf {
    /// The log type.
    pub log_type: String,
    /// The day, counted from 1970-01-01.
    pub day: i32,
    /// Bytes with indexes.
    pub size_bytes: u64,
    table: String,
}

/// What became of a leaf that was to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// It is gone, with so many rows.
    Removed(u64),
    /// Somebody uses it.
    Busy,
    /// Somebody else took it away.
    Gone,
    /// The ledger says otherwise than when the day was looked at: somebody loaded or replaced rows.
    Changed,
    /// It holds rows that the ledger does not account for; of this chunk, for one.
    Unaccounted(i64),
}

impl Warehouse {
    /// The leaves of days before `day`, the earliest first.
    pub async fn leaves_before(&self, day: i32) -> Result<Vec<DayLeaf>, WarehouseError> {
        let client = self.config.connect().await?;
        let sql = format!(
            "SELECT DISTINCT types.name, types.table_name, leaf.relname::text, pg_total_relation_size(leaf.oid)
             FROM {} AS types
             JOIN pg_class AS parent ON parent.oid = to_regclass({} || '.' || quote_ident(types.table_name))
             JOIN pg_inherits AS inherits ON inherits.inhparent = parent.oid
             JOIN pg_class AS leaf ON leaf.oid = inherits.inhrelid",
            self.table("log_types"),
            literal(&ddl::quoted(&self.schema))
        );
        let rows = client.query(&sql, &[]).await.map_err(WarehouseError::of("list the days"))?;
        let mut leaves: Vec<DayLeaf> = rows
            .iter()
            .filter_map(|row| {
                let (table, leaf): (String, String) = (row.get(1), row.get(2));
                let day = ddl::day_of_leaf(&table, &leaf).filter(|of_leaf| *of_leaf < day)?;
                let size_bytes = row.get::<_, i64>(3).cast_unsigned();
                Some(DayLeaf { log_type: row.get(0), day, size_bytes, table })
            })
            .collect();
        leaves.sort_by(|one, other| (one.day, &one.log_type).cmp(&(other.day, &other.log_type)));
        Ok(leaves)
    }

    /// Gives leaves to the days before `day` whose rows are in the default leaf, where they were loaded while a reader
    /// was in the way or because one commit had too many days. Returns tables that still have some, and how many.
    pub async fn settle_days_before(&self, day: i32) -> Result<Vec<(String, u64)>, WarehouseError> {
        let client = self.config.connect().await?;
        let failed = || WarehouseError::of("look for days without a table");
        let sql = format!("SELECT DISTINCT table_name FROM {}", self.table("log_types"));
        let tables = client.query(&sql, &[]).await.map_err(failed())?;
        let mut unsettled = Vec::new();
        for table in tables.iter().map(|row| row.get::<_, String>(0)) {
            let range = format!(
                "FROM {} WHERE timestamp >= {} AND timestamp < {}",
                self.table(&ddl::default_leaf(&table)),
                time(i64::from(FIRST_DAY) * MICROS_PER_DAY),
                time(i64::from(day) * MICROS_PER_DAY)
            );
            let days =
                format!("SELECT DISTINCT (timestamp AT TIME ZONE 'UTC')::date - date '1970-01-01' {range}");
            let days = match client.query(&days, &[]).await.map_err(failed()) {
                Err(error) if error.is_stale() => continue,
                days => days?,
            };
            let days: Vec<i32> = days.iter().map(|row| row.get(0)).collect();
            for some in days.chunks(MAX_NEW_DAYS) {
                ensure_days(&client, &self.schema, &table, some).await?;
            }
            if !days.is_empty() {
                let left =
                    client.query_one(&format!("SELECT count(*) {range}"), &[]).await.map_err(failed())?;
                let left = left.get::<_, i64>(0).cast_unsigned();
                unsettled.extend((left > 0).then_some((table, left)));
            }
        }
        Ok(unsettled)
    }

    /// The entries of chunks that may hold rows of a day.
    pub async fn records_of_day(&self, day: i32) -> Result<Vec<ChunkRecord>, WarehouseError> {
        self.records(&time_condition(day)).await
    }

    /// The entries of chunks without an event time, rejects and blanks alone, that follow lines of days before `day`.
    pub async fn timeless_records_before(&self, day: i32) -> Result<Vec<ChunkRecord>, WarehouseError> {
        let condition = format!(
            "min_timestamp IS NULL AND coalesce(
                 (SELECT max_timestamp FROM {} AS earlier
                  WHERE earlier.source_id = chunks.source_id AND earlier.first_byte < chunks.first_byte
                    AND earlier.min_timestamp IS NOT NULL
                  ORDER BY earlier.first_byte DESC LIMIT 1), '-infinity') < {}",
            self.table(CHUNKS),
            time(i64::from(day) * MICROS_PER_DAY)
        );
        self.records(&condition).await
    }

    /// Takes a leaf away whose chunks, as `records` name them, are in `archive`.
    pub async fn remove_leaf(
        &self,
        leaf: &DayLeaf,
        records: &[ChunkRecord],
        archive: &str,
    ) -> Result<Removal, WarehouseError> {
        let client = self.config.connect().await?;
        let mut pauses = PAUSES.iter();
        loop {
            match self.try_remove(&client, leaf, records, archive).await {
                Ok(Removal::Removed(rows)) => {
                    client.batch_execute("COMMIT").await.map_err(WarehouseError::of("remove a day"))?;
                    return Ok(Removal::Removed(rows));
                }
                Err(error) if error.is_stale() => return Ok(Removal::Gone),
                Err(error) if error.is_locked() => {
                    let Some(pause) = pauses.next() else { return Ok(Removal::Busy) };
                    client.batch_execute("ROLLBACK").await.map_err(WarehouseError::of("remove a day"))?;
                    tokio::time::sleep(*pause).await;
                }
                // the connection ends here, and with it the transaction
                other => return other,
            }
        }
    }

    async fn try_remove(
        &self,
        client: &Client,
        leaf: &DayLeaf,
        records: &[ChunkRecord],
        archive: &str,
    ) -> Result<Removal, WarehouseError> {
        let (parent, name) = (self.table(&leaf.table), self.table(&ddl::day_leaf(&leaf.table, leaf.day)));
        let operation = format!("remove {name}");
        // in the order in which everybody locks: see sql/0004_days.sql
        let lock = format!(
            "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0;
             SET LOCAL lock_timeout = '10s'; {}; SET LOCAL lock_timeout = {};
             LOCK TABLE ONLY {parent} IN ACCESS EXCLUSIVE MODE; LOCK TABLE {name} IN ACCESS EXCLUSIVE MODE",
            advisory_lock(&self.schema),
            LOCK_TIMEOUT.as_millis()
        );
        client.batch_execute(&lock).await.map_err(WarehouseError::of(&operation))?;
        if ledger::records(client, self, &time_condition(leaf.day)).await? != records {
            return Ok(Removal::Changed);
        }
        let counts = format!("SELECT chunk_id, count(*) FROM {name} GROUP BY 1");
        let counts = client.query(&counts, &[]).await.map_err(WarehouseError::of(&operation))?;
        let counts: BTreeMap<i64, i64> = counts.iter().map(|row| (row.get(0), row.get(1))).collect();
        let held: HashMap<i64, u64> = (records.iter())
            .filter_map(|record| Some((record.chunk_id, record.types.get(&leaf.log_type)?.rows)))
            .collect();
        let is_accounted =
            |(id, rows): &(&i64, &i64)| held.get(id).is_some_and(|held| rows.cast_unsigned() <= *held);
        if let Some((id, _)) = counts.iter().find(|count| !is_accounted(count)) {
            return Ok(Removal::Unaccounted(*id));
        }
        let (ids, rows): (Vec<i64>, Vec<i64>) = counts.into_iter().unzip();
        let note = format!(
            "INSERT INTO {} AS known (log_type, day, chunk_id, rows, archive)
             SELECT $1, DATE '1970-01-01' + $2::int, chunk_id, rows, $3 FROM unnest($4::bigint[], $5::bigint[]) AS of (chunk_id, rows)
             ON CONFLICT (log_type, day, chunk_id) DO UPDATE SET rows = known.rows + excluded.rows",
            self.table(MOVED)
        );
        let noted = client.execute(&note, &[&leaf.log_type, &leaf.day, &archive, &ids, &rows]).await;
        noted.map_err(WarehouseError::of(&operation))?;
        let drop = format!("ALTER TABLE {parent} DETACH PARTITION {name}; DROP TABLE {name}");
        client.batch_execute(&drop).await.map_err(WarehouseError::of(&operation))?;
        Ok(Removal::Removed(rows.iter().sum::<i64>().cast_unsigned()))
    }

    /// Rows per chunk that are in an archive and not here any more: of a log type, or of all.
    pub async fn moved_rows(&self, log_type: Option<&str>) -> Result<HashMap<i64, u64>, WarehouseError> {
        let client = self.config.connect().await?;
        let failed = || WarehouseError::of("read which days moved");
        let Some(moved) = self.moved_table(&client).await? else { return Ok(HashMap::new()) };
        let sql = format!(
            "SELECT chunk_id, sum(rows)::bigint FROM {moved} WHERE $1::text IS NULL OR log_type = $1 GROUP BY 1"
        );
        let rows = client.query(&sql, &[&log_type]).await.map_err(failed())?;
        Ok(rows.iter().map(|row| (row.get(0), row.get::<_, i64>(1).cast_unsigned())).collect())
    }

    /// The archives that days moved to, and how many.
    pub async fn moved_to(&self) -> Result<BTreeMap<String, i64>, WarehouseError> {
        let client = self.config.connect().await?;
        let Some(moved) = self.moved_table(&client).await? else { return Ok(BTreeMap::new()) };
        let sql = format!("SELECT archive, count(DISTINCT day) FROM {moved} GROUP BY 1");
        let rows = client.query(&sql, &[]).await.map_err(WarehouseError::of("read where days moved"))?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// The table, quoted; `None` in a schema of an earlier version, which moved nothing.
    async fn moved_table(&self, client: &Client) -> Result<Option<String>, WarehouseError> {
        let moved = self.table(MOVED);
        let there = client.query_one("SELECT to_regclass($1) IS NOT NULL", &[&moved]).await;
        let is_there: bool = there.map_err(WarehouseError::of("read which days moved"))?.get(0);
        Ok(is_there.then_some(moved))
    }
}

/// The entries of chunks that may hold rows of a day.
fn time_condition(day: i32) -> String {
    let start = i64::from(day) * MICROS_PER_DAY;
    format!("min_timestamp < {} AND max_timestamp >= {}", time(start + MICROS_PER_DAY), time(start))
}
