//! Connections to Postgres: what a URL, the environment and password files say, as libpq understands them.
//!
//! The password is in no error and no `Debug`. `sslmode` means what it means to libpq, but for one thing: the
//! system's certificate authorities count for `verify-full` without `sslrootcert`. Deliberately absent: pools,
//! client certificates, and a second try but at the start of a command: what failed is redone by who knows it.
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::{MakeTlsConnect, NoTls};
use tokio_postgres::{CancelToken, Client, Config, Error, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use url::form_urlencoded;

use super::secret::{self, Secret, redacted};
use super::{ClientError, tls};

mod drive;

use self::drive::drive;

/// Unless the URL says `connect_timeout`.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A server that vanished with its machine is noticed after 30 + 3 x 10 seconds of silence instead of two hours,
/// and after a minute when something was sent to it.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);

/// What `docker-compose.yml` and `scripts/services` start; the one place whose password is known to everyone.
const DEFAULT_URL: &str = "postgres://pipeline@127.0.0.1:5432/pipeline";
const DEFAULT_PASSWORD: &str = "pipeline";

const PASSWORD_REMEDY: &str = "set PGPASSWORD, or name a file that holds the password in \
PIPELINE_PG_PASSWORD_FILE or PGPASSFILE";
const SHAPE: &str = "write postgres://user@host:port/database?sslmode=prefer";

/// The URL of the Postgres of `docker-compose.yml`, changed by the old variables `PG_HOST`, `PG_PORT`, `PG_DB`,
/// `PG_USER` and `PG_PASSWORD`. May hold a password: print it through [`super::redacted`].
#[must_use]
pub fn default_postgres_url() -> String {
    let old = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let [host, port, database, user, password] =
        ["PG_HOST", "PG_PORT", "PG_DB", "PG_USER", "PG_PASSWORD"].map(old);
    if [&host, &port, &database, &user, &password].iter().all(|value| value.is_none()) {
        return DEFAULT_URL.to_owned();
    }
    let host = match host {
        Some(host) if host.contains('/') => encoded(&host),
        Some(host) if host.contains(':') => format!("[{host}]"),
        Some(host) => host,
        None => "127.0.0.1".to_owned(),
    };
    let user = encoded(&user.unwrap_or_else(|| "pipeline".to_owned()));
    let password = password.map(|password| format!(":{}", encoded(&password))).unwrap_or_default();
    let port = port.unwrap_or_else(|| "5432".to_owned());
    let database = encoded(&database.unwrap_or_else(|| "pipeline".to_owned()));
    format!("postgres://{user}{password}@{host}:{port}/{database}")
}

fn encoded(text: &str) -> String {
    // a URL's credentials and path know no + for a blank
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// Where and how to connect. `Display` is the URL without its password.
#[derive(Clone)]
pub struct PgConfig {
    config: Config,
    tls: Option<MakeRustlsConnect>,
    printed: String,
    notified: Option<Arc<Notify>>,
}

impl fmt::Debug for PgConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PgConfig").field(&self.printed).finish()
    }
}

impl fmt::Display for PgConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.printed)
    }
}

impl PgConfig {
    /// Understands `postgres://user@host:port/database?sslmode=..&sslrootcert=..&application_name=..`, a socket's
    /// folder as `%2Frun%2Fpostgresql` in place of the host, several hosts, and tokio-postgres' other parameters.
    ///
    /// The password is the URL's, else that of the file that `PIPELINE_PG_PASSWORD_FILE` names, `PGPASSWORD`, or
    /// the one in `PGPASSFILE` (`~/.pgpass`). Warns about a password on the command line. Errors are of the
    /// configuration.
    pub fn parse(url: &str) -> Result<Self, ClientError> {
        let printed = redacted(url);
        let bad = |reason: String| ClientError::BadUrl { location: printed.clone(), reason };
        secret::check_encoding(url)?;
        let (url_without_tls, parameters) = TlsParameters::take_from(url);
        let mut config: Config = url_without_tls.parse().map_err(|error: Error| {
            // "invalid connection string" is what the URL already shows
            let cause = error.into_source().map(|cause| cause.to_string()).unwrap_or_default();
            bad(format!("{cause}; {SHAPE}"))
        })?;
        if config.get_hosts().is_empty() {
            match config.get_hostaddrs().to_vec() {
                addresses if addresses.is_empty() => return Err(bad(format!("names no host; {SHAPE}"))),
                // without a name there would be nothing to show to TLS
                addresses => addresses.iter().for_each(|address| {
                    config.host(address.to_string());
                }),
            }
        }
        if config.get_dbname().is_none() && config.get_user().is_none() {
            return Err(bad(format!("names neither database nor user; {SHAPE}")));
        }
        if config.get_password() != Some(DEFAULT_PASSWORD.as_bytes()) {
            secret::warn_if_on_command_line(url, PASSWORD_REMEDY);
        }
        if config.get_password().is_none()
            && let Some(password) = find_password(&config)?
        {
            config.password(password.expose());
        }
        if config.get_application_name().is_none() {
            config.application_name("pipeline");
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_tcp_user_timeout().is_none() {
            config.tcp_user_timeout(TCP_USER_TIMEOUT);
        }
        if config.get_keepalives_interval().is_none() && config.get_keepalives_retries().is_none() {
            config.keepalives_idle(KEEPALIVE_IDLE);
            config.keepalives_interval(KEEPALIVE_INTERVAL).keepalives_retries(KEEPALIVE_RETRIES);
        }
        let tls = parameters.apply(&mut config).map_err(|error| match error {
            TlsProblem::Client(error) => error,
            TlsProblem::Setting(reason) => bad(reason),
        })?;
        Ok(Self { config, tls, printed, notified: None })
    }

    /// `host:port/database`, for a message.
    #[must_use]
    pub fn address(&self) -> String {
        let ports = self.config.get_ports();
        let hosts = self.config.get_hosts().iter().enumerate().map(|(index, host)| {
            let port = ports.get(index).or(ports.first()).copied().unwrap_or(5432);
            match host {
                Host::Tcp(name) if name.contains(':') => format!("[{name}]:{port}"),
                Host::Tcp(name) => format!("{name}:{port}"),
                Host::Unix(folder) => format!("{}/.s.PGSQL.{port}", folder.display()),
            }
        });
        let hosts = hosts.collect::<Vec<_>>().join(",");
        self.database().map_or(hosts.clone(), |database| format!("{hosts}/{database}"))
    }

    /// The database, where one is named; else Postgres takes the user's name.
    #[must_use]
    pub fn database(&self) -> Option<&str> {
        self.config.get_dbname()
    }

    /// The user, where one is named; else it is the user of this process.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.config.get_user()
    }

    /// Connects once, and drives the connection in a task of its own until the client is dropped.
    pub async fn connect(&self) -> Result<Client, ClientError> {
        let hosts = u32::try_from(self.config.get_hosts().len()).unwrap_or(u32::MAX);
        let limit = self.config.get_connect_timeout().map_or(CONNECT_TIMEOUT, |limit| *limit * hosts.max(1));
        // the driver's own limit is for the socket only: a server that is stopped takes connections too
        let connected = tokio::time::timeout(limit, self.connect_with_fallback()).await;
        let silent = |_| {
            let text = format!("no answer within {} s", limit.as_secs());
            self.unreachable(std::io::Error::new(std::io::ErrorKind::TimedOut, text).into())
        };
        connected.map_err(silent)?.map_err(|error| self.judge(error))
    }

    /// [`Self::connect`], five times two seconds apart while the server cannot be reached, because services that
    /// are started together are not ready together.
    pub async fn connect_at_start(&self) -> Result<Client, ClientError> {
        super::try_at_start(|| self.connect()).await
    }

    /// Asks the server to end what the connection of `token` is at. Whether it does is not waited for.
    pub async fn cancel(&self, token: CancelToken) {
        let asked = match &self.tls {
            Some(tls) => token.cancel_query(tls.clone()).await,
            None => token.cancel_query(NoTls).await,
        };
        if let Err(error) = asked {
            tracing::debug!("{}: a statement goes on to its end: {error}", self.address());
        }
    }

    async fn connect_with_fallback(&self) -> Result<Client, Error> {
        let Some(tls) = &self.tls else {
            return self.connect_by(&self.config, NoTls).await;
        };
        match self.connect_by(&self.config, tls.clone()).await {
            // `prefer` takes no encryption over no connection, as in libpq
            Err(error) if self.config.get_ssl_mode() == SslMode::Prefer && tls::is_at_fault(&error) => {
                tracing::warn!("{}: TLS failed; connecting without", self.address());
                self.connect_by(&self.config, NoTls).await
            }
            connected => connected,
        }
    }

    async fn connect_by<T>(&self, config: &Config, tls: T) -> Result<Client, Error>
    where
        T: MakeTlsConnect<Socket>,
        T::Stream: Send + 'static,
    {
        let (client, connection) = config.connect(tls).await?;
        drive(connection, self.address(), self.notified.clone());
        Ok(client)
    }

    fn unreachable(&self, source: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
        ClientError::Unreachable { service: "postgres", address: self.address(), source }
    }

    /// Whether waiting or the user has to change something.
    fn judge(&self, error: Error) -> ClientError {
        let (code, text) = (error.code().cloned(), error.to_string());
        let is_tls = tls::is_at_fault(&error) || text.contains("TLS");
        // as while it is copied
        let is_closed_now = code == Some(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
        let is_passing = (is_retriable(&error) || is_closed_now) && !is_tls;
        // the server's own words need no "db error" before them
        let source = match error.as_db_error().cloned() {
            Some(error) => Box::new(error) as Box<dyn std::error::Error + Send + Sync>,
            None => error.into(),
        };
        if is_passing {
            return self.unreachable(source);
        }
        let remedy = match code {
            Some(SqlState::INVALID_CATALOG_NAME) => "create the database, or name another in the URL",
            Some(SqlState::INSUFFICIENT_PRIVILEGE) => "grant the user the right to connect, or name another",
            Some(_) => "check the user and the password; PGPASSWORD or PIPELINE_PG_PASSWORD_FILE sets it",
            None if is_tls => "check sslmode and sslrootcert in the URL",
            None if text == "invalid configuration" => PASSWORD_REMEDY,
            None => "check that it is a Postgres server of version 13 or later",
        };
        ClientError::Refused {
            service: "postgres",
            address: self.address(),
            remedy: remedy.to_owned(),
            source,
        }
    }
}

/// Whether the same request may succeed on a new connection without anybody changing anything: the connection was
/// lost, the server is starting, stopping, recovering, out of connections, of memory or of disk, or another session
/// or an operator was in the way.
#[must_use]
pub fn is_retriable(error: &Error) -> bool {
    if let Some(code) = error.code() {
        return is_passing(code.code());
    }
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let is_garbage = |cause: &std::io::Error| {
        matches!(cause.kind(), std::io::ErrorKind::InvalidData | std::io::ErrorKind::InvalidInput)
    };
    error.is_closed() || cause.is_some_and(|cause| !is_garbage(cause) && !tls::is_at_fault(cause))
}

fn is_passing(code: &str) -> bool {
    let of_this_moment = ["25P03", "40001", "40P01", "55P03", "57014", "57P01", "57P02", "57P03", "57P05"];
    code.starts_with("08") || code.starts_with("53") || of_this_moment.contains(&code)
}

fn find_password(config: &Config) -> Result<Option<Secret>, ClientError> {
    if let Some(password) = secret::from_file_in("PIPELINE_PG_PASSWORD_FILE")? {
        return Ok(Some(password));
    }
    if let Some(password) = secret::from_variable("PGPASSWORD").or_else(|| from_passfile(config)) {
        return Ok(Some(password));
    }
    let is_default = config.get_hosts() == [Host::Tcp("127.0.0.1".to_owned())]
        && config.get_ports() == [5432]
        && (config.get_user(), config.get_dbname()) == (Some("pipeline"), Some("pipeline"));
    Ok(is_default.then(|| Secret::new(DEFAULT_PASSWORD)))
}

fn from_passfile(config: &Config) -> Option<Secret> {
    let named = std::env::var_os("PGPASSFILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let path = named.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".pgpass")))?;
    let text = std::fs::read_to_string(&path).ok()?;
    if secret::is_open_to_others(&path) {
        tracing::warn!("{} is ignored: others can read it; chmod 600 {0}", path.display());
        return None;
    }
    let port = config.get_ports().first().unwrap_or(&5432).to_string();
    let user = config.get_user()?;
    let database = config.get_dbname().unwrap_or(user);
    let (host, other_host) = match config.get_hosts().first()? {
        Host::Tcp(name) => (name.clone(), None),
        // libpq calls its own default folder, which differs between systems, localhost
        Host::Unix(folder) => (folder.display().to_string(), Some("localhost")),
    };
    secret::from_pgpass(&text, [&host, &port, database, user])
        .or_else(|| secret::from_pgpass(&text, [other_host?, &port, database, user]))
}

enum TlsProblem {
    Client(ClientError),
    Setting(String),
}

impl From<rustls::Error> for TlsProblem {
    fn from(error: rustls::Error) -> Self {
        TlsProblem::Setting(format!("TLS cannot be set up: {error}"))
    }
}

/// The parameters that tokio-postgres does not know.
#[derive(Default)]
struct TlsParameters {
    mode: Option<String>,
    root_certificates: Option<PathBuf>,
}

impl TlsParameters {
    fn take_from(url: &str) -> (String, Self) {
        let mut taken = Self::default();
        let Some((place, parameters)) = url.split_once('?') else { return (url.to_owned(), taken) };
        let rest = parameters.split('&').filter(|parameter| {
            let (key, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            match key {
                "sslmode" => taken.mode = Some(value.to_owned()),
                "sslrootcert" => taken.root_certificates = Some(super::decoded_path(value)),
                _ => return !parameter.is_empty(),
            }
            false
        });
        let rest = rest.collect::<Vec<_>>().join("&");
        (if rest.is_empty() { place.to_owned() } else { format!("{place}?{rest}") }, taken)
    }

    /// Tells `config` the mode, and returns what makes TLS connections if any may be one.
    fn apply(self, config: &mut Config) -> Result<Option<MakeRustlsConnect>, TlsProblem> {
        let mode = self.mode.as_deref().unwrap_or("prefer");
        config.ssl_mode(match mode {
            "disable" => SslMode::Disable,
            "prefer" => SslMode::Prefer,
            "require" | "verify-ca" | "verify-full" => SslMode::Require,
            _ => {
                let modes = "disable, prefer, require, verify-ca or verify-full";
                return Err(TlsProblem::Setting(format!("sslmode={mode} is not known; give {modes}")));
            }
        });
        // a socket in a folder never leaves the machine, and Postgres has no TLS on it
        if config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_))) {
            config.ssl_mode(SslMode::Disable);
        }
        if config.get_ssl_mode() == SslMode::Disable {
            return Ok(None);
        }
        let roots = self.root_certificates.map(|path| tls::read_roots(&path)).transpose();
        let roots = roots.map_err(TlsProblem::Client)?.map(|(_, roots)| roots);
        let settings = match (mode, roots) {
            ("verify-full", Some(roots)) => tls::verify_full(roots)?,
            ("verify-full", None) => return system_authorities().map(Some),
            ("verify-ca", None) => {
                // any public authority signs for anyone, so that without the name it proves nothing
                let remedy = "sslmode=verify-ca needs &sslrootcert=FILE; or take verify-full";
                return Err(TlsProblem::Setting(remedy.to_owned()));
            }
            // with roots, `require` verifies the chain: libpq does, for compatibility
            ("prefer", _) => tls::without_name(None)?,
            (_, roots) => tls::without_name(roots)?,
        };
        Ok(Some(MakeRustlsConnect::new(settings)))
    }
}

fn system_authorities() -> Result<MakeRustlsConnect, TlsProblem> {
    tls::use_ring();
    MakeRustlsConnect::with_native_certs().map(|(tls, _)| tls).map_err(|_| {
        let remedy = "install ca-certificates, or give &sslrootcert=FILE";
        TlsProblem::Setting(format!("this system has no certificate authorities; {remedy}"))
    })
}

#[cfg(test)]
mod tests {
    use super::is_passing;

    #[test]
    fn what_passes_is_told_from_what_stays() {
        let passing =
            ["08006", "53100", "57P01", "57P03", "57P05", "57014", "25P03", "40001", "40P01", "55P03"];
        assert!(passing.iter().all(|code| is_passing(code)));
        let staying = ["42501", "23505", "22P02", "57000", "25006"];
        assert!(!staying.iter().any(|code| is_passing(code)));
    }
}
