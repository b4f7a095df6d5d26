//! Outbox -> sink: one loop per sink, so that one that is away holds up nobody else and catches up by itself.
use std::time::Duration;

use crate::client::with_causes;
use crate::sink::window::WindowSink;
use crate::stage::shutdown::Shutdown;
use crate::store::SqliteStore;
use crate::telemetry::Metric;

/// Entries delivered at once.
const MAX_ENTRIES: usize = 500;
/// How often the outbox is looked at.
const INTERVAL: Duration = Duration::from_millis(200);
/// Pauses after failures grow up to this.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// After a request to stop, what waits is delivered within this time or with the next start.
const DRAIN: Duration = Duration::from_secs(5);

/// Delivers until `stop` is requested, then what waits.
pub async fn deliver(store: SqliteStore, mut sink: Box<dyn WindowSink>, stop: Shutdown) {
    let mut failures = 0_u32;
    loop {
        let is_last = stop.is_requested();
        let delivered = match is_last {
            false => tokio::select! {
                delivered = deliver_some(&store, sink.as_mut()) => delivered,
                // what is under way may be for long: it is begun anew with a limit of time
                () = stop.requested() => continue,
            },
            true => match tokio::time::timeout(DRAIN, deliver_some(&store, sink.as_mut())).await {
                Ok(delivered) => delivered,
                Err(_) => return,
            },
        };
        let pause = match delivered {
            Ok(count) => {
                if failures > 0 {
                    tracing::warn!("{}: takes aggregates again", sink.name());
                }
                failures = 0;
                if count == MAX_ENTRIES { Duration::ZERO } else { INTERVAL }
            }
            Err(error) => {
                if failures == 0 {
                    let why = with_causes(&error);
                    tracing::warn!("{}: aggregates wait until it takes them: {why}", sink.name());
                }
                failures += 1;
                report_waiting(&store).await;
                if is_last {
                    return;
                }
                MAX_PAUSE.min(INTERVAL * 2_u32.saturating_pow(failures.min(8)))
            }
        };
        if is_last && pause == INTERVAL {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.requested(), if !is_last => {}
        }
    }
}

async fn deliver_some(
    store: &SqliteStore,
    sink: &mut dyn WindowSink,
) -> Result<usize, crate::sink::window::WindowSinkError> {
    let entries = store.outbox(sink.name(), MAX_ENTRIES).await?;
    let Some(last) = entries.last() else { return Ok(0) };
    sink.deliver(&entries).await?;
    store.confirm(sink.name(), last.seq).await?;
    Metric::AggregatesDelivered.add(entries.len() as u64);
    // counting takes as long as there are many: not while catching up
    if entries.len() < MAX_ENTRIES {
        report_waiting(store).await;
    }
    Ok(entries.len())
}

async fn report_waiting(store: &SqliteStore) {
    match store.num_waiting().await {
        Ok(waiting) => Metric::AggregatesWaiting.set(waiting),
        Err(error) => tracing::debug!("what waits cannot be counted: {error}"),
    }
}
