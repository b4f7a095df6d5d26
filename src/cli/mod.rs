//! Commands: one file each. What goes to standard output is data; everything else goes to standard error.
use std::io::{self, Write};
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::archive::ArchiveError;
use crate::bench::BenchError;
use crate::client::{self, ClientError, StorageFault, with_causes};
use crate::config::{self, ConfigError, Origin};
use crate::cost::CostError;
use crate::lake::LakeError;
use crate::log_type::{LogTypeError, LogTypes};
use crate::sink::SinkError;
use crate::source::SourceError;
use crate::stage::processor::ProcessError;
use crate::stage::reader::ReadError;
use crate::stage::sender::SendError;
use crate::telemetry::{self, LogFormat, LogOptions};
use crate::transport::TransportError;
use crate::warehouse::WarehouseError;

mod archive;
mod bench;
mod columns;
mod completions;
mod cost;
mod doctor;
mod export;
mod fetch;
mod generate;
mod input;
mod load;
mod metrics;
#[cfg(feature = "query")]
mod page;
mod places;
mod process;
mod progress;
#[cfg(feature = "query")]
mod prompt;
#[cfg(feature = "query")]
mod query;
#[cfg(feature = "query")]
mod query_worker;
mod queue;
mod read;
mod rejects;
mod repair;
mod replay;
mod run;
mod serve;
mod storage;
mod task;
mod types;
mod units;
mod verify;

/// Where `run` writes and everything else reads unless told otherwise.
const DEFAULT_ARCHIVE: &str = "./pipeline-data/archive";

/// Raw security logs to a queryable archive: each line exactly once, every byte accounted for
#[derive(Debug, Parser)]
#[command(name = "pipeline", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "Every flag is also a variable (--chunk-size: PIPELINE_CHUNK_SIZE) and a key in \
./pipeline.toml (chunk-size = \"2MiB\").\n\
Exit codes: 0 done; 1 done, but a check failed or some items did; 2 usage; 3 configuration; 4 storage or a \
needed service failed; 130, 143 on signals, after a clean drain.")]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Debug, clap::Args)]
struct Global {
    /// Folder of log type files (*.toml), tried before the built-in types
    #[arg(long, value_name = "DIR", global = true, help_heading = "Global options")]
    log_types: Option<PathBuf>,
    /// Form of log lines
    #[arg(long, value_enum, default_value_t, global = true, help_heading = "Global options")]
    log_format: LogFormat,
    /// Append log lines to this file instead of standard error
    #[arg(long, value_name = "FILE", global = true, help_heading = "Global options")]
    log_file: Option<PathBuf>,
    /// Log what happens (-v), details (-vv), everything (-vvv)
    #[arg(short, long, action = clap::ArgAction::Count, global = true, help_heading = "Global options")]
    verbose: u8,
    /// Serve metrics at http://ADDRESS/metrics while the command runs; port 0 takes a free one, `none` serves none
    #[arg(long, value_name = "ADDRESS", global = true, help_heading = "Global options")]
    metrics_addr: Option<String>,
    /// Log errors only; no progress, no summary
    #[arg(long, global = true, help_heading = "Global options")]
    quiet: bool,
}

impl Global {
    fn log_types(&self) -> Result<LogTypes, LogTypeError> {
        LogTypes::load(self.log_types.as_deref())
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::RunArgs),
    Read(read::ReadArgs),
    #[command(alias = "processor")]
    Process(process::ProcessArgs),
    /// `read --watch`, as old scripts call it
    #[command(hide = true)]
    Reader(read::ReadArgs),
    /// Make the tables, as old scripts do first
    #[command(hide = true)]
    InitDb(process::InitDbArgs),
    Generate(generate::GenerateArgs),
    Verify(verify::VerifyArgs),
    #[command(subcommand)]
    Rejects(rejects::RejectsCommand),
    Replay(replay::ReplayArgs),
    Serve(serve::ServeArgs),
    #[command(subcommand)]
    Load(load::LoadCommand),
    #[cfg(feature = "query")]
    Query(query::QueryArgs),
    #[cfg(feature = "query")]
    QueryWorker(query_worker::QueryWorkerArgs),
    /// Look into the archive, or write the original files back
    #[command(subcommand)]
    Archive(archive::ArchiveCommand),
    Fetch(fetch::FetchArgs),
    Bench(bench::BenchArgs),
    Cost(cost::CostArgs),
    /// List, show, make and check log types
    #[command(subcommand)]
    Types(types::TypesCommand),
    /// Run named jobs now, later, or again and again; see what came of them
    #[command(subcommand)]
    Task(task::TaskCommand),
    /// All tasks, a line each
    #[command(hide = true, name = "list_tasks")]
    ListTasks(task::OldListArgs),
    /// Run a task under an id
    #[command(hide = true, name = "run_task")]
    RunTask(task::OldRunArgs),
    /// A task in a line
    #[command(hide = true, name = "task_status")]
    TaskStatus(task::IdArgs),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
}

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Exit {
    /// With this exit code.
    Code(u8),
}

impl Exit {
    const DONE: Exit = Exit::Code(0);
    /// Done, but a check failed or some items did.
    const SOME_FAILED: Exit = Exit::Code(1);
    const USAGE: u8 = 2;
    const CONFIGURATION: u8 = 3;
    const SERVICE: u8 = 4;
}

/// A mistake on the command line that only the command itself sees.
#[derive(Debug, thiserror::Error)]
#[error("{0}; try '--help'")]
struct UsageError(String);

/// Parses the command line, runs the command, prints the error if there is one; returns the exit code.
pub fn main() -> u8 {
    client::use_ring();
    match try_main() {
        Ok(Exit::Code(code)) => code,
        // a connection to a service breaks in the same way, and is no output
        Err(error) if is_closed_pipe(&error) && exit_code(&error) == 1 => 0,
        Err(error) => {
            // if standard error is closed too, the exit code has to say it all
            let _unseen = print_error(&with_causes(error.as_ref()));
            exit_code(&error)
        }
    }
}

fn try_main() -> anyhow::Result<Exit> {
    let (command, origins) = config::apply(Cli::command())?;
    let parsed = command.try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let Cli { global, command } = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // help and version are data on standard output and exit 0; mistakes are 2
            match error.kind() {
                _ if !error.use_stderr() => error.print()?,
                ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => error.print()?,
                _ => {
                    let (origin, code) = match origins.of(&error) {
                        Some(Origin::File(key)) => (format!("{key}: "), Exit::CONFIGURATION),
                        Some(Origin::Variable(name)) => (format!("variable {name}: "), Exit::USAGE),
                        None => (String::new(), Exit::USAGE),
                    };
                    print_error(&format!("{origin}{}", usage_error(&error)))?;
                    return Ok(Exit::Code(code));
                }
            }
            return Ok(Exit::Code(u8::try_from(error.exit_code()).unwrap_or(Exit::USAGE)));
        }
    };
    let log = LogOptions {
        format: global.log_format,
        file: global.log_file.clone(),
        verbosity: match &command {
            Command::Fetch(args) if args.debug => global.verbose.max(2),
            _ => global.verbose,
        },
        quiet: global.quiet,
    };
    let _log = telemetry::init(&log).map_err(|error| {
        let path = global.log_file.clone().unwrap_or_default();
        anyhow::Error::new(error).context(format!("open the log file {}", path.display()))
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(async {
        metrics::serve(global.metrics_addr.as_deref()).await?;
        match command {
            Command::Run(args) => run::run(args, &global).await,
            Command::Read(args) => read::run(args, &global).await,
            Command::Process(args) => process::run(args, &global).await,
            Command::Reader(args) => read::run(args.watching(), &global).await,
            Command::InitDb(args) => process::init_db(&args, &global).await,
            Command::Generate(args) => generate::run(&args, &global),
            Command::Verify(args) => verify::run(args, &global).await,
            Command::Rejects(command) => rejects::run(command, &global).await,
            Command::Replay(args) => replay::run(args, &global).await,
            Command::Serve(args) => serve::run(args, &global).await,
            Command::Load(command) => load::run(command, &global).await,
            #[cfg(feature = "query")]
            Command::Query(args) => query::run(args, &global).await,
            #[cfg(feature = "query")]
            Command::QueryWorker(args) => query_worker::run(args).await,
            Command::Archive(command) => archive::run(command, &global).await,
            Command::Fetch(args) => fetch::run(args, &global).await,
            Command::Bench(args) => bench::run(args, &global).await,
            Command::Cost(args) => cost::run(&args, &global),
            Command::Types(command) => types::run(command, &global),
            Command::Task(command) => task::run(command, &global).await,
            Command::ListTasks(args) => task::old_list(&args).await,
            Command::RunTask(args) => task::old_run(&args, &global).await,
            Command::TaskStatus(args) => task::old_status(&args).await,
            Command::Doctor(args) => doctor::run(args, &global).await,
            Command::Completions(args) => completions::run(&args, Cli::command()),
        }
    });
    // a thread that waits for standard input to say something would be waited for in turn
    runtime.shutdown_background();
    exit
}

fn print_error(message: &str) -> io::Result<()> {
    let line = message.split('\n').map(str::trim).collect::<Vec<_>>().join(" ");
    // a name out of somebody's manifest must not command the terminal
    let line = line.replace(char::is_control, " ");
    writeln!(io::stderr(), "error: {line}")
}

/// What the parser says, without its headings: the mistake, the tip if it has one, where to read on.
fn usage_error(error: &clap::Error) -> String {
    let text = error.to_string();
    let parts = text.trim_start_matches("error: ").split("\n\n").map(str::trim);
    let parts: Vec<_> = parts.filter(|part| !part.is_empty() && !part.starts_with("Usage: ")).collect();
    parts.join("; ").replace("; For more information, try '--help'.", "; try '--help'")
}

/// `pipeline .. | head` ends quietly.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
    })
}

fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<UsageError>() {
        return Exit::USAGE;
    }
    let of_command = [task::exit_code, task::state_exit_code, fetch::exit_code, serve::exit_code];
    if let Some(code) = of_command.into_iter().find_map(|exit_code| exit_code(error)) {
        return code;
    }
    #[cfg(feature = "query")]
    if let Some(code) = query::exit_code(error) {
        return code;
    }
    if error.is::<ConfigError>() || error.is::<LogTypeError>() || error.is::<CostError>() {
        return Exit::CONFIGURATION;
    }
    match error.downcast_ref() {
        Some(SendError::BadUrl(_)) => return Exit::USAGE,
        Some(SendError::Unreachable { .. }) => return Exit::SERVICE,
        None => {}
    }
    match error.downcast_ref() {
        Some(BenchError::NotScratch { .. }) => return Exit::CONFIGURATION,
        Some(BenchError::Server { .. }) => return Exit::SERVICE,
        Some(_) | None => {}
    }
    let source = match error.downcast_ref() {
        Some(ReadError::Watch(_)) => return Exit::USAGE,
        Some(ReadError::NothingToRead(failures)) => failures.first().map(|failure| &failure.error),
        Some(ReadError::Storage(failure)) => Some(&failure.error),
        _ => error.downcast_ref::<SourceError>(),
    };
    match source {
        Some(SourceError::Location(_)) => return Exit::CONFIGURATION,
        Some(error) => match error.fault() {
            Some(StorageFault::NoBucket | StorageFault::Denied) => return Exit::CONFIGURATION,
            Some(_) => return Exit::SERVICE,
            None => {}
        },
        None => {}
    }
    let sink = match error.downcast_ref() {
        Some(ProcessError::Sink(error)) => Some(error),
        _ => error.downcast_ref::<SinkError>(),
    };
    let lake = match sink {
        Some(SinkError::Lake(error)) => Some(error),
        _ => error.downcast_ref::<LakeError>(),
    };
    let warehouse = match sink {
        Some(SinkError::Warehouse(error)) => Some(error),
        _ => error.downcast_ref::<WarehouseError>(),
    };
    let transport = match (error.downcast_ref(), error.downcast_ref()) {
        (Some(ProcessError::Transport(error)), _) | (_, Some(ReadError::Transport(error))) => Some(error),
        _ => error.downcast_ref::<TransportError>(),
    };
    let client = match (warehouse, transport) {
        (Some(WarehouseError::Client(error)), _) | (_, Some(TransportError::Client(error))) => Some(error),
        _ => error.chain().find_map(|cause| cause.downcast_ref::<ClientError>()),
    };
    let is_of_part = matches!(error.downcast_ref(), Some(ArchiveError::Part { .. }));
    if is_of_part || matches!(sink, Some(SinkError::Part(_))) {
        return Exit::CONFIGURATION;
    }
    match (client, warehouse, lake) {
        (Some(ClientError::Unreachable { .. }), ..) => Exit::SERVICE,
        (Some(ClientError::BadUrl { .. } | ClientError::Refused { .. }), ..) => Exit::CONFIGURATION,
        _ if matches!(transport, Some(TransportError::Redis { .. })) => Exit::SERVICE,
        _ if matches!(transport, Some(TransportError::StreamName(_))) => Exit::CONFIGURATION,
        (_, Some(error), _) => match error {
            WarehouseError::NotOurs { .. }
            | WarehouseError::Incompatible { .. }
            | WarehouseError::Unsupported(_) => Exit::CONFIGURATION,
            _ => Exit::SERVICE,
        },
        (.., Some(error)) => match error {
            LakeError::NotFound { .. } | LakeError::BadUrl { .. } | LakeError::IncompatibleSchema { .. } => {
                Exit::CONFIGURATION
            }
            LakeError::Storage { source, .. }
                if matches!(
                    StorageFault::of(source),
                    Some(StorageFault::NoBucket | StorageFault::Denied)
                ) =>
            {
                Exit::CONFIGURATION
            }
            // storage answers, but a file is not there any more: what is archived is damaged
            LakeError::Storage { source: object_store::Error::NotFound { .. }, .. } => 1,
            LakeError::Storage { .. } => Exit::SERVICE,
            _ => 1,
        },
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }
}
