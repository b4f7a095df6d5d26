//! What is kept of the events of one window and event type.
use super::{Bounds, ExactSum, UniqueUsers};
use crate::model::WindowRow;

/// Grows with nothing but the bounds of its parts.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Group {
    pub(super) count: u64,
    pub(super) sum: ExactSum,
    pub(super) users: UniqueUsers,
    pub(super) version: u64,
    /// It was told to the queue once.
    pub(super) is_published: bool,
    /// Changed since the last commit.
    pub(super) is_touched: bool,
    /// Changed since the last save.
    pub(super) is_unsaved: bool,
}

impl Default for Group {
    fn default() -> Self {
        Self {
            count: 0,
            sum: ExactSum::default(),
            users: UniqueUsers::default(),
            version: 1,
            is_published: false,
            is_touched: false,
            is_unsaved: false,
        }
    }
}

impl Group {
    pub(super) fn add(&mut self, user: u64, value: f64) {
        self.count += 1;
        self.sum.add(value);
        self.users.add(user);
    }

    pub(super) fn row(&self, bounds: Bounds, event_type: &str) -> WindowRow {
        WindowRow {
            start_ms: bounds.0,
            end_ms: bounds.1,
            event_type: event_type.to_owned(),
            count: self.count,
            sum_value: self.sum.value(),
            unique_users: self.users.count(),
            unique_users_error: self.users.error(),
            version: self.version,
        }
    }
}
