//! `--metrics-addr`: what the process counts, for Prometheus.
use std::io::{self, Write};

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use super::UsageError;
use crate::telemetry;

/// Serves `/metrics` in a task of its own until the process ends.
pub(super) async fn serve(address: Option<&str>) -> anyhow::Result<()> {
    let Some(address) = address.filter(|address| *address != "none") else { return Ok(()) };
    let listener = TcpListener::bind(address).await.map_err(|error| {
        UsageError(format!("--metrics-addr {address}: cannot listen there ({error}); name another"))
    })?;
    writeln!(io::stderr(), "metrics at http://{}/metrics", listener.local_addr()?)?;
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router()).await {
            tracing::error!("metrics are not served any more: {error}");
        }
    });
    Ok(())
}

/// `/metrics`.
pub(super) fn router() -> Router {
    let metrics = || async { ([(CONTENT_TYPE, "text/plain; version=0.0.4")], telemetry::render_metrics()) };
    Router::new().route("/metrics", get(metrics))
}
