//! `pipeline fetch`: the files of a manifest, downloaded and processed.
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::places;
use super::run::SummaryFormat;
use super::storage::StorageArgs;
use super::units::{bytes_text, with_commas};
use super::{Exit, Global, UsageError};
use crate::client::{ClientError, redacted};
use crate::download::{DownloadError, FileItem, Manifest, UnpackLimits};
use crate::source::CutOptions;
use crate::stage::downloader::{
    Fetch, FetchError, FetchOptions, FetchReport, Ingest, IngestOptions, Simulation, SpecError, StageParts,
    Stages, Status,
};
use crate::stage::processor::DecoderPool;
use crate::stage::shutdown::Shutdown;
use crate::store::{DEFAULT_DATABASE, Database, DatabaseLocation, StoreError};
use crate::telemetry::Metric;

mod args;

use args::{DownloadArgs, WorkArgs};

/// Download the files of a manifest, process them, lose none; run again to continue
#[derive(Debug, Args)]
#[command(
    after_help = "A manifest is a JSON array, or lines, of {\"url\": .., \"id\": .., \"name\": .., \"sha256\": .., \"size\": ..}; \
only url is needed, other fields are handed to every stage.\n\
Pre-processors: none, decompress, checksum, exec:COMMAND. Processors: none, ingest, exec:COMMAND. \
Post-processors: none, report[:FILE], keep:DIR, exec:COMMAND.\n\
Without a processor or keep:DIR a file is downloaded, checked and removed again."
)]
pub(super) struct FetchArgs {
    /// Manifest of what to fetch, or - for standard input
    #[arg(long, value_name = "FILE")]
    files: PathBuf,
    /// Fetch nothing where an entry of the manifest cannot be used
    #[arg(long)]
    strict: bool,
    /// What is done with a file before the work
    #[arg(long, value_name = "NAME", default_value = "none")]
    pre_processor: String,
    /// The work
    #[arg(long, value_name = "NAME", default_value = "none")]
    processor: String,
    /// What is done with every item at its end, failed ones too
    #[arg(long, value_name = "NAME", default_value = "none")]
    post_processor: String,
    /// Where `ingest` writes, several times for several places: an archive (folder, s3://, gs://, az://) or postgres://..; with
    /// #types=NAME,NAME behind it, only those log types
    #[arg(long, value_name = "URL", default_value = super::DEFAULT_ARCHIVE)]
    into: Vec<String>,
    /// Where progress is kept: a SQLite file, or postgres://..
    #[arg(long, value_name = "URL", default_value = DEFAULT_DATABASE)]
    database: String,
    /// Only what failed before
    #[arg(long)]
    retry_failed: bool,
    /// What is done already too
    #[arg(long, conflicts_with = "retry_failed")]
    again: bool,
    /// Ask servers whether what is done already has changed (by its ETag), and fetch what has
    #[arg(long)]
    revalidate: bool,
    /// Log every step
    #[arg(long)]
    pub(super) debug: bool,
    /// Form of the summary
    #[arg(long, value_enum, default_value_t)]
    output: SummaryFormat,
    #[command(flatten)]
    downloads: DownloadArgs,
    #[command(flatten)]
    work: WorkArgs,
    #[command(flatten)]
    storage: StorageArgs,
}

/// Runs it.
pub(super) async fn run(args: FetchArgs, global: &Global) -> anyhow::Result<Exit> {
    let download = args.downloads.options(args.revalidate)?;
    let is_ingest = Stages::is_ingest(&args.processor)?;
    let keeps = args.post_processor.starts_with("keep:");
    if args.downloads.simulate_downloads && (is_ingest || keeps) {
        let text = "--simulate-downloads stores nothing; leave out ingest and keep:DIR, or the simulation";
        return Err(UsageError(text.to_owned()).into());
    }
    let types = global.log_types()?;
    let shutdown = Shutdown::new();
    shutdown.listen().context("listen for signals")?;
    let manifest = tokio::select! {
        manifest = read_manifest(args.files.clone()) => manifest?,
        () = shutdown.requested() => return Ok(shutdown.exit_code().map_or(Exit::DONE, Exit::Code)),
    };
    if does_nothing(&args) {
        tracing::warn!(
            "nothing is done with the files and none is kept; name --processor, or --post-processor keep:DIR"
        );
    }
    let faults = manifest.faults.clone();
    for fault in &faults {
        super::print_error(&format!("{}: {fault}", args.files.display()))?;
    }
    if args.strict && !faults.is_empty() {
        return Ok(Exit::SOME_FAILED);
    }
    let database =
        Database::try_open(&DatabaseLocation::parse(&args.database)?, &args.storage.schema).await?;
    let ingest = match is_ingest {
        true => {
            let decoders = DecoderPool::new(types.clone(), args.storage.workers());
            let sinks = args.storage.open(places::of(&args.into, &types)?, &types).await?;
            let cut = CutOptions {
                chunk_size_bytes: args.work.chunk_size,
                max_line_bytes: args.work.max_line_bytes,
            };
            Some(Ingest::start(sinks, decoders, IngestOptions { cut }))
        }
        false => None,
    };
    let parts = StageParts {
        ingest: ingest.clone(),
        limits: UnpackLimits {
            max_bytes: args.work.max_unpacked_gib << 30,
            max_ratio: args.work.max_unpack_ratio,
            ..UnpackLimits::default()
        },
        exec_timeout: args.work.exec_timeout,
        out: Arc::new(Mutex::new(io::stdout())),
        shutdown: shutdown.clone(),
    };
    let stages = Stages::parse(&args.pre_processor, &args.processor, &args.post_processor, parts)?;
    let options = FetchOptions {
        download,
        download_queue: args.work.download_queue_size.into(),
        pre_processing_queue: args.work.pre_processing_queue_size.into(),
        processing_limit: args.work.processing_limit.into(),
        retry_failed: args.retry_failed,
        again: args.again,
        simulation: args.downloads.simulate_downloads.then_some(Simulation {
            seed: args.downloads.seed,
            failures: args.downloads.simulate_failures,
            no_sleep: args.downloads.no_sleep,
        }),
    };
    let fetch = Fetch::new(options).with_stages(stages).with_shutdown(shutdown.clone());
    let fetch = fetch.with_state(database.fetches(), work_name(&args)?);
    let progress = start_progress(&manifest.items, !global.quiet);
    let told = tell_of_interrupt(shutdown.clone());
    let report = fetch.run_entries(manifest).await;
    told.abort();
    if let Some(progress) = progress {
        progress.abort();
        // what is printed next is not to stand behind the bar
        let _gone = progress.await;
    }
    let report = report?;
    for item in report.items.iter().filter(|item| item.status == Status::Failed) {
        let (stage, error) = (item.stage.map_or("", |stage| stage.as_str()), item.error.as_deref());
        super::print_error(&format!("{} ({}): {stage}: {}", item.name, item.url, error.unwrap_or_default()))?;
    }
    let mut rejects = 0;
    if let Some(ingest) = ingest
        && !shutdown.is_requested()
    {
        rejects = ingest.finish().await.map_err(|error| anyhow::anyhow!("{error}"))?.rejects;
    }
    write_summary(&args, &report, global.quiet)?;
    Ok(match shutdown.exit_code() {
        Some(code) => Exit::Code(code),
        None if report.has_failures() => Exit::SOME_FAILED,
        None if args.storage.fail_on_rejects && rejects > 0 => Exit::SOME_FAILED,
        None => Exit::DONE,
    })
}

/// On a thread that is not waited for: an open pipe may never end.
async fn read_manifest(path: PathBuf) -> Result<Manifest, FetchError> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    let of_thread = path.clone();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let read = match of_thread.as_os_str() == "-" {
            true => io::stdin().read_to_end(&mut text),
            false => std::fs::File::open(&of_thread).and_then(|mut file| file.read_to_end(&mut text)),
        };
        // who asked may have been interrupted
        let _heard = answer.send(read.map(|_| text));
    });
    let read = answered.await.unwrap_or_else(|gone| Err(io::Error::other(gone)));
    let text = read.map_err(|source| FetchError::Unreadable { path: path.clone(), source })?;
    Manifest::from_bytes(&text).map_err(|fault| FetchError::Manifest { path, fault })
}

/// Whether files would be downloaded, and removed again.
fn does_nothing(args: &FetchArgs) -> bool {
    args.processor == "none"
        && !args.pre_processor.starts_with("exec")
        && (args.post_processor == "none" || args.post_processor.starts_with("report"))
        && !args.downloads.simulate_downloads
}

/// What is done with the files, so that progress is of the same work only. A report changes nothing of it.
fn work_name(args: &FetchArgs) -> anyhow::Result<String> {
    let post = if args.post_processor.starts_with("report") { "none" } else { &args.post_processor };
    let mut parts = vec![args.pre_processor.clone(), args.processor.clone(), absolute(post, "keep:")?];
    if args.processor == "ingest" {
        for place in &args.into {
            parts.push(if place.contains("://") { redacted(place) } else { absolute(place, "")? });
        }
        parts.push(args.storage.schema.clone());
    }
    let hash = Sha256::digest(parts.join("\0"));
    let short: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    // a command may hold a secret
    let kind = |spec: &str| spec.split(':').next().unwrap_or_default().to_owned();
    Ok(format!("{} {} {} {short}", kind(&args.pre_processor), kind(&args.processor), kind(post)))
}

fn absolute(path: &str, prefix: &str) -> anyhow::Result<String> {
    match path.strip_prefix(prefix) {
        Some(path) => Ok(format!("{prefix}{}", std::path::absolute(path)?.display())),
        None => Ok(path.to_owned()),
    }
}

fn tell_of_interrupt(shutdown: Shutdown) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        shutdown.requested().await;
        tracing::warn!(
            "stopping: what runs is finished; interrupt again to end now, nothing received is lost"
        );
    })
}

/// A bar on a terminal, nothing elsewhere.
fn start_progress(items: &[FileItem], wanted: bool) -> Option<tokio::task::JoinHandle<()>> {
    if !wanted || !io::stderr().is_terminal() {
        return None;
    }
    let files = items.len() as u64;
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} files  {msg}  eta {eta}");
    let bar = ProgressBar::new(files).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let known_bytes: Option<u64> = items.iter().map(|item| item.size).sum();
    let cleared = Cleared(bar.clone());
    Some(tokio::spawn(async move {
        let _cleared = cleared;
        loop {
            let (done, failed) = (Metric::FilesDone.value(), Metric::FilesFailed.value());
            let bytes = bytes_text(Metric::DownloadBytes.value());
            let of = known_bytes.map(|all| format!("/{}", bytes_text(all))).unwrap_or_default();
            let failures = if failed > 0 { format!(", {failed} failed") } else { String::new() };
            bar.set_message(format!("{bytes}{of}{failures}"));
            bar.set_position(done + failed);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }))
}

/// Leaves no bar behind, however its task ends.
struct Cleared(ProgressBar);

impl Drop for Cleared {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

fn write_summary(args: &FetchArgs, report: &FetchReport, quiet: bool) -> anyhow::Result<()> {
    let count = |status| report.count(status) as u64;
    let seconds = report.took.as_secs_f64();
    // a report on standard output is alone there
    let reports_there = args.post_processor == "report";
    let mut out: Box<dyn Write> = if reports_there { Box::new(io::stderr()) } else { Box::new(io::stdout()) };
    match args.output {
        SummaryFormat::Json => {
            let failures: Vec<_> = report.items.iter().filter(|item| item.status == Status::Failed).collect();
            let faults: Vec<_> = report.faults.iter().map(ToString::to_string).collect();
            let summary = json!({
                "done": count(Status::Done),
                "failed": count(Status::Failed),
                "skipped": count(Status::Skipped),
                "not_started": count(Status::NotStarted),
                "bad_entries": faults,
                "failures": failures,
                "bytes_received": report.bytes_received,
                "bytes_again": report.bytes_again,
                "seconds": seconds,
                "interrupted": report.interrupted,
            });
            writeln!(out, "{summary}")?;
        }
        SummaryFormat::Text if quiet => {}
        SummaryFormat::Text => {
            for (name, number) in [
                ("done", count(Status::Done)),
                ("failed", count(Status::Failed)),
                ("skipped", count(Status::Skipped)),
                ("not started", count(Status::NotStarted)),
                ("bad entries", report.faults.len() as u64),
            ] {
                if number > 0 || name == "done" {
                    writeln!(out, "{name:<12}{:>15}", with_commas(number))?;
                }
            }
            let rate = bytes_text((report.bytes_received as f64 / seconds.max(0.001)) as u64);
            let again = match report.bytes_again {
                0 => String::new(),
                again => format!(" ({} of it again)", bytes_text(again)),
            };
            writeln!(out, "received    {}{again}", bytes_text(report.bytes_received))?;
            writeln!(out, "took        {seconds:.2} s, {rate}/s")?;
        }
    }
    Ok(())
}

/// The exit code of errors that come from here.
pub(super) fn exit_code(error: &anyhow::Error) -> Option<u8> {
    if error.is::<SpecError>() {
        return Some(Exit::USAGE);
    }
    let store = match error.downcast_ref() {
        Some(FetchError::State(error)) => Some(error),
        Some(FetchError::Download(DownloadError::Untrusted { .. } | DownloadError::Disk { .. })) => {
            return Some(Exit::CONFIGURATION);
        }
        Some(FetchError::Manifest { .. } | FetchError::Unreadable { .. }) => {
            return Some(Exit::CONFIGURATION);
        }
        _ => error.downcast_ref::<StoreError>(),
    };
    store.map(|error| match error {
        StoreError::Client(ClientError::Unreachable { .. })
        | StoreError::Postgres { .. }
        | StoreError::Sqlite { .. } => Exit::SERVICE,
        _ => Exit::CONFIGURATION,
    })
}
