//! Connections to workers: opened once, with the token on every request, and with the worker's address in every error.
use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use datafusion_distributed::{
    ChannelResolver, CoordinatorToWorkerMsg, ExecuteTaskRequest, GetWorkerInfoRequest, GetWorkerInfoResponse,
    SetPlanRequest, WorkerChannel, WorkerToCoordinatorMsg,
};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::codegen::http::header::AUTHORIZATION;
use tonic::codegen::http::{HeaderMap, HeaderValue, Request, Response};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use url::Url;

use super::failure::WorkerFailure;
use super::stores::NOT_READ;
use super::token::ClusterToken;
use crate::query::error::external;

/// A machine that is there takes a connection at once.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A machine that went away without a word is found out by this and the next. A busy worker answers late.
const PING_INTERVAL: Duration = Duration::from_secs(10);
const PING_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes on their way that need no word from the receiver, per stream and in all: HTTP/2's own 64 KiB stand still for
/// a round trip each.
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Connections by worker. A clone shares them.
#[derive(Clone)]
pub(super) struct Channels {
    token: Option<ClusterToken>,
    open: Arc<Mutex<HashMap<Url, BoxCloneSyncChannel>>>,
}

impl Channels {
    pub(super) fn new(token: Option<ClusterToken>) -> Self {
        Self { token, open: Arc::default() }
    }

    /// The worker at `url`, whether or not it is there.
    pub(super) fn worker(&self, url: &Url) -> Result<Box<dyn WorkerChannel>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match open.get(url) {
            Some(channel) => channel.clone(),
            None => {
                let endpoint = Endpoint::from_shared(url.to_string()).map_err(external)?;
                let channel = endpoint
                    .connect_timeout(CONNECT_TIMEOUT)
                    .tcp_nodelay(true)
                    .http2_keep_alive_interval(PING_INTERVAL)
                    .keep_alive_timeout(PING_TIMEOUT)
                    .keep_alive_while_idle(true)
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW)
                    .connect_lazy();
                let header = self.token.as_ref().map(|token| token.header.clone());
                let channel = BoxCloneSyncChannel::new(Shown { channel, header });
                open.insert(url.clone(), channel.clone());
                channel
            }
        };
        Ok(Box::new(Named { worker: address(url), client: create_worker_client(channel) }))
    }
}

/// `host:port`, as users name a worker.
pub(super) fn address(url: &Url) -> String {
    url[url::Position::BeforeHost..url::Position::AfterPort].to_owned()
}

impl fmt::Debug for Channels {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Channels").field("token", &self.token).finish_non_exhaustive()
    }
}

#[async_trait]
impl ChannelResolver for Channels {
    async fn get_worker_client_for_url(&self, url: &Url) -> Result<Box<dyn WorkerChannel>> {
        self.worker(url)
    }
}

/// Shows the token with every request.
#[derive(Clone)]
struct Shown {
    channel: Channel,
    header: Option<HeaderValue>,
}

impl Service<Request<Body>> for Shown {
    type Response = Response<Body>;
    type Error = tonic::transport::Error;
    type Future = <Channel as Service<Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if let Some(header) = &self.header {
            request.headers_mut().insert(AUTHORIZATION, header.clone());
        }
        self.channel.call(request)
    }
}

/// Says in every error which worker it is about.
struct Named {
    worker: String,
    client: Box<dyn WorkerChannel>,
}

#[async_trait]
impl WorkerChannel for Named {
    async fn coordinator_channel(
        &mut self,
        headers: HeaderMap,
        request: SetPlanRequest,
        messages: BoxStream<'static, CoordinatorToWorkerMsg>,
        metrics: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<BoxStream<'static, Result<WorkerToCoordinatorMsg>>> {
        let worker = self.worker.clone();
        let answers = self.client.coordinator_channel(headers, request, messages, metrics, context).await;
        let answers = answers.map_err(|error| named(&worker, error))?;
        Ok(answers.map_err(move |error| named(&worker, error)).boxed())
    }

    async fn execute_task(
        &mut self,
        headers: HeaderMap,
        request: ExecuteTaskRequest,
        metrics: ExecutionPlanMetricsSet,
        context: &Arc<TaskContext>,
    ) -> Result<Vec<BoxStream<'static, Result<RecordBatch>>>> {
        let parts = self.client.execute_task(headers, request, metrics, context).await;
        let parts = parts.map_err(|error| named(&self.worker, error))?;
        let with_name = |part: BoxStream<'static, Result<RecordBatch>>| {
            let worker = self.worker.clone();
            part.map_err(move |error| named(&worker, error)).boxed()
        };
        Ok(parts.into_iter().map(with_name).collect())
    }

    async fn get_worker_info(&mut self, request: GetWorkerInfoRequest) -> Result<GetWorkerInfoResponse> {
        self.client.get_worker_info(request).await.map_err(|error| named(&self.worker, error))
    }
}

/// The error with the worker's name, where it is the worker's and not the statement's.
fn named(worker: &str, error: DataFusionError) -> DataFusionError {
    if WorkerFailure::of(&error).is_some() {
        return error;
    }
    let failure = match status(&error) {
        Some(status) if status.code() == Code::Unauthenticated => {
            WorkerFailure::refused(worker, status.message())
        }
        Some(status) => WorkerFailure::lost(worker, innermost(status)),
        None => {
            let text = error.to_string();
            let refused = text.split_once(NOT_READ);
            let refused =
                refused.map(|(_, place)| WorkerFailure::refused(worker, format!("{NOT_READ}{place}")));
            match refused.or_else(|| WorkerFailure::starved(worker, &text)) {
                Some(failure) => failure,
                None => return error,
            }
        }
    };
    external(failure)
}

/// What gRPC itself says; an error of the statement comes as another.
fn status(error: &DataFusionError) -> Option<&Status> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(status) = this.downcast_ref() {
            return Some(status);
        }
        cause = this.source();
    }
    None
}

/// The cause that the others only repeat.
fn innermost(status: &Status) -> String {
    let (mut text, mut cause) = (status.message().to_owned(), status.source());
    while let Some(this) = cause {
        text = this.to_string();
        cause = this.source();
    }
    text
}
