//! Windows as bytes: the journal of each commit, and the saved state of a group.
//!
//! Journal of a commit, little-endian, entries in order of time:
//!
//! ```text
//! 1 | start i64 | end i64 | len u8 | event type | user hash u64 | value f64     an event
//! 2 | start i64 | end i64                                                       a window closed
//! 3 | newest event time i64 | floor i64                                         the end of a commit
//! ```
//!
//! State of a group:
//!
//! ```text
//! version u64 | flags u8 (1: window closed, 2: published, 4: users estimated) | count u64
//!   | parts u16 | parts * f64 | users u16 | users * u64, or the registers
//! ```
use thiserror::Error;

use super::group::Group;
use super::unique_users::{REGISTERS, Registers};
use super::{Bounds, Changes, EXACT_USERS, ExactSum, Settings, UniqueUsers, Windows};

const EVENT: u8 = 1;
const CLOSE: u8 = 2;
const MARKS: u8 = 3;

const IS_CLOSED: u8 = 1;
const IS_PUBLISHED: u8 = 2;
const IS_ESTIMATED: u8 = 4;

/// State that was not written by this program, or is damaged.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("the {0} of windows cannot be read: it is damaged, or of a newer version of this program")]
pub struct DamagedState(&'static str);

/// One group as it is kept on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SavedGroup {
    /// Its window.
    pub bounds: Bounds,
    /// Its event type.
    pub event_type: String,
    /// Everything else.
    pub state: Vec<u8>,
}

pub(super) fn write_event(journal: &mut Vec<u8>, bounds: Bounds, event_type: &str, user: u64, value: f64) {
    // longer types are refused where events enter
    let Ok(len) = u8::try_from(event_type.len()) else { return };
    journal.push(EVENT);
    write_bounds(journal, bounds);
    journal.push(len);
    journal.extend(event_type.as_bytes());
    journal.extend(user.to_le_bytes());
    journal.extend(value.to_le_bytes());
}

pub(super) fn write_close(journal: &mut Vec<u8>, bounds: Bounds) {
    journal.push(CLOSE);
    write_bounds(journal, bounds);
}

pub(super) fn write_marks(journal: &mut Vec<u8>, newest_micros: i64, floor_ms: i64) {
    journal.push(MARKS);
    journal.extend(newest_micros.to_le_bytes());
    journal.extend(floor_ms.to_le_bytes());
}

fn write_bounds(journal: &mut Vec<u8>, bounds: Bounds) {
    journal.extend(bounds.0.to_le_bytes());
    journal.extend(bounds.1.to_le_bytes());
}

impl Windows {
    /// The state that was saved: newest event time and floor, then every group.
    pub fn try_restore(
        settings: Settings,
        marks: Option<(i64, i64)>,
        groups: &[SavedGroup],
    ) -> Result<Self, DamagedState> {
        let mut windows = Self::new(settings);
        if let Some((newest_micros, floor_ms)) = marks {
            (windows.newest_micros, windows.floor_ms) = (newest_micros, floor_ms);
        }
        for saved in groups {
            let (group, is_closed) = read_group(&saved.state).ok_or(DamagedState("saved state"))?;
            let window = windows.open.entry(saved.bounds).or_default();
            window.is_closed |= is_closed;
            window.groups.insert(saved.event_type.as_str().into(), group);
            windows.num_groups += 1;
        }
        Ok(windows)
    }

    /// Does what one commit's journal says.
    pub fn replay(&mut self, journal: &[u8]) -> Result<Changes, DamagedState> {
        let changes = self.replay_entries(journal).ok_or(DamagedState("journal"))?;
        Ok(changes)
    }

    fn replay_entries(&mut self, journal: &[u8]) -> Option<Changes> {
        let mut input = Input(journal);
        while !input.0.is_empty() {
            match input.byte()? {
                EVENT => {
                    let bounds = input.bounds()?;
                    let len = usize::from(input.byte()?);
                    let event_type = std::str::from_utf8(input.take(len)?).ok()?;
                    let (user, value) = (input.number()?, f64::from_bits(input.number()?));
                    self.count(bounds, event_type, user, value);
                }
                CLOSE => {
                    let bounds = input.bounds()?;
                    self.close(bounds);
                }
                MARKS => {
                    self.newest_micros = input.number()?.cast_signed();
                    self.floor_ms = input.number()?.cast_signed();
                }
                _ => return None,
            }
        }
        Some(self.finish())
    }

    /// Newest event time and floor, to be saved with the groups. `None` before the first event.
    #[must_use]
    pub fn marks(&self) -> (i64, i64) {
        (self.newest_micros, self.floor_ms)
    }

    /// What has to be written and removed for the saved state to be that of the last commit.
    pub fn take_unsaved(&mut self) -> (Vec<SavedGroup>, Vec<Bounds>) {
        let mut unsaved = Vec::new();
        for (bounds, window) in &mut self.open {
            for (event_type, group) in &mut window.groups {
                if std::mem::take(&mut group.is_unsaved) {
                    let state = write_group(group, window.is_closed);
                    unsaved.push(SavedGroup { bounds: *bounds, event_type: event_type.to_string(), state });
                }
            }
        }
        (unsaved, std::mem::take(&mut self.dropped))
    }
}

fn write_group(group: &Group, is_closed: bool) -> Vec<u8> {
    let is_estimated = matches!(group.users, UniqueUsers::Estimated(_));
    let flags = [(is_closed, IS_CLOSED), (group.is_published, IS_PUBLISHED), (is_estimated, IS_ESTIMATED)];
    let mut out = Vec::with_capacity(64);
    out.extend(group.version.to_le_bytes());
    out.push(flags.iter().filter(|(is_set, _)| *is_set).map(|(_, flag)| flag).sum());
    out.extend(group.count.to_le_bytes());
    let len = |len: usize| u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes();
    out.extend(len(group.sum.parts.len()));
    group.sum.parts.iter().for_each(|part| out.extend(part.to_le_bytes()));
    match &group.users {
        UniqueUsers::Exact(hashes) => {
            out.extend(len(hashes.len()));
            hashes.iter().for_each(|hash| out.extend(hash.to_le_bytes()));
        }
        UniqueUsers::Estimated(registers) => {
            out.extend(len(0));
            out.extend(registers.values);
        }
    }
    out
}

fn read_group(state: &[u8]) -> Option<(Group, bool)> {
    let mut input = Input(state);
    let version = input.number()?;
    let flags = input.byte()?;
    let count = input.number()?;
    let num_parts = input.len()?;
    let parts = (0..num_parts).map(|_| input.number().map(f64::from_bits)).collect::<Option<_>>()?;
    let num_users = input.len()?;
    let users = if flags & IS_ESTIMATED != 0 {
        let registers = Registers::from_values(input.take(REGISTERS)?.try_into().ok()?);
        UniqueUsers::Estimated(Box::new(registers))
    } else {
        let hashes = (0..num_users).map(|_| input.number()).collect::<Option<Vec<_>>>()?;
        (hashes.len() <= EXACT_USERS).then_some(UniqueUsers::Exact(hashes))?
    };
    let is_published = flags & IS_PUBLISHED != 0;
    let group = Group { count, sum: ExactSum { parts }, users, version, is_published, ..Group::default() };
    input.0.is_empty().then_some((group, flags & IS_CLOSED != 0))
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        Some(self.take(1)?[0])
    }

    fn len(&mut self) -> Option<usize> {
        Some(usize::from(u16::from_le_bytes(self.take(2)?.try_into().ok()?)))
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take(8)?.try_into().ok()?))
    }

    fn bounds(&mut self) -> Option<Bounds> {
        Some((self.number()?.cast_signed(), self.number()?.cast_signed()))
    }
}
