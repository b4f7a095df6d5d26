//! The processor's end of a queue: one stream, or in a cluster several, taken from in turn.
//!
//! Each stream has a consumer of its own, and so a group, take-over and reports of its own: what is promised of one
//! stream is promised of each. A delivery's number says by its remainder which stream it came from.
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::{join_all, select_all, try_join_all};

use super::super::{Consumer, Delivery, DeliveryId, LedgerRequests, TransportError};
use super::StreamOptions;
use super::depths::Share;
use super::keys::Keys;
use super::link::Link;
use super::stream_consumer::StreamConsumer;

/// The processor's end of a queue.
#[derive(Debug)]
pub struct RedisConsumer {
    streams: Vec<StreamConsumer>,
    /// Where the next look begins, so that no stream is always the first.
    first: usize,
}

impl RedisConsumer {
    pub(super) async fn start(
        link: Link,
        shards: Vec<Keys>,
        options: &StreamOptions,
        drain: bool,
    ) -> Result<Self, TransportError> {
        let (link, shares) = (Arc::new(link), Share::of_each(shards.len()));
        let starting = shards
            .into_iter()
            .zip(shares)
            .map(|(keys, share)| StreamConsumer::start(Arc::clone(&link), keys, options, drain, share));
        Ok(Self { streams: try_join_all(starting).await?, first: 0 })
    }

    fn of_stream(&self, id: DeliveryId) -> (usize, DeliveryId) {
        let streams = self.streams.len() as DeliveryId;
        ((id % streams) as usize, id / streams)
    }
}

#[async_trait]
impl Consumer for RedisConsumer {
    async fn receive(&mut self) -> Result<Option<Delivery>, TransportError> {
        let streams = self.streams.len();
        self.first = (self.first + 1) % streams;
        let (last, first) = self.streams.split_at_mut(self.first);
        let numbers = (self.first..streams).chain(0..self.first);
        let mut receiving: Vec<_> = first
            .iter_mut()
            .chain(last)
            .zip(numbers)
            .map(|(stream, number)| Box::pin(async move { (number, stream.receive().await) }))
            .collect();
        while !receiving.is_empty() {
            let ((number, received), _position, others) = select_all(receiving).await;
            if let Some(Delivery { id, chunk }) = received? {
                return Ok(Some(Delivery { id: id * streams as DeliveryId + number as DeliveryId, chunk }));
            }
            receiving = others;
        }
        Ok(None)
    }

    async fn ack(&mut self, deliveries: &[DeliveryId]) -> Result<(), TransportError> {
        let mut by_stream = vec![Vec::new(); self.streams.len()];
        for id in deliveries {
            let (number, id) = self.of_stream(*id);
            by_stream[number].push(id);
        }
        for (stream, ids) in self.streams.iter_mut().zip(&by_stream) {
            stream.ack(ids).await?;
        }
        Ok(())
    }

    async fn redeliver(&mut self, delivery: DeliveryId) -> Result<bool, TransportError> {
        let (number, id) = self.of_stream(delivery);
        self.streams[number].redeliver(id).await
    }

    fn max_unacknowledged_bytes(&self) -> usize {
        // all of it may be of one stream
        self.streams.iter().map(StreamConsumer::max_unacknowledged_bytes).min().unwrap_or(1)
    }

    fn ledger_requests(&mut self) -> LedgerRequests {
        // they are the queue's, whatever stream serves them
        self.streams[0].ledger_requests()
    }

    async fn close(&mut self) -> Result<(), TransportError> {
        // all of them, whatever becomes of one: each gives back what it holds
        join_all(self.streams.iter_mut().map(StreamConsumer::close)).await.into_iter().collect()
    }
}
