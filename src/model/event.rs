//! A webhook event on its way to its window, and the aggregate that windows give.
use serde_json::json;
use xxhash_rust::xxh3::xxh3_64;

/// One event, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Who did it; a number is kept as its text.
    pub user_id: String,
    /// What was done.
    pub event_type: String,
    /// How much; finite.
    pub value: f64,
    /// When: microseconds since the epoch.
    pub timestamp_micros: i64,
    /// A JSON object on one line, if there is one.
    pub metadata: Option<String>,
}

impl Event {
    /// No value may be larger in size: 2^63 of them still have a finite sum.
    pub const MAX_VALUE: f64 = 1e280;

    /// What users are told apart by.
    #[must_use]
    pub fn user_hash(&self) -> u64 {
        xxh3_64(self.user_id.as_bytes())
    }
}

/// The aggregate of one window and event type.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowRow {
    /// First moment: milliseconds since the epoch.
    pub start_ms: i64,
    /// First moment behind it: milliseconds since the epoch.
    pub end_ms: i64,
    /// What was done.
    pub event_type: String,
    /// Events.
    pub count: u64,
    /// The exact sum of their values, rounded once.
    pub sum_value: f64,
    /// Distinct users, or an estimate of their number.
    pub unique_users: u64,
    /// Relative standard error of `unique_users`: 0 where it is exact.
    pub unique_users_error: f64,
    /// 1 when the window closes, one more with every correction.
    pub version: u64,
}

impl WindowRow {
    /// First moment in seconds since the epoch.
    #[must_use]
    pub fn start_seconds(&self) -> f64 {
        self.start_ms as f64 / 1000.0
    }

    /// First moment behind the window, in seconds since the epoch.
    #[must_use]
    pub fn end_seconds(&self) -> f64 {
        self.end_ms as f64 / 1000.0
    }

    /// `sum_value` / `count`.
    #[must_use]
    pub fn avg_value(&self) -> f64 {
        if self.count == 0 { 0.0 } else { self.sum_value / self.count as f64 }
    }

    /// A number for the row that does not depend on when it was written: a hash of window and type.
    #[must_use]
    pub fn id(&self) -> i64 {
        let mut key = Vec::with_capacity(16 + self.event_type.len());
        key.extend(self.start_ms.to_le_bytes());
        key.extend(self.end_ms.to_le_bytes());
        key.extend(self.event_type.as_bytes());
        // positive, so that no reader takes it for an error
        (xxh3_64(&key) >> 1).cast_signed()
    }

    /// The seven fields that consumers of the queue get.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        json!({
            "window_start": self.start_seconds(),
            "window_end": self.end_seconds(),
            "event_type": self.event_type,
            "count": self.count,
            "sum_value": self.sum_value,
            "avg_value": self.avg_value(),
            "unique_users": self.unique_users,
        })
    }
}
