//! What people look at: a page over the archive, tasks, windows and metrics. It only reads.
//!
//! The page is three files inside the binary and asks the routes below for JSON. Where a token is set, they want it; the
//! page itself holds nothing to hide. Deliberately absent: anything that changes state, and files from elsewhere.
mod answers;
mod questions;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};

use self::answers::Answers;
use crate::client::BearerToken;
use crate::log_type::LogTypes;
use crate::task::{TaskStatus, TaskStore};

/// What the page shows.
#[derive(Debug, Clone)]
pub struct PageState {
    answers: Arc<Answers>,
    token: Option<BearerToken>,
}

impl PageState {
    /// `archive` is where lines are, `tasks` the database of tasks and windows, `metrics` are `/metrics` of other
    /// processes of the pipeline.
    #[must_use]
    pub fn new(archive: &str, types: LogTypes, tasks: TaskStore, metrics: Vec<String>) -> Self {
        Self { answers: Arc::new(Answers::new(archive, types, tasks, metrics)), token: None }
    }

    /// The same for those only who show this token, as `authorization: Bearer ..`.
    #[must_use]
    pub fn with_token(mut self, token: &str) -> Self {
        self.token = Some(BearerToken::new(token));
        self
    }
}

/// The page at `/`, and what it asks for at `/api/..`.
pub fn router(state: PageState) -> Router {
    let api = Router::new()
        .route(
            "/api/overview",
            get(async |State(page): State<PageState>| answer(page.answers.overview().await)),
        )
        .route(
            "/api/rejects",
            get(async |State(page): State<PageState>| answer(page.answers.rejects().await)),
        )
        .route(
            "/api/windows",
            get(async |State(page): State<PageState>| answer(page.answers.windows().await)),
        )
        .route("/api/tasks", get(tasks))
        .route("/api/tasks/{id}", get(task))
        .route("/api/questions", get(async || Json(questions::list())))
        .route("/api/questions/{number}", get(question))
        .route_layer(from_fn_with_state(state.clone(), check_access));
    Router::new()
        .route("/", get(async || asset("text/html; charset=utf-8", include_str!("assets/index.html"))))
        .route("/page.css", get(async || asset("text/css; charset=utf-8", include_str!("assets/page.css"))))
        .route(
            "/page.js",
            get(async || asset("text/javascript; charset=utf-8", include_str!("assets/page.js"))),
        )
        .merge(api)
        .with_state(state)
}

/// Nothing from elsewhere is loaded, and no other page may show this one in a frame.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";

fn asset(content_type: &'static str, text: &'static str) -> impl IntoResponse {
    let headers: [(HeaderName, &str); 4] = [
        (CONTENT_TYPE, content_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (CACHE_CONTROL, "no-cache"),
    ];
    (headers, text)
}

async fn check_access(State(page): State<PageState>, request: Request, next: Next) -> Response {
    let Some(expected) = page.token else {
        return match is_by_address(request.headers()) {
            true => next.run(request).await,
            false => {
                let error =
                    "without --token-file the page is served at an address and at localhost, not at a name";
                (StatusCode::MISDIRECTED_REQUEST, Json(serde_json::json!({ "error": error }))).into_response()
            }
        };
    };
    match expected.is_shown_in(request.headers()) {
        true => next.run(request).await,
        false => {
            let is_wrong = BearerToken::shown(request.headers()).is_some();
            let error = if is_wrong { "the token is wrong" } else { "a token is wanted" };
            (StatusCode::UNAUTHORIZED, Json(serde_json::json!({ "error": error }))).into_response()
        }
    }
}

/// Whether the request is for an address of this machine. A name may be anybody's, who made it point here so that a
/// page of his is read by the same browser as ours.
fn is_by_address(headers: &HeaderMap) -> bool {
    // no browser leaves it out
    let Some(host) = headers.get(HOST) else { return true };
    let authority = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok());
    authority.is_some_and(|authority| {
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok()
    })
}

/// Long enough for a question over a large archive; the page says that it takes long.
const LIMIT: Duration = Duration::from_secs(60);

fn answer(answered: Result<serde_json::Value, String>) -> Response {
    match answered {
        Ok(json) => ([(CACHE_CONTROL, "no-store")], Json(json)).into_response(),
        Err(error) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(serde_json::json!({ "error": error }))).into_response()
        }
    }
}

#[derive(serde::Deserialize)]
struct TaskFilter {
    #[serde(default)]
    status: String,
}

async fn tasks(State(page): State<PageState>, Query(filter): Query<TaskFilter>) -> Response {
    let status = TaskStatus::ALL.into_iter().find(|status| status.name() == filter.status);
    if status.is_none() && !filter.status.is_empty() {
        let error = format!("there is no status {}", filter.status);
        return (StatusCode::BAD_REQUEST, Json(serde_json::json!({ "error": error }))).into_response();
    }
    answer(page.answers.tasks(status).await)
}

async fn task(State(page): State<PageState>, Path(id): Path<String>) -> Response {
    match page.answers.task(&id).await {
        Ok(None) => {
            let error = format!("there is no task {id} any more");
            (StatusCode::NOT_FOUND, Json(serde_json::json!({ "error": error }))).into_response()
        }
        Ok(Some(json)) => answer(Ok(json)),
        Err(error) => answer(Err(error)),
    }
}

async fn question(State(page): State<PageState>, Path(number): Path<usize>) -> Response {
    let Some(question) = questions::get(number) else { return StatusCode::NOT_FOUND.into_response() };
    let answered = tokio::time::timeout(LIMIT, page.answers.ask(question.sql)).await;
    answer(
        answered
            .unwrap_or_else(|_| Err(format!("no answer within {} s; use `pipeline query`", LIMIT.as_secs()))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_not_an_address() {
        for (host, expected) in [
            ("127.0.0.1:8080", true),
            ("10.0.0.7", true),
            ("[::1]:8080", true),
            ("localhost:8080", true),
            ("LOCALHOST", true),
            ("rebound.example:8080", false),
            ("127.0.0.1.example", false),
            ("localhost.example", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, host.parse().unwrap());
            assert_eq!(is_by_address(&headers), expected, "{host}");
        }
        assert!(is_by_address(&HeaderMap::new()));
    }
}
