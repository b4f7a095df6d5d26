//! All metrics in the text format of Prometheus, and the table of them in the documentation.
use std::sync::OnceLock;
use std::time::Instant;

use super::{Metric, Summary};

/// What the operating system says of this process: name, kind, what it says.
const OF_PROCESS: [(&str, &str, &str); 3] = [
    ("process_cpu_seconds_total", "counter", "CPU seconds that this process took"),
    ("process_resident_memory_bytes", "gauge", "Memory of this process, now"),
    ("process_uptime_seconds", "gauge", "Seconds since this process began"),
];

/// Milliseconds since the first call, which is made when the program begins.
pub fn uptime_millis() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    // from 1 on: 0 stands for no time
    u64::try_from(START.get_or_init(Instant::now).elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// All metrics in the text format of Prometheus.
#[must_use]
pub fn render_metrics() -> String {
    let mut text = String::new();
    let mut last_family = "";
    for metric in Metric::ALL {
        let (family, kind) = (family(metric), kind(metric));
        if family != last_family {
            text += &format!("# HELP {family} {}\n# TYPE {family} {kind}\n", help(metric));
            last_family = family;
        }
        let value = match metric {
            // counted in whole ones, told in the unit that Prometheus has for time
            Metric::QueueOldestMillis | Metric::OldestInFlight => {
                (metric.value() as f64 / 1000.0).to_string()
            }
            _ => metric.value().to_string(),
        };
        text += &format!("{} {value}\n", metric.name());
    }
    for summary in Summary::ALL {
        summary.render(&mut text);
    }
    let (cpu_seconds, memory_bytes) = of_process().unwrap_or_default();
    let uptime = uptime_millis() as f64 / 1000.0;
    for ((name, kind, help), value) in OF_PROCESS.into_iter().zip([cpu_seconds, memory_bytes, uptime]) {
        text += &format!("# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n");
    }
    text
}

/// The same as a table for people, in Markdown.
#[must_use]
pub fn metrics_table() -> String {
    let mut table = "| name | kind | what it says |\n|---|---|---|\n".to_owned();
    for metric in Metric::ALL {
        table += &format!("| `{}` | {} | {} |\n", metric.name(), kind(metric), metric.help());
    }
    for summary in Summary::ALL {
        table += &format!("| `{}` | summary | {} |\n", summary.name(), summary.help());
    }
    for (name, kind, help) in OF_PROCESS {
        table += &format!("| `{name}` | {kind} | {help} |\n");
    }
    table
}

fn family(metric: Metric) -> &'static str {
    metric.name().split('{').next().unwrap_or_default()
}

/// Of a family of several series: what all of them say.
fn help(metric: Metric) -> &'static str {
    match family(metric) {
        "task_count_total" => "Runs of tasks, by what the task is after them",
        _ => metric.help(),
    }
}

fn kind(metric: Metric) -> &'static str {
    if family(metric).ends_with("_total") { "counter" } else { "gauge" }
}

/// CPU seconds and bytes of memory, where there is `/proc`.
fn of_process() -> Option<(f64, f64)> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<f64>().ok();
    // fields 14, 15 and 24 of proc(5); the units are 10 ms and pages of 4 KiB on every Linux this runs on
    Some(((number(11)? + number(12)?) / 100.0, number(21)? * 4096.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_rendered_under_its_family() {
        let text = render_metrics();
        for metric in Metric::ALL {
            let series = text.lines().filter(|line| line.starts_with(&format!("{} ", metric.name())));
            assert_eq!(series.count(), 1, "{}", metric.name());
        }
        assert_eq!(text.matches("# TYPE task_count_total counter").count(), 1);
        assert!(!text.contains("milliseconds"), "Prometheus has seconds for time");
        Metric::QueueOldestMillis.set(1500);
        assert!(render_metrics().contains("\npipeline_queue_oldest_seconds 1.5\n"));
        let value =
            text.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes ")).unwrap();
        assert!(value.parse::<f64>().unwrap() > 1e6, "{value}");
    }
}
