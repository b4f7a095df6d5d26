//! `pipeline query`: SQL over archives, databases and raw logs, results on standard output.
use std::io::{self, BufWriter, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Args;

use super::archive::unwrapped;
use super::places::expect_no_types;
use super::{DEFAULT_ARCHIVE, Exit, Global, UsageError, prompt};
use crate::client::{is_postgres, redacted};
use crate::query::{
    Cluster, ClusterToken, OutputFormat, Places, Query, QueryError, ResultPrinter, Session, WorkerTrouble,
};

/// Holds the token itself, for where no file is to be had.
const TOKEN_VARIABLE: &str = "PIPELINE_CLUSTER_TOKEN";
/// Bytes of a result that are handed to standard output at once.
const WRITE_BYTES: usize = 64 * 1024;

/// Run SQL that reads logs wherever they are: one table per log type, rejects, blanks, chunks, and the view logs.
///
/// Without SQL: a prompt on a terminal (\? lists its commands), and else the statements on standard input.
#[derive(Debug, Clone, Args)]
pub(super) struct QueryArgs {
    /// The statement, or several with `;` between them
    #[arg(conflicts_with = "file")]
    pub(super) sql: Option<String>,
    /// Read the statements from this file (`-`: standard input)
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Archive, postgres://.. or raw:PATH (files, folders, globs, object stores) to read; again for more, whose
    /// rows are then one table, no line twice
    #[arg(long, value_name = "URL", default_value = DEFAULT_ARCHIVE)]
    pub(super) from: Vec<String>,
    /// Schema of Postgres to read
    #[arg(long, value_name = "NAME", default_value = "public")]
    schema: String,
    /// Form of the result
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: OutputFormat,
    /// Run each statement, and print what it read and left unread in place of its rows: files, bytes, requests, the
    /// SQL sent to Postgres, and the plan with what each step did (as text, or with --output json)
    #[arg(long)]
    explain: bool,
    /// Have the statements run by these `pipeline query-worker`s: HOST:PORT, all addresses of a name, or @FILE with one
    /// per line; several with `,` between them. A result is printed once it is complete
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',')]
    cluster: Vec<String>,
    /// File with the token of the cluster [or the token itself in PIPELINE_CLUSTER_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Print the time of each statement to standard error
    #[arg(long)]
    timing: bool,
}

impl QueryArgs {
    /// The SQL to run, before anything is opened for it; `None` for a prompt.
    fn text(&self) -> anyhow::Result<Option<String>> {
        let from_stdin = || {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text).context("cannot read SQL from standard input")?;
            Ok(Some(text))
        };
        match (&self.sql, &self.file) {
            (Some(sql), _) => Ok(Some(sql.clone())),
            (None, Some(path)) if path == Path::new("-") => from_stdin(),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path);
                Ok(Some(text.with_context(|| format!("cannot read SQL from {}", path.display()))?))
            }
            (None, None) if io::stdin().is_terminal() && io::stdout().is_terminal() => Ok(None),
            (None, None) => from_stdin(),
        }
    }
}

impl QueryArgs {
    /// The workers, where there are to be some.
    fn cluster(&self) -> anyhow::Result<Option<Cluster>> {
        if self.cluster.is_empty() {
            return Ok(None);
        }
        if let Some(database) = self.from.iter().find(|from| is_postgres(from)) {
            let reason = "a cluster reads archives and raw logs; leave --cluster away, or read the archive \
                          that `pipeline archive export` makes of it";
            return Err(UsageError(format!("{}: {reason}", redacted(database))).into());
        }
        let mut names = Vec::new();
        for name in self.cluster.iter().map(|name| name.trim()) {
            match name.strip_prefix('@') {
                Some(path) => {
                    let text = std::fs::read_to_string(path)
                        .map_err(|error| UsageError(format!("--cluster {name}: cannot be read: {error}")))?;
                    let lines = text.lines().map(str::trim);
                    names.extend(
                        lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned),
                    );
                }
                None => names.push(name.to_owned()),
            }
        }
        let cluster = Cluster::try_new(names, token(self.token_file.as_deref())?);
        Ok(Some(cluster.map_err(|error| UsageError(format!("--cluster: {error}")))?))
    }
}

/// The token of a cluster, from a file or from its variable.
pub(super) fn token(file: Option<&Path>) -> anyhow::Result<Option<ClusterToken>> {
    let text =
        match file {
            Some(path) => Some(std::fs::read_to_string(path).map_err(|error| {
                UsageError(format!("{}: the token cannot be read: {error}", path.display()))
            })?),
            None => std::env::var(TOKEN_VARIABLE).ok().filter(|token| !token.is_empty()),
        };
    Ok(text.map(|text| ClusterToken::try_new(&text)).transpose()?)
}

/// Of errors that only a query has.
pub(super) fn exit_code(error: &anyhow::Error) -> Option<u8> {
    match error.downcast_ref()? {
        QueryError::Lost(_) | QueryError::NoWorker(_) => Some(Exit::SERVICE),
        QueryError::Worker(failure) if failure.trouble != WorkerTrouble::Refuses => Some(Exit::SERVICE),
        QueryError::Worker(_)
        | QueryError::Cluster(_)
        | QueryError::Torn { .. }
        | QueryError::PartBesideRaw { .. } => Some(Exit::CONFIGURATION),
        _ => None,
    }
}

/// Runs the statements in order and prints each result. A reader that goes away ends it quietly.
pub(super) async fn run(args: QueryArgs, global: &Global) -> anyhow::Result<Exit> {
    let text = args.text()?;
    if args.explain && !matches!(args.output, OutputFormat::Table | OutputFormat::Json) {
        let reason = "--explain prints text or JSON; leave --output away, or give --output json";
        return Err(UsageError(reason.to_owned()).into());
    }
    args.from.iter().try_for_each(|from| expect_no_types("--from", from))?;
    let cluster = args.cluster()?;
    let places = Places::open(&args.from, &args.schema, &global.log_types()?).await.map_err(raised)?;
    let session = match cluster {
        Some(cluster) => Session::over_cluster(places, cluster),
        None => Session::new(places),
    };
    let session = session.map_err(raised)?;
    if args.output == OutputFormat::Parquet && io::stdout().is_terminal() {
        let reason = "--output parquet is not for a terminal; redirect it to a file with `> FILE`";
        return Err(UsageError(reason.to_owned()).into());
    }
    let out = Printer {
        session: Arc::new(session),
        output: args.output,
        explain: args.explain,
        timing: args.timing,
    };
    let Some(text) = text else { return prompt::run(out).await };
    let queries = out.session.statements(&text).map_err(raised)?;
    if args.output == OutputFormat::Parquet && queries.len() > 1 {
        let count = queries.len();
        let reason = format!("--output parquet takes one statement, there are {count}; run them one by one");
        return Err(UsageError(reason).into());
    }
    for query in &queries {
        if !out.print(query).await? {
            break;
        }
    }
    Ok(Exit::DONE)
}

/// The error of the place itself, which says how the command ends.
pub(super) fn raised(error: QueryError) -> anyhow::Error {
    match error {
        QueryError::Place(error) => unwrapped(error),
        QueryError::Location(error) => error.into(),
        QueryError::Source(error) => error.into(),
        error => error.into(),
    }
}

/// Runs statements and prints what comes of them.
#[derive(Clone)]
pub(super) struct Printer {
    pub(super) session: Arc<Session>,
    output: OutputFormat,
    explain: bool,
    pub(super) timing: bool,
}

impl Printer {
    /// Runs a statement. Returns false once nobody reads any more.
    pub(super) async fn print(&self, query: &Query) -> anyhow::Result<bool> {
        let started = Instant::now();
        let is_read = match self.explain {
            true => {
                let explained = self.session.explain(query).await.map_err(raised)?;
                let text = match self.output {
                    OutputFormat::Json => serde_json::to_string(&explained)? + "\n",
                    _ => explained.to_string(),
                };
                io::stdout().write_all(text.as_bytes())?;
                true
            }
            false => {
                let result = self.session.run(query).await.map_err(raised)?;
                let out = BufWriter::with_capacity(WRITE_BYTES, io::stdout());
                ResultPrinter::new(self.output, out).print(result).await.map_err(raised)?
            }
        };
        if self.timing {
            writeln!(io::stderr(), "time: {:.3} ms", millis(started.elapsed()))?;
        }
        Ok(is_read)
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
