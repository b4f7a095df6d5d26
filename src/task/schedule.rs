//! When a schedule is due next.
use chrono::{DateTime, Utc};
use croner::Cron;

use super::TaskError;

/// The first time after `after` that a cron expression names, in UTC.
pub fn next_time(cron: &str, after: DateTime<Utc>) -> Result<String, TaskError> {
    let fail = |reason: String| TaskError::Cron { text: cron.to_owned(), reason };
    // with a sixth field the parser takes the first for seconds, and a seventh is a year, after which none comes
    let num_fields = cron.split_whitespace().count();
    if num_fields != 5 && !cron.starts_with('@') {
        return Err(fail(format!("it has {num_fields} fields")));
    }
    let parsed: Cron =
        cron.parse().map_err(|error: croner::errors::CronError| fail(lower(&error.to_string())))?;
    let next = parsed
        .find_next_occurrence(&after, false)
        .map_err(|_| fail("it names no moment that comes".to_owned()))?;
    Ok(next.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
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
}
