//! One request for a file, or the rest of one: over HTTP, out of object storage, or from a local file.
//!
//! All three answer alike: where the bytes begin, what tells the content from another, and the bytes.
use std::error::Error as StdError;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::{GetOptions, GetRange, path::Path as ObjectPath};
use reqwest::header::{self, HeaderMap, HeaderName};
use reqwest::{Client, Response, StatusCode, redirect};
use tokio::sync::mpsc;
use url::Url;

use super::address::{PublicResolver, Refused, check_literal};
use super::cache::Validators;
use super::item::parse_retry_after;
use super::{DownloadError, DownloadOptions};
use crate::client;

/// Bytes of a local file that are read at once.
const BLOCK_BYTES: usize = 256 << 10;

/// An answer, of which the bytes are still to come.
pub(super) struct Opened {
    /// The first byte's place in the file.
    pub(super) offset: u64,
    pub(super) validators: Validators,
    pub(super) modified: Option<SystemTime>,
    pub(super) bytes: BoxStream<'static, Result<Bytes, DownloadError>>,
}

/// What can be asked of a server.
pub(super) enum Answer {
    /// Bytes are coming.
    Opened(Opened),
    /// The content is that of the validators that were sent.
    Unchanged,
    /// The rest that was asked for is not there: the content is another.
    NoSuchRange,
}

/// What to ask for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wanted<'a> {
    /// All of it.
    All,
    /// What follows so many bytes, if the content is still the same.
    Rest(u64, &'a Validators),
    /// All of it, if the content is another one.
    Changed(&'a Validators),
}

/// Asks.
#[derive(Debug)]
pub(super) struct Remote {
    http: Client,
    schemes: Vec<String>,
    allow_private: bool,
    max_redirects: usize,
    idle_timeout: Duration,
}

impl Remote {
    pub(super) fn try_new(options: &DownloadOptions) -> Result<Self, DownloadError> {
        client::use_ring();
        let mut builder = Client::builder()
            .user_agent(concat!("pipeline/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(options.connect_timeout)
            .read_timeout(options.idle_timeout)
            .pool_max_idle_per_host(options.per_host)
            .tcp_nodelay(true)
            // each step is checked here
            .redirect(redirect::Policy::none());
        if !options.allow_private {
            // a proxy would resolve names itself
            builder = builder.dns_resolver(Arc::new(PublicResolver)).no_proxy();
        }
        let http = builder.build().map_err(|error| DownloadError::Connect(words(&error.without_url())))?;
        Ok(Self {
            http,
            schemes: options.schemes.clone(),
            allow_private: options.allow_private,
            max_redirects: options.max_redirects,
            idle_timeout: options.idle_timeout,
        })
    }

    pub(super) async fn ask(&self, url: &Url, wanted: Wanted<'_>) -> Result<Answer, DownloadError> {
        if !self.schemes.iter().any(|scheme| scheme == url.scheme()) {
            return Err(DownloadError::Scheme { scheme: url.scheme().to_owned() });
        }
        match url.scheme() {
            "http" | "https" => self.ask_http(url, wanted).await,
            "file" => open_file(url, wanted).await,
            _ => self.open_object(url, wanted).await,
        }
    }

    async fn ask_http(&self, url: &Url, wanted: Wanted<'_>) -> Result<Answer, DownloadError> {
        let mut url = url.clone();
        for _ in 0..=self.max_redirects {
            if !self.allow_private {
                check_literal(&url)?;
            }
            let mut request = self.http.get(url.clone()).header(header::ACCEPT_ENCODING, "identity");
            match wanted {
                Wanted::All => {}
                Wanted::Rest(offset, validators) => {
                    request = request.header(header::RANGE, format!("bytes={offset}-"));
                    if let Some(validator) = validators.if_range() {
                        request = request.header(header::IF_RANGE, validator);
                    }
                }
                Wanted::Changed(validators) => {
                    if let Some(etag) = &validators.etag {
                        request = request.header(header::IF_NONE_MATCH, etag);
                    } else if let Some(time) = &validators.last_modified {
                        request = request.header(header::IF_MODIFIED_SINCE, time);
                    }
                }
            }
            // the answer's head has no limit of its own in the client
            let answer = tokio::time::timeout(self.idle_timeout, request.send()).await;
            let silent = || DownloadError::Connect(format!("no answer for {:?}", self.idle_timeout));
            let response = answer.map_err(|_| silent())?.map_err(connect_error)?;
            match response.status() {
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => url = redirected(&url, &response)?,
                _ => return answered(response, wanted),
            }
        }
        Err(DownloadError::Redirects { limit: self.max_redirects })
    }

    async fn open_object(&self, url: &Url, wanted: Wanted<'_>) -> Result<Answer, DownloadError> {
        let failed = |reason: String, is_retriable| DownloadError::Source { reason, is_retriable };
        let mut bucket = url.clone();
        bucket.set_path("/");
        bucket.set_query(None);
        bucket.set_fragment(None);
        let (store, _) =
            client::open_store(bucket.as_str()).map_err(|error| failed(error.to_string(), false))?;
        let path = ObjectPath::from_url_path(url.path()).map_err(|error| failed(error.to_string(), false))?;
        let mut options = GetOptions::default();
        match wanted {
            Wanted::All => {}
            Wanted::Rest(offset, validators) => {
                options.range = Some(GetRange::Offset(offset));
                options.if_match.clone_from(&validators.etag);
            }
            Wanted::Changed(validators) => options.if_none_match.clone_from(&validators.etag),
        }
        let got = match store.get_opts(&path, options).await {
            Ok(got) => got,
            Err(object_store::Error::NotModified { .. }) => return Ok(Answer::Unchanged),
            Err(object_store::Error::Precondition { .. }) => return Ok(Answer::NoSuchRange),
            Err(error) => return Err(storage_error(error)),
        };
        let validators = Validators {
            etag: got.meta.e_tag.clone(),
            last_modified: Some(got.meta.last_modified.to_rfc2822()),
            total: Some(got.meta.size),
        };
        let (offset, modified) = (got.range.start, SystemTime::from(got.meta.last_modified));
        let bytes = got.into_stream().map_err(storage_error).boxed();
        Ok(Answer::Opened(Opened { offset, validators, modified: Some(modified), bytes }))
    }
}

fn storage_error(error: object_store::Error) -> DownloadError {
    let is_missing = matches!(error, object_store::Error::NotFound { .. });
    let fault = client::StorageFault::of(&error);
    let is_retriable = fault.is_some_and(client::StorageFault::is_passing)
        || (fault.is_none() && matches!(error, object_store::Error::Generic { .. }));
    let said = match (fault, is_missing) {
        (Some(fault), _) => fault.remedy().to_owned(),
        (None, true) => "there is no such object; check the url".to_owned(),
        (None, false) => client::condensed(error).to_string(),
    };
    DownloadError::Source { reason: said, is_retriable }
}

/// Where a redirect leads, if that may be followed.
fn redirected(from: &Url, response: &Response) -> Result<Url, DownloadError> {
    let refused = |reason: &str| DownloadError::Redirect { reason: reason.to_owned() };
    let location = text(response.headers(), &header::LOCATION).ok_or_else(|| refused("nowhere"))?;
    let to = from.join(&location).map_err(|_| refused("what is no url"))?;
    match (from.scheme(), to.scheme()) {
        ("https", "http") => Err(refused("an unencrypted url, which is not followed from an encrypted one")),
        (_, "http" | "https") => Ok(to),
        (_, scheme) => Err(refused(&format!("{scheme}://, which is not followed"))),
    }
}

/// What the final answer says.
fn answered(response: Response, wanted: Wanted<'_>) -> Result<Answer, DownloadError> {
    let headers = response.headers();
    let mut validators = Validators {
        etag: text(headers, &header::ETAG),
        last_modified: text(headers, &header::LAST_MODIFIED),
        total: None,
    };
    let offset = match (response.status(), wanted) {
        (StatusCode::OK, _) => {
            validators.total = text(headers, &header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
            0
        }
        (StatusCode::PARTIAL_CONTENT, Wanted::Rest(asked, known)) => {
            let range = text(headers, &header::CONTENT_RANGE).unwrap_or_default();
            // who does not say which part it is may still give all of it
            let Some((first, total)) = content_range(&range) else { return Ok(Answer::NoSuchRange) };
            let is_same = known.total.is_none() || total.is_none() || known.total == total;
            if first != asked || !is_same || validators.is_other_than(known) {
                return Ok(Answer::NoSuchRange);
            }
            validators = Validators { total: total.or(known.total), ..known.clone() };
            first
        }
        (StatusCode::RANGE_NOT_SATISFIABLE, Wanted::Rest(asked, known)) => {
            let length = text(headers, &header::CONTENT_RANGE);
            let length = length.and_then(|range| range.strip_prefix("bytes */")?.trim().parse().ok());
            return match (length, known.total) {
                // asking for all of it again would end the same
                (Some(actual), Some(announced)) if actual == asked && actual < announced => {
                    Err(DownloadError::Length { announced, actual })
                }
                _ => Ok(Answer::NoSuchRange),
            };
        }
        (StatusCode::NOT_MODIFIED, Wanted::Changed(_)) => return Ok(Answer::Unchanged),
        (StatusCode::PARTIAL_CONTENT | StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED, _) => {
            return Err(DownloadError::Answer(format!("{} was not asked for", response.status().as_u16())));
        }
        (status, _) if status.is_success() => {
            return Err(DownloadError::Answer(format!("{} holds no file", status.as_u16())));
        }
        (status, _) => {
            let retry_after = text(headers, &header::RETRY_AFTER);
            return Err(DownloadError::Status {
                status: status.as_u16(),
                retry_after: retry_after.and_then(|text| parse_retry_after(&text)),
            });
        }
    };
    let modified = validators.last_modified.as_deref().and_then(http_time);
    let bytes = response.bytes_stream().map_err(|error| DownloadError::Cut {
        received: 0,
        expected: None,
        reason: words(&error.without_url()),
    });
    Ok(Answer::Opened(Opened { offset, validators, modified, bytes: bytes.boxed() }))
}

fn text(headers: &HeaderMap, name: &HeaderName) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}

fn http_time(text: &str) -> Option<SystemTime> {
    let time = chrono::DateTime::parse_from_rfc2822(text).ok()?;
    Some(SystemTime::from(time.to_utc()))
}

/// `bytes 5-9/10` -> (5, 10); the length may be unknown.
fn content_range(text: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    (first <= last && total.is_none_or(|total| last < total)).then_some((first, total))
}

fn connect_error(error: reqwest::Error) -> DownloadError {
    let error = error.without_url();
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(refused) = current.downcast_ref::<Refused>() {
            return DownloadError::PrivateAddress { host: refused.host.clone(), address: refused.address };
        }
        if let Some(rustls::Error::InvalidCertificate(reason)) = tls_error(current) {
            return DownloadError::Certificate(reason.to_string());
        }
        cause = current.source();
    }
    DownloadError::Connect(words(&error))
}

fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut innermost = error;
    // what an io error holds is not its source, and the connector puts one into another
    while let Some(held) = innermost.downcast_ref::<io::Error>().and_then(|error| error.get_ref()) {
        innermost = held;
    }
    innermost.downcast_ref()
}

/// What an error comes down to: its innermost cause, which is the only one that differs.
fn words(error: &reqwest::Error) -> String {
    let mut innermost: &(dyn StdError + 'static) = error;
    while let Some(cause) = innermost.source() {
        innermost = cause;
    }
    innermost.to_string().trim_end_matches('.').to_owned()
}

/// A regular file of this machine.
async fn open_file(url: &Url, wanted: Wanted<'_>) -> Result<Answer, DownloadError> {
    let failed = |reason: String| DownloadError::Source { reason, is_retriable: false };
    let path = url.to_file_path().map_err(|()| failed("it is not a file of this machine".to_owned()))?;
    let offset = match wanted {
        Wanted::Rest(offset, _) => offset,
        Wanted::All | Wanted::Changed(_) => 0,
    };
    let opened = tokio::task::spawn_blocking(move || -> io::Result<_> {
        // opening a pipe would wait for its writer
        if !std::fs::metadata(&path)?.is_file() {
            return Err(io::Error::other("it is no regular file"));
        }
        let mut file = File::open(&path)?;
        let metadata = file.metadata()?;
        file.seek(SeekFrom::Start(offset))?;
        Ok((file, metadata.len(), metadata.modified()?))
    });
    let (mut file, total, modified) = match opened.await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) => return Err(failed(error.to_string())),
        Err(error) => return Err(failed(error.to_string())),
    };
    let since_epoch = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let etag = Some(format!("\"{}-{total}\"", since_epoch.as_nanos()));
    let validators = Validators { etag, last_modified: None, total: Some(total) };
    match wanted {
        Wanted::Rest(_, known) if *known != validators => return Ok(Answer::NoSuchRange),
        Wanted::Changed(known) if *known == validators => return Ok(Answer::Unchanged),
        _ => {}
    }
    let (sender, receiver) = mpsc::channel(4);
    tokio::task::spawn_blocking(move || {
        let mut left = total - offset.min(total);
        while left > 0 {
            let mut block = vec![0; BLOCK_BYTES.min(usize::try_from(left).unwrap_or(BLOCK_BYTES))];
            let read = match file.read(&mut block) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) => {
                    let error = DownloadError::Source { reason: error.to_string(), is_retriable: true };
                    return drop(sender.blocking_send(Err(error)));
                }
            };
            block.truncate(read);
            left -= read as u64;
            if sender.blocking_send(Ok(Bytes::from(block))).is_err() {
                return;
            }
        }
    });
    let bytes = futures_util::stream::unfold(receiver, async |mut receiver| {
        receiver.recv().await.map(|block| (block, receiver))
    });
    Ok(Answer::Opened(Opened { offset, validators, modified: Some(modified), bytes: bytes.boxed() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_part_is_read_and_nonsense_is_not() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for nonsense in ["", "bytes */10", "5-9/10", "bytes 9-5/10", "bytes 5-10/10", "bytes -1-5/10"] {
            assert_eq!(content_range(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_refused_certificate_is_seen_however_deep_it_lies() {
        let refused = || rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
        let held = io::Error::new(io::ErrorKind::InvalidData, refused());
        assert!(tls_error(&refused()).is_some());
        assert!(tls_error(&io::Error::other(held)).is_some());
        assert!(tls_error(&io::Error::other("reset")).is_none());
    }

    #[test]
    fn only_a_strong_validator_serves_a_range() {
        let of = |etag: Option<&str>, time: Option<&str>| Validators {
            etag: etag.map(str::to_owned),
            last_modified: time.map(str::to_owned),
            total: None,
        };
        assert_eq!(of(Some("\"a\""), Some("t")).if_range(), Some("\"a\""));
        assert_eq!(of(Some("W/\"a\""), Some("t")).if_range(), Some("t"));
        assert_eq!(of(Some("W/\"a\""), None).if_range(), None);
    }
}
