//! An HTTP server that holds up to the open internet: bounded connections, clients that are slow cut off, TLS.
//!
//! Invariants: a connection costs memory for its buffers only; one that says nothing, sends its head slowly, or does
//! not take its answers, is closed. At the end no connection is taken any more, and requests that were begun are
//! answered. Deliberately absent: what is served (axum routes are given), and HTTP/2.
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::shutdown::Shutdown;

mod tls;
mod write_timeout;

pub use self::tls::{TlsError, TlsFiles};
use self::write_timeout::WriteTimeout;

/// A head must be complete within this time, and so must the pause before it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Of an answer something must be taken within this time: who takes nothing would hold a connection for ever.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// TLS must be agreed on within this time.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests that were begun are answered within this time after a request to stop.
const DRAIN: Duration = Duration::from_secs(10);
/// Of a connection: heads must fit.
const BUFFER_BYTES: usize = 32 << 10;
/// Pause after the system refused to give a connection: it has no files left.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Who sent a request; an extension of every one.
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

/// How to serve.
#[derive(Clone)]
pub struct ServerOptions {
    /// More connections wait until one ends.
    pub max_connections: usize,
    /// With TLS.
    pub tls: Option<TlsAcceptor>,
}

impl fmt::Debug for ServerOptions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { max_connections, tls } = self;
        out.debug_struct("ServerOptions")
            .field("max_connections", max_connections)
            .field("tls", &tls.is_some())
            .finish()
    }
}

/// Serves until a stop is requested, then until what was begun is answered.
pub async fn serve(listener: TcpListener, router: Router, options: ServerOptions, shutdown: &Shutdown) {
    let connections = Arc::new(Semaphore::new(options.max_connections));
    let (tasks, cut_off) = (TaskTracker::new(), CancellationToken::new());
    loop {
        let accepted = async {
            // never closed
            let permit = Arc::clone(&connections).acquire_owned().await.ok();
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = shutdown.requested() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_of_one_connection(&error) {
                    tracing::warn!("no connection can be taken now: {error}");
                    tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
                }
                continue;
            }
        };
        let (router, tls, shutdown) = (router.clone(), options.tls.clone(), shutdown.clone());
        let cut_off = cut_off.clone();
        tasks.spawn(async move {
            let _permit = permit;
            let served = serve_stream(stream, peer, router, tls, &shutdown);
            if let Some(Err(error)) = cut_off.run_until_cancelled(served).await {
                tracing::debug!("the connection of {peer} ended: {error}");
            }
        });
    }
    drop(listener);
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!("{} connections are cut off: they did not end in time", tasks.len());
        cut_off.cancel();
        tasks.wait().await;
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

type ConnectionError = Box<dyn std::error::Error + Send + Sync>;

async fn serve_stream(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    tls: Option<TlsAcceptor>,
    shutdown: &Shutdown,
) -> Result<(), ConnectionError> {
    stream.set_nodelay(true)?;
    match tls {
        None => serve_connection(stream, peer, router, shutdown).await,
        Some(tls) => {
            let stream = tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await??;
            serve_connection(stream, peer, router, shutdown).await
        }
    }
}

async fn serve_connection(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    peer: SocketAddr,
    router: Router,
    shutdown: &Shutdown,
) -> Result<(), ConnectionError> {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(Peer(peer));
        router.call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).max_buf_size(BUFFER_BYTES);
    let stream = WriteTimeout::new(stream, WRITE_TIMEOUT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        ended = connection.as_mut() => return Ok(ended?),
        () = shutdown.requested() => connection.as_mut().graceful_shutdown(),
    }
    Ok(connection.await?)
}
