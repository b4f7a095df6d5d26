//! `pipeline read`: ships log files to processors elsewhere.
use std::io::{self, Write};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::input::InputArgs;
use super::progress::Progress;
use super::queue::{StreamArgs, redis_url};
use super::run::SummaryFormat;
use super::units::{bytes_text, with_commas};
use super::{Exit, Global};
use crate::stage::reader;
use crate::stage::shutdown::Shutdown;
use crate::telemetry;
use crate::transport::{Producer, RedisProducer};

/// Ship raw logs through Redis to processors; done when they have committed all of it
#[derive(Debug, Args)]
pub(super) struct ReadArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Redis that carries chunks to processors [default: that of docker-compose.yml]
    #[arg(long, value_name = "URL")]
    via: Option<String>,
    /// Leave when all is shipped (a processor has to run at the start): what Redis loses before it is committed
    /// is only read again by another `read`
    #[arg(long)]
    no_wait: bool,
    /// Form of the summary
    #[arg(long, value_enum, default_value_t)]
    output: SummaryFormat,
    #[command(flatten)]
    stream: StreamArgs,
}

impl ReadArgs {
    /// The same, going on when everything is read.
    pub(super) fn watching(mut self) -> Self {
        self.input.watch = true;
        self
    }
}

/// Runs it.
pub(super) async fn run(args: ReadArgs, global: &Global) -> anyhow::Result<Exit> {
    let via = redis_url(args.via.as_deref())?;
    let started = Instant::now();
    let shutdown = Shutdown::new();
    shutdown.listen().context("listen for signals")?;
    let (paths, options) = (args.input.paths(), args.input.options());
    reader::check(&paths, &options).await?;
    let producer = args.stream.open(&via)?.producer().await?;
    // waiting for a processor, or for room, is what it does from here on
    telemetry::tell_ready();
    let ledger = tokio::select! {
        ledger = producer.ledger() => ledger?,
        () = shutdown.requested() => return Ok(Exit::Code(shutdown.exit_code().unwrap_or(1))),
    };
    let progress = Progress::start(!global.quiet && !args.input.watch);
    let read = reader::read(&paths, &options, ledger, &producer, &shutdown).await;
    let ended = wait(&producer, args.no_wait, &shutdown).await;
    progress.stop().await;
    let (read, (left, bytes_left)) = (read?, ended?);
    for failure in &read.failures {
        super::print_error(&failure.to_string())?;
    }
    let bytes: u64 = read.sources.iter().map(|source| source.bytes_shipped).sum();
    let chunks: u64 = read.sources.iter().map(|source| source.chunks_shipped).sum();
    match args.output {
        SummaryFormat::Json => writeln!(
            io::stdout(),
            "{}",
            json!({
                "files": read.sources.len(),
                "chunks": chunks,
                "input_bytes": bytes,
                "uncommitted_chunks": left,
                "failures": read.failures.iter()
                    .map(|failure| json!({ "path": failure.path, "error": failure.to_string() }))
                    .collect::<Vec<_>>(),
                "seconds": started.elapsed().as_secs_f64(),
                "interrupted": read.interrupted,
            })
        )?,
        SummaryFormat::Text if global.quiet => {}
        SummaryFormat::Text => {
            let files = read.sources.len();
            let plural = if files == 1 { "" } else { "s" };
            writeln!(
                io::stdout(),
                "shipped     {files} file{plural}, {} in {} chunks, in {:.2} s",
                bytes_text(bytes),
                with_commas(chunks),
                started.elapsed().as_secs_f64()
            )?;
        }
    }
    if left > 0 {
        tracing::warn!(
            "{left} chunks ({}) are not known to be committed; if Redis loses them, `pipeline read` the same files again",
            bytes_text(bytes_left as u64)
        );
    }
    Ok(match shutdown.exit_code() {
        Some(code) => Exit::Code(code),
        None if read.lacks_storage() => Exit::Code(Exit::SERVICE),
        None if !read.failures.is_empty() => Exit::SOME_FAILED,
        None => Exit::DONE,
    })
}

/// Waits until all is committed, or a signal comes; returns chunks and bytes that are not known to be.
async fn wait(
    producer: &RedisProducer,
    no_wait: bool,
    shutdown: &Shutdown,
) -> anyhow::Result<(usize, usize)> {
    if no_wait {
        producer.flush().await?;
        return Ok(producer.unreported());
    }
    let told = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (chunks, _) = producer.unreported();
        tracing::info!("all is shipped; waiting until processors have committed {chunks} chunks");
        std::future::pending::<()>().await;
    };
    tokio::select! {
        finished = producer.finish() => finished?,
        () = shutdown.requested() => {}
        () = told => {}
    }
    Ok(producer.unreported())
}
