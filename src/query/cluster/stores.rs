//! What a worker may read: the archives and raw logs that its own `--from` names, and nothing else.
//!
//! A plan names an archive by its URL; a worker opens it with credentials of its own, so that a coordinator sends none.
//! There is no store for `file://` or any other place, so a plan that names one cannot be decoded.
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::execution::object_store::{ObjectStoreRegistry, ObjectStoreUrl};
use object_store::ObjectStore;
use thiserror::Error;
use url::{Url, form_urlencoded};

use crate::client::{is_postgres, open_store, redacted};
use crate::query::QueryError;
use crate::query::counted::CountedStore;
use crate::query::error::external;
use crate::query::report::Counter;

const SCHEME: &str = "archive";
/// Not among what stays as it is in a part of a URL.
const SEPARATOR: char = '~';
/// How a refusal begins, by which it is known again.
pub(super) const NOT_READ: &str = "it does not read ";

/// A place that the worker was not started for.
#[derive(Debug, Error)]
#[error("{NOT_READ}{location}; start it with --from {location}")]
struct NotRead {
    location: String,
}

/// What the store of an archive's table is called in a plan, in every process the same.
pub(in crate::query) fn store_url(archive: &Url, table: &str) -> Result<ObjectStoreUrl> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let (table, archive) = (encoded(table), encoded(archive.as_str()));
    ObjectStoreUrl::parse(format!("{SCHEME}://{table}{SEPARATOR}{archive}"))
}

/// The archive that [`store_url`] was made of.
fn archive_of(url: &Url) -> Option<String> {
    let (_, archive) = url.host_str().filter(|_| url.scheme() == SCHEME)?.split_once(SEPARATOR)?;
    form_urlencoded::parse(archive.as_bytes()).next().map(|(archive, _)| archive.into_owned())
}

/// Places that a worker reads.
#[derive(Debug, Default)]
pub(in crate::query) struct Reads {
    /// By URL.
    archives: BTreeMap<String, Arc<dyn ObjectStore>>,
    /// Paths and URLs of raw logs: a file, a folder with all below it, or a glob.
    raw: Vec<String>,
}

impl Reads {
    /// The places of `--from`. Nothing is asked of them yet.
    pub(super) fn try_new(from: &[String]) -> Result<Self, QueryError> {
        let mut reads = Self::default();
        for location in from {
            if let Some(path) = location.strip_prefix("raw:") {
                reads.raw.push(match path.contains("://") && !path.starts_with("file://") {
                    true => path.to_owned(),
                    false => real(path.trim_start_matches("file://")),
                });
            } else if is_postgres(location) {
                let reason = "a worker reads archives and raw logs; leave it away".to_owned();
                return Err(QueryError::Cluster(format!("{}: {reason}", redacted(location))));
            } else {
                let (store, url) = open_store(location)?;
                let counted = CountedStore::new(store, &redacted(location), Arc::<Counter>::default());
                reads.archives.insert(url.to_string(), Arc::new(counted));
            }
        }
        Ok(reads)
    }

    /// Whether a raw file or object may be read. Returns its path without links.
    pub(in crate::query) fn check_file(&self, path: &Path) -> Result<PathBuf> {
        let real = path.canonicalize().map_err(external)?;
        match real.to_str().is_some_and(|path| self.has_raw(path)) {
            true => Ok(real),
            false => Err(external(NotRead { location: format!("raw:{}", path.display()) })),
        }
    }

    /// Whether an object may be read.
    pub(in crate::query) fn check_object(&self, location: &str) -> Result<()> {
        match self.has_raw(location) {
            true => Ok(()),
            false => Err(external(NotRead { location: format!("raw:{}", redacted(location)) })),
        }
    }

    fn has_raw(&self, path: &str) -> bool {
        let options = glob::MatchOptions { require_literal_separator: true, ..Default::default() };
        self.raw.iter().any(|place| match glob::Pattern::new(place) {
            Ok(pattern) if place.contains(['*', '?', '[']) => pattern.matches_with(path, options),
            _ => {
                let below = path.strip_prefix(place.trim_end_matches('/'));
                below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
            }
        })
    }
}

/// The path, absolute and without links up to where a glob begins.
fn real(path: &str) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from(path));
    let is_glob = |part: &Component<'_>| part.as_os_str().to_string_lossy().contains(['*', '?', '[']);
    let parts: Vec<Component<'_>> = absolute.components().collect();
    let fixed = parts.iter().position(is_glob).unwrap_or(parts.len());
    let root: PathBuf = parts[..fixed].iter().collect();
    let rest: PathBuf = parts[fixed..].iter().collect();
    let root = root.canonicalize().unwrap_or(root);
    let path = if fixed == parts.len() { root } else { root.join(rest) };
    path.to_string_lossy().into_owned()
}

impl ObjectStoreRegistry for Reads {
    fn register_store(&self, _: &Url, _: Arc<dyn ObjectStore>) -> Option<Arc<dyn ObjectStore>> {
        // what a worker reads is settled when it starts
        None
    }

    fn get_store(&self, url: &Url) -> Result<Arc<dyn ObjectStore>> {
        let Some(archive) = archive_of(url) else {
            return internal_err!("{url} is no archive");
        };
        match self.archives.get(&archive) {
            Some(store) => Ok(Arc::clone(store)),
            None => Err(external(NotRead { location: redacted(&archive) })),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_found_by_the_url_of_its_archive_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("the archive~1");
        let (_, url) = open_store(place.to_str().unwrap()).unwrap();
        let reads = Reads::try_new(&[place.to_str().unwrap().to_owned()]).unwrap();
        for table in ["firewall", "chunks"] {
            reads.get_store(store_url(&url, table).unwrap().as_ref()).unwrap();
        }
        let other = Url::parse("s3://logs/archive/").unwrap();
        let error = reads.get_store(store_url(&other, "dns").unwrap().as_ref()).unwrap_err().to_string();
        assert!(error.contains("--from s3://logs/archive/"), "{error}");
        for url in ["file:///", "http://host/", "archive://x/"] {
            assert!(reads.get_store(&Url::parse(url).unwrap()).is_err(), "{url}");
        }
        assert!(Reads::try_new(&["postgres://host/db".to_owned()]).is_err());
    }

    #[test]
    fn raw_files_are_read_below_the_places_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["in/a.log", "in/deep/b.log", "in/c.txt", "inner.log", "out/d.log"] {
            std::fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
            std::fs::write(root.join(name), "x").unwrap();
        }
        std::os::unix::fs::symlink(root.join("out/d.log"), root.join("in/link.log")).unwrap();
        let may = |from: &str, name: &str| {
            let from = format!("raw:{}/{from}", root.display());
            Reads::try_new(&[from]).unwrap().check_file(&root.join(name)).is_ok()
        };
        for (from, name, expected) in [
            ("in", "in/a.log", true),
            ("in/", "in/deep/b.log", true),
            ("in", "inner.log", false),
            ("in", "in/../out/d.log", false),
            ("in", "in/link.log", false),
            ("in/*.log", "in/a.log", true),
            ("in/*.log", "in/c.txt", false),
            ("in/*.log", "in/deep/b.log", false),
            ("in/a.log", "in/a.log", true),
        ] {
            assert_eq!(may(from, name), expected, "{from} {name}");
        }
        let objects = Reads::try_new(&["raw:s3://logs/in".to_owned()]).unwrap();
        assert!(objects.check_object("s3://logs/in/a.log").is_ok());
        assert!(objects.check_object("s3://logs/inner.log").is_err());
    }
}
