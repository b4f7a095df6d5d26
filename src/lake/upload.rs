//! Stores a file: a small one in one put, a large one in parts, of which a few are on their way at once.
//!
//! Bounded: parts of [`PART_BYTES`], [`PARTS_AT_ONCE`] of them. An upload that fails is aborted; one that dies with its
//! process leaves parts that no listing shows (a bucket's lifecycle rule removes them).
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, WriteMultipart};

use super::LakeError;

/// A file that is larger goes in parts of this size; S3 takes parts from 5 MiB on.
const PART_BYTES: u64 = 8 << 20;
const PARTS_AT_ONCE: usize = 3;

/// What a file is to hold.
#[derive(Debug, Clone)]
pub(super) enum Content {
    Memory(Bytes),
    /// The first bytes of a local file, which no name leads to.
    Spooled(Arc<File>, u64),
}

impl Content {
    pub(super) fn len_bytes(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::Spooled(_, len_bytes) => *len_bytes,
        }
    }

    async fn part(&self, first: u64, end: u64) -> io::Result<Bytes> {
        match self {
            Self::Memory(bytes) => Ok(bytes.slice(first as usize..end as usize)),
            Self::Spooled(file, _) => {
                let file = Arc::clone(file);
                let read = move || {
                    let mut part = vec![0; (end - first) as usize];
                    file.read_exact_at(&mut part, first).map(|()| Bytes::from(part))
                };
                tokio::task::spawn_blocking(read).await?
            }
        }
    }
}

/// Returns once the file is durable.
pub(super) async fn upload(store: &dyn ObjectStore, path: &str, content: &Content) -> Result<(), LakeError> {
    let failed = LakeError::storage("write", path);
    let stored = async {
        let (location, len_bytes) = (Path::from(path), content.len_bytes());
        let unreadable =
            |cause: io::Error| object_store::Error::Generic { store: "spool", source: cause.into() };
        if len_bytes <= PART_BYTES {
            let bytes = content.part(0, len_bytes).await.map_err(unreadable)?;
            return store.put(&location, bytes.into()).await.map(|_| ());
        }
        let mut parts =
            WriteMultipart::new_with_chunk_size(store.put_multipart(&location).await?, PART_BYTES as usize);
        for first in (0..len_bytes).step_by(PART_BYTES as usize) {
            let part = content.part(first, (first + PART_BYTES).min(len_bytes)).await;
            let has_room = parts.wait_for_capacity(PARTS_AT_ONCE).await;
            match (part.map_err(unreadable), has_room) {
                (Ok(part), Ok(())) => parts.put(part),
                (Err(cause), _) | (_, Err(cause)) => {
                    let _expires_by_itself = parts.abort().await;
                    return Err(cause);
                }
            }
        }
        parts.finish().await.map(|_| ())
    };
    stored.await.map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::DurableStore;

    #[tokio::test]
    async fn what_is_stored_in_parts_is_what_was_given() {
        let folder = tempfile::tempdir().unwrap();
        let store = DurableStore::new(folder.path().to_owned());
        let bytes: Bytes = (0..PART_BYTES * 5 / 2).map(|byte| (byte * 7 % 251) as u8).collect();
        let spool = tempfile::tempfile().unwrap();
        spool.write_all_at(&bytes, 0).unwrap();
        let spooled = Content::Spooled(Arc::new(spool), bytes.len() as u64);
        for (name, content) in [("memory", Content::Memory(bytes.clone())), ("spooled", spooled)] {
            upload(&store, name, &content).await.unwrap();
            let stored = store.get(&Path::from(name)).await.unwrap().bytes().await.unwrap();
            assert!(stored == bytes, "{name}");
        }
    }
}
