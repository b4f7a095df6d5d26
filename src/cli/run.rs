//! `pipeline run`: raw log files into the archive, all in one process.
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::input::InputArgs;
use super::places;
use super::progress::Progress;
use super::queue::{StreamArgs, Via};
use super::storage::StorageArgs;
use super::units::{bytes_text, with_commas};
use super::{Exit, Global};
use crate::sink::{self, Sink};
use crate::stage::processor::{self, DecoderPool, ProcessError, ProcessSummary};
use crate::stage::reader::{self, ReadOptions, ReadSummary};
use crate::stage::shutdown::Shutdown;
use crate::transport::{Consumer, Producer, RedisStream, memory};

/// Chunks between reader and processor hold at most this many bytes.
const QUEUE_BYTES: usize = 16 << 20;

/// Read raw logs, decode them and store them in the archive, each line exactly once
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    input: InputArgs,
    /// Where to write, several times for several places: an archive (folder, s3://, gs://, az://) or postgres://..; with
    /// #types=NAME,NAME behind it, only those log types
    #[arg(long, value_name = "URL", default_value = super::DEFAULT_ARCHIVE)]
    into: Vec<String>,
    /// What carries chunks from reader to processor: memory, or redis://..
    #[arg(long, value_name = "URL", default_value = "memory")]
    via: String,
    #[command(flatten)]
    storage: StorageArgs,
    /// Form of the summary
    #[arg(long, value_enum, default_value_t)]
    output: SummaryFormat,
    #[command(flatten)]
    stream: StreamArgs,
}

/// Form of a summary.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum SummaryFormat {
    #[default]
    Text,
    Json,
}

/// Runs it.
pub(super) async fn run(args: RunArgs, global: &Global) -> anyhow::Result<Exit> {
    let via = Via::parse(&args.via)?;
    let types = global.log_types()?;
    let places = places::of(&args.into, &types)?;
    let started = Instant::now();
    let shutdown = Shutdown::new();
    shutdown.listen().context("listen for signals")?;
    let (paths, options) = (args.input.paths(), args.input.options());
    // before an archive is made for nothing
    reader::check(&paths, &options).await?;
    let decoders = DecoderPool::new(types.clone(), args.storage.workers());
    let mut sinks = args.storage.open(places, &types).await?;
    let progress = Progress::start(!global.quiet && !args.input.watch);
    let outcome = match &via {
        Via::Memory => ship(&paths, &options, &decoders, &mut sinks, &shutdown).await,
        Via::Redis(url) => {
            let stream = args.stream.open(url)?;
            ship_through(&stream, &paths, &options, &decoders, &mut sinks, &shutdown).await
        }
    };
    progress.stop().await;
    let (read, committed) = outcome?;
    for failure in &read.failures {
        super::print_error(&failure.to_string())?;
    }
    let summary = Summary {
        read: Some(&read),
        committed: &committed,
        into: places::names(&args.into),
        took: started.elapsed(),
    };
    if !shutdown.is_requested() {
        for sink in &mut sinks {
            sink.finish().await?;
        }
    }
    match args.output {
        SummaryFormat::Json => writeln!(io::stdout(), "{}", summary.json())?,
        SummaryFormat::Text if global.quiet => {}
        SummaryFormat::Text => write!(io::stdout(), "{}", summary.text())?,
    }
    Ok(match shutdown.exit_code() {
        Some(code) => Exit::Code(code),
        None if read.lacks_storage() => Exit::Code(Exit::SERVICE),
        None if !read.failures.is_empty() => Exit::SOME_FAILED,
        None if args.storage.fail_on_rejects && committed.rejects > 0 => Exit::SOME_FAILED,
        None => Exit::DONE,
    })
}

/// Reader and processor until all that the sinks lack is committed. When another writer was first with some
/// of it, asks the sinks again what they lack, and ships that.
pub(super) async fn ship(
    paths: &[PathBuf],
    options: &ReadOptions,
    decoders: &DecoderPool,
    sinks: &mut [Box<dyn Sink>],
    shutdown: &Shutdown,
) -> anyhow::Result<(ReadSummary, ProcessSummary)> {
    let mut committed = ProcessSummary::default();
    loop {
        let ledger = sink::ledger(sinks).await?;
        let (producer, mut consumer) = memory(QUEUE_BYTES);
        let reading = async {
            let read = reader::read(paths, options, ledger, &producer, shutdown).await;
            (read, producer.finish().await)
        };
        let processing = async {
            let idle = processor::IDLE;
            let processed =
                processor::process(&mut consumer, decoders, sinks, idle, None, &mut committed).await;
            // a reader that waits for room in the queue is to learn that nobody takes from it
            drop(consumer);
            processed
        };
        match tokio::join!(reading, processing) {
            (_, Err(ProcessError::Overlap)) if !shutdown.is_requested() => {
                tracing::warn!(
                    "another writer committed some of the same bytes first; reading what is lacking"
                );
                restart_is_possible(paths)?;
            }
            ((Ok(read), _), Err(ProcessError::Overlap)) => return Ok((read, committed)),
            (_, Err(error)) => return Err(error.into()),
            ((Err(error), _), Ok(())) => return Err(error.into()),
            ((Ok(read), all_reported), Ok(())) => {
                all_reported?;
                return Ok((read, committed));
            }
        }
    }
}

/// Reader and processor of one stream, which others may share, until all that was read here is committed.
async fn ship_through(
    stream: &RedisStream,
    paths: &[PathBuf],
    options: &ReadOptions,
    decoders: &DecoderPool,
    sinks: &mut [Box<dyn Sink>],
    shutdown: &Shutdown,
) -> anyhow::Result<(ReadSummary, ProcessSummary)> {
    let mut committed = ProcessSummary::default();
    let ledger = sink::ledger(sinks).await?;
    let opening = async { anyhow::Ok((stream.producer().await?, stream.consumer(false).await?)) };
    let (producer, mut consumer) = tokio::select! {
        opened = opening => opened?,
        // nothing is read yet
        () = shutdown.requested() => {
            return Ok((ReadSummary { interrupted: true, ..ReadSummary::default() }, committed));
        }
    };
    let all_reported = Shutdown::new();
    let reading = async {
        let read = reader::read(paths, options, ledger, &producer, shutdown).await;
        let finished = producer.finish().await;
        all_reported.request();
        (read, finished)
    };
    let processing = async {
        let (idle, stop) = (processor::IDLE, Some(&all_reported));
        let processed = processor::process(&mut consumer, decoders, sinks, idle, stop, &mut committed).await;
        consumer.close().await?;
        processed
    };
    let (read, finished) = {
        tokio::pin!(reading, processing);
        tokio::select! {
            processed = &mut processing => {
                processed?;
                anyhow::bail!("the processor ended before the reader; run again to ship what is lacking")
            }
            read = &mut reading => {
                processing.await?;
                read
            }
        }
    };
    finished?;
    Ok((read?, committed))
}

/// What was read from standard input or a pipe cannot be read again.
fn restart_is_possible(paths: &[PathBuf]) -> anyhow::Result<()> {
    let is_stream = |path: &&PathBuf| {
        let kind = std::fs::metadata(path).map(|metadata| metadata.file_type());
        *path == Path::new("-") || kind.is_ok_and(|kind| kind.is_fifo() || kind.is_char_device())
    };
    match paths.iter().find(is_stream) {
        None => Ok(()),
        Some(path) => anyhow::bail!(
            "another writer committed some of the same bytes first, and the stream {} cannot be read again: its last lines are not stored; send it again, alone",
            path.display()
        ),
    }
}

/// What a command did, for people and for programs.
pub(super) struct Summary<'a> {
    /// Where this process read too.
    pub(super) read: Option<&'a ReadSummary>,
    pub(super) committed: &'a ProcessSummary,
    pub(super) into: String,
    pub(super) took: Duration,
}

impl Summary<'_> {
    pub(super) fn json(&self) -> serde_json::Value {
        let committed = self.committed;
        let mut summary = serde_json::json!({
            "lines": committed.lines,
            "rows": committed.rows,
            "rejects": committed.rejects,
            "blanks": committed.blanks,
            "input_bytes": committed.input_bytes,
            "stored_bytes": committed.stored_bytes,
            "seconds": self.took.as_secs_f64(),
        });
        if let Some(read) = self.read {
            let failures: Vec<_> = read
                .failures
                .iter()
                .map(|failure| serde_json::json!({ "path": failure.path, "error": failure.to_string() }))
                .collect();
            summary["files"] = read.sources.len().into();
            summary["failures"] = failures.into();
            summary["interrupted"] = read.interrupted.into();
        }
        summary
    }

    pub(super) fn text(&self) -> String {
        let committed = self.committed;
        let rows = committed.rows.iter().map(|(log_type, rows)| (log_type.as_str(), *rows));
        let counts = rows.chain([
            ("rejects", committed.rejects),
            ("blanks", committed.blanks),
            ("lines", committed.lines),
        ]);
        let mut out = String::new();
        for (name, count) in counts {
            out.push_str(&format!("{name:<12}{:>15}\n", with_commas(count)));
        }
        let input = bytes_text(committed.input_bytes);
        match self.read.map(|read| read.sources.len()) {
            Some(1) => out.push_str(&format!("read        1 file, {input}\n")),
            Some(files) => out.push_str(&format!("read        {files} files, {input}\n")),
            None => out.push_str(&format!("received    {input}\n")),
        }
        if committed.lines == 0 {
            // of what was not read to its end, or not read here, that is not known
            if self.read.is_some_and(|read| !read.interrupted && read.failures.is_empty()) {
                let all = match self.read.and_then(|read| read.shard) {
                    Some(shard) => format!("all of shard {shard}"),
                    None => "all of it".to_owned(),
                };
                out.push_str(&format!("nothing new: {all} is in {} already\n", self.into));
            }
            return out;
        }
        let per_line = committed.stored_bytes as f64 / committed.lines as f64;
        let rate = committed.lines as f64 / self.took.as_secs_f64();
        out.push_str(&format!(
            "stored      {} ({per_line:.2} bytes per line) in {}\n",
            bytes_text(committed.stored_bytes),
            self.into
        ));
        let seconds = self.took.as_secs_f64();
        out.push_str(&format!("took        {seconds:.2} s, {} lines/s\n", with_commas(rate as u64)));
        out
    }
}
