//! One group of requests: counted in memory, written in one transaction, answered.
use rusqlite::Connection;

use super::{Answer, Queued, Request, SinkOutbox, kinds_of, report_groups};
use crate::store::windows::Commit;
use crate::store::windows::outbox::Kind;
use crate::telemetry::Metric;
use crate::webhook;
use crate::window::{Changes, Outcome, Windows};

/// State is saved when the journal has grown so far: it is read in a tenth of a second at the start.
const MAX_JOURNAL_BYTES: usize = 4 << 20;

/// What to do besides requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) now_micros: i64,
    /// No event came for as long as a window is.
    pub(super) is_silent: bool,
    /// State could not be written before: something is written to find out.
    pub(super) is_probe: bool,
    /// Nothing will come any more.
    pub(super) is_end: bool,
}

/// The windows, on their way from one transaction to the next. Lost with the transaction that fails.
#[derive(Debug)]
pub(super) struct Writer {
    windows: Windows,
    sinks: Vec<SinkOutbox>,
    keeps_lines: bool,
    journal_bytes: usize,
    /// The last group had events that were counted.
    has_counted: bool,
    /// There may be identities to expire.
    expires: bool,
    expired_at_micros: i64,
}

/// Counted after the commit.
#[derive(Debug, Default)]
struct Tally {
    accepted: u64,
    duplicates: u64,
    corrections: u64,
    too_late: u64,
    other: u64,
    rejected: u64,
}

/// Expired identities are looked for this often.
const EXPIRY_MICROS: i64 = 60_000_000;

impl Writer {
    pub(super) fn new(windows: Windows, sinks: Vec<SinkOutbox>, keeps_lines: bool) -> Self {
        report_groups(&windows);
        Self {
            windows,
            sinks,
            keeps_lines,
            journal_bytes: 0,
            has_counted: false,
            expires: true,
            expired_at_micros: 0,
        }
    }

    /// Whether the last group had events that were counted.
    pub(super) fn has_counted(&self) -> bool {
        self.has_counted
    }

    /// Does all of it, and answers. On an error nothing is written, and dropping the requests answers them.
    pub(super) fn write(
        mut self: Box<Self>,
        connection: &mut Connection,
        requests: Vec<Queued>,
        step: Step,
    ) -> rusqlite::Result<Box<Self>> {
        self.has_counted = false;
        if step.is_silent && requests.is_empty() {
            self.windows.close_all();
        }
        if requests.is_empty() {
            let changes = self.windows.commit(step.now_micros);
            let expires = self.expires || step.now_micros - self.expired_at_micros > EXPIRY_MICROS;
            if changes == Changes::default() && !expires && !step.is_end && !step.is_probe {
                return Ok(self);
            }
            let commit = Commit::begin(connection)?;
            self.write_changes(&commit, &changes)?;
            if expires {
                self.expires = commit.expire_ids()?;
                self.expired_at_micros = step.now_micros;
            }
            self.save_if(step.is_end || step.is_probe || !changes.closed.is_empty(), &commit)?;
            commit.commit()?;
            report(&Tally::default(), &changes, &self.windows);
            return Ok(self);
        }
        let commit = Commit::begin(connection)?;
        let (mut tally, mut lines) = (Tally::default(), Vec::new());
        let mut answers = Vec::with_capacity(requests.len());
        for (request, answer) in requests {
            let given = self.count(&commit, request, step.now_micros, &mut tally, &mut lines)?;
            answers.push((answer, given));
        }
        let changes = self.windows.commit(step.now_micros);
        self.write_changes(&commit, &changes)?;
        if !lines.is_empty() {
            commit.lines(&lines)?;
        }
        self.save_if(self.journal_bytes > MAX_JOURNAL_BYTES, &commit)?;
        commit.commit()?;
        self.has_counted = tally.accepted > 0;
        // before the answers: who has one finds it counted
        report(&tally, &changes, &self.windows);
        for (answer, given) in answers {
            // a sender that went away asks again
            let _gone = answer.send(given);
        }
        Ok(self)
    }

    fn count(
        &mut self,
        commit: &Commit<'_>,
        request: Request,
        now_micros: i64,
        tally: &mut Tally,
        lines: &mut Vec<u8>,
    ) -> rusqlite::Result<Answer> {
        let mut num_without_room = 0;
        if let Some(id) = request.id
            && !commit.is_new(&id)?
        {
            tally.duplicates += request.events.len() as u64;
            return Ok(match commit.is_known(&webhook::in_part(&id))? {
                true => Answer::TakenInPart,
                false => Answer::Committed { num_without_room },
            });
        }
        let num_taken_before = tally.accepted + tally.duplicates;
        for posted in request.events {
            if let Some(id) = posted.id
                && !commit.is_new(&id)?
            {
                tally.duplicates += 1;
                continue;
            }
            let event = posted.event;
            tally.accepted += 1;
            match self.windows.add(&event, now_micros) {
                Outcome::Counted { is_correction, is_other } => {
                    tally.corrections += u64::from(is_correction);
                    tally.other += u64::from(is_other);
                }
                Outcome::TooLate => {
                    tally.too_late += 1;
                    commit.late(event.timestamp_micros, &event.event_type, &webhook::line(&event))?;
                }
                Outcome::NoRoom => {
                    num_without_room += 1;
                    // it may come again when there is room
                    if let Some(id) = &posted.id {
                        commit.forget(id)?;
                    }
                    tally.accepted -= 1;
                    tally.rejected += 1;
                    let reason = "is of one window more than may be open at once";
                    commit.reject(Some("timestamp"), reason, &webhook::line(&event))?;
                    continue;
                }
            }
            if self.keeps_lines {
                lines.extend(webhook::line(&event).as_bytes());
                lines.push(b'\n');
            }
        }
        for reject in &request.rejects {
            tally.rejected += 1;
            commit.reject(reject.field, &reject.reason, &reject.text)?;
        }
        if let Some(id) = request.id
            && (num_without_room > 0 || !request.rejects.is_empty())
        {
            // what was refused as a whole may be sent again, corrected
            match tally.accepted + tally.duplicates == num_taken_before {
                true => commit.forget(&id)?,
                false => drop(commit.is_new(&webhook::in_part(&id))?),
            }
        }
        Ok(Answer::Committed { num_without_room })
    }

    fn write_changes(&mut self, commit: &Commit<'_>, changes: &Changes) -> rusqlite::Result<()> {
        if !changes.journal.is_empty() {
            commit.journal(&changes.journal)?;
            self.journal_bytes += changes.journal.len();
        }
        commit.upsert(&changes.rows)?;
        for sink in &self.sinks {
            for kind in kinds_of(sink) {
                let rows = match kind {
                    Kind::Changed => &changes.rows,
                    Kind::Closed => &changes.closed,
                    Kind::Corrected => &changes.corrections,
                };
                commit.send(&sink.name, *kind, rows)?;
            }
        }
        Ok(())
    }

    fn save_if(&mut self, is_due: bool, commit: &Commit<'_>) -> rusqlite::Result<()> {
        if !is_due {
            return Ok(());
        }
        self.journal_bytes = 0;
        let (groups, dropped) = self.windows.take_unsaved();
        let groups = groups
            .iter()
            .map(|group| (group.bounds.0, group.bounds.1, group.event_type.as_str(), group.state.as_slice()));
        commit.save(self.windows.marks(), groups, dropped.into_iter())
    }
}

fn report(tally: &Tally, changes: &Changes, windows: &Windows) {
    Metric::EventsAccepted.add(tally.accepted);
    Metric::EventsDuplicate.add(tally.duplicates);
    Metric::EventsLate.add(tally.corrections);
    Metric::EventsTooLate.add(tally.too_late);
    Metric::EventsOfOtherType.add(tally.other);
    Metric::EventsRejected.add(tally.rejected);
    Metric::AggregatesClosed.add(changes.closed.len() as u64);
    Metric::AggregatesCorrected.add(changes.corrections.len() as u64);
    report_groups(windows);
    if tally.too_late > 0 {
        tracing::info!("{} events came too late and are in late_events", tally.too_late);
    }
}
