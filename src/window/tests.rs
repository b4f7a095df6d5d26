//! Windows against a plain reference: any order, any cuts, restarts at any place.
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// Later than all events of these tests.
const NOW: i64 = 2_000_000_000_000_000;

fn event(user: u8, event_type: u8, value: f64, micros: i64) -> Event {
    Event {
        user_id: user.to_string(),
        event_type: format!("type{event_type}"),
        value,
        timestamp_micros: micros,
        metadata: None,
    }
}

type Table = BTreeMap<(i64, i64, String), (u64, u64, u64)>;

/// What a person would write: lists in a map; the sum by integers, for values are quarters.
fn reference(events: &[Event], length_ms: i64) -> Table {
    let mut groups: BTreeMap<_, Vec<&Event>> = BTreeMap::new();
    for event in events {
        let start = event.timestamp_micros.div_euclid(length_ms * 1000) * length_ms;
        groups.entry((start, start + length_ms, event.event_type.clone())).or_default().push(event);
    }
    let row = |events: &Vec<&Event>| {
        let quarters: i64 = events.iter().map(|event| (event.value * 4.0) as i64).sum();
        let users: BTreeSet<_> = events.iter().map(|event| &event.user_id).collect();
        (events.len() as u64, (quarters as f64 / 4.0).to_bits(), users.len() as u64)
    };
    groups.into_iter().map(|(key, events)| (key, row(&events))).collect()
}

/// The table as a store keeps it: the last state of each row.
#[derive(Default)]
struct Kept {
    table: Table,
    versions: BTreeMap<(i64, i64, String), u64>,
    closed: Vec<(i64, i64, String)>,
    groups: BTreeMap<(Bounds, String), Vec<u8>>,
    marks: Option<(i64, i64)>,
    journal: Vec<Vec<u8>>,
}

impl Kept {
    fn write(&mut self, changes: Changes) {
        for row in changes.rows {
            let key = (row.start_ms, row.end_ms, row.event_type.clone());
            self.table.insert(key.clone(), (row.count, row.sum_value.to_bits(), row.unique_users));
            self.versions.insert(key, row.version);
        }
        let keys = changes.closed.into_iter().map(|row| (row.start_ms, row.end_ms, row.event_type));
        self.closed.extend(keys);
        if !changes.journal.is_empty() {
            self.journal.push(changes.journal);
        }
    }

    fn save(&mut self, windows: &mut Windows) {
        let (groups, dropped) = windows.take_unsaved();
        for saved in groups {
            self.groups.insert((saved.bounds, saved.event_type), saved.state);
        }
        self.groups.retain(|(bounds, _), _| !dropped.contains(bounds));
        self.marks = Some(windows.marks());
        self.journal.clear();
    }

    fn restore(&self, settings: Settings) -> Windows {
        let groups: Vec<_> = self
            .groups
            .iter()
            .map(|((bounds, event_type), state)| SavedGroup {
                bounds: *bounds,
                event_type: event_type.clone(),
                state: state.clone(),
            })
            .collect();
        let mut windows = Windows::try_restore(settings, self.marks, &groups).unwrap();
        for entries in &self.journal {
            windows.replay(entries).unwrap();
        }
        windows
    }
}

/// What to do after an event.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Then {
    Nothing,
    Commit,
    CommitAndSave,
    CommitAndRestart,
    SaveAndRestart,
    Silence,
}

fn then() -> impl Strategy<Value = Then> {
    prop_oneof![
        8 => Just(Then::Nothing),
        4 => Just(Then::Commit),
        1 => Just(Then::CommitAndSave),
        1 => Just(Then::CommitAndRestart),
        1 => Just(Then::SaveAndRestart),
        1 => Just(Then::Silence),
    ]
}

fn run(events: &[Event], steps: &[Then], settings: Settings) -> Kept {
    let (mut windows, mut kept) = (Windows::new(settings), Kept::default());
    for (event, then) in events.iter().zip(steps.iter().cycle()) {
        assert!(matches!(windows.add(event, NOW), Outcome::Counted { is_other: false, .. }));
        if *then == Then::Nothing {
            continue;
        }
        if *then == Then::Silence {
            windows.close_all();
        }
        kept.write(windows.commit(NOW));
        if matches!(then, Then::CommitAndSave | Then::SaveAndRestart) {
            kept.save(&mut windows);
        }
        if matches!(then, Then::CommitAndRestart | Then::SaveAndRestart) {
            windows = kept.restore(settings);
        }
    }
    windows.close_all();
    kept.write(windows.commit(NOW));
    let restored = kept.restore(settings);
    assert_eq!(
        format!("{:?}", sorted(&windows)),
        format!("{:?}", sorted(&restored)),
        "memory is what disk gives"
    );
    kept
}

fn sorted(windows: &Windows) -> Vec<(Bounds, bool, BTreeMap<String, Group>)> {
    let of_window = |window: &Window| {
        let unsaved = |group: &Group| Group { is_unsaved: false, ..group.clone() };
        window.groups.iter().map(|(name, group)| (name.to_string(), unsaved(group))).collect()
    };
    windows.open.iter().map(|(bounds, window)| (*bounds, window.is_closed, of_window(window))).collect()
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    // within ten windows: as far apart as the lateness of these tests allows
    let one = (0..20_u8, 0..4_u8, -400..400_i32, 0..10_000_000_i64);
    prop::collection::vec(one, 1..120).prop_map(|events| {
        let event = |(user, kind, quarters, micros)| {
            event(user, kind, f64::from(quarters) / 4.0, 1_700_000_000_000_000 + micros)
        };
        events.into_iter().map(event).collect()
    })
}

const SETTINGS: Settings = Settings {
    length_ms: 1000,
    allowed_lateness_ms: 10_000,
    max_event_types: 1000,
    max_groups: 4096,
    max_windows: 1024,
};

proptest! {
    #[test]
    fn order_cuts_silences_and_restarts_do_not_change_the_table(
        events in events(),
        keys in prop::collection::vec(any::<u32>(), 120),
        steps in prop::collection::vec(then(), 1..40),
    ) {
        let mut order: Vec<_> = (0..events.len()).collect();
        order.sort_by_key(|index| keys[*index]);
        let shuffled: Vec<_> = order.into_iter().map(|index| events[index].clone()).collect();
        let kept = run(&shuffled, &steps, SETTINGS);
        prop_assert_eq!(&kept.table, &reference(&events, 1000));
        // every aggregate is published once, whatever corrects it later
        let mut closed = kept.closed.clone();
        closed.sort();
        prop_assert_eq!(closed, kept.table.keys().cloned().collect::<Vec<_>>());
    }

    #[test]
    fn damaged_state_is_an_error_and_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let _told = Windows::new(SETTINGS).replay(&bytes).is_err();
        let group = SavedGroup { bounds: (0, 1000), event_type: "a".into(), state: bytes };
        let _told = Windows::try_restore(SETTINGS, None, &[group]).is_err();
    }
}

fn seconds(count: i64) -> i64 {
    (1_700_000_000 + count) * 1_000_000
}

#[test]
fn a_window_closes_by_watermark_is_corrected_and_then_takes_no_more() {
    let settings = Settings { length_ms: 10_000, allowed_lateness_ms: 20_000, ..SETTINGS };
    let mut windows = Windows::new(settings);
    let counted = |is_correction| Outcome::Counted { is_correction, is_other: false };
    assert_eq!(windows.add(&event(1, 1, 1.0, seconds(5)), NOW), counted(false));
    assert!(windows.commit(NOW).closed.is_empty(), "its end is not reached");
    assert_eq!(windows.add(&event(1, 1, 1.0, seconds(10)), NOW), counted(false));
    let changes = windows.commit(NOW);
    let closed: Vec<_> = changes.closed.iter().map(|row| (row.count, row.version)).collect();
    assert_eq!(closed, [(1, 1)]);
    assert_eq!(windows.add(&event(2, 1, 1.0, seconds(6)), NOW), counted(true));
    let changes = windows.commit(NOW);
    assert!(changes.closed.is_empty());
    let corrected: Vec<_> = changes.corrections.iter().map(|row| (row.count, row.version)).collect();
    assert_eq!(corrected, [(2, 2)]);
    windows.add(&event(1, 1, 1.0, seconds(29)), NOW);
    windows.commit(NOW);
    assert_eq!(windows.add(&event(1, 1, 1.0, seconds(6)), NOW), counted(true), "the floor is before its end");
    windows.add(&event(1, 1, 1.0, seconds(30)), NOW);
    windows.commit(NOW);
    assert_eq!(windows.add(&event(1, 1, 1.0, seconds(6)), NOW), Outcome::TooLate);
    assert_eq!(windows.take_unsaved().1, [(1_700_000_000_000, 1_700_000_010_000)], "it left memory");
}

#[test]
fn a_sender_whose_clock_is_ahead_makes_nobody_else_late() {
    let mut windows = Windows::new(SETTINGS);
    let now = seconds(0);
    windows.add(&event(1, 1, 1.0, seconds(3000)), now);
    windows.commit(now);
    let outcome = windows.add(&event(1, 1, 1.0, seconds(0)), now);
    assert_eq!(outcome, Outcome::Counted { is_correction: false, is_other: false });
}

#[test]
fn a_wider_lateness_after_a_restart_does_not_reopen_what_left_memory() {
    let mut windows = Windows::new(SETTINGS);
    let mut kept = Kept::default();
    windows.add(&event(1, 1, 1.0, seconds(0)), NOW);
    windows.add(&event(1, 1, 1.0, seconds(100)), NOW);
    kept.write(windows.commit(NOW));
    let mut windows = kept.restore(Settings { allowed_lateness_ms: 1_000_000, ..SETTINGS });
    assert_eq!(windows.add(&event(1, 1, 1.0, seconds(0)), NOW), Outcome::TooLate);
}

#[test]
fn hostile_events_find_bounds_and_are_told() {
    let settings = Settings { max_event_types: 3, max_groups: 6, max_windows: 4, ..SETTINGS };
    let mut windows = Windows::new(settings);
    let mut outcomes = Vec::new();
    for kind in 0..5 {
        outcomes.push(windows.add(&event(1, kind, 1.0, seconds(0)), NOW));
    }
    let is_other: Vec<_> =
        outcomes.iter().map(|one| matches!(one, Outcome::Counted { is_other: true, .. })).collect();
    assert_eq!(is_other, [false, false, false, true, true]);
    for second in 1..4 {
        for kind in 0..5 {
            windows.add(&event(1, kind, 1.0, seconds(second)), NOW);
        }
    }
    assert!(windows.num_groups() <= 6 + 4, "{}", windows.num_groups());
    assert_eq!(windows.add(&event(1, 0, 1.0, seconds(9)), NOW), Outcome::NoRoom);
    let changes = windows.commit(NOW);
    let count: u64 = changes.rows.iter().map(|row| row.count).sum();
    assert_eq!(count, 20, "every event is counted somewhere");
}
