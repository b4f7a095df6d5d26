//! How far manifests are: what became of each item under one kind of work.
//!
//! Work is what is done with a file (its stages and where they write), so that a file that was only downloaded is not
//! taken for one that was ingested. Deliberately absent: URLs with their queries, which may be secrets.
use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;

use super::{Database, StoreError};

mod postgres;
mod sqlite;

/// What is kept of one item.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchRecord {
    /// What the item is called in caches and states.
    pub key: String,
    /// As in the manifest.
    pub name: String,
    /// Without query and credentials.
    pub url: String,
    /// Whether every stage took it.
    pub done: bool,
    /// Where it failed.
    pub stage: Option<String>,
    /// Why it failed.
    pub error: Option<String>,
    /// Length of the file.
    pub size: u64,
    /// What the server called its content.
    pub etag: Option<String>,
    /// The hash that the manifest gave.
    pub sha256: Option<String>,
}

/// Keeps what became of items.
#[async_trait]
pub trait Fetches: Send + Sync {
    /// Every record of a kind of work, by key.
    async fn load(&self, work: &str) -> Result<HashMap<String, FetchRecord>, StoreError>;

    /// The record of one item.
    async fn find(&self, work: &str, key: &str) -> Result<Option<FetchRecord>, StoreError>;

    /// Keeps records in place of older ones of their keys, all or none; on disk when this returns.
    async fn keep(&self, work: &str, records: Vec<FetchRecord>) -> Result<(), StoreError>;
}

impl Database {
    /// The progress of manifests.
    #[must_use]
    pub fn fetches(&self) -> Arc<dyn Fetches> {
        match self {
            Self::Sqlite(store) => Arc::new(store.clone()),
            Self::Postgres(store) => Arc::new(store.clone()),
        }
    }
}
