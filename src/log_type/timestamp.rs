//! Reads and renders points in time in the forms that logs write them.
//!
//! Invariant: for every form but [`OTHER`], `render` of what `parse` returned is the text that was read.
//! Rules: a time without a zone is UTC. A syslog time has no year: it is the latest such time that is not
//! more than one day after the reference time (29 February: in the latest leap year for which that holds).
//! A leap second (`:60`) is the first second of the next minute. Digits below a microsecond are cut.
//! Deliberately absent: locale, zone names.

mod render;

pub use render::{render, render_plain};

const MICROS: i64 = 1_000_000;
const DAY_MICROS: i64 = 86_400 * MICROS;

/// A point in time as read from text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    /// Microseconds since 1970-01-01T00:00:00Z.
    pub micros: i64,
    /// How it was written: below [`FORMS`].
    pub form: u16,
    /// Bytes of text read.
    pub len_bytes: usize,
}

/// Number of forms; a form fits in nine bits.
pub const FORMS: u16 = 512;
/// Read, but not rendered back: the original text must be kept.
pub const OTHER: u16 = FORMS - 1;

// RFC 3339 with `T`: zone * 7 + digits of fraction (0..=6). Zones: Z, none, then ZONE_OFFSETS half hours.
const ZONE_Z: u16 = 0;
const ZONE_NONE: u16 = 1;
const ZONE_FIRST_OFFSET: u16 = 2;
const ZONE_OFFSETS: u16 = 53;
const FIRST_OFFSET_MINUTES: i64 = -12 * 60;
const FRACTIONS: u16 = 7;
// The same with a space for the T, for the usual digits and zones: 0, 3, 6 digits; Z, none.
const SPACE: u16 = (ZONE_FIRST_OFFSET + ZONE_OFFSETS) * FRACTIONS;
// 10/Oct/2000:13:55:36 -0700, by offset
const CLF: u16 = SPACE + 6;
// `Dec  1 06:55:46` and `Dec 01 06:55:46`
const SYSLOG_SPACE: u16 = CLF + ZONE_OFFSETS;
const SYSLOG_ZERO: u16 = SYSLOG_SPACE + 1;
// seconds since the epoch with 0..=6 digits of fraction, then milliseconds
const EPOCH: u16 = SYSLOG_ZERO + 1;
const EPOCH_MILLIS: u16 = EPOCH + 7;
const _: () = assert!(EPOCH_MILLIS < OTHER);

/// The canonical form: `2024-01-15T00:00:03.731Z`.
pub const RFC3339_MILLIS_Z: u16 = ZONE_Z * FRACTIONS + 3;

const MONTHS: [&[u8; 3]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar
/// (Howard Hinnant, "chrono-compatible low-level date algorithms", `days_from_civil`).
pub fn days_from_date(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Inverse of [`days_from_date`]: (year, month, day).
pub fn date_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Reads timestamps; remembers the last minute, which most lines share with the line before.
#[derive(Debug, Clone)]
pub struct Parser {
    /// `YYYY-MM-DDTHH:MM`, and when it begins.
    minute: [u8; 16],
    minute_micros: i64,
}

impl Default for Parser {
    fn default() -> Self {
        Self { minute: *b"1970-01-01T00:00", minute_micros: 0 }
    }
}

impl Parser {
    /// Reads a timestamp at the start of `text`, which may go on after it. `None` if there is none.
    #[inline]
    pub fn parse(&mut self, text: &[u8], reference_time: i64) -> Option<Timestamp> {
        self.parse_millis_z(text).or_else(|| parse_any(text, reference_time))
    }

    /// The canonical form, eight bytes at once.
    #[inline(always)]
    fn parse_millis_z(&mut self, text: &[u8]) -> Option<Timestamp> {
        let text: &[u8; 24] = text.first_chunk()?;
        let (minute, seconds): (&[u8; 16], &[u8; 8]) = (text.first_chunk()?, text.last_chunk()?);
        // every byte becomes its digit, the others 0
        let digits = u64::from_le_bytes(*seconds) ^ u64::from_le_bytes(*b":00.000Z");
        // a digit above 9, or 5 for tens of seconds, and any other byte that is none sets its byte's high bit
        let limits = u64::from_le_bytes([0x7f, 0x7a, 0x76, 0x7f, 0x76, 0x76, 0x76, 0x7f]);
        if (digits | digits.wrapping_add(limits)) & 0x8080_8080_8080_8080 != 0 {
            return None;
        }
        if *minute != self.minute {
            self.read_minute(minute)?;
        }
        let digit = |position: u32| (digits >> (8 * position) & 0xff) as i64;
        let millis = digit(1) * 10_000 + digit(2) * 1000 + digit(4) * 100 + digit(5) * 10 + digit(6);
        Some(Timestamp { micros: self.minute_micros + millis * 1000, form: RFC3339_MILLIS_Z, len_bytes: 24 })
    }

    #[cold]
    #[inline(never)]
    fn read_minute(&mut self, text: &[u8; 16]) -> Option<()> {
        let (days, _) = parse_date(text)?;
        let (hour, minute) = (two(text, 11)?, two(text, 14)?);
        if text[10] != b'T' || text[13] != b':' || hour > 23 || minute > 59 {
            return None;
        }
        self.minute = *text;
        self.minute_micros = days * DAY_MICROS + (hour * 60 + minute) * 60 * MICROS;
        Some(())
    }
}

/// Any form.
#[inline(never)]
fn parse_any(text: &[u8], reference_time: i64) -> Option<Timestamp> {
    match text.first()? {
        b'A'..=b'Z' => parse_syslog(text, reference_time),
        b'0'..=b'9' if text.get(4) == Some(&b'-') => parse_rfc3339(text),
        b'0'..=b'9' if text.get(2) == Some(&b'/') => parse_clf(text),
        b'0'..=b'9' => parse_epoch(text),
        _ => None,
    }
}

/// Two digits at `at`.
fn two(text: &[u8], at: usize) -> Option<i64> {
    let (tens, ones) = (text.get(at)?.wrapping_sub(b'0'), text.get(at + 1)?.wrapping_sub(b'0'));
    (tens <= 9 && ones <= 9).then(|| i64::from(tens) * 10 + i64::from(ones))
}

/// `YYYY-MM-DD` -> (days since the epoch, bytes read).
fn parse_date(text: &[u8]) -> Option<(i64, usize)> {
    let year = two(text, 0)? * 100 + two(text, 2)?;
    let (month, day) = (two(text, 5)?, two(text, 8)?);
    let valid = text[4] == b'-'
        && text[7] == b'-'
        && (1..=12).contains(&month)
        && (1..=days_in_month(year, month)).contains(&day);
    valid.then(|| (days_from_date(year, month, day), 10))
}

/// `HH:MM:SS` at `at` -> (seconds, whether it is a leap second).
fn parse_clock(text: &[u8], at: usize) -> Option<(i64, bool)> {
    let (hour, minute, second) = (two(text, at)?, two(text, at + 3)?, two(text, at + 6)?);
    let valid = text[at + 2] == b':' && text[at + 5] == b':' && hour <= 23 && minute <= 59 && second <= 60;
    valid.then_some(((hour * 60 + minute) * 60 + second, second == 60))
}

/// Digits of a fraction from `at` -> (microseconds, number of digits).
fn parse_fraction(text: &[u8], at: usize) -> (i64, usize) {
    let digits = text[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let micros = (0..6).fold(0, |micros, position| {
        micros * 10 + if position < digits { i64::from(text[at + position] - b'0') } else { 0 }
    });
    (micros, digits)
}

/// `+HH:MM` or `+HHMM` at `at` -> (minutes, bytes read).
fn parse_offset(text: &[u8], at: usize) -> Option<(i64, usize)> {
    let sign = match text.get(at)? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let colon = usize::from(text.get(at + 3) == Some(&b':'));
    let (hours, minutes) = (two(text, at + 1)?, two(text, at + 3 + colon)?);
    (hours <= 23 && minutes <= 59).then_some((sign * (hours * 60 + minutes), 5 + colon))
}

/// Index of an offset among the half hours from -12:00 to +14:00.
fn offset_index(minutes: i64) -> Option<u16> {
    let steps = minutes - FIRST_OFFSET_MINUTES;
    let index = u16::try_from(steps / 30).ok()?;
    (steps % 30 == 0 && index < ZONE_OFFSETS).then_some(index)
}

fn parse_rfc3339(text: &[u8]) -> Option<Timestamp> {
    let (days, _) = parse_date(text)?;
    let separator = *text.get(10)?;
    if !matches!(separator, b'T' | b't' | b' ' | b'_') {
        return None;
    }
    let (seconds, leap) = parse_clock(text, 11)?;
    let mut at = 19;
    let (mut micros, mut digits, mut exact) = (0, 0, !leap);
    if let Some(mark @ (b'.' | b',')) = text.get(at) {
        (micros, digits) = parse_fraction(text, at + 1);
        if digits > 0 {
            at += 1 + digits;
            exact &= *mark == b'.' && digits <= 6;
        }
    }
    let mut offset = 0;
    let zone = match text.get(at) {
        Some(b'Z') => {
            at += 1;
            Some(ZONE_Z)
        }
        Some(b'z') => {
            at += 1;
            None
        }
        _ => match parse_offset(text, at) {
            Some((minutes, len_bytes)) => {
                at += len_bytes;
                offset = minutes;
                // -00:00 says "zone unknown" and +0000 has no colon: neither is what +00:00 renders to
                let plain = len_bytes == 6 && !(minutes == 0 && text[at - 6] == b'-');
                offset_index(minutes).filter(|_| plain).map(|index| ZONE_FIRST_OFFSET + index)
            }
            None => Some(ZONE_NONE),
        },
    };
    let form = match (separator, zone) {
        (b'T', Some(zone)) if exact => zone * FRACTIONS + digits as u16,
        (b' ', Some(zone @ (ZONE_Z | ZONE_NONE))) if exact && digits % 3 == 0 => {
            SPACE + zone * 3 + digits as u16 / 3
        }
        _ => OTHER,
    };
    let micros = days * DAY_MICROS + (seconds - offset * 60) * MICROS + micros;
    Some(Timestamp { micros, form, len_bytes: at })
}

fn month_number(text: &[u8]) -> Option<i64> {
    let name: &[u8; 3] = text.first_chunk()?;
    MONTHS.iter().position(|month| *month == name).map(|index| index as i64 + 1)
}

fn parse_clf(text: &[u8]) -> Option<Timestamp> {
    let (day, month) = (two(text, 0)?, month_number(text.get(3..)?)?);
    let year = two(text, 7)? * 100 + two(text, 9)?;
    let (seconds, leap) = parse_clock(text, 12)?;
    let (offset, 5) = parse_offset(text, 21)? else { return None };
    let valid = text[6] == b'/'
        && text[11] == b':'
        && text[20] == b' '
        && (1..=days_in_month(year, month)).contains(&day);
    let negative_zero = offset == 0 && text[21] == b'-';
    valid.then(|| Timestamp {
        micros: days_from_date(year, month, day) * DAY_MICROS + (seconds - offset * 60) * MICROS,
        form: match offset_index(offset) {
            Some(index) if !leap && !negative_zero => CLF + index,
            _ => OTHER,
        },
        len_bytes: 26,
    })
}

fn parse_syslog(text: &[u8], reference_time: i64) -> Option<Timestamp> {
    let month = month_number(text)?;
    if text.get(3) != Some(&b' ') {
        return None;
    }
    let one_digit =
        |at: usize| text.get(at).filter(|byte| byte.is_ascii_digit()).map(|byte| i64::from(byte - b'0'));
    let (day, mut at, mut form) = if text.get(4) == Some(&b' ') {
        (one_digit(5)?, 6, SYSLOG_SPACE)
    } else if let Some(day) = two(text, 4) {
        // two digits from 10 on look the same in both forms: the space form is the one that renders them
        (day, 6, if day < 10 { SYSLOG_ZERO } else { SYSLOG_SPACE })
    } else {
        (one_digit(4)?, 5, OTHER)
    };
    if text.get(at) != Some(&b' ') {
        return None;
    }
    let (seconds, leap) = parse_clock(text, at + 1)?;
    at += 9;
    let mut micros = 0;
    if text.get(at) == Some(&b'.') {
        let (fraction, digits) = parse_fraction(text, at + 1);
        if digits > 0 {
            (micros, at, form) = (fraction, at + 1 + digits, OTHER);
        }
    }
    let latest = reference_time.saturating_add(DAY_MICROS);
    let (latest_year, ..) = date_from_days(latest.div_euclid(DAY_MICROS));
    // at most eight years between leap days (1896, 1904)
    let micros = (latest_year - 8..=latest_year).rev().find_map(|year| {
        let exists = (1..=days_in_month(year, month)).contains(&day);
        let time = days_from_date(year, month, day) * DAY_MICROS + seconds * MICROS + micros;
        (exists && time <= latest).then_some(time)
    })?;
    Some(Timestamp { micros, form: if leap { OTHER } else { form }, len_bytes: at })
}

fn parse_epoch(text: &[u8]) -> Option<Timestamp> {
    let digits = text.iter().take(20).take_while(|byte| byte.is_ascii_digit()).count();
    let number = text[..digits]
        .iter()
        .fold(0i64, |number, byte| number.wrapping_mul(10).wrapping_add(i64::from(byte - b'0')));
    let leading_zero = text[0] == b'0';
    let exact = |form| if leading_zero { OTHER } else { form };
    let (micros, form, len_bytes) = match digits {
        9..=11 => {
            let (fraction, places) =
                if text.get(digits) == Some(&b'.') { parse_fraction(text, digits + 1) } else { (0, 0) };
            let form = if places <= 6 { exact(EPOCH + places as u16) } else { OTHER };
            (number * MICROS + fraction, form, digits + places + usize::from(places > 0))
        }
        12..=14 => (number * 1000, exact(EPOCH_MILLIS), digits),
        15..=17 => (number, OTHER, digits),
        18..=19 => (number / 1000, OTHER, digits),
        _ => return None,
    };
    (number >= 0).then_some(Timestamp { micros, form, len_bytes })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn micros_of(text: &str) -> i64 {
        chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros()
    }

    fn parse_at(text: &str, reference: &str) -> Option<Timestamp> {
        Parser::default().parse(text.as_bytes(), micros_of(reference))
    }

    fn parse(text: &str) -> Option<Timestamp> {
        parse_at(text, "2024-06-01T00:00:00Z")
    }

    fn rendered(timestamp: Timestamp) -> String {
        let mut out = Vec::new();
        render(timestamp.micros, timestamp.form, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_exact_form_is_read_and_rendered_back() {
        for (text, utc) in [
            ("2024-01-15T00:00:03.731Z", "2024-01-15T00:00:03.731Z"),
            ("2024-01-15T00:00:03Z", "2024-01-15T00:00:03Z"),
            ("2024-01-15T00:00:03.731204Z", "2024-01-15T00:00:03.731204Z"),
            ("2024-01-15T00:00:03.7Z", "2024-01-15T00:00:03.7Z"),
            ("2024-01-15T02:00:03.731+02:00", "2024-01-15T00:00:03.731Z"),
            ("2024-01-15T05:30:03+05:30", "2024-01-15T00:00:03Z"),
            ("2024-01-14T16:00:03-08:00", "2024-01-15T00:00:03Z"),
            ("2024-01-15T00:00:03+00:00", "2024-01-15T00:00:03Z"),
            ("2024-01-15T00:00:03.123", "2024-01-15T00:00:03.123Z"),
            ("2024-01-15 00:00:03", "2024-01-15T00:00:03Z"),
            ("2024-01-15 00:00:03.123456", "2024-01-15T00:00:03.123456Z"),
            ("2024-01-15 00:00:03.123Z", "2024-01-15T00:00:03.123Z"),
            ("2024-02-29T23:59:59.999Z", "2024-02-29T23:59:59.999Z"),
            ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
            ("9999-12-31T23:59:59.999999Z", "9999-12-31T23:59:59.999999Z"),
            ("10/Oct/2000:13:55:36 -0700", "2000-10-10T20:55:36Z"),
            ("1705276803", "2024-01-15T00:00:03Z"),
            ("1705276803.731", "2024-01-15T00:00:03.731Z"),
            ("1705276803731", "2024-01-15T00:00:03.731Z"),
            ("Dec 10 06:55:46", "2023-12-10T06:55:46Z"),
            ("Dec  1 06:55:46", "2023-12-01T06:55:46Z"),
            ("Dec 01 06:55:46", "2023-12-01T06:55:46Z"),
        ] {
            let timestamp = parse(text).unwrap_or_else(|| panic!("{text} is not read"));
            assert_eq!(timestamp.micros, micros_of(utc), "{text}");
            assert_eq!(timestamp.len_bytes, text.len(), "{text}");
            assert_ne!(timestamp.form, OTHER, "{text}");
            assert_eq!(rendered(timestamp), text);
        }
    }

    #[test]
    fn inexact_forms_are_read_and_marked_for_keeping() {
        for (text, utc) in [
            ("2024-01-15t00:00:03z", "2024-01-15T00:00:03Z"),
            ("2024-01-15T00:00:03,731Z", "2024-01-15T00:00:03.731Z"),
            ("2024-01-15T00:00:03.731204999Z", "2024-01-15T00:00:03.731204Z"),
            ("2024-01-15T00:00:03.731204999123Z", "2024-01-15T00:00:03.731204Z"),
            ("2024-01-15T05:45:03+05:45", "2024-01-15T00:00:03Z"),
            ("2024-01-15T00:00:03-00:00", "2024-01-15T00:00:03Z"),
            ("2024-01-15T02:00:03+0200", "2024-01-15T00:00:03Z"),
            ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
            ("Dec 1 06:55:46", "2023-12-01T06:55:46Z"),
            ("Dec 10 06:55:46.25", "2023-12-10T06:55:46.25Z"),
            ("1705276803731204", "2024-01-15T00:00:03.731204Z"),
            ("1705276803731204999", "2024-01-15T00:00:03.731204Z"),
            ("10/Oct/2000:13:55:36 -0000", "2000-10-10T13:55:36Z"),
        ] {
            let timestamp = parse(text).unwrap_or_else(|| panic!("{text} is not read"));
            assert_eq!(timestamp.micros, micros_of(utc), "{text}");
            assert_eq!((timestamp.form, timestamp.len_bytes), (OTHER, text.len()), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_time_is_none() {
        for text in [
            "",
            "x",
            "2024-13-15T00:00:03Z",
            "2023-02-29T00:00:03Z",
            "2024-01-15T24:00:03Z",
            "2024-01-15T00:60:03Z",
            "2024-01-15T00:00:61Z",
            "2024-01-15",
            "2024-01-1",
            "2024-00-15T00:00:03.000Z",
            "Dec 32 06:55:46",
            "Foo 10 06:55:46",
            "Feb 30 06:55:46",
            "12345",
            "99999999999999999999",
            "32/Oct/2000:13:55:36 -0700",
            "10/Oct/2000:13:55:36",
            "2024-01-15T0a:00:03.731Z",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_time_without_a_year_is_the_latest_not_more_than_a_day_ahead() {
        for (text, reference, utc) in [
            ("Dec 31 23:59:59", "2024-01-01T00:00:05Z", "2023-12-31T23:59:59Z"),
            ("Jan  1 00:00:01", "2024-01-01T00:00:05Z", "2024-01-01T00:00:01Z"),
            ("Jan  1 00:00:01", "2023-12-31T23:59:58Z", "2024-01-01T00:00:01Z"),
            ("Jan  2 00:00:01", "2023-12-31T23:59:58Z", "2023-01-02T00:00:01Z"),
            ("Feb 29 12:00:00", "2024-03-01T00:00:00Z", "2024-02-29T12:00:00Z"),
            ("Feb 29 12:00:00", "2027-03-01T00:00:00Z", "2024-02-29T12:00:00Z"),
            ("Feb 29 12:00:00", "2024-02-28T11:00:00Z", "2020-02-29T12:00:00Z"),
            ("Feb 29 12:00:00", "1903-03-01T00:00:00Z", "1896-02-29T12:00:00Z"),
            ("Mar  1 00:00:00", "2023-02-28T00:00:00Z", "2023-03-01T00:00:00Z"),
        ] {
            assert_eq!(parse_at(text, reference).unwrap().micros, micros_of(utc), "{text} at {reference}");
        }
    }

    #[test]
    fn text_after_a_timestamp_is_left() {
        assert_eq!(parse("2024-01-15T00:00:03.731Z|action=x").unwrap().len_bytes, 24);
        assert_eq!(parse("2024-01-15 00:00:03 host").unwrap().len_bytes, 19);
        assert_eq!(parse("2024-01-15T00:00:03. x").unwrap().len_bytes, 19);
        assert_eq!(parse("Dec 10 06:55:46 LabSZ").unwrap().len_bytes, 15);
        assert_eq!(parse("1705276803. x").unwrap().len_bytes, 10);
    }

    proptest! {
        #[test]
        fn every_day_is_its_date(days in -800_000i64..2_900_000) {
            let (year, month, day) = date_from_days(days);
            prop_assert_eq!(days_from_date(year, month, day), days);
            prop_assert!((1..=days_in_month(year, month)).contains(&day));
        }

        #[test]
        fn exact_forms_render_to_what_was_read(micros in 1_000_000_000_000_000i64..4_000_000_000_000_000, form in 0..OTHER) {
            let mut text = Vec::new();
            render(micros, form, &mut text);
            if let Some(timestamp) = Parser::default().parse(&text, micros) {
                let mut again = Vec::new();
                render(timestamp.micros, timestamp.form, &mut again);
                prop_assert!(timestamp.form != OTHER, "{}", String::from_utf8_lossy(&text));
                prop_assert_eq!(&text, &again);
            } else {
                prop_assert!(text.is_empty(), "{}", String::from_utf8_lossy(&text));
            }
        }

        #[test]
        fn the_fast_path_reads_what_the_slow_path_reads(text in "(2024|20[0-9][0-9])-[0-3][0-9]-[0-3][0-9]T[0-2][0-9]:[0-6][0-9]:[0-6][0-9].[0-9]{3}Z") {
            let mut parser = Parser::default();
            prop_assert_eq!(parser.parse_millis_z(text.as_bytes()).or_else(|| parse_rfc3339(text.as_bytes())), parse_rfc3339(text.as_bytes()));
        }

        #[test]
        fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..40), prefix in "(2024-01-|Dec |17052768|10/Oct)?") {
            let bytes = [prefix.as_bytes(), &text].concat();
            if let Some(timestamp) = Parser::default().parse(&bytes, 0) {
                prop_assert!(timestamp.len_bytes <= bytes.len());
            }
        }
    }
}
