//! Tasks that are submitted again and again. When the next one is due is for the caller to say.
use super::rows::parameters;
use super::{NewTask, Parameters, TaskStore, TaskStoreError};
use crate::store::{Row, Statement, Value};

/// A task that is submitted at the times of a cron expression, in UTC.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Schedule {
    /// Unique.
    pub id: String,
    /// What to run.
    pub name: String,
    /// What it is given.
    pub parameters: Parameters,
    /// `minute hour day month weekday`.
    pub cron: String,
    /// The next time, ISO 8601 in UTC.
    pub next_at: String,
}

const COLUMNS: &str = "id, name, parameters, cron, {iso next_at}";

fn schedule(row: &Row) -> Schedule {
    let text = |column| row.text(column).unwrap_or_default();
    Schedule {
        id: text(0),
        name: text(1),
        parameters: parameters(row.text(2)),
        cron: text(3),
        next_at: text(4),
    }
}

impl TaskStore {
    /// Adds it, or replaces the one of the same id.
    pub async fn set_schedule(&self, schedule: &Schedule) -> Result<(), TaskStoreError> {
        let sql = "INSERT INTO task_schedules (id, name, parameters, cron, next_at) \
             VALUES ($1, $2, $3, $4, {time $5}) ON CONFLICT (id) DO UPDATE SET name = excluded.name, \
             parameters = excluded.parameters, cron = excluded.cron, next_at = excluded.next_at";
        let values: [Value; 5] = [
            schedule.id.as_str().into(),
            schedule.name.as_str().into(),
            serde_json::Value::Object(schedule.parameters.clone()).to_string().into(),
            schedule.cron.as_str().into(),
            schedule.next_at.as_str().into(),
        ];
        self.database.transaction("keep a schedule", vec![Statement::new(sql, values)]).await?;
        Ok(())
    }

    /// All, by id.
    pub async fn schedules(&self) -> Result<Vec<Schedule>, TaskStoreError> {
        let sql = format!("SELECT {COLUMNS} FROM task_schedules ORDER BY id");
        let rows = self.database.rows("read schedules", Statement::new(sql, [])).await?;
        Ok(rows.iter().map(schedule).collect())
    }

    /// Those whose time has come.
    pub async fn due_schedules(&self) -> Result<Vec<Schedule>, TaskStoreError> {
        let sql = format!("SELECT {COLUMNS} FROM task_schedules WHERE next_at <= {{now}} ORDER BY id");
        let rows = self.database.rows("read schedules", Statement::new(sql, [])).await?;
        Ok(rows.iter().map(schedule).collect())
    }

    /// Submits `task` for a schedule whose time has come, unless another worker was first. A worker that dies
    /// between the two leaves the time as it was, and the unique key keeps the task from being submitted twice.
    pub async fn fire(
        &self,
        schedule: &Schedule,
        task: NewTask,
        next_at: &str,
    ) -> Result<bool, TaskStoreError> {
        let unique_key = Some(format!("schedule {}", schedule.id));
        let task = NewTask { unique_key, schedule: Some(schedule.id.clone()), ..task };
        let id = format!("{}-{}", schedule.id, schedule.next_at);
        match self.submit(&task.with_id(&id)).await {
            Ok(_) | Err(TaskStoreError::IdTaken(_)) => {}
            Err(error) => return Err(error),
        }
        let sql = "UPDATE task_schedules SET next_at = {time $3} WHERE id = $1 AND next_at = {time $2} RETURNING id";
        let values: [Value; 3] =
            [schedule.id.as_str().into(), schedule.next_at.as_str().into(), next_at.into()];
        let rows = self.database.transaction("move a schedule on", vec![Statement::new(sql, values)]).await?;
        Ok(!rows[0].is_empty())
    }

    /// Whether there was one of this id.
    pub async fn remove_schedule(&self, id: &str) -> Result<bool, TaskStoreError> {
        let sql = "DELETE FROM task_schedules WHERE id = $1 RETURNING id";
        let rows =
            self.database.transaction("remove a schedule", vec![Statement::new(sql, [id.into()])]).await?;
        Ok(!rows[0].is_empty())
    }
}

impl TaskStore {
    /// The last aggregates of the receiver in the same database, where there are any.
    pub async fn windows(&self, limit: u32) -> Result<Vec<serde_json::Value>, TaskStoreError> {
        let sql = "SELECT CAST(window_start AS TEXT), CAST(window_end AS TEXT), event_type, CAST(count AS TEXT), \
             CAST(sum_value AS TEXT), CAST(avg_value AS TEXT), CAST(unique_users AS TEXT) \
             FROM aggregated_data ORDER BY window_start DESC, event_type LIMIT $1";
        let statement = Statement::new(sql, [i64::from(limit).into()]);
        let Ok(rows) = self.database.rows("read windows", statement).await else { return Ok(Vec::new()) };
        let names =
            ["window_start", "window_end", "event_type", "count", "sum_value", "avg_value", "unique_users"];
        let object = |row: &Row| {
            let texts =
                names.iter().enumerate().map(|(column, name)| ((*name).to_owned(), row.text(column).into()));
            serde_json::Value::Object(texts.collect())
        };
        Ok(rows.iter().map(object).collect())
    }
}
