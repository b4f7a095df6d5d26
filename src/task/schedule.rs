//! When a schedule is due next.
use chrono::{DateTime, Utc};
use croner::Cron;

use super::TaskError;

const FIELDS: [&str; 5] = ["minute", "hour", "day", "month", "weekday"];
const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// The first time after `after` that a cron expression names, in UTC.
pub fn next_time(cron: &str, after: DateTime<Utc>) -> Result<String, TaskError> {
    let fail = |reason: String| TaskError::Cron { text: cron.to_owned(), reason };
    // with a sixth field the parser takes the first for seconds, and a seventh is a year, after which none comes
    let num_fields = cron.split_whitespace().count();
    if num_fields != 5 && !cron.starts_with('@') {
        return Err(fail(format!("it has {num_fields} fields")));
    }
    if let Some((part, field)) = misplaced_name(cron) {
        return Err(fail(format!("{part} is no {field}")));
    }
    let parsed: Cron =
        cron.parse().map_err(|error: croner::errors::CronError| fail(lower(&error.to_string())))?;
    let next = parsed
        .find_next_occurrence(&after, false)
        .map_err(|_| fail("it names no moment that comes".to_owned()))?;
    Ok(next.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}

/// The first part that holds a name which is none of its field's, with the field. The parser puts numbers for names
/// wherever they stand: `MON` would be minute 1, and `1MON` weekday 11.
fn misplaced_name(cron: &str) -> Option<(&str, &'static str)> {
    let mut parts = cron.split_whitespace().zip(FIELDS).flat_map(|(text, field)| {
        text.split(|letter: char| !letter.is_alphanumeric()).map(move |part| (part, field))
    });
    let is_misplaced = |(part, field): &(&str, &str)| {
        let part = part.to_uppercase();
        let is_of_field = match *field {
            "month" => MONTHS.contains(&part.as_str()),
            // FRIL is the last Friday of a month
            "weekday" => WEEKDAYS.contains(&part.strip_suffix('L').unwrap_or(&part)),
            _ => false,
        };
        !is_of_field && MONTHS.iter().chain(&WEEKDAYS).any(|name| part.contains(name))
    };
    parts.find(is_misplaced)
}

fn lower(text: &str) -> String {
    let mut letters = text.trim_end_matches('.').chars();
    letters.next().map(|first| first.to_lowercase().chain(letters).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_time_is_after_the_given_one() {
        let after: DateTime<Utc> = "2024-02-28T03:00:00Z".parse().unwrap();
        for (cron, next) in [
            ("0 3 * * *", "2024-02-29T03:00:00.000Z"),
            ("*/15 * * * *", "2024-02-28T03:15:00.000Z"),
            ("0 0 1 * *", "2024-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(next_time(cron, after).unwrap(), next, "{cron}");
        }
        assert!(next_time("@daily", after).is_ok());
        for bad in ["", "* * *", "61 * * * *", "0 0 30 2 *", "* * * * * *", "0 0 0 1 1 * 2030"] {
            assert!(next_time(bad, after).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_counts_in_its_own_field_and_alone() {
        let after: DateTime<Utc> = "2024-02-28T03:00:00Z".parse().unwrap();
        for (cron, next) in [
            ("0 3 * * MON", "2024-03-04T03:00:00.000Z"),
            ("0 3 * mar-may,DEC fri-sun", "2024-03-01T03:00:00.000Z"),
            ("0 3 * * FRIL", "2024-03-29T03:00:00.000Z"),
            ("0 3 L * *", "2024-02-29T03:00:00.000Z"),
            ("0 3 * * tue#1", "2024-03-05T03:00:00.000Z"),
        ] {
            assert_eq!(next_time(cron, after).unwrap(), next, "{cron}");
        }
        for (cron, reason) in [
            ("MON * * * *", "MON is no minute"),
            ("0 jan * * *", "jan is no hour"),
            ("0 3 FRI * *", "FRI is no day"),
            ("0 3 * mon *", "mon is no month"),
            ("0 3 * * 1,DEC", "DEC is no weekday"),
            ("0 3 * * 1MON", "1MON is no weekday"),
            ("0 3 * JAN2 *", "JAN2 is no month"),
            ("0 3 * * MONDAY", "MONDAY is no weekday"),
        ] {
            let error = next_time(cron, after).unwrap_err().to_string();
            let expected =
                format!("{cron:?} is no cron expression: {reason}; write minute hour day month weekday");
            assert!(error.starts_with(&expected), "{error}");
        }
    }
}
