//! Test events for the webhook: six types, a hundred users, values from 0.1 to 100.
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use uuid::Uuid;

use super::random::Random;

/// The types, each as likely as any other.
pub const EVENT_TYPES: [&str; 6] = ["click", "view", "purchase", "signup", "download", "share"];

/// Users are numbered below this.
pub const USERS: u32 = 100;

const SOURCES: [&str; 4] = ["web", "ios", "android", "api"];
const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64) Firefox/128.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X)",
    "okhttp/4.12.0",
    "curl/8.5.0",
];

/// One event, and what it adds to its window.
#[derive(Debug, Clone)]
pub struct TestEvent {
    /// Position in [`EVENT_TYPES`].
    pub event_type: usize,
    /// Below [`USERS`].
    pub user: u32,
    /// In hundredths.
    pub value: f64,
    /// Milliseconds since the epoch.
    pub timestamp_ms: i64,
    session: u64,
    source: usize,
    agent: usize,
}

impl TestEvent {
    /// The event as it is posted.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "user_id": format!("user_{}", self.user),
            "event_type": EVENT_TYPES[self.event_type],
            "value": self.value,
            "timestamp": self.timestamp_ms as f64 / 1000.0,
            "metadata": {
                "source": SOURCES[self.source],
                "session_id": format!("{:016x}", self.session),
                "user_agent": AGENTS[self.agent],
            },
        })
    }
}

/// A seeded stream of events.
#[derive(Debug)]
pub struct EventSource {
    random: Random,
    /// Told apart from the same stream of another run: a receiver knows identities for days.
    run: Uuid,
}

impl EventSource {
    /// The stream of this seed; times are those of the clock.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { random: Random::new(seed), run: Uuid::now_v7() }
    }

    /// The next event, of this moment.
    pub fn next_event(&mut self) -> TestEvent {
        let mut index = |count: usize| self.random.below(count as u64) as usize;
        let (event_type, source, agent) =
            (index(EVENT_TYPES.len()), index(SOURCES.len()), index(AGENTS.len()));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        TestEvent {
            event_type,
            user: self.random.below(u64::from(USERS)) as u32,
            value: (10 + self.random.below(9991)) as f64 / 100.0,
            timestamp_ms: i64::try_from(now.as_millis()).unwrap_or(i64::MAX),
            session: self.random.next(),
            source,
            agent,
        }
    }

    /// An identity that no other has, of this run or another.
    pub fn next_id(&mut self) -> String {
        format!("{}-{:016x}", self.run.simple(), self.random.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_all_types_users_and_values_of_the_range() {
        let mut source = EventSource::new(42);
        let events: Vec<_> = (0..20_000).map(|_| source.next_event()).collect();
        assert!((0..EVENT_TYPES.len()).all(|one| events.iter().any(|event| event.event_type == one)));
        assert!((0..USERS).all(|one| events.iter().any(|event| event.user == one)));
        assert!(events.iter().all(|event| (0.1..=100.0).contains(&event.value)));
        let json = events[0].json();
        assert!(json["metadata"]["session_id"].is_string() && json["timestamp"].is_f64(), "{json}");
    }

    #[test]
    fn two_runs_with_one_seed_have_no_identity_in_common() {
        let [mut one, mut other] = [EventSource::new(42), EventSource::new(42)];
        let ids: std::collections::HashSet<_> =
            (0..100).flat_map(|_| [one.next_id(), other.next_id()]).collect();
        assert_eq!(ids.len(), 200);
    }
}
