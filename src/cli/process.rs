//! `pipeline process`: takes what readers ship, decodes it and stores it.
use std::io::{self, Write};
use std::time::Instant;

use anyhow::Context;
use clap::Args;

use super::places;
use super::queue::{StreamArgs, redis_url};
use super::run::{Summary, SummaryFormat};
use super::storage::StorageArgs;
use super::{Exit, Global};
use crate::client::PgConfig;
use crate::stage::processor::{self, DecoderPool, ProcessSummary};
use crate::stage::shutdown::Shutdown;
use crate::telemetry;
use crate::transport::Consumer;
use crate::warehouse::Warehouse;

/// Take chunks that readers shipped through Redis, decode them and store each line exactly once
#[derive(Debug, Args)]
pub(super) struct ProcessArgs {
    /// Redis that carries chunks from readers [default: that of docker-compose.yml]
    #[arg(long, value_name = "URL")]
    via: Option<String>,
    /// Where to write, several times for several places: postgres://.. or an archive (folder, s3://, gs://, az://); with
    /// #types=NAME,NAME behind it, only those log types [default: the Postgres of docker-compose.yml]
    #[arg(long, value_name = "URL")]
    into: Vec<String>,
    /// Stop when the stream is empty
    #[arg(long)]
    drain: bool,
    /// Form of the summary
    #[arg(long, value_enum, default_value_t)]
    output: SummaryFormat,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    stream: StreamArgs,
}

#[derive(Debug, Args)]
pub(super) struct InitDbArgs {
    /// Postgres [default: that of docker-compose.yml]
    #[arg(long, value_name = "URL")]
    into: Option<String>,
    /// Schema of Postgres
    #[arg(long, value_name = "NAME", default_value = "public")]
    schema: String,
}

/// Brings the schema to what the log types need; every command that writes does that too.
pub(super) async fn init_db(args: &InitDbArgs, global: &Global) -> anyhow::Result<Exit> {
    let into = args.into.clone().unwrap_or_else(crate::client::default_postgres_url);
    let into = PgConfig::parse(&places::location(&into, "init-db")?)?;
    Warehouse::try_new(into, &args.schema, &global.log_types()?).await?;
    Ok(Exit::DONE)
}

/// Runs it.
pub(super) async fn run(args: ProcessArgs, global: &Global) -> anyhow::Result<Exit> {
    let types = global.log_types()?;
    let started = Instant::now();
    let shutdown = Shutdown::new();
    shutdown.listen().context("listen for signals")?;
    let into = match args.into.is_empty() {
        true => vec![crate::client::default_postgres_url()],
        false => args.into.clone(),
    };
    let places = places::of(&into, &types)?;
    let stream = args.stream.open(&redis_url(args.via.as_deref())?)?;
    let decoders = DecoderPool::new(types.clone(), args.storage.workers());
    let mut sinks = args.storage.open(places, &types).await?;
    let mut consumer = tokio::select! {
        consumer = stream.consumer(args.drain) => consumer?,
        // nothing is taken yet
        () = shutdown.requested() => return Ok(Exit::Code(shutdown.exit_code().unwrap_or(1))),
    };
    telemetry::tell_ready();
    let mut committed = ProcessSummary::default();
    let idle = processor::IDLE;
    let processed =
        processor::process(&mut consumer, &decoders, &mut sinks, idle, Some(&shutdown), &mut committed).await;
    consumer.close().await?;
    processed?;
    if !shutdown.is_requested() {
        for sink in &mut sinks {
            sink.finish().await?;
        }
    }
    let summary =
        Summary { read: None, committed: &committed, into: places::names(&into), took: started.elapsed() };
    match args.output {
        SummaryFormat::Json => writeln!(io::stdout(), "{}", summary.json())?,
        SummaryFormat::Text if global.quiet => {}
        SummaryFormat::Text => write!(io::stdout(), "{}", summary.text())?,
    }
    Ok(match shutdown.exit_code() {
        Some(code) => Exit::Code(code),
        None if args.storage.fail_on_rejects && committed.rejects > 0 => Exit::SOME_FAILED,
        None => Exit::DONE,
    })
}
