//! The long-running loops: the only place where sources, transports, decoding and sinks meet.
//!
//! Stages take built parts, not configuration.
pub mod downloader;
pub mod event_archive;
pub mod export;
mod groups;
pub mod processor;
pub mod reader;
pub mod receiver;
pub mod replay;
pub mod sender;
pub mod server;
pub mod shutdown;
