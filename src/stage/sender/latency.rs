//! How long requests took, in a fixed space: 32 steps for each power of two of microseconds, so that no figure is off
//! by more than 3 %.
use std::time::Duration;

const STEPS: usize = 32;
const POWERS: usize = 40;

/// A histogram.
#[derive(Debug, Clone)]
pub struct Latencies {
    counts: Vec<u64>,
    total: u64,
    max: Duration,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { counts: vec![0; STEPS * POWERS], total: 0, max: Duration::ZERO }
    }
}

impl Latencies {
    /// Counts one.
    pub fn add(&mut self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        self.counts[place(micros)] += 1;
        self.total += 1;
        self.max = self.max.max(latency);
    }

    pub(super) fn add_all(&mut self, other: &Self) {
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// As many of a hundred took at most so long.
    #[must_use]
    pub fn percentile(&self, percent: f64) -> Duration {
        let wanted = (self.total as f64 * percent / 100.0).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= wanted.max(1) {
                return Duration::from_micros(upper(index)).min(self.max);
            }
        }
        self.max
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.max
    }
}

fn place(micros: u64) -> usize {
    let steps = STEPS as u64;
    if micros < steps {
        return micros as usize;
    }
    let power = micros.ilog2() - steps.ilog2();
    let step = (micros >> power) - steps;
    ((power as usize + 1) * STEPS + step as usize).min(STEPS * POWERS - 1)
}

/// The largest number of microseconds at a place.
fn upper(place: usize) -> u64 {
    let (power, step) = (place / STEPS, place % STEPS);
    match power {
        0 => step as u64,
        _ => ((STEPS + step + 1) as u64) << (power - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_off_by_at_most_a_step() {
        let mut latencies = Latencies::default();
        (1..=10_000).for_each(|millis| latencies.add(Duration::from_millis(millis)));
        for (percent, millis) in [(50.0, 5000.0), (99.0, 9900.0), (99.9, 9990.0), (100.0, 10_000.0)] {
            let found = latencies.percentile(percent).as_secs_f64() * 1000.0;
            assert!((found / millis - 1.0).abs() < 0.04, "{percent}: {found}");
        }
        assert_eq!(Latencies::default().percentile(99.0), Duration::ZERO);
    }
}
