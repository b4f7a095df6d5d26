//! Who runs a task: claims, heartbeats, take-over, and the ends of a run.
//!
//! A run ends in one transaction with what follows from it: a parent that waits is made pending when its last step
//! ended or one failed that it does not tolerate; steps of a task that failed are cancelled. The parent's row is
//! locked first, so that of two last steps one sees the other.
use std::time::Duration;

use serde_json::Value as Json;

use super::rows::{COLUMNS, NUM_COLUMNS, millis, task};
use super::{Task, TaskStore, TaskStoreError};
use crate::store::{Row, Statement, Value};

/// A task that this worker runs.
#[derive(Debug, Clone)]
pub struct Claim {
    /// As it was when it was claimed.
    pub task: Task,
    /// Names this run in every write.
    pub fence: i64,
}

/// What a heartbeat was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The lease goes on.
    Held,
    /// It goes on, and somebody wants the task to end.
    CancelRequested,
    /// Another has the task.
    Lost,
}

/// A run as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The task.
    pub id: String,
    /// Its owner's fence.
    pub fence: i64,
    /// Its owner's heartbeats.
    pub beat: i64,
    /// Unchanged for so long, it may be taken.
    pub time: Duration,
}

/// How a run ended.
#[derive(Debug, Clone)]
pub enum Ending {
    /// With this result.
    Completed(Json),
    /// With this error; to be tried again after the pause, or never.
    Failed {
        /// With causes.
        error: String,
        /// The pause.
        retry_after: Option<Duration>,
    },
    /// By request.
    Cancelled,
    /// It waits for its steps; its slot is free.
    Waiting,
    /// It did not come to an end, for no fault of its own.
    HandedBack,
}

const UNENDED_STEPS: &str = "EXISTS (SELECT 1 FROM tasks step WHERE step.parent = tasks.id \
    AND step.status IN ('pending', 'running'))";
const FAILED_STEPS: &str = "EXISTS (SELECT 1 FROM tasks step WHERE step.parent = tasks.id \
    AND step.status IN ('failed', 'cancelled') AND step.is_tolerated = 0 \
    AND step.parent_attempt = tasks.attempt)";

/// Locks the parent of a task; first in every transaction that may end the task.
pub(super) fn lock_parent(id: &str) -> Statement {
    let sql = "SELECT id FROM tasks WHERE id = (SELECT parent FROM tasks WHERE id = $1) {for_update}";
    Statement::new(sql, [id.into()])
}

/// What follows when a task may have ended. Each is right whether it did or not.
pub(super) fn after_end(id: &str) -> Vec<Statement> {
    let below = "WITH RECURSIVE below (id) AS (SELECT id FROM tasks WHERE parent = $1 \
         UNION SELECT tasks.id FROM tasks JOIN below ON tasks.parent = below.id) ";
    let is_over =
        "EXISTS (SELECT 1 FROM tasks top WHERE top.id = $1 AND top.status IN ('failed', 'cancelled'))";
    let cancel = format!(
        "{below} UPDATE tasks SET cancel_requested = 1, \
         end_time = CASE WHEN status = 'pending' OR is_waiting = 1 THEN {{now}} END, \
         error = CASE WHEN status = 'pending' OR is_waiting = 1 THEN 'cancelled with its parent' ELSE error END, \
         status = CASE WHEN status = 'pending' OR is_waiting = 1 THEN 'cancelled' ELSE status END, is_waiting = 0 \
         WHERE id IN (SELECT id FROM below) AND status IN ('pending', 'running') AND {is_over}"
    );
    // the run that goes on is the same attempt
    let wake = format!(
        "UPDATE tasks SET status = 'pending', is_waiting = 0, attempt = attempt - 1, run_at = {{now}} \
         WHERE id = (SELECT parent FROM tasks child WHERE child.id = $1) AND status = 'running' \
         AND is_waiting = 1 AND (NOT {UNENDED_STEPS} OR {FAILED_STEPS})"
    );
    vec![Statement::new(cancel, [id.into()]), Statement::new(wake, [id.into()])]
}

/// A run that ended and is to be repeated, unless somebody asked for its end.
const PENDING_UNLESS_CANCELLED: &str = "status = CASE WHEN cancel_requested = 1 THEN 'cancelled' ELSE 'pending' END, \
     end_time = CASE WHEN cancel_requested = 1 THEN {now} END, \
     start_time = CASE WHEN cancel_requested = 1 THEN start_time END, ";

impl TaskStore {
    /// Takes up to `limit` tasks that are due, of these names; with `root`, only that one and what is below it.
    pub async fn claim(
        &self,
        worker: &str,
        names: &[String],
        root: Option<&str>,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<Claim>, TaskStoreError> {
        let mut values: Vec<Value> =
            vec![worker.into(), millis(lease).into(), i64::try_from(limit).unwrap_or(i64::MAX).into()];
        let mut placeholders = Vec::with_capacity(names.len());
        for name in names {
            values.push(name.as_str().into());
            placeholders.push(format!("${}", values.len()));
        }
        let of_root = match root {
            Some(root) => {
                values.push(root.into());
                format!("AND root = ${}", values.len())
            }
            None => String::new(),
        };
        let sql = format!(
            "UPDATE tasks SET status = 'running', worker = $1, lease_ms = $2, fence = fence + 1, \
             beat = beat + 1, attempt = attempt + 1, start_time = COALESCE(start_time, {{now}}), heartbeat = {{now}} \
             WHERE id IN (SELECT id FROM tasks WHERE status = 'pending' AND run_at <= {{now}} \
             AND name IN ({}) {of_root} ORDER BY run_at, id LIMIT $3 {{skip_locked}}) \
             RETURNING {COLUMNS}, fence",
            placeholders.join(", ")
        );
        let rows = self.database.transaction("claim tasks", vec![Statement::new(sql, values)]).await?;
        let claim =
            |row: &Row| Claim { task: task(row), fence: row.integer(NUM_COLUMNS).unwrap_or_default() };
        let mut claims: Vec<_> = rows[0].iter().map(claim).collect();
        // what an UPDATE returns is in no order
        claims.sort_by(|one, other| {
            (&one.task.run_at, &one.task.id).cmp(&(&other.task.run_at, &other.task.id))
        });
        Ok(claims)
    }

    /// Whether a task of these names is due.
    pub async fn is_due(&self, root: Option<&str>) -> Result<bool, TaskStoreError> {
        let sql = match root {
            Some(_) => {
                "SELECT id FROM tasks WHERE status = 'pending' AND run_at <= {now} AND root = $1 LIMIT 1"
            }
            None => "SELECT id FROM tasks WHERE status = 'pending' AND run_at <= {now} LIMIT 1",
        };
        let values: Vec<Value> = root.map(Value::from).into_iter().collect();
        Ok(!self.database.rows("look for tasks", Statement::new(sql, values)).await?.is_empty())
    }

    /// Says that their worker lives; the answers in the same order.
    pub async fn beat(&self, runs: &[(String, i64)]) -> Result<Vec<Beat>, TaskStoreError> {
        let sql = "UPDATE tasks SET beat = beat + 1, heartbeat = {now} \
             WHERE id = $1 AND fence = $2 AND status = 'running' AND is_waiting = 0 RETURNING cancel_requested";
        // all in one order: two workers that lock rows in two orders would wait for each other
        let mut order: Vec<usize> = (0..runs.len()).collect();
        order.sort_by_key(|index| &runs[*index].0);
        let statements = order
            .iter()
            .map(|index| Statement::new(sql, [runs[*index].0.as_str().into(), runs[*index].1.into()]));
        let rows = self.database.transaction("renew leases", statements.collect()).await?;
        let mut beats = vec![Beat::Lost; runs.len()];
        for (index, rows) in order.into_iter().zip(rows) {
            beats[index] = match rows.first().and_then(|row| row.integer(0)) {
                Some(0) => Beat::Held,
                Some(_) => Beat::CancelRequested,
                None => Beat::Lost,
            };
        }
        Ok(beats)
    }

    /// All runs, of all workers.
    pub async fn leases(&self) -> Result<Vec<Lease>, TaskStoreError> {
        let sql = "SELECT id, fence, beat, lease_ms FROM tasks WHERE status = 'running' AND is_waiting = 0";
        let rows = self.database.rows("look at leases", Statement::new(sql, [])).await?;
        let integer = |row: &Row, column| row.integer(column).unwrap_or_default();
        let lease = |row: &Row| Lease {
            id: row.text(0).unwrap_or_default(),
            fence: integer(row, 1),
            beat: integer(row, 2),
            time: Duration::from_millis(integer(row, 3).unsigned_abs()),
        };
        Ok(rows.iter().map(lease).collect())
    }

    /// Takes a run from a worker that is gone, if nothing was heard of it since `lease` was seen: pending again,
    /// or, after its last attempt, failed. The task as it is then.
    pub async fn take_over(&self, lease: &Lease) -> Result<Option<Task>, TaskStoreError> {
        let ended = "(cancel_requested = 1 OR attempt - attempts_before >= max_attempts)";
        let sql = format!(
            "UPDATE tasks SET fence = fence + 1, run_at = {{now}}, \
             end_time = CASE WHEN {ended} THEN {{now}} END, start_time = CASE WHEN {ended} THEN start_time END, \
             error = 'its worker ' || worker || ' was lost in attempt ' || CAST(attempt AS TEXT), \
             status = CASE WHEN cancel_requested = 1 THEN 'cancelled' \
                           WHEN attempt - attempts_before >= max_attempts THEN 'failed' ELSE 'pending' END \
             WHERE id = $1 AND fence = $2 AND beat = $3 AND status = 'running' AND is_waiting = 0 \
             RETURNING {COLUMNS}"
        );
        let id = lease.id.as_str();
        let mut statements =
            vec![lock_parent(id), Statement::new(sql, [id.into(), lease.fence.into(), lease.beat.into()])];
        statements.extend(after_end(id));
        let rows = self.database.transaction("take over a task", statements).await?;
        self.wake().await?;
        Ok(rows[1].first().map(task))
    }

    /// Ends a run. The task as it is then; `None` where it was no longer this worker's.
    pub async fn end(&self, claim: &Claim, ending: &Ending) -> Result<Option<Task>, TaskStoreError> {
        let (set, value): (&str, Value) = match ending {
            Ending::Completed(result) => (
                "status = 'completed', end_time = {now}, error = NULL, result = $3",
                result.to_string().into(),
            ),
            Ending::Failed { error, retry_after: None } => {
                ("status = 'failed', end_time = {now}, error = $3", error.as_str().into())
            }
            Ending::Failed { error, retry_after: Some(pause) } => {
                let sql = "UPDATE tasks SET error = $3 WHERE id = $1 AND fence = $2";
                let values = [claim.task.id.as_str().into(), claim.fence.into(), error.as_str().into()];
                self.database.transaction("keep an error", vec![Statement::new(sql, values)]).await?;
                ("run_at = {after $3}", millis(*pause).into())
            }
            Ending::Cancelled => ("status = 'cancelled', end_time = {now}, error = $3", "cancelled".into()),
            // a step may have ended before: `after_end` of no step looks again below
            Ending::Waiting => ("is_waiting = $3", 1.into()),
            Ending::HandedBack => ("run_at = {now}, attempt = attempt - $3", 1.into()),
        };
        let runs_again = matches!(ending, Ending::HandedBack | Ending::Failed { retry_after: Some(_), .. });
        let again = if runs_again { PENDING_UNLESS_CANCELLED } else { "" };
        let id = claim.task.id.as_str();
        let sql = format!(
            "UPDATE tasks SET {again}{set}, heartbeat = {{now}} WHERE id = $1 AND fence = $2 \
             AND status = 'running' RETURNING {COLUMNS}"
        );
        let mut statements =
            vec![lock_parent(id), Statement::new(sql, [id.into(), claim.fence.into(), value])];
        statements.extend(after_end(id));
        if matches!(ending, Ending::Waiting) {
            let wake = format!(
                "UPDATE tasks SET status = 'pending', is_waiting = 0, attempt = attempt - 1, run_at = {{now}} \
                 WHERE id = $1 AND fence = $2 AND status = 'running' AND is_waiting = 1 \
                 AND (NOT {UNENDED_STEPS} OR {FAILED_STEPS})"
            );
            statements.push(Statement::new(wake, [id.into(), claim.fence.into()]));
            let cancel = "UPDATE tasks SET status = 'cancelled', is_waiting = 0, end_time = {now}, \
                 error = 'cancelled' WHERE id = $1 AND is_waiting = 1 AND cancel_requested = 1";
            statements.push(Statement::new(cancel, [id.into()]));
            statements.extend(after_end(id));
        }
        let rows = self.database.transaction("end a run", statements).await?;
        self.wake().await?;
        Ok(rows[1].first().map(task))
    }
}
