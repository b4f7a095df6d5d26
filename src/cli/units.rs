//! Sizes and times as people write them: `1MiB`, `64KiB`, `500ms`, `2s`, `1m`.
use std::time::Duration;

use chrono::{DateTime, NaiveDate, NaiveTime, Utc};

/// A number of bytes: `1048576`, `1024KiB`, `1MiB`; at least 1, at most 1 GiB.
pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1), ("", 1)];
    let bytes = scaled(text, &units).ok_or("a size such as 512KiB or 1MiB is expected")?;
    let bytes = usize::try_from(bytes).ok().filter(|bytes| (1..=1 << 30).contains(bytes));
    bytes.ok_or_else(|| "a size from 1B to 1GiB is expected".into())
}

/// A time: `500ms`, `2s`, `1m`, `1h`; more than 0.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let millis = scaled(text, &units).filter(|millis| *millis > 0);
    millis.map(Duration::from_millis).ok_or_else(|| "a time such as 500ms, 2s or 1m is expected".into())
}

fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    units.iter().find_map(|(unit, factor)| {
        let number = text.trim().strip_suffix(unit)?.trim_end();
        number.parse::<u64>().ok()?.checked_mul(*factor)
    })
}

/// RFC 3339, or a day, which is its first moment.
pub(super) fn parse_time(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Ok(day.and_time(NaiveTime::MIN).and_utc());
    }
    let time = DateTime::parse_from_rfc3339(text);
    time.map(|time| time.to_utc()).map_err(|_| "write 2024-01-15T00:00:00Z, or 2024-01-15".to_owned())
}

/// `1234567` -> `1,234,567`.
pub(super) fn with_commas(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Bytes in the unit that leaves one to three digits before the point.
pub(super) fn bytes_text(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_read_in_every_unit() {
        for (text, bytes) in [("1", 1), ("1B", 1), ("2KiB", 2048), ("1 MiB", 1 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "-1", "1MB", "2GiB", "x", "99999999999GiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
        for (text, millis) in [("500ms", 500), ("2s", 2000), ("1m", 60_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "0s", "5", "-1s", "1.5s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_grouped_and_bytes_scaled() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(with_commas(number), text);
        }
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (252_800_000, "241.1 MiB")] {
            assert_eq!(bytes_text(bytes), text);
        }
    }
}
