//! One request to stop, seen by every loop: stop taking input, finish and commit what is taken.
//!
//! The first signal asks for that drain, a second SIGINT ends the process at once. Deliberately absent: any
//! time limit on the drain.
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::groups::Groups;
use crate::telemetry;

/// Exit code after SIGINT: 128 + 2.
const INTERRUPTED: u8 = 130;
/// Exit code after SIGTERM: 128 + 15.
const TERMINATED: u8 = 143;

/// Asks every holder of a clone to stop.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
    /// 0 until a signal came.
    exit_code: Arc<AtomicU8>,
    groups: Groups,
}

impl Shutdown {
    /// Nothing is asked yet, and no signal is listened to.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for it, without a signal.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Whether it was asked for.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Resolves once it is asked for.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Commands that end with the process when a second signal ends it at once.
    pub(super) fn groups(&self) -> &Groups {
        &self.groups
    }

    /// 130 or 143 once a signal asked for it.
    pub fn exit_code(&self) -> Option<u8> {
        Some(self.exit_code.load(Ordering::Relaxed)).filter(|&code| code != 0)
    }

    /// Listens to SIGINT and SIGTERM from now on, in a task of the current runtime.
    pub fn listen(&self) -> io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let shutdown = self.clone();
        tokio::spawn(async move {
            loop {
                let code = tokio::select! {
                    Some(()) = interrupt.recv() => INTERRUPTED,
                    Some(()) = terminate.recv() => TERMINATED,
                    else => return,
                };
                match shutdown.exit_code() {
                    None => {
                        shutdown.exit_code.store(code, Ordering::Relaxed);
                        telemetry::tell_stopping();
                        shutdown.request();
                    }
                    // a supervisor may repeat its SIGTERM; a person who presses Ctrl-C again means it
                    Some(first) if code == INTERRUPTED => {
                        shutdown.groups.kill();
                        end_process(first);
                    }
                    Some(_) => {}
                }
            }
        });
        Ok(())
    }
}

#[expect(clippy::disallowed_methods, reason = "the drain is given up on: nothing is to be closed")]
fn end_process(code: u8) -> ! {
    std::process::exit(i32::from(code))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_sees_the_request_and_no_signal_means_no_exit_code() {
        let shutdown = Shutdown::new();
        let (clone, waiting) = (shutdown.clone(), shutdown.clone());
        let waiter = tokio::spawn(async move { waiting.requested().await });
        assert!(!clone.is_requested());
        shutdown.request();
        waiter.await.unwrap();
        assert!(clone.is_requested());
        assert_eq!(clone.exit_code(), None);
    }

    #[tokio::test]
    async fn the_first_signal_asks_for_a_drain_and_is_remembered() {
        let shutdown = Shutdown::new();
        shutdown.listen().unwrap();
        let pid = std::process::id().to_string();
        assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        shutdown.requested().await;
        assert_eq!(shutdown.exit_code(), Some(TERMINATED));
    }
}
