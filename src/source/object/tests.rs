//! Objects in memory: what a URL stands for, and that parts give the lines of the whole.
use object_store::PutPayload;
use object_store::memory::InMemory;
use proptest::prelude::*;

use super::super::encoding::tests::gzip;
use super::super::{Catalogue, CutOptions, IdentifiedObject};
use super::*;
use crate::model::{KnownSource, Ledger, Piece, RawChunk};

/// A bucket, and the runtime that its requests run on.
struct Store {
    runtime: tokio::runtime::Runtime,
    store: Arc<InMemory>,
}

impl Store {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        Self { runtime: runtime.unwrap(), store: Arc::new(InMemory::new()) }
    }

    fn put(&self, key: &str, content: impl Into<Vec<u8>>) -> &Self {
        let key = Path::parse(key).unwrap();
        let put = self.store.put(&key, PutPayload::from(content.into()));
        self.runtime.block_on(put).unwrap();
        self
    }

    fn bucket(&self) -> Arc<Bucket> {
        let store = Arc::clone(&self.store) as Arc<dyn ObjectStore>;
        Arc::new(Bucket { store, url: "s3://b".to_owned(), runtime: self.runtime.handle().clone() })
    }

    fn list(&self, path: &str, at_most: usize) -> Result<Vec<Object>, SourceError> {
        let mut objects = self.runtime.block_on(self.bucket().list(path.to_owned(), at_most))?;
        objects.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(objects)
    }

    fn object(&self, key: &str) -> Object {
        self.list(key, 1).unwrap().remove(0)
    }
}

fn identified(object: Object) -> IdentifiedObject {
    Catalogue::default().identify_object(object)
}

fn chunks(object: &IdentifiedObject, part: (u64, u64), options: CutOptions) -> Vec<RawChunk> {
    let mut chunks = Vec::new();
    if let Some(mut reader) = object.reader(part, options).unwrap() {
        while let Some(chunk) = reader.next_chunk().unwrap() {
            chunks.push(chunk);
        }
    }
    chunks
}

/// What a ledger would say of these chunks.
fn ledger(chunks: &[RawChunk]) -> Ledger {
    let mut ledger = Ledger::default();
    let mut ordered: Vec<_> = chunks.iter().collect();
    ordered.sort_by_key(|chunk| chunk.first_byte);
    for chunk in ordered {
        let (first, end) = (chunk.first_byte, chunk.range().end_byte);
        let known = ledger.sources.entry(chunk.source.id).or_insert_with(|| KnownSource {
            source: (*chunk.source).clone(),
            committed: Vec::new(),
            open: None,
            last_chunk: (first, end, chunk.content_sha256),
        });
        if chunk.source.head_len_bytes > 0 {
            known.source = (*chunk.source).clone();
        }
        match known.committed.last_mut() {
            Some(last) if last.1 == first => last.1 = end,
            _ => known.committed.push((first, end)),
        }
    }
    ledger
}

#[test]
fn a_url_stands_for_one_object_the_logs_below_a_folder_or_what_a_glob_matches() {
    let store = Store::new();
    for key in
        ["a.log", "b.log.gz", "c.txt", ".d.log", "e.log.1", "deep/e.log", "deep/er/f.log.zst", "ab/g.log"]
    {
        store.put(key, "x\n");
    }
    for (path, expected) in [
        ("", &["a.log", "ab/g.log", "b.log.gz", "deep/e.log", "deep/er/f.log.zst", "e.log.1"][..]),
        ("deep", &["deep/e.log", "deep/er/f.log.zst"]),
        ("deep/", &["deep/e.log", "deep/er/f.log.zst"]),
        ("a", &[]),
        ("a/", &[]),
        ("c.txt", &["c.txt"]),
        ("c.txt/", &[]),
        ("*.log", &[".d.log", "a.log"]),
        ("?.log", &["a.log"]),
        ("**/*.log", &[".d.log", "a.log", "ab/g.log", "deep/e.log"]),
        ("deep/*", &["deep/e.log"]),
        ("de*/**", &["deep/e.log", "deep/er/f.log.zst"]),
        ("nothing", &[]),
    ] {
        let objects = store.list(path, usize::MAX).unwrap();
        let keys: Vec<_> = objects.iter().map(|object| object.key.as_ref()).collect();
        assert_eq!(keys, expected, "{path}");
    }
    assert_eq!(store.list("", 2).unwrap().len(), 2);
    assert_eq!(store.object("deep/e.log").url(), "s3://b/deep/e.log");
    for (path, expected) in [("a//b", "s3://b/a//b: "), ("a[", "s3://b/a[ is not a glob")] {
        let error = store.list(path, 1).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
}

#[test]
fn a_name_that_has_other_content_is_a_new_generation_and_the_same_listing_the_same_source() {
    let store = Store::new();
    let first = store.put("a.log", "one\n").object("a.log");
    let again = store.object("a.log");
    assert_eq!(first, again);
    let one = identified(first);
    assert_eq!(one.source, identified(again).source);
    let shipped = chunks(&one, (0, 4), CutOptions::default());
    let catalogue = || Catalogue::new(ledger(&shipped));
    assert!(catalogue().identify_object(one.object.clone()).is_complete());

    let other = catalogue().identify_object(store.put("a.log", "two\n").object("a.log"));
    assert_ne!(other.source.id, one.source.id);
    assert_eq!((one.source.generation, other.source.generation), (0, 1));
    assert!(other.committed.is_empty() && !other.is_complete());
    // whoever has listed before reads nothing of the new content
    let error = one.reader((0, 4), CutOptions::default()).map(|_| ()).unwrap_err().to_string();
    assert_eq!(error, "s3://b/a.log was overwritten while it was read; run again to read its new content");
}

#[test]
fn a_compressed_object_is_one_part_and_known_as_complete_by_its_last_chunk() {
    let store = Store::new();
    let text: String = (0..5000).map(|number| format!("{number} line\n")).collect();
    let options = CutOptions { chunk_size_bytes: 7000, max_line_bytes: 7000 };
    for stored in [gzip(text.as_bytes()), zstd::encode_all(text.as_bytes(), 1).unwrap()] {
        let object = identified(store.put("a.log", stored).object("a.log"));
        let parts: Vec<_> = object.parts(300).collect();
        assert!(parts.len() > 3);
        let shipped: Vec<_> = parts.iter().flat_map(|part| chunks(&object, *part, options)).collect();
        assert_eq!(
            shipped.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect::<Vec<_>>(),
            text.as_bytes()
        );
        let complete = |chunks: &[RawChunk]| {
            Catalogue::new(ledger(chunks)).identify_object(object.object.clone()).is_complete()
        };
        assert!(complete(&shipped));
        for lacking in 0..shipped.len() {
            let mut rest = shipped.clone();
            rest.remove(lacking);
            assert!(!complete(&rest), "without chunk {lacking}");
            let known = Catalogue::new(ledger(&rest)).identify_object(object.object.clone());
            let sent = chunks(&known, parts[0], options);
            assert_eq!(sent.iter().map(RawChunk::range).collect::<Vec<_>>(), [shipped[lacking].range()]);
        }
    }
}

/// Where each line begins, with the pieces of an over-long one.
fn lines(chunks: &[RawChunk]) -> Vec<(u64, Vec<u8>, Option<Piece>)> {
    let mut lines = Vec::new();
    for chunk in chunks {
        let mut first_byte = chunk.first_byte;
        for line in chunk.bytes.split_inclusive(|byte| *byte == b'\n') {
            lines.push((first_byte, line.to_vec(), chunk.piece));
            first_byte += line.len() as u64;
        }
    }
    lines
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn parts_give_every_line_of_the_whole_once_wherever_the_borders_fall(
        // few newlines and many, so that lines reach over several parts, and parts hold several lines
        content in prop::collection::vec(prop_oneof![1 => Just(b'\n'), 6 => Just(b'x')], 1..300),
        split_size in prop_oneof![Just(1_u64), Just(2), 3..60_u64, Just(1000)],
        max_line_bytes in prop_oneof![Just(3_usize), Just(10), Just(1000)],
        chunk_size_bytes in prop_oneof![Just(1_usize), Just(16), Just(1000)],
        is_committed in prop::collection::vec(any::<bool>(), 1..20),
    ) {
        let store = Store::new();
        let object = identified(store.put("a.log", content.clone()).object("a.log"));
        let options = CutOptions { chunk_size_bytes, max_line_bytes };
        let whole = chunks(&object, (0, content.len() as u64), options);
        let parts: Vec<_> = object.parts(split_size).collect();
        let of_parts: Vec<_> = parts.iter().flat_map(|part| chunks(&object, *part, options)).collect();
        prop_assert_eq!(lines(&of_parts), lines(&whole));
        prop_assert!(of_parts.iter().all(|chunk| !chunk.open));

        // any reader, with other parts, ships what another one left, and nothing else
        let mut is_committed = is_committed.into_iter().cycle();
        let mut held: Vec<_> = of_parts.into_iter().filter(|_| is_committed.next() == Some(true)).collect();
        for split_size in [split_size * 2, u64::MAX] {
            let known = Catalogue::new(ledger(&held)).identify_object(object.object.clone());
            let parts: Vec<_> = known.parts(split_size).collect();
            held.extend(parts.iter().flat_map(|part| chunks(&known, *part, options)));
            held.sort_by_key(|chunk| chunk.first_byte);
            let mut end = 0;
            for chunk in &held {
                prop_assert_eq!(chunk.first_byte, end);
                end = chunk.range().end_byte;
            }
            prop_assert_eq!(end, content.len() as u64);
        }
        let known = Catalogue::new(ledger(&held)).identify_object(object.object.clone());
        prop_assert!(known.is_complete());
    }
}
