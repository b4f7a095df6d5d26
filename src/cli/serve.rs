//! `pipeline serve`: webhooks in, aggregates out.
use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use clap::Args;
use tokio::net::TcpListener;

#[cfg(feature = "query")]
use super::page::{PageArgs, PageOf};
use super::places::expect_no_types;
use super::units::{parse_duration, parse_size};
use super::{Exit, Global, UsageError};
use crate::client::{self, RedisConfig};
use crate::sink::window::{PostgresWindows, RedisQueue, SqliteWindows, WindowSink};
use crate::stage::event_archive;
use crate::stage::receiver::routes::{Limits, routes};
use crate::stage::receiver::{Receiver, ReceiverError, ReceiverOptions, SinkOutbox, delivery};
use crate::stage::server::{self, ServerOptions, TlsError, TlsFiles};
use crate::stage::shutdown::Shutdown;
use crate::store::{self, DatabaseLocation, SqliteStore, StoreError, windows};
use crate::telemetry;
use crate::webhook::{Access, AccessError, RateLimit};
use crate::window::Settings;

/// Bodies in the queue may hold so many bytes together, or two of the largest.
const MIN_QUEUE_BYTES: usize = 16 << 20;

/// Take JSON events over HTTP, and aggregate them in windows of time; show what happens on a page at /
///
/// POST /webhook takes one event, an array, or one event per line; it answers OK when their effect is on disk.
/// The aggregates are in the table aggregated_data.
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Where aggregates go, several times for several places: sqlite://PATH or postgres://.. [default: sqlite://./pipeline-data/state.db]
    ///
    /// State is in the first SQLite file, and in ./pipeline-data/state.db where none is named.
    #[arg(long, value_name = "URL")]
    database: Vec<String>,
    /// Schema of Postgres to write to
    #[arg(long, value_name = "NAME", default_value = store::DEFAULT_SCHEMA)]
    schema: String,
    /// Serve the page only
    #[arg(long)]
    no_webhook: bool,
    /// Redis that gets the aggregates of closed windows
    #[arg(long, value_name = "URL")]
    queue: Option<String>,
    /// Redis list that they are pushed to; corrections go to NAME:corrections
    #[arg(long, value_name = "NAME", default_value = "pipeline_output")]
    queue_name: String,
    /// Archive that accepted events go to as well, one by one, as log type "events", and that the page shows
    ///
    /// Where none is named, events go to none, and the page shows ./pipeline-data/archive.
    #[arg(long, value_name = "URL")]
    archive: Option<String>,
    #[command(flatten)]
    windows: WindowArgs,
    #[command(flatten)]
    limits: LimitArgs,
    #[command(flatten)]
    access: AccessArgs,
    #[cfg(feature = "query")]
    #[command(flatten)]
    page: PageArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Windows")]
struct WindowArgs {
    /// Length of a window
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    window: Duration,
    /// A closed window is corrected by events up to so much later; what comes after goes to the table late_events
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    allowed_lateness: Duration,
    /// Event types told apart in one window; more are counted as "other"
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=4096))]
    max_event_types: u32,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Requests that may wait to be committed; more are answered 429
    #[arg(long, value_name = "N", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    max_queue_size: u32,
    /// Bytes of a body, as sent and decompressed
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    max_body_size: usize,
    /// Connections at once; more wait
    #[arg(long, value_name = "N", default_value = "1024", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_connections: u32,
    /// Requests per second from one address; more are answered 429 [default: no limit]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_rate: Option<u32>,
    /// A body must arrive within this time
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    body_timeout: Duration,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Who may post")]
struct AccessArgs {
    /// File with a token that senders must show as `authorization: Bearer ..`
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// File with secrets (whsec_.., one per line) of which one must have signed each request, as Standard Webhooks
    #[arg(long, value_name = "FILE")]
    signing_secret_file: Option<PathBuf>,
    /// How far the time of a signature may be from the clock
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    signature_tolerance: Duration,
    /// Certificate of the server (PEM, with those that sign it), for TLS
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Its private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

/// Runs it.
pub(super) async fn run(args: ServeArgs, global: &Global) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::new();
    shutdown.listen().context("listen for signals")?;
    let access = args.access.open()?;
    let tls = args.access.tls()?;
    let (state, others) = locations(&args.database)?;
    let settings = args.windows.settings();
    if let Some(location) = &args.archive {
        expect_no_types("--archive", location)?;
        // a location that cannot be one is told now
        client::open_store(location)?;
    }
    let redis = args.queue.as_deref().map(RedisConfig::parse).transpose()?;
    let listener = TcpListener::bind(&args.listen).await.map_err(|error| {
        UsageError(format!("cannot listen on {} ({error}); name another with --listen", args.listen))
    })?;
    let store = SqliteStore::try_open(&state).await?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let options = ServerOptions { max_connections: args.limits.max_connections as usize, tls };
    let page = args.page(&store, global).await?;
    if args.no_webhook {
        writeln!(io::stderr(), "page at {scheme}://{}/", listener.local_addr()?)?;
        telemetry::tell_ready();
        let app = page.merge(super::metrics::router()).route("/health", get(async || "Healthy"));
        server::serve(listener, app, options, &shutdown).await;
        return Ok(shutdown.exit_code().map_or(Exit::DONE, Exit::Code));
    }
    let _lock = lock(&state)?;
    let identity = store.call("name the state", windows::identity).await?;
    let mut sinks: Vec<Box<dyn WindowSink>> = Vec::new();
    for location in others {
        sinks.push(match location {
            DatabaseLocation::Sqlite(path) => Box::new(SqliteWindows::new(path)),
            DatabaseLocation::Postgres(config) => Box::new(PostgresWindows::new(*config, &args.schema)),
        });
    }
    if let Some(config) = redis {
        sinks.push(Box::new(RedisQueue::new(config, &args.queue_name, &identity)));
    }
    let outboxes: Vec<_> = sinks
        .iter()
        .map(|sink| SinkOutbox { name: sink.name().to_owned(), is_table: sink.is_table() })
        .collect();
    let tables: Vec<_> = outboxes.iter().map(|outbox| (outbox.name.clone(), outbox.is_table)).collect();
    let waiting = store.prepare_outboxes(tables).await?;
    if waiting > 0 {
        tracing::warn!("{waiting} aggregates wait for a queue; name it with --queue");
    }
    let receiver_options = ReceiverOptions {
        settings,
        max_queue_size: args.limits.max_queue_size as usize,
        max_queue_bytes: MIN_QUEUE_BYTES.max(2 * args.limits.max_body_size),
        sinks: outboxes,
        keeps_lines: args.archive.is_some(),
    };
    let (receiver, writer) = Receiver::try_start(store.clone(), receiver_options).await?;
    let delivered = Shutdown::new();
    let mut deliveries: Vec<_> = sinks
        .into_iter()
        .map(|sink| tokio::spawn(delivery::deliver(store.clone(), sink, delivered.clone())))
        .collect();
    if let Some(location) = args.archive {
        let archiving = event_archive::archive(store.clone(), identity, location, delivered.clone());
        deliveries.push(tokio::spawn(archiving));
    }
    writeln!(io::stderr(), "listening on {scheme}://{}/webhook", listener.local_addr()?)?;
    telemetry::tell_ready();
    let limits = Limits {
        access,
        rate: args.limits.max_rate.map(RateLimit::new),
        max_body_size: args.limits.max_body_size,
        body_timeout: args.limits.body_timeout,
    };
    let app = routes(receiver, limits).merge(page);
    let serving = server::serve(listener, app, options, &shutdown);
    let mut writer = writer;
    tokio::select! {
        // only damage ends it before the server
        ended = &mut writer => { ended.context("the writer ended")??; }
        () = serving => { writer.await.context("the writer ended")??; }
    }
    delivered.request();
    for delivery in deliveries {
        delivery.await.context("a delivery ended")?;
    }
    Ok(shutdown.exit_code().map_or(Exit::DONE, Exit::Code))
}

impl ServeArgs {
    #[cfg(feature = "query")]
    async fn page(&self, state: &SqliteStore, global: &Global) -> anyhow::Result<Router> {
        let receiver = PageOf {
            listen: &self.listen,
            database: self.database.first().map(String::as_str),
            schema: &self.schema,
            archive: self.archive.as_deref(),
            token_file: self.access.token_file.as_deref(),
            wants_signatures: self.access.signing_secret_file.is_some(),
        };
        self.page.router(receiver, state, global).await
    }

    #[cfg(not(feature = "query"))]
    async fn page(&self, _: &SqliteStore, _: &Global) -> anyhow::Result<Router> {
        Ok(Router::new())
    }
}

/// Held as long as the program runs, however it ends: two that count in memory would overwrite each other's windows.
fn lock(state: &Path) -> anyhow::Result<File> {
    // by whatever name the file is called
    let path = std::fs::canonicalize(state).unwrap_or_else(|_| state.to_owned()).with_added_extension("lock");
    let file = File::create(&path).with_context(|| format!("{}: cannot be made", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(UsageError(format!(
            "{}: another `pipeline serve` has it; name another with --database sqlite://PATH",
            state.display()
        ))
        .into()),
        Err(TryLockError::Error(error)) => {
            Err(error).context(format!("{}: cannot be locked", path.display()))
        }
    }
}

/// The file that holds state, and the other places.
fn locations(urls: &[String]) -> anyhow::Result<(PathBuf, Vec<DatabaseLocation>)> {
    let mut others = urls.iter().map(|url| DatabaseLocation::parse(url)).collect::<Result<Vec<_>, _>>()?;
    let first = others.iter().position(|location| matches!(location, DatabaseLocation::Sqlite(_)));
    if let Some(DatabaseLocation::Sqlite(path)) = first.map(|position| others.remove(position)) {
        return Ok((path, others));
    }
    match DatabaseLocation::parse(store::DEFAULT_DATABASE)? {
        DatabaseLocation::Sqlite(path) => Ok((path, others)),
        DatabaseLocation::Postgres(_) => {
            anyhow::bail!("state is kept in SQLite; name a file with --database")
        }
    }
}

/// Of errors that only the receiver has.
pub(super) fn exit_code(error: &anyhow::Error) -> Option<u8> {
    let store = match error.downcast_ref() {
        Some(ReceiverError::Store(error)) => Some(error),
        Some(ReceiverError::Damaged { .. }) => return Some(Exit::CONFIGURATION),
        None => error.downcast_ref::<StoreError>(),
    };
    match store {
        Some(StoreError::Location(_) | StoreError::Folder { .. } | StoreError::NotOurs { .. }) => {
            Some(Exit::CONFIGURATION)
        }
        Some(StoreError::Sqlite { .. } | StoreError::Postgres { .. }) => Some(Exit::SERVICE),
        _ if error.is::<AccessError>() || error.is::<TlsError>() => Some(Exit::CONFIGURATION),
        Some(StoreError::Client(_)) | None => None,
    }
}

impl WindowArgs {
    fn settings(&self) -> Settings {
        let millis = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 4);
        Settings {
            length_ms: millis(self.window),
            allowed_lateness_ms: millis(self.allowed_lateness),
            max_event_types: self.max_event_types as usize,
            ..Settings::default()
        }
    }
}

impl AccessArgs {
    fn open(&self) -> anyhow::Result<Access> {
        let read = |path: &Path| {
            std::fs::read_to_string(path).map_err(|error| {
                UsageError(format!("{}: the secret cannot be read: {error}", path.display()))
            })
        };
        let token = self.token_file.as_deref().map(read).transpose()?;
        let secrets = self.signing_secret_file.as_deref().map(read).transpose()?.unwrap_or_default();
        let secrets: Vec<_> = secrets.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        if let Some(path) = self.signing_secret_file.as_deref().filter(|_| secrets.is_empty()) {
            return Err(UsageError(format!("{}: holds no secret", path.display())).into());
        }
        Ok(Access::try_new(token.as_deref(), &secrets, self.signature_tolerance)?)
    }

    fn tls(&self) -> anyhow::Result<Option<tokio_rustls::TlsAcceptor>> {
        let files = self.tls_cert.clone().zip(self.tls_key.clone());
        let files = files.map(|(certificate, key)| TlsFiles { certificate, key });
        Ok(files.map(|files| files.acceptor()).transpose()?)
    }
}
