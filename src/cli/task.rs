//! `pipeline task`: named jobs, run here or by workers.
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::{Value as Json, json};

use super::archive::ListFormat;
use super::columns::aligned;
use super::units::parse_duration;
use super::{Exit, Global, UsageError};
use crate::stage::shutdown::Shutdown;
use crate::store::tasks::{Cancelled, Filter, Schedule};
use crate::store::{DEFAULT_DATABASE, DEFAULT_SCHEMA, DatabaseLocation};
use crate::task::{
    self, DEFAULT_TASK_LOG, NewTask, Parameters, Registry, Task, TaskError, TaskLog, TaskStatus, TaskStore,
    Worker, next_time,
};

mod codes;
mod show;

pub(super) use self::codes::{exit_code, state_exit_code};
use self::show::{FOLLOW, PIECES, follow, last_lines, print, seconds, show, spec_json};

#[derive(Debug, Subcommand)]
pub(super) enum TaskCommand {
    List(ListArgs),
    Run(RunArgs),
    Submit(SubmitArgs),
    Worker(WorkerArgs),
    Status(StatusArgs),
    Logs(LogsArgs),
    Cancel(IdArgs),
    Retry(IdArgs),
    Schedule(ScheduleArgs),
}

/// Where tasks are kept.
#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    /// Where tasks are kept: sqlite://PATH or postgres://..
    #[arg(long, value_name = "URL", default_value = DEFAULT_DATABASE)]
    database: String,
    /// Schema of Postgres
    #[arg(long, value_name = "NAME", default_value = DEFAULT_SCHEMA)]
    schema: String,
    /// Folder of more SQL tasks (*.sql)
    #[arg(long, value_name = "DIR")]
    sql_tasks: Option<PathBuf>,
}

impl PlaceArgs {
    async fn open(&self) -> anyhow::Result<TaskStore> {
        let location = DatabaseLocation::parse(&self.database)?;
        Ok(TaskStore::try_open(&location, &self.schema).await?)
    }

    fn registry(&self) -> Result<Registry, TaskError> {
        task::built_in(self.sql_tasks.as_deref())
    }
}

/// Show what tasks there are, and the last ones that were submitted
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// Only tasks that are this
    #[arg(long, value_enum)]
    status: Option<TaskStatus>,
    /// Only tasks of this name
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value = "50")]
    limit: u32,
    /// Form of the list
    #[arg(long, value_enum, default_value_t)]
    output: ListFormat,
}

/// What to run, and with what.
#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// Name of the task
    name: String,
    /// Give it this id, which none may have [default: a new one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Give it this parameter (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_parameter)]
    param: Vec<(String, String)>,
    /// While a task with this key is not ended, that one stands for this
    #[arg(long, value_name = "KEY")]
    unique: Option<String>,
    /// End an attempt that takes longer [default: what the task says]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
}

/// Run a task now, in this process, and show what it says
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    new: NewArgs,
    #[command(flatten)]
    place: PlaceArgs,
    /// Append a line for each start and end to this file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_TASK_LOG)]
    task_log: PathBuf,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    output: ListFormat,
}

/// Leave a task for a worker; prints its id
#[derive(Debug, Args)]
pub(super) struct SubmitArgs {
    #[command(flatten)]
    new: NewArgs,
    /// Not before so long from now
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    delay: Option<Duration>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Run tasks that were submitted or are scheduled, until stopped; any number of workers may share a database
#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// Tasks at a time
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// A worker that was not heard of for this long has lost its tasks to others
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    lease: Duration,
    /// Stop when no task is pending or running
    #[arg(long)]
    drain: bool,
    /// Append a line for each start and end to this file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_TASK_LOG)]
    task_log: PathBuf,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Show a task, with its result and its steps
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Id of the task
    id: String,
    #[command(flatten)]
    place: PlaceArgs,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t)]
    output: ListFormat,
}

/// Show what a task said
#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Id of the task
    id: String,
    /// Go on until the task has ended
    #[arg(short, long)]
    follow: bool,
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(super) struct IdArgs {
    /// Id of the task
    id: String,
    #[command(flatten)]
    place: PlaceArgs,
}

/// Submit a task again and again; without a name, show what is scheduled
#[derive(Debug, Args)]
pub(super) struct ScheduleArgs {
    /// Name of the task
    #[arg(requires = "cron")]
    name: Option<String>,
    /// When: minute hour day month weekday, in UTC
    #[arg(long, value_name = "CRON", requires = "name")]
    cron: Option<String>,
    /// Name of the schedule; one of the same name is replaced [default: the task's name]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Give the task this parameter (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_parameter)]
    param: Vec<(String, String)>,
    /// Remove the schedule of this name
    #[arg(long, value_name = "ID", conflicts_with_all = ["name", "cron"])]
    remove: Option<String>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// `list_tasks`, `run_task` and `task_status`, as old scripts call them.
#[derive(Debug, Args)]
pub(super) struct OldListArgs {
    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Args)]
pub(super) struct OldRunArgs {
    id: String,
    name: String,
    #[command(flatten)]
    place: PlaceArgs,
}

fn parse_parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if crate::client::redacted(value) != value {
        return Err("a password would be kept with the task; set PGPASSWORD for the worker instead".into());
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The last of several values counts, but for what is a list: there they are all of it.
fn parameters(given: &[(String, String)]) -> Parameters {
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
    fn task(&self) -> NewTask {
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

/// Runs it.
pub(super) async fn run(command: TaskCommand, global: &Global) -> anyhow::Result<Exit> {
    match command {
        TaskCommand::List(args) => list(&args).await,
        TaskCommand::Run(args) => run_now(&args, global).await,
        TaskCommand::Submit(args) => submit(&args).await,
        TaskCommand::Worker(args) => work(&args).await,
        TaskCommand::Status(args) => status(&args).await,
        TaskCommand::Logs(args) => logs(&args).await,
        TaskCommand::Cancel(args) => cancel(&args).await,
        TaskCommand::Retry(args) => {
            args.place.open().await?.retry(&args.id).await?;
            Ok(Exit::DONE)
        }
        TaskCommand::Schedule(args) => schedule(&args).await,
    }
}

async fn list(args: &ListArgs) -> anyhow::Result<Exit> {
    let registry = args.place.registry()?;
    let store = args.place.open().await?;
    let filter = Filter { status: args.status, name: args.name.clone(), parent: None };
    let tasks = store.list(&filter, args.limit).await?;
    if args.output == ListFormat::Json {
        let known: Vec<_> = registry.specs().map(spec_json).collect();
        print(&format!("{}\n", json!({ "known": known, "tasks": tasks })))?;
        return Ok(Exit::DONE);
    }
    if args.status.is_none() && args.name.is_none() {
        for spec in registry.specs() {
            let parameters = spec.parameters.iter().flatten().map(|parameter| {
                let value = parameter.default.as_ref().map(|value| value.to_string().replace('"', ""));
                match (value, parameter.is_required) {
                    (Some(value), _) => format!("[{}={value}]", parameter.name),
                    (None, true) => parameter.name.clone(),
                    (None, false) => format!("[{}]", parameter.name),
                }
            });
            let parameters: Vec<_> = parameters.collect();
            print(&format!("{:<18}{}\n{:18}  {}\n", spec.name, spec.about, "", parameters.join(" ")))?;
        }
        print("\n")?;
    }
    let mut rows = vec![["name", "status", "attempt", "start", "seconds", "id"].map(str::to_owned).to_vec()];
    rows.extend(tasks.iter().map(|task| {
        vec![
            task.name.clone(),
            if task.is_waiting { "waiting".to_owned() } else { task.status.to_string() },
            task.attempt.to_string(),
            task.start_time.clone().unwrap_or_default(),
            seconds(task).map(|seconds| format!("{seconds:.3}")).unwrap_or_default(),
            task.id.clone(),
        ]
    }));
    print(&aligned(&rows))?;
    Ok(Exit::DONE)
}

async fn run_now(args: &RunArgs, global: &Global) -> anyhow::Result<Exit> {
    let registry = args.place.registry()?;
    let new = registry.check(args.new.task())?;
    let store = args.place.open().await?;
    let shutdown = Shutdown::new();
    shutdown.listen().context("listen for signals")?;
    let id = store.submit(&new).await?;
    let worker = Worker::new(store.clone(), registry).with_root(&id).with_log(TaskLog::new(&args.task_log));
    let worked = {
        let follow = follow(&store, &id, !global.quiet);
        let work = worker.run(&shutdown);
        tokio::pin!(follow, work);
        tokio::select! {
            worked = &mut work => worked,
            // it only fails
            Err(error) = &mut follow => return Err(error),
        }
    };
    worked?;
    if let Some(code) = shutdown.exit_code() {
        tracing::warn!("task {id} was handed back; a worker goes on with it, or `pipeline task cancel {id}`");
        return Ok(Exit::Code(code));
    }
    let task = store.existing(&id).await?;
    if !global.quiet {
        last_lines(&store, &id).await?;
    }
    show(&task, &store.children(&id).await?, args.output)?;
    match task.status {
        TaskStatus::Completed => Ok(Exit::DONE),
        _ => {
            let error = task.error.unwrap_or_default();
            super::print_error(&format!("task {id} {}: {error}", task.status))?;
            Ok(Exit::SOME_FAILED)
        }
    }
}

async fn submit(args: &SubmitArgs) -> anyhow::Result<Exit> {
    let mut new = args.place.registry()?.check(args.new.task())?;
    new.delay = args.delay.unwrap_or_default();
    let id = args.place.open().await?.submit(&new).await?;
    print(&format!("{id}\n"))?;
    Ok(Exit::DONE)
}

async fn work(args: &WorkerArgs) -> anyhow::Result<Exit> {
    let registry = args.place.registry()?;
    let store = args.place.open().await?;
    let shutdown = Shutdown::new();
    shutdown.listen().context("listen for signals")?;
    let worker = Worker::new(store.clone(), registry)
        .with_concurrency(usize::from(args.concurrency))
        .with_lease(args.lease)
        .with_log(TaskLog::new(&args.task_log));
    writeln!(io::stderr(), "worker takes tasks of {}", crate::client::redacted(&args.place.database))?;
    let drained = async {
        loop {
            let counts = store.count_by_status().await?;
            let open = counts.iter().filter(|(status, _)| !status.is_ended()).map(|(_, count)| count);
            if args.drain && open.sum::<u64>() == 0 {
                shutdown.request();
                return std::future::pending::<anyhow::Result<()>>().await;
            }
            tokio::time::sleep(FOLLOW).await;
        }
    };
    tokio::select! {
        worked = worker.run(&shutdown) => drop(worked?),
        failed = drained => failed?,
    }
    Ok(shutdown.exit_code().map_or(Exit::DONE, Exit::Code))
}

async fn status(args: &StatusArgs) -> anyhow::Result<Exit> {
    let store = args.place.open().await?;
    let task = store.existing(&args.id).await?;
    show(&task, &store.children(&args.id).await?, args.output)?;
    Ok(Exit::DONE)
}

async fn logs(args: &LogsArgs) -> anyhow::Result<Exit> {
    let store = args.place.open().await?;
    let mut after = 0;
    let mut task = store.existing(&args.id).await?;
    loop {
        let pieces = store.lines(&args.id, after, PIECES).await?;
        for piece in &pieces {
            print(&format!("{}\n", piece.text))?;
            after = piece.number;
        }
        if pieces.is_empty() {
            if !args.follow || task.status.is_ended() {
                return Ok(Exit::DONE);
            }
            tokio::time::sleep(FOLLOW).await;
            // read before the lines: what it says before it ends is shown
            task = store.existing(&args.id).await?;
        }
    }
}

async fn cancel(args: &IdArgs) -> anyhow::Result<Exit> {
    let done = args.place.open().await?.cancel(&args.id).await?;
    let said = match done {
        Cancelled::Done => "cancelled",
        Cancelled::Requested => "its worker was told to end it",
    };
    print(&format!("{said}\n"))?;
    Ok(Exit::DONE)
}

async fn schedule(args: &ScheduleArgs) -> anyhow::Result<Exit> {
    let store = args.place.open().await?;
    if let Some(id) = &args.remove {
        return match store.remove_schedule(id).await? {
            true => Ok(Exit::DONE),
            false => Err(UsageError(format!("there is no schedule {id}")).into()),
        };
    }
    if let (Some(name), Some(cron)) = (&args.name, &args.cron) {
        let parameters = parameters(&args.param);
        let new = args.place.registry()?.check(NewTask { parameters, ..NewTask::new(name) })?;
        let schedule = Schedule {
            id: args.id.clone().unwrap_or_else(|| name.clone()),
            name: name.clone(),
            parameters: new.parameters,
            cron: cron.clone(),
            next_at: next_time(cron, chrono::Utc::now())?,
        };
        store.set_schedule(&schedule).await?;
    }
    let mut rows = vec![["schedule", "task", "cron", "next", "parameters"].map(str::to_owned).to_vec()];
    rows.extend(store.schedules().await?.into_iter().map(|schedule| {
        let parameters = Json::Object(schedule.parameters).to_string();
        vec![schedule.id, schedule.name, schedule.cron, schedule.next_at, parameters]
    }));
    print(&aligned(&rows))?;
    Ok(Exit::DONE)
}

/// `list_tasks`: the known names, then a line per task.
pub(super) async fn old_list(args: &OldListArgs) -> anyhow::Result<Exit> {
    for task in args.place.open().await?.list(&Filter::default(), u32::MAX).await? {
        print(&format!("{} - {} - {}\n", task.id, task.name, task.status))?;
    }
    Ok(Exit::DONE)
}

/// `run_task ID NAME`.
pub(super) async fn old_run(args: &OldRunArgs) -> anyhow::Result<Exit> {
    let registry = args.place.registry()?;
    let store = args.place.open().await?;
    let task = Task::run(&store, &registry, NewTask::new(&args.name).with_id(&args.id)).await?;
    print(&format!("{} - {} - {}\n", task.id, task.name, task.status))?;
    Ok(if task.status == TaskStatus::Completed { Exit::DONE } else { Exit::SOME_FAILED })
}

/// `task_status ID`.
pub(super) async fn old_status(args: &IdArgs) -> anyhow::Result<Exit> {
    let task = args.place.open().await?.existing(&args.id).await?;
    print(&format!("{} - {} - {}\n", task.id, task.name, task.status))?;
    Ok(Exit::DONE)
}
