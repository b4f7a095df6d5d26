//! `pipeline replay`: decodes what is stored anew, with the log types as they are now.
use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Context;
use chrono::{DateTime, Utc};
use clap::Args;
use serde_json::json;

use super::archive::{ListFormat, unwrapped};
use super::units::{parse_time, with_commas};
use super::{Exit, Global, UsageError, places};
use crate::client::{ClientError, PgConfig, is_postgres, redacted};
use crate::stage::replay::{ReplayError, ReplaySummary, replay};
use crate::stage::shutdown::Shutdown;
use crate::warehouse::Warehouse;

/// Decode the lines of a time range anew, rows and rejects alike, and put the result in the place of the old rows
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Earliest event time (RFC 3339, or a day)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    from: DateTime<Utc>,
    /// Event time before which to stop (RFC 3339, or a day)
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    to: DateTime<Utc>,
    #[command(flatten)]
    place: PlaceArgs,
}

/// The database whose chunks are replayed.
#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    /// Postgres that holds the lines [default: that of docker-compose.yml]
    #[arg(long, value_name = "URL")]
    into: Option<String>,
    /// Schema of Postgres
    #[arg(long, value_name = "NAME", default_value = "public")]
    schema: String,
    /// Form of the summary
    #[arg(long, value_enum, default_value_t)]
    output: ListFormat,
}

/// Runs it.
pub(super) async fn run(args: ReplayArgs, global: &Global) -> anyhow::Result<Exit> {
    if args.from >= args.to {
        let (from, to) = (args.from, args.to);
        return Err(UsageError(format!("--from {from} is not before --to {to}")).into());
    }
    // a chunk without rows has no event time; its rejects are replayed by `rejects replay`
    let condition = format!(
        "min_timestamp < '{}' AND max_timestamp >= '{}'",
        args.to.to_rfc3339(),
        args.from.to_rfc3339()
    );
    replay_where(&condition, &args.place, "replay", global).await
}

/// Replays the chunks that an SQL condition on the ledger selects.
pub(super) async fn replay_where(
    condition: &str,
    place: &PlaceArgs,
    command: &str,
    global: &Global,
) -> anyhow::Result<Exit> {
    let into = place.into.as_deref().map(|into| places::location(into, command)).transpose()?;
    let into = into.unwrap_or_else(crate::client::default_postgres_url);
    if !is_postgres(&into) {
        let reason = "is an archive, which cannot be replayed; name postgres://.., or archive the files anew to another place";
        return Err(ClientError::BadUrl { location: redacted(&into), reason: reason.to_owned() }.into());
    }
    let types = global.log_types()?;
    let shutdown = Shutdown::new();
    shutdown.listen().context("listen for signals")?;
    let warehouse = Arc::new(Warehouse::try_new(PgConfig::parse(&into)?, &place.schema, &types).await?);
    let moved = warehouse.moved_rows(None).await?;
    let records = warehouse.records(condition).await?;
    if let Some(part) = records.iter().find(|record| record.is_part()) {
        let reason = format!(
            "has a part only of the chunk at byte {} of {}, whose {} went to other places, and a part cannot be decoded \
             anew; write the files to other places with the log types as they are now",
            part.range.first_byte,
            part.source.path,
            part.elsewhere.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
        );
        return Err(ClientError::BadUrl { location: redacted(&into), reason }.into());
    }
    let (gone, records): (Vec<_>, Vec<_>) =
        records.into_iter().partition(|record| moved.contains_key(&record.chunk_id));
    if !gone.is_empty() {
        tracing::warn!("{} chunks are left as they are: rows of theirs moved to an archive", gone.len());
    }
    let summary = replay(&warehouse, &types, &records, &shutdown).await.map_err(cause)?;
    for (source, range) in &summary.damaged {
        super::print_error(&format!(
            "{}: bytes {} to {} do not come back as they were read, and stay as they are; `pipeline verify --repair` reads them again",
            source.path, range.first_byte, range.end_byte
        ))?;
    }
    let mut out = io::stdout();
    match place.output {
        ListFormat::Json => writeln!(out, "{}", to_json(&summary))?,
        _ if global.quiet => {}
        _ => writeln!(
            out,
            "replayed {} chunks, {} of them decode differently; rows {} -> {}, rejects {} -> {}",
            with_commas(summary.chunks),
            with_commas(summary.replaced),
            with_commas(summary.rows.0),
            with_commas(summary.rows.1),
            with_commas(summary.rejects.0),
            with_commas(summary.rejects.1),
        )?,
    }
    Ok(match shutdown.exit_code() {
        Some(code) => Exit::Code(code),
        None if !summary.damaged.is_empty() => Exit::SOME_FAILED,
        None => Exit::DONE,
    })
}

/// What decides the exit code.
fn cause(error: ReplayError) -> anyhow::Error {
    match error {
        ReplayError::Read(error) => unwrapped(error),
        ReplayError::Warehouse(error) => error.into(),
    }
}

fn to_json(summary: &ReplaySummary) -> serde_json::Value {
    json!({
        "chunks": summary.chunks,
        "replaced": summary.replaced,
        "rows_before": summary.rows.0,
        "rows": summary.rows.1,
        "rejects_before": summary.rejects.0,
        "rejects": summary.rejects.1,
        "damaged": summary.damaged.len(),
        "interrupted": summary.interrupted,
    })
}
#[cfg(test)]
mod tests {
    use super::super::exit_code;
    use super::*;
    use crate::archive::ArchiveError;
    use crate::warehouse::WarehouseError;

    #[test]
    fn a_postgres_that_goes_away_is_a_service_that_failed_whatever_it_was_asked() {
        let reading = ReplayError::Read(ArchiveError::Warehouse(WarehouseError::Hangs));
        for error in [reading, ReplayError::Warehouse(WarehouseError::Hangs)] {
            assert_eq!(exit_code(&cause(error)), Exit::SERVICE);
        }
    }
}
