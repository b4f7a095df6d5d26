//! Commits groups of chunks over one connection: rows, rejects, blanks and ledger entries in one transaction.
//!
//! Exactly once: the rows of a group are copied without a lock; then the sources' rows are locked, in the order of
//! their ids, and the ledger is asked for ranges that share a byte with the group's. If there is one, the chunk is
//! taken out of the group and all is rolled back. So loaders of one source wait for each other only while one of
//! them commits, and a range that was cut differently never doubles a line. An open line is superseded under the
//! lock taken first, because its rows have to go before the new ones come.
//!
//! After a connection broke, the ledger says whether the commit it broke in took place: entries carry their writer.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::{sleep, timeout};

use super::connection::Connection;
use super::copy::Rows;
use super::error::WarehouseError;
use super::group::{self, CopyJob, Encoders, RefusedRow};
use super::{Warehouse, ensure_days, kept, ledger};
use crate::client::with_causes;
use crate::ledger::Committed;
use crate::model::{ByteRange, ChunkRecord, DecodedBatch};
use crate::telemetry::{Metric, Summary, tell_alive};

mod questions;

/// Only in a build that measures what the ledger costs (`benches/safety.py`): it loses and doubles lines.
const WITHOUT_LEDGER: bool = cfg!(feature = "bench-without-ledger");
/// What takes longer than this meets a server that hangs: a new connection is tried.
const PATIENCE: Duration = Duration::from_secs(300);
/// Pauses between attempts while Postgres is away: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How often in a row leaves may be found detached or dropped by others.
const STALE_TRIES: u32 = 6;

/// What became of a group.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Entries that are committed now.
    pub records: Vec<ChunkRecord>,
    /// Ranges that are not, because others hold some of their bytes.
    pub overlapped: Vec<ByteRange>,
    /// With overlapped ranges: all that is committed of their sources.
    pub fresh: Option<Committed>,
    /// Rows by log type that Postgres refused; they are rejects.
    pub refused_rows: BTreeMap<String, u64>,
    /// Bytes of rows sent.
    pub copied_bytes: u64,
}

/// One connection that loads.
#[derive(Debug)]
pub struct Loader {
    warehouse: Arc<Warehouse>,
    connection: Option<Connection>,
    patience: Duration,
}

/// How a group meets what is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// None of its bytes may be.
    Add,
    /// The same, but open lines that it supersedes go first.
    Supersede,
    /// The same ranges are, and are taken away.
    Replace,
}

enum Attempt {
    Committed {
        copied_bytes: u64,
    },
    /// These chunks of the group share bytes with what is committed.
    Overlapped(Vec<usize>),
    /// Some chunk supersedes an open line: the lock has to come first.
    Supersedes,
}

impl Loader {
    /// Connects when it first has to.
    pub fn new(warehouse: Arc<Warehouse>) -> Self {
        Self { warehouse, connection: None, patience: PATIENCE }
    }

    /// Takes a server that gives no answer for this long for one that hangs.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Commits what is not committed yet of a group whose chunks share no byte. Waits while Postgres is away;
    /// an error is one that waiting does not mend.
    pub async fn commit(&mut self, group: Vec<DecodedBatch>) -> Result<Loaded, WarehouseError> {
        self.load(group, Mode::Add).await
    }

    /// Puts chunks that were decoded anew in the place of what is committed of the very same ranges.
    pub async fn replace(&mut self, group: Vec<DecodedBatch>) -> Result<Loaded, WarehouseError> {
        self.load(group, Mode::Replace).await
    }

    async fn load(&mut self, mut group: Vec<DecodedBatch>, mut mode: Mode) -> Result<Loaded, WarehouseError> {
        let mut loaded = Loaded::default();
        while !group.is_empty() {
            let encoders = group::encoders(&group).map_err(WarehouseError::group)?;
            match self.try_until_answered(&group, &encoders, mode).await {
                Ok(Attempt::Committed { copied_bytes }) => {
                    loaded.copied_bytes = copied_bytes;
                    loaded.records = group.drain(..).map(|chunk| chunk.record).collect();
                }
                Ok(Attempt::Supersedes) => mode = Mode::Supersede,
                Ok(Attempt::Overlapped(chunks)) => {
                    for chunk in chunks.into_iter().rev() {
                        loaded.overlapped.push(group.remove(chunk).record.range);
                    }
                }
                Err(refusal) if refusal.is_of_rows() => {
                    let found = timeout(self.patience, self.find_refused(&group, &encoders)).await;
                    let refused = match found.unwrap_or(Err(WarehouseError::Hangs)) {
                        Ok(refused) => refused,
                        // the next attempt waits for Postgres, and is refused the same
                        Err(failure) if failure.is_retriable() => {
                            self.connection = None;
                            continue;
                        }
                        Err(failure) => return Err(failure),
                    };
                    if refused.is_empty() {
                        return Err(refusal);
                    }
                    tracing::warn!(
                        rows = refused.len(),
                        "postgres refused rows, which become rejects: {refusal}"
                    );
                    for row in &refused {
                        let log_type = &group[row.chunk].types[row.of_type].table.log_type;
                        *loaded.refused_rows.entry(log_type.clone()).or_default() += 1;
                    }
                    drop(encoders);
                    group::reject_refused(&mut group, &refused).map_err(WarehouseError::group)?;
                }
                Err(failure) => return Err(failure),
            }
        }
        if !loaded.overlapped.is_empty() {
            let sources: Vec<u64> = loaded.overlapped.iter().map(|range| range.source_id).collect();
            loaded.fresh = Some(self.committed_of(&sources).await?);
        }
        Ok(loaded)
    }

    /// Tries until Postgres commits, or says why not.
    async fn try_until_answered(
        &mut self,
        group: &[DecodedBatch],
        encoders: &Encoders,
        mode: Mode,
    ) -> Result<Attempt, WarehouseError> {
        let (mut pause, mut stale_tries) = (FIRST_PAUSE, 0);
        loop {
            let tried = timeout(self.patience, self.attempt(group, encoders, mode)).await;
            let failure = match tried.unwrap_or(Err(WarehouseError::Hangs)) {
                Ok(attempt) => {
                    if pause > FIRST_PAUSE {
                        tracing::info!("postgres is back");
                    }
                    return Ok(attempt);
                }
                Err(failure) if failure.is_stale() && stale_tries < STALE_TRIES => {
                    stale_tries += 1;
                    failure
                }
                Err(failure) if !failure.is_retriable() => {
                    self.roll_back().await;
                    return Err(failure);
                }
                Err(failure) => failure,
            };
            Metric::CommitsRetried.add(1);
            if pause == FIRST_PAUSE {
                tracing::warn!(
                    "postgres cannot commit now; waiting for it, nothing is acknowledged: {}",
                    with_causes(&failure)
                );
            }
            // what it knew of the server may be what is wrong
            self.connection = None;
            self.warehouse.forget_leaves();
            tell_alive();
            sleep(pause).await;
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    async fn connection(&mut self) -> Result<&mut Connection, WarehouseError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::new(self.warehouse.config.connect().await?),
        };
        Ok(self.connection.insert(connection))
    }

    /// Ends a transaction that is not to be committed.
    async fn roll_back(&mut self) {
        let Some(connection) = &self.connection else { return };
        let ended = timeout(self.patience, connection.client.batch_execute("ROLLBACK")).await;
        if !matches!(ended, Ok(Ok(()))) {
            self.connection = None;
        }
    }

    async fn attempt(
        &mut self,
        group: &[DecodedBatch],
        encoders: &Encoders,
        mode: Mode,
    ) -> Result<Attempt, WarehouseError> {
        let warehouse = Arc::clone(&self.warehouse);
        let connection = self.connection().await?;
        let jobs = jobs(connection, &warehouse, group, encoders).await?;
        connection.begin(&warehouse, &jobs).await?;
        if mode != Mode::Add {
            kept::lock_sources(&connection.client, &warehouse, group).await?;
            let conflicts = ledger::conflicts(&connection.client, &warehouse, group).await?;
            if let Some(overlapped) = conflicts.overlapped_by_others(mode == Mode::Replace) {
                return self.give_up(&warehouse, group, overlapped).await;
            }
            kept::delete_chunks(&connection.client, &warehouse, conflicts.in_the_way()).await?;
        }
        let started = Instant::now();
        let mut copied_bytes = 0;
        for job in &jobs {
            copied_bytes += connection.copy_job(&warehouse, job).await?;
        }
        for (sql, encoder) in kept::copies(&warehouse, group)? {
            copied_bytes += connection.copy(sql, vec![(&encoder, Rows::Run(0..encoder.num_rows()))]).await?;
        }
        Summary::Copy.observe(started.elapsed().as_secs_f64());
        Metric::CopiedBytes.add(copied_bytes);
        if mode == Mode::Add && !WITHOUT_LEDGER {
            kept::lock_sources(&connection.client, &warehouse, group).await?;
            let conflicts = ledger::conflicts(&connection.client, &warehouse, group).await?;
            if let Some(overlapped) = conflicts.overlapped_by_others(false) {
                return self.give_up(&warehouse, group, overlapped).await;
            }
            if !conflicts.in_the_way().is_empty() {
                connection.execute("ROLLBACK").await?;
                return Ok(Attempt::Supersedes);
            }
        }
        if !WITHOUT_LEDGER {
            let (sql, encoder) = kept::entries(&warehouse, group)?;
            connection.copy(sql, vec![(&encoder, Rows::Run(0..encoder.num_rows()))]).await?;
        }
        connection.execute("COMMIT").await?;
        warehouse.note_written(jobs.iter().map(|job| (&**job.table, job.day)));
        Ok(Attempt::Committed { copied_bytes })
    }

    /// Rolls back. If what overlaps is this very group, an earlier attempt was committed after all.
    async fn give_up(
        &mut self,
        warehouse: &Warehouse,
        group: &[DecodedBatch],
        overlapped: Vec<ledger::Overlapped>,
    ) -> Result<Attempt, WarehouseError> {
        let connection = self.connection().await?;
        connection.execute("ROLLBACK").await?;
        let is_own = |of: &ledger::Overlapped| of.is_same_range && of.writer == warehouse.writer;
        if overlapped.len() == group.len() && overlapped.iter().all(is_own) {
            return Ok(Attempt::Committed { copied_bytes: 0 });
        }
        Ok(Attempt::Overlapped(overlapped.into_iter().map(|of| of.chunk).collect()))
    }

    /// Finds the rows that Postgres refuses, by halves; commits nothing. Rows that it takes stay until the end,
    /// for some are refused only beside others.
    async fn find_refused(
        &mut self,
        group: &[DecodedBatch],
        encoders: &Encoders,
    ) -> Result<Vec<RefusedRow>, WarehouseError> {
        let warehouse = Arc::clone(&self.warehouse);
        let connection = self.connection().await?;
        let jobs = jobs(connection, &warehouse, group, encoders).await?;
        let mut refused = Vec::new();
        connection.begin(&warehouse, &jobs).await?;
        for job in &jobs {
            let rows = job.parts.iter().flat_map(|part| {
                let rows: Vec<usize> = match part.rows.rows() {
                    Rows::Run(rows) => rows.collect(),
                    Rows::Picked(rows) => rows.iter().map(|row| *row as usize).collect(),
                };
                rows.into_iter().map(move |row| (part.chunk, part.of_type, row))
            });
            let mut halves = vec![rows.collect::<Vec<_>>()];
            while let Some(rows) = halves.pop() {
                let sql = warehouse.copy_into(job.table, job.day);
                connection.execute("SAVEPOINT half").await?;
                let picked: Vec<_> =
                    rows.iter().map(|(chunk, of, row)| (*chunk, *of, [*row as u32])).collect();
                let parts = picked.iter().map(|(chunk, of, row)| (&encoders[*chunk][*of], Rows::Picked(row)));
                let parts = parts.collect();
                match connection.copy(sql, parts).await {
                    Ok(_) => connection.execute("RELEASE half").await?,
                    Err(refusal) if refusal.is_of_rows() => {
                        connection.execute("ROLLBACK TO half").await?;
                        if let [(chunk, of_type, row)] = rows[..] {
                            let words = format!("postgres refused the row: {}", refusal.words()).into();
                            refused.push(RefusedRow { chunk, of_type, row, words });
                        } else {
                            let (first, second) = rows.split_at(rows.len() / 2);
                            // the first half is tried first
                            halves.extend([second.to_vec(), first.to_vec()]);
                        }
                    }
                    Err(failure) => {
                        self.connection = None;
                        return Err(failure);
                    }
                }
            }
        }
        connection.execute("ROLLBACK").await?;
        Ok(refused)
    }
}

/// The COPY statements of a group; makes the leaves that they need.
async fn jobs<'a>(
    connection: &Connection,
    warehouse: &Warehouse,
    group: &'a [DecodedBatch],
    encoders: &'a Encoders,
) -> Result<Vec<CopyJob<'a>>, WarehouseError> {
    let today = (chrono::Utc::now().timestamp() / 86_400) as i32;
    let mut jobs = Vec::new();
    for (name, (table, days)) in group::by_day(group, encoders, today) {
        let wanted: Vec<i32> = days.keys().copied().flatten().collect();
        let missing = warehouse.unknown_leaves(name, &wanted);
        if !missing.is_empty() {
            let ensured = ensure_days(&connection.client, &warehouse.schema, name, &missing).await?;
            warehouse.note_leaves(name, ensured.ready.into_keys());
            warehouse.note_in_the_way(name, ensured.in_the_way);
        }
        let without_leaf = warehouse.unknown_leaves(name, &wanted);
        jobs.extend(group::jobs(table, days, |day| !without_leaf.contains(&day)));
    }
    Ok(jobs)
}
