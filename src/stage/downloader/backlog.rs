//! Items that are still to be downloaded: by host, and those that wait for another attempt.
//!
//! Hosts take turns, and one that may not be asked now is passed over: what waits holds no place that others could use.
use std::collections::{BTreeMap, HashMap, VecDeque};

use tokio::time::Instant;

use crate::download::{FileItem, Progress};
use crate::store::FetchRecord;

/// An item that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) item: FileItem,
    /// What is known of it where that has to be asked about.
    pub(super) record: Option<FetchRecord>,
    pub(super) progress: Progress,
    /// When it was first taken.
    pub(super) started: Option<std::time::Instant>,
    /// Whether another run had it.
    pub(super) was_locked: bool,
}

#[derive(Debug, Default)]
pub(super) struct Backlog {
    by_host: HashMap<String, VecDeque<Waiting>>,
    /// Those that have items, the next one first.
    hosts: VecDeque<String>,
    /// By time; the number keeps two of one time apart.
    later: BTreeMap<(Instant, u64), Waiting>,
    put_back: u64,
}

impl Backlog {
    pub(super) fn new(items: Vec<(FileItem, Option<FetchRecord>)>) -> Self {
        let mut backlog = Self::default();
        for (item, record) in items {
            let progress = Progress::default();
            let waiting = Waiting { item, record, progress, started: None, was_locked: false };
            backlog.of_host(waiting.item.host()).push_back(waiting);
        }
        backlog
    }

    fn of_host(&mut self, host: String) -> &mut VecDeque<Waiting> {
        let Self { by_host, hosts, .. } = self;
        by_host.entry(host).or_insert_with_key(|host| {
            hosts.push_back(host.clone());
            VecDeque::new()
        })
    }

    /// Not before this time.
    pub(super) fn put_back(&mut self, waiting: Waiting, until: Instant) {
        self.put_back += 1;
        self.later.insert((until, self.put_back), waiting);
    }

    /// The next item whose host gives a turn.
    pub(super) fn next<T>(&mut self, mut turn_at: impl FnMut(&str) -> Option<T>) -> Option<(Waiting, T)> {
        let now = Instant::now();
        while let Some(first) = self.later.first_entry().filter(|first| first.key().0 <= now) {
            let waiting = first.remove();
            self.of_host(waiting.item.host()).push_front(waiting);
        }
        for _ in 0..self.hosts.len() {
            let host = self.hosts.pop_front()?;
            let Some(turn) = turn_at(&host) else {
                self.hosts.push_back(host);
                continue;
            };
            let queue = self.by_host.get_mut(&host)?;
            let waiting = queue.pop_front()?;
            match queue.is_empty() {
                true => drop(self.by_host.remove(&host)),
                false => self.hosts.push_back(host),
            }
            return Some((waiting, turn));
        }
        None
    }

    /// When there may be a next item though no other ends before.
    pub(super) fn due(&self, paused_until: impl Fn(&str) -> Option<Instant>) -> Option<Instant> {
        let later = self.later.first_key_value().map(|(key, _)| key.0);
        self.hosts.iter().filter_map(|host| paused_until(host)).chain(later).min()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty() && self.later.is_empty()
    }

    pub(super) fn into_items(self) -> impl Iterator<Item = FileItem> {
        let waiting = self.by_host.into_values().flatten().chain(self.later.into_values());
        waiting.map(|waiting| waiting.item)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_host_that_may_not_be_asked_holds_back_no_other() {
        let urls = (0..50).map(|number| format!("http://busy/{number}")).chain(["http://free/1".to_owned()]);
        let items = urls.map(|url| (FileItem::try_new(&url).unwrap(), None)).collect();
        let mut backlog = Backlog::new(items);
        let free = |host: &str| host.contains("free").then_some(());
        let (waiting, ()) = backlog.next(free).unwrap();
        assert_eq!(waiting.item.host(), "http://free:80");
        assert!(backlog.next(free).is_none() && !backlog.is_empty());
        let until = Instant::now() + Duration::from_millis(50);
        backlog.put_back(waiting, until);
        assert!(backlog.next(free).is_none());
        assert_eq!(backlog.due(|_| None), Some(until));
        tokio::time::sleep_until(until).await;
        assert!(backlog.next(free).is_some());
        let names: Vec<_> = std::iter::from_fn(|| backlog.next(|_| Some(())))
            .map(|(waiting, ())| waiting.item.name)
            .collect();
        assert_eq!((names.len(), names[0].as_str(), names[49].as_str()), (50, "0", "49"));
        assert!(backlog.is_empty());
    }
}
