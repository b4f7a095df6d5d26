//! Leaves on demand: a log type's table gets one table per day that rows come for.
//!
//! Invariants: two processes never make the same leaf twice; who waits for a lock holds none that a loader or a
//! reader waits for for long. The work is done by `pipeline_ensure_days` (`sql/0004_days.sql`, which has the
//! order of locks), in a transaction of its own.
use std::collections::BTreeMap;
use std::time::Duration;

use tokio_postgres::Client;

use super::WarehouseError;
use super::schema::advisory_lock;
use super::state::rows;
use crate::log_type::ddl::{self, literal, qualified};
use crate::model::MAX_NEW_DAYS;

/// How long to stand in a table's queue of locks: whoever comes after that long waits as well.
const LOCK_TIMEOUT: Duration = Duration::from_millis(200);
/// Then the queue is left for these times: 1.5 s in all.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// Sees to it that the days, counted from 1970-01-01, have leaves; returns each day's.
///
/// To attach a leaf takes a moment with the default leaf to oneself. While a reader or a backup holds that for
/// longer, the days that have no leaf are not in the answer: load their rows into [`ddl::default_leaf`], and they
/// move over when their day is asked for again. So are those beyond 64 new days. Call it outside of a transaction that has loaded rows, which would
/// be waited for, and load as `LOCK TABLE ONLY` the partitioned table `IN ROW EXCLUSIVE MODE` first: whoever alters
/// tables takes locks from the top down as well.
pub async fn ensure_days(
    client: &Client,
    schema: &str,
    table: &str,
    days: &[i32],
) -> Result<BTreeMap<i32, String>, WarehouseError> {
    let mut wanted: BTreeMap<i32, String> =
        days.iter().map(|day| (*day, ddl::day_leaf(table, *day))).collect();
    let mut ready = existing(client, schema, table, &mut wanted).await?;
    wanted = wanted.into_iter().take(MAX_NEW_DAYS).collect();
    if wanted.is_empty() {
        return Ok(ready);
    }
    let leaves: Vec<_> = wanted.values().map(|leaf| literal(leaf)).collect();
    let dates: Vec<_> = wanted.keys().map(|day| format!("date '1970-01-01' + {day}")).collect();
    let sql = format!(
        "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0;
         SET LOCAL lock_timeout = '10s'; {}; SET LOCAL lock_timeout = {};
         SELECT {}({}, ARRAY[{}], ARRAY[{}]::date[])",
        advisory_lock(schema),
        LOCK_TIMEOUT.as_millis(),
        qualified(schema, "pipeline_ensure_days"),
        literal(&qualified(schema, table)),
        leaves.join(", "),
        dates.join(", "),
    );
    let mut pauses = PAUSES.iter();
    loop {
        // several statements in one message are one transaction
        let made = client.batch_execute(&sql).await;
        match made.map_err(WarehouseError::of(format!("make tables for days of {schema}.{table}"))) {
            Ok(()) => {
                ready.append(&mut wanted);
                return Ok(ready);
            }
            Err(error) if error.is_locked() => match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => {
                    // another process may have had more luck
                    ready.append(&mut existing(client, schema, table, &mut wanted).await?);
                    return Ok(ready);
                }
            },
            Err(error) => return Err(error),
        }
    }
}

/// Takes the days whose leaf is attached out of `wanted`.
async fn existing(
    client: &Client,
    schema: &str,
    table: &str,
    wanted: &mut BTreeMap<i32, String>,
) -> Result<BTreeMap<i32, String>, WarehouseError> {
    let names: Vec<_> = wanted.values().map(|leaf| literal(leaf)).collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let sql = format!(
        "SELECT class.relname AS leaf FROM pg_inherits AS inherits JOIN pg_class AS class ON class.oid = inherits.inhrelid
         WHERE inherits.inhparent = to_regclass({}) AND class.relname IN ({})",
        literal(&qualified(schema, table)),
        names.join(", ")
    );
    let found =
        rows(client, &sql).await.map_err(WarehouseError::of(format!("list the days of {schema}.{table}")))?;
    let found: Vec<_> = found.iter().filter_map(|row| row.get("leaf")).collect();
    let is_ready = |leaf: &String| found.contains(&leaf.as_str());
    let ready =
        wanted.iter().filter(|(_, leaf)| is_ready(leaf)).map(|(day, leaf)| (*day, leaf.clone())).collect();
    wanted.retain(|_, leaf| !is_ready(leaf));
    Ok(ready)
}
