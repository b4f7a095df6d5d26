//! The model evaluated: sections of rows, a value for each column, and the inputs that were used, in their order.
use std::collections::BTreeMap;

use serde::Serialize;

use super::CostError;
use super::formula::Formula;
use super::inputs::{Input, Inputs, Retention};
use super::model::{self, Axis, COMPONENTS, PAYLOADS, RowModel, SectionModel, VOLUMES};

/// Stands in a formula for the question of the column.
const QUESTION: &str = "QUESTION";
const LINES_PER_DAY: &str = "lines_per_day";
const PAYLOAD_LINES: &str = "payload_lines";
const PAYLOAD_BYTES: &str = "payload_bytes";

/// Everything that a report says.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The day to which ages count.
    pub as_of: String,
    /// The price file.
    pub prices: String,
    /// The recorded run.
    pub run: String,
    /// What the run says of itself.
    pub recorded: BTreeMap<String, String>,
    /// How long lines are kept.
    pub keep: Retention,
    /// The components' costs in a month, old pipeline and this one.
    pub totals: Vec<Total>,
    /// Every step.
    pub sections: Vec<Section>,
    /// Every number that went in, in the order of its first use.
    pub inputs: Vec<Input>,
}

/// What one pipeline costs at one volume.
#[derive(Debug, Clone, Serialize)]
pub struct Total {
    /// `old` or `new`.
    pub pipeline: &'static str,
    /// Lines a day.
    pub lines_per_day: f64,
    /// Dollars a month by component.
    pub components: BTreeMap<&'static str, f64>,
    /// Their sum.
    pub usd: f64,
    /// The largest of them.
    pub dominant: &'static str,
    /// Its part of the sum.
    pub dominant_share: f64,
}

/// Rows that share their columns.
#[derive(Debug, Clone, Serialize)]
pub struct Section {
    /// Its heading.
    pub name: String,
    /// How it is reckoned, in words.
    pub words: String,
    /// What the columns are called.
    pub columns: Vec<String>,
    /// The steps, each from those above it.
    pub rows: Vec<Row>,
}

/// One step with its values.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// What later formulas call it.
    pub name: String,
    /// What it is.
    pub what: String,
    /// What was evaluated.
    pub formula: String,
    /// A value for each column.
    pub values: Vec<f64>,
}

/// A column: its heading, and the names that have a value only in it.
struct Column {
    heading: String,
    question: Option<String>,
    values: BTreeMap<String, f64>,
}

impl Report {
    /// Evaluates the model over `inputs`, which hold prices, a run and a retention.
    pub fn new(inputs: &Inputs) -> Result<Self, CostError> {
        let mut sheet = Sheet { inputs, used: Vec::new(), rows: BTreeMap::new() };
        let mut sections = Vec::new();
        for section in model::sections()? {
            sections.push(sheet.section(section)?);
        }
        let totals = VOLUMES.iter().enumerate().flat_map(|(column, (_, lines))| {
            ["old", "new"].map(|pipeline| sheet.total(pipeline, column, *lines))
        });
        let keep = |key: &str| inputs.get(key).map_or(0.0, |input| input.value);
        Ok(Self {
            as_of: inputs.as_of.to_string(),
            prices: inputs.prices_name.clone(),
            run: inputs.run_name.clone(),
            recorded: inputs.recorded.clone(),
            keep: Retention { hot_days: keep("keep.hot_days"), cold_days: keep("keep.cold_days") },
            totals: totals.collect(),
            sections,
            inputs: sheet.used.iter().filter_map(|key| inputs.get(key)).cloned().collect(),
        })
    }

    /// Totals of one pipeline, `old` or `new`, a volume after the other.
    pub(super) fn of(&self, pipeline: &'static str) -> impl Iterator<Item = &Total> {
        self.totals.iter().filter(move |total| total.pipeline == pipeline)
    }

    /// The values of a row, a column for each volume.
    pub(super) fn row(&self, name: &str) -> &[f64] {
        let mut rows = self.sections.iter().flat_map(|section| &section.rows);
        rows.find(|row| row.name == name).map_or(&[], |row| row.values.as_slice())
    }
}

struct Sheet<'a> {
    inputs: &'a Inputs,
    /// Keys in the order of their first use.
    used: Vec<String>,
    /// Values of the rows so far, by name.
    rows: BTreeMap<String, Vec<f64>>,
}

impl Sheet<'_> {
    fn section(&mut self, section: SectionModel) -> Result<Section, CostError> {
        let columns = self.columns(section.axis)?;
        let mut rows = Vec::new();
        for row in section.rows {
            let mut values = Vec::new();
            for (index, column) in columns.iter().enumerate() {
                values.push(self.value(&row, column, index)?);
            }
            self.rows.insert(row.name.clone(), values.clone());
            rows.push(Row { name: row.name, what: row.what, formula: row.text, values });
        }
        let columns = columns.into_iter().map(|column| column.heading).collect();
        Ok(Section { name: section.name, words: section.words, columns, rows })
    }

    fn columns(&mut self, axis: Axis) -> Result<Vec<Column>, CostError> {
        let column =
            |heading: &str| Column { heading: heading.to_owned(), question: None, values: BTreeMap::new() };
        Ok(match axis {
            Axis::Once => vec![column("value")],
            Axis::Volumes => VOLUMES
                .iter()
                .map(|(name, lines)| Column {
                    values: BTreeMap::from([(LINES_PER_DAY.to_owned(), *lines)]),
                    ..column(name)
                })
                .collect(),
            Axis::Questions => {
                let questions = self.inputs.questions.iter();
                questions.map(|name| Column { question: Some(name.clone()), ..column(name) }).collect()
            }
            Axis::Payloads => {
                let mut columns = Vec::new();
                for (name, lines, bytes) in PAYLOADS {
                    let mut with_values = column(name);
                    for (variable, text) in [(PAYLOAD_LINES, lines), (PAYLOAD_BYTES, bytes)] {
                        let fail = |reason| CostError::Formula { row: variable.to_owned(), reason };
                        let formula = Formula::parse(text).map_err(fail)?;
                        let row = RowModel {
                            name: variable.to_owned(),
                            what: String::new(),
                            text: (*text).to_owned(),
                            formula,
                        };
                        let value = self.value(&row, &with_values, 0)?;
                        with_values.values.insert(variable.to_owned(), value);
                    }
                    columns.push(with_values);
                }
                columns
            }
        })
    }

    fn value(&mut self, row: &RowModel, column: &Column, index: usize) -> Result<f64, CostError> {
        let mut names = Vec::new();
        row.formula.names(&mut names);
        for name in names {
            let key = key(name, column);
            if self.inputs.get(&key).is_some() && !self.used.contains(&key) {
                self.used.push(key);
            }
        }
        let of = |name: &str| {
            let own = column.values.get(name).copied();
            let above = self.rows.get(name).and_then(|values| values.get(index).or(values.first()).copied());
            own.or(above).or_else(|| Some(self.inputs.get(&key(name, column))?.value))
        };
        let value = row.formula.value(&of).map_err(|name| self.missing(key(&name, column)))?;
        match value.is_finite() {
            true => Ok(value),
            false => Err(CostError::Formula {
                row: row.name.clone(),
                reason: format!("gives {value}, for a number that it divides by is 0: {}", row.text),
            }),
        }
    }

    fn missing(&self, key: String) -> CostError {
        let remedy = match key.starts_with("run.") {
            true => "record a run with `pipeline bench --baseline --record FILE`",
            false => "take data/prices.toml as the model of a price file",
        };
        let (prices, run) = (self.inputs.prices_name.clone(), self.inputs.run_name.clone());
        CostError::Missing { key, prices, run, remedy }
    }

    fn total(&self, pipeline: &'static str, column: usize, lines_per_day: f64) -> Total {
        let value = |name: String| {
            self.rows.get(&name).and_then(|values| values.get(column)).copied().unwrap_or_default()
        };
        let components: BTreeMap<_, _> = COMPONENTS
            .iter()
            .map(|component| (*component, value(format!("{pipeline}_{component}_usd"))))
            .collect();
        let usd = value(format!("{pipeline}_total_usd"));
        let largest = components.iter().max_by(|one, other| one.1.total_cmp(other.1));
        let (dominant, share) = largest.map_or(("", 0.0), |(name, part)| (*name, part / usd));
        Total { pipeline, lines_per_day, components, usd, dominant, dominant_share: share }
    }
}

fn key(name: &str, column: &Column) -> String {
    match &column.question {
        Some(question) => name.replace(QUESTION, question),
        None => name.to_owned(),
    }
}
