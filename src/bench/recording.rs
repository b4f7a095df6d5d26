//! A run as `pipeline cost` takes it: what was measured, put in figures per line, with the raw report beside them.
//!
//! Each figure has one key. What was not measured is an error, never a figure.
use serde::Serialize;
use serde_json::Value;

use super::{
    AnswerUse, ArchiveSize, BenchError, HalvesUse, OldMeasures, PostgresUse, ProcessUse, RunFigures,
};

const MILLION: f64 = 1e6;

/// Everything that a recording is made of.
#[derive(Debug)]
pub struct Measures<'a> {
    /// When.
    pub date: chrono::NaiveDate,
    /// How many cores the machine has.
    pub cores: usize,
    /// Into Postgres, in one process.
    pub run: &'a RunFigures,
    /// Into Postgres and the archive, in two.
    pub halves: &'a HalvesUse,
    /// The archive that they wrote.
    pub archive: ArchiveSize,
    /// The questions on it.
    pub archive_answers: Vec<AnswerUse>,
    /// The questions in Postgres.
    pub postgres_answers: Vec<PostgresUse>,
    /// The old design.
    pub old: &'a OldMeasures,
    /// The report that a bench prints.
    pub bench: Value,
}

/// The recorded run.
#[derive(Debug, Serialize)]
pub struct Recording {
    recorded: Recorded,
    queue: QueueFigures,
    stages: Stages,
    postgres: PostgresFigures,
    archive: ArchiveFigures,
    old: OldDesign,
    questions: Vec<QuestionUse>,
    bench: Value,
}

#[derive(Debug, Serialize)]
struct Recorded {
    date: String,
    version: &'static str,
    lines: u64,
    cores: usize,
    cpu: String,
}

#[derive(Debug, Serialize)]
struct QueueFigures {
    lines_per_second: f64,
    lines_per_frame: f64,
    bytes_per_line: f64,
    messages_per_million_lines: f64,
}

#[derive(Debug, Serialize)]
struct Stages {
    read: Stage,
    redis: Stage,
    /// Decoding, copying and archiving, as one process does them.
    process: Stage,
    /// The run into Postgres alone, less reading.
    decode_and_copy: Stage,
    /// Both halves into Postgres and archive, less the run into Postgres alone.
    archive_writer: Stage,
    postgres: Stage,
}

#[derive(Debug, Serialize)]
struct Stage {
    cpu_seconds_per_million_lines: f64,
    /// What it reads (`read`), carries, or writes.
    bytes_per_million_lines: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    peak_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct PostgresFigures {
    table_bytes_per_row: f64,
    index_bytes_per_row: f64,
    wal_bytes_per_row: f64,
}

#[derive(Debug, Serialize)]
struct ArchiveFigures {
    bytes_per_line: f64,
    lines_per_group: f64,
    groups: u64,
    tables: u64,
    data_files: u64,
}

#[derive(Debug, Serialize)]
struct OldDesign {
    lines_per_second: f64,
    cpu_seconds_per_million_lines: f64,
    postgres_cpu_seconds_per_million_lines: f64,
    redis_cpu_seconds_per_million_lines: f64,
    peak_bytes: u64,
    message_bytes: f64,
    table_bytes_per_row: f64,
    index_bytes_per_row: f64,
    wal_bytes_per_row: f64,
}

#[derive(Debug, Serialize)]
struct QuestionUse {
    name: &'static str,
    archive: Answer,
    postgres: Answer,
}

#[derive(Debug, Serialize)]
struct Answer {
    cpu_seconds: f64,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    requests: Option<u64>,
}

impl Recording {
    /// Puts the measures into figures; an error names what was not measured.
    pub fn try_new(measures: Measures<'_>) -> Result<Self, BenchError> {
        let Measures { run, halves, archive, old, .. } = measures;
        let (lines, rows) = (run.committed.lines.max(1) as f64, run.committed.rows.max(1) as f64);
        let per_million = |amount: f64| amount / lines * MILLION;
        let (one, read, both) =
            (cpu(&run.process)?, cpu(&halves.read)?, cpu(&halves.read)? + cpu(&halves.process)?);
        let text_bytes = run.committed.bytes as f64;
        let stored = (run.stored.table_bytes + run.stored.index_bytes) as f64;
        let stage = |cpu_seconds: f64, bytes: f64, used: Option<&ProcessUse>| Stage {
            // a difference of two measurements may come out below nothing
            cpu_seconds_per_million_lines: per_million(cpu_seconds.max(0.0)),
            bytes_per_million_lines: per_million(bytes),
            peak_bytes: used.and_then(|used| used.peak_bytes),
        };
        let archive_bytes = archive.bytes as f64;
        let stages = Stages {
            read: stage(read, text_bytes, Some(&halves.read)),
            redis: stage(known(run.redis_cpu_seconds, "the Redis server", SERVERS)?, text_bytes, None),
            process: stage(cpu(&halves.process)?, stored + archive_bytes, Some(&halves.process)),
            decode_and_copy: stage(one - read, stored, None),
            archive_writer: stage(both - one, archive_bytes, None),
            postgres: stage(
                known(run.postgres_cpu_seconds, "the Postgres server", SERVERS)?,
                stored + run.wal_bytes as f64,
                None,
            ),
        };
        let frames = run.committed.chunks.max(1) as f64;
        Ok(Self {
            recorded: Recorded {
                date: measures.date.to_string(),
                version: env!("CARGO_PKG_VERSION"),
                lines: run.committed.lines,
                cores: measures.cores,
                cpu: cpu_model(),
            },
            queue: QueueFigures {
                lines_per_second: run.lines_per_second(),
                lines_per_frame: lines / frames,
                bytes_per_line: text_bytes / lines,
                messages_per_million_lines: per_million(frames),
            },
            stages,
            postgres: PostgresFigures {
                table_bytes_per_row: run.stored.table_bytes as f64 / rows,
                index_bytes_per_row: run.stored.index_bytes as f64 / rows,
                wal_bytes_per_row: run.wal_bytes as f64 / rows,
            },
            archive: ArchiveFigures {
                bytes_per_line: archive_bytes / lines,
                lines_per_group: lines / archive.groups.max(1) as f64,
                groups: archive.groups,
                tables: archive.tables,
                data_files: archive.data_files,
            },
            old: OldDesign::of(old, rows)?,
            questions: questions(&measures.archive_answers, measures.postgres_answers),
            bench: measures.bench,
        })
    }

    /// As the text of a file.
    pub fn text(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

const SERVERS: &str = "record with servers that run on this machine";

impl OldDesign {
    fn of(measures: &OldMeasures, rows: f64) -> Result<Self, BenchError> {
        let OldMeasures { process, old, stored, .. } = measures;
        let lines = old.lines.max(1) as f64;
        let per_million = |seconds: f64| seconds / lines * MILLION;
        Ok(Self {
            lines_per_second: lines / old.seconds,
            cpu_seconds_per_million_lines: per_million(cpu(process)?),
            postgres_cpu_seconds_per_million_lines: per_million(known(
                measures.postgres_cpu_seconds,
                "the Postgres server",
                SERVERS,
            )?),
            redis_cpu_seconds_per_million_lines: per_million(known(
                measures.redis_cpu_seconds,
                "the Redis server",
                SERVERS,
            )?),
            peak_bytes: known(process.peak_bytes, "the old design", PROC)?,
            message_bytes: old.message_bytes as f64 / lines,
            table_bytes_per_row: stored.table_bytes as f64 / rows,
            index_bytes_per_row: stored.index_bytes as f64 / rows,
            wal_bytes_per_row: measures.wal_bytes as f64 / lines,
        })
    }
}

const PROC: &str = "the system must have a /proc with process times";

fn cpu(used: &ProcessUse) -> Result<f64, BenchError> {
    known(used.cpu_seconds, "a process that was measured", PROC)
}

fn known<T>(figure: Option<T>, of: &'static str, remedy: &'static str) -> Result<T, BenchError> {
    figure.ok_or(BenchError::NoClock { of, remedy })
}

fn questions(archive: &[AnswerUse], postgres: Vec<PostgresUse>) -> Vec<QuestionUse> {
    let used = postgres.into_iter().filter_map(|asked| {
        let answer = archive.iter().find(|answer| answer.name == asked.name)?;
        Some(QuestionUse {
            name: asked.name,
            archive: Answer {
                cpu_seconds: answer.cpu_seconds,
                bytes: answer.bytes,
                requests: Some(answer.requests),
            },
            postgres: Answer { cpu_seconds: asked.cpu_seconds, bytes: asked.bytes, requests: None },
        })
    });
    used.collect()
}

/// What the first processor calls itself.
fn cpu_model() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    model.map_or_else(|| std::env::consts::ARCH.to_owned(), |(_, model)| model.trim().to_owned())
}
