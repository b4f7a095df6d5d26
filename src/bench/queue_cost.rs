//! What a queue service would cost for ten million lines a day: a frame per chunk beside a message per line.
use chrono::Utc;
use serde::Serialize;

use crate::cost::{CostError, Inputs, PRICES, PRICES_NAME};

/// The day that is priced.
const LINES_PER_DAY: u64 = 10_000_000;
/// A frame, and a message of the old design, are each sent, received and deleted once.
const REQUESTS_PER_MESSAGE: u64 = 3;
/// A month of cost reports: 365 / 12 days.
const DAYS_PER_MONTH: f64 = 365.0 / 12.0;

/// Prices of a queue service: Amazon SQS, standard queue, from the price file that the program carries.
#[derive(Debug, Clone, Serialize)]
pub struct Prices {
    /// Dollars for a million requests.
    pub per_million_requests: f64,
    /// A request is counted once for each such piece of its payload.
    pub payload_unit_bytes: u64,
    /// The largest payload of one message.
    pub max_payload_bytes: u64,
    /// Where the prices are from.
    pub source: String,
    /// The date of what they were read in.
    pub as_of: String,
}

impl Prices {
    fn carried() -> Result<Self, CostError> {
        let inputs = Inputs::of_prices(PRICES_NAME, PRICES, Utc::now().date_naive())?;
        let value = |key: &str| inputs.get(key).map_or(0.0, |input| input.value);
        let price = inputs.get("price.sqs_requests");
        let text = |of: Option<&String>| of.cloned().unwrap_or_default();
        Ok(Self {
            per_million_requests: value("price.sqs_requests"),
            payload_unit_bytes: value("limit.sqs_unit_bytes") as u64,
            max_payload_bytes: value("limit.sqs_message_bytes") as u64,
            source: text(price.and_then(|price| price.source.as_ref())),
            as_of: text(price.and_then(|price| price.date.as_ref())),
        })
    }
}

/// One way to queue ten million lines a day.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Way {
    /// Lines in a message.
    pub lines_per_message: f64,
    /// Requests that are paid for.
    pub requests_per_day: f64,
    /// Dollars.
    pub dollars_per_day: f64,
    /// Dollars in the twelfth part of a year.
    pub dollars_per_month: f64,
}

/// Both ways.
#[derive(Debug, Clone, Serialize)]
pub struct QueueCost {
    /// Lines in a day.
    pub lines_per_day: u64,
    /// What a request costs.
    pub prices: Prices,
    /// A frame for each chunk of the run.
    pub frames: Way,
    /// A JSON message for each line.
    pub message_per_line: Way,
}

/// Prices the chunks of a run: `bytes` of input and `lines` in so many chunks. Frames are counted uncompressed.
pub fn queue_cost(lines: u64, chunks: u64, bytes: u64) -> Result<QueueCost, CostError> {
    let (lines, chunks) = (lines.max(1) as f64, chunks.max(1) as f64);
    let prices = Prices::carried()?;
    Ok(QueueCost {
        lines_per_day: LINES_PER_DAY,
        frames: way(lines / chunks, bytes as f64 / chunks, &prices),
        // a line with its JSON is far below one unit of payload
        message_per_line: way(1.0, bytes as f64 / lines, &prices),
        prices,
    })
}

fn way(lines_per_message: f64, bytes_per_message: f64, prices: &Prices) -> Way {
    // a frame above the service's limit would go as several messages
    let messages = (bytes_per_message / prices.max_payload_bytes as f64).ceil().max(1.0);
    let units = (bytes_per_message / prices.payload_unit_bytes as f64).ceil().max(1.0);
    // sending and receiving pay by payload, deleting does not
    let requests_per_frame = units * (REQUESTS_PER_MESSAGE - 1) as f64 + messages;
    let requests_per_day = LINES_PER_DAY as f64 / lines_per_message * requests_per_frame;
    let dollars_per_day = requests_per_day / 1e6 * prices.per_million_requests;
    Way {
        lines_per_message,
        requests_per_day,
        dollars_per_day,
        dollars_per_month: dollars_per_day * DAYS_PER_MONTH,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_per_line_pays_three_requests_per_line() {
        let cost = queue_cost(2_000_000, 250, 252_000_000).unwrap();
        assert_eq!(cost.message_per_line.requests_per_day, 30_000_000.0);
        let expected = 30.0 * cost.prices.per_million_requests;
        assert!((cost.message_per_line.dollars_per_day - expected).abs() < 1e-9);
    }

    #[test]
    fn a_frame_pays_for_every_64_kib_sent_and_received() {
        // 1,250 frames of 8,000 lines and 1,008,000 bytes: 16 units each
        let cost = queue_cost(2_000_000, 250, 252_000_000).unwrap();
        assert_eq!(cost.frames.requests_per_day, 1250.0 * (2.0 * 16.0 + 1.0));
    }
}
