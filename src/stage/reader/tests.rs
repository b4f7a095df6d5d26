//! The reader against real files, and a store that keeps what a sink would: it refuses any byte twice.
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;

use tempfile::TempDir;

use super::*;
use crate::model::KnownSource;
use crate::transport::{Consumer, memory};

mod identity;
mod once;
mod watching;

/// What is committed, by source and first byte, in commit order within a source's newest chunk.
#[derive(Default)]
struct Store {
    chunks: BTreeMap<(u64, u64), RawChunk>,
    newest: BTreeMap<u64, RawChunk>,
}

impl Store {
    fn commit(&mut self, chunk: RawChunk) {
        assert_eq!(
            chunk.content_sha256,
            <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(&chunk.bytes))
        );
        let range = chunk.range();
        for other in self.chunks.values() {
            let supersedes =
                other.open && other.first_byte == range.first_byte && other.range().end_byte < range.end_byte;
            assert!(supersedes || !range.overlaps(&other.range()), "{range:?} was shipped twice");
        }
        self.newest.insert(range.source_id, chunk.clone());
        self.chunks.insert((range.source_id, range.first_byte), chunk);
    }

    fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::default();
        for (&id, newest) in &self.newest {
            let chunks = self.chunks.range((id, 0)..=(id, u64::MAX)).map(|(_, chunk)| chunk);
            let mut known = KnownSource {
                source: (*newest.source).clone(),
                committed: Vec::new(),
                open: None,
                last_chunk: (newest.first_byte, newest.range().end_byte, newest.content_sha256),
            };
            for chunk in chunks {
                let (first, end) = (chunk.first_byte, chunk.range().end_byte);
                match known.committed.last_mut() {
                    _ if chunk.open => known.open = Some((first, end)),
                    Some(last) if last.1 == first => last.1 = end,
                    _ => known.committed.push((first, end)),
                }
            }
            ledger.sources.insert(id, known);
        }
        ledger
    }

    /// Every source: file name, generation, content. Fails if a source has a gap.
    fn contents(&self) -> Vec<(String, u32, String)> {
        let mut contents: Vec<_> = self
            .newest
            .values()
            .map(|newest| {
                let mut content = Vec::new();
                for chunk in self.chunks.values().filter(|chunk| chunk.source.id == newest.source.id) {
                    assert_eq!(chunk.first_byte, content.len() as u64, "a gap in {}", chunk.source.path);
                    content.extend_from_slice(&chunk.bytes);
                }
                let name = newest.source.path.rsplit('/').next().unwrap_or_default().to_owned();
                (name, newest.source.generation, String::from_utf8_lossy(&content).into_owned())
            })
            .collect();
        contents.sort();
        contents
    }

    fn assert_holds(&self, expected: &[(&str, u32, &str)]) {
        let contents = self.contents();
        let contents: Vec<_> =
            contents.iter().map(|(name, generation, text)| (&**name, *generation, &**text)).collect();
        assert_eq!(contents, expected);
    }
}

/// A folder of logs, and what is committed of it.
struct Logs {
    folder: TempDir,
    store: Store,
    options: ReadOptions,
}

impl Logs {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            store: Store::default(),
            options: ReadOptions::default(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).unwrap();
    }

    fn append(&self, name: &str, content: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().append(true).create(true).open(self.path(name)).unwrap();
        file.write_all(content.as_ref()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    /// Reads the folder and commits everything; returns the chunks.
    async fn read(&mut self) -> Vec<RawChunk> {
        let paths = [self.folder.path().to_owned()];
        let (summary, chunks) = self.read_paths(&paths).await.unwrap();
        assert!(summary.failures.is_empty(), "{:?}", summary.failures);
        assert!(summary.sources.iter().all(|read| read.complete));
        chunks
    }

    async fn read_paths(&mut self, paths: &[PathBuf]) -> Result<(ReadSummary, Vec<RawChunk>), ReadError> {
        let (summary, chunks) = self.read_only(paths).await?;
        chunks.iter().for_each(|chunk| self.store.commit(chunk.clone()));
        Ok((summary, chunks))
    }

    /// Reads, and commits nothing.
    async fn read_only(&self, paths: &[PathBuf]) -> Result<(ReadSummary, Vec<RawChunk>), ReadError> {
        let (producer, mut consumer) = memory(1 << 20);
        let shutdown = Shutdown::new();
        let reading = async {
            let summary = read(paths, &self.options, self.store.ledger(), &producer, &shutdown).await;
            drop(producer);
            summary
        };
        let taking = async {
            let mut chunks = Vec::new();
            while let Some(delivery) = consumer.receive().await.unwrap() {
                chunks.push(delivery.chunk);
            }
            chunks
        };
        let (summary, chunks) = tokio::join!(reading, taking);
        let summary = summary?;
        let shipped: u64 = summary.sources.iter().map(|read| read.bytes_shipped).sum();
        assert_eq!(shipped, chunks.iter().map(|chunk| chunk.bytes.len() as u64).sum::<u64>());
        Ok((summary, chunks))
    }
}

fn gzip(content: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content.as_ref()).unwrap();
    encoder.finish().unwrap()
}

/// Lines that all differ, so that a wrong place shows.
fn lines(range: std::ops::Range<u32>) -> String {
    range.map(|number| format!("{number} line\n")).collect()
}
