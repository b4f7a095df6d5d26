//! What was accepted, counted apart from the server, beside what its windows say.
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::generate::events::{EVENT_TYPES, TestEvent};
use crate::model::WindowRow;
use crate::stage::sender::Outcome;
use crate::store::{Database, DatabaseLocation, StoreError};
use crate::window::ExactSum;

/// A table that is filled behind the answers is waited for this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// A table that does not change for so long has got what was accepted before.
const SETTLED: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(200);
/// Events are counted in units of this; the length of a window must be a multiple of it.
const BUCKET_MS: i64 = 100;

/// Counts what was accepted.
#[derive(Debug)]
pub(super) struct Check {
    database: Database,
    since_seconds: f64,
    before: BTreeMap<Key, WindowRow>,
    buckets: Mutex<BTreeMap<(i64, usize), Bucket>>,
}

type Key = (i64, i64, String);

#[derive(Debug, Clone, Default)]
struct Bucket {
    accepted: u64,
    unknown: u64,
    sum: ExactSum,
    /// One bit per user.
    users: u128,
}

/// What was compared.
#[derive(Debug)]
pub(super) struct Differences {
    pub(super) compared: usize,
    pub(super) found: Vec<String>,
}

impl Check {
    /// Notes what the windows hold before anything is sent.
    pub(super) async fn try_start(location: &DatabaseLocation, schema: &str) -> Result<Self, StoreError> {
        let database = Database::try_open(location, schema).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let since_seconds = now - 24.0 * 3600.0;
        let mut check = Self { database, since_seconds, before: BTreeMap::new(), buckets: Mutex::default() };
        check.before = check.rows().await?;
        if let Database::Postgres(_) = &check.database {
            // it is filled behind the answers: what was accepted before must not count as new
            loop {
                tokio::time::sleep(SETTLED).await;
                let rows = check.rows().await?;
                if rows == check.before {
                    break;
                }
                check.before = rows;
            }
        }
        Ok(check)
    }

    async fn rows(&self) -> Result<BTreeMap<Key, WindowRow>, StoreError> {
        let rows = match &self.database {
            Database::Sqlite(store) => store.windows_since(self.since_seconds).await?,
            Database::Postgres(store) => store.windows_since(self.since_seconds).await?,
        };
        let key = |row: &WindowRow| (row.start_ms, row.end_ms, row.event_type.clone());
        Ok(rows.into_iter().map(|row| (key(&row), row)).collect())
    }

    /// Counts events that were answered so.
    pub(super) fn note(&self, events: &[TestEvent], outcome: Outcome) {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        for event in events {
            let place = (event.timestamp_ms.div_euclid(BUCKET_MS), event.event_type);
            let bucket = buckets.entry(place).or_default();
            match outcome {
                Outcome::Accepted => {
                    bucket.accepted += 1;
                    bucket.sum.add(event.value);
                    bucket.users |= 1 << event.user;
                }
                Outcome::Unknown => bucket.unknown += 1,
                Outcome::Refused => {}
            }
        }
    }

    /// Looks until nothing differs, or for [`PATIENCE`].
    pub(super) async fn compare(&self) -> Result<Differences, StoreError> {
        let started = std::time::Instant::now();
        loop {
            let differences = self.differences(&self.rows().await?);
            if differences.found.is_empty() || started.elapsed() > PATIENCE {
                return Ok(differences);
            }
            tokio::time::sleep(INTERVAL).await;
        }
    }

    fn differences(&self, rows: &BTreeMap<Key, WindowRow>) -> Differences {
        let mut differences = Differences { compared: 0, found: Vec::new() };
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for (key, row) in rows {
            let Some(kind) = EVENT_TYPES.iter().position(|kind| *kind == key.2) else { continue };
            let within: Vec<_> = buckets
                .range((key.0.div_euclid(BUCKET_MS), 0)..(key.1.div_euclid(BUCKET_MS), 0))
                .map(|(place, _)| *place)
                .filter(|place| place.1 == kind)
                .collect();
            let mut expected = Bucket::default();
            for place in within {
                expected.merge(buckets.remove(&place).unwrap_or_default());
            }
            if expected.accepted + expected.unknown > 0 {
                differences.compared += 1;
                differences.found.extend(expected.difference(row, self.before.get(key)));
            }
        }
        let left: u64 = buckets.values().map(|bucket| bucket.accepted).sum();
        if left > 0 {
            differences.found.push(format!("{left} accepted events are in no window"));
        }
        differences
    }
}

impl Bucket {
    fn merge(&mut self, other: Self) {
        self.accepted += other.accepted;
        self.unknown += other.unknown;
        self.users |= other.users;
        self.sum.add_all(&other.sum);
    }

    fn difference(&self, row: &WindowRow, before: Option<&WindowRow>) -> Option<String> {
        let count = row.count - before.map_or(0, |before| before.count);
        let sum = row.sum_value - before.map_or(0.0, |before| before.sum_value);
        let is_alone = before.is_none() && self.unknown == 0;
        let expected = (self.accepted, self.sum.value(), u64::from(self.users.count_ones()));
        let fits = if is_alone {
            (row.count, row.sum_value.to_bits(), row.unique_users)
                == (expected.0, expected.1.to_bits(), expected.2)
        } else {
            // two rounded sums have been subtracted; values are at most 100
            (self.accepted..=self.accepted + self.unknown).contains(&count)
                && (sum - expected.1) > -1e-6 * row.sum_value.abs()
                && sum - expected.1 <= 100.0 * self.unknown as f64 + 1e-6 * row.sum_value.abs()
        };
        (!fits).then(|| {
            format!(
                "{} {}: count {count}, sum {sum}, users {}; accepted were count {}, sum {}, users {}{}",
                row.start_seconds(),
                row.event_type,
                row.unique_users,
                expected.0,
                expected.1,
                expected.2,
                if self.unknown > 0 {
                    format!(" and {} without an answer", self.unknown)
                } else {
                    String::new()
                }
            )
        })
    }
}
