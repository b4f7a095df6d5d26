//! `pipeline bench`: how fast, at what cost, and against what; figures on standard output.
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::watch;

use super::units::with_commas;
use super::{Exit, Global};
#[cfg(feature = "query")]
use crate::bench::ask_postgres;
use crate::bench::{
    AttachLimits, Input, OldMeasures, OldStyle, OldTable, PipelineRun, Queue, Sample, Schema, ServerClocks,
    StoredSize, Via, attach, compare, measure, questions, queue_cost, summaries, time,
};
use crate::client::redis::RESPONSE_TIMEOUT;
use crate::client::{PgConfig, RedisConfig, default_postgres_url, default_redis_url};
use crate::generate::STANDARD_TYPES;
use crate::log_type::LogTypes;
use crate::stage::shutdown::Shutdown;

#[cfg(feature = "query")]
mod record;
mod report;

use report::{Baseline, Report};

/// What `--via` says for no Redis.
const MEMORY: &str = "memory";
/// The stream and the schema that others use.
const STANDARD_STREAM: &str = "log_queue";
const STANDARD_SCHEMA: &str = "public";
const SCRATCH_SCHEMA: &str = "pipeline_bench";

/// Measure the pipeline: throughput, CPU, memory, bytes per row, queries, queue cost; beside the old design
///
/// Resets a schema and a stream of its own, runs the pipeline in processes of its own, and times what analysts ask.
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Files or folders to read [default: generated lines]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Generated lines, of the standard types, seed 42
    #[arg(long, value_name = "N", default_value_t = 2_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    lines: u64,
    /// What carries chunks: memory, or a Redis (redis://..) [default: that of docker-compose.yml]
    #[arg(long, value_name = "URL")]
    via: Option<String>,
    /// Postgres to load [default: that of docker-compose.yml]
    #[arg(long, value_name = "URL")]
    into: Option<String>,
    /// Schema that is dropped and made anew; with --attach the one that is watched [default: pipeline_bench; with
    /// --attach: public]
    #[arg(long, value_name = "NAME")]
    schema: Option<String>,
    /// Stream that is watched with --attach
    #[arg(long, value_name = "NAME", default_value = STANDARD_STREAM)]
    stream: String,
    /// Cut the input into chunks of about this size
    #[arg(long, value_name = "SIZE", default_value = "1MiB")]
    chunk_size: String,
    /// Chunks decoded at once, and connections to Postgres [default: number of cores]
    #[arg(long, value_name = "N")]
    workers: Option<u16>,
    /// Also run the old design (one message, one row, one commit), and its SQL on its table
    #[arg(long)]
    baseline: bool,
    /// Lines that the old design gets
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..))]
    baseline_lines: u64,
    /// Also measure reader, processor and archive apart, and what questions cost; write everything here, for `pipeline cost`
    #[cfg(feature = "query")]
    #[arg(long, value_name = "FILE", requires = "baseline", conflicts_with = "attach")]
    record: Option<PathBuf>,
    /// Watch a pipeline that was started elsewhere, for at most 600 s, or until 15 s pass without progress
    #[arg(long, conflicts_with_all = ["baseline", "paths"])]
    attach: bool,
    /// Leave the schemas as they are at the end
    #[arg(long)]
    keep: bool,
    /// Form of the report
    #[arg(long, value_enum, default_value_t)]
    output: ReportFormat,
    /// The process in which the old design is measured
    #[arg(long, hide = true)]
    as_old_design: bool,
    /// The process in which questions on this archive are measured
    #[cfg(feature = "query")]
    #[arg(long, hide = true, value_name = "DIR")]
    as_archive_reader: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum ReportFormat {
    #[default]
    Text,
    Json,
}

/// Runs it; a signal ends what it started.
pub(super) async fn run(args: BenchArgs, global: &Global) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::new();
    shutdown.listen().context("listen for signals")?;
    let bench = Bench {
        postgres: PgConfig::parse(&args.postgres())?,
        redis: args.redis().map(|url| RedisConfig::parse(&url)).transpose()?,
        args,
        global,
    };
    let finished = async {
        match &bench.args {
            args if args.as_old_design => bench.old_design().await,
            args if args.attach => bench.attach().await,
            #[cfg(feature = "query")]
            args if args.as_archive_reader.is_some() => bench.read_archive().await,
            _ => bench.measure().await,
        }
    };
    // what is dropped kills its processes and removes its files
    tokio::select! {
        exit = finished => exit,
        () = shutdown.requested() => Ok(Exit::Code(shutdown.exit_code().unwrap_or_default())),
    }
}

impl BenchArgs {
    fn postgres(&self) -> String {
        self.into.clone().unwrap_or_else(default_postgres_url)
    }

    fn via(&self) -> String {
        self.via.clone().unwrap_or_else(default_redis_url)
    }

    /// The Redis to connect to, if any.
    fn redis(&self) -> Option<String> {
        match self.via() {
            // the old design has no way but Redis
            via if via == MEMORY => (self.baseline || self.as_old_design).then(default_redis_url),
            url => Some(url),
        }
    }

    fn schema(&self) -> &str {
        let default = if self.attach { STANDARD_SCHEMA } else { SCRATCH_SCHEMA };
        self.schema.as_deref().unwrap_or(default)
    }
}

struct Bench<'a> {
    args: BenchArgs,
    global: &'a Global,
    postgres: PgConfig,
    redis: Option<RedisConfig>,
}

impl Bench<'_> {
    async fn measure(&self) -> anyhow::Result<Exit> {
        let args = &self.args;
        #[cfg(feature = "query")]
        self.check_record()?;
        let schema = Schema::reset(self.postgres.connect_at_start().await?, args.schema()).await?;
        let old_schema = match args.baseline {
            true => Some(Schema::reset(self.postgres.connect().await?, &self.old_schema()).await?),
            false => None,
        };
        let input = self.input()?;
        // a stream of its own, so that nobody's frames are counted or touched
        let stream = format!("{}:{}", args.schema(), std::process::id());
        let (via, mut queue) = match args.via() {
            via if via == MEMORY => (Via::Memory, None),
            url => (Via::Redis { url, stream: stream.clone() }, self.queue(&stream).await?),
        };
        let clock_redis = match (&self.redis, &queue) {
            (Some(redis), Some(_)) => Some(redis.connect(Some(RESPONSE_TIMEOUT)).await?),
            _ => None,
        };
        let mut clocks = ServerClocks::find(schema.client(), clock_redis).await;
        let run = PipelineRun {
            program: std::env::current_exe().context("find this program")?,
            paths: input.paths().to_vec(),
            total_bytes: input.total_bytes(),
            via,
            into: args.postgres(),
            arguments: self.arguments(),
        };
        let (samples, seen) = watch::channel(Sample::default());
        let display = Display::start(!self.global.quiet, seen);
        let figures = run.measure(&schema, queue.as_mut(), &mut clocks, &samples).await;
        display.stop(samples).await;
        if let Some(queue) = &mut queue {
            queue.remove().await?;
        }
        let figures = figures?;
        let unindexed_leaves = schema.unindexed_leaves().await?;
        schema.vacuum().await?;
        let asked = time(schema.client(), schema.name(), questions(), false).await?;
        let summarized = time(schema.client(), schema.name(), summaries(), false).await?;
        let baseline = match old_schema {
            None => None,
            Some(old) => {
                let table = OldTable::make(old).await?;
                let mut measures = self.run_old_design(&input, table.schema(), &mut clocks).await?;
                table.fill_from(&schema).await?;
                table.schema().vacuum().await?;
                measures.stored = table.stored_size().await?;
                let old_schema = table.schema();
                let answers = time(old_schema.client(), old_schema.name(), questions(), true).await?;
                let compared = compare(&asked, &answers)?;
                if !args.keep {
                    old_schema.drop_all().await?;
                }
                Some(Baseline::new(&figures, measures, compared))
            }
        };
        #[cfg(feature = "query")]
        let postgres_answers = match args.record {
            Some(_) => ask_postgres(schema.client(), &clocks, schema.name(), questions()).await?,
            None => Vec::new(),
        };
        if !args.keep {
            schema.drop_all().await?;
        }
        let committed = figures.committed;
        let report = Report {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            via: args.via().split("://").next().unwrap_or_default().to_owned(),
            chunk_size: args.chunk_size.clone(),
            unindexed_leaves,
            queue_cost: queue_cost(committed.lines, committed.chunks, committed.bytes)?,
            run: figures,
            questions: asked,
            summaries: summarized,
            baseline,
        };
        #[cfg(feature = "query")]
        if let Some(file) = &args.record {
            self.record(file, &input, &report, postgres_answers).await?;
        }
        match args.output {
            ReportFormat::Json => writeln!(io::stdout(), "{}", report.json()?)?,
            ReportFormat::Text => write!(io::stdout(), "{}", report.text())?,
        }
        Ok(if unindexed_leaves == 0 { Exit::DONE } else { Exit::SOME_FAILED })
    }

    async fn attach(&self) -> anyhow::Result<Exit> {
        let args = &self.args;
        let schema = Schema::of(self.postgres.connect_at_start().await?, args.schema());
        let queue = self.queue(&args.stream).await?;
        let (samples, seen) = watch::channel(Sample::default());
        let display = Display::start(!self.global.quiet, seen);
        let attached = attach(&schema, queue, AttachLimits::default(), &samples).await;
        display.stop(samples).await;
        let attached = attached?;
        match args.output {
            ReportFormat::Json => writeln!(io::stdout(), "{}", serde_json::to_string(&attached)?)?,
            ReportFormat::Text => write!(io::stdout(), "{}", report::attached(&attached))?,
        }
        Ok(Exit::DONE)
    }

    /// The old design in a process of its own, measured like the pipeline.
    async fn run_old_design(
        &self,
        input: &Input,
        schema: &Schema,
        clocks: &mut ServerClocks,
    ) -> anyhow::Result<OldMeasures> {
        let args = &self.args;
        let mut command = Command::new(std::env::current_exe().context("find this program")?);
        command.args(["bench", "--as-old-design", "--schema", &self.old_schema(), "--baseline-lines"]);
        command.arg(args.baseline_lines.to_string()).args(self.common());
        // by variable: a URL may hold a password
        command.env("PIPELINE_INTO", args.postgres()).env("PIPELINE_VIA", args.redis().unwrap_or_default());
        command.arg("--").args(input.paths());
        let (postgres, redis) = (clocks.postgres_seconds(), clocks.redis_seconds().await);
        let logged = schema.wal_bytes().await?;
        let (process, output) = measure(&mut command, "bench").await?;
        let since = |before: Option<f64>, now: Option<f64>| Some(now? - before?);
        Ok(OldMeasures {
            process,
            old: serde_json::from_str(&output).context("read what the old design took")?,
            postgres_cpu_seconds: since(postgres, clocks.postgres_seconds()),
            redis_cpu_seconds: since(redis, clocks.redis_seconds().await),
            wal_bytes: schema.wal_bytes().await?.saturating_sub(logged),
            stored: StoredSize::default(),
        })
    }

    /// What the process of the old design does.
    async fn old_design(&self) -> anyhow::Result<Exit> {
        let redis = self.redis.as_ref().context("the old design needs Redis; name one with --via")?;
        let schema = Schema::of(self.postgres.connect_at_start().await?, self.args.schema());
        let count = usize::try_from(self.args.baseline_lines)?;
        let lines = Input::named(self.args.paths.clone()).first_lines(count)?;
        let list = format!("{}:{}", schema.name(), std::process::id());
        let reader = redis.connect(Some(RESPONSE_TIMEOUT)).await?;
        let processor = redis.connect(None).await?;
        let figures = OldStyle { lines, list, reader, processor }.run(&schema).await?;
        writeln!(io::stdout(), "{}", serde_json::to_string(&figures)?)?;
        Ok(Exit::DONE)
    }

    fn input(&self) -> anyhow::Result<Input> {
        if !self.args.paths.is_empty() {
            return Ok(Input::named(self.args.paths.clone()));
        }
        // the standard types, whatever types a site adds
        let types = LogTypes::load(None)?;
        Ok(Input::generate(&types, &STANDARD_TYPES, self.args.lines, &std::env::temp_dir())?)
    }

    async fn queue(&self, stream: &str) -> anyhow::Result<Option<Queue>> {
        Ok(match &self.redis {
            Some(redis) => Some(Queue::of(redis.connect_at_start(Some(RESPONSE_TIMEOUT)).await?, stream)?),
            None => None,
        })
    }

    fn old_schema(&self) -> String {
        format!("{}_old", self.args.schema())
    }

    /// Arguments of the pipeline that is measured, besides where from and where to.
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments = self.common();
        arguments.extend(["--chunk-size".into(), OsString::from(&self.args.chunk_size)]);
        if let Some(workers) = self.args.workers {
            arguments.extend(["--workers".into(), workers.to_string().into()]);
        }
        arguments
    }

    /// Arguments of every process that is started.
    fn common(&self) -> Vec<OsString> {
        let mut common = vec!["--quiet".into()];
        if let Some(folder) = &self.global.log_types {
            common.extend(["--log-types".into(), folder.clone().into()]);
        }
        common
    }
}

/// A bar on a terminal, nothing elsewhere.
struct Display(Option<tokio::task::JoinHandle<()>>);

impl Display {
    fn start(wanted: bool, samples: watch::Receiver<Sample>) -> Self {
        Self((wanted && io::stderr().is_terminal()).then(|| tokio::spawn(show(samples))))
    }

    async fn stop(self, samples: watch::Sender<Sample>) {
        drop(samples);
        if let Some(task) = self.0 {
            // it ends by itself; a bar that panicked is no reason to fail
            let _ended = task.await;
        }
    }
}

/// Draws until nobody sends samples any more.
async fn show(mut samples: watch::Receiver<Sample>) {
    let template = "{elapsed_precise}  {bar:30} {percent:>3}%  {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style);
    while samples.changed().await.is_ok() {
        let sample = samples.borrow_and_update().clone();
        bar.set_length(sample.total_bytes.unwrap_or(sample.committed.bytes));
        bar.set_position(sample.committed.bytes);
        let (rows, rate) = (with_commas(sample.committed.rows), with_commas(sample.rows_per_second as u64));
        let queue = sample.queue.map_or_else(String::new, |queue| {
            let oldest = queue.oldest.unwrap_or_default().as_secs_f64();
            format!("  queue {} frames, oldest {oldest:.1} s", queue.frames)
        });
        bar.set_message(format!("{rows} rows, {rate} rows/s{queue}"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    bar.finish_and_clear();
}
