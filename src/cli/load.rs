//! `pipeline load`: test events for a webhook, and whether its windows are right afterwards.
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use url::Url;

use super::run::SummaryFormat;
use super::units::{parse_duration, with_commas};
use super::{Exit, Global, UsageError};
use crate::generate::events::{EventSource, TestEvent};
use crate::stage::sender::{self, Body, Outcome, Schedule, SendError, SendOptions, SendSummary};
use crate::stage::shutdown::Shutdown;
use crate::store::{self, DatabaseLocation};
use crate::webhook::Signer;

mod check;

use check::Check;

/// Post test events to a webhook, and check what becomes of them
#[derive(Debug, Subcommand)]
pub(super) enum LoadCommand {
    /// At a steady rate
    Steady(SteadyArgs),
    /// Many at once, again and again
    Burst(BurstArgs),
    /// At a rate that rises and falls as a sine, with a period of a minute
    Variable(VariableArgs),
    /// One event
    Single(LoadArgs),
    /// One event of your own, as often as you like
    Custom(CustomArgs),
}

#[derive(Debug, Args)]
pub(super) struct SteadyArgs {
    /// Requests per second; 0: as many as there are answers
    #[arg(long, value_name = "N", default_value = "10")]
    rate: f64,
    /// For how long
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    duration: Duration,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Debug, Args)]
pub(super) struct BurstArgs {
    /// Requests at once
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u64).range(1..))]
    size: u64,
    /// From one burst to the next
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    interval: Duration,
    /// Bursts
    #[arg(long, value_name = "N", default_value = "5")]
    count: u64,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Debug, Args)]
pub(super) struct VariableArgs {
    /// Lowest number of requests per second
    #[arg(long, value_name = "N", default_value = "1")]
    min: f64,
    /// Highest
    #[arg(long, value_name = "N", default_value = "50")]
    max: f64,
    /// For how long
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    duration: Duration,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Debug, Args)]
pub(super) struct CustomArgs {
    /// Type of the event
    #[arg(long, value_name = "TYPE")]
    event_type: String,
    /// Its user
    #[arg(long, value_name = "USER", default_value = "user_1")]
    user_id: String,
    /// Its value
    #[arg(long, value_name = "NUMBER", default_value = "1", allow_hyphen_values = true)]
    value: f64,
    /// Its metadata, a JSON object
    #[arg(long, value_name = "JSON")]
    metadata: Option<String>,
    /// How often
    #[arg(long, value_name = "N", default_value = "1")]
    count: u64,
    #[command(flatten)]
    load: LoadArgs,
}

#[derive(Debug, Args)]
pub(super) struct LoadArgs {
    /// Where to post to
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/webhook")]
    url: String,
    /// Connections, each with one request at a time
    #[arg(long, value_name = "N", default_value = "8", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Events in a request
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u16).range(1..=10_000))]
    batch: u16,
    /// Seed of the events
    #[arg(long, value_name = "N", default_value = "42")]
    seed: u64,
    /// Send again, with the same identity, what was not answered 200
    #[arg(long)]
    retry: bool,
    /// File with the bearer token to show
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with a secret (whsec_.., its first line) to sign with, as Standard Webhooks; each request has an identity then
    #[arg(long, value_name = "FILE")]
    signing_secret_file: Option<PathBuf>,
    /// Compare the windows in --database with what was accepted; 1 where they differ. Nobody else may post meanwhile
    #[arg(long)]
    check: bool,
    /// Where the windows are [default: sqlite://./pipeline-data/state.db]
    #[arg(long, value_name = "URL")]
    database: Vec<String>,
    /// Schema of Postgres they are in
    #[arg(long, value_name = "NAME", default_value = store::DEFAULT_SCHEMA)]
    schema: String,
    /// Form of the summary
    #[arg(long, value_enum, default_value_t)]
    output: SummaryFormat,
}

/// Runs it.
pub(super) async fn run(command: LoadCommand, global: &Global) -> anyhow::Result<Exit> {
    let positive = |rate: f64, flag: &str| match rate.is_finite() && rate > 0.0 {
        true => Ok(rate),
        false => Err(UsageError(format!("{flag} must be more than 0"))),
    };
    let (load, schedule, template) = match command {
        LoadCommand::Steady(SteadyArgs { rate: 0.0, duration, load }) => {
            (load, Schedule::Unlimited(duration), None)
        }
        LoadCommand::Steady(SteadyArgs { rate, duration, load }) => {
            (load, Schedule::Steady { rate: positive(rate, "--rate")?, duration }, None)
        }
        LoadCommand::Burst(BurstArgs { size, interval, count, load }) => {
            (load, Schedule::Burst { size, interval, count }, None)
        }
        LoadCommand::Variable(VariableArgs { min, max, duration, load }) => {
            let (min, max) = (positive(min, "--min")?, positive(max, "--max")?);
            if min > max {
                return Err(UsageError("--min is more than --max".to_owned()).into());
            }
            (load, Schedule::Variable { min, max, duration }, None)
        }
        LoadCommand::Single(load) => (load, Schedule::Count(1), None),
        LoadCommand::Custom(custom) => {
            let template = custom.template()?;
            (custom.load, Schedule::Count(custom.count), Some(template))
        }
    };
    post(load, schedule, template, global).await
}

impl CustomArgs {
    fn template(&self) -> Result<Value, UsageError> {
        if !self.value.is_finite() {
            return Err(UsageError(format!(
                "--value {} is no number in JSON; give a finite one",
                self.value
            )));
        }
        let mut event =
            json!({ "user_id": self.user_id, "event_type": self.event_type, "value": self.value });
        if let Some(metadata) = &self.metadata {
            let parsed: Value = serde_json::from_str(metadata)
                .map_err(|error| UsageError(format!("--metadata is not JSON: {error}")))?;
            event["metadata"] = parsed;
        }
        Ok(event)
    }
}

async fn post(
    load: LoadArgs,
    schedule: Schedule,
    template: Option<Value>,
    global: &Global,
) -> anyhow::Result<Exit> {
    let url = Url::parse(&load.url)
        .map_err(|_| SendError::BadUrl(crate::client::redacted(&load.url)))
        .context("--url")?;
    let token = load.token_file.as_ref().map(|path| {
        let token = std::fs::read_to_string(path);
        token.map_err(|error| UsageError(format!("{}: cannot be read: {error}", path.display())))
    });
    let token =
        token.transpose()?.map(|token| ("authorization".to_owned(), format!("Bearer {}", token.trim())));
    let signer = load.signer()?;
    if load.check && template.is_some() {
        return Err(UsageError("--check is for generated events".to_owned()).into());
    }
    let check = match load.check {
        true => Some(Arc::new(Check::try_start(&load.location()?, &load.schema).await?)),
        false => None,
    };
    let shutdown = Shutdown::new();
    shutdown.listen().context("listen for signals")?;
    let source = Mutex::new(EventSource::new(load.seed));
    let (batch, retries) = (load.batch, load.retry);
    let has_id = retries || signer.is_some();
    let next = move || {
        let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
        let id = has_id.then(|| source.next_id());
        let events: Vec<_> = (0..batch).map(|_| source.next_event()).collect();
        drop(source);
        Body { bytes: bytes_of(&events, template.as_ref()), id, label: events }
    };
    let noted = check.clone();
    let done = move |events: Vec<TestEvent>, outcome: Outcome| {
        if let Some(check) = &noted {
            check.note(&events, outcome);
        }
    };
    let options = SendOptions {
        url,
        headers: token.into_iter().collect(),
        signer,
        connections: usize::from(load.connections),
        schedule,
        retries,
    };
    let summary = sender::send(options, next, done, &shutdown).await?;
    let differences = match &check {
        Some(check) => Some(check.compare().await?),
        None => None,
    };
    let events_of = |requests: u64| requests * u64::from(load.batch);
    print(&load, &summary, differences.as_ref(), global, events_of)?;
    Ok(match shutdown.exit_code() {
        Some(code) => Exit::Code(code),
        None if summary.refused + summary.unknown > 0 => Exit::SOME_FAILED,
        None if differences.is_some_and(|differences| !differences.found.is_empty()) => Exit::SOME_FAILED,
        None => Exit::DONE,
    })
}

fn bytes_of(events: &[TestEvent], template: Option<&Value>) -> Bytes {
    let mut events = events.iter().map(|event| template.cloned().unwrap_or_else(|| event.json()));
    match (events.len(), events.next()) {
        (1, Some(event)) => event.to_string().into(),
        (_, first) => Value::from_iter(first.into_iter().chain(events)).to_string().into(),
    }
}

impl LoadArgs {
    fn signer(&self) -> anyhow::Result<Option<Signer>> {
        let Some(path) = &self.signing_secret_file else { return Ok(None) };
        let text = std::fs::read_to_string(path)
            .map_err(|error| UsageError(format!("{}: cannot be read: {error}", path.display())))?;
        let secret = text.lines().find(|line| !line.trim().is_empty());
        let secret = secret.ok_or_else(|| UsageError(format!("{}: holds no secret", path.display())))?;
        Ok(Some(Signer::try_new(secret)?))
    }

    fn location(&self) -> anyhow::Result<DatabaseLocation> {
        let url = self.database.first().map_or(store::DEFAULT_DATABASE, String::as_str);
        let location = DatabaseLocation::parse(url)?;
        if let DatabaseLocation::Sqlite(path) = &location
            && !path.exists()
        {
            let text =
                format!("{}: there are no windows; name the database of `pipeline serve`", path.display());
            return Err(UsageError(text).into());
        }
        Ok(location)
    }
}

fn print(
    load: &LoadArgs,
    summary: &SendSummary,
    differences: Option<&check::Differences>,
    global: &Global,
    events_of: impl Fn(u64) -> u64,
) -> anyhow::Result<()> {
    let requests = summary.accepted + summary.refused + summary.unknown;
    let millis = |percent: f64| summary.latencies.percentile(percent).as_secs_f64() * 1000.0;
    let per_second = events_of(summary.accepted) as f64 / summary.took.as_secs_f64().max(1e-9);
    let mut out = io::stdout();
    if load.output == SummaryFormat::Json {
        let mut report = json!({
            "sent": events_of(requests),
            "accepted": events_of(summary.accepted),
            "refused": events_of(summary.refused),
            "unknown": events_of(summary.unknown),
            "retried": summary.retried,
            "seconds": summary.took.as_secs_f64(),
            "events_per_second": per_second,
            "latency_ms": {
                "p50": millis(50.0), "p90": millis(90.0), "p99": millis(99.0), "p99_9": millis(99.9),
                "max": summary.latencies.max().as_secs_f64() * 1000.0,
            },
        });
        if let Some(differences) = differences {
            report["check"] = json!({ "aggregates": differences.compared, "differences": differences.found });
        }
        return Ok(writeln!(out, "{report}")?);
    }
    if !global.quiet {
        writeln!(
            out,
            "sent        {} events in {:.1} s; accepted {} ({}/s), refused {}, without an answer {}, sent again {}",
            with_commas(events_of(requests)),
            summary.took.as_secs_f64(),
            with_commas(events_of(summary.accepted)),
            with_commas(per_second as u64),
            with_commas(events_of(summary.refused)),
            with_commas(events_of(summary.unknown)),
            with_commas(summary.retried),
        )?;
        writeln!(
            out,
            "latency     p50 {:.1} ms, p90 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms, max {:.1} ms",
            millis(50.0),
            millis(90.0),
            millis(99.0),
            millis(99.9),
            summary.latencies.max().as_secs_f64() * 1000.0
        )?;
    }
    if let Some(refusal) = &summary.first_refusal {
        tracing::warn!("the first answer that was not OK: {refusal}");
    }
    if let Some(differences) = differences {
        match differences.found.len() {
            0 if global.quiet => {}
            0 => writeln!(
                out,
                "check       {} aggregates hold exactly what was accepted",
                differences.compared
            )?,
            number => {
                writeln!(out, "check       {number} of {} aggregates differ", differences.compared)?;
                for difference in &differences.found {
                    writeln!(out, "            {difference}")?;
                }
            }
        }
    }
    Ok(())
}
