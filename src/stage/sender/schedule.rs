//! When the requests of a load are due.
use std::f64::consts::TAU;
use std::time::Duration;

/// A sine of the rate is so long.
const PERIOD_SECONDS: f64 = 60.0;

/// When requests are due.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// Each as soon as a connection is free, until this time.
    Unlimited(Duration),
    /// So many a second, until this time.
    Steady {
        /// Requests per second.
        rate: f64,
        /// For how long.
        duration: Duration,
    },
    /// So many at once, again and again.
    Burst {
        /// Requests at once.
        size: u64,
        /// From one burst to the next.
        interval: Duration,
        /// Bursts.
        count: u64,
    },
    /// As a sine with a period of a minute, that begins at its lowest.
    Variable {
        /// Lowest requests per second.
        min: f64,
        /// Highest.
        max: f64,
        /// For how long.
        duration: Duration,
    },
    /// So many, as soon as a connection is free.
    Count(u64),
}

impl Schedule {
    /// When request `number` (from 0) is due, after the start; `None` when there are no more. `now` is the time since
    /// the start.
    #[must_use]
    pub fn due(&self, number: u64, now: Duration) -> Option<Duration> {
        let until = |due: f64, end: Duration| Some(due).filter(|due| *due < end.as_secs_f64());
        let due = match *self {
            Self::Unlimited(duration) => return (now < duration).then_some(now),
            Self::Count(count) => return (number < count).then_some(now),
            Self::Steady { rate, duration } => until(number as f64 / rate, duration)?,
            Self::Burst { size, interval, count } => {
                let burst = number / size.max(1);
                return (burst < count).then(|| interval * u32::try_from(burst).unwrap_or(u32::MAX));
            }
            Self::Variable { min, max, duration } => {
                until(variable_due(number as f64, min, max, duration.as_secs_f64())?, duration)?
            }
        };
        Some(Duration::from_secs_f64(due))
    }
}

/// The time by which so many requests were due: the integral of the rate, inverted by halving.
fn variable_due(number: f64, min: f64, max: f64, duration: f64) -> Option<f64> {
    let speed = TAU / PERIOD_SECONDS;
    let sent = |time: f64| min * time + (max - min) / 2.0 * (time - (speed * time).sin() / speed);
    let (mut low, mut high) = (0.0, duration);
    if sent(high) <= number {
        return None;
    }
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if sent(middle) < number { low = middle } else { high = middle }
    }
    Some(high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(schedule: &Schedule) -> Vec<f64> {
        let due = |number| schedule.due(number, Duration::ZERO).map(|due| due.as_secs_f64());
        (0..).map_while(due).collect()
    }

    #[test]
    fn schedules_are_as_their_names_say() {
        let seconds = Duration::from_secs;
        assert_eq!(all(&Schedule::Steady { rate: 2.0, duration: seconds(2) }), [0.0, 0.5, 1.0, 1.5]);
        let burst = Schedule::Burst { size: 2, interval: seconds(30), count: 2 };
        assert_eq!(all(&burst), [0.0, 0.0, 30.0, 30.0]);
        assert_eq!(all(&Schedule::Count(3)).len(), 3);
        let sine = all(&Schedule::Variable { min: 1.0, max: 50.0, duration: seconds(60) });
        assert_eq!(sine.len(), 1530, "the mean rate is half way");
        let within = |from: f64, to: f64| sine.iter().filter(|due| (from..to).contains(*due)).count();
        assert!(within(0.0, 10.0) < 150 && within(25.0, 35.0) > 450, "slow at first, fast in the middle");
        assert!(sine.windows(2).all(|pair| pair[0] <= pair[1]));
    }
}
