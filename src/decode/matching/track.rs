//! The short way along a line: what most lines of a type look like, walked a line at a time with its place in a
//! register.
//!
//! A track is made of stretches: fixed bytes, then a value up to the first of one byte. It takes a line only if the
//! program would take it by the same variant with the same values (`plan` proves that when the type is loaded), and
//! leaves every other one to the program: padding of several spaces, a user name with a space, an event time that is
//! not at the start. Deliberately absent: going back.
use super::{BLOCK_LINES, Matcher, Span, Taken, TimeRead};
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

    /// The variant that takes the line behind its event time, if this is a way for it.
    #[inline(always)]
    fn follow(&self, vectors: impl Vectors, window: Window<'_>, at: usize, end: usize, places: &mut Places<'_>) -> Option<u16> {
        let mut at = at;
        let mut way = self.stretches.as_slice();
        loop {
            let stretch = way.first()?;
            let look = window.look(vectors, at, &stretch.near)?;
            let start = look.behind;
            if look.is_there && stretch.is_value {
                at = match look.stop {
                    0 => window.find_stop(stretch.near.stop, start, end),
                    stop => start + stop.trailing_zeros() as usize,
                };
                if at >= end {
                    return None;
                }
                places.put(stretch.slot, start, at);
                way = &way[1..];
            } else if look.is_there && stretch.behind == Behind::Rest {
                let is_free = window.find_stop(stretch.near.stop, start, end) >= end;
                if start > end || !is_free {
                    return None;
                }
                places.put(stretch.slot, start, end);
                return Some(stretch.variant);
            } else if look.is_there && stretch.behind == Behind::Literal {
                at = start;
                way = &way[1..];
            } else if look.is_there && start == end {
                return Some(stretch.variant);
            } else {
                // a longer way may begin with the same bytes
                way = self.elder(stretch)?;
            }
        }
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
    pub(in crate::decode) fn follow(&mut self, track: &Track, window: Window<'_>, lines: &[u8], walkers: &mut Vec<u8>) {
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
        let Self { starts, ends, spans, taken, times, base, parser, reference_time, .. } = self;
        let (spans, base, reference_time) = (spans.as_mut_slice(), *base, *reference_time);
        walkers.resize(lines.len(), 0);
        let mut num_walkers = 0;
        for &line in lines {
            let position = usize::from(line);
            let (start, end) = (starts[position], ends[position] as usize);
            let time = &mut times[position];
            if time.at != start {
                *time = TimeRead::of(start, parser.parse(window.slice(start as usize, end), reference_time));
            }
            let at = start as usize + usize::from(time.len_bytes);
            let next = if at < end { window.byte(at) } else { NO_BYTE };
            if time.len_bytes == 0 || !admits[usize::from(next)] {
                continue;
            }
            match track.follow(vectors, window, at, end, &mut Places { spans, line, base }) {
                Some(variant) => taken[position] = Some(Taken { variant, exact: true }),
                None => {
                    walkers[num_walkers] = line;
                    num_walkers += 1;
                }
            }
        }
        walkers.truncate(num_walkers);
    }
}
