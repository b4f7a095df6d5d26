//! Posts events to a webhook, over many connections, at the times of a schedule, and tells what came of it.
//!
//! Times are measured from when a request was due, so that a server that makes the sender wait is not flattered.
//! Deliberately absent: what events are (a function gives bodies), and any judgement.
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::Instant;
use url::{Position, Url};

use super::shutdown::Shutdown;
use crate::webhook::Signer;

mod latency;
mod schedule;

pub use latency::Latencies;
pub use schedule::Schedule;

/// Pause before a request is sent again, and before a connection is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
/// An answer is waited for this long.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Why nothing can be sent.
#[derive(Debug, Error)]
pub enum SendError {
    /// The place is not one that events can be posted to.
    #[error("{0}: cannot be posted to; write http://host:port/webhook")]
    BadUrl(String),
    /// Nobody takes connections there.
    #[error("{place}: no connection; check that `pipeline serve` runs there")]
    Unreachable {
        /// Host and port.
        place: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Where, how, and how often.
#[derive(Debug)]
pub struct SendOptions {
    /// Where to.
    pub url: Url,
    /// Sent with every request.
    pub headers: Vec<(String, String)>,
    /// Signs those that have an identity.
    pub signer: Option<Signer>,
    /// Requests under way at once, each on a connection of its own.
    pub connections: usize,
    /// When.
    pub schedule: Schedule,
    /// Whether what was not accepted is sent again until it is.
    pub retries: bool,
}

/// What came of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Answered 200.
    Accepted,
    /// Answered otherwise: it has no effect.
    Refused,
    /// Not answered: it may have had its effect.
    Unknown,
}

/// What came of all.
#[derive(Debug, Default)]
pub struct SendSummary {
    /// Requests by outcome.
    pub accepted: u64,
    /// Answered otherwise than 200.
    pub refused: u64,
    /// Not answered.
    pub unknown: u64,
    /// Sent again.
    pub retried: u64,
    /// Of accepted requests, from when they were due.
    pub latencies: Latencies,
    /// From the first to the last.
    pub took: Duration,
    /// The first answer that was not 200.
    pub first_refusal: Option<String>,
}

/// A body to post, with its own identity if it is to have one.
#[derive(Debug)]
pub struct Body<T> {
    /// What is posted.
    pub bytes: Bytes,
    /// `webhook-id`.
    pub id: Option<String>,
    /// What the caller wants to know it by.
    pub label: T,
}

/// Posts what `next` gives until the schedule ends, and tells `done` what came of each.
pub async fn send<T: Send + Sync + 'static>(
    options: SendOptions,
    next: impl Fn() -> Body<T> + Send + Sync + 'static,
    done: impl Fn(T, Outcome) + Send + Sync + 'static,
    shutdown: &Shutdown,
) -> Result<SendSummary, SendError> {
    let target = Target::try_new(&options)?;
    // before a schedule runs against nothing
    target
        .connect()
        .await
        .map_err(|source| SendError::Unreachable { place: target.place.clone(), source })?;
    let started = Instant::now();
    let shared = Arc::new(Shared {
        target,
        schedule: options.schedule,
        retries: options.retries,
        started,
        sent: AtomicU64::new(0),
        summary: Mutex::default(),
        next,
        done,
    });
    let tasks: Vec<_> = (0..options.connections)
        .map(|_| {
            let (shared, shutdown) = (Arc::clone(&shared), shutdown.clone());
            tokio::spawn(async move { Connection { shared, shutdown, sender: None }.run().await })
        })
        .collect();
    for task in tasks {
        if let Err(error) = task.await
            && error.is_panic()
        {
            std::panic::resume_unwind(error.into_panic());
        }
    }
    let mut summary = shared.summary.lock().unwrap_or_else(PoisonError::into_inner);
    summary.took = started.elapsed();
    Ok(std::mem::take(&mut summary))
}

struct Target {
    place: String,
    path: String,
    headers: Vec<(String, String)>,
    signer: Option<Signer>,
}

impl Target {
    fn try_new(options: &SendOptions) -> Result<Self, SendError> {
        let url = &options.url;
        let bad = || SendError::BadUrl(crate::client::redacted(url.as_str()));
        let host = url.host_str().filter(|_| url.scheme() == "http").ok_or_else(bad)?;
        let place = format!("{host}:{}", url.port_or_known_default().ok_or_else(bad)?);
        let path = url[Position::BeforePath..Position::AfterQuery].to_owned();
        Ok(Self { place, path, headers: options.headers.clone(), signer: options.signer.clone() })
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        let stream = TcpStream::connect(&self.place).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

struct Shared<N, D> {
    target: Target,
    schedule: Schedule,
    retries: bool,
    started: Instant,
    sent: AtomicU64,
    summary: Mutex<SendSummary>,
    next: N,
    done: D,
}

struct Connection<N, D> {
    shared: Arc<Shared<N, D>>,
    shutdown: Shutdown,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl<T, N: Fn() -> Body<T>, D: Fn(T, Outcome)> Connection<N, D> {
    async fn run(mut self) {
        let mut own = SendSummary::default();
        while !self.shutdown.is_requested() {
            let number = self.shared.sent.fetch_add(1, Ordering::Relaxed);
            let now = self.shared.started.elapsed();
            let Some(due) = self.shared.schedule.due(number, now) else { break };
            if due > now {
                tokio::select! {
                    () = tokio::time::sleep_until(self.shared.started + due) => {}
                    () = self.shutdown.requested() => break,
                }
            }
            let body = (self.shared.next)();
            let outcome = self.post(&body, &mut own).await;
            match outcome {
                Outcome::Accepted => {
                    own.accepted += 1;
                    own.latencies.add(self.shared.started.elapsed().saturating_sub(due));
                }
                Outcome::Refused => own.refused += 1,
                Outcome::Unknown => own.unknown += 1,
            }
            (self.shared.done)(body.label, outcome);
        }
        let mut summary = self.shared.summary.lock().unwrap_or_else(PoisonError::into_inner);
        summary.add(own);
    }

    async fn post(&mut self, body: &Body<T>, own: &mut SendSummary) -> Outcome {
        let mut is_sent = false;
        loop {
            let outcome = match self.try_post(body, &mut is_sent).await {
                Ok((StatusCode::OK, _)) => return Outcome::Accepted,
                Ok((status, text)) => {
                    own.first_refusal.get_or_insert_with(|| format!("{status}: {text}"));
                    let may_be_taken_later = status.is_server_error()
                        || [StatusCode::TOO_MANY_REQUESTS, StatusCode::REQUEST_TIMEOUT].contains(&status);
                    if !may_be_taken_later {
                        return Outcome::Refused;
                    }
                    Outcome::Refused
                }
                Err(error) => {
                    self.sender = None;
                    own.first_refusal.get_or_insert(error);
                    if is_sent { Outcome::Unknown } else { Outcome::Refused }
                }
            };
            if !self.shared.retries || self.shutdown.is_requested() {
                return if is_sent && outcome == Outcome::Refused && self.sender.is_none() {
                    Outcome::Unknown
                } else {
                    outcome
                };
            }
            own.retried += 1;
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn try_post(&mut self, body: &Body<T>, is_sent: &mut bool) -> Result<(StatusCode, String), String> {
        let target = &self.shared.target;
        let sender = match &mut self.sender {
            Some(sender) if !sender.is_closed() => sender,
            _ => {
                let stream = target.connect().await.map_err(|error| error.to_string())?;
                let (sender, connection) =
                    handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
                tokio::spawn(connection);
                self.sender.insert(sender)
            }
        };
        let mut request = Request::post(&target.path)
            .header("host", &target.place)
            .header("content-type", "application/json");
        for (name, value) in &target.headers {
            request = request.header(name, value);
        }
        if let Some(id) = &body.id {
            request = request.header("webhook-id", id);
        }
        if let (Some(signer), Some(id)) = (&target.signer, &body.id) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let time = now.as_secs().to_string();
            let signature = signer.sign(id, &time, &body.bytes);
            request = request.header("webhook-timestamp", time).header("webhook-signature", signature);
        }
        let request = request.body(Full::new(body.bytes.clone())).map_err(|error| error.to_string())?;
        sender.ready().await.map_err(|error| error.to_string())?;
        *is_sent = true;
        let answered = async {
            let answer = sender.send_request(request).await?;
            let status = answer.status();
            let body = answer.into_body().collect().await?.to_bytes();
            Ok::<_, hyper::Error>((status, body))
        };
        let answered = tokio::time::timeout(TIMEOUT, answered).await;
        let (status, text) =
            answered.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
        let text =
            if status == StatusCode::OK { String::new() } else { String::from_utf8_lossy(&text).into() };
        Ok((status, text))
    }
}

impl SendSummary {
    fn add(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.unknown += other.unknown;
        self.retried += other.retried;
        self.latencies.add_all(&other.latencies);
        self.first_refusal = self.first_refusal.take().or(other.first_refusal);
    }
}
