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
pub(super) const LOCK_TIMEOUT: Duration = Duration::from_millis(200);
/// Then the queue is left for these times: 1.5 s in all.
pub(super) const PAUSES: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(800),
];

/// Which days have leaves now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct EnsuredDays {
    /// Each day's leaf.
    pub ready: BTreeMap<i32, String>,
    /// Tables that have a leaf's name and are none, such as a day that was detached. They stay as they are.
    pub in_the_way: Vec<String>,
}

/// Sees to it that the days, counted from 1970-01-01, have leaves.
///
/// To attach a leaf takes a moment with the default leaf to oneself. While a reader or a backup holds that for
/// longer, the days that have no leaf are not ready: load their rows into [`ddl::default_leaf`], and they
/// move over when their day is asked for again. So are those beyond 64 new days, and those whose name is taken. Call it outside of a transaction that has loaded rows, which would
/// be waited for, and load as `LOCK TABLE ONLY` the partitioned table `IN ROW EXCLUSIVE MODE` first: whoever alters
/// tables takes locks from the top down as well.
pub async fn ensure_days(
    client: &Client,
    schema: &str,
    table: &str,
    days: &[i32],
) -> Result<EnsuredDays, WarehouseError> {
    let mut wanted: BTreeMap<i32, String> =
        days.iter().map(|day| (*day, ddl::day_leaf(table, *day))).collect();
    let mut ensured = existing(client, schema, table, &mut wanted).await?;
    wanted = wanted.into_iter().take(MAX_NEW_DAYS).collect();
    if wanted.is_empty() {
        return Ok(ensured);
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
                ensured.ready.append(&mut wanted);
                return Ok(ensured);
            }
            Err(error) if error.is_locked() => match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => {
                    // another process may have had more luck
                    ensured.ready.append(&mut existing(client, schema, table, &mut wanted).await?.ready);
                    return Ok(ensured);
                }
            },
            Err(error) => return Err(error),
        }
    }
}

/// Takes the days whose leaf is attached, or whose name is taken, out of `wanted`.
async fn existing(
    client: &Client,
    schema: &str,
    table: &str,
    wanted: &mut BTreeMap<i32, String>,
) -> Result<EnsuredDays, WarehouseError> {
    let mut found = EnsuredDays::default();
    let names: Vec<_> = wanted.values().map(|leaf| literal(leaf)).collect();
    if names.is_empty() {
        return Ok(found);
    }
    let sql = format!(
        "SELECT class.relname AS name, EXISTS (
             SELECT FROM pg_inherits WHERE inhrelid = class.oid AND inhparent = to_regclass({})) AS is_leaf
         FROM pg_class AS class JOIN pg_namespace AS namespace ON namespace.oid = class.relnamespace
         WHERE namespace.nspname = {} AND class.relname IN ({})",
        literal(&qualified(schema, table)),
        literal(schema),
        names.join(", ")
    );
    let relations =
        rows(client, &sql).await.map_err(WarehouseError::of(format!("list the days of {schema}.{table}")))?;
    let is_leaf: BTreeMap<_, _> =
        relations.iter().filter_map(|row| Some((row.get("name")?, row.get("is_leaf")? == "t"))).collect();
    wanted.retain(|day, leaf| match is_leaf.get(leaf.as_str()) {
        None => true,
        Some(true) => {
            found.ready.insert(*day, leaf.clone());
            false
        }
        Some(false) => {
            found.in_the_way.push(leaf.clone());
            false
        }
    });
    Ok(found)
}
