//! Connections to Redis, a single server or a cluster, with every limit of time set on purpose.
//!
//! The driver gives up on an answer after 500 ms unless told otherwise, without a word, so that a blocking read
//! would fail: here the caller says how long. The password is in no error and no `Debug`. Deliberately absent:
//! reconnecting (what was in flight is known only to who sent it), pub/sub, and Sentinel.
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::io::tcp::socket2::TcpKeepalive;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, Pipeline, RedisError,
    RedisFuture, RedisResult, ServerErrorKind, TlsCertificates, Value,
};

use super::secret::{self, redacted};
use super::{ClientError, tls};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// As for Postgres: a machine that vanished is noticed within a minute.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const USER_TIMEOUT: Duration = Duration::from_secs(60);
/// The cluster client cannot be told "for ever".
const FOR_EVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long to wait for the answer to a command that does not block: far longer than a busy server needs, far
/// shorter than a person waits.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(10);

/// What the driver says of an answer whose end is missing.
const BROKEN_OFF: &str = "end of input";

const PASSWORD_REMEDY: &str =
    "set REDIS_PASSWORD, or name a file that holds the password in PIPELINE_REDIS_PASSWORD_FILE";
const SHAPE: &str = "write redis://host:port/database, rediss:// for TLS";

/// The URL of the Redis of `docker-compose.yml`, changed by the old variables `REDIS_HOST` and `REDIS_PORT`.
#[must_use]
pub fn default_redis_url() -> String {
    let old = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let host = match old("REDIS_HOST") {
        Some(host) if host.contains(':') => format!("[{host}]"),
        host => host.unwrap_or_else(|| "127.0.0.1".to_owned()),
    };
    let port = old("REDIS_PORT").unwrap_or_else(|| "6379".to_owned());
    format!("redis://{host}:{port}")
}

/// Where and how to connect. `Display` is the URL without its password.
#[derive(Clone)]
pub struct RedisConfig {
    info: ConnectionInfo,
    certificates: Option<TlsCertificates>,
    printed: String,
    /// The nodes that the cluster had when it was last connected to: the one in the URL may be the one that is lost.
    nodes: Arc<Mutex<Vec<ConnectionAddr>>>,
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RedisConfig").field(&self.printed).finish()
    }
}

impl fmt::Display for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.printed)
    }
}

impl RedisConfig {
    /// Understands `redis://user@host:port/database`, `rediss://..?sslrootcert=FILE` for TLS by an authority that
    /// is not the system's, and `unix:///path`.
    ///
    /// The password is the URL's, else that of the file that `PIPELINE_REDIS_PASSWORD_FILE` names, or
    /// `REDIS_PASSWORD`. Warns about a password on the command line. Errors are of the configuration.
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        let printed = redacted(url);
        let bad = |reason: String| ClientError::BadUrl { location: printed.clone(), reason };
        secret::check_encoding(url)?;
        if url.ends_with("#insecure") {
            let remedy = "give ?sslrootcert=FILE with the server's authority instead";
            return Err(bad(format!("TLS without verifying the server is not supported; {remedy}")));
        }
        let (plain_url, roots) = take_root_certificates(url);
        let mut info: ConnectionInfo = plain_url.parse().map_err(|error: RedisError| {
            bad(format!("{}; {SHAPE}", error.detail().unwrap_or("is not a Redis URL")))
        })?;
        let is_tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        if roots.is_some() && !is_tls {
            return Err(bad("sslrootcert is for rediss://; write rediss:// for TLS".to_owned()));
        }
        let certificates = roots
            .map(|path| tls::read_roots(&super::decoded_path(&path)))
            .transpose()?
            .map(|(pem, _)| TlsCertificates { client_tls: None, root_cert: Some(pem) });
        secret::warn_if_on_command_line(url, PASSWORD_REMEDY);
        let mut settings = info.redis_settings().clone().set_lib_name("pipeline", env!("CARGO_PKG_VERSION"));
        if settings.password().is_none() {
            let password = secret::from_file_in("PIPELINE_REDIS_PASSWORD_FILE")?
                .or_else(|| secret::from_variable("REDIS_PASSWORD"));
            if let Some(password) = password {
                settings = settings.set_password(password.expose());
            }
        }
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
        // without TCP_NODELAY a small command waits for the answer to the one before it
        let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
        #[cfg(target_os = "linux")]
        let tcp = tcp.set_user_timeout(USER_TIMEOUT);
        info = info.set_redis_settings(settings).set_tcp_settings(tcp);
        Ok(Self { info, certificates, printed, nodes: Arc::default() })
    }

    /// `host:port`, for a message.
    #[must_use]
    pub fn address(&self) -> String {
        self.info.addr().to_string()
    }

    /// Connects once; finds out by itself whether this is a cluster, and then reaches it by any node that it was
    /// seen to have. `response_timeout` is for every command on this connection: [`RESPONSE_TIMEOUT`], or `None` for one that blocks as long as it likes.
    pub async fn connect(&self, response_timeout: Option<Duration>) -> Result<RedisConnection, ClientError> {
        tls::use_ring();
        self.try_connect(response_timeout).await.map_err(|error| self.judge(error))
    }

    /// [`Self::connect`], five times two seconds apart while the server cannot be reached, because services that
    /// are started together are not ready together.
    pub async fn connect_at_start(
        &self,
        response_timeout: Option<Duration>,
    ) -> Result<RedisConnection, ClientError> {
        super::try_at_start(|| self.connect(response_timeout)).await
    }

    async fn try_connect(&self, response_timeout: Option<Duration>) -> RedisResult<RedisConnection> {
        let error = match self.connect_to(&self.info, response_timeout).await {
            Err(error) if is_retriable(&error) => error,
            connected => return connected,
        };
        for node in self.nodes() {
            let connected = self.connect_to(&self.info.clone().set_addr(node), response_timeout).await;
            if connected.is_ok() {
                return connected;
            }
        }
        Err(error)
    }

    async fn connect_to(
        &self,
        info: &ConnectionInfo,
        response_timeout: Option<Duration>,
    ) -> RedisResult<RedisConnection> {
        let client = match &self.certificates {
            Some(certificates) => Client::build_with_tls(info.clone(), certificates.clone())?,
            None => Client::open(info.clone())?,
        };
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT));
        let mut probe = client.get_multiplexed_async_connection_with_config(&config).await?;
        if is_cluster(&mut probe).await? {
            self.learn_nodes(&mut probe).await?;
            let mut builder = ClusterClient::builder([info.clone()])
                .connection_timeout(CONNECT_TIMEOUT)
                .response_timeout(response_timeout.unwrap_or(FOR_EVER))
                .tcp_settings(self.info.tcp_settings().clone());
            if let Some(certificates) = &self.certificates {
                builder = builder.certs(certificates.clone());
            }
            return Ok(RedisConnection::Cluster(builder.build()?.get_async_connection().await?));
        }
        if response_timeout == Some(RESPONSE_TIMEOUT) {
            return Ok(RedisConnection::Single(probe));
        }
        let config = config.set_response_timeout(response_timeout);
        Ok(RedisConnection::Single(client.get_multiplexed_async_connection_with_config(&config).await?))
    }

    fn nodes(&self) -> Vec<ConnectionAddr> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn learn_nodes(&self, connection: &mut MultiplexedConnection) -> RedisResult<()> {
        let slots = redis::cmd("CLUSTER").arg("SLOTS").query_async::<Vec<Vec<Value>>>(connection).await?;
        // first and last slot, then its master and replicas
        let found = slots.iter().flat_map(|range| range.iter().skip(2)).filter_map(node_address);
        let mut nodes = Vec::new();
        for (host, port) in found {
            let mut node = self.info.addr().clone();
            match &mut node {
                ConnectionAddr::Tcp(of_node, at) | ConnectionAddr::TcpTls { host: of_node, port: at, .. } => {
                    (*of_node, *at) = (host, port);
                }
                _ => continue,
            }
            if !nodes.contains(&node) {
                nodes.push(node);
            }
        }
        // a node that has lost sight of the others knows none
        if !nodes.is_empty() {
            *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
        }
        Ok(())
    }

    fn judge(&self, error: RedisError) -> ClientError {
        let (service, address) = ("redis", self.address());
        if is_retriable(&error) && !tls::is_at_fault(&error) {
            return ClientError::Unreachable { service, address, source: error.into() };
        }
        let is_password = matches!(error.kind(), ErrorKind::AuthenticationFailed)
            || matches!(error.code(), Some("NOAUTH" | "WRONGPASS"));
        let remedy = if is_password {
            PASSWORD_REMEDY
        } else if tls::is_at_fault(&error) {
            "check that the server speaks TLS (rediss://) and give ?sslrootcert=FILE with its authority"
        } else if matches!(error.code(), Some("NOPERM")) {
            "grant the user the commands of streams, or name another"
        } else {
            "check the URL and the server's settings"
        };
        ClientError::Refused { service, address, remedy: remedy.to_owned(), source: error.into() }
    }
}

/// Whether the same command may succeed on a new connection without anybody changing anything: the connection was
/// lost or timed out, or the server is loading, failing over or out of connections.
#[must_use]
pub fn is_retriable(error: &RedisError) -> bool {
    match error.kind() {
        ErrorKind::Io | ErrorKind::ClusterConnectionNotFound => true,
        // an answer that breaks off with its connection; what is no answer of a Redis is told apart
        ErrorKind::Parse => error.to_string().contains(BROKEN_OFF),
        ErrorKind::Server(kind) => match kind {
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::Moved
            | ServerErrorKind::Ask => true,
            _ => error.detail().is_some_and(|detail| detail.contains("max number of clients")),
        },
        _ => false,
    }
}

/// Host and port of a node in the answer to `CLUSTER SLOTS`; a node that does not know its own name has none.
fn node_address(node: &Value) -> Option<(String, u16)> {
    let Value::Array(parts) = node else { return None };
    let [Value::BulkString(host), Value::Int(port), ..] = &parts[..] else { return None };
    let host = std::str::from_utf8(host).ok().filter(|host| !host.is_empty() && *host != "?")?;
    Some((host.to_owned(), u16::try_from(*port).ok()?))
}

async fn is_cluster(connection: &mut MultiplexedConnection) -> RedisResult<bool> {
    match redis::cmd("INFO").arg("cluster").query_async::<String>(connection).await {
        Ok(text) => Ok(text.contains("cluster_enabled:1")),
        // a user without the right to INFO can have the one to CLUSTER INFO, which only a cluster answers
        Err(error) if error.code() == Some("NOPERM") => {
            Ok(redis::cmd("CLUSTER").arg("INFO").query_async::<String>(connection).await.is_ok())
        }
        Err(error) => Err(error),
    }
}

/// `sslrootcert` is not a parameter that the driver knows.
fn take_root_certificates(url: &str) -> (String, Option<String>) {
    let Some((place, parameters)) = url.split_once('?') else { return (url.to_owned(), None) };
    let mut roots = None;
    let rest = parameters.split('&').filter(|parameter| match parameter.split_once('=') {
        Some(("sslrootcert", path)) => {
            roots = Some(path.to_owned());
            false
        }
        _ => !parameter.is_empty(),
    });
    let rest = rest.collect::<Vec<_>>().join("&");
    (if rest.is_empty() { place.to_owned() } else { format!("{place}?{rest}") }, roots)
}

/// A connection, cheap to clone; clones share the socket, so that a command that blocks holds up the others.
#[derive(Clone)]
pub enum RedisConnection {
    /// One server.
    Single(MultiplexedConnection),
    /// A cluster: commands go to the node that has their key.
    Cluster(ClusterConnection),
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_cluster() { "RedisConnection::Cluster" } else { "RedisConnection::Single" })
    }
}

impl RedisConnection {
    /// Whether keys that are used together must share a `{hash tag}`.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self, RedisConnection::Cluster(_))
    }
}

impl ConnectionLike for RedisConnection {
    fn req_packed_command<'a>(&'a mut self, cmd: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            RedisConnection::Single(connection) => connection.req_packed_command(cmd),
            RedisConnection::Cluster(connection) => connection.req_packed_command(cmd),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            RedisConnection::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            RedisConnection::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            RedisConnection::Single(connection) => connection.get_db(),
            RedisConnection::Cluster(connection) => connection.get_db(),
        }
    }
}
