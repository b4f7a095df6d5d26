//! The short way along a line: what most lines of a type look like, walked a line at a time with its place in a
//! register.
//!
//! A track is made of stretches: fixed bytes, then a value up to the first of one byte. It takes a line only if the
//! program would take it by the same variant with the same values (`plan` proves that when the type is loaded), and
//! leaves every other one to the program: padding of several spaces, a user name with a space, an event time that is
//! not at the start. Deliberately absent: going back.
use super::{BLOCK_LINES, Cursor, Matcher, NOWHERE, Span, Taken, TimeRead};
use crate::decode::scan::{Near, Window};
#[cfg(target_arch = "x86_64")]
use crate::decode::vectors::Avx2;
use crate::decode::vectors::{Baseline, Vectors};
use crate::log_type::LogType;

mod plan;

/// A byte that no line has.
const NO_BYTE: u8 = b'\n';
/// No stretch has this number but the first, which nothing leads to.
const NONE: u16 = 0;

/// Fixed bytes and what is behind them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    near: Near,
    slot: u16,
    /// What stands behind the fixed bytes: mostly a value up to the stop, told first and by a flag of its own,
    is_value: bool,
    /// or something else.
    behind: Behind,
    variant: u16,
    /// What else may stand here.
    sibling: u16,
    /// The fixed bytes are those of every variant of the type, but that their first may stand for several spaces.
    is_decisive: bool,
}

/// What a track says of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// This variant takes it.
    Taken(u16),
    /// No variant takes it.
    Refused,
    /// The program has to be asked.
    Unknown,
}

/// What stands behind a stretch's fixed bytes, if not a value up to the stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Behind {
    /// More fixed bytes.
    Literal,
    /// A value up to the end of the line, without the stop in it.
    Rest,
    /// The end of the line.
    End,
}

/// The stretches of a log type.
#[derive(Debug)]
pub(in crate::decode) struct Track {
    /// As a tree: behind each stretch, where it goes on. Empty if there is no short way.
    stretches: Vec<Stretch>,
    /// By byte behind an event time that begins the line: whether any variant can take the line; `None` if not every
    /// variant begins with its event time.
    admits: Option<Box<[bool; 256]>>,
}

impl Track {
    /// What can be proven of the variants of this type.
    pub(in crate::decode) fn of(log_type: &LogType) -> Self {
        plan::track(log_type)
    }

    /// What becomes of a line with an event time in front of `at`.
    #[inline(always)]
    fn follow(
        &self,
        vectors: impl Vectors,
        window: Window<'_>,
        at: usize,
        end: usize,
        places: &mut Places<'_>,
    ) -> Verdict {
        let mut at = at;
        let mut way = self.stretches.as_slice();
        while let Some((stretch, behind)) = way.split_first()
            && let Some(look) = window.look(vectors, at, &stretch.near)
        {
            let start = look.behind;
            if look.is_there && stretch.is_value {
                at = match look.stop {
                    0 => window.find_stop(stretch.near.stop, start, end),
                    stop => start + stop.trailing_zeros() as usize,
                };
                if at >= end {
                    break;
                }
                places.put(stretch.slot, start, at);
                way = behind;
            } else if look.is_there && stretch.behind == Behind::Rest {
                let is_free = window.find_stop(stretch.near.stop, start, end) >= end;
                if start > end || !is_free {
                    break;
                }
                places.put(stretch.slot, start, end);
                return Verdict::Taken(stretch.variant);
            } else if look.is_there && stretch.behind == Behind::Literal {
                at = start;
                way = behind;
            } else if look.is_there && start == end {
                return Verdict::Taken(stretch.variant);
            } else if let Some(elder) = self.elder(stretch) {
                // also where the fixed bytes stand: a longer way may begin with them
                way = elder;
            } else {
                let is_refused = stretch.is_decisive && at + 1 < end && window.byte(at + 1) != b' ';
                return if is_refused { Verdict::Refused } else { Verdict::Unknown };
            }
        }
        Verdict::Unknown
    }

    #[inline(always)]
    fn elder(&self, stretch: &Stretch) -> Option<&[Stretch]> {
        match stretch.sibling {
            NONE => None,
            sibling => self.stretches.get(usize::from(sibling)..),
        }
    }
}

/// Where the values of a line go.
struct Places<'a> {
    spans: &'a mut [[Span; BLOCK_LINES]],
    line: u8,
    base: u32,
}

impl Places<'_> {
    #[inline(always)]
    fn put(&mut self, slot: u16, start: usize, end: usize) {
        if let Some(spans) = self.spans.get_mut(usize::from(slot)) {
            let span = Span { start: self.base + start as u32, len_bytes: (end - start) as u32 };
            spans[usize::from(self.line)] = span;
        }
    }
}

impl Matcher {
    /// Looks which of these lines, which none took before, take the short way; `walkers` becomes those that have to walk
    /// the program.
    pub(in crate::decode) fn follow(
        &mut self,
        track: &Track,
        window: Window<'_>,
        lines: &[u8],
        walkers: &mut Vec<u8>,
    ) {
        #[cfg(target_arch = "x86_64")]
        if let Some(avx2) = self.avx2 {
            #[expect(unsafe_code, reason = "compiled with instructions that not every processor has")]
            // SAFETY: this one has them, as `avx2` says.
            return unsafe { self.follow_with_avx2(avx2, track, window, lines, walkers) };
        }
        self.follow_with(Baseline, track, window, lines, walkers);
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,bmi1,bmi2")]
    fn follow_with_avx2(
        &mut self,
        avx2: Avx2,
        track: &Track,
        window: Window<'_>,
        lines: &[u8],
        walkers: &mut Vec<u8>,
    ) {
        self.follow_with(avx2, track, window, lines, walkers);
    }

    #[inline(always)]
    fn follow_with(
        &mut self,
        vectors: impl Vectors,
        track: &Track,
        window: Window<'_>,
        lines: &[u8],
        walkers: &mut Vec<u8>,
    ) {
        walkers.clear();
        let Some(admits) = &track.admits else {
            walkers.extend_from_slice(lines);
            return;
        };
        let Self { starts, ends, spans, taken, times, spare, base, parser, reference_time, .. } = self;
        let (starts, ends, times, taken) = (&**starts, &**ends, &mut **times, &mut **taken);
        let (spans, base, reference_time) = (spans.as_mut_slice(), *base, *reference_time);
        // no branch on what stands behind the time: as in `filter_map`
        spare.resize(lines.len(), NOWHERE);
        let mut num_cursors = 0;
        for &line in lines {
            let position = usize::from(line);
            let (start, end) = (starts[position], ends[position]);
            let time = &mut times[position];
            if time.at != start {
                let text = window.slice(start as usize, end as usize);
                *time = TimeRead::of(start, parser.parse(text, reference_time));
            }
            let at = start + u32::from(time.len_bytes);
            let next = if at < end { window.byte(at as usize) } else { NO_BYTE };
            if let Some(cursor) = spare.get_mut(num_cursors) {
                *cursor = Cursor { at, line, exact: true };
            }
            num_cursors += usize::from((time.len_bytes > 0) & admits[usize::from(next)]);
        }
        for Cursor { at, line, .. } in &spare[..num_cursors] {
            let end = ends[usize::from(*line)] as usize;
            let mut places = Places { spans, line: *line, base };
            match track.follow(vectors, window, *at as usize, end, &mut places) {
                Verdict::Taken(variant) => taken[usize::from(*line)] = Some(Taken { variant, exact: true }),
                Verdict::Refused => {}
                Verdict::Unknown => walkers.push(*line),
            }
        }
    }
}
