//! `pipeline query-worker`: runs stages of the queries that `pipeline query --cluster` plans.
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;

use super::places::expect_no_types;
use super::query::{raised, token};
use super::units::parse_size;
use super::{DEFAULT_ARCHIVE, Exit, UsageError};
use crate::query::{QueryError, QueryWorker, WorkerOptions};
use crate::stage::shutdown::Shutdown;

/// Run parts of the queries of `pipeline query --cluster`, until a signal; stages that run are ended first.
///
/// Plain TCP: for a network that is trusted. Whoever has the token reads what the worker reads.
#[derive(Debug, Clone, Args)]
pub(super) struct QueryWorkerArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50051")]
    listen: String,
    /// Archive or raw:PATH (files, folders, globs, object stores) that may be read, as the query names it; again for
    /// more. Nothing else is read
    #[arg(long, value_name = "URL", default_value = DEFAULT_ARCHIVE)]
    from: Vec<String>,
    /// File with the token that coordinators and other workers must show [or the token itself in
    /// PIPELINE_CLUSTER_TOKEN]
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// What sorts, groups and joins may hold before they spill to the temporary folder
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    memory_limit: usize,
}

/// Runs it.
pub(super) async fn run(args: QueryWorkerArgs) -> anyhow::Result<Exit> {
    let shutdown = Shutdown::new();
    shutdown.listen().context("listen for signals")?;
    args.from.iter().try_for_each(|from| expect_no_types("--from", from))?;
    let token = token(args.token_file.as_deref())?;
    if token.is_none() && is_open(&args.listen).await {
        let reason = "others reach it, and whoever reaches a worker without a token reads what it reads; name a \
                      --token-file, or listen on 127.0.0.1";
        return Err(QueryError::Cluster(format!("{}: {reason}", args.listen)).into());
    }
    let options = WorkerOptions { from: args.from, memory_bytes: args.memory_limit, token };
    let worker = QueryWorker::try_new(options).map_err(raised)?;
    let listener = TcpListener::bind(&args.listen).await.map_err(|error| {
        UsageError(format!("cannot listen on {} ({error}); name another with --listen", args.listen))
    })?;
    writeln!(io::stderr(), "query worker at {}", listener.local_addr()?)?;
    worker.serve(listener, shutdown.requested()).await.map_err(raised)?;
    Ok(shutdown.exit_code().map_or(Exit::DONE, Exit::Code))
}

/// Whether other machines can reach what listens there. A name that is not known is found out when it is bound.
async fn is_open(listen: &str) -> bool {
    let is_open = |address: SocketAddr| !address.ip().is_loopback();
    tokio::net::lookup_host(listen).await.is_ok_and(|mut found| found.any(is_open))
}
