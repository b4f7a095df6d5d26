//! A store that counts what is read of it: bytes, and requests as a cloud store bills them.
//!
//! Ranges of one object that lie close are one request there, so they are counted as one wherever the store is.
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, OBJECT_STORE_COALESCE_DEFAULT,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::error::Lost;
use super::report::Counter;

/// Reads through to another store and counts on `counter`.
#[derive(Debug)]
pub struct CountedStore {
    store: Arc<dyn ObjectStore>,
    /// As its user names it.
    location: String,
    counter: Arc<Counter>,
}

impl CountedStore {
    /// Counts what is read of `store`, which users know as `location`.
    pub fn new(store: Arc<dyn ObjectStore>, location: &str, counter: Arc<Counter>) -> Self {
        Self { store, location: location.to_owned(), counter }
    }

    fn failed(&self, path: &Path, error: Error) -> Error {
        Lost::or_storage(&format!("{}/{path}", self.location.trim_end_matches('/')), error)
    }
}

impl fmt::Display for CountedStore {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.store.fmt(out)
    }
}

#[async_trait]
impl ObjectStore for CountedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_head = options.head;
        let result =
            self.store.get_opts(location, options).await.map_err(|error| self.failed(location, error))?;
        let bytes = if is_head { 0 } else { result.range.end - result.range.start };
        self.counter.add(bytes, 1);
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let came =
            self.store.get_ranges(location, ranges).await.map_err(|error| self.failed(location, error))?;
        let mut sorted = ranges.to_vec();
        sorted.sort_unstable_by_key(|range| range.start);
        let (mut requests, mut end) = (0, None);
        for range in sorted {
            if end.is_none_or(|end| range.start > end + OBJECT_STORE_COALESCE_DEFAULT) {
                requests += 1;
            }
            end = end.max(Some(range.end));
        }
        self.counter.add(came.iter().map(|bytes| bytes.len() as u64).sum(), requests);
        Ok(came)
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.counter.add(0, 1);
        self.store.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.counter.add(0, 1);
        self.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn near_ranges_are_one_request_and_only_what_was_asked_for_counts() {
        let inner = InMemory::new();
        let path = Path::from("file");
        inner.put(&path, vec![7; 4 << 20].into()).await.unwrap();
        let counter = Arc::new(Counter::default());
        let store = CountedStore::new(Arc::new(inner), "here", Arc::clone(&counter));
        assert_eq!(store.get_range(&path, 10..110).await.unwrap().len(), 100);
        assert_eq!(counter.take(), (100, 1));
        let ranges = [0..10, 100..120, (3 << 20)..(3 << 20) + 5];
        let read = store.get_ranges(&path, &ranges).await.unwrap();
        assert_eq!(read.iter().map(Bytes::len).collect::<Vec<_>>(), [10, 20, 5]);
        assert_eq!(counter.take(), (35, 2));
        store.head(&path).await.unwrap();
        assert_eq!(counter.take(), (0, 1));
    }
}
