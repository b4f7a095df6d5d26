//! `pipeline task`: named jobs, run here or by workers.
use std::io::{self, Write};
use std::path::Path;

use anyhow::Context;
use clap::Subcommand;
use serde_json::{Value as Json, json};

use super::archive::ListFormat;
use super::columns::aligned;
use super::{Exit, Global, UsageError};
use crate::stage::shutdown::Shutdown;
use crate::store::tasks::{Cancelled, Filter, Schedule};
use crate::task::{NewTask, Registry, Task, TaskLog, TaskStatus, TaskStore, Worker, next_time};

mod args;
mod codes;
mod show;

use self::args::parameters;
pub(super) use self::args::{
    IdArgs, ListArgs, LogsArgs, OldListArgs, OldRunArgs, RunArgs, ScheduleArgs, StatusArgs, SubmitArgs,
    WorkerArgs,
};
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
    /// End a task that is pending or running, and its steps
    Cancel(IdArgs),
    /// Make a failed or cancelled task pending again; steps that completed stay so
    Retry(IdArgs),
    Schedule(ScheduleArgs),
}

/// Runs it.
pub(super) async fn run(command: TaskCommand, global: &Global) -> anyhow::Result<Exit> {
    match command {
        TaskCommand::List(args) => list(&args, global).await,
        TaskCommand::Run(args) => run_now(&args, global).await,
        TaskCommand::Submit(args) => submit(&args, global).await,
        TaskCommand::Worker(args) => work(&args, global).await,
        TaskCommand::Status(args) => status(&args).await,
        TaskCommand::Logs(args) => logs(&args).await,
        TaskCommand::Cancel(args) => cancel(&args).await,
        TaskCommand::Retry(args) => {
            args.place.open().await?.retry(&args.id).await?;
            Ok(Exit::DONE)
        }
        TaskCommand::Schedule(args) => schedule(&args, global).await,
    }
}

async fn list(args: &ListArgs, global: &Global) -> anyhow::Result<Exit> {
    let registry = args.place.registry(global)?;
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
    let registry = args.place.registry(global)?;
    let new = registry.check(args.new.task())?;
    let store = args.place.open().await?;
    let id = store.submit(&new).await?;
    expect_name(&store, &id, &new.name).await?;
    let task = match run_to_end(&store, registry, &id, &args.task_log, !global.quiet).await? {
        Ok(task) => task,
        Err(code) => return Ok(Exit::Code(code)),
    };
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

/// The task that holds a `--unique` key stands for another one only where both run the same.
async fn expect_name(store: &TaskStore, id: &str, name: &str) -> anyhow::Result<()> {
    let held = store.existing(id).await?;
    if held.name == name {
        return Ok(());
    }
    let reason = format!("task {id} has that --unique key and runs {}; choose another key", held.name);
    Err(UsageError(reason).into())
}

/// The task as it ended; after a signal, which hands it back, the exit code.
async fn run_to_end(
    store: &TaskStore,
    registry: Registry,
    id: &str,
    task_log: &Path,
    is_shown: bool,
) -> anyhow::Result<Result<Task, u8>> {
    let shutdown = Shutdown::new();
    shutdown.listen().context("listen for signals")?;
    let worker = Worker::new(store.clone(), registry).with_root(id).with_log(TaskLog::new(task_log));
    let worked = {
        let follow = follow(store, id, is_shown);
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
        return Ok(Err(code));
    }
    Ok(Ok(store.existing(id).await?))
}

async fn submit(args: &SubmitArgs, global: &Global) -> anyhow::Result<Exit> {
    let mut new = args.place.registry(global)?.check(args.new.task())?;
    new.delay = args.delay.unwrap_or_default();
    let store = args.place.open().await?;
    let id = store.submit(&new).await?;
    expect_name(&store, &id, &new.name).await?;
    print(&format!("{id}\n"))?;
    Ok(Exit::DONE)
}

async fn work(args: &WorkerArgs, global: &Global) -> anyhow::Result<Exit> {
    let registry = args.place.registry(global)?;
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
            match store.is_drained().await {
                Ok(true) => {
                    shutdown.request();
                    return std::future::pending::<anyhow::Result<()>>().await;
                }
                Ok(false) => {}
                // the worker says so
                Err(error) if error.is_retriable() => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(FOLLOW).await;
        }
    };
    tokio::select! {
        worked = worker.run(&shutdown) => { worked?; }
        failed = drained, if args.drain => failed?,
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

async fn schedule(args: &ScheduleArgs, global: &Global) -> anyhow::Result<Exit> {
    let store = args.place.open().await?;
    if let Some(id) = &args.remove {
        return match store.remove_schedule(id).await? {
            true => Ok(Exit::DONE),
            false => Err(UsageError(format!("there is no schedule {id}")).into()),
        };
    }
    if let (Some(name), Some(cron)) = (&args.name, &args.cron) {
        let parameters = parameters(&args.param);
        let new = args.place.registry(global)?.check(NewTask { parameters, ..NewTask::new(name) })?;
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
pub(super) async fn old_run(args: &OldRunArgs, global: &Global) -> anyhow::Result<Exit> {
    let registry = args.place.registry(global)?;
    let store = args.place.open().await?;
    let id = Task::submit(&store, &registry, NewTask::new(&args.name).with_id(&args.id)).await?;
    let task = match run_to_end(&store, registry, &id, &args.task_log, false).await? {
        Ok(task) => task,
        Err(code) => return Ok(Exit::Code(code)),
    };
    print(&format!("{} - {} - {}\n", task.id, task.name, task.status))?;
    Ok(if task.status == TaskStatus::Completed { Exit::DONE } else { Exit::SOME_FAILED })
}

/// `task_status ID`.
pub(super) async fn old_status(args: &IdArgs) -> anyhow::Result<Exit> {
    let task = args.place.open().await?.existing(&args.id).await?;
    print(&format!("{} - {} - {}\n", task.id, task.name, task.status))?;
    Ok(Exit::DONE)
}
