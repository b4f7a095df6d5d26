//! How many requests a host gets at once: fewer as soon as it says that it is busy, slowly more while all goes well.
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

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
    changed: Notify,
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

    /// Waits until the host may be asked.
    pub(super) async fn enter(&self, host: &str) -> Turn {
        let host = {
            let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || {
                let state = State { limit: self.max, active: 0, successes: 0, not_before: None };
                Arc::new(Host { state: Mutex::new(state), changed: Notify::new() })
            };
            Arc::clone(hosts.entry(host.to_owned()).or_insert_with(new))
        };
        loop {
            let changed = host.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let not_before = {
                let mut state = host.state();
                let not_before = state.not_before.filter(|time| *time > Instant::now());
                if not_before.is_none() && state.active < state.limit {
                    state.active += 1;
                    drop(state);
                    return Turn { host: Arc::clone(&host), max: self.max };
                }
                not_before
            };
            tokio::select! {
                () = changed => {}
                () = sleep_until(not_before.unwrap_or_else(Instant::now)), if not_before.is_some() => {}
            }
        }
    }
}

/// One request to a host; over when dropped.
#[derive(Debug)]
pub(super) struct Turn {
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
        self.host.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_free(hosts: &Hosts, host: &str) -> Option<Turn> {
        use futures_util::FutureExt;
        hosts.enter(host).now_or_never()
    }

    #[tokio::test]
    async fn a_busy_host_gets_fewer_requests_and_slowly_more_again() {
        let hosts = Hosts::new(4);
        let turns: Vec<_> = (0..4).map(|_| is_free(&hosts, "a").unwrap()).collect();
        assert!(is_free(&hosts, "a").is_none());
        assert!(is_free(&hosts, "b").is_some(), "another host has its own limit");
        let before = Instant::now();
        turns[0].busy(Some(Duration::from_secs(2)));
        drop(turns);
        assert!(is_free(&hosts, "a").is_none(), "nothing before it wants to be asked again");
        let one = hosts.enter("a").await;
        assert!(before.elapsed() >= Duration::from_secs(2));
        let two = is_free(&hosts, "a").unwrap();
        assert!(is_free(&hosts, "a").is_none(), "half of four");
        (0..SUCCESSES_PER_STEP).for_each(|_| one.succeeded());
        let three = is_free(&hosts, "a").unwrap();
        assert!(is_free(&hosts, "a").is_none());
        drop((one, two, three));
    }
}
