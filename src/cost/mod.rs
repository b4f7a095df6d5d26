//! What the pipeline costs beside the old design: measured figures times list prices, by formulas that the report shows.
//!
//! Invariants: no number comes from anywhere but a price file, a recorded run or a flag, and each is named where it
//! is used; what the report prints as formula is what was evaluated. Everything here is text in, text out.
//! Deliberately absent: discounts, commitments, free tiers, data transfer, people's time.
use thiserror::Error;

mod chart;
mod formula;
mod inputs;
mod markdown;
mod model;
mod number;
mod sheet;
#[cfg(test)]
mod tests;

pub use inputs::{Input, Inputs, Retention};
pub use sheet::{Report, Row, Section, Total};

/// The price file that the program carries, `data/prices.toml`.
pub const PRICES: &str = include_str!("../../data/prices.toml");
/// What it is called in a report.
pub const PRICES_NAME: &str = "data/prices.toml";

/// Why there is no report.
#[derive(Debug, Error)]
pub enum CostError {
    /// A file is not what it should be.
    #[error("{name}: {reason}")]
    Unreadable {
        /// Its name.
        name: String,
        /// What is wrong with it, and the remedy.
        reason: String,
    },
    /// A formula needs a number that no file has.
    #[error("{key} is in neither {prices} nor {run}; {remedy}")]
    Missing {
        /// The number's name.
        key: String,
        /// The price file.
        prices: String,
        /// The recorded run.
        run: String,
        /// What to do about it.
        remedy: &'static str,
    },
    /// A formula is none, or gives no number.
    #[error("the formula of {row} {reason}")]
    Formula {
        /// The row it stands in.
        row: String,
        /// What is wrong.
        reason: String,
    },
    /// A what-if names something that is not there.
    #[error("--set {key}: there is no such number{near}")]
    Unknown {
        /// What was named.
        key: String,
        /// Names that resemble it.
        near: String,
    },
    /// The chart cannot be drawn.
    #[error("cannot draw the chart: {0}")]
    Chart(String),
}
