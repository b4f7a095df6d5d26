//! The tasks that keep a consumer's entries its own, acknowledge them, and look how full the stream is.
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::super::TransportError;
use super::depths::Share;
use super::keys::Keys;
use super::link::Link;
use super::stream_consumer::{Inbox, TakenEntry};
use super::{Depth, reports, scripts};

/// A consumer without entries is deleted when it was idle for this long, so that names do not pile up.
const MAX_IDLE: Duration = Duration::from_secs(3600);

/// What the acknowledging task is asked to do, in order.
#[derive(Debug)]
pub(super) enum UpkeepCommand {
    /// Every sink has it.
    Acknowledge(TakenEntry),
    /// Say when everything before is done.
    Flush(oneshot::Sender<()>),
}

#[derive(Debug, Clone)]
pub(super) struct Upkeep {
    pub(super) link: Arc<Link>,
    pub(super) keys: Keys,
    pub(super) consumer: String,
    pub(super) inbox: Arc<Inbox>,
    pub(super) takeover: Duration,
    pub(super) share: Share,
}

impl Upkeep {
    /// Touches entries in time, as long as this process lives and however long its sinks take.
    pub(super) async fn keep(self) {
        let takeover_ms = self.takeover.as_millis() as u64;
        loop {
            let kept = async {
                let tidy = scripts::tidy(&self.keys, MAX_IDLE.as_millis() as u64, takeover_ms, None);
                if let Some(live) = self.link.query_group::<usize>(&tidy).await? {
                    self.inbox.live.store(live, Ordering::Relaxed);
                }
                let entries = self.inbox.taken().entries();
                for some in entries.chunks(scripts::MAX_ENTRIES) {
                    let keep = scripts::keep(&self.keys, &self.consumer, some);
                    let lost: Option<Vec<usize>> = self.link.query_group(&keep).await?;
                    let mut taken = self.inbox.taken();
                    lost.iter().flatten().filter_map(|at| some.get(*at)).for_each(|entry| taken.lose(entry));
                }
                // here and not where entries are taken: that waits while the sinks are away, which is when it matters
                self.measure().await?;
                Ok::<(), TransportError>(())
            };
            if let Err(error) = kept.await {
                return self.inbox.fail(error);
            }
            tokio::time::sleep(self.takeover / 3).await;
        }
    }

    async fn measure(&self) -> Result<(), TransportError> {
        let depth = scripts::depth(&self.keys);
        let (entries, bytes, age_ms): (u64, u64, u64) = self.link.query(&depth).await?;
        self.share.show(Depth { entries, bytes, oldest_age: Duration::from_millis(age_ms) });
        Ok(())
    }

    /// Acknowledges in the order asked, several at once, waiting while Redis is away.
    pub(super) async fn acknowledge(self, mut commands: mpsc::UnboundedReceiver<UpkeepCommand>) {
        let mut some = Vec::new();
        while commands.recv_many(&mut some, scripts::MAX_ENTRIES).await > 0 {
            let (mut entries, mut committed, mut flushed) = (Vec::new(), Vec::new(), Vec::new());
            for command in some.drain(..) {
                match command {
                    UpkeepCommand::Acknowledge(taken) => {
                        entries.push((taken.entry, taken.len_bytes));
                        committed.push((reports::COMMITTED, reports::committed(&taken.range)));
                    }
                    UpkeepCommand::Flush(done) => flushed.push(done),
                }
            }
            if !entries.is_empty() {
                let settle = scripts::settle(&self.keys, &entries, &committed);
                if let Err(error) = self.link.query::<u64>(&settle).await {
                    return self.inbox.fail(error);
                }
            }
            for done in flushed {
                let _unless_gone = done.send(());
            }
        }
    }
}
