//! How long chunks are in a processor, for `/metrics`.
use std::collections::HashMap;
use std::time::Instant;

use crate::model::ChunkRecord;
use crate::telemetry::{Metric, Summary, uptime_millis};
use crate::transport::{Delivery, DeliveryId};

/// Deliveries that came and are not acknowledged, by when they came.
#[derive(Debug, Default)]
pub(super) struct Waits(HashMap<DeliveryId, (Instant, u64)>);

impl Waits {
    pub(super) fn begin(&mut self, delivery: &Delivery) {
        self.0.entry(delivery.id).or_insert((Instant::now(), uptime_millis()));
        self.show();
    }

    pub(super) fn end(&mut self, deliveries: &[DeliveryId]) {
        for id in deliveries {
            if let Some((began, _)) = self.0.remove(id) {
                Summary::Commit.observe(began.elapsed().as_secs_f64());
            }
        }
        self.show();
    }

    fn show(&self) {
        Metric::InFlightChunks.set(self.0.len() as u64);
        // 0 is: none
        Metric::OldestInFlight.set(self.0.values().map(|(_, millis)| *millis).min().unwrap_or(0));
    }
}

/// Entries that every sink has now.
pub(super) fn count_committed(records: &[ChunkRecord]) {
    for record in records {
        Metric::LinesCommitted.add(record.num_lines);
        Metric::RowsCommitted.add(record.num_rows);
        Metric::RejectsCommitted.add(record.num_rejects);
        Metric::BlanksCommitted.add(record.num_blanks);
    }
    if !records.is_empty() {
        Summary::GroupLines.observe(records.iter().map(|record| record.num_lines).sum::<u64>() as f64);
    }
}
