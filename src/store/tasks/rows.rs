//! Submitting, finding, cancelling and retrying tasks; their lines.
use super::{NewTask, Parameters, StepOf, Task, TaskStatus, TaskStore, TaskStoreError};
use crate::store::{Row, Statement, StoreError, Value};

/// A task keeps its last lines: so many pieces, each what it said at once.
const MAX_PIECES: i64 = 10_000;

pub(super) const COLUMNS: &str = "id, name, status, result, {iso start_time}, {iso end_time}, parameters, error, \
    attempt, max_attempts, attempts_before, backoff_ms, timeout_ms, {iso run_at}, {iso created_at}, worker, {iso heartbeat}, parent, \
    step, parent_attempt, is_waiting, unique_key, schedule";

/// How many columns those are.
pub(super) const NUM_COLUMNS: usize = 23;

pub(super) fn task(row: &Row) -> Task {
    let integer = |column| row.integer(column).unwrap_or_default();
    Task {
        id: row.text(0).unwrap_or_default(),
        name: row.text(1).unwrap_or_default(),
        status: TaskStatus::of(&row.text(2).unwrap_or_default()),
        result: row.text(3).and_then(|text| serde_json::from_str(&text).ok()),
        start_time: row.text(4),
        end_time: row.text(5),
        parameters: parameters(row.text(6)),
        error: row.text(7),
        attempt: integer(8),
        max_attempts: integer(9),
        attempts_before: integer(10),
        backoff_ms: integer(11),
        timeout_ms: row.integer(12),
        run_at: row.text(13).unwrap_or_default(),
        created_at: row.text(14).unwrap_or_default(),
        worker: row.text(15),
        heartbeat: row.text(16),
        parent: row.text(17),
        step: row.text(18),
        parent_attempt: row.integer(19),
        is_waiting: integer(20) == 1,
        unique_key: row.text(21),
        schedule: row.text(22),
    }
}

pub(super) fn parameters(text: Option<String>) -> Parameters {
    text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
}

/// Which tasks to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only those of this status.
    pub status: Option<TaskStatus>,
    /// Only those that run this.
    pub name: Option<String>,
    /// Only steps of this one.
    pub parent: Option<String>,
}

/// What a request to cancel did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancelled {
    /// Nobody ran it: it is cancelled.
    Done,
    /// Its worker was told, and will end it.
    Requested,
}

/// A piece of what a task said: whole lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskLine {
    /// Goes up within a task.
    pub number: i64,
    /// One or more lines, without the last newline.
    pub text: String,
}

impl TaskStore {
    /// Adds a pending task; its id. With a unique key that an unended task has, adds nothing: that one's id.
    pub async fn submit(&self, new: &NewTask) -> Result<String, TaskStoreError> {
        let id = new.id.clone().unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
        let step = new.step_of.as_ref();
        let sql = "INSERT INTO tasks (id, name, status, parameters, max_attempts, backoff_ms, timeout_ms, run_at, \
             created_at, parent, root, step, parent_attempt, is_tolerated, unique_key, schedule) \
             VALUES ($1, $2, 'pending', $3, $4, $5, $6, {after $7}, {now}, $8, \
             COALESCE((SELECT root FROM tasks WHERE id = $8), $1), $9, $10, $11, $12, $13) \
             ON CONFLICT DO NOTHING RETURNING id";
        let values = vec![
            id.as_str().into(),
            new.name.as_str().into(),
            Value::Text(serde_json::Value::Object(new.parameters.clone()).to_string()),
            i64::from(new.max_attempts).into(),
            millis(new.backoff).into(),
            new.timeout.map(millis).into(),
            millis(new.delay).into(),
            step.map(|step| step.parent.as_str()).into(),
            step.map(|step| step.step.as_str()).into(),
            step.map(|step| step.parent_attempt).into(),
            i64::from(step.is_some_and(|step| step.is_tolerated)).into(),
            new.unique_key.as_deref().into(),
            new.schedule.as_deref().into(),
        ];
        let held = "SELECT id FROM tasks WHERE unique_key = $1 AND status IN ('pending', 'running')";
        let same_step = "SELECT id FROM tasks WHERE parent = $1 AND step = $2";
        let statements = vec![
            Statement::new(sql, values),
            Statement::new(held, [new.unique_key.as_deref().into()]),
            Statement::new(
                same_step,
                [step.map(|step| step.parent.as_str()).into(), step.map(|step| step.step.as_str()).into()],
            ),
        ];
        let rows = self.database.transaction("submit a task", statements).await?;
        self.wake().await?;
        match rows.iter().find_map(|rows| rows.first()).and_then(|row| row.text(0)) {
            Some(id) => Ok(id),
            None => Err(TaskStoreError::IdTaken(id)),
        }
    }

    /// A task by its id.
    pub async fn by_id(&self, id: &str) -> Result<Option<Task>, TaskStoreError> {
        let sql = format!("SELECT {COLUMNS} FROM tasks WHERE id = $1");
        let rows = self.database.rows("read a task", Statement::new(sql, [id.into()])).await?;
        Ok(rows.first().map(task))
    }

    /// A task that must be there.
    pub async fn existing(&self, id: &str) -> Result<Task, TaskStoreError> {
        self.by_id(id).await?.ok_or_else(|| TaskStoreError::NotFound(id.to_owned()))
    }

    /// The last `limit` tasks, the newest first.
    pub async fn list(&self, filter: &Filter, limit: u32) -> Result<Vec<Task>, TaskStoreError> {
        let mut values: Vec<Value> = vec![i64::from(limit).into()];
        let mut conditions = String::new();
        let wanted = [
            ("status", filter.status.map(TaskStatus::name)),
            ("name", filter.name.as_deref()),
            ("parent", filter.parent.as_deref()),
        ];
        for (column, value) in wanted {
            if let Some(value) = value {
                values.push(value.into());
                conditions += &format!(" AND {column} = ${}", values.len());
            }
        }
        let sql = format!(
            "SELECT {COLUMNS} FROM tasks WHERE 1 = 1{conditions} ORDER BY created_at DESC, id DESC LIMIT $1"
        );
        let rows = self.database.rows("list tasks", Statement::new(sql, values)).await?;
        Ok(rows.iter().map(task).collect())
    }

    /// The steps of a parent, in the order they were asked for.
    pub async fn children(&self, parent: &str) -> Result<Vec<Task>, TaskStoreError> {
        let sql = format!("SELECT {COLUMNS} FROM tasks WHERE parent = $1 ORDER BY created_at, id");
        let rows = self.database.rows("read steps of a task", Statement::new(sql, [parent.into()])).await?;
        Ok(rows.iter().map(task).collect())
    }

    /// Tasks by status.
    pub async fn count_by_status(&self) -> Result<Vec<(TaskStatus, u64)>, TaskStoreError> {
        let sql = "SELECT status, count(*) FROM tasks GROUP BY status";
        let rows = self.database.rows("count tasks", Statement::new(sql, [])).await?;
        let count = |status: TaskStatus| {
            let row = rows.iter().find(|row| row.text(0).as_deref() == Some(status.name()));
            row.and_then(|row| row.integer(1)).and_then(|count| u64::try_from(count).ok()).unwrap_or(0)
        };
        Ok(TaskStatus::ALL.into_iter().map(|status| (status, count(status))).collect())
    }

    /// Whether no task is pending or running.
    pub async fn is_drained(&self) -> Result<bool, TaskStoreError> {
        // one question for each, as there is an index for each
        let sql = "SELECT id FROM tasks WHERE status = 'pending' \
             UNION ALL SELECT id FROM tasks WHERE status = 'running' LIMIT 1";
        Ok(self.database.rows("look for tasks", Statement::new(sql, [])).await?.is_empty())
    }

    /// Ends a task and the steps below it: at once where nobody runs them, else by asking the worker.
    pub async fn cancel(&self, id: &str) -> Result<Cancelled, TaskStoreError> {
        let sql = "UPDATE tasks SET cancel_requested = 1, \
             end_time = CASE WHEN status = 'pending' OR is_waiting = 1 THEN {now} END, \
             error = CASE WHEN status = 'pending' OR is_waiting = 1 THEN 'cancelled' ELSE error END, \
             status = CASE WHEN status = 'pending' OR is_waiting = 1 THEN 'cancelled' ELSE status END, \
             is_waiting = 0 \
             WHERE id = $1 AND status IN ('pending', 'running') RETURNING status";
        let mut statements = vec![super::leases::lock_parent(id), Statement::new(sql, [id.into()])];
        statements.extend(super::leases::after_end(id));
        let rows = self.database.transaction("cancel a task", statements).await?;
        self.wake().await?;
        match rows[1].first().and_then(|row| row.text(0)).as_deref() {
            Some("cancelled") => Ok(Cancelled::Done),
            Some(_) => Ok(Cancelled::Requested),
            None => {
                let status = self.existing(id).await?.status;
                let remedy = "only a task that is pending or running can be cancelled";
                Err(TaskStoreError::WrongStatus { id: id.to_owned(), status, remedy })
            }
        }
    }

    /// Makes a failed or cancelled task pending again, with all its attempts. Steps that completed stay so.
    pub async fn retry(&self, id: &str) -> Result<(), TaskStoreError> {
        // steps compare the attempt they were asked for with their parent's: it has to go on, not to restart
        let sql = "UPDATE tasks SET status = 'pending', attempts_before = attempt, run_at = {now}, \
             start_time = NULL, end_time = NULL, cancel_requested = 0, is_waiting = 0, fence = fence + 1 \
             WHERE id = $1 AND status IN ('failed', 'cancelled') AND NOT EXISTS (SELECT 1 FROM tasks other \
             WHERE other.unique_key = tasks.unique_key AND other.status IN ('pending', 'running')) RETURNING id";
        let rows = self.database.transaction("retry a task", vec![Statement::new(sql, [id.into()])]).await?;
        self.wake().await?;
        if rows[0].is_empty() {
            let status = self.existing(id).await?.status;
            let remedy = match status {
                TaskStatus::Failed | TaskStatus::Cancelled => {
                    "another task has its unique key; wait until that one has ended, or cancel it"
                }
                _ => "only a task that is failed or cancelled can be retried",
            };
            return Err(TaskStoreError::WrongStatus { id: id.to_owned(), status, remedy });
        }
        Ok(())
    }

    /// Asks again for a step that failed for an earlier attempt of its parent.
    pub async fn ask_again(&self, id: &str, step: &StepOf) -> Result<(), TaskStoreError> {
        let sql = "UPDATE tasks SET status = 'pending', attempts_before = attempt, run_at = {now}, \
             start_time = NULL, end_time = NULL, cancel_requested = 0, is_waiting = 0, fence = fence + 1, \
             parent_attempt = $2 \
             WHERE id = $1 AND status IN ('failed', 'cancelled') AND parent_attempt < $2";
        let statement = Statement::new(sql, [id.into(), step.parent_attempt.into()]);
        self.database.transaction("ask again for a step", vec![statement]).await?;
        Ok(self.wake().await?)
    }

    /// What a task said after the piece `after`, at most `limit` pieces.
    pub async fn lines(&self, id: &str, after: i64, limit: u32) -> Result<Vec<TaskLine>, TaskStoreError> {
        let sql =
            "SELECT number, text FROM task_lines WHERE task = $1 AND number > $2 ORDER BY number LIMIT $3";
        let values = [id.into(), after.into(), i64::from(limit).into()];
        let rows = self.database.rows("read a task's lines", Statement::new(sql, values)).await?;
        Ok(rows.iter().map(line).collect())
    }

    /// The last pieces that a task said, at most `limit`.
    pub async fn last_lines(&self, id: &str, limit: u32) -> Result<Vec<TaskLine>, TaskStoreError> {
        let sql = "SELECT number, text FROM task_lines WHERE task = $1 ORDER BY number DESC LIMIT $2";
        let values = [id.into(), i64::from(limit).into()];
        let rows = self.database.rows("read a task's lines", Statement::new(sql, values)).await?;
        Ok(rows.iter().rev().map(line).collect())
    }

    /// Adds to what a task said, while `fence` is its owner's. When this returns true, it is kept.
    pub async fn say(&self, id: &str, fence: i64, text: &str) -> Result<bool, TaskStoreError> {
        let add = "INSERT INTO task_lines (task, number, text) SELECT $1, \
             COALESCE((SELECT max(number) FROM task_lines WHERE task = $1), 0) + 1, $3 \
             WHERE EXISTS (SELECT 1 FROM tasks WHERE id = $1 AND fence = $2) RETURNING number";
        let trim = "DELETE FROM task_lines WHERE task = $1 AND number <= \
             (SELECT max(number) FROM task_lines WHERE task = $1) - $2";
        // Postgres keeps no byte 0 in a text
        let text = text.replace('\0', "\u{fffd}");
        // two that speak for one task at once would take the same number
        let lock = "SELECT id FROM tasks WHERE id = $1 {for_update}";
        let statements = vec![
            Statement::new(lock, [id.into()]),
            Statement::new(add, [id.into(), fence.into(), text.into()]),
            Statement::new(trim, [id.into(), MAX_PIECES.into()]),
        ];
        let rows = self.database.transaction("keep a task's lines", statements).await?;
        Ok(!rows[1].is_empty())
    }

    /// Removes tasks (with their steps) that ended at least so long ago; how many.
    pub async fn remove_ended(&self, older_than: std::time::Duration) -> Result<u64, TaskStoreError> {
        let sql = "DELETE FROM tasks WHERE parent IS NULL AND end_time IS NOT NULL AND end_time <= {after $1} \
             RETURNING id";
        let statement = Statement::new(sql, [(-millis(older_than)).into()]);
        let rows = self.database.transaction("remove old tasks", vec![statement]).await?;
        Ok(rows[0].len() as u64)
    }

    /// Tells workers that there is something new.
    pub(super) async fn wake(&self) -> Result<(), StoreError> {
        // SQLite has a counter that everybody sees
        if let crate::store::Database::Postgres(store) = &self.database {
            let client = store.client().await?;
            client.batch_execute("NOTIFY pipeline_state").await.map_err(store.failed("wake workers"))?;
        }
        Ok(())
    }
}

pub(super) fn millis(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn line(row: &Row) -> TaskLine {
    TaskLine { number: row.integer(0).unwrap_or_default(), text: row.text(1).unwrap_or_default() }
}
