//! One lane per table: a blocking task that buffers the table's rows by day and encodes them into files.
//!
//! Rows are kept as Arrow until their file is written in one go, so that at most one file per table is being
//! encoded, whatever mix of days arrives. What waits is bounded: the queue by [`QUEUED_BATCHES`] batches of one
//! chunk each, the buffers by [`BUFFER_BYTES`], all lanes together by the writer. A file is put as soon as it
//! is encoded; it counts for nothing until its group commits.
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, AsArray, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::TimestampMicrosecondType;
use chrono::Utc;
use object_store::ObjectStore;
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::LakeError;
use super::encode::{EncodedFile, encode};
use super::schema::Layout;
use super::upload::{Content, upload};
use crate::model::{FIRST_DAY, FUTURE_DAYS, MAX_NEW_DAYS, MICROS_PER_DAY};

/// Batches that wait for a lane.
const QUEUED_BATCHES: usize = 4;
/// Arrow bytes that a lane keeps before it writes the file of its fullest day.
const BUFFER_BYTES: usize = 16 << 20;

/// A file that is stored but not committed.
#[derive(Debug)]
pub(super) struct NewFile {
    /// Location relative to the archive's root.
    pub(super) path: String,
    pub(super) size_bytes: u64,
    /// The `add` action.
    pub(super) add: Value,
}

enum Order {
    Rows(RecordBatch),
    Close(oneshot::Sender<Result<Vec<NewFile>, LakeError>>),
}

/// The writer's end of a lane. Dropping it drops what is buffered.
#[derive(Debug)]
pub(super) struct Lane {
    table: String,
    orders: mpsc::Sender<Order>,
    buffered: Arc<AtomicUsize>,
}

impl Lane {
    /// Starts the lane of a table that has files of `known_days`; `buffered` counts the bytes of all lanes.
    pub(super) fn start(
        layout: Layout,
        known_days: HashSet<i32>,
        store: Arc<dyn ObjectStore>,
        buffered: Arc<AtomicUsize>,
    ) -> Self {
        let (orders, queue) = mpsc::channel(QUEUED_BATCHES);
        let table = layout.name.clone();
        let worker = Worker {
            layout,
            known_days,
            new_days: HashSet::new(),
            store,
            runtime: Handle::current(),
            buffered: Arc::clone(&buffered),
            days: BTreeMap::new(),
            puts: Vec::new(),
            failure: None,
        };
        tokio::task::spawn_blocking(move || worker.run(queue));
        Self { table, orders, buffered }
    }

    /// Takes rows; waits while the queue is full.
    pub(super) async fn write(&self, rows: RecordBatch) -> Result<(), LakeError> {
        self.buffered.fetch_add(rows.get_array_memory_size(), Ordering::Relaxed);
        self.orders.send(Order::Rows(rows)).await.map_err(|_| self.stopped())
    }

    /// Writes what is buffered; returns every file since the last close once all are stored.
    pub(super) async fn close(&self) -> Result<Vec<NewFile>, LakeError> {
        let (reply, files) = oneshot::channel();
        self.orders.send(Order::Close(reply)).await.map_err(|_| self.stopped())?;
        files.await.map_err(|_| self.stopped())?
    }

    fn stopped(&self) -> LakeError {
        LakeError::encode(&self.table, "its encoder stopped; run again")
    }
}

/// Rows of one day that wait.
#[derive(Debug, Default)]
struct DayBuffer {
    batches: Vec<RecordBatch>,
    len_bytes: usize,
}

struct Worker {
    layout: Layout,
    known_days: HashSet<i32>,
    new_days: HashSet<i32>,
    store: Arc<dyn ObjectStore>,
    runtime: Handle,
    buffered: Arc<AtomicUsize>,
    days: BTreeMap<Option<i32>, DayBuffer>,
    puts: Vec<JoinHandle<Result<NewFile, LakeError>>>,
    failure: Option<LakeError>,
}

impl Worker {
    fn run(mut self, mut queue: mpsc::Receiver<Order>) {
        while let Some(order) = queue.blocking_recv() {
            match order {
                Order::Rows(rows) => self.buffer(rows),
                Order::Close(reply) => {
                    let _writer_may_be_gone = reply.send(self.close());
                }
            }
        }
    }

    fn buffer(&mut self, rows: RecordBatch) {
        let (len_bytes, num_rows) = (rows.get_array_memory_size(), rows.num_rows().max(1));
        match self.split_by_day(rows) {
            Ok(parts) => {
                for (day, part) in parts {
                    let buffer = self.days.entry(day).or_default();
                    buffer.len_bytes += (len_bytes * part.num_rows()).div_ceil(num_rows);
                    buffer.batches.push(part);
                }
            }
            Err(cause) => self.failure = Some(LakeError::encode(&self.layout.name, cause)),
        }
        while self.days.values().map(|buffer| buffer.len_bytes).sum::<usize>() > BUFFER_BYTES {
            let fullest = self.days.iter().max_by_key(|(_, buffer)| buffer.len_bytes).map(|(day, _)| *day);
            self.write_file(fullest.unwrap_or_default());
        }
    }

    fn write_file(&mut self, day: Option<i32>) {
        let Some(buffer) = self.days.remove(&day) else { return };
        if self.failure.is_none() {
            match encode(&self.layout, day, &buffer.batches) {
                Ok(file) => self.puts.push(self.runtime.spawn(put(Arc::clone(&self.store), file))),
                Err(cause) => self.failure = Some(cause),
            }
        }
        self.buffered
            .fetch_sub(buffer.len_bytes.min(self.buffered.load(Ordering::Relaxed)), Ordering::Relaxed);
    }

    fn close(&mut self) -> Result<Vec<NewFile>, LakeError> {
        while let Some(day) = self.days.keys().next().copied() {
            self.write_file(day);
        }
        self.known_days.extend(self.new_days.drain());
        let mut files = Vec::new();
        for stored in std::mem::take(&mut self.puts) {
            match self.runtime.block_on(stored) {
                Ok(Ok(file)) => files.push(file),
                Ok(Err(cause)) => self.failure = Some(cause),
                Err(cause) => self.failure = Some(LakeError::encode(&self.layout.name, cause)),
            }
        }
        self.failure.take().map_or(Ok(files), Err)
    }

    /// The rows of each day, in arrival order.
    fn split_by_day(
        &mut self,
        rows: RecordBatch,
    ) -> Result<Vec<(Option<i32>, RecordBatch)>, arrow::error::ArrowError> {
        let Some(times) = self.layout.timestamp.as_deref().and_then(|name| rows.column_by_name(name)) else {
            return Ok(vec![(None, rows)]);
        };
        let times = times.as_primitive_opt::<TimestampMicrosecondType>().cloned();
        let Some(times) = times else {
            return Err(arrow::error::ArrowError::SchemaError(
                "the event time is not in microseconds".into(),
            ));
        };
        let last_day = (Utc::now().timestamp() / 86_400) as i32 + FUTURE_DAYS;
        let mut last = None;
        let mut day_of = |row: usize| {
            let read = times.is_valid(row).then(|| times.value(row).div_euclid(MICROS_PER_DAY) as i32)?;
            // rows of one day mostly follow each other
            if let Some((known, day)) = last
                && known == read
            {
                return day;
            }
            let day = Some(read).filter(|day| (FIRST_DAY..=last_day).contains(day));
            let day = day.filter(|day| self.admits(*day));
            last = Some((read, day));
            day
        };
        let days: Vec<_> = (0..rows.num_rows()).map(&mut day_of).collect();
        let distinct: BTreeSet<_> = days.chunk_by(|a, b| a == b).map(|run| run[0]).collect();
        if let (Some(day), 1) = (distinct.first(), distinct.len()) {
            return Ok(vec![(*day, rows)]);
        }
        let rows_of = |day: Option<i32>| {
            let indices = (0u32..).zip(&days).filter(|(_, of_row)| **of_row == day).map(|(row, _)| row);
            Ok((day, take_record_batch(&rows, &UInt32Array::from_iter_values(indices))?))
        };
        distinct.into_iter().map(rows_of).collect()
    }

    fn admits(&mut self, day: i32) -> bool {
        self.known_days.contains(&day)
            || self.new_days.contains(&day)
            || (self.new_days.len() < MAX_NEW_DAYS && self.new_days.insert(day))
    }
}

/// Stores a file durably, without committing it.
pub(super) async fn put(store: Arc<dyn ObjectStore>, file: EncodedFile) -> Result<NewFile, LakeError> {
    let content = Content::Memory(file.bytes);
    upload(store.as_ref(), &file.path, &content).await?;
    Ok(NewFile { path: file.path, size_bytes: content.len_bytes(), add: file.add })
}
