//! `pipeline cost`: COST.md from a recorded run and a price file.
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use chrono::{NaiveDate, Utc};
use clap::{Args, ValueEnum};

use super::units::parse_duration;
use super::{Exit, Global};
use crate::cost::{CostError, Inputs, PRICES, PRICES_NAME, Report, Retention};

/// Where recorded runs are.
const RUNS: &str = "data/runs";

/// Price a recorded run at 1 M to 10 B lines a day, beside the old design; writes COST.md and its chart
///
/// Figures are measured by `pipeline bench --baseline --record FILE`, prices are a dated file. Every number in the
/// report names where it comes from, and every row shows its formula.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
pipeline cost --hot 30d --cold 3650d\n  \
pipeline cost --set price.rds_gp3_gb=0.10 --set assumption.utilisation=0.7 --out what-if.md\n  \
pipeline cost --output json | jq '.totals[] | {pipeline, lines_per_day, usd}'")]
pub(super) struct CostArgs {
    /// Where the report goes; its chart goes beside it, with .svg in the place of .md
    #[arg(long, value_name = "FILE", default_value = "COST.md")]
    out: PathBuf,
    /// Price file [default: the one in the program, which is data/prices.toml]
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Recorded run [default: the last of data/runs/*.json by name]
    #[arg(long, value_name = "FILE")]
    run: Option<PathBuf>,
    /// How long lines are in Postgres
    #[arg(long, value_name = "TIME", default_value = "7d", value_parser = parse_duration)]
    hot: Duration,
    /// How long lines are in the archive
    #[arg(long, value_name = "TIME", default_value = "365d", value_parser = parse_duration)]
    cold: Duration,
    /// Reckon with another number, by its name in the report (repeatable)
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_set)]
    set: Vec<(String, f64)>,
    /// The day to which the ages of prices count [default: today]
    #[arg(long, value_name = "YYYY-MM-DD")]
    as_of: Option<NaiveDate>,
    /// Form of the report: markdown writes --out and shows the totals; json goes to standard output, and no file is written
    #[arg(long, value_enum, default_value_t)]
    output: CostFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum CostFormat {
    #[default]
    Markdown,
    Json,
}

/// Runs it.
pub(super) fn run(args: &CostArgs, global: &Global) -> anyhow::Result<Exit> {
    let inputs = match args.inputs() {
        // a number that is not there is a mistake on the command line
        Err(error) if matches!(error.downcast_ref(), Some(CostError::Unknown { .. })) => {
            super::print_error(&error.to_string())?;
            return Ok(Exit::Code(Exit::USAGE));
        }
        inputs => inputs?,
    };
    let report = Report::new(&inputs)?;
    if args.output == CostFormat::Json {
        writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
        return Ok(Exit::DONE);
    }
    let chart = args.out.with_extension("svg");
    let name = chart.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    write(&args.out, &report.markdown(&name))?;
    write(&chart, &report.svg()?)?;
    if !global.quiet {
        write!(io::stdout(), "{}", report.summary())?;
        writeln!(io::stderr(), "wrote {} and {}", args.out.display(), chart.display())?;
    }
    Ok(Exit::DONE)
}

impl CostArgs {
    fn inputs(&self) -> anyhow::Result<Inputs> {
        let as_of = self.as_of.unwrap_or_else(|| Utc::now().date_naive());
        let inputs = match &self.prices {
            None => Inputs::of_prices(PRICES_NAME, PRICES, as_of)?,
            Some(path) => Inputs::of_prices(&path.to_string_lossy(), &read(path)?, as_of)?,
        };
        let path = match &self.run {
            Some(path) => path.clone(),
            None => last_run()?,
        };
        let days = |time: Duration| time.as_secs_f64() / 86_400.0;
        let mut inputs = inputs
            .with_run(&path.to_string_lossy(), &read(&path)?)?
            .with_retention(Retention { hot_days: days(self.hot), cold_days: days(self.cold) })?;
        for (key, value) in &self.set {
            inputs.set(key, *value)?;
        }
        Ok(inputs)
    }
}

fn parse_set(text: &str) -> Result<(String, f64), String> {
    let (key, value) =
        text.split_once('=').ok_or("NAME=VALUE is expected, such as assumption.utilisation=0.7")?;
    let number = value.trim().parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    let number = number.ok_or_else(|| format!("{value} is not a number from 0 on"))?;
    Ok((key.trim().to_owned(), number))
}

/// By name, not by time: a checkout gives all files the same time, and names start with the date.
fn last_run() -> anyhow::Result<PathBuf> {
    let files = fs::read_dir(RUNS).into_iter().flatten().flatten().map(|entry| entry.path());
    let runs = files.filter(|path| path.extension().is_some_and(|extension| extension == "json"));
    let Some(last) = runs.max() else {
        bail!(
            "no recorded run in {RUNS}; record one with `pipeline bench --baseline --record {RUNS}/NAME.json`, or name \
             one with --run"
        )
    };
    Ok(last)
}

fn read(path: &Path) -> Result<String, CostError> {
    fs::read_to_string(path).map_err(|error| CostError::Unreadable {
        name: path.display().to_string(),
        reason: format!("cannot be read ({error}); name another file"),
    })
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}
