//! Log lines: on standard error or in a file, as text or JSON. Never on standard output, never lossy.
use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;

use tracing::level_filters::LevelFilter;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

/// Form of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Where and how much to log.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Form of a line.
    pub format: LogFormat,
    /// Append to this file instead of standard error.
    pub file: Option<PathBuf>,
    /// 0 warnings, 1 what happens, 2 details, 3 everything.
    pub verbosity: u8,
    /// Errors only.
    pub quiet: bool,
}

/// Holds the log writer open; what is logged before it is dropped is written.
#[derive(Debug)]
pub struct LogGuard(#[expect(dead_code, reason = "dropping it writes what is buffered")] WorkerGuard);

/// Starts logging for this process. A second call has no effect.
pub fn init(options: &LogOptions) -> io::Result<LogGuard> {
    let _began = super::uptime_millis();
    let ansi = options.file.is_none() && io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let out: Box<dyn Write + Send> = match &options.file {
        Some(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
        None => Box::new(io::stderr()),
    };
    let (writer, guard) = NonBlockingBuilder::default().lossy(false).finish(out);
    let level = match (options.quiet, options.verbosity) {
        (true, _) => LevelFilter::ERROR,
        (false, 0) => LevelFilter::WARN,
        (false, 1) => LevelFilter::INFO,
        (false, 2) => LevelFilter::DEBUG,
        (false, _) => LevelFilter::TRACE,
    };
    // the Delta kernel logs its errors, which are returned to us as well
    let filter = tracing_subscriber::EnvFilter::new(format!(
        "warn,buoyant_kernel=off,delta_kernel=off,pipeline={level}"
    ));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(ansi)
        .with_target(false);
    let _already_set = match options.format {
        LogFormat::Text => tracing::subscriber::set_global_default(subscriber.finish()).is_err(),
        LogFormat::Json => tracing::subscriber::set_global_default(subscriber.json().finish()).is_err(),
    };
    Ok(LogGuard(guard))
}
