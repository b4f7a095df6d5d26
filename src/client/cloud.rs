//! Object storage of a cloud: opened by the variables that the cloud's own tools read, and what it says in a line.
//!
//! Requests are tried again while that can help (a cut connection, 5xx, 429), with growing pauses, for
//! [`RETRY_TIMEOUT`] at most. Invariant: what is printed of an answer is its status, code and message; credentials are
//! in neither. Deliberately absent: profiles of `~/.aws`, which `object_store` does not read.
use std::error::Error as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, Error, ObjectStore, RetryConfig};
use url::Url;

use super::{ClientError, OpenedStore, redacted};

/// Tries of one request, unless `AWS_MAX_ATTEMPTS` says otherwise.
const MAX_ATTEMPTS: usize = 10;
/// No try starts later than this after the first.
const RETRY_TIMEOUT: Duration = Duration::from_secs(90);
/// Where a machine of AWS asks for its role.
const INSTANCE_ROLES: ([u8; 4], u16) = ([169, 254, 169, 254], 80);
const INSTANCE_ROLES_TIMEOUT: Duration = Duration::from_secs(1);

/// Opens `s3://`, `gs://` or `az://`; `None` where the location is of none of them. Nothing is asked of the storage yet.
pub(super) fn open(location: &str) -> Result<Option<OpenedStore>, ClientError> {
    let bad = |reason: &str| ClientError::BadUrl { location: redacted(location), reason: reason.to_owned() };
    let Some((scheme @ ("s3" | "gs" | "az"), _)) = location.split_once("://") else { return Ok(None) };
    let url = Url::parse(location).map_err(|cause| bad(&format!("is no URL: {cause}")))?;
    if url.host_str().is_none_or(str::is_empty) {
        return Err(bad(&format!("names no bucket; write {scheme}://bucket/folder")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("credentials in a URL are seen by others; put them into the environment"));
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(bad("a name with ? or # is not supported; name another folder"));
    }
    let folder = Path::from_url_path(url.path()).map_err(|cause| bad(&cause.to_string()))?;
    let bucket = format!("{scheme}://{}", url.host_str().unwrap_or_default());
    let store: Arc<dyn ObjectStore> = match scheme {
        "s3" => s3(&bucket, folder, &bad)?,
        "gs" => {
            let builder = GoogleCloudStorageBuilder::from_env().with_url(&bucket).with_retry(retries(None));
            let built = builder.build();
            Arc::new(PrefixStore::new(built.map_err(|cause| bad(&refusal(&cause, "GOOGLE_")))?, folder))
        }
        _ => {
            let builder = MicrosoftAzureBuilder::from_env().with_url(&bucket).with_retry(retries(None));
            let built = builder.build();
            Arc::new(PrefixStore::new(built.map_err(|cause| bad(&refusal(&cause, "AZURE_")))?, folder))
        }
    };
    let mut url = url;
    url.set_path(&format!("{}/", url.path().trim_end_matches('/')));
    Ok(Some((store, url)))
}

fn s3(
    bucket: &str,
    folder: Path,
    bad: &dyn Fn(&str) -> ClientError,
) -> Result<Arc<dyn ObjectStore>, ClientError> {
    let attempts = match std::env::var("AWS_MAX_ATTEMPTS") {
        Ok(text) => match text.parse() {
            Ok(attempts @ 1..) => Some(attempts),
            _ => return Err(bad("AWS_MAX_ATTEMPTS is not a number from 1 on; correct it or unset it")),
        },
        Err(_) => None,
    };
    let builder = AmazonS3Builder::from_env().with_url(bucket).with_retry(retries(attempts));
    let setting = |key: AmazonS3ConfigKey| builder.get_config_value(&key);
    let endpoint = setting(AmazonS3ConfigKey::S3Endpoint).or(setting(AmazonS3ConfigKey::Endpoint));
    let allows_http = setting(AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp));
    if endpoint.is_some_and(|url| url.starts_with("http://")) && allows_http.as_deref() != Some("true") {
        return Err(bad("AWS_ENDPOINT_URL is not encrypted; set AWS_ALLOW_HTTP=true if that is meant"));
    }
    let is_public = setting(AmazonS3ConfigKey::SkipSignature).as_deref() == Some("true");
    if !is_public && !has_credentials() {
        return Err(bad(
            "no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run where a role gives them",
        ));
    }
    let built = builder.build().map_err(|cause| bad(&refusal(&cause, "AWS_")))?;
    Ok(Arc::new(PrefixStore::new(built, folder)))
}

fn retries(attempts: Option<usize>) -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(10),
        base: 2.0,
    };
    let max_retries = attempts.unwrap_or(MAX_ATTEMPTS) - 1;
    RetryConfig { backoff, max_retries, retry_timeout: RETRY_TIMEOUT }
}

/// Whether there is anything to sign requests with. Without this look, a machine outside of AWS would wait for the
/// service that gives roles until all retries are used up.
fn has_credentials() -> bool {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let of_environment = [
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_METADATA_ENDPOINT",
    ];
    let may_ask = std::env::var("AWS_EC2_METADATA_DISABLED").map_or(true, |text| text != "true");
    let roles = SocketAddr::from(INSTANCE_ROLES);
    of_environment.into_iter().any(is_set)
        || may_ask && TcpStream::connect_timeout(&roles, INSTANCE_ROLES_TIMEOUT).is_ok()
}

fn refusal(cause: &Error, variables: &str) -> String {
    let said = cause.source().map_or_else(|| cause.to_string(), ToString::to_string);
    format!("{}; check the variables {variables}*", said.trim_end_matches('.'))
}

/// What is wrong with storage, as far as it decides what to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StorageFault {
    /// The bucket or container is not there.
    NoBucket,
    /// It knows the caller not, or does not let it.
    Denied,
    /// It gives no answer.
    Unreachable,
    /// It answers that it cannot just now.
    Busy,
}

impl StorageFault {
    /// Of an error of a cloud; `None` for any other error.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        let said = said(error)?;
        let has = |word: &str| said.contains(word);
        let starts_with = |statuses: &[&str]| statuses.iter().any(|status| said.starts_with(status));
        Some(match () {
            () if has("NoSuchBucket") || has("ContainerNotFound") || has("bucket does not exist") => {
                Self::NoBucket
            }
            () if starts_with(&["401", "403"]) => Self::Denied,
            () if has(NO_ANSWER) => Self::Unreachable,
            () if starts_with(&["429", "500", "502", "503", "504"]) => Self::Busy,
            () => return None,
        })
    }

    /// The same of an error that another process told, which is text: the remedy in it tells.
    #[must_use]
    pub fn told(text: &str) -> Option<Self> {
        let all = [Self::NoBucket, Self::Denied, Self::Unreachable, Self::Busy];
        all.into_iter().find(|fault| text.contains(fault.remedy()))
    }

    /// Whether the same may succeed later without anybody changing a setting.
    #[must_use]
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Unreachable | Self::Busy)
    }

    /// What to do about it.
    #[must_use]
    pub fn remedy(self) -> &'static str {
        match self {
            Self::NoBucket => "there is no such bucket; create it, or name another",
            Self::Denied => {
                "access is denied; check the credentials in the environment, and what they allow in this bucket"
            }
            Self::Unreachable => {
                "storage does not answer; check the network and the endpoint (AWS_ENDPOINT_URL), and run again"
            }
            Self::Busy => "storage is overloaded or failing; run again later",
        }
    }
}

const NO_ANSWER: &str = "no answer: ";
/// How the answers that were condensed already begin.
const CONDENSED: &str = "storage said: ";

/// `error` with what a cloud answered in a few words: its own text holds whole documents.
#[must_use]
pub fn condensed(error: Error) -> Error {
    let Some(said) = said(&error) else { return error };
    let source = format!("{CONDENSED}{said}").into();
    match error {
        Error::Generic { store, .. } => Error::Generic { store, source },
        Error::NotFound { path, .. } => Error::NotFound { path, source },
        Error::AlreadyExists { path, .. } => Error::AlreadyExists { path, source },
        Error::Precondition { path, .. } => Error::Precondition { path, source },
        Error::PermissionDenied { path, .. } => Error::PermissionDenied { path, source },
        Error::Unauthenticated { path, .. } => Error::Unauthenticated { path, source },
        other => other,
    }
}

/// What a cloud answered: `503 Service Unavailable, SlowDown, after 9 retries`.
fn said(error: &Error) -> Option<String> {
    let text = error.to_string();
    if let Some((_, said)) = text.split_once(CONDENSED) {
        return Some(said.to_owned());
    }
    if !text.contains("Error performing ") {
        return None;
    }
    let between = |start: &str, end: &str| {
        let rest = text.split_once(start)?.1;
        rest.split_once(end).map(|(found, _)| found.trim().to_owned())
    };
    let retries = between(", after ", " retries").filter(|number| number != "0");
    let retries = retries.map(|number| format!(", after {number} retries")).unwrap_or_default();
    let Some(status) = between("status code: ", ":") else {
        let mut cause = error.source();
        let mut deepest = String::new();
        while let Some(inner) = cause {
            deepest = inner.to_string();
            cause = inner.source();
        }
        return Some(format!("{NO_ANSWER}{deepest}{retries}"));
    };
    let details = [between("<Code>", "</Code>"), between("<Message>", "</Message>")];
    let details: String = details.iter().flatten().map(|detail| format!(", {detail}")).collect();
    Some(format!("{status}{details}{retries}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &'static str) -> Error {
        Error::Generic { store: "S3", source: text.into() }
    }

    #[test]
    fn answers_of_a_cloud_become_a_few_words_and_a_remedy() {
        let busy = "Error performing PUT http://127.0.0.1:1/b/k in 2s, after 9 retries, max_retries: 9, \
                    retry_timeout: 90s  - Server returned non-2xx status code: 503 Service Unavailable: \
                    <?xml version=\"1.0\"?><Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>";
        let error = condensed(generic(busy));
        let expected = "503 Service Unavailable, SlowDown, Reduce your rate, after 9 retries";
        assert_eq!(said(&error).unwrap(), expected);
        assert_eq!(StorageFault::of(&error), Some(StorageFault::Busy));
        assert_eq!(StorageFault::of(&generic(busy)), Some(StorageFault::Busy));
        let missing = "Error performing GET http://h/b in 2s - Server returned non-2xx status code: 404 Not Found: \
                       <Error><Code>NoSuchBucket</Code></Error>";
        let error = condensed(Error::NotFound { path: "b".into(), source: missing.into() });
        assert_eq!(StorageFault::of(&error), Some(StorageFault::NoBucket));
        let silent =
            condensed(generic("Error performing GET http://h/b in 2s - HTTP error: error sending request"));
        assert_eq!(StorageFault::of(&silent), Some(StorageFault::Unreachable));
    }

    #[test]
    fn errors_of_a_folder_stay_as_they_are() {
        let error = Error::NotFound { path: "a".into(), source: std::io::Error::from_raw_os_error(2).into() };
        let text = error.to_string();
        assert_eq!(StorageFault::of(&error), None);
        assert_eq!(condensed(error).to_string(), text);
    }

    #[test]
    fn a_location_that_cannot_be_a_bucket_is_refused_without_its_password() {
        for (location, part) in [
            ("s3:///folder", "names no bucket"),
            ("s3://key:word@bucket/folder", "put them into the environment"),
            ("s3://bucket/a?b", "a name with ? or #"),
        ] {
            let error = open(location).unwrap_err().to_string();
            assert!(error.contains(part) && !error.contains("word"), "{error}");
        }
        assert!(open("/a/path").unwrap().is_none());
    }
}
