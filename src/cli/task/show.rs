//! How tasks look: in lists, one by one, and what they say while they run.
use std::io::{self, Write};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::super::archive::ListFormat;
use crate::task::{Task, TaskSpec, TaskStore};

/// Pieces of a task's lines that are read at once.
pub(super) const PIECES: u32 = 500;
/// Lines of a running task are looked for so often.
pub(super) const FOLLOW: Duration = Duration::from_millis(200);

pub(super) fn print(text: &str) -> io::Result<()> {
    io::stdout().write_all(text.as_bytes())
}

pub(super) fn spec_json(spec: &TaskSpec) -> Json {
    let parameters = spec.parameters.iter().flatten().map(|parameter| {
        json!({
            "name": parameter.name, "kind": parameter.kind.name(), "default": parameter.default,
            "required": parameter.is_required, "about": parameter.about,
        })
    });
    json!({ "name": spec.name, "about": spec.about, "parameters": parameters.collect::<Vec<_>>() })
}

pub(super) fn seconds(task: &Task) -> Option<f64> {
    let time = |text: &Option<String>| chrono::DateTime::parse_from_rfc3339(text.as_deref()?).ok();
    let took = time(&task.end_time)? - time(&task.start_time)?;
    Some(took.num_milliseconds() as f64 / 1000.0)
}

/// What a task says, on standard error as it says it; does not end by itself.
pub(super) async fn follow(
    store: &TaskStore,
    id: &str,
    mut is_wanted: bool,
) -> anyhow::Result<std::convert::Infallible> {
    let mut after = 0;
    loop {
        if is_wanted {
            let pieces = match store.lines(id, after, PIECES).await {
                // the worker says so, and goes on later
                Err(error) if error.is_retriable() => Vec::new(),
                pieces => pieces?,
            };
            for piece in pieces {
                // the task goes on where nobody reads what it says
                is_wanted &= writeln!(io::stderr(), "{}", piece.text).is_ok();
                after = piece.number;
            }
            SHOWN.store(after, Ordering::Relaxed);
        }
        tokio::time::sleep(FOLLOW).await;
    }
}

/// The last piece that [`follow`] showed: the command shows one task.
static SHOWN: AtomicI64 = AtomicI64::new(0);

pub(super) async fn last_lines(store: &TaskStore, id: &str) -> anyhow::Result<()> {
    let mut after = SHOWN.load(Ordering::Relaxed);
    loop {
        let pieces = store.lines(id, after, PIECES).await?;
        let Some(last) = pieces.last() else { return Ok(()) };
        after = last.number;
        for piece in &pieces {
            writeln!(io::stderr(), "{}", piece.text)?;
        }
    }
}

pub(super) fn show(task: &Task, steps: &[Task], format: ListFormat) -> anyhow::Result<()> {
    if format == ListFormat::Json {
        let mut task = serde_json::to_value(task)?;
        task["steps"] = serde_json::to_value(steps)?;
        print(&format!("{task}\n"))?;
        return Ok(());
    }
    print(&format!("{} - {} - {}\n", task.id, task.name, task.status))?;
    if task.is_waiting {
        print("waits for its steps\n")?;
    }
    let took = seconds(task).map(|seconds| format!("{seconds:.3} s")).unwrap_or_default();
    let facts = [
        ("start", task.start_time.clone()),
        ("end", task.end_time.clone()),
        ("took", Some(took).filter(|took| !took.is_empty())),
        ("attempt", Some(format!("{} of {}", task.attempt, task.attempts_before + task.max_attempts))),
        ("worker", task.worker.clone()),
        ("parameters", Some(Json::Object(task.parameters.clone()).to_string())),
        ("error", task.error.clone()),
        ("result", task.result.as_ref().map(|result| format!("{result:#}"))),
    ];
    for (name, value) in facts {
        if let Some(value) = value {
            print(&format!("{name:<12}{value}\n"))?;
        }
    }
    for step in steps {
        let name = step.step.as_deref().unwrap_or_default();
        print(&format!("step {name}: {} - {} - {}\n", step.id, step.name, step.status))?;
    }
    Ok(())
}
