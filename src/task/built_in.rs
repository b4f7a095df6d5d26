//! The tasks of the program itself: one line each, or one file each for SQL.
use std::path::Path;
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::spec::{Kind, Parameter, TaskSpec, duration};
use super::{NewTask, Parameters, Registry, Step, TaskContext, TaskError, TaskFailure, jobs, sql};

/// All of them, with the SQL files of a site's folder.
pub fn registry(sql_folder: Option<&Path>) -> Result<Registry, TaskError> {
    let ping = TaskSpec::new("ping")
        .with_about("see that workers run: says a line, waits, and returns")
        .with_parameters(vec![
            optional("wait", Kind::Duration, "how long"),
            optional("say", Kind::Text, "what"),
        ]);
    let prune = TaskSpec::new("prune")
        .with_about("remove tasks that ended long ago")
        .with_parameters(vec![optional("older-than", Kind::Duration, "30d unless given")]);
    let nightly = TaskSpec::new("nightly")
        .with_about("compact and verify an archive, then ask the hunting questions of it, beside each other")
        .with_parameters(vec![optional("archive", Kind::Text, "which")])
        .with_attempts(2, Duration::from_secs(60));
    let registry = Registry::new()
        .with_spec(ping, ping_workers)
        .with_spec(prune, prune_tasks)
        .with_spec(nightly, run_nightly);
    sql::with_sql(jobs::with_jobs(registry), sql_folder)
}

fn optional(name: &str, kind: Kind, about: &str) -> Parameter {
    Parameter { name: name.to_owned(), kind, default: None, is_required: false, about: about.to_owned() }
}

fn text<'a>(parameters: &'a Parameters, name: &str) -> Option<&'a str> {
    parameters.get(name).and_then(Json::as_str)
}

async fn ping_workers(context: TaskContext, parameters: Parameters) -> Result<Json, TaskFailure> {
    let say = text(&parameters, "say").unwrap_or("pong");
    context.log(say).await?;
    if let Some(wait) = text(&parameters, "wait").and_then(duration) {
        tokio::time::sleep(wait).await;
    }
    Ok(json!({ "said": say, "attempt": context.task().attempt }))
}

async fn prune_tasks(context: TaskContext, parameters: Parameters) -> Result<Json, TaskFailure> {
    let older_than = text(&parameters, "older-than").unwrap_or("30d");
    let removed = context.store.remove_ended(duration(older_than).unwrap_or_default()).await?;
    context.log(&format!("removed {removed} tasks that ended more than {older_than} ago")).await?;
    Ok(json!({ "removed": removed }))
}

async fn run_nightly(context: TaskContext, parameters: Parameters) -> Result<Json, TaskFailure> {
    let of_archive = |name: &str, parameter: &str| {
        let new = NewTask::new(name);
        match text(&parameters, "archive") {
            Some(archive) => new.with_parameter(parameter, archive),
            None => new,
        }
    };
    let kept = context
        .in_turn(vec![
            Step::new("compact", of_archive("compact", "archive")),
            Step::new("verify", of_archive("verify", "into")),
        ])
        .await?;
    let hunts = ["brute_force", "dns_iocs", "lateral_movement"];
    let steps = hunts.iter().map(|name| Step::new(name, of_archive(name, "from")).tolerated()).collect();
    let hunted = context.in_parallel(steps).await?;
    let summary = kept.iter().chain(&hunted).map(|task| {
        let num_rows = task.result.as_ref().and_then(|result| result.get("num_rows").cloned());
        (task.name.clone(), json!({ "task": task.id, "status": task.status, "num_rows": num_rows }))
    });
    Ok(Json::Object(summary.collect()))
}
