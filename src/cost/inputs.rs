//! The numbers that formulas take, each with the place that it comes from: price file, recorded run, flags.
//!
//! Keys: `price.*`, `limit.*` and `assumption.*` are tables of the price file, `run.*` are the numbers of the recorded
//! run by their path, `keep.*` comes from flags. In a list of the run, an element goes by its `name`.
use std::collections::BTreeMap;

use chrono::{Days, NaiveDate};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::CostError;

/// A price is flagged from this age on.
const OLD_DAYS: u64 = 365;
/// The raw report of a recorded run: what its other keys were computed from, and no input of its own.
const RAW: &str = "bench";
/// So many names at most are proposed for one that is not there.
const NEAR: usize = 3;

/// How long lines are kept.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Retention {
    /// Days in Postgres.
    pub hot_days: f64,
    /// Days in the archive.
    pub cold_days: f64,
}

/// A number with its origin.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Input {
    /// What formulas call it.
    pub key: String,
    /// The number.
    pub value: f64,
    /// What it counts.
    pub unit: String,
    /// File and key, or the flag.
    pub place: String,
    /// The provider's page, or why it is assumed.
    pub source: Option<String>,
    /// Where it was read, if elsewhere.
    pub seen: Option<String>,
    /// The date of what it was read in.
    pub date: Option<String>,
    /// What a reader should know before relying on it.
    pub flags: Vec<String>,
}

/// Everything that formulas may name.
#[derive(Debug, Clone)]
pub struct Inputs {
    by_key: BTreeMap<String, Input>,
    /// Texts of the run that say what it was, such as its date.
    pub(super) recorded: BTreeMap<String, String>,
    /// Names of the run's questions, in their order.
    pub(super) questions: Vec<String>,
    pub(super) prices_name: String,
    pub(super) run_name: String,
    pub(super) as_of: NaiveDate,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PriceFile {
    price: BTreeMap<String, Price>,
    limit: BTreeMap<String, Limit>,
    assumption: BTreeMap<String, Assumption>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    usd: f64,
    per: String,
    region: String,
    source: String,
    seen: String,
    date: Option<toml::value::Datetime>,
    confirmed: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limit {
    value: f64,
    unit: String,
    source: String,
    seen: Option<String>,
    date: Option<toml::value::Datetime>,
    #[serde(default = "yes")]
    confirmed: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Assumption {
    value: f64,
    unit: String,
    why: String,
}

impl Inputs {
    /// Reads a price file, called `name`. Ages count to `as_of`.
    pub fn of_prices(name: &str, text: &str, as_of: NaiveDate) -> Result<Self, CostError> {
        let file: PriceFile = toml::from_str(text).map_err(|error| {
            let line = error.span().map_or(1, |span| text[..span.start].matches('\n').count() + 1);
            let reason = format!("line {line}: {}", error.message().replace('\n', ", "));
            CostError::Unreadable { name: name.to_owned(), reason }
        })?;
        let mut inputs = Self {
            by_key: BTreeMap::new(),
            recorded: BTreeMap::new(),
            questions: Vec::new(),
            prices_name: name.to_owned(),
            run_name: String::new(),
            as_of,
        };
        for (key, price) in file.price {
            let date = price.date.map(|date| date.to_string());
            let mut flags = inputs.age_flag(date.as_deref());
            flags.extend(unconfirmed_flag(price.confirmed));
            inputs.add(Input {
                key: format!("price.{key}"),
                value: price.usd,
                unit: format!("$ per {} ({})", price.per, price.region),
                place: format!("{name}: price.{key}"),
                source: Some(price.source),
                seen: Some(price.seen),
                date,
                flags,
            })?;
        }
        for (key, limit) in file.limit {
            inputs.add(Input {
                key: format!("limit.{key}"),
                value: limit.value,
                unit: limit.unit,
                place: format!("{name}: limit.{key}"),
                source: Some(limit.source),
                seen: limit.seen,
                date: limit.date.map(|date| date.to_string()),
                flags: unconfirmed_flag(limit.confirmed),
            })?;
        }
        for (key, assumption) in file.assumption {
            inputs.add(Input {
                key: format!("assumption.{key}"),
                value: assumption.value,
                unit: assumption.unit,
                place: format!("{name}: assumption.{key}"),
                source: Some(assumption.why),
                seen: None,
                date: None,
                flags: Vec::new(),
            })?;
        }
        Ok(inputs)
    }

    /// Adds the numbers of a recorded run, called `name`.
    pub fn with_run(mut self, name: &str, text: &str) -> Result<Self, CostError> {
        let fail = |reason: String| CostError::Unreadable { name: name.to_owned(), reason };
        let run: Value =
            serde_json::from_str(text).map_err(|error| fail(format!("is not a recorded run: {error}")))?;
        let Some(recorded) = run.get("recorded").and_then(Value::as_object) else {
            return Err(fail(
                "is not a recorded run; record one with `pipeline bench --baseline --record FILE`".to_owned(),
            ));
        };
        self.recorded = recorded.iter().map(|(key, value)| (key.clone(), text_of(value))).collect();
        let questions = run.get("questions").and_then(Value::as_array);
        let names = questions.into_iter().flatten().filter_map(|question| question.get("name")?.as_str());
        self.questions = names.map(str::to_owned).collect();
        name.clone_into(&mut self.run_name);
        let mut numbers = Vec::new();
        for (key, value) in run.as_object().into_iter().flatten().filter(|(key, _)| *key != RAW) {
            collect_numbers(key, value, &mut numbers);
        }
        for (path, value) in numbers {
            self.add(Input {
                key: format!("run.{path}"),
                value,
                unit: path.rsplit('.').next().unwrap_or_default().replace('_', " "),
                place: format!("{name}: {path}"),
                source: None,
                seen: None,
                date: self.recorded.get("date").cloned(),
                flags: Vec::new(),
            })?;
        }
        Ok(self)
    }

    /// Adds how long lines are kept.
    pub fn with_retention(mut self, retention: Retention) -> Result<Self, CostError> {
        for (key, flag, value) in [
            ("keep.hot_days", "--hot", retention.hot_days),
            ("keep.cold_days", "--cold", retention.cold_days),
        ] {
            self.add(Input {
                key: key.to_owned(),
                value,
                unit: "days".to_owned(),
                place: flag.to_owned(),
                source: None,
                seen: None,
                date: None,
                flags: Vec::new(),
            })?;
        }
        Ok(self)
    }

    /// Changes a number that is there.
    pub fn set(&mut self, key: &str, value: f64) -> Result<(), CostError> {
        let Some(input) = self.by_key.get_mut(key) else {
            let near = match self.near(key).join(", ") {
                near if near.is_empty() => String::new(),
                near => format!("; near it are {near}"),
            };
            return Err(CostError::Unknown { key: key.to_owned(), near });
        };
        let before = super::number::plain(input.value);
        input.flags = vec![format!("{before} in {}", input.place)];
        input.value = checked(value, &format!("--set {key}"))?;
        input.place = format!("--set {key}");
        Ok(())
    }

    /// The number of that name.
    pub fn get(&self, key: &str) -> Option<&Input> {
        self.by_key.get(key)
    }

    /// Names that resemble one that is not there, the nearest first.
    fn near(&self, key: &str) -> Vec<&str> {
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let mut found: Vec<_> = self
            .by_key
            .keys()
            .map(|known| {
                let (whole, end) = (distance(key, known), distance(&last(key), &last(known)));
                (whole.min(end), whole, known.as_str())
            })
            .filter(|(nearest, ..)| *nearest <= last(key).chars().count().div_ceil(2))
            .collect();
        found.sort_unstable();
        found.into_iter().take(NEAR).map(|(.., known)| known).collect()
    }

    fn add(&mut self, mut input: Input) -> Result<(), CostError> {
        input.value = checked(input.value, &input.place)?;
        self.by_key.insert(input.key.clone(), input);
        Ok(())
    }

    fn age_flag(&self, date: Option<&str>) -> Vec<String> {
        let Some(date) = date else { return vec!["date unknown".to_owned()] };
        let oldest = self.as_of.checked_sub_days(Days::new(OLD_DAYS)).unwrap_or_default();
        match date.parse::<NaiveDate>() {
            Ok(date) if date >= oldest => Vec::new(),
            Ok(_) => vec!["older than a year".to_owned()],
            Err(_) => vec!["date unknown".to_owned()],
        }
    }
}

fn unconfirmed_flag(confirmed: bool) -> Vec<String> {
    if confirmed { Vec::new() } else { vec!["not confirmed".to_owned()] }
}

/// Prices and measures are not negative, and a formula may divide by them only where they are not zero.
fn checked(value: f64, place: &str) -> Result<f64, CostError> {
    match value.is_finite() && value >= 0.0 {
        true => Ok(value),
        false => Err(CostError::Unreadable {
            name: place.to_owned(),
            reason: format!("{value} is not a number from 0 on; change it"),
        }),
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn collect_numbers(path: &str, value: &Value, numbers: &mut Vec<(String, f64)>) {
    match value {
        Value::Number(number) => numbers.extend(number.as_f64().map(|number| (path.to_owned(), number))),
        Value::Object(fields) => {
            for (key, value) in fields {
                collect_numbers(&format!("{path}.{key}"), value, numbers);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                if let Some(name) = element.get("name").and_then(Value::as_str) {
                    collect_numbers(&format!("{path}.{name}"), element, numbers);
                }
            }
        }
        _ => {}
    }
}

/// Letters to insert, delete or change to make one text the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, against) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *against);
            diagonal = row[column + 1];
            row[column + 1] = changed.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
