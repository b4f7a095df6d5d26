//! The six questions of analysts and the four summaries, timed; the six also in the team's old SQL.
use std::time::Instant;

use serde::Serialize;
use tokio_postgres::Client;

use super::BenchError;
use super::scratch::texts;
use crate::log_type::ddl::quoted;

/// Runs after the first, of which the middle one counts.
const ROUNDS: usize = 3;

/// A question with its SQL.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// The name of its file, without the number.
    pub name: &'static str,
    /// Whether it asks for few rows of many.
    pub is_selective: bool,
    /// On the typed tables.
    pub sql: &'static str,
    /// On the single table `logs` of the old design.
    pub old_sql: Option<&'static str>,
}

macro_rules! question {
    ($name:literal, $is_selective:literal) => {
        Question {
            name: $name,
            is_selective: $is_selective,
            sql: include_str!(concat!("../../sql/queries/", $name, ".sql")),
            old_sql: Some(include_str!(concat!("../../sql/queries/old/", $name, ".sql"))),
        }
    };
    (summary $name:literal) => {
        Question {
            name: $name,
            is_selective: false,
            sql: include_str!(concat!("../../sql/queries/summary/", $name, ".sql")),
            old_sql: None,
        }
    };
}

const QUESTIONS: &[Question] = &[
    question!("1_host_window", true),
    question!("2_dns_domain", true),
    question!("3_failed_logins", true),
    question!("4_hourly_volume", false),
    question!("5_top_talkers", false),
    question!("6_port_pairs", true),
];

const SUMMARIES: &[Question] = &[
    question!(summary "1_records_by_type"),
    question!(summary "2_top_sources"),
    question!(summary "3_failed_logins"),
    question!(summary "4_suspicious_domains"),
];

/// The six questions.
pub fn questions() -> &'static [Question] {
    QUESTIONS
}

/// The four summaries.
pub fn summaries() -> &'static [Question] {
    SUMMARIES
}

/// How long a question took, until its last row had come.
#[derive(Debug, Clone, Serialize)]
pub struct Timed {
    /// Its name.
    pub name: &'static str,
    /// Whether it asks for few rows of many.
    pub is_selective: bool,
    /// Rows of the answer.
    pub rows: usize,
    /// The first time.
    pub first_milliseconds: f64,
    /// The median of the times after that.
    pub milliseconds: f64,
    /// Every value of the answer, as Postgres writes it.
    #[serde(skip)]
    pub answer: Vec<Vec<Option<String>>>,
}

/// The new design beside the old one.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// The question's name.
    pub name: &'static str,
    /// Whether it asks for few rows of many.
    pub is_selective: bool,
    /// Median of the new SQL on the typed tables.
    pub milliseconds: f64,
    /// Median of the old SQL on the single table.
    pub old_milliseconds: f64,
    /// How many times faster the new one is.
    pub ratio: f64,
}

/// Times `questions` in `schema`; with `old_sql` in the words of the old design.
pub async fn time(
    client: &Client,
    schema: &str,
    questions: &[Question],
    old_sql: bool,
) -> Result<Vec<Timed>, BenchError> {
    let settings = format!("SET search_path = {}; SET TimeZone = 'UTC'", quoted(schema));
    client.batch_execute(&settings).await.map_err(BenchError::postgres("set up the questions"))?;
    let mut timed = Vec::new();
    for question in questions {
        let Some(sql) = (if old_sql { question.old_sql } else { Some(question.sql) }) else { continue };
        let mut times = Vec::new();
        let mut answer = Vec::new();
        for _ in 0..=ROUNDS {
            let started = Instant::now();
            let messages = client.simple_query(sql).await;
            times.push(started.elapsed().as_secs_f64() * 1000.0);
            answer = texts(messages.map_err(BenchError::postgres(format!("ask {}", question.name)))?);
        }
        let first_milliseconds = times.remove(0);
        times.sort_by(f64::total_cmp);
        timed.push(Timed {
            name: question.name,
            is_selective: question.is_selective,
            rows: answer.len(),
            first_milliseconds,
            milliseconds: times[ROUNDS / 2],
            answer,
        });
    }
    let reset = client.batch_execute("RESET search_path; RESET TimeZone").await;
    reset.map_err(BenchError::postgres("set back the session"))?;
    Ok(timed)
}

/// Puts both side by side; an error if they do not answer alike.
pub fn compare(new: &[Timed], old: &[Timed]) -> Result<Vec<Compared>, BenchError> {
    let pairs = new.iter().filter_map(|new| Some((new, old.iter().find(|old| old.name == new.name)?)));
    pairs
        .map(|(new, old)| match new.answer == old.answer {
            false => Err(BenchError::Disagree { question: new.name }),
            true => Ok(Compared {
                name: new.name,
                is_selective: new.is_selective,
                milliseconds: new.milliseconds,
                old_milliseconds: old.milliseconds,
                ratio: old.milliseconds / new.milliseconds.max(1e-6),
            }),
        })
        .collect()
}
