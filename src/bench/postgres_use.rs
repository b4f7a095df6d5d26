//! What the six questions take of Postgres: CPU of the server, and the pages that it visits.
use serde::Serialize;
use serde_json::Value;
use tokio_postgres::{Client, SimpleQueryMessage};

use super::process::mean_cpu_seconds;
use super::{BenchError, Question, ServerClocks};
use crate::log_type::ddl::quoted;

/// Bytes of a page, as servers are built.
const PAGE_BYTES: u64 = 8192;

/// What it took to answer once, with everything in memory.
#[derive(Debug, Clone, Serialize)]
pub struct PostgresUse {
    /// The question.
    pub name: &'static str,
    /// Bytes of the pages that were visited.
    pub bytes: u64,
    /// CPU of the server, parallel workers included.
    pub cpu_seconds: f64,
}

/// Asks each question in `schema`. The server must do nothing else meanwhile, and be on this machine.
pub async fn ask_postgres(
    client: &Client,
    clocks: &ServerClocks,
    schema: &str,
    questions: &[Question],
) -> Result<Vec<PostgresUse>, BenchError> {
    let settings = format!("SET search_path = {}; SET TimeZone = 'UTC'", quoted(schema));
    client.batch_execute(&settings).await.map_err(BenchError::postgres("set up the questions"))?;
    let clock = || {
        clocks.postgres_seconds().ok_or(BenchError::NoClock {
            of: "the Postgres server",
            remedy: "record with a server that runs on this machine",
        })
    };
    let mut used = Vec::new();
    for question in questions {
        let fail = || BenchError::postgres(format!("ask {}", question.name));
        let explain = format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {}", question.sql);
        let plan = client.simple_query(&explain).await.map_err(fail())?;
        let ask = async || client.simple_query(question.sql).await.map(drop).map_err(fail());
        let cpu_seconds = mean_cpu_seconds(clock, ask).await?;
        used.push(PostgresUse { name: question.name, bytes: pages(&plan) * PAGE_BYTES, cpu_seconds });
    }
    let reset = client.batch_execute("RESET search_path; RESET TimeZone").await;
    reset.map_err(BenchError::postgres("set back the session"))?;
    Ok(used)
}

/// Pages that the topmost node and all below it visited.
fn pages(plan: &[SimpleQueryMessage]) -> u64 {
    let texts = plan.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    let plan: Value = serde_json::from_str(&texts.collect::<String>()).unwrap_or_default();
    let count = |name: &str| plan.pointer(&format!("/0/Plan/{name}")).and_then(Value::as_u64);
    ["Shared Hit Blocks", "Shared Read Blocks"].into_iter().filter_map(count).sum()
}
