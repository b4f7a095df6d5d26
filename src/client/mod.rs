//! Connection builders: the one place that turns a location a user gives into something to talk to.
//!
//! A store is rooted at the location itself, so that every path in the program is relative to it. Callers see
//! only the `ObjectStore` trait. A password is in nothing that is printed. Deliberately absent: retries, but for
//! services that start at the same time as this program and for object storage, and knowledge of what is stored.
use std::error::Error as StdError;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStore;
use thiserror::Error;
use url::Url;

mod bearer;
mod cloud;
mod durable;
pub mod postgres;
pub mod redis;
mod secret;
mod tls;

pub use self::bearer::BearerToken;
pub use self::cloud::{StorageFault, condensed};
pub use self::durable::{DurableStore, STAGED_PREFIX};
pub use self::postgres::{PgConfig, default_postgres_url};
pub use self::redis::{RedisConfig, RedisConnection, default_redis_url};
pub use self::secret::redacted;
pub use self::tls::use_ring;

/// How often a service is tried at the start of a command,
pub const TRIES_AT_START: u32 = 5;
/// and the pause between two tries.
pub const PAUSE_AT_START: Duration = Duration::from_secs(2);

/// The service that a bucket is in, for messages.
pub const OBJECT_STORAGE: &str = "object storage";

/// Whether a location is a database, and not an archive.
#[must_use]
pub fn is_postgres(location: &str) -> bool {
    ["postgres://", "postgresql://"].iter().any(|scheme| location.starts_with(scheme))
}

/// Why a location cannot be opened.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The location is not one that is understood, or not one that can hold an archive.
    #[error("{location}: {reason}")]
    BadUrl {
        /// What was given.
        location: String,
        /// What is wrong with it, and the remedy.
        reason: String,
    },
    /// The service does not answer, or takes no connection now.
    #[error(
        "{service} at {address} takes no connection; check that it runs there{}",
        if *service == OBJECT_STORAGE { "" } else { " (`scripts/services start` runs one on this machine)" }
    )]
    Unreachable {
        /// `postgres`, `redis` or [`OBJECT_STORAGE`].
        service: &'static str,
        /// Host, port and what else tells it from others; never a password.
        address: String,
        /// What the connection failed with.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The service answers, and will answer the same until somebody changes something.
    #[error("{service} at {address} refuses the connection; {remedy}")]
    Refused {
        /// `postgres` or `redis`.
        service: &'static str,
        /// Host, port and what else tells it from others; never a password.
        address: String,
        /// What to change.
        remedy: String,
        /// What the service said.
        source: Box<dyn StdError + Send + Sync>,
    },
}

impl ClientError {
    /// Whether the same attempt may succeed later without anybody changing a setting.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        matches!(self, ClientError::Unreachable { .. })
    }
}

/// Tries again while that can help. What cannot be helped by waiting fails at once.
async fn try_at_start<T, F>(mut connect: impl FnMut() -> F) -> Result<T, ClientError>
where
    F: Future<Output = Result<T, ClientError>>,
{
    let mut tries = 1;
    loop {
        match connect().await {
            Err(error) if error.is_retriable() && tries < TRIES_AT_START => {
                let pause = PAUSE_AT_START.as_secs();
                tracing::warn!("{}; try {tries} of {TRIES_AT_START}, the next in {pause} s", brief(&error));
                tries += 1;
                tokio::time::sleep(PAUSE_AT_START).await;
            }
            ended => return ended,
        }
    }
}

/// The error's place and its cause, without the remedy that is said once at the end.
fn brief(error: &ClientError) -> String {
    match error {
        ClientError::Unreachable { service, address, source } => {
            format!("{service} at {address} takes no connection: {}", with_causes(&**source))
        }
        other => other.to_string(),
    }
}

/// The error and its causes, each said once: some errors' own text holds their cause's.
pub fn with_causes(error: &dyn StdError) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(inner) = cause {
        let said = inner.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = inner.source();
    }
    text
}

/// The path in a URL's parameter. A `+` is one: only forms write blanks so.
fn decoded_path(value: &str) -> PathBuf {
    let value = value.replace('+', "%2B").replace('&', "%26");
    let decoded = url::form_urlencoded::parse(value.as_bytes()).next();
    PathBuf::from(decoded.map(|(path, _)| path.into_owned()).unwrap_or_default())
}

/// A store, and the place that it is rooted at.
pub type OpenedStore = (Arc<dyn ObjectStore>, Url);

/// Opens the folder at `location` without creating it: a path, `file://`, or a folder of a bucket (`s3://`, `gs://`,
/// `az://`). Returns a store rooted there and the location as an absolute URL that ends in a slash.
pub fn open_store(location: &str) -> Result<OpenedStore, ClientError> {
    if let Some(opened) = cloud::open(location)? {
        return Ok(opened);
    }
    let bad = |reason: &str| ClientError::BadUrl { location: redacted(location), reason: reason.to_owned() };
    let path = local_path(location).map_err(|reason| bad(&reason))?;
    if let Some(file) = path.ancestors().find(|ancestor| ancestor.exists()).filter(|found| !found.is_dir()) {
        return Err(bad(&format!("{} is a file; name a folder", file.display())));
    }
    let url = Url::from_directory_path(&path).map_err(|()| bad("cannot be written as a file:// URL"))?;
    Ok((Arc::new(DurableStore::new(path)), url))
}

/// The folder that a path or a `file://` URL names, by its one name; `None` for other URLs.
#[must_use]
pub fn local_folder(location: &str) -> Option<PathBuf> {
    local_path(location).ok()
}

fn local_path(location: &str) -> Result<PathBuf, String> {
    let path = match location.split_once("://") {
        None if location.is_empty() => return Err("is empty; name a folder".to_owned()),
        None => PathBuf::from(location),
        Some(("file", _)) => Url::parse(location)
            .ok()
            .and_then(|url| url.to_file_path().ok())
            .ok_or("is not a file URL on this machine; write file:///folder")?,
        Some((scheme, _)) => {
            return Err(format!("{scheme}:// is not supported; give a path, file://, s3://, gs:// or az://"));
        }
    };
    absolute(&path).map_err(|cause| format!("cannot be made absolute: {cause}"))
}

/// Absolute and without symbolic links as far as it exists, so that one archive has one name.
fn absolute(path: &Path) -> std::io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    for ancestor in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            return Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_and_its_file_url_open_the_same_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("not yet");
        let (_, by_path) = open_store(path.to_str().unwrap()).unwrap();
        let (_, by_url) = open_store(Url::from_file_path(&path).unwrap().as_str()).unwrap();
        assert_eq!(by_path, by_url);
        assert!(!path.exists());
    }

    #[test]
    fn another_scheme_or_a_file_is_refused_with_the_remedy() {
        let error = open_store("ftp://host/archive").unwrap_err().to_string();
        let expected = "ftp:// is not supported; give a path, file://, s3://, gs:// or az://";
        assert_eq!(error, format!("ftp://host/archive: {expected}"));
        let error = open_store("postgres://user:hunter2@host/db").unwrap_err().to_string();
        assert!(error.starts_with("postgres://user:***@host/db: "), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        for place in [file.path().to_path_buf(), file.path().join("below")] {
            let error = open_store(place.to_str().unwrap()).unwrap_err().to_string();
            assert!(error.ends_with("is a file; name a folder"), "{error}");
        }
    }
}
