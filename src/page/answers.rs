//! What the page asks, answered from the archive, the database of tasks, and the metrics of this and other processes.
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Map, Value as Json, json};
use tokio::sync::{Mutex, Semaphore};

use crate::client::{redacted, with_causes};
use crate::cost::Inputs;
use crate::lake::{Archive, LakeError};
use crate::log_type::LogTypes;
use crate::query::{Places, Session};
use crate::store::tasks::Filter;
use crate::task::{TaskStatus, TaskStore};
use crate::telemetry;

/// Statements at once; more wait.
const STATEMENTS: usize = 2;
/// Rows of an answer.
const MAX_ROWS: usize = 1000;
const MAX_TASKS: u32 = 50;
const MAX_PIECES: u32 = 1000;
/// Another process must say its metrics within this time.
const SCRAPE: Duration = Duration::from_secs(2);
const PRICES: (&str, &str) = ("data/prices.toml", include_str!("../../data/prices.toml"));
const DAYS_PER_MONTH: f64 = 365.0 / 12.0;
/// A hundred chunks with rejects hold a hundred of them.
const LAST_REJECTS: &str = r#"
SELECT file, "offset", line, log_type, reason, bytes
FROM rejects
JOIN (
    SELECT chunk_id AS id, max(committed_at) AS committed_at
    FROM chunks
    WHERE rejects > 0
    GROUP BY chunk_id
    ORDER BY committed_at DESC
    LIMIT 100
) AS newest ON chunk_id = id
ORDER BY committed_at DESC, file, "offset" DESC
LIMIT 100"#;

/// See the module.
pub(super) struct Answers {
    archive: String,
    types: LogTypes,
    tasks: TaskStore,
    metrics: Vec<String>,
    http: reqwest::Client,
    session: Mutex<Option<Arc<Session>>>,
    permits: Semaphore,
}

impl std::fmt::Debug for Answers {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Answers").field("archive", &self.archive).finish_non_exhaustive()
    }
}

type Answer = Result<Json, String>;

fn text(error: impl std::error::Error) -> String {
    with_causes(&error)
}

impl Answers {
    pub(super) fn new(archive: &str, types: LogTypes, tasks: TaskStore, metrics: Vec<String>) -> Self {
        Self {
            archive: archive.to_owned(),
            types,
            tasks,
            metrics,
            http: reqwest::Client::builder().timeout(SCRAPE).build().unwrap_or_default(),
            session: Mutex::new(None),
            permits: Semaphore::new(STATEMENTS),
        }
    }

    /// Metrics by process, tables of the archive with what their bytes cost, tasks by status.
    pub(super) async fn overview(&self) -> Answer {
        let (tables, bytes) = match Archive::open(&self.archive).await {
            Ok(archive) => tables(&archive.tables().await.map_err(text)?),
            // nothing was stored yet
            Err(LakeError::NotFound { .. }) => (Json::Array(Vec::new()), 0),
            Err(error) => return Err(text(error)),
        };
        let counts = self.tasks.count_by_status().await.map_err(text)?;
        let counts: Map<_, _> =
            counts.into_iter().map(|(status, count)| (status.to_string(), count.into())).collect();
        Ok(json!({
            "time": chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            "archive": { "location": redacted(&self.archive), "tables": tables, "bytes": bytes },
            "usd_per_day": usd_per_day(bytes),
            "tasks": counts,
            "processes": self.processes().await,
        }))
    }

    async fn processes(&self) -> Json {
        let own = json!({ "name": "this process", "metrics": series(&telemetry::render_metrics()) });
        let others = self.metrics.iter().map(async |url| {
            let said = async { self.http.get(url).send().await?.error_for_status()?.text().await };
            let name = redacted(url);
            match said.await {
                Ok(text) => json!({ "name": name, "metrics": series(&text) }),
                Err(error) => json!({ "name": name, "error": text(error.without_url()) }),
            }
        });
        let others = join_all(others).await;
        std::iter::once(own).chain(others).collect()
    }

    pub(super) async fn tasks(&self, status: Option<TaskStatus>) -> Answer {
        let filter = Filter { status, ..Filter::default() };
        let tasks = self.tasks.list(&filter, MAX_TASKS).await.map_err(text)?;
        serde_json::to_value(tasks).map_err(text)
    }

    pub(super) async fn task(&self, id: &str) -> Result<Option<Json>, String> {
        let Some(task) = self.tasks.by_id(id).await.map_err(text)? else { return Ok(None) };
        let steps = self.tasks.children(id).await.map_err(text)?;
        let pieces = self.tasks.last_lines(id, MAX_PIECES).await.map_err(text)?;
        let is_cut = pieces.first().is_some_and(|piece| piece.number > 1);
        let lines: Vec<_> = pieces.iter().flat_map(|piece| piece.text.lines()).collect();
        Ok(Some(json!({ "task": task, "steps": steps, "lines": lines, "is_cut": is_cut })))
    }

    /// The last aggregates, where there are any.
    pub(super) async fn windows(&self) -> Answer {
        self.tasks.windows(100).await.map(Json::Array).map_err(text)
    }

    /// The rejects that were committed last, each with the bytes of its line.
    pub(super) async fn rejects(&self) -> Answer {
        if let Err(LakeError::NotFound { .. }) = Archive::open(&self.archive).await {
            return Ok(Json::Array(Vec::new()));
        }
        let mut rows = self.ask(LAST_REJECTS).await?["rows"].take();
        for row in rows.as_array_mut().into_iter().flatten() {
            let text = row["bytes"].as_str().map(from_hex).unwrap_or_default();
            row["text"] = text.into();
        }
        Ok(rows)
    }

    /// The first rows of a statement, in its order: names of columns, rows, and whether there are more.
    pub(super) async fn ask(&self, sql: &str) -> Answer {
        let _permit = self.permits.acquire().await.map_err(text)?;
        let (held, session) = self.session().await?;
        let answered = match session.first_rows(sql, MAX_ROWS).await {
            // the archive may be another one than when it was opened
            Err(_) if held => {
                *self.session.lock().await = None;
                self.session().await?.1.first_rows(sql, MAX_ROWS).await
            }
            answered => answered,
        };
        let answered = answered.map_err(text)?;
        let rows = match answered.json.iter().all(u8::is_ascii_whitespace) {
            true => Json::Array(Vec::new()),
            false => serde_json::from_slice(&answered.json).map_err(text)?,
        };
        Ok(json!({ "columns": answered.columns, "rows": rows, "is_cut": answered.is_cut }))
    }

    /// The session over the archive, and whether it is one from before.
    async fn session(&self) -> Result<(bool, Arc<Session>), String> {
        let mut held = self.session.lock().await;
        if let Some(session) = &*held {
            return Ok((true, Arc::clone(session)));
        }
        let places = Places::open(std::slice::from_ref(&self.archive), "public", &self.types).await;
        let session = Arc::new(Session::new(places.map_err(text)?).map_err(text)?);
        *held = Some(Arc::clone(&session));
        Ok((false, session))
    }
}

fn tables(tables: &[crate::lake::TableSnapshot]) -> (Json, u64) {
    let mut total = 0;
    let tables = tables.iter().map(|table| {
        let bytes: u64 = table.files.iter().map(|file| file.size_bytes).sum();
        let rows: u64 = table.files.iter().map(|file| file.num_rows).sum();
        total += bytes;
        let mut by_day: BTreeMap<i32, u64> = BTreeMap::new();
        for file in &table.files {
            *by_day.entry(file.day.unwrap_or_default()).or_default() += file.num_rows;
        }
        json!({ "name": table.name, "rows": rows, "bytes": bytes, "files": table.files.len(), "days": by_day.len() })
    });
    (tables.collect(), total)
}

/// What the archive's bytes cost in S3 Standard, at the price of the program's price file.
fn usd_per_day(bytes: u64) -> Option<f64> {
    let inputs = Inputs::of_prices(PRICES.0, PRICES.1, chrono::Utc::now().date_naive()).ok()?;
    let per_gb_month = inputs.get("price.s3_standard")?.value;
    Some(bytes as f64 / f64::from(1 << 30) * per_gb_month / DAYS_PER_MONTH)
}

/// `name{labels} value` of every series.
fn series(exposition: &str) -> Json {
    let lines = exposition.lines().filter(|line| !line.starts_with('#'));
    let series = lines.filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((name.to_owned(), json!(value.parse::<f64>().ok()?)))
    });
    Json::Object(series.collect())
}

fn from_hex(hex: &str) -> String {
    let digit =
        |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok()).unwrap_or(0);
    let bytes: Vec<u8> =
        hex.as_bytes().chunks(2).map(|pair| pair.iter().fold(0, |byte, c| byte << 4 | digit(*c))).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_and_bytes_are_read_back() {
        let read = series("# HELP a b\na_total 3\ntask_count_total{status=\"failed\"} 2.5\nx NaN\n");
        assert_eq!(read["a_total"], 3.0);
        assert_eq!(read["task_count_total{status=\"failed\"}"], 2.5);
        assert_eq!(from_hex("4a616eff"), "Jan\u{fffd}");
        assert!(usd_per_day(1 << 40).unwrap() > 0.1);
    }
}
