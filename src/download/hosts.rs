//! How many requests a host gets at once: fewer as soon as it says that it is busy, slowly more while all goes well.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Answers that went well before one more request is allowed.
const SUCCESSES_PER_STEP: u32 = 10;
/// A host that is busy and does not say for how long is left alone for this long.
const PAUSE: Duration = Duration::from_secs(4);

/// The limits of all hosts.
#[derive(Debug)]
pub(super) struct Hosts {
    max: usize,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

#[derive(Debug)]
struct Host {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    limit: usize,
    active: usize,
    successes: u32,
    not_before: Option<Instant>,
}

impl Host {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hosts {
    /// At most `max` requests to each.
    pub(super) fn new(max: usize) -> Self {
        Self { max: max.max(1), hosts: Mutex::default() }
    }

    fn host(&self, name: &str) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = hosts.get(name) {
            return Arc::clone(host);
        }
        let state = State { limit: self.max, active: 0, successes: 0, not_before: None };
        let host = Arc::new(Host { state: Mutex::new(state) });
        hosts.insert(name.to_owned(), Arc::clone(&host));
        host
    }

    /// A turn, if the host may be asked now.
    pub(super) fn try_enter(&self, name: &str) -> Option<Turn> {
        let host = self.host(name);
        let mut state = host.state();
        let is_paused = state.not_before.is_some_and(|time| time > Instant::now());
        if is_paused || state.active >= state.limit {
            return None;
        }
        state.active += 1;
        drop(state);
        Some(Turn { host, max: self.max })
    }

    /// Until when the host is left alone.
    pub(super) fn paused_until(&self, name: &str) -> Option<Instant> {
        self.host(name).state().not_before.filter(|time| *time > Instant::now())
    }
}

/// One request to a host; over when dropped.
#[derive(Debug)]
pub struct Turn {
    host: Arc<Host>,
    max: usize,
}

impl Turn {
    /// It went well.
    pub(super) fn succeeded(&self) {
        let mut state = self.host.state();
        state.successes += 1;
        if state.successes >= SUCCESSES_PER_STEP && state.limit < self.max {
            (state.limit, state.successes) = (state.limit + 1, 0);
        }
    }

    /// The host is busy: half as many requests, and none for a while.
    pub(super) fn busy(&self, retry_after: Option<Duration>) {
        let mut state = self.host.state();
        state.limit = (state.limit / 2).max(1);
        state.successes = 0;
        let until = Instant::now() + retry_after.unwrap_or(PAUSE);
        state.not_before = Some(state.not_before.map_or(until, |known| known.max(until)));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.host.state().active -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_busy_host_gets_fewer_requests_and_slowly_more_again() {
        let hosts = Hosts::new(4);
        let turns: Vec<_> = (0..4).map(|_| hosts.try_enter("a").unwrap()).collect();
        assert!(hosts.try_enter("a").is_none());
        assert!(hosts.try_enter("b").is_some(), "another host has its own limit");
        turns[0].busy(Some(Duration::from_secs(2)));
        drop(turns);
        assert!(hosts.try_enter("a").is_none(), "nothing before it wants to be asked again");
        tokio::time::sleep_until(hosts.paused_until("a").unwrap()).await;
        let one = hosts.try_enter("a").unwrap();
        let two = hosts.try_enter("a").unwrap();
        assert!(hosts.try_enter("a").is_none(), "half of four");
        (0..SUCCESSES_PER_STEP).for_each(|_| one.succeeded());
        let three = hosts.try_enter("a").unwrap();
        assert!(hosts.try_enter("a").is_none());
        drop((one, two, three));
    }
}
