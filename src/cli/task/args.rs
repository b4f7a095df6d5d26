//! Flags of `pipeline task`.
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use serde_json::{Value as Json, json};

use super::super::Global;
use super::super::archive::ListFormat;
use super::super::units::parse_duration;
use crate::store::{DEFAULT_DATABASE, DEFAULT_SCHEMA, DatabaseLocation};
use crate::task::{self, DEFAULT_TASK_LOG, NewTask, Parameters, Registry, TaskError, TaskStatus, TaskStore};

/// Where tasks are kept.
#[derive(Debug, Args)]
pub(in super::super) struct PlaceArgs {
    /// Where tasks are kept: sqlite://PATH or postgres://..
    #[arg(long, value_name = "URL", default_value = DEFAULT_DATABASE)]
    pub(super) database: String,
    /// Schema of Postgres
    #[arg(long, value_name = "NAME", default_value = DEFAULT_SCHEMA)]
    pub(super) schema: String,
    /// Folder of more SQL tasks (*.sql)
    #[arg(long, value_name = "DIR")]
    pub(super) sql_tasks: Option<PathBuf>,
}

impl PlaceArgs {
    pub(super) async fn open(&self) -> anyhow::Result<TaskStore> {
        let location = DatabaseLocation::parse(&self.database)?;
        Ok(TaskStore::try_open(&location, &self.schema).await?)
    }

    pub(super) fn registry(&self, global: &Global) -> Result<Registry, TaskError> {
        let registry = task::built_in(self.sql_tasks.as_deref())?;
        Ok(registry.with_log_types(global.log_types.as_deref()))
    }
}

/// Show what tasks there are, and the last ones that were submitted
#[derive(Debug, Args)]
pub(in super::super) struct ListArgs {
    #[command(flatten)]
    pub(super) place: PlaceArgs,
    /// Only tasks that are this
    #[arg(long, value_enum)]
    pub(super) status: Option<TaskStatus>,
    /// Only tasks of this name
    #[arg(long, value_name = "NAME")]
    pub(super) name: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value = "50")]
    pub(super) limit: u32,
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: ListFormat,
}

/// What to run, and with what.
#[derive(Debug, Args)]
pub(in super::super) struct NewArgs {
    /// Name of the task
    pub(super) name: String,
    /// Give it this id, which none may have [default: a new one]
    #[arg(long, value_name = "ID", value_parser = parse_id)]
    pub(super) id: Option<String>,
    /// Give it this parameter (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_parameter)]
    pub(super) param: Vec<(String, String)>,
    /// While a task with this key is not ended, that one stands for this
    #[arg(long, value_name = "KEY")]
    pub(super) unique: Option<String>,
    /// End an attempt that takes longer [default: what the task says]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) timeout: Option<Duration>,
}

/// Run a task now, in this process, and show what it says
#[derive(Debug, Args)]
pub(in super::super) struct RunArgs {
    #[command(flatten)]
    pub(super) new: NewArgs,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
    /// Append a line for each start and end to this file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_TASK_LOG)]
    pub(super) task_log: PathBuf,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: ListFormat,
}

/// Leave a task for a worker; prints its id
#[derive(Debug, Args)]
pub(in super::super) struct SubmitArgs {
    #[command(flatten)]
    pub(super) new: NewArgs,
    /// Not before so long from now
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) delay: Option<Duration>,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

/// Run tasks that were submitted or are scheduled, until stopped; any number of workers may share a database
#[derive(Debug, Args)]
pub(in super::super) struct WorkerArgs {
    /// Tasks at a time
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) concurrency: u16,
    /// A worker that was not heard of for this long has lost its tasks to others
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub(super) lease: Duration,
    /// Stop when no task is pending or running
    #[arg(long)]
    pub(super) drain: bool,
    /// Append a line for each start and end to this file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_TASK_LOG)]
    pub(super) task_log: PathBuf,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

/// Show a task, with its result and its steps
#[derive(Debug, Args)]
pub(in super::super) struct StatusArgs {
    /// Id of the task
    pub(super) id: String,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: ListFormat,
}

/// Show what a task said
#[derive(Debug, Args)]
pub(in super::super) struct LogsArgs {
    /// Id of the task
    pub(super) id: String,
    /// Go on until the task has ended
    #[arg(short, long)]
    pub(super) follow: bool,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(in super::super) struct IdArgs {
    /// Id of the task
    pub(super) id: String,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

/// Submit a task again and again; without a name, show what is scheduled
#[derive(Debug, Args)]
pub(in super::super) struct ScheduleArgs {
    /// Name of the task
    #[arg(requires = "cron")]
    pub(super) name: Option<String>,
    /// When: minute hour day month weekday, in UTC
    #[arg(long, value_name = "CRON", requires = "name")]
    pub(super) cron: Option<String>,
    /// Name of the schedule; one of the same name is replaced [default: the task's name]
    #[arg(long, value_name = "ID")]
    pub(super) id: Option<String>,
    /// Give the task this parameter (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_parameter)]
    pub(super) param: Vec<(String, String)>,
    /// Remove the schedule of this name
    #[arg(long, value_name = "ID", conflicts_with_all = ["name", "cron"])]
    pub(super) remove: Option<String>,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

/// `list_tasks`, `run_task` and `task_status`, as old scripts call them.
#[derive(Debug, Args)]
pub(in super::super) struct OldListArgs {
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(in super::super) struct OldRunArgs {
    #[arg(value_parser = parse_id)]
    pub(super) id: String,
    pub(super) name: String,
    /// Append a line for each start and end to this file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_TASK_LOG)]
    pub(super) task_log: PathBuf,
    #[command(flatten)]
    pub(super) place: PlaceArgs,
}

/// Lists have a line per task, and a variable of a script that is not set gives an empty text.
fn parse_id(text: &str) -> Result<String, String> {
    match text.trim().is_empty() || text.chars().any(char::is_control) {
        true => Err("write a text of one line that is not empty".into()),
        false => Ok(text.to_owned()),
    }
}

fn parse_parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if crate::client::redacted(value) != value {
        return Err("a password would be kept with the task; set PGPASSWORD for the worker instead".into());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The last of several values counts, but for what is a list: there they are all of it.
pub(super) fn parameters(given: &[(String, String)]) -> Parameters {
    let mut parameters = Parameters::new();
    for (name, value) in given {
        let value = match parameters.remove(name) {
            None => Json::from(value.as_str()),
            Some(Json::Array(mut values)) => {
                values.push(value.as_str().into());
                Json::Array(values)
            }
            Some(first) => json!([first, value]),
        };
        parameters.insert(name.clone(), value);
    }
    parameters
}

impl NewArgs {
    pub(super) fn task(&self) -> NewTask {
        let parameters = parameters(&self.param);
        NewTask {
            id: self.id.clone(),
            parameters,
            unique_key: self.unique.clone(),
            timeout: self.timeout,
            ..NewTask::new(&self.name)
        }
    }
}
