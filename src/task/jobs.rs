//! The program's long jobs as tasks: each is this program with other arguments, as a child process.
use std::time::Duration;

use serde_json::{Value as Json, json};

use super::spec::{Kind, Parameter, TaskSpec};
use super::{Parameters, Registry, TaskContext, TaskFailure, child};

/// A command as a task.
struct Job {
    name: &'static str,
    about: &'static str,
    /// What comes before the parameters.
    command: &'static [&'static str],
    parameters: &'static [Given],
}

/// A flag of the command as a parameter: its name, kind, whether it must be given, and what it means.
struct Given(&'static str, Kind, Need, &'static str);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Optional,
    Required,
    /// Not a flag, but arguments.
    Paths,
}

use Kind::{Duration as Span, Flag, Integer, List, Text, Time};
use Need::{Optional, Paths, Required};

const JOBS: &[Job] = &[
    Job {
        name: "ingest",
        about: "read log files and store them, as `pipeline run`",
        command: &["run", "--output=json"],
        parameters: &[
            Given("paths", List, Paths, "files, folders, globs and objects"),
            Given("into", List, Optional, "archives and databases"),
            Given("via", Text, Optional, "memory, or redis://.."),
            Given("schema", Text, Optional, "schema of Postgres"),
            Given("fail-on-rejects", Flag, Optional, "fail when a line was rejected"),
        ],
    },
    Job {
        name: "export",
        about: "copy sealed days from Postgres to an archive, as `pipeline archive export`",
        command: &["archive", "export", "--output=json"],
        parameters: &[
            Given("from", Text, Optional, "postgres://.."),
            Given("archive", Text, Optional, "where to"),
            Given("schema", Text, Optional, "schema of Postgres"),
            Given("older-than", Span, Optional, "days that ended this long ago"),
            Given("dry-run", Flag, Optional, "only say what would be done"),
        ],
    },
    Job {
        name: "retention",
        about: "move days that are old enough from Postgres to an archive, and drop them in Postgres",
        command: &["archive", "export", "--drop", "--output=json"],
        parameters: &[
            Given("from", Text, Optional, "postgres://.."),
            Given("archive", Text, Optional, "where to"),
            Given("schema", Text, Optional, "schema of Postgres"),
            Given("older-than", Span, Required, "days that ended this long ago move"),
            Given(
                "keep",
                Span,
                Optional,
                "of those, Postgres keeps the ones that ended less than this long ago",
            ),
            Given("dry-run", Flag, Optional, "only say what would be done"),
        ],
    },
    Job {
        name: "compact",
        about: "make few large files of an archive's small ones, as `pipeline archive compact`",
        command: &["archive", "compact", "--output=json"],
        parameters: &[
            Given("archive", Text, Optional, "which"),
            Given("dry-run", Flag, Optional, "only say what would be done"),
        ],
    },
    Job {
        name: "verify",
        about: "check that every line is accounted for, as `pipeline verify`",
        command: &["verify", "--output=json"],
        parameters: &[
            Given("paths", List, Paths, "what must be stored to its end"),
            Given("into", List, Optional, "archives and databases to check"),
            Given("schema", Text, Optional, "schema of Postgres"),
            Given("count", Flag, Optional, "also count rows"),
            Given("content", Flag, Optional, "also compare the lines"),
        ],
    },
    Job {
        name: "fetch",
        about: "download the files of a manifest and store their lines, as `pipeline fetch`",
        command: &["fetch", "--processor=ingest", "--output=json"],
        parameters: &[
            Given("files", Text, Required, "manifest"),
            Given("into", List, Optional, "archives and databases"),
            Given("schema", Text, Optional, "schema of Postgres"),
            Given("strict", Flag, Optional, "fetch nothing where an entry cannot be used"),
            Given("revalidate", Flag, Optional, "fetch again what has changed"),
            Given("retry-failed", Flag, Optional, "only what failed before"),
        ],
    },
    Job {
        name: "cost",
        about: "reckon what a recorded run costs at other volumes, as `pipeline cost`",
        command: &["cost", "--output=json"],
        parameters: &[
            Given("prices", Text, Optional, "price file"),
            Given("run", Text, Optional, "recorded run"),
            Given("hot", Span, Optional, "how long lines are in Postgres"),
            Given("cold", Span, Optional, "how long lines are in the archive"),
        ],
    },
    Job {
        name: "generate",
        about: "make test logs, as `pipeline generate`",
        command: &["generate"],
        parameters: &[
            Given("out", Text, Required, "folder"),
            Given("files", Integer, Optional, "how many"),
            Given("lines", Integer, Optional, "lines of each"),
            Given("seed", Integer, Optional, "same seed, same lines"),
            Given(
                "force",
                Flag,
                Optional,
                "replace files that are there, as after an attempt that was killed",
            ),
        ],
    },
    Job {
        name: "replay",
        about: "decode stored lines of a time anew, as `pipeline replay`",
        command: &["replay"],
        parameters: &[
            Given("into", List, Optional, "archives and databases"),
            Given("schema", Text, Optional, "schema of Postgres"),
            Given("from", Time, Required, "first moment"),
            Given("to", Time, Required, "the moment after the last"),
        ],
    },
];

/// `registry` with all of them.
pub(super) fn with_jobs(mut registry: Registry) -> Registry {
    for job in JOBS {
        let spec = TaskSpec::new(job.name)
            .with_about(job.about)
            .with_parameters(job.parameters.iter().map(parameter).collect())
            .with_attempts(3, Duration::from_secs(5));
        registry = registry.with_spec(spec, move |context: TaskContext, parameters: Parameters| async move {
            let arguments = arguments(job, &parameters);
            context.log(&format!("pipeline {}", arguments.join(" "))).await?;
            result(child::run(&context, arguments, String::new()).await?)
        });
    }
    registry
}

fn parameter(given: &Given) -> Parameter {
    Parameter {
        name: given.0.to_owned(),
        kind: given.1,
        default: None,
        is_required: given.2 == Required,
        about: given.3.to_owned(),
    }
}

/// Every value after `=`, paths after `--`: no value is taken for a flag.
fn arguments(job: &Job, parameters: &Parameters) -> Vec<String> {
    let mut arguments: Vec<String> = job.command.iter().map(|word| (*word).to_owned()).collect();
    let mut paths = Vec::new();
    for Given(name, _, need, _) in job.parameters {
        let texts: Vec<String> = match parameters.get(*name) {
            None | Some(Json::Bool(false)) => continue,
            Some(Json::Bool(true)) => {
                arguments.push(format!("--{name}"));
                continue;
            }
            Some(Json::Array(items)) => items.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
            Some(Json::String(text)) => vec![text.clone()],
            Some(other) => vec![other.to_string()],
        };
        match need {
            Paths => paths.extend(texts),
            Optional | Required => arguments.extend(texts.iter().map(|text| format!("--{name}={text}"))),
        }
    }
    if !paths.is_empty() {
        arguments.push("--".to_owned());
        arguments.extend(paths);
    }
    arguments
}

/// What a command printed, as JSON where it is that.
pub(super) fn result(end: child::ChildEnd) -> Result<Json, TaskFailure> {
    Ok(parsed(&succeeded(end)?))
}

/// What a command printed. A mistake on the command line or in the configuration, or a check that failed, would be the
/// same the next time.
pub(super) fn succeeded(end: child::ChildEnd) -> Result<String, TaskFailure> {
    let error =
        |code: &str| end.error.clone().unwrap_or_else(|| format!("it ended with {code} and said no error"));
    match end.code {
        Some(0) => Ok(end.stdout),
        Some(code @ 1..=3) => Err(TaskFailure::Permanent(match end.stdout.trim() {
            "" => error(&format!("exit code {code}")),
            said => format!("{}; {}", error(&format!("exit code {code}")), shortened(said)),
        })),
        Some(code) => Err(TaskFailure::Failed(error(&format!("exit code {code}")))),
        None => Err(TaskFailure::Failed(error("a signal"))),
    }
}

fn parsed(stdout: &str) -> Json {
    match serde_json::from_str(stdout) {
        Ok(json) => json,
        Err(_) if stdout.trim().is_empty() => Json::Null,
        Err(_) => json!(stdout.trim_end()),
    }
}

pub(super) fn shortened(text: &str) -> String {
    const MAX: usize = 2000;
    match text.char_indices().nth(MAX) {
        Some((end, _)) => format!("{} ..", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_is_taken_for_a_flag() {
        let given = json!({ "paths": ["--into=x", "-"], "into": ["a", "--b"], "fail-on-rejects": true });
        let Json::Object(given) = given else { unreachable!() };
        let all =
            ["run", "--output=json", "--into=a", "--into=--b", "--fail-on-rejects", "--", "--into=x", "-"];
        assert_eq!(arguments(&JOBS[0], &given), all);
    }
}
