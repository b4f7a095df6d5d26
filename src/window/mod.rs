//! Tumbling windows by event time: events in, aggregates out. Pure.
//!
//! A window is `[n * length, (n + 1) * length)` since the epoch. The *watermark* is the newest event time seen, but
//! never later than the clock, so that one sender whose clock is ahead cannot make everybody else late. A window is
//! closed when the watermark reaches its end (or by [`Windows::close_all`], when events stop). It takes events, which
//! correct it, until the *floor*, watermark - allowed lateness, reaches its end; then it leaves memory for good.
//!
//! Invariants: what a window holds depends on the set of its events alone, not on their order, to the last bit; the
//! same journal gives the same state; every collection has a bound. Deliberately absent: clocks (callers tell the
//! time), and where anything is stored.
use std::collections::{BTreeMap, HashMap};

use crate::model::{Event, WindowRow};

mod exact_sum;
mod group;
mod journal;
mod unique_users;

pub use self::exact_sum::ExactSum;
use self::group::Group;
pub use self::journal::{DamagedState, SavedGroup};
pub use self::unique_users::{EXACT_USERS, UniqueUsers};

/// The event type that stands for all above [`Settings::max_event_types`].
pub const OTHER: &str = "other";

/// Longest event type, in bytes: the journal has one byte for it.
pub const MAX_EVENT_TYPE_LEN: usize = 128;

/// How windows are cut and what they may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Milliseconds; at least 1.
    pub length_ms: i64,
    /// How long behind the watermark a window takes events, in milliseconds.
    pub allowed_lateness_ms: i64,
    /// Distinct event types of one window; more are counted as [`OTHER`].
    pub max_event_types: usize,
    /// Pairs of window and event type in memory; above it new types are counted as [`OTHER`].
    pub max_groups: usize,
    /// Windows in memory; an event that would open one more is refused.
    pub max_windows: usize,
}

impl Default for Settings {
    /// At most 4,096 groups of at most 8 KiB: 32 MiB.
    fn default() -> Self {
        Self {
            length_ms: 60_000,
            allowed_lateness_ms: 60_000,
            max_event_types: 1000,
            max_groups: 4096,
            max_windows: 1024,
        }
    }
}

/// First moment of a window and first moment behind it, in milliseconds.
pub type Bounds = (i64, i64);

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Counted in its window.
    Counted {
        /// The window was closed: its rows are corrected.
        is_correction: bool,
        /// Under [`OTHER`] instead of its own type.
        is_other: bool,
    },
    /// Its window takes no more events.
    TooLate,
    /// [`Settings::max_windows`] windows are open already.
    NoRoom,
}

/// What one commit changed.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Changes {
    /// To be written before anything of this is acknowledged; [`Windows::replay`] reads it. Empty: nothing changed.
    pub journal: Vec<u8>,
    /// The present state of every group that changed.
    pub rows: Vec<WindowRow>,
    /// Groups whose window closed with this commit.
    pub closed: Vec<WindowRow>,
    /// Groups of closed windows that changed once more.
    pub corrections: Vec<WindowRow>,
}

/// All windows that may still change.
///
/// ```
/// use pipeline::model::Event;
/// use pipeline::window::{Settings, Windows};
///
/// let mut windows = Windows::new(Settings::default());
/// let event = |seconds: i64, value| Event {
///     user_id: "alice".into(),
///     event_type: "click".into(),
///     value,
///     timestamp_micros: seconds * 1_000_000,
///     metadata: None,
/// };
/// let now = 1_000_000_000;
/// windows.add(&event(61, 0.1), now);
/// windows.add(&event(119, 0.2), now);
/// windows.add(&event(120, 9.0), now);
/// let changes = windows.commit(now);
/// let [closed] = &changes.closed[..] else { panic!("one window is over") };
/// assert_eq!((closed.start_ms, closed.count, closed.unique_users), (60_000, 2, 1));
/// ```
#[derive(Debug)]
pub struct Windows {
    settings: Settings,
    open: BTreeMap<Bounds, Window>,
    num_groups: usize,
    /// Newest event time, in microseconds.
    newest_micros: i64,
    /// Windows that end here or before take no more events. Never goes back, whatever the settings become.
    floor_ms: i64,
    /// Groups changed since the last commit.
    touched: Vec<(Bounds, Box<str>)>,
    journal: Vec<u8>,
    /// Windows that left memory since the last save.
    dropped: Vec<Bounds>,
}

#[derive(Debug, Default)]
struct Window {
    is_closed: bool,
    groups: HashMap<Box<str>, Group>,
}

impl Windows {
    /// None yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            open: BTreeMap::new(),
            num_groups: 0,
            newest_micros: i64::MIN,
            floor_ms: i64::MIN,
            touched: Vec::new(),
            journal: Vec::new(),
            dropped: Vec::new(),
        }
    }

    /// Counts one event. `now_micros` is the clock, microseconds since the epoch.
    pub fn add(&mut self, event: &Event, now_micros: i64) -> Outcome {
        let bounds = self.bounds(event.timestamp_micros);
        if bounds.1 <= self.floor_ms {
            return Outcome::TooLate;
        }
        if !self.open.contains_key(&bounds) && self.open.len() >= self.settings.max_windows {
            return Outcome::NoRoom;
        }
        let is_full = self.num_groups >= self.settings.max_groups;
        let window = self.open.get(&bounds);
        let groups = window.map(|window| &window.groups);
        let is_known = groups.is_some_and(|groups| groups.contains_key(event.event_type.as_str()));
        let num_types = groups.map_or(0, HashMap::len);
        let is_other = !is_known && (is_full || num_types >= self.settings.max_event_types);
        let is_correction = window.is_some_and(|window| window.is_closed)
            || bounds.1.saturating_mul(1000) <= self.watermark_micros(now_micros);
        let event_type = if is_other { OTHER } else { &event.event_type };
        journal::write_event(&mut self.journal, bounds, event_type, event.user_hash(), event.value);
        self.count(bounds, event_type, event.user_hash(), event.value);
        self.newest_micros = self.newest_micros.max(event.timestamp_micros);
        Outcome::Counted { is_correction, is_other }
    }

    /// Closes every window, as when no event came for a while.
    pub fn close_all(&mut self) {
        let open = self.open.iter().filter(|(_, window)| !window.is_closed);
        let open: Vec<_> = open.map(|(bounds, _)| *bounds).collect();
        open.into_iter().for_each(|bounds| self.close(bounds));
    }

    /// Ends a group of events: closes what the watermark has passed and says what changed.
    pub fn commit(&mut self, now_micros: i64) -> Changes {
        let watermark = self.watermark_micros(now_micros);
        let passed = self.open.iter().filter(|(_, window)| !window.is_closed);
        let passed = passed.filter(|(bounds, _)| bounds.1.saturating_mul(1000) <= watermark);
        let passed: Vec<_> = passed.map(|(bounds, _)| *bounds).collect();
        passed.into_iter().for_each(|bounds| self.close(bounds));
        let floor = watermark.div_euclid(1000).saturating_sub(self.settings.allowed_lateness_ms);
        let floor = self.floor_ms.max(if watermark == i64::MIN { i64::MIN } else { floor });
        let leaves = self.open.first_key_value().is_some_and(|(bounds, _)| bounds.1 <= floor);
        if self.journal.is_empty() && !leaves {
            return Changes::default();
        }
        journal::write_marks(&mut self.journal, self.newest_micros, floor);
        self.floor_ms = floor;
        self.finish()
    }

    /// Whether any window is neither closed nor empty.
    #[must_use]
    pub fn has_open(&self) -> bool {
        self.open.values().any(|window| !window.is_closed)
    }

    /// Pairs of window and event type in memory.
    #[must_use]
    pub fn num_groups(&self) -> usize {
        self.num_groups
    }

    fn bounds(&self, timestamp_micros: i64) -> Bounds {
        let length = self.settings.length_ms;
        let start = timestamp_micros.div_euclid(1000).div_euclid(length) * length;
        (start, start + length)
    }

    fn watermark_micros(&self, now_micros: i64) -> i64 {
        self.newest_micros.min(now_micros)
    }

    fn count(&mut self, bounds: Bounds, event_type: &str, user: u64, value: f64) {
        let window = self.open.entry(bounds).or_default();
        if !window.groups.contains_key(event_type) {
            window.groups.insert(event_type.into(), Group::default());
            self.num_groups += 1;
        }
        let Some(group) = window.groups.get_mut(event_type) else { return };
        group.add(user, value);
        if !std::mem::replace(&mut group.is_touched, true) {
            self.touched.push((bounds, event_type.into()));
        }
    }

    fn close(&mut self, bounds: Bounds) {
        let Some(window) = self.open.get_mut(&bounds) else { return };
        window.is_closed = true;
        journal::write_close(&mut self.journal, bounds);
        for (event_type, group) in &mut window.groups {
            // its row does not change, but it is to be published
            if !std::mem::replace(&mut group.is_touched, true) {
                self.touched.push((bounds, event_type.clone()));
            }
        }
    }

    /// What is the same after events and after their replay: versions, publishing, and leaving memory.
    fn finish(&mut self) -> Changes {
        let mut changes = Changes { journal: std::mem::take(&mut self.journal), ..Changes::default() };
        for (bounds, event_type) in std::mem::take(&mut self.touched) {
            let Some(window) = self.open.get_mut(&bounds) else { continue };
            let Some(group) = window.groups.get_mut(&event_type) else { continue };
            group.is_touched = false;
            group.is_unsaved = true;
            let is_correction = window.is_closed && group.is_published;
            group.version += u64::from(is_correction);
            let row = group.row(bounds, &event_type);
            if is_correction {
                changes.corrections.push(row.clone());
            } else if window.is_closed {
                group.is_published = true;
                changes.closed.push(row.clone());
            }
            changes.rows.push(row);
        }
        while let Some(first) = self.open.first_entry().filter(|first| first.key().1 <= self.floor_ms) {
            let (bounds, window) = first.remove_entry();
            self.num_groups -= window.groups.len();
            self.dropped.push(bounds);
        }
        changes
    }
}

#[cfg(test)]
mod tests;
