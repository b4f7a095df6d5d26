//! The six questions that analysts ask most, and how their answers are drawn.
use serde_json::{Value as Json, json};

/// A question.
pub(super) struct Question {
    title: &'static str,
    pub(super) sql: &'static str,
    /// Columns whose values name a bar, and the column that is its length; no column: how many rows there are.
    labels: &'static [&'static str],
    value: Option<&'static str>,
    /// Of a time as label: how much of its text.
    label_len: Option<usize>,
}

const QUESTIONS: [Question; 6] = [
    Question {
        title: "Traffic of host 192.168.1.42, 05:00 to 06:00",
        sql: include_str!("../../sql/queries/1_host_window.sql"),
        labels: &["dst_port"],
        value: None,
        label_len: None,
    },
    Question {
        title: "DNS queries for evil-domain.com",
        sql: include_str!("../../sql/queries/2_dns_domain.sql"),
        labels: &["client_ip"],
        value: None,
        label_len: None,
    },
    Question {
        title: "Failed logins from 192.168.1.100",
        sql: include_str!("../../sql/queries/3_failed_logins.sql"),
        labels: &["username"],
        value: None,
        label_len: None,
    },
    Question {
        title: "Events per log type and hour",
        sql: include_str!("../../sql/queries/4_hourly_volume.sql"),
        labels: &["log_type", "hour"],
        value: Some("events"),
        label_len: Some(13),
    },
    Question {
        title: "Top talkers",
        sql: include_str!("../../sql/queries/5_top_talkers.sql"),
        labels: &["src"],
        value: Some("events"),
        label_len: None,
    },
    Question {
        title: "Who connects to port 3389",
        sql: include_str!("../../sql/queries/6_port_pairs.sql"),
        labels: &["src", "dst"],
        value: Some("events"),
        label_len: None,
    },
];

/// From 1.
pub(super) fn get(number: usize) -> Option<&'static Question> {
    QUESTIONS.get(number.checked_sub(1)?)
}

pub(super) fn list() -> Json {
    let question = |(index, question): (usize, &Question)| {
        json!({
            "number": index + 1, "title": question.title, "sql": question.sql, "labels": question.labels,
            "value": question.value, "label_len": question.label_len,
        })
    };
    QUESTIONS.iter().enumerate().map(question).collect()
}
