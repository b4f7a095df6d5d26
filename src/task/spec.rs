//! What a task is called, what it takes, and how it is tried again.
use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::Value as Json;

use crate::store::tasks::Parameters;

/// What values a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Any text without a byte 0.
    Text,
    /// A list of texts; one text is a list of one.
    List,
    /// A whole number from 0 on.
    Integer,
    /// `true` or `false`.
    Flag,
    /// `30s`, `5m`, `2h`, `30d`.
    Duration,
    /// RFC 3339, or a day.
    Time,
}

impl Kind {
    /// For people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::List => "list",
            Self::Integer => "integer",
            Self::Flag => "flag",
            Self::Duration => "duration",
            Self::Time => "time",
        }
    }

    /// The kind of that name.
    pub(super) fn of(name: &str) -> Option<Self> {
        let all = [Self::Text, Self::List, Self::Integer, Self::Flag, Self::Duration, Self::Time];
        all.into_iter().find(|kind| kind.name() == name)
    }

    /// The value in the form that tasks get, or what would be right.
    fn check(self, value: &Json) -> Result<Json, &'static str> {
        let text = value.as_str();
        match self {
            Self::Text => match value {
                Json::String(text) if !text.contains('\0') => Ok(value.clone()),
                Json::Number(number) => Ok(number.to_string().into()),
                _ => Err("a text is expected"),
            },
            Self::List => match value {
                Json::String(text) => Ok(text.split(',').map(str::trim).collect::<Vec<_>>().into()),
                Json::Array(items) if items.iter().all(Json::is_string) => Ok(value.clone()),
                _ => Err("texts with commas between are expected"),
            },
            Self::Integer => {
                let number = value.as_u64().or_else(|| text?.trim().parse().ok());
                number
                    .filter(|number| i64::try_from(*number).is_ok())
                    .map(Json::from)
                    .ok_or("a whole number from 0 on is expected")
            }
            Self::Flag => match (value.as_bool(), text) {
                (Some(flag), _) => Ok(flag.into()),
                (_, Some("true")) => Ok(true.into()),
                (_, Some("false")) => Ok(false.into()),
                _ => Err("true or false is expected"),
            },
            Self::Duration => text
                .and_then(duration)
                .map(|_| value.clone())
                .ok_or("a time such as 30s, 5m, 2h or 30d is expected"),
            Self::Time => text
                .and_then(time)
                .map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true).into())
                .ok_or("2024-01-15T00:00:00Z, or 2024-01-15, is expected"),
        }
    }
}

/// `500ms`, `30s`, `5m`, `2h`, `30d`.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let units = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    units.iter().find_map(|(unit, millis)| {
        let number: u64 = text.trim().strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(*millis).map(Duration::from_millis)
    })
}

fn time(text: &str) -> Option<DateTime<Utc>> {
    if let Ok(day) = text.parse::<NaiveDate>() {
        return Some(day.and_time(chrono::NaiveTime::MIN).and_utc());
    }
    DateTime::parse_from_rfc3339(text).ok().map(|time| time.to_utc())
}

/// A value that a task takes.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// What it may be.
    pub kind: Kind,
    /// What it is unless given.
    pub default: Option<Json>,
    /// Whether it must be given.
    pub is_required: bool,
    /// For people.
    pub about: String,
}

/// What a task is called, what it takes, and how it is tried again.
#[derive(Debug, Clone)]
pub struct TaskSpec {
    /// Its name.
    pub name: String,
    /// For people, a line.
    pub about: String,
    /// What it takes; `None` where only its function knows.
    pub parameters: Option<Vec<Parameter>>,
    /// Attempts before it is failed.
    pub max_attempts: u32,
    /// Pause after the first failed attempt; it doubles, up to five minutes.
    pub backoff: Duration,
    /// How long an attempt may take.
    pub timeout: Option<Duration>,
}

impl TaskSpec {
    /// Three attempts, a second between the first two, no time limit.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            about: String::new(),
            parameters: None,
            max_attempts: 3,
            backoff: Duration::from_secs(1),
            timeout: None,
        }
    }

    /// The same with a line for people.
    #[must_use]
    pub fn with_about(mut self, about: &str) -> Self {
        self.about = about.to_owned();
        self
    }

    /// The same with these parameters and no others.
    #[must_use]
    pub fn with_parameters(mut self, parameters: Vec<Parameter>) -> Self {
        self.parameters = Some(parameters);
        self
    }

    /// The same with this many attempts and this pause after the first.
    #[must_use]
    pub fn with_attempts(mut self, max_attempts: u32, backoff: Duration) -> Self {
        (self.max_attempts, self.backoff) = (max_attempts, backoff);
        self
    }

    /// The same with a limit of an attempt's time.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// `given`, each value checked and defaults added. The error says what would be right.
    pub(super) fn check(&self, given: &Parameters) -> Result<Parameters, String> {
        let Some(parameters) = &self.parameters else { return Ok(given.clone()) };
        let names =
            || parameters.iter().map(|parameter| parameter.name.as_str()).collect::<Vec<_>>().join(", ");
        if let Some(unknown) = given.keys().find(|name| parameters.iter().all(|known| known.name != **name)) {
            let takes = if parameters.is_empty() { "no parameter".to_owned() } else { names() };
            return Err(format!("it has no parameter {unknown}; it takes {takes}"));
        }
        let mut checked = Parameters::new();
        for parameter in parameters {
            match given.get(&parameter.name).filter(|value| !value.is_null()).or(parameter.default.as_ref()) {
                Some(value) => {
                    let value = parameter.kind.check(value);
                    let value =
                        value.map_err(|expected| format!("parameter {}: {expected}", parameter.name))?;
                    checked.insert(parameter.name.clone(), value);
                }
                None if parameter.is_required => {
                    return Err(format!("parameter {} is missing ({})", parameter.name, parameter.about));
                }
                None => {}
            }
        }
        Ok(checked)
    }
}
