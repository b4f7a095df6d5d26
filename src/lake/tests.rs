//! What the archive promises, proven on real files: rows once whatever dies when, and nothing half counted.
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::path::Path as FsPath;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, BinaryArray, DictionaryArray, Int16Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, TimestampMicrosecondType};
use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use tempfile::TempDir;
use url::Url;

use super::orphans::remove_orphans;
use super::schema::timestamp;
use super::{Archive, ArchiveWriter, LakeError, TableSnapshot};
use crate::client::DurableStore;
use crate::ledger::tests::record;
use crate::model::{
    Blank, ByteRange, ChunkRecord, DecodedBatch, Reject, RejectReason, Table, TypeBatch, TypeRows,
};

/// 2024-01-15T00:00:00Z.
const START: i64 = 1_705_276_800_000_000;
const SECOND: i64 = 1_000_000;
const DAY: i64 = 86_400 * SECOND;
/// Bytes that a line of these tests takes.
const LINE_BYTES: u64 = 10;

/// An entry without rows.
fn auth(extra_columns: &[Field]) -> Arc<Table> {
    let user = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let mut fields = vec![
        Field::new("timestamp", timestamp(), false),
        Field::new("user", user, true),
        Field::new("port", DataType::Int32, true),
    ];
    fields.extend_from_slice(extra_columns);
    fields.extend([
        Field::new("chunk_id", DataType::Int64, false),
        Field::new("line", DataType::Int32, false),
        Field::new("form", DataType::Int16, false),
        Field::new("raw", DataType::Binary, true),
        Field::new("extra", DataType::Utf8, true),
    ]);
    let text = format!("columns = {}", fields.len());
    Arc::new(Table {
        log_type: "auth".into(),
        name: "auth_logs".into(),
        schema: Arc::new(Schema::new(fields)),
        postgres_types: Vec::new(),
        timestamp_column: 0,
        indexed_columns: vec![1],
        hash: format!("hash{}", extra_columns.len()),
        text,
    })
}

fn auth_rows(table: &Table, chunk_id: i64, times: &[i64]) -> RecordBatch {
    let count = times.len();
    let users: DictionaryArray<Int32Type> =
        (0..count).map(|row| Some(["root", "mlee", "cjones"][row % 3])).collect();
    let columns = table.schema.fields().iter().map(|field| -> ArrayRef {
        match field.name().as_str() {
            "timestamp" => Arc::new(TimestampMicrosecondArray::from(times.to_vec()).with_timezone("UTC")),
            "user" => Arc::new(users.clone()),
            "port" => {
                Arc::new(Int32Array::from_iter_values((0..count).map(|row| (row * 7919 % 55_536) as i32)))
            }
            "chunk_id" => Arc::new(Int64Array::from(vec![chunk_id; count])),
            "line" => Arc::new(Int32Array::from_iter_values(0..count as i32)),
            "form" => Arc::new(Int16Array::from(vec![0; count])),
            "raw" => Arc::new(BinaryArray::from_iter((0..count).map(|_| None::<&[u8]>))),
            "extra" => Arc::new(StringArray::new_null(count)),
            _ => Arc::new(Int64Array::from_iter_values(0..count as i64)),
        }
    });
    RecordBatch::try_new(Arc::clone(&table.schema), columns.collect()).unwrap()
}

/// A chunk of rows at `times`, one line each, then a reject and a blank line.
fn chunk_of(table: &Arc<Table>, source_id: u64, first_line: u64, times: &[i64]) -> DecodedBatch {
    let rows = times.len() as u64;
    let lines = rows + 2;
    let mut record = record(source_id, first_line * LINE_BYTES, (first_line + lines) * LINE_BYTES);
    record.num_lines = lines;
    record.num_rows = rows;
    record.num_rejects = 1;
    record.num_blanks = 1;
    record.time_range = times.iter().min().copied().zip(times.iter().max().copied());
    record.types.insert(table.log_type.clone(), TypeRows { rows, hash: table.hash.clone(), refused: 0 });
    let batch = auth_rows(table, record.chunk_id, times);
    let line_bytes = |line: u64| ((line * LINE_BYTES) as u32, ((line + 1) * LINE_BYTES) as u32 - 1);
    DecodedBatch {
        rejects: vec![Reject {
            line: rows as u32,
            piece: 0,
            span: line_bytes(rows),
            log_type: Some("auth".into()),
            column: 3,
            reason: RejectReason::NoTemplate,
        }],
        blanks: vec![Blank { line: rows as u32 + 1, span: line_bytes(rows + 1) }],
        types: vec![TypeBatch { table: Arc::clone(table), batch }],
        bytes: Bytes::from(vec![b'x'; (lines * LINE_BYTES) as usize]),
        record,
    }
}

fn chunk(source_id: u64, first_line: u64, rows: u64) -> DecodedBatch {
    let time = |row: u64| START + ((first_line + row) as i64) * SECOND + 123;
    chunk_of(&auth(&[]), source_id, first_line, &(0..rows).map(time).collect::<Vec<_>>())
}

/// One line that may still grow, decoded as a row.
fn open_line(source_id: u64, first_byte: u64, len: u64, open: bool) -> DecodedBatch {
    let mut batch = chunk_of(&auth(&[]), source_id, 0, &[START]);
    batch.rejects.clear();
    batch.blanks.clear();
    let fresh = record(source_id, first_byte, first_byte + len);
    let types = batch.record.types;
    batch.record =
        ChunkRecord { num_lines: 1, num_rows: 1, types, time_range: Some((START, START)), open, ..fresh };
    batch.types[0].batch = auth_rows(&batch.types[0].table, batch.record.chunk_id, &[START]);
    batch
}

async fn ship(
    writer: &mut ArchiveWriter,
    batches: impl IntoIterator<Item = DecodedBatch>,
) -> Result<(), LakeError> {
    for batch in batches {
        writer.write(batch).await?;
    }
    writer.flush().await.map(|_| ())
}

fn table<'a>(tables: &'a [TableSnapshot], name: &str) -> &'a TableSnapshot {
    tables.iter().find(|table| table.name == name).unwrap_or_else(|| panic!("no table {name}"))
}

/// For each entry of the ledger, each table holds exactly the rows that the entry counts, and nothing else.
async fn assert_accounted(archive: &Archive) -> Vec<ChunkRecord> {
    let (records, tables) = (archive.records().await.unwrap(), archive.tables().await.unwrap());
    let mut expected: HashMap<&str, HashMap<i64, u64>> = HashMap::new();
    for record in &records {
        let rejects = ("rejects", record.num_rejects);
        let blanks = ("blanks", record.num_blanks);
        let types = record.types.iter().map(|(name, of_type)| (name.as_str(), of_type.rows));
        for (name, rows) in types.chain([rejects, blanks]).filter(|(_, rows)| *rows > 0) {
            expected.entry(name).or_default().insert(record.chunk_id, rows);
        }
    }
    for table in tables.iter().filter(|table| table.name != "chunks") {
        let counts = archive.count_by_chunk(table).await.unwrap();
        assert_eq!(counts, expected.remove(table.name.as_str()).unwrap_or_default(), "table {}", table.name);
        assert_eq!(table.files.iter().map(|file| file.num_rows).sum::<u64>(), counts.values().sum::<u64>());
    }
    assert!(expected.is_empty(), "{expected:?}");
    records
}

fn place(folder: &TempDir) -> String {
    folder.path().join("archive").to_str().unwrap().to_owned()
}

fn archive_url(folder: &FsPath) -> Url {
    Url::from_directory_path(folder).unwrap()
}

/// A store that stops working at the n-th change: before it happens, or after it happened but unreported.
#[derive(Debug)]
struct Dying {
    inner: DurableStore,
    changes_left: AtomicI64,
    after: bool,
    kind: io::ErrorKind,
}

impl Dying {
    fn new(folder: &FsPath, changes: i64, after: bool) -> Arc<Self> {
        let inner = DurableStore::new(folder.to_path_buf());
        let kind = io::ErrorKind::StorageFull;
        Arc::new(Self { inner, changes_left: AtomicI64::new(changes), after, kind })
    }

    fn dead(&self) -> object_store::Error {
        object_store::Error::Generic { store: "dying", source: io::Error::from(self.kind).into() }
    }

    /// Whether the change happens, and whether it is reported.
    fn change(&self) -> (bool, bool) {
        match self.changes_left.fetch_sub(1, Ordering::SeqCst) {
            1.. => (true, true),
            0 => (self.after, false),
            _ => (false, false),
        }
    }

    fn lives(&self) -> bool {
        self.changes_left.load(Ordering::SeqCst) >= 0
    }
}

impl fmt::Display for Dying {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dying")
    }
}

#[async_trait]
impl ObjectStore for Dying {
    async fn put_opts(
        &self,
        to: &Path,
        bytes: PutPayload,
        opts: PutOptions,
    ) -> object_store::Result<PutResult> {
        let (happens, is_reported) = self.change();
        let result = if happens { self.inner.put_opts(to, bytes, opts).await } else { Err(self.dead()) };
        if is_reported { result } else { Err(self.dead()) }
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        opts: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        if self.change() == (true, true) {
            self.inner.put_multipart_opts(to, opts).await
        } else {
            Err(self.dead())
        }
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        if self.change() == (true, true) {
            self.inner.delete_stream(locations)
        } else {
            let error = self.dead();
            async { Err(error) }.into_stream().boxed()
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Three groups: plain, one whose open line waits, one that supersedes it.
fn story() -> Vec<Vec<DecodedBatch>> {
    vec![
        vec![chunk(1, 0, 5), chunk(2, 0, 3)],
        vec![chunk(1, 7, 4), open_line(3, 0, 15, true)],
        vec![open_line(3, 0, 40, false), chunk(2, 5, 2)],
    ]
}

async fn tell(writer: &mut ArchiveWriter, story: Vec<Vec<DecodedBatch>>) -> Result<(), LakeError> {
    for group in story {
        ship(writer, group).await?;
    }
    Ok(())
}

/// What the ledger lacks of the story: as a reader would ship it again.
async fn lacking(writer: &mut ArchiveWriter) -> Vec<Vec<DecodedBatch>> {
    let ledger = writer.ledger().await.unwrap();
    let has = |batch: &DecodedBatch| {
        let ByteRange { source_id, first_byte, end_byte } = batch.record.range;
        ledger.sources.get(&source_id).is_some_and(|known| {
            known.committed.iter().any(|range| range.0 <= first_byte && end_byte <= range.1)
                || known.open.is_some_and(|open| open.0 == first_byte && open.1 >= end_byte)
        })
    };
    // an open line that a longer one has superseded is covered by the longer one
    story().into_iter().map(|group| group.into_iter().filter(|batch| !has(batch)).collect()).collect()
}

async fn survive_death_at_every_change(after: bool) {
    for changes in 0.. {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("archive");
        let dying = Dying::new(&root, changes, after);
        let told = async {
            let store: Arc<dyn ObjectStore> = Arc::clone(&dying) as _;
            let mut writer = ArchiveWriter::try_new_in(store, archive_url(&root)).await?;
            tell(&mut writer, story()).await
        };
        let outcome = told.await;
        // a commit that happened is found by its content, though nothing reported it
        let is_complete = dying.lives() || after && outcome.is_ok();
        assert_eq!(outcome.is_ok(), is_complete, "change {changes}: {outcome:?}");

        let location = root.to_str().unwrap();
        if let Ok(archive) = Archive::open(location).await {
            assert_accounted(&archive).await;
        }
        let mut writer = ArchiveWriter::try_new(location).await.unwrap();
        let rest = lacking(&mut writer).await;
        tell(&mut writer, rest).await.unwrap();
        let records = assert_accounted(writer.archive()).await;
        let ranges: Vec<_> =
            records.iter().map(|record| (record.range.source_id, record.range.end_byte)).collect();
        assert_eq!(ranges, [(1, 70), (1, 130), (2, 50), (2, 90), (3, 40)], "change {changes}");

        remove_orphans(writer.archive(), Duration::ZERO).await.unwrap();
        assert_accounted(writer.archive()).await;
        assert_eq!(unreferenced(writer.archive()).await, Vec::<String>::new(), "change {changes}");
        if outcome.is_ok() {
            assert!(changes > 20, "the story makes {changes} changes only");
            return;
        }
    }
}

async fn unreferenced(archive: &Archive) -> Vec<String> {
    let tables = archive.tables().await.unwrap();
    let live: HashSet<_> =
        tables.iter().flat_map(|table| &table.files).map(|file| file.path.as_str()).collect();
    let stored: Vec<_> =
        archive.store().list(None).map_ok(|meta| meta.location.to_string()).try_collect().await.unwrap();
    let is_log = |path: &String| path.contains("/_delta_log/") || path.starts_with("_types/");
    stored.into_iter().filter(|path| !is_log(path) && !live.contains(path.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_before_any_change_to_storage_loses_and_doubles_nothing() {
    survive_death_at_every_change(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dying_after_any_unreported_change_to_storage_loses_and_doubles_nothing() {
    survive_death_at_every_change(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_sees_a_group_whole_even_where_it_cannot_finish_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("archive");
    let mut saw_pending = false;
    for changes in 0..40 {
        let _fresh = std::fs::remove_dir_all(&root);
        let dying: Arc<dyn ObjectStore> = Dying::new(&root, changes, false);
        if let Ok(mut writer) = ArchiveWriter::try_new_in(dying, archive_url(&root)).await {
            let _dies_somewhere = tell(&mut writer, story()).await;
        }
        let read_only: Arc<dyn ObjectStore> = Dying::new(&root, 0, false);
        if let Ok(archive) = Archive::open_in(read_only, archive_url(&root)).await {
            let state = archive.chunks_state().await.unwrap();
            let pending = archive.pending(&state).await.unwrap();
            saw_pending |= !pending.is_empty();
            assert_accounted(&archive).await;
        }
    }
    assert!(saw_pending);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_with_the_same_bytes_one_lands_and_the_other_leaves_no_trace() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = ArchiveWriter::try_new(&place(&folder)).await.unwrap();
    let mut second = ArchiveWriter::try_new(&place(&folder)).await.unwrap();
    first.write(chunk(1, 0, 10)).await.unwrap();
    second.write(chunk(1, 5, 10)).await.unwrap();
    let (one, two) = tokio::join!(first.flush(), second.flush());
    assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1);
    assert!([one.err(), two.err()].iter().flatten().all(|cause| matches!(cause, LakeError::Overlap)));
    let archive = Archive::open(&place(&folder)).await.unwrap();
    assert_eq!(assert_accounted(&archive).await.len(), 1);
    assert_eq!(unreferenced(&archive).await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_with_different_bytes_all_land_however_their_commits_interleave() {
    let folder = tempfile::tempdir().unwrap();
    let mut writers = Vec::new();
    for source in 1..=3 {
        let mut writer = ArchiveWriter::try_new(&place(&folder)).await.unwrap();
        writers.push(tokio::spawn(async move {
            for group in 0..6 {
                ship(&mut writer, [open_line(source, 200 + group * 10, 5, true)]).await.unwrap();
                ship(&mut writer, [open_line(source, 200 + group * 10, 10, false)]).await.unwrap();
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let archive = Archive::open(&place(&folder)).await.unwrap();
    assert_eq!(assert_accounted(&archive).await.len(), 18);
    let ledger = archive.ledger().await.unwrap();
    for known in ledger.sources.values() {
        assert_eq!((known.committed.as_slice(), known.open), (&[(200, 260)][..], None));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_longer_form_of_an_open_line_takes_its_place_even_within_one_group() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ArchiveWriter::try_new(&place(&folder)).await.unwrap();
    let mut reject = open_line(1, 0, 7, true);
    reject.types.clear();
    reject.record.types.clear();
    (reject.record.num_rows, reject.record.num_rejects, reject.record.time_range) = (0, 1, None);
    reject.rejects = chunk(1, 0, 0).rejects;
    writer.write(chunk(2, 0, 50)).await.unwrap();
    writer.write(reject).await.unwrap();
    let first = writer.write(open_line(1, 0, 12, true)).await.unwrap().expect("the first form is committed");
    assert_eq!(first.ranges.len(), 2);
    ship(&mut writer, [open_line(1, 0, 20, false)]).await.unwrap();
    let records = assert_accounted(writer.archive()).await;
    assert_eq!(records.iter().map(|record| record.range.end_byte).collect::<Vec<_>>(), [20, 520]);
    assert!(matches!(writer.write(open_line(1, 0, 30, false)).await, Err(LakeError::Overlap)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_times_out_of_range_and_days_beyond_64_share_the_null_partition() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ArchiveWriter::try_new(&place(&folder)).await.unwrap();
    let garbage = [0, i64::MIN, i64::MAX, START + 20_000 * DAY];
    let days: Vec<i64> = (0..70).map(|day| START + day * DAY).chain(garbage).collect();
    ship(&mut writer, [chunk_of(&auth(&[]), 1, 0, &days)]).await.unwrap();
    assert_accounted(writer.archive()).await;
    let tables = writer.archive().tables().await.unwrap();
    let files = &table(&tables, "auth").files;
    assert_eq!(files.iter().filter(|file| file.day.is_some()).count(), 64);
    let null_day: Vec<_> = files.iter().filter(|file| file.day.is_none()).collect();
    assert_eq!((null_day.len(), null_day[0].num_rows), (1, 10));
    assert!(null_day[0].path.starts_with("auth/day=__HIVE_DEFAULT_PARTITION__/"), "{}", null_day[0].path);
    // days that exist do not count as new
    ship(&mut writer, [chunk_of(&auth(&[]), 1, 100, &days[..66])]).await.unwrap();
    let tables = writer.archive().tables().await.unwrap();
    assert_eq!(table(&tables, "auth").files.iter().filter(|file| file.day.is_some()).count(), 130);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_column_is_null_in_older_rows_and_any_other_change_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let added = auth(&[Field::new("score", DataType::Int64, true)]);
    for table in [auth(&[]), Arc::clone(&added)] {
        let mut writer = ArchiveWriter::try_new(&place(&folder)).await.unwrap();
        let first_line = if table.hash == added.hash { 50 } else { 0 };
        ship(&mut writer, [chunk_of(&table, 1, first_line, &[START, START + 1])]).await.unwrap();
        assert_eq!(*writer.archive().type_text(&table.hash).await.unwrap(), *table.text);
    }
    let archive = Archive::open(&place(&folder)).await.unwrap();
    let records = assert_accounted(&archive).await;
    let tables = archive.tables().await.unwrap();
    let of_chunk = async |record: &ChunkRecord| {
        let ids = HashSet::from([record.chunk_id]);
        archive.read_rows(table(&tables, "auth"), &ids, record.time_range).await.unwrap().remove(0)
    };
    let (older, newer) = (of_chunk(&records[0]).await, of_chunk(&records[1]).await);
    assert_eq!(older.column_by_name("score").unwrap().null_count(), 2);
    assert_eq!(newer["score"].as_primitive::<Int64Type>().values(), &[0, 1]);

    let mut writer = ArchiveWriter::try_new(&place(&folder)).await.unwrap();
    let retyped = auth(&[Field::new("score", DataType::Utf8, true)]);
    let mut table = (*retyped).clone();
    table.hash = "other".into();
    let mut batch = chunk_of(&added, 9, 0, &[START]);
    batch.types[0].table = Arc::new(table);
    let refusal = writer.write(batch).await.unwrap_err().to_string();
    assert!(refusal.starts_with("table auth: column score is stored as Int64"), "{refusal}");
    assert!(refusal.ends_with("another name"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_type_cannot_take_the_name_of_the_archives_own_tables() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ArchiveWriter::try_new(&place(&folder)).await.unwrap();
    for name in ["chunks", "rejects", "blanks", "_types"] {
        let mut batch = chunk(1, 0, 1);
        batch.types[0].table = Arc::new(Table { log_type: name.into(), ..(*auth(&[])).clone() });
        let refusal = writer.write(batch).await.unwrap_err();
        assert!(
            matches!(&refusal, LakeError::IncompatibleSchema { table, .. } if table == name),
            "{refusal}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_archive_reads_the_same_across_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ArchiveWriter::try_new(&place(&folder)).await.unwrap();
    for group in 0..103 {
        ship(&mut writer, [chunk(1, group * 10, 3)]).await.unwrap();
    }
    let checkpoints = |name: &str| {
        let log = folder.path().join("archive").join(name).join("_delta_log");
        let names =
            std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.contains(".checkpoint.")).count()
    };
    assert_eq!((checkpoints("chunks"), checkpoints("auth")), (1, 1));
    let records = assert_accounted(writer.archive()).await;
    assert_eq!(records.len(), 103);
    let state = writer.archive().chunks_state().await.unwrap();
    assert_eq!(
        writer.archive().pending(&state).await.unwrap().len(),
        1,
        "one group is looked at again, not all"
    );
    let reopened = ArchiveWriter::try_new(&place(&folder)).await.unwrap();
    let tables = reopened.archive().tables().await.unwrap();
    let files = &table(&tables, "auth").files;
    assert!(files.iter().all(|file| file.day == Some(19_737) && file.time_range.is_some()), "{files:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pruning_by_time_never_loses_a_row() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ArchiveWriter::try_new(&place(&folder)).await.unwrap();
    let edges: [i64; 6] =
        [START - 1, START, START + DAY - 1, START + DAY, START + DAY + 999, START + 2 * DAY];
    for (first_line, times) in [(0, &edges[..3]), (20, &edges[3..]), (40, &edges[..])] {
        ship(&mut writer, [chunk_of(&auth(&[]), 1, first_line, times)]).await.unwrap();
    }
    let archive = writer.archive();
    let tables = archive.tables().await.unwrap();
    for record in archive.records().await.unwrap() {
        let ids = HashSet::from([record.chunk_id]);
        let read = async |range| {
            let rows = archive.read_rows(table(&tables, "auth"), &ids, range).await.unwrap();
            let mut times: Vec<i64> = rows
                .iter()
                .flat_map(|rows| {
                    rows["timestamp"].as_primitive::<TimestampMicrosecondType>().values().to_vec()
                })
                .collect();
            times.sort_unstable();
            times
        };
        let all = read(None).await;
        assert_eq!(read(record.time_range).await, all);
        assert_eq!(all.len() as u64, record.num_rows);
        assert_eq!(
            (all.first().copied(), all.last().copied()),
            (record.time_range.map(|r| r.0), record.time_range.map(|r| r.1))
        );
    }
    let outside = Some((START - 10 * DAY, START - 5 * DAY));
    let all: HashSet<i64> = archive.records().await.unwrap().iter().map(|record| record.chunk_id).collect();
    assert!(archive.read_rows(table(&tables, "auth"), &all, outside).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_and_a_missing_archive_are_one_line_with_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Archive::open(&place(&folder)).await.unwrap_err();
    assert!(missing.to_string().starts_with("no archive at "), "{missing}");

    let root = folder.path().join("archive");
    ship(&mut ArchiveWriter::try_new(&place(&folder)).await.unwrap(), [chunk(1, 0, 3)]).await.unwrap();
    let full: Arc<dyn ObjectStore> = Dying::new(&root, 0, false);
    let mut writer = ArchiveWriter::try_new_in(full, archive_url(&root)).await.unwrap();
    let refusal = ship(&mut writer, [chunk(1, 10, 3)]).await.unwrap_err().to_string();
    assert!(refusal.ends_with("the disk is full; free space and run again"), "{refusal}");
    assert!(!refusal.contains('\n'));
    assert_eq!(assert_accounted(&Archive::open(&place(&folder)).await.unwrap()).await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_corrupt_commit_is_one_line_that_names_the_table() {
    let folder = tempfile::tempdir().unwrap();
    ship(&mut ArchiveWriter::try_new(&place(&folder)).await.unwrap(), [chunk(1, 0, 3)]).await.unwrap();
    let commit = folder.path().join("archive/auth/_delta_log/00000000000000000001.json");
    std::fs::write(&commit, "{\"add\": garbage").unwrap();
    let error = Archive::open(&place(&folder)).await.unwrap().tables().await.unwrap_err().to_string();
    assert!(error.contains("/archive/auth: ") && !error.contains('\n'), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_of_other_programs_in_the_folder_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = ArchiveWriter::try_new(&place(&folder)).await.unwrap();
    ship(&mut writer, [chunk(1, 0, 3)]).await.unwrap();
    let foreign = Path::from("somebody/elses.parquet");
    writer.archive().store().put(&foreign, vec![1].into()).await.unwrap();
    let stray = Path::from("auth/day=2024-01-15/part-stray.parquet");
    writer.archive().store().put(&stray, vec![1].into()).await.unwrap();
    assert_eq!(remove_orphans(writer.archive(), Duration::from_secs(60)).await.unwrap(), 0, "too young");
    assert_eq!(remove_orphans(writer.archive(), Duration::ZERO).await.unwrap(), 1);
    assert_eq!(unreferenced(writer.archive()).await, [foreign.to_string()]);
    assert_accounted(writer.archive()).await;
}
