//! Connection builders: the one place that turns a location a user gives into something to talk to.
//!
//! A store is rooted at the location itself, so that every path in the program is relative to it. Callers see
//! only the `ObjectStore` trait. Deliberately absent: retries and knowledge of what is stored.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use thiserror::Error;
use url::Url;

mod durable;

pub use durable::{DurableStore, STAGED_PREFIX};

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
}

/// Opens the folder at `location`, a path or a `file://` URL, without creating it. Returns a store rooted there
/// and the location as an absolute URL.
pub fn open_store(location: &str) -> Result<(Arc<dyn ObjectStore>, Url), ClientError> {
    let bad = |reason: &str| ClientError::BadUrl { location: location.to_owned(), reason: reason.to_owned() };
    let path = local_path(location).map_err(|reason| bad(&reason))?;
    if let Some(file) = path.ancestors().find(|ancestor| ancestor.exists()).filter(|found| !found.is_dir()) {
        return Err(bad(&format!("{} is a file; name a folder", file.display())));
    }
    let url = Url::from_directory_path(&path).map_err(|()| bad("cannot be written as a file:// URL"))?;
    Ok((Arc::new(DurableStore::new(path)), url))
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
            return Err(format!("{scheme}:// is not supported; give a path or a file:// URL"));
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
        assert_eq!(error, "ftp://host/archive: ftp:// is not supported; give a path or a file:// URL");
        let file = tempfile::NamedTempFile::new().unwrap();
        for place in [file.path().to_path_buf(), file.path().join("below")] {
            let error = open_store(place.to_str().unwrap()).unwrap_err().to_string();
            assert!(error.ends_with("is a file; name a folder"), "{error}");
        }
    }
}
