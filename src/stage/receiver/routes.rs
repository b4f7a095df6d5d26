//! The receiver over HTTP: `POST /webhook`, and what supervisors ask for.
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, Request as HttpRequest, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::{Answer, Receiver, RejectedText, Request, now_micros};
use crate::stage::server::Peer;
use crate::telemetry::{self, Metric};
use crate::webhook::{self, Access, Posted, RateLimit};

/// As many bad events of a body are listed in its answer.
const MAX_LISTED: usize = 100;
/// Memory of an event and of a reject besides their bytes in the body.
const EVENT_BYTES: usize = 200;
const REJECT_BYTES: usize = 250;

/// Who may post how much.
#[derive(Debug)]
pub struct Limits {
    /// Who may post.
    pub access: Access,
    /// How often; `None`: as often as they like.
    pub rate: Option<RateLimit>,
    /// Bytes of a body, as sent and decompressed.
    pub max_body_size: usize,
    /// A body that is not complete by then is cut off.
    pub body_timeout: Duration,
}

struct App {
    receiver: Receiver,
    limits: Limits,
}

/// The routes of a receiver, to be served alone or merged with others.
pub fn routes(receiver: Receiver, limits: Limits) -> Router {
    Router::new()
        .route("/webhook", post(webhook))
        .route("/health", get(async || "Healthy"))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(App { receiver, limits }))
}

async fn ready(State(app): State<Arc<App>>) -> Response {
    match app.receiver.obstacle() {
        None => "Ready".into_response(),
        Some(obstacle) => (StatusCode::SERVICE_UNAVAILABLE, obstacle).into_response(),
    }
}

async fn metrics() -> Response {
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    ([(CONTENT_TYPE, content_type)], telemetry::render_metrics()).into_response()
}

/// Why a request is not taken.
enum Refusal {
    /// This status and text.
    Status(StatusCode, String),
    /// Too many requests, or too much in the queue.
    Busy(&'static str),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        Metric::RequestsRefused.add(1);
        match self {
            Refusal::Status(status, text) => {
                let mut response = (status, text).into_response();
                if status == StatusCode::UNAUTHORIZED {
                    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
                }
                if status == StatusCode::SERVICE_UNAVAILABLE {
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
                }
                response
            }
            Refusal::Busy(text) => {
                let retry = [(RETRY_AFTER, HeaderValue::from_static("1"))];
                (StatusCode::TOO_MANY_REQUESTS, retry, text).into_response()
            }
        }
    }
}

async fn webhook(State(app): State<Arc<App>>, request: HttpRequest<Body>) -> Response {
    match app.take(request).await {
        Ok(response) => response,
        Err(refusal) => refusal.into_response(),
    }
}

impl App {
    async fn take(&self, request: HttpRequest<Body>) -> Result<Response, Refusal> {
        let denied = |denied: webhook::Denied| Refusal::Status(StatusCode::UNAUTHORIZED, denied.to_string());
        let (head, body) = request.into_parts();
        let headers = &head.headers;
        if let Some(rate) = &self.limits.rate {
            let unknown = IpAddr::from(Ipv4Addr::UNSPECIFIED);
            let sender = head.extensions.get::<Peer>().map_or(unknown, |peer| peer.0.ip());
            if !rate.lets_in(sender, Instant::now()) {
                return Err(Refusal::Busy("too many requests from this address"));
            }
        }
        self.limits.access.check_headers(headers).map_err(denied)?;
        let (body, permit) = self.read(headers, body).await?;
        let now = now_micros();
        self.limits.access.check_signature(headers, &body, now / 1_000_000).map_err(denied)?;
        let (body, permit) = self.decompressed(headers, body, permit)?;
        let content_type =
            headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let is_lines = content_type.contains("ndjson") || content_type.contains("jsonl");
        let id = headers.get("webhook-id").or_else(|| headers.get("idempotency-key"));
        let id = id.map(HeaderValue::as_bytes).filter(|id| !id.is_empty()).map(webhook::request_id);
        let (posted, unreadable) = match webhook::read(&body, is_lines, now) {
            Ok(posted) => (posted, None),
            Err(bad) => (Posted::default(), Some(bad)),
        };
        let text = |reason: String| RejectedText {
            field: None,
            reason,
            text: String::from_utf8_lossy(&body[..body.len().min(4096)]).into_owned(),
        };
        let (num_events, num_bad, is_batch) = (posted.events.len(), posted.bad.len(), posted.is_batch);
        // short events are more in memory than in the body
        let parsed_bytes = num_events * EVENT_BYTES + num_bad * REJECT_BYTES;
        let room = self.receiver.reserve(parsed_bytes).ok_or(Refusal::Busy("too much is being posted"))?;
        let permit = match permit {
            Some(mut permit) => {
                permit.merge(room);
                permit
            }
            None => room,
        };
        let errors: Vec<_> = posted.bad.iter().take(MAX_LISTED).map(listed).collect();
        let rejects = posted.bad.into_iter().map(|bad| RejectedText {
            field: bad.fault.field,
            reason: bad.fault.reason.to_string(),
            text: bad.text,
        });
        let rejects = rejects.chain(unreadable.as_ref().map(|bad| text(bad.to_string()))).collect();
        drop(body);
        let request = Request { id, events: posted.events, rejects, permit: Some(permit) };
        match self.receiver.take(request).await {
            Answer::Full => Err(Refusal::Busy("the queue is full")),
            Answer::Failed => {
                let text = "state cannot be written now; send it again, with the same identity";
                Err(Refusal::Status(StatusCode::SERVICE_UNAVAILABLE, text.to_owned()))
            }
            Answer::Committed { num_without_room } => Ok(match unreadable {
                Some(bad) => {
                    (StatusCode::BAD_REQUEST, axum::Json(json!({ "error": bad.to_string() }))).into_response()
                }
                None if num_bad == 0 && num_without_room == 0 => "OK".into_response(),
                None => listing(errors, (num_events, num_bad, num_without_room), is_batch),
            }),
            Answer::TakenInPart => {
                let text =
                    "a request with this identity was taken in part; send what was rejected under another";
                Err(Refusal::Status(StatusCode::CONFLICT, text.to_owned()))
            }
        }
    }

    /// The body as sent. Room in the queue is taken as it arrives, so that who sends slowly holds little of it.
    async fn read(
        &self,
        headers: &HeaderMap,
        mut body: Body,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
        let max = self.limits.max_body_size;
        let too_large =
            || Refusal::Status(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is larger than {max} bytes"));
        let declared =
            headers.get("content-length").and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if declared.is_some_and(|len| len > max) {
            return Err(too_large());
        }
        let mut permit: Option<OwnedSemaphorePermit> = None;
        let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
        let reading = async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| {
                    Refusal::Status(StatusCode::BAD_REQUEST, format!("the body cannot be read: {error}"))
                })?;
                let Ok(part) = frame.into_data() else { continue };
                if first.len() + rest.len() + part.len() > max {
                    return Err(too_large());
                }
                let room =
                    self.receiver.reserve(part.len()).ok_or(Refusal::Busy("too much is being posted"))?;
                match &mut permit {
                    Some(permit) => permit.merge(room),
                    None => permit = Some(room),
                }
                if first.is_empty() {
                    first = part;
                } else {
                    rest.extend_from_slice(&part);
                }
            }
            Ok(())
        };
        let slow =
            |_| Refusal::Status(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time".to_owned());
        tokio::time::timeout(self.limits.body_timeout, reading).await.map_err(slow)??;
        if rest.is_empty() {
            return Ok((first, permit));
        }
        let mut whole = BytesMut::with_capacity(first.len() + rest.len());
        whole.extend_from_slice(&first);
        whole.extend_from_slice(&rest);
        Ok((whole.freeze(), permit))
    }

    fn decompressed(
        &self,
        headers: &HeaderMap,
        body: Bytes,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Refusal> {
        let encoding = headers.get(CONTENT_ENCODING).map(|value| value.to_str().unwrap_or("unknown").trim());
        match encoding.map(str::to_ascii_lowercase).as_deref() {
            None | Some("identity" | "") => return Ok((body, permit)),
            Some("gzip" | "x-gzip") => {}
            Some(other) => {
                let text = format!("content-encoding {other} is not supported; send gzip or none");
                return Err(Refusal::Status(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
            }
        }
        let max = self.limits.max_body_size;
        // in its place: what is compressed is not needed any more
        let room = self.receiver.reserve(max).ok_or(Refusal::Busy("too much is being posted"))?;
        let mut plain = Vec::new();
        let read = MultiGzDecoder::new(&body[..]).take(max as u64 + 1).read_to_end(&mut plain);
        match read {
            Err(error) => {
                Err(Refusal::Status(StatusCode::BAD_REQUEST, format!("the body is not gzip: {error}")))
            }
            Ok(len) if len > max => Err(Refusal::Status(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("the body is larger than {max} bytes when decompressed"),
            )),
            Ok(len) => {
                drop((permit, room));
                let permit = self.receiver.reserve(len).ok_or(Refusal::Busy("too much is being posted"))?;
                Ok((plain.into(), Some(permit)))
            }
        }
    }
}

/// What is wrong with which events.
fn listed(bad: &webhook::BadEvent) -> Value {
    json!({ "index": bad.index, "field": bad.fault.field, "error": bad.fault.to_string() })
}

/// The answer to a request with that many good events, bad ones, and good ones without room.
fn listing(
    errors: Vec<Value>,
    (num_events, num_bad, num_without_room): (usize, usize, usize),
    is_batch: bool,
) -> Response {
    let num_accepted = num_events - num_without_room;
    let mut body = json!({
        "accepted": num_accepted,
        "rejected": num_bad + num_without_room,
        "errors": errors,
    });
    if num_without_room > 0 {
        body["note"] =
            "events of one window more than may be open at once are rejected; send them in order of time"
                .into();
    }
    let status = match is_batch && num_accepted > 0 {
        true => StatusCode::MULTI_STATUS,
        false => StatusCode::BAD_REQUEST,
    };
    (status, axum::Json(body)).into_response()
}
