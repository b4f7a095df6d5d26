//! `pipeline doctor`: looks at everything a run depends on, and says what to do about what is wrong.
//!
//! Every check ends in one line. What cannot be looked at because of what came before it is not mentioned again.
//! Nothing is changed: what is written to try a permission is taken away at once. Deliberately absent: repairs.
use std::fmt::Write as _;
use std::io::{self, Write};

use clap::Args;
use serde_json::json;

use super::archive::ListFormat;
use super::{Exit, Global, places};
use crate::client::{self, ClientError, PgConfig, RedisConfig, with_causes};

mod archive;
mod postgres;
mod redis;

/// A clock that is further off makes times in logs, leases and reports lie.
const MAX_SKEW_SECONDS: f64 = 5.0;

/// Check every service, version, permission, setting and clock, and say what to do
#[derive(Debug, Args)]
#[command(after_help = "Exit codes: 0 all is well, or there are only warnings; 1 a check failed; \
4 a service cannot be reached.")]
pub(super) struct DoctorArgs {
    /// Redis that carries chunks, or memory [default: the one of docker-compose.yml]
    #[arg(long, value_name = "URL")]
    via: Option<String>,
    /// Where rows go: postgres://.. or an archive [default: the Postgres of docker-compose.yml, ./pipeline-data/archive]
    #[arg(long, value_name = "URL")]
    into: Vec<String>,
    /// Schema of the tables in Postgres
    #[arg(long, value_name = "NAME", default_value = "public")]
    schema: String,
    /// Form of the report
    #[arg(long, value_enum, default_value_t)]
    output: ListFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Outcome {
    Ok,
    Warn,
    Fail,
    Unreachable,
}

impl Outcome {
    fn name(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Warn => "warn",
            Outcome::Fail | Outcome::Unreachable => "FAIL",
        }
    }
}

#[derive(Debug)]
struct Check {
    /// `redis`, `postgres`, `archive`, `log types`.
    subject: &'static str,
    outcome: Outcome,
    /// What was found.
    found: String,
    /// What to do about it, where something is to be done.
    remedy: Option<String>,
}

/// The checks of one thing.
#[derive(Debug)]
struct Checks {
    subject: &'static str,
    checks: Vec<Check>,
}

impl Checks {
    fn new(subject: &'static str) -> Self {
        Self { subject, checks: Vec::new() }
    }

    fn ok(&mut self, found: impl Into<String>) {
        self.add(Outcome::Ok, found.into(), None);
    }

    fn warn(&mut self, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(Outcome::Warn, found.into(), Some(remedy.into()));
    }

    fn fail(&mut self, found: impl Into<String>, remedy: impl Into<String>) {
        self.add(Outcome::Fail, found.into(), Some(remedy.into()));
    }

    /// An error whose text names the remedy.
    fn error(&mut self, error: impl Into<anyhow::Error>) {
        let error = error.into();
        let is_down = matches!(error.downcast_ref(), Some(ClientError::Unreachable { .. }));
        let outcome = if is_down { Outcome::Unreachable } else { Outcome::Fail };
        self.add(outcome, with_causes(error.as_ref()), None);
    }

    fn add(&mut self, outcome: Outcome, found: String, remedy: Option<String>) {
        self.checks.push(Check { subject: self.subject, outcome, found, remedy });
    }

    fn clock(&mut self, skew_seconds: f64) {
        let found = format!("its clock is {:.1} s from this machine's", skew_seconds.abs());
        match skew_seconds.abs() <= MAX_SKEW_SECONDS {
            true => self.ok(found),
            false => self.warn(found, "set both by NTP: times in the ledger and of leases are compared"),
        }
    }
}

/// Runs it.
pub(super) async fn run(args: DoctorArgs, global: &Global) -> anyhow::Result<Exit> {
    let types = global.log_types();
    let mut tables = vec!["chunks".to_owned(), "rejects".to_owned()];
    let mut checks = Vec::new();
    let mut log_types = Checks::new("log types");
    match &types {
        Ok(types) => {
            tables.extend(types.iter().map(|log_type| log_type.table.name.to_string()));
            log_types.ok(format!("{} compile", types.iter().len()));
        }
        Err(error) => log_types.fail(error.to_string(), "run `pipeline types check` on the file"),
    }
    checks.append(&mut log_types.checks);
    let via = args.via.unwrap_or_else(client::default_redis_url);
    if via != "memory" {
        let mut redis = Checks::new("redis");
        match RedisConfig::parse(&via) {
            Ok(config) => redis::check(&config, &mut redis).await,
            Err(error) => redis.error(error),
        }
        checks.append(&mut redis.checks);
    }
    let mut places = places::locations(&args.into)?;
    if places.is_empty() {
        places = vec![client::default_postgres_url(), super::DEFAULT_ARCHIVE.to_owned()];
    }
    for place in places {
        let is_postgres = client::is_postgres(&place);
        let mut found = Checks::new(if is_postgres { "postgres" } else { "archive" });
        match PgConfig::parse(&place) {
            _ if !is_postgres => archive::check(&place, &mut found).await,
            Ok(config) => postgres::check(&config, &args.schema, &tables, &mut found).await,
            Err(error) => found.error(error),
        }
        checks.append(&mut found.checks);
    }
    match args.output {
        ListFormat::Table => write!(io::stdout(), "{}", text(&checks))?,
        ListFormat::Json => writeln!(io::stdout(), "{}", json_text(&checks))?,
    }
    Ok(match checks.iter().map(|check| check.outcome).max() {
        Some(Outcome::Unreachable) => Exit::Code(Exit::SERVICE),
        Some(Outcome::Fail) => Exit::SOME_FAILED,
        _ => Exit::DONE,
    })
}

fn text(checks: &[Check]) -> String {
    let mut text = String::new();
    for Check { subject, outcome, found, remedy } in checks {
        let remedy = remedy.as_ref().map(|remedy| format!("; {remedy}")).unwrap_or_default();
        // writing to a String cannot fail
        let _written = writeln!(text, "{:<5} {subject:<10} {found}{remedy}", outcome.name());
    }
    text
}

fn json_text(checks: &[Check]) -> serde_json::Value {
    let checks = checks.iter().map(|check| {
        json!({
            "subject": check.subject,
            "outcome": check.outcome.name().to_lowercase(),
            "reachable": check.outcome != Outcome::Unreachable,
            "found": check.found,
            "remedy": check.remedy,
        })
    });
    checks.collect()
}

/// Seconds since 1970 by this machine's clock.
fn now() -> f64 {
    chrono::Utc::now().timestamp_micros() as f64 / 1e6
}

/// `7.0.15` -> (7, 0).
fn major_minor(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse::<u32>);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(major_minor("7.0.15"), Some((7, 0)));
        assert!(major_minor("10.1.0") > major_minor("6.2.0"));
        assert_eq!(major_minor("unknown"), None);
    }

    #[test]
    fn a_check_is_one_line_with_its_remedy() {
        let mut checks = Checks::new("redis");
        checks.ok("version 7.0.15");
        checks.fail("maxmemory-policy is allkeys-lru", "set it");
        assert_eq!(
            text(&checks.checks),
            "ok    redis      version 7.0.15\nFAIL  redis      maxmemory-policy is allkeys-lru; set it\n"
        );
    }
}
