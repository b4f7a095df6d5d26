//! One file that is wanted: its URL, what to call it, what is known of it, and what else the manifest says.
//!
//! Invariant: `Debug` and everything else that prints a URL shows neither query nor credentials.
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use thiserror::Error;
use url::Url;

use super::name::{decoded_segment, safe_name, stem};

/// Hexadecimal digits of a key: 96 bits, so that no two of a billion items meet.
const KEY_LEN: usize = 24;

/// What is wrong with one field of an item.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field}: {reason}")]
pub struct ItemFault {
    /// The field's name.
    pub field: String,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl ItemFault {
    fn new(field: &str, reason: impl Into<String>) -> Self {
        Self { field: field.to_owned(), reason: reason.into() }
    }
}

/// One file of a manifest.
///
/// ```
/// use pipeline::download::FileItem;
///
/// let item = FileItem::try_new("https://example.org/2024/app.log.gz?token=secret").unwrap();
/// assert_eq!(item.name, "app.log");
/// assert_eq!(item.shown_url(), "https://example.org/2024/app.log.gz");
/// ```
#[derive(Clone, PartialEq)]
pub struct FileItem {
    /// A text or a whole number; the URL's stem unless the manifest says otherwise.
    pub id: Value,
    /// For people, and for what is kept; the URL's stem unless the manifest says otherwise.
    pub name: String,
    /// Where it is. May hold secrets; print [`FileItem::shown_url`].
    pub url: Url,
    /// SHA-256 that the file must have.
    pub sha256: Option<[u8; 32]>,
    /// Length that the file must have.
    pub size: Option<u64>,
    /// Every other field of the manifest, and what stages add.
    pub fields: Map<String, Value>,
    named: bool,
}

impl fmt::Debug for FileItem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("FileItem")
            .field("id", &self.id)
            .field("name", &self.name)
            .field("url", &self.shown_url())
            .finish_non_exhaustive()
    }
}

impl FileItem {
    /// An item of which only the URL is known.
    pub fn try_new(url: &str) -> Result<Self, ItemFault> {
        let url = Url::parse(url.trim()).map_err(|cause| {
            ItemFault::new("url", format!("is no url ({cause}); write it in full, as https://host/path"))
        })?;
        if url.cannot_be_a_base() {
            return Err(ItemFault::new("url", "names no file; write it in full, as https://host/path"));
        }
        let stem = stem(&url);
        Ok(Self {
            id: Value::String(stem.clone()),
            name: stem,
            url,
            sha256: None,
            size: None,
            fields: Map::new(),
            named: false,
        })
    }

    /// An entry of a manifest.
    pub fn from_json(entry: Value) -> Result<Self, ItemFault> {
        let Value::Object(mut fields) = entry else {
            return Err(ItemFault::new("entry", "is no object; write {\"url\": \"https://host/path\"}"));
        };
        let mut item = match fields.remove("url") {
            Some(Value::String(url)) => Self::try_new(&url)?,
            Some(_) => return Err(ItemFault::new("url", "is no text")),
            None => return Err(ItemFault::new("url", "is missing")),
        };
        match fields.remove("id") {
            None | Some(Value::Null) => {}
            Some(Value::String(id)) if id.is_empty() => {
                return Err(ItemFault::new("id", "is empty; leave it out for the url's stem"));
            }
            Some(id @ Value::String(_)) => item.id = id,
            Some(Value::Number(id)) if id.is_i64() || id.is_u64() => item.id = Value::Number(id),
            Some(_) => return Err(ItemFault::new("id", "is neither a text nor a whole number")),
        }
        match fields.remove("name") {
            None | Some(Value::Null) => {}
            Some(Value::String(name)) if !name.is_empty() => {
                item.name = name;
                item.named = true;
            }
            Some(_) => return Err(ItemFault::new("name", "is no text, or an empty one")),
        }
        item.sha256 = match fields.remove("sha256") {
            None | Some(Value::Null) => None,
            Some(Value::String(hex)) => Some(parse_sha256(&hex)?),
            Some(_) => return Err(ItemFault::new("sha256", "is no text of 64 hexadecimal digits")),
        };
        item.size = match fields.remove("size") {
            None | Some(Value::Null) => None,
            Some(size) => Some(size.as_u64().ok_or_else(|| ItemFault::new("size", "is no number of bytes"))?),
        };
        item.fields = fields;
        Ok(item)
    }

    /// The entry as stages see it: without the URL's secrets.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut entry = self.fields.clone();
        entry.insert("id".to_owned(), self.id.clone());
        entry.insert("name".to_owned(), self.name.clone().into());
        entry.insert("url".to_owned(), self.shown_url().into());
        if let Some(sha256) = self.sha256_text() {
            entry.insert("sha256".to_owned(), sha256.into());
        }
        if let Some(size) = self.size {
            entry.insert("size".to_owned(), size.into());
        }
        Value::Object(entry)
    }

    /// The id as text.
    #[must_use]
    pub fn id_text(&self) -> String {
        match &self.id {
            Value::String(id) => id.clone(),
            id => id.to_string(),
        }
    }

    /// The hash that the file must have, in hexadecimal digits.
    #[must_use]
    pub fn sha256_text(&self) -> Option<String> {
        self.sha256.map(|sha256| hex(&sha256))
    }

    /// The URL without query and credentials.
    #[must_use]
    pub fn shown_url(&self) -> String {
        shown_url(&self.url)
    }

    /// What the item is called in caches and states: the same for the same id and URL. A signature in the URL, which
    /// is another one each time, does not count: `X-Amz-..`, `X-Goog-..`, Azure's beside `sig`, and `Expires`,
    /// `Signature` and `Policy` beside `Key-Pair-Id`, `AWSAccessKeyId` or `GoogleAccessId`. All else of the query does.
    #[must_use]
    pub fn key(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(self.id_text());
        hash.update([0]);
        hash.update(unsigned(&self.url));
        let mut key = hex(&hash.finalize());
        key.truncate(KEY_LEN);
        key
    }

    /// What the file is called once it is here: one name, of plain characters.
    #[must_use]
    pub fn file_name(&self) -> String {
        match self.named {
            true => safe_name(&self.name),
            false => safe_name(&decoded_segment(&self.url)),
        }
    }

    /// The name of its content in a ledger: the URL as it is shown, and the key where that alone may be another's.
    #[must_use]
    pub fn source_name(&self) -> String {
        match unsigned_query(&self.url).is_empty() {
            true => self.shown_url(),
            false => format!("{}#{}", self.shown_url(), self.key()),
        }
    }

    /// Host and port, which share a limit.
    #[must_use]
    pub fn host(&self) -> String {
        let host = self.url.host_str().unwrap_or_default();
        match self.url.port_or_known_default() {
            Some(port) => format!("{}://{host}:{port}", self.url.scheme()),
            None => format!("{}://{host}", self.url.scheme()),
        }
    }
}

/// A URL for people: without query, fragment and credentials.
#[must_use]
pub fn shown_url(url: &Url) -> String {
    let mut shown = url.clone();
    shown.set_query(None);
    shown.set_fragment(None);
    // only URLs that can hold no credentials refuse
    let _refused = shown.set_username("").and_then(|()| shown.set_password(None));
    shown.into()
}

/// The URL's text without a signature.
fn unsigned(url: &Url) -> String {
    format!("{}?{}", shown_url(url), unsigned_query(url))
}

/// Parts of a query that a signature brings with it, beside one of those that tell whose it is.
const SIGNATURES: &[(&[&str], &[&str])] = &[
    (&["sig"], &["sv", "se", "sp", "st", "sr", "spr", "sig", "ske", "skoid", "sks", "skt", "sktid", "skv"]),
    // CloudFront, the older ones of S3 and of Google
    (
        &["key-pair-id", "awsaccesskeyid", "googleaccessid"],
        &["key-pair-id", "awsaccesskeyid", "googleaccessid", "expires", "signature", "policy"],
    ),
];

fn unsigned_query(url: &Url) -> String {
    let has =
        |names: &[&str]| url.query_pairs().any(|(key, _)| names.contains(&key.to_ascii_lowercase().as_str()));
    let parts: Vec<&str> = SIGNATURES
        .iter()
        .filter(|(whose, _)| has(whose))
        .flat_map(|(_, parts)| parts.iter().copied())
        .collect();
    let kept = url.query_pairs().filter(|(key, _)| {
        let key = key.to_ascii_lowercase();
        !(key.starts_with("x-amz-") || key.starts_with("x-goog-") || parts.contains(&key.as_str()))
    });
    let kept: Vec<String> = kept.map(|(key, value)| format!("{key}={value}")).collect();
    kept.join("&")
}

fn parse_sha256(text: &str) -> Result<[u8; 32], ItemFault> {
    let fault = || ItemFault::new("sha256", "is not 64 hexadecimal digits");
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(fault());
    }
    let mut sha256 = [0; 32];
    for (byte, digits) in sha256.iter_mut().zip(text.as_bytes().chunks(2)) {
        let digits = std::str::from_utf8(digits).map_err(|_| fault())?;
        *byte = u8::from_str_radix(digits, 16).map_err(|_| fault())?;
    }
    Ok(sha256)
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The longest time that a header of seconds or a date stands for from now on.
pub(super) fn parse_retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let time = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
    let wait = (time.to_utc() - chrono::Utc::now()).to_std().unwrap_or(Duration::ZERO);
    // fractions of a second are our clock's, not the server's
    Some(Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_manifest_leaves_out_comes_from_the_url_and_the_rest_is_kept() {
        let entry = json!({"url": "http://h/a/b%20c.log.gz?x=1", "size": 3, "team": "blue"});
        let item = FileItem::from_json(entry).unwrap();
        assert_eq!((item.id_text().as_str(), item.name.as_str()), ("b c.log", "b c.log"));
        assert_eq!(item.file_name(), "b_c.log.gz");
        assert_eq!(item.fields["team"], "blue");
        assert_eq!(item.size, Some(3));
        let item = FileItem::from_json(json!({"url": "http://h/", "id": 7, "name": "../../x"})).unwrap();
        assert_eq!((item.id_text().as_str(), item.file_name().as_str()), ("7", "x"));
    }

    #[test]
    fn a_bad_field_is_named() {
        for (entry, field) in [
            (json!("text"), "entry"),
            (json!({"id": 1}), "url"),
            (json!({"url": "no url"}), "url"),
            (json!({"url": "mailto:me"}), "url"),
            (json!({"url": "http://h/a", "id": 1.5}), "id"),
            (json!({"url": "http://h/a", "name": ""}), "name"),
            (json!({"url": "http://h/a", "sha256": "12"}), "sha256"),
            (json!({"url": "http://h/a", "size": -1}), "size"),
        ] {
            assert_eq!(FileItem::from_json(entry).unwrap_err().field, field);
        }
    }

    #[test]
    fn a_signature_is_no_part_of_the_key_but_another_query_is() {
        let key = |url: &str| FileItem::try_new(url).unwrap().key();
        let signed = |signature| key(&format!("https://b/a.log?X-Amz-Signature={signature}&part=1"));
        assert_eq!(signed("1"), signed("2"));
        assert_ne!(key("https://b/a.log?part=1"), key("https://b/a.log?part=2"));
        for whose in ["Key-Pair-Id=k&Policy=p1", "AWSAccessKeyId=k", "GoogleAccessId=k"] {
            let signed =
                |end: u8| key(&format!("https://b/a.log?part=1&{whose}&Expires={end}&Signature=s{end}"));
            assert_eq!(signed(1), signed(2), "{whose}");
            assert_eq!(signed(1), key("https://b/a.log?part=1"), "{whose}");
        }
        assert_ne!(key("https://b/a.log?Expires=1&Policy=a"), key("https://b/a.log?Expires=2&Policy=b"));
        let item = FileItem::try_new("https://me:hunter2@b/a.log?token=hunter2").unwrap();
        assert!(!format!("{item:?} {} {}", item.to_json(), item.source_name()).contains("hunter2"));
    }
}
