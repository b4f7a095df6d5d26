//! A worker: runs stages that coordinators send, and streams their rows to whoever asks for them.
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::SessionState;
use datafusion_distributed::{DistributedExt, Worker, WorkerQueryContext};
use tokio::net::TcpListener;
use tonic::codegen::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Status};
use uuid::Uuid;

use super::channel::Channels;
use super::codec::ClusterCodec;
use super::stores::Reads;
use super::token::ClusterToken;
use super::{VERSION, panics};
use crate::query::session::{functions_of_worker, settings};
use crate::query::{QueryError, error::external};

/// How a worker is started.
#[derive(Debug)]
pub struct WorkerOptions {
    /// Archives and `raw:` paths that it reads.
    pub from: Vec<String>,
    /// What sorts, groups and joins of all statements may hold together before they spill.
    pub memory_bytes: usize,
    /// Without one everybody is served.
    pub token: Option<ClusterToken>,
}

/// Serves until it is asked to stop.
pub struct QueryWorker {
    worker: Worker,
    token: Option<ClusterToken>,
}

impl fmt::Debug for QueryWorker {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("QueryWorker").field("token", &self.token).finish_non_exhaustive()
    }
}

impl QueryWorker {
    /// A worker with these options. From here on the process ends with its first panic: a stage that panicked would
    /// end as one that is done.
    pub fn try_new(options: WorkerOptions) -> Result<Self, QueryError> {
        panics::end_with_the_first();
        let reads = Arc::new(Reads::try_new(&options.from)?);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(options.memory_bytes)))
            .with_object_store_registry(Arc::clone(&reads) as _)
            .build_arc()?;
        let codec = ClusterCodec::of_worker(reads);
        let channels = Channels::new(options.token.clone());
        let functions = functions_of_worker();
        let state = move |context: WorkerQueryContext| {
            let (codec, channels, functions) = (codec.clone(), channels.clone(), functions.clone());
            async move {
                let mut builder = context.builder;
                let config = settings(builder.config().take().unwrap_or_default());
                let mut state: SessionState = builder
                    .with_config(config)
                    .with_distributed_user_codec(codec)
                    .with_distributed_channel_resolver(channels)
                    .build();
                for function in functions {
                    datafusion::execution::FunctionRegistry::register_udf(&mut state, function)?;
                }
                Ok(state)
            }
        };
        // told apart however many of its addresses are asked
        let identity = format!("{VERSION} {}", Uuid::now_v7());
        let worker = Worker::from_session_builder(state).with_runtime_env(runtime).with_version(identity);
        Ok(Self { worker, token: options.token })
    }

    /// Serves on `listener`. Once `stop` resolves, no new stage is taken, and those that run are ended.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), QueryError> {
        let token = self.token;
        let check = move |request: Request<()>| match &token {
            Some(token) if !token.expected.is_shown_in(request.metadata().as_ref()) => {
                Err(Status::unauthenticated("the token is wrong or lacks; name its --token-file"))
            }
            _ => Ok(request),
        };
        let service = InterceptedService::new(self.worker.into_worker_server(), check);
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let served = Server::builder().add_service(service).serve_with_incoming_shutdown(incoming, stop);
        served.await.map_err(|error| external(error).into())
    }
}
