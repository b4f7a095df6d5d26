//! The progress bar of commands that read files.
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::units::with_commas;
use crate::stage::shutdown::Shutdown;
use crate::telemetry::Metric;

/// A bar on a terminal, nothing elsewhere.
pub(super) struct Progress {
    stop: Shutdown,
    task: Option<tokio::task::JoinHandle<()>>,
}

impl Progress {
    pub(super) fn start(wanted: bool) -> Self {
        let stop = Shutdown::new();
        let task = (wanted && io::stderr().is_terminal()).then(|| tokio::spawn(show_progress(stop.clone())));
        Self { stop, task }
    }

    pub(super) async fn stop(self) {
        self.stop.request();
        if let Some(task) = self.task {
            // it ends by itself; a bar that panicked is no reason to fail
            let _ended = task.await;
        }
    }
}

async fn show_progress(stop: Shutdown) {
    let template = "{bar:30} {percent:>3}%  {binary_bytes}/{binary_total_bytes}  {msg}  eta {eta}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(0).with_style(style);
    let started = Instant::now();
    loop {
        bar.set_length(Metric::InputBytesTotal.value());
        bar.set_position(Metric::InputBytesRead.value());
        let lines = Metric::LinesDecoded.value();
        let rate = lines as f64 / started.elapsed().as_secs_f64().max(0.001);
        bar.set_message(format!("{} lines, {} lines/s", with_commas(lines), with_commas(rate as u64)));
        tokio::select! {
            () = stop.requested() => break,
            () = tokio::time::sleep(Duration::from_millis(100)) => {}
        }
    }
    bar.finish_and_clear();
}
