//! What is posted to the webhook: bodies into checked events, and who may post.
//!
//! A body never fails as a whole because of one event: what is wrong is told per event, with its field. Deliberately
//! absent: HTTP, and what becomes of the events.
mod access;
mod body;
mod check;
mod rate;

pub use self::access::{Access, AccessError, Denied, Signer};
pub use self::body::{BadBody, BadEvent, Posted, PostedEvent, read};
pub use self::check::{Fault, Id, MAX_AHEAD, in_part, line, request_id};
pub use self::rate::RateLimit;

/// The log type of [`line`]s, as a type file.
pub const EVENTS_TYPE: &str = include_str!("events.toml");
