//! The report of a benchmark, as text and as JSON.
use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use crate::bench::{Attached, Compared, Ending, OldMeasures, QueueCost, RunFigures, Timed};
use crate::cli::units::{bytes_text, with_commas};

/// Width of the names in front.
const NAME: usize = 34;
const FIGURE: usize = 16;

/// Everything that was measured.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) cores: usize,
    pub(super) via: String,
    pub(super) chunk_size: String,
    pub(super) unindexed_leaves: u64,
    pub(super) run: RunFigures,
    pub(super) questions: Vec<Timed>,
    pub(super) summaries: Vec<Timed>,
    pub(super) baseline: Option<Baseline>,
    pub(super) queue_cost: QueueCost,
}

/// The old design, and what the pipeline is to it.
#[derive(Debug, Serialize)]
pub(super) struct Baseline {
    #[serde(flatten)]
    pub(super) measures: OldMeasures,
    /// Lines a second until queryable, the pipeline's over the old design's.
    queryable_ratio: f64,
    /// The same until every index is valid; the old design's indexes always are.
    indexed_ratio: f64,
    questions: Vec<Compared>,
}

impl Baseline {
    pub(super) fn new(run: &RunFigures, measures: OldMeasures, questions: Vec<Compared>) -> Self {
        let old_rate = measures.old.lines as f64 / measures.old.seconds;
        let rate = |seconds: f64| run.committed.lines as f64 / seconds;
        Self {
            measures,
            queryable_ratio: rate(run.queryable_seconds) / old_rate,
            indexed_ratio: rate(run.indexed_seconds) / old_rate,
            questions,
        }
    }
}

impl Report {
    pub(super) fn json(&self) -> serde_json::Result<Value> {
        let mut report = serde_json::to_value(self)?;
        let rows = self.run.committed.rows.max(1) as f64;
        let derived = json!({
            "lines_per_second_queryable": self.run.lines_per_second(),
            "cpu_seconds_per_million_lines": self.run.cpu_seconds_per_million_lines(),
            "peak_bytes": self.run.process.peak_bytes,
            "table_bytes_per_row": self.run.stored.table_bytes as f64 / rows,
            "index_bytes_per_row": self.run.stored.index_bytes as f64 / rows,
        });
        if let (Some(report), Value::Object(derived)) = (report.as_object_mut(), derived) {
            report.extend(derived);
        }
        Ok(report)
    }

    pub(super) fn text(&self) -> String {
        let mut out = String::new();
        self.pipeline(&mut out);
        match &self.baseline {
            None => queries(&mut out, "questions", &self.questions),
            Some(baseline) => {
                self.side_by_side(&mut out, baseline);
                compared(&mut out, &baseline.questions);
            }
        }
        queries(&mut out, "summaries", &self.summaries);
        cost(&mut out, &self.queue_cost);
        out
    }

    fn pipeline(&self, out: &mut String) {
        let run = &self.run;
        let counts = &run.committed;
        let (rows, lines) = (counts.rows.max(1) as f64, counts.lines.max(1) as f64);
        let rate = |seconds: f64| format!("{} lines/s", with_commas((lines / seconds) as u64));
        line(out, "lines", &with_commas(counts.lines), &bytes_text(counts.bytes));
        let per_chunk = format!("{} lines each", with_commas(counts.lines / counts.chunks.max(1)));
        line(out, "chunks", &with_commas(counts.chunks), &per_chunk);
        line(out, "rows queryable after", &seconds(run.queryable_seconds), &rate(run.queryable_seconds));
        line(out, "every index valid after", &seconds(run.indexed_seconds), &rate(run.indexed_seconds));
        if self.unindexed_leaves > 0 {
            line(out, "leaves without their indexes", &with_commas(self.unindexed_leaves), "");
        }
        line(
            out,
            "CPU per million lines",
            &optional(run.cpu_seconds_per_million_lines(), seconds),
            "pipeline",
        );
        for (name, cpu) in [("postgres", run.postgres_cpu_seconds), ("redis", run.redis_cpu_seconds)] {
            if let Some(cpu) = cpu {
                line(out, "", &seconds(cpu / lines * 1e6), name);
            }
        }
        line(out, "peak memory", &optional(run.process.peak_bytes, bytes_text), "");
        if let Some(queue) = run.deepest_queue {
            let bytes = queue.bytes.map_or_else(String::new, bytes_text);
            line(out, "deepest queue", &format!("{} frames", with_commas(queue.frames)), &bytes);
        }
        let stored = &run.stored;
        line(out, "bytes per row", &format!("{:.1} B", stored.table_bytes as f64 / rows), "tables");
        line(out, "", &format!("{:.1} B", stored.index_bytes as f64 / rows), "indexes");
    }

    fn side_by_side(&self, out: &mut String, baseline: &Baseline) {
        let (run, old) = (&self.run, &baseline.measures.old);
        let lines = run.committed.lines as f64;
        heading(out, "", &["pipeline", "old design", "ratio"]);
        let commas = |number: f64| with_commas(number as u64);
        columns(out, "lines", &[commas(lines), with_commas(old.lines), String::new()]);
        let old_rate = old.lines as f64 / old.seconds;
        for (name, seconds, ratio) in [
            ("lines/s until queryable", run.queryable_seconds, baseline.queryable_ratio),
            ("lines/s until indexed", run.indexed_seconds, baseline.indexed_ratio),
        ] {
            columns(out, name, &[commas(lines / seconds), commas(old_rate), format!("{ratio:.0} x")]);
        }
        let process = &baseline.measures.process;
        let old_cpu = process.cpu_seconds.map(|cpu| cpu / old.lines.max(1) as f64 * 1e6);
        let cpu = run.cpu_seconds_per_million_lines();
        let ratio = optional(cpu.zip(old_cpu), |(cpu, old)| format!("{:.0} x", old / cpu.max(1e-9)));
        columns(out, "CPU per million lines", &[optional(cpu, seconds), optional(old_cpu, seconds), ratio]);
        let peaks = [run.process.peak_bytes, process.peak_bytes].map(|peak| optional(peak, bytes_text));
        columns(out, "peak memory", &peaks);
    }
}

fn compared(out: &mut String, questions: &[Compared]) {
    heading(out, "questions (median of 3)", &["pipeline", "old table", "ratio"]);
    for question in questions {
        let name = format!("{}{}", question.name, if question.is_selective { " *" } else { "" });
        let ratio = format!("{:.1} x", question.ratio);
        columns(out, &name, &[millis(question.milliseconds), millis(question.old_milliseconds), ratio]);
    }
    let _infallible = writeln!(
        out,
        "  * asks for few rows of many; same answers; the old table holds the same rows, filled from the view logs"
    );
}

fn queries(out: &mut String, title: &str, timed: &[Timed]) {
    heading(out, title, &["median of 3", "first", "rows"]);
    for query in timed {
        let rows = with_commas(query.rows as u64);
        columns(out, query.name, &[millis(query.milliseconds), millis(query.first_milliseconds), rows]);
    }
}

fn cost(out: &mut String, cost: &QueueCost) {
    let title = format!("queue at {} lines a day", with_commas(cost.lines_per_day));
    heading(out, &title, &["lines/message", "requests/day", "$/month"]);
    for (name, way) in [("chunks of this run", &cost.frames), ("a message per line", &cost.message_per_line)]
    {
        let lines = with_commas(way.lines_per_message as u64);
        let requests = with_commas(way.requests_per_day as u64);
        columns(out, name, &[lines, requests, format!("{:.2}", way.dollars_per_month)]);
    }
    let prices = &cost.prices;
    let _infallible = writeln!(
        out,
        "  send, receive and delete at {:.2} $ per million requests, {} of payload each ({}, {})",
        prices.per_million_requests,
        bytes_text(prices.payload_unit_bytes),
        prices.source,
        prices.as_of
    );
}

/// What `--attach` saw.
pub(super) fn attached(seen: &Attached) -> String {
    let mut out = String::new();
    line(&mut out, "committed while watching", &with_commas(seen.committed.rows), "rows");
    line(&mut out, "in", &seconds(seen.seconds), "");
    line(&mut out, "rate", &with_commas(seen.rows_per_second as u64), "rows/s");
    let ending = match seen.ending {
        Ending::NoProgress => "no progress",
        Ending::TimeLimit => "time limit",
    };
    line(&mut out, "stopped by", ending, "");
    out
}

fn line(out: &mut String, name: &str, figure: &str, remark: &str) {
    let text = format!("{name:<NAME$}{figure:>FIGURE$}  {remark}");
    let _infallible = writeln!(out, "{}", text.trim_end());
}

fn heading(out: &mut String, title: &str, names: &[&str]) {
    out.push('\n');
    columns(out, title, names);
}

fn columns<T: AsRef<str>>(out: &mut String, name: &str, figures: &[T]) {
    let figures: String = figures.iter().map(|figure| format!("{:>FIGURE$}", figure.as_ref())).collect();
    let _infallible = writeln!(out, "{}", format!("{name:<NAME$}{figures}").trim_end());
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.2} s")
}

fn millis(millis: f64) -> String {
    format!("{millis:.1} ms")
}

fn optional<T>(figure: Option<T>, text: impl Fn(T) -> String) -> String {
    figure.map_or_else(|| "unknown".to_owned(), text)
}
