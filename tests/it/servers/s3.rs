//! A real S3 server on loopback (`s3s-fs` in this process), over a folder of its own, with faults on demand.
//!
//! What it does with a request it finishes, also when the client is cut off meanwhile, as S3 does. `s3s-fs` looks
//! whether an object exists before it writes it; here a lock makes conditional puts exclusive, as S3's are. It lists
//! no ETags, takes no notice of `If-Match` in a get, and fails over a folder; here it does as S3 does.
use std::future::{Future, pending};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::dto::*;
use s3s::service::S3ServiceBuilder;
use s3s::{S3, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::Notify;

use super::super::campaign::Random;
use super::super::support::Site;

/// The bucket that there is from the start.
const BUCKET: &str = "logs";
const ACCESS_KEY: &str = "test-access-key";
pub(crate) const SECRET_KEY: &str = "test/secret+key";

/// How many of 1000 requests fail, and how.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// Answered by 503 SlowDown, and not done.
    pub(crate) throttled: u64,
    /// Done, but late.
    pub(crate) slow: u64,
    /// Not done; all connections are cut.
    pub(crate) cut_before: u64,
    /// Done; all connections are cut before the answer.
    pub(crate) cut_after: u64,
    /// The same, of conditional puts alone.
    pub(crate) commit_cut_after: u64,
}

/// How often what happened.
#[derive(Debug, Default)]
pub(crate) struct Happened {
    pub(crate) throttled: AtomicU64,
    pub(crate) cut_before: AtomicU64,
    pub(crate) cut_after: AtomicU64,
    pub(crate) parts: AtomicU64,
    /// Requests for bytes of logs, not of an archive.
    pub(crate) gets_of_logs: AtomicU64,
}

/// Gone when dropped.
#[derive(Debug)]
pub(crate) struct S3Server {
    port: u16,
    folder: TempDir,
    state: Arc<State>,
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct State {
    faults: Mutex<(Faults, Random)>,
    happened: Happened,
    cut: Notify,
    conditional: tokio::sync::Mutex<()>,
}

impl S3Server {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let state = Arc::new(State {
            faults: Mutex::new((Faults::default(), Random(0))),
            happened: Happened::default(),
            cut: Notify::new(),
            conditional: tokio::sync::Mutex::default(),
        });
        let files = Arc::new(FileSystem::new(folder.path()).unwrap());
        let mut service = S3ServiceBuilder::new(Bucket { files, state: Arc::clone(&state) });
        service.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let of_connections = Arc::clone(&state);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (service, state) = (service.clone(), Arc::clone(&of_connections));
                tokio::spawn(async move {
                    let builder = Builder::new(TokioExecutor::new());
                    let mut is_cut = std::pin::pin!(state.cut.notified());
                    is_cut.as_mut().enable();
                    tokio::select! {
                        // however it ends, the client sees it
                        _ended = builder.serve_connection(TokioIo::new(stream), service) => {}
                        () = is_cut => {}
                    }
                });
            }
        });
        Self { port, folder, state, runtime: Some(runtime) }
    }

    /// A folder in the bucket.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("s3://{BUCKET}/{name}")
    }

    /// Where an object is on disk.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(BUCKET).join(name)
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Makes `site`'s commands find this server, and the archive at [`S3Server::url`] of `name` their default.
    pub(crate) fn serve(&self, site: &mut Site, name: &str) {
        site.set("AWS_ENDPOINT_URL", self.endpoint());
        for (variable, value) in [
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ] {
            site.set(variable, value);
        }
        for variable in ["PIPELINE_INTO", "PIPELINE_FROM", "PIPELINE_ARCHIVE"] {
            site.set(variable, self.url(name));
        }
    }

    /// From here on; `seed` decides which requests.
    pub(crate) fn fail(&self, faults: Faults, seed: u64) {
        *self.state.faults.lock().unwrap() = (faults, Random(seed));
    }

    pub(crate) fn happened(&self) -> &Happened {
        &self.state.happened
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Throttled,
    Slow,
    CutBefore,
    CutAfter,
}

impl State {
    fn next_fault(&self, is_commit: bool) -> Option<Fault> {
        let mut guard = self.faults.lock().unwrap();
        let (faults, random) = &mut *guard;
        let mut at = random.below(1000);
        let commits = if is_commit { faults.commit_cut_after } else { 0 };
        let weights = [
            (Fault::Throttled, faults.throttled),
            (Fault::Slow, faults.slow),
            (Fault::CutBefore, faults.cut_before),
            (Fault::CutAfter, faults.cut_after + commits),
        ];
        weights.into_iter().find_map(|(fault, weight)| match at.checked_sub(weight) {
            None => Some(fault),
            Some(rest) => {
                at = rest;
                None
            }
        })
    }

    async fn cut<T>(&self) -> T {
        self.cut.notify_waiters();
        pending().await
    }

    async fn answer<T: Send + 'static>(
        &self,
        is_commit: bool,
        work: impl Future<Output = S3Result<S3Response<T>>> + Send + 'static,
    ) -> S3Result<S3Response<T>> {
        let fault = self.next_fault(is_commit);
        match fault {
            Some(Fault::Throttled) => {
                self.happened.throttled.fetch_add(1, Ordering::Relaxed);
                return Err(s3_error!(SlowDown, "Please reduce your request rate."));
            }
            Some(Fault::CutBefore) => {
                self.happened.cut_before.fetch_add(1, Ordering::Relaxed);
                return self.cut().await;
            }
            Some(Fault::Slow) => tokio::time::sleep(Duration::from_millis(200)).await,
            Some(Fault::CutAfter) | None => {}
        }
        let answer = tokio::spawn(work).await.unwrap();
        if fault == Some(Fault::CutAfter) {
            self.happened.cut_after.fetch_add(1, Ordering::Relaxed);
            return self.cut().await;
        }
        answer
    }
}

struct Bucket {
    files: Arc<FileSystem>,
    state: Arc<State>,
}

/// The ETag of an object; none where it is gone.
async fn e_tag(files: &FileSystem, bucket: &str, key: &str) -> Option<ETag> {
    let input = HeadObjectInput { bucket: bucket.to_owned(), key: key.to_owned(), ..Default::default() };
    let request = S3Request {
        input,
        method: Default::default(),
        uri: Default::default(),
        headers: Default::default(),
        extensions: Default::default(),
        credentials: None,
        region: None,
        service: None,
        trailing_headers: None,
    };
    files.head_object(request).await.ok()?.output.e_tag
}

async fn get(
    files: Arc<FileSystem>,
    request: S3Request<GetObjectInput>,
) -> S3Result<S3Response<GetObjectOutput>> {
    if let Some(ETagCondition::ETag(expected)) = &request.input.if_match {
        let found = e_tag(&files, &request.input.bucket, &request.input.key).await;
        if found.is_some_and(|found| !found.strong_cmp(expected)) {
            return Err(s3_error!(PreconditionFailed, "it is another one"));
        }
    }
    files.get_object(request).await
}

/// A folder on disk is no object.
async fn head(
    files: Arc<FileSystem>,
    request: S3Request<HeadObjectInput>,
) -> S3Result<S3Response<HeadObjectOutput>> {
    files.head_object(request).await.map_err(|error| match error.code() {
        S3ErrorCode::InternalError => s3_error!(NoSuchKey),
        _ => error,
    })
}

async fn list(
    files: Arc<FileSystem>,
    request: S3Request<ListObjectsV2Input>,
) -> S3Result<S3Response<ListObjectsV2Output>> {
    let bucket = request.input.bucket.clone();
    let mut listed = files.list_objects_v2(request).await?;
    for object in listed.output.contents.iter_mut().flatten() {
        if let Some(key) = &object.key {
            object.e_tag = e_tag(&files, &bucket, key).await;
        }
    }
    Ok(listed)
}

/// The operations that an archive needs.
macro_rules! pass_on {
    ($($operation:ident $input:ident $output:ident),*) => {
        #[async_trait]
        impl S3 for Bucket {
            async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
                let (files, state) = (Arc::clone(&self.files), Arc::clone(&self.state));
                let is_commit = request.input.if_none_match.is_some();
                let put = async move {
                    let _exclusive = if is_commit { Some(state.conditional.lock().await) } else { None };
                    files.put_object(request).await
                };
                self.state.answer(is_commit, put).await
            }

            async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
                self.state.happened.parts.fetch_add(1, Ordering::Relaxed);
                let files = Arc::clone(&self.files);
                self.state.answer(false, async move { files.upload_part(request).await }).await
            }

            async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
                let is_log = [".log", ".gz", ".zst"].iter().any(|end| request.input.key.ends_with(end));
                self.state.happened.gets_of_logs.fetch_add(u64::from(is_log), Ordering::Relaxed);
                self.state.answer(false, get(Arc::clone(&self.files), request)).await
            }

            async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
                self.state.answer(false, head(Arc::clone(&self.files), request)).await
            }

            async fn list_objects_v2(
                &self,
                request: S3Request<ListObjectsV2Input>,
            ) -> S3Result<S3Response<ListObjectsV2Output>> {
                self.state.answer(false, list(Arc::clone(&self.files), request)).await
            }

            $(async fn $operation(&self, request: S3Request<$input>) -> S3Result<S3Response<$output>> {
                let files = Arc::clone(&self.files);
                self.state.answer(false, async move { files.$operation(request).await }).await
            })*
        }
    };
}

pass_on!(
    delete_object DeleteObjectInput DeleteObjectOutput,
    delete_objects DeleteObjectsInput DeleteObjectsOutput,
    copy_object CopyObjectInput CopyObjectOutput,
    create_multipart_upload CreateMultipartUploadInput CreateMultipartUploadOutput,
    complete_multipart_upload CompleteMultipartUploadInput CompleteMultipartUploadOutput,
    abort_multipart_upload AbortMultipartUploadInput AbortMultipartUploadOutput
);
