//! `pipeline serve --no-webhook`: the page alone.
use std::io::{self, Write};
use std::path::PathBuf;

use anyhow::Context;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use clap::Args;
use tokio::net::TcpListener;

use super::page::PageArgs;
use super::{Exit, Global, UsageError};
use crate::page;
use crate::stage::shutdown::Shutdown;
use crate::store::{DEFAULT_DATABASE, DEFAULT_SCHEMA, DatabaseLocation};
use crate::task::TaskStore;
use crate::telemetry;

/// Show what happens: a page with throughput, tasks, rejects and the six questions
#[derive(Debug, Args)]
pub(super) struct ServeArgs {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080")]
    listen: String,
    /// Serve the page only
    #[arg(long, required = true)]
    no_webhook: bool,
    /// Database of tasks and windows: sqlite://PATH or postgres://..
    #[arg(long, value_name = "URL", default_value = DEFAULT_DATABASE)]
    database: String,
    /// Schema of Postgres
    #[arg(long, value_name = "NAME", default_value = DEFAULT_SCHEMA)]
    schema: String,
    /// File with a token that the page asks for
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    #[command(flatten)]
    page: PageArgs,
}

/// Runs it.
pub(super) async fn run(args: ServeArgs, global: &Global) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::new();
    shutdown.listen().context("listen for signals")?;
    let tasks = TaskStore::try_open(&DatabaseLocation::parse(&args.database)?, &args.schema).await?;
    let state = args.page.state(tasks, args.token_file.as_deref(), global)?;
    let listener = TcpListener::bind(&args.listen).await.map_err(|error| {
        UsageError(format!("cannot listen on {} ({error}); name another with --listen", args.listen))
    })?;
    let metrics = || async { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry::render_metrics()) };
    let app = Router::new().merge(page::router(state)).route("/metrics", get(metrics));
    writeln!(io::stderr(), "page at http://{}/", listener.local_addr()?)?;
    let stop = shutdown.clone();
    axum::serve(listener, app).with_graceful_shutdown(async move { stop.requested().await }).await?;
    Ok(shutdown.exit_code().map_or(Exit::DONE, Exit::Code))
}
