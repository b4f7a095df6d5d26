//! Drives a connection in a task of its own until its client is dropped, and wakes who waits for notifications.
use std::future::poll_fn;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio_postgres::{AsyncMessage, Connection};

use super::PgConfig;

impl PgConfig {
    /// The same, waking `notified` for what `LISTEN` of a connection made from it brings.
    #[must_use]
    pub fn with_notifications(mut self, notified: Arc<Notify>) -> Self {
        self.notified = Some(notified);
        self
    }
}

pub(super) fn drive<S, T>(mut connection: Connection<S, T>, address: String, notified: Option<Arc<Notify>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        while let Some(message) = poll_fn(|context| connection.poll_message(context)).await {
            match message {
                Ok(AsyncMessage::Notification(_)) => {
                    if let Some(notified) = &notified {
                        notified.notify_one();
                    }
                }
                Ok(_) => {}
                // whoever waits for an answer gets an error of its own
                Err(error) => {
                    tracing::debug!("the connection to postgres at {address} ended: {error}");
                    return;
                }
            }
        }
    });
}
