//! An object store that counts what is read from it, as an object store on a network would bill it.
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, OBJECT_STORE_COALESCE_DEFAULT,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    coalesce_ranges,
};

/// Reads through to another store. Ranges that lie near each other are one request, as for a store on a network; what lies
/// between them is not counted as read.
#[derive(Debug)]
pub(super) struct CountingStore {
    inner: Arc<dyn ObjectStore>,
    bytes: AtomicU64,
    requests: AtomicU64,
}

impl CountingStore {
    pub(super) fn new(inner: Arc<dyn ObjectStore>) -> Self {
        Self { inner, bytes: AtomicU64::new(0), requests: AtomicU64::new(0) }
    }

    /// Bytes and requests since the last call.
    pub(super) fn take(&self) -> (u64, u64) {
        (self.bytes.swap(0, Ordering::Relaxed), self.requests.swap(0, Ordering::Relaxed))
    }
}

impl fmt::Display for CountingStore {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.inner)
    }
}

#[async_trait]
impl ObjectStore for CountingStore {
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let is_head = options.head;
        let result = self.inner.get_opts(location, options).await?;
        self.requests.fetch_add(1, Ordering::Relaxed);
        if !is_head {
            self.bytes.fetch_add(result.range.end - result.range.start, Ordering::Relaxed);
        }
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let asked = ranges.iter().map(|range| range.end - range.start).sum();
        self.bytes.fetch_add(asked, Ordering::Relaxed);
        let fetch = |range| {
            self.requests.fetch_add(1, Ordering::Relaxed);
            self.inner.get_range(location, range)
        };
        coalesce_ranges(ranges, fetch, OBJECT_STORE_COALESCE_DEFAULT).await
    }

    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.inner.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn near_ranges_are_one_request_and_only_what_was_asked_for_counts() {
        let inner = InMemory::new();
        let path = Path::from("file");
        inner.put(&path, vec![7; 4 << 20].into()).await.unwrap();
        let store = CountingStore::new(Arc::new(inner));
        assert_eq!(store.get_range(&path, 10..110).await.unwrap().len(), 100);
        assert_eq!(store.take(), (100, 1));
        let ranges = [0..10, 100..120, (3 << 20)..(3 << 20) + 5];
        let read = store.get_ranges(&path, &ranges).await.unwrap();
        assert_eq!(read.iter().map(Bytes::len).collect::<Vec<_>>(), [10, 20, 5]);
        assert_eq!(store.take(), (35, 2));
        store.head(&path).await.unwrap();
        assert_eq!(store.take(), (0, 1));
    }
}
