//! What systemd is told of a process that it started: ready, alive, stopping.
//!
//! Invariant: alive is said only by a loop that has come further, that has nothing to do, or that asks a service
//! again which is away. So one that stands says nothing, and is ended after the time that `WatchdogSec=` sets.
//! Without `NOTIFY_SOCKET` nothing is sent. Deliberately absent: a timer or a task that says it by itself.
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sd_notify::NotifyState;

use super::uptime_millis;

/// How often it is said in the time after which silence is death: some may be late.
const TIMES: u64 = 4;

/// It does from now on what it was started for.
pub fn tell_ready() {
    tell(NotifyState::Ready);
}

/// It was asked to stop, and finishes what it has.
pub fn tell_stopping() {
    tell(NotifyState::Stopping);
}

/// It has come further. May be called as often as that is so: most calls cost a look at the clock, and without a
/// watchdog not that.
pub fn tell_alive() {
    static INTERVAL_MS: OnceLock<Option<u64>> = OnceLock::new();
    static TOLD_MS: AtomicU64 = AtomicU64::new(0);
    let interval = INTERVAL_MS.get_or_init(|| {
        let timeout = sd_notify::watchdog_enabled()?;
        Some(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX) / TIMES)
    });
    let Some(interval_ms) = *interval else { return };
    let (now, told) = (uptime_millis(), TOLD_MS.load(Ordering::Relaxed));
    let is_due = now.saturating_sub(told) >= interval_ms;
    // of several threads one says it
    if is_due && TOLD_MS.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
        tell(NotifyState::Watchdog);
    }
}

fn tell(state: NotifyState<'_>) {
    if let Err(error) = sd_notify::notify(&[state]) {
        tracing::warn!("the service manager cannot be told how this process fares: {error}");
    }
}
