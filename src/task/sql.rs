//! SQL files as tasks: what they take and where they read is said in comments at their top.
//!
//! ```sql
//! -- task: top_talkers
//! -- about: source addresses with most firewall events
//! -- side: archive                       (or postgres: where `from` is unless given)
//! -- parameter: limit integer = 20       (NAME KIND [= DEFAULT]; {limit} in the statement is its value, quoted)
//! -- rows: 1000                          (as many go into the task's result; that there were more is said)
//! ```
//!
//! A value is text of the statement only after its kind was checked and, where it is no number, quoted. The statement
//! is run by `pipeline query`, which only reads.
use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Deserializer;
use serde::de::{self, DeserializeSeed, IgnoredAny, SeqAccess, Visitor};
use serde_json::{Value as Json, json};

use super::jobs::{shortened, succeeded};
use super::spec::{Kind, Parameter, TaskSpec};
use super::{Parameters, Registry, TaskContext, TaskError, TaskFailure, child};
use crate::client;

/// Those of the program.
const BUILT_IN: &[(&str, &str)] = &[
    ("sql/tasks/brute_force.sql", include_str!("../../sql/tasks/brute_force.sql")),
    ("sql/tasks/dns_iocs.sql", include_str!("../../sql/tasks/dns_iocs.sql")),
    ("sql/tasks/hourly_volume.sql", include_str!("../../sql/tasks/hourly_volume.sql")),
    ("sql/tasks/lateral_movement.sql", include_str!("../../sql/tasks/lateral_movement.sql")),
    ("sql/tasks/top_talkers.sql", include_str!("../../sql/tasks/top_talkers.sql")),
];
/// What a parameter of kind `indicators` names unless there is such a file.
const INDICATORS: (&str, &str) = ("data/iocs.txt", include_str!("../../data/iocs.txt"));
const DEFAULT_ARCHIVE: &str = "./pipeline-data/archive";
const DEFAULT_ROWS: usize = 1000;

/// A file.
#[derive(Debug, Clone)]
struct SqlTask {
    spec: TaskSpec,
    /// Names of parameters that are files of indicators.
    lists: Vec<String>,
    side: Side,
    max_rows: usize,
    sql: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Archive,
    Postgres,
}

/// `registry` with the program's own and those of `folder`, which may replace them.
pub(super) fn with_sql(mut registry: Registry, folder: Option<&Path>) -> Result<Registry, TaskError> {
    for (path, text) in BUILT_IN {
        registry = add(registry, parse(path, text)?);
    }
    let Some(folder) = folder else { return Ok(registry) };
    let failed = |path: &Path, error: std::io::Error| TaskError::Definition {
        path: path.display().to_string(),
        reason: format!("cannot be read: {error}"),
    };
    let entries = std::fs::read_dir(folder).map_err(|error| failed(folder, error))?;
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    paths.sort();
    for path in paths {
        let text = std::fs::read_to_string(&path).map_err(|error| failed(&path, error))?;
        registry = add(registry, parse(&path.display().to_string(), &text)?);
    }
    Ok(registry)
}

fn add(registry: Registry, task: SqlTask) -> Registry {
    let spec = task.spec.clone();
    registry.with_spec(spec, move |context: TaskContext, parameters: Parameters| {
        let task = task.clone();
        async move {
            let sql = statement(&task, &parameters).map_err(TaskFailure::Permanent)?;
            let from = match (parameters.get("from").and_then(Json::as_str), task.side) {
                (Some(from), _) => from.to_owned(),
                (None, Side::Archive) => DEFAULT_ARCHIVE.to_owned(),
                (None, Side::Postgres) => client::default_postgres_url(),
            };
            let shown = shortened(&sql);
            context.log(&format!("from {}: {shown}", client::redacted(&from))).await?;
            let mut arguments =
                vec!["query".to_owned(), "--output=json".to_owned(), format!("--from={from}")];
            if let Some(schema) = parameters.get("schema").and_then(Json::as_str) {
                arguments.push(format!("--schema={schema}"));
            }
            // a list of indicators may be longer than an argument can be
            arguments.push("--file=-".to_owned());
            let end = child::run(&context, arguments, sql).await?;
            // no row prints nothing
            let rows = Rows { max_rows: task.max_rows };
            let printed = succeeded(end)?;
            let rows = match printed.trim() {
                "" => rows.deserialize(json!([])),
                printed => {
                    let mut answers = serde_json::Deserializer::from_str(printed);
                    let first = rows.deserialize(&mut answers);
                    first.and_then(|rows| match answers.end() {
                        Ok(()) => Ok(rows),
                        Err(_) => Err(de::Error::custom("it is of several statements; keep one in the file")),
                    })
                }
            };
            rows.map_err(|error| {
                TaskFailure::Permanent(format!("the query's answer cannot be read: {error}"))
            })
        }
    })
}

/// Counts the rows of an array and keeps the first ones.
struct Rows {
    max_rows: usize,
}

impl<'de> DeserializeSeed<'de> for Rows {
    type Value = Json;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Json, D::Error> {
        from.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Rows {
    type Value = Json;

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an array of rows")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
        let (mut rows, mut num_rows) = (Vec::new(), 0_usize);
        while rows.len() < self.max_rows {
            let Some(row) = seq.next_element::<Json>()? else { break };
            rows.push(row);
            num_rows += 1;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {
            num_rows += 1;
        }
        Ok(json!({ "num_rows": num_rows, "rows": rows }))
    }
}

fn parse(path: &str, text: &str) -> Result<SqlTask, TaskError> {
    let fail = |reason: String| TaskError::Definition { path: path.to_owned(), reason };
    let (mut name, mut about, mut side, mut max_rows) = (None, String::new(), Side::Archive, DEFAULT_ROWS);
    let (mut parameters, mut lists) = (Vec::new(), Vec::new());
    let head = text.lines().map_while(|line| line.strip_prefix("--"));
    for line in head {
        let Some((key, value)) = line.split_once(':') else { continue };
        let value = value.trim();
        match key.trim() {
            "task" if !value.is_empty() => name = Some(value.to_owned()),
            "about" => about = value.to_owned(),
            "side" => {
                side = match value {
                    "archive" => Side::Archive,
                    "postgres" => Side::Postgres,
                    other => {
                        return Err(fail(format!("side {other} is not known; write archive or postgres")));
                    }
                }
            }
            "rows" => max_rows = value.parse().map_err(|_| fail(format!("rows: {value} is no number")))?,
            "parameter" => {
                let (parameter, is_list) = declared(value)
                    .ok_or_else(|| fail(format!("parameter: {value} is not NAME KIND [= DEFAULT]")))?;
                if is_list {
                    lists.push(parameter.name.clone());
                }
                parameters.push(parameter);
            }
            _ => {}
        }
    }
    let name = name.ok_or_else(|| fail("has no line `-- task: NAME`".to_owned()))?;
    let sql: Vec<_> = text.lines().skip_while(|line| line.starts_with("--")).collect();
    let sql = sql.join("\n").trim().trim_end_matches(';').to_owned();
    for optional in ["from", "schema"] {
        let about =
            if optional == "from" { "archive or postgres://.. to read" } else { "schema of Postgres" };
        parameters.push(Parameter {
            name: optional.to_owned(),
            kind: Kind::Text,
            default: None,
            is_required: false,
            about: about.to_owned(),
        });
    }
    let spec = TaskSpec::new(&name)
        .with_about(&about)
        .with_parameters(parameters)
        .with_attempts(3, Duration::from_secs(5))
        .with_timeout(Duration::from_secs(3600));
    Ok(SqlTask { spec, lists, side, max_rows, sql })
}

/// `NAME KIND [= DEFAULT]`; kind `indicators` is a text that names a file.
fn declared(text: &str) -> Option<(Parameter, bool)> {
    let (head, default) = match text.split_once('=') {
        Some((head, default)) => (head, Some(default.trim())),
        None => (text, None),
    };
    let (name, kind) = head.trim().split_once(' ')?;
    let is_list = kind.trim() == "indicators";
    let kind = if is_list { Kind::Text } else { Kind::of(kind.trim())? };
    let parameter = Parameter {
        name: name.to_owned(),
        kind,
        default: default.map(Json::from),
        is_required: default.is_none(),
        about: if is_list { "file of indicators, one per line".to_owned() } else { kind.name().to_owned() },
    };
    Some((parameter, is_list))
}

/// The SQL with its parameters' values in place of `{NAME}`; a value's own braces mean nothing.
fn statement(task: &SqlTask, parameters: &Parameters) -> Result<String, String> {
    let mut values = HashMap::new();
    for parameter in task.spec.parameters.iter().flatten() {
        let Some(value) = parameters.get(&parameter.name) else { continue };
        let literal = match task.lists.contains(&parameter.name) {
            true => indicators(value.as_str().unwrap_or_default())?,
            false => literal(parameter.kind, value),
        };
        values.insert(parameter.name.as_str(), literal);
    }
    let (mut sql, mut rest) = (String::new(), task.sql.as_str());
    while let Some((before, behind)) = rest.split_once('{') {
        sql.push_str(before);
        let named = behind.split_once('}').and_then(|(name, behind)| Some((values.get(name)?, behind)));
        match named {
            Some((value, behind)) => {
                sql.push_str(value);
                rest = behind;
            }
            None => {
                sql.push('{');
                rest = behind;
            }
        }
    }
    Ok(sql + rest)
}

fn literal(kind: Kind, value: &Json) -> String {
    match (kind, value) {
        (Kind::Integer | Kind::Flag, value) => value.to_string(),
        (Kind::Duration, Json::String(text)) => {
            let millis = super::spec::duration(text).unwrap_or_default().as_millis();
            format!("INTERVAL '{millis} milliseconds'")
        }
        (_, Json::String(text)) => quoted(text),
        (_, Json::Array(items)) => {
            items.iter().filter_map(Json::as_str).map(quoted).collect::<Vec<_>>().join(", ")
        }
        (_, other) => quoted(&other.to_string()),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// The file's names as rows of a VALUES list. Case and a dot at the end mean nothing in a name.
fn indicators(path: &str) -> Result<String, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(_) if path == INDICATORS.0 => INDICATORS.1.to_owned(),
        Err(error) => return Err(format!("{path}: the list of indicators cannot be read: {error}")),
    };
    let names = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let names = names.map(|name| name.trim_end_matches('.').to_lowercase()).filter(|name| !name.is_empty());
    let rows: Vec<_> = names.map(|name| format!("({})", quoted(&name))).collect();
    if rows.is_empty() {
        Err(format!("{path}: holds no indicator; write one name per line"))
    } else {
        Ok(rows.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_become_literals_and_never_more_than_that() {
        let text = "-- task: t\n-- parameter: n integer = 5\n-- parameter: who text\n-- parameter: w duration = 5m\nSELECT {n}, {who}, {w}";
        let task = parse("t.sql", text).unwrap();
        let given = json!({ "who": "x' OR '1'='1" });
        let checked = task.spec.check(given.as_object().unwrap()).unwrap();
        let sql = statement(&task, &checked).unwrap();
        assert_eq!(sql, "SELECT 5, 'x'' OR ''1''=''1', INTERVAL '300000 milliseconds'");
        let braces = json!({ "who": "{n}, {who}, {" });
        let checked = task.spec.check(braces.as_object().unwrap()).unwrap();
        let sql = statement(&task, &checked).unwrap();
        assert_eq!(sql, "SELECT 5, '{n}, {who}, {', INTERVAL '300000 milliseconds'");
        let bad = json!({ "who": "x", "n": "1; DROP TABLE t" });
        let error = task.spec.check(bad.as_object().unwrap()).unwrap_err();
        assert_eq!(error, "parameter n: a whole number from 0 on is expected");
    }

    #[test]
    fn all_rows_are_counted_and_the_first_are_kept() {
        let read =
            |text: &str| Rows { max_rows: 2 }.deserialize(&mut serde_json::Deserializer::from_str(text));
        assert_eq!(read("[1, 2, 3]").unwrap(), json!({ "num_rows": 3, "rows": [1, 2] }));
        assert_eq!(read("[]").unwrap(), json!({ "num_rows": 0, "rows": [] }));
        assert!(read("[1, 2, 3").is_err() && read("none").is_err());
    }

    #[test]
    fn a_file_that_says_nothing_of_itself_is_refused_by_its_name() {
        for (text, part) in [
            ("SELECT 1", "no line `-- task: NAME`"),
            ("-- task:\nSELECT 1", "no line `-- task: NAME`"),
            ("-- task: t\n-- side: moon\nSELECT 1", "side moon"),
            ("-- task: t\n-- parameter: n\nSELECT 1", "is not NAME KIND"),
        ] {
            let error = parse("site/x.sql", text).unwrap_err().to_string();
            assert!(error.starts_with("site/x.sql: ") && error.contains(part), "{error}");
        }
    }
}
