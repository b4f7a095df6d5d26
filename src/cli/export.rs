//! `pipeline archive export`: sealed days of Postgres, to an archive; proven there, they may go here.
use std::io::{self, Write};
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::json;

use super::archive::{ListFormat, day_text, unwrapped};
use super::columns::aligned;
use super::places::expect_no_types;
use super::units::{bytes_text, parse_duration, with_commas};
use super::{Exit, Global, UsageError};
use crate::client::{PgConfig, is_postgres, redacted};
use crate::lake::ArchiveWriter;
use crate::model::MICROS_PER_DAY;
use crate::stage::export::{ExportError, ExportOptions, ExportSummary, ExportedDay, Outcome, export, plan};
use crate::stage::shutdown::Shutdown;
use crate::warehouse::{DayLeaf, Warehouse};

/// Flags of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Postgres to export from [default: that of docker-compose.yml]
    #[arg(long, value_name = "URL")]
    from: Option<String>,
    /// Schema of Postgres
    #[arg(long, value_name = "NAME", default_value = "public")]
    schema: String,
    /// Archive to export to
    #[arg(long, value_name = "URL", default_value = super::DEFAULT_ARCHIVE)]
    pub(super) archive: String,
    /// Export days that ended this long ago
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = parse_duration)]
    older_than: Duration,
    /// Drop days from Postgres once the archive is proven to hold them
    #[arg(long)]
    drop: bool,
    /// Of those, keep the ones that ended less than this long ago
    #[arg(long, value_name = "TIME", requires = "drop", value_parser = parse_duration)]
    keep: Option<Duration>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Form of the summary
    #[arg(long, value_enum, default_value_t)]
    output: ListFormat,
}

/// Runs it.
pub(super) async fn run(args: &ExportArgs, global: &Global) -> anyhow::Result<Exit> {
    let from = args.from.clone().unwrap_or_else(crate::client::default_postgres_url);
    expect_no_types("--from", &from)?;
    if !is_postgres(&from) {
        let from = redacted(&from);
        return Err(UsageError(format!("--from {from} is not a database; name a postgres://.. URL")).into());
    }
    let now = Utc::now();
    let before = first_day_after(now, args.older_than);
    let keep = args.keep.map_or(before, |keep| first_day_after(now, keep).min(before));
    let options = ExportOptions { before, drop_before: args.drop.then_some(keep) };
    let config = PgConfig::parse(&from)?;
    if args.dry_run {
        let days = plan(&Warehouse::open(config, &args.schema).await?, options).await.map_err(cause)?;
        return print_plan(&days, options, args.output);
    }
    let shutdown = Shutdown::new();
    shutdown.listen().context("listen for signals")?;
    let types = global.log_types()?;
    // a schema that nobody loaded is not made by looking for something to export
    let found = Warehouse::open(config.clone(), &args.schema).await?;
    if plan(&found, options).await.map_err(cause)?.is_empty() && found.tables().await?.len() <= 2 {
        return print_summary(&ExportSummary::default(), args, global);
    }
    let warehouse = Warehouse::try_new(config, &args.schema, &types).await?;
    let mut writer = ArchiveWriter::try_new(&args.archive).await?;
    let summary = export(&warehouse, &mut writer, options, &shutdown).await.map_err(cause)?;
    for (source, range, in_archive) in &summary.damaged {
        let (place, remedy) = match in_archive {
            true => ("the archive", "nothing of their days is dropped"),
            false => ("postgres", "`pipeline verify --repair` reads them again"),
        };
        super::print_error(&format!(
            "{}: bytes {} to {} do not come back from {place} as they were read; {remedy}",
            source.path, range.first_byte, range.end_byte
        ))?;
    }
    let kept = summary.days.iter().filter_map(|day| match &day.outcome {
        Outcome::Kept(reason) => Some((day, reason)),
        _ => None,
    });
    for (day, reason) in kept.clone() {
        super::print_error(&format!("{} of {} stays: {reason}", day.leaf.log_type, day_text(day.leaf.day)))?;
    }
    for (table, rows) in &summary.unsettled {
        super::print_error(&format!(
            "{} rows in {table} stay: their days have no table of their own, because theirs is in use or its name \
             taken; run again",
            with_commas(*rows)
        ))?;
    }
    print_summary(&summary, args, global)?;
    Ok(match shutdown.exit_code() {
        Some(code) => Exit::Code(code),
        None if kept.count() > 0 || !summary.damaged.is_empty() || !summary.unsettled.is_empty() => {
            Exit::SOME_FAILED
        }
        None => Exit::DONE,
    })
}

fn print_summary(summary: &ExportSummary, args: &ExportArgs, global: &Global) -> anyhow::Result<Exit> {
    match args.output {
        ListFormat::Json => writeln!(io::stdout(), "{}", to_json(summary))?,
        _ if global.quiet => {}
        _ => print_text(summary, &args.archive)?,
    }
    Ok(Exit::DONE)
}

/// The error itself decides the exit code.
fn cause(error: ExportError) -> anyhow::Error {
    match error {
        ExportError::Read(error) => unwrapped(error),
        ExportError::Warehouse(error) => error.into(),
        ExportError::Lake(error) => error.into(),
        ExportError::LogType(error) => error.into(),
        error => error.into(),
    }
}

/// The first day that has not ended `age` before `now`.
fn first_day_after(now: DateTime<Utc>, age: Duration) -> i32 {
    let micros = now.timestamp_micros().saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
    i32::try_from(micros.div_euclid(MICROS_PER_DAY)).unwrap_or(i32::MIN)
}

fn print_plan(days: &[DayLeaf], options: ExportOptions, output: ListFormat) -> anyhow::Result<Exit> {
    let drops = |leaf: &DayLeaf| options.drop_before.is_some_and(|before| leaf.day < before);
    let mut out = io::stdout().lock();
    if output == ListFormat::Json {
        let days: Vec<_> = (days.iter())
            .map(|leaf| json!({"day": day_text(leaf.day), "table": leaf.log_type, "bytes": leaf.size_bytes, "drop": drops(leaf)}))
            .collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&days)?)?;
        return Ok(Exit::DONE);
    }
    let mut rows = vec![["day", "table", "bytes", "would"].map(str::to_owned).to_vec()];
    rows.extend(days.iter().map(|leaf| {
        let would = if drops(leaf) { "export, drop" } else { "export" };
        vec![day_text(leaf.day), leaf.log_type.clone(), bytes_text(leaf.size_bytes), would.to_owned()]
    }));
    write!(out, "{}", aligned(&rows))?;
    Ok(Exit::DONE)
}

fn outcome_text(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Archived => "archived".to_owned(),
        Outcome::Dropped { .. } => "archived, dropped".to_owned(),
        Outcome::Kept(_) => "KEPT".to_owned(),
    }
}

fn print_text(summary: &ExportSummary, archive: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let mut rows = vec![["day", "table", "bytes in postgres", "outcome"].map(str::to_owned).to_vec()];
    rows.extend(summary.days.iter().map(|ExportedDay { leaf, outcome, .. }| {
        vec![day_text(leaf.day), leaf.log_type.clone(), bytes_text(leaf.size_bytes), outcome_text(outcome)]
    }));
    write!(out, "{}", aligned(&rows))?;
    writeln!(
        out,
        "exported {} chunks with {} rows to {archive}, {}; {} chunks read back and proven",
        with_commas(summary.written_chunks),
        with_commas(summary.written_rows),
        bytes_text(summary.stored_bytes),
        with_commas(summary.proven_chunks),
    )?;
    Ok(())
}

fn to_json(summary: &ExportSummary) -> serde_json::Value {
    let day = |day: &ExportedDay| {
        json!({
            "day": day_text(day.leaf.day),
            "table": day.leaf.log_type,
            "chunks": day.chunks,
            "archived": !matches!(day.outcome, Outcome::Kept(_)),
            "dropped_rows": match day.outcome { Outcome::Dropped { rows } => Some(rows), _ => None },
            "kept_because": match &day.outcome { Outcome::Kept(reason) => Some(reason), _ => None },
        })
    };
    json!({
        "days": summary.days.iter().map(day).collect::<Vec<_>>(),
        "written_chunks": summary.written_chunks,
        "written_rows": summary.written_rows,
        "proven_chunks": summary.proven_chunks,
        "stored_bytes": summary.stored_bytes,
        "damaged": summary.damaged.len(),
        "unsettled_rows": summary.unsettled.iter().map(|(_, rows)| rows).sum::<u64>(),
        "interrupted": summary.interrupted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_exported_when_it_ended_long_enough_ago() {
        let now = DateTime::parse_from_rfc3339("2024-01-17T12:00:00Z").unwrap().to_utc();
        let hours = |hours: u64| first_day_after(now, Duration::from_secs(hours * 3600));
        // days before this one: the 15th ended 36 hours ago, the 16th 12 hours
        let day = 19_737;
        assert_eq!(hours(12), day + 2);
        assert_eq!(hours(13), day + 1);
        assert_eq!(hours(36), day + 1);
        assert_eq!(hours(37), day);
    }
}
