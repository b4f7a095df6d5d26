//! What a statement read, and what it could leave unread: noted by the tables when they are scanned.
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

/// Bytes and requests that a place gave, counted while they come.
#[derive(Debug, Default)]
pub struct Counter {
    bytes: AtomicU64,
    requests: AtomicU64,
}

impl Counter {
    pub(super) fn add(&self, bytes: u64, requests: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.requests.fetch_add(requests, Ordering::Relaxed);
    }

    /// Starts anew: a table's counter outlives its statements.
    pub(super) fn reset(&self) {
        self.bytes.store(0, Ordering::Relaxed);
        self.requests.store(0, Ordering::Relaxed);
    }

    /// Bytes and requests since the last call; starts anew.
    pub fn take(&self) -> (u64, u64) {
        let values = self.values();
        self.reset();
        values
    }

    fn values(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.requests.load(Ordering::Relaxed))
    }
}

/// What the scans of the running statement note. Their counters go on counting.
#[derive(Debug, Clone, Default)]
pub(super) struct Notes(Arc<Mutex<Vec<Noted>>>);

/// A scan, and what counts while it runs.
type Noted = (Scan, Arc<Counter>);

impl Notes {
    /// Files that a scan reads, of those that the table has.
    pub(super) fn files(
        &self,
        place: &str,
        table: &str,
        (read, all): (usize, usize),
        counter: &Arc<Counter>,
    ) {
        let scan = Scan { files_read: Some(read), files: Some(all), ..Scan::new(place, table) };
        self.push(scan, counter);
    }

    /// Statements that a scan sends.
    pub(super) fn sql(&self, place: &str, table: &str, sql: Vec<String>, counter: &Arc<Counter>) {
        self.push(Scan { sql, ..Scan::new(place, table) }, counter);
    }

    fn push(&self, scan: Scan, counter: &Arc<Counter>) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // a table that is scanned twice counts both scans in one
        match notes.iter_mut().find(|(_, known)| Arc::ptr_eq(known, counter)) {
            Some((known, _)) => known.files_read = known.files_read.max(scan.files_read),
            None => notes.push((scan, Arc::clone(counter))),
        }
    }

    /// What the statement's scans took; they are forgotten.
    pub(super) fn take(&self) -> Vec<Scan> {
        let notes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        let counted = |(scan, counter): Noted| {
            let (bytes, requests) = counter.values();
            Scan { bytes: Some(bytes), requests: Some(requests), ..scan }
        };
        notes.into_iter().map(counted).collect()
    }
}

/// What one table's scan in one place took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scan {
    /// The archive, database or raw input, without passwords.
    pub place: String,
    /// The table.
    pub table: String,
    /// Files that could hold a matching row.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files_read: Option<usize>,
    /// Files of the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub files: Option<usize>,
    /// Statements sent to a database.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sql: Vec<String>,
    /// Bytes that came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Requests made: reads of a store, statements to a database.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
}

impl Scan {
    fn new(place: &str, table: &str) -> Self {
        let (place, table) = (place.to_owned(), table.to_owned());
        Self { place, table, files_read: None, files: None, sql: Vec::new(), bytes: None, requests: None }
    }

    /// The same where other processes read: this one has counted nothing.
    pub(super) fn read_elsewhere(self) -> Self {
        Self { bytes: None, requests: None, ..self }
    }
}

impl fmt::Display for Scan {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let (Some(read), Some(all)) = (self.files_read, self.files) {
            parts.push(format!("{read} of {all} files"));
        }
        parts.extend(self.bytes.map(|bytes| format!("{bytes} bytes")));
        parts.extend(self.requests.map(|requests| format!("{requests} requests")));
        write!(out, "{} {}: {}", self.place, self.table, parts.join(", "))?;
        self.sql.iter().try_for_each(|sql| write!(out, "\n  {sql}"))
    }
}

/// A statement that was run to see what it takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// Rows of its result.
    pub rows: u64,
    /// From the first look at the places to the last row.
    pub elapsed_micros: u64,
    /// What was read.
    pub scans: Vec<Scan>,
    /// The plan, with what each step did.
    pub plan: Vec<String>,
}

impl fmt::Display for Explained {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.elapsed_micros as f64 / 1e3;
        writeln!(out, "{} rows in {millis:.3} ms", self.rows)?;
        self.scans.iter().try_for_each(|scan| writeln!(out, "{scan}"))?;
        self.plan.iter().try_for_each(|line| writeln!(out, "{line}"))
    }
}
