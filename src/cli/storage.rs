//! Where rows are stored: what `--into` and its like say, opened.
use std::time::Duration;

use clap::Args;

use super::places::{FRAGMENT, Place};
use super::units::parse_duration;
use crate::client::{ClientError, PgConfig, is_postgres, redacted};
use crate::log_type::LogTypes;
use crate::sink::{self, ArchiveSink, GroupLimits, PartSink, PostgresSink, Sink, SinkError};

/// How rows are stored.
#[derive(Debug, Args)]
pub(super) struct StorageArgs {
    /// Schema of Postgres to write to
    #[arg(long, value_name = "NAME", default_value = "public")]
    pub(super) schema: String,
    /// Chunks decoded at once, and connections to each Postgres [default: number of cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: Option<u16>,
    /// Commit to Postgres with so many rows (rejects and blank lines count too),
    #[arg(long, value_name = "N", default_value = "65536", value_parser = clap::value_parser!(u64).range(1..))]
    commit_rows: u64,
    /// or this long after the first of them arrived; after an eighth of it when no more come
    #[arg(long, value_name = "TIME", default_value = "250ms", value_parser = parse_duration)]
    commit_interval: Duration,
    /// Exit with 1 when a line was rejected (it is kept either way)
    #[arg(long)]
    pub(super) fail_on_rejects: bool,
}

impl StorageArgs {
    /// The defaults, for another schema.
    pub(super) fn for_repair(schema: &str) -> Self {
        let GroupLimits { rows, age, .. } = GroupLimits::default();
        let (schema, workers) = (schema.to_owned(), None);
        Self { schema, workers, commit_rows: rows, commit_interval: age, fail_on_rejects: false }
    }

    pub(super) fn workers(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.workers.map_or(cores, usize::from)
    }

    /// Opens every place.
    pub(super) async fn open(
        &self,
        places: Vec<Place>,
        types: &LogTypes,
    ) -> anyhow::Result<Vec<Box<dyn Sink>>> {
        let limits =
            GroupLimits { rows: self.commit_rows, age: self.commit_interval, ..GroupLimits::default() };
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        let is_split = places.iter().any(|place| !place.share.is_all());
        let mut databases: Vec<(String, String)> = Vec::new();
        for Place { location, share } in places {
            let sink: Box<dyn Sink> = match is_postgres(&location) {
                true => {
                    let config = PgConfig::parse(&location)?;
                    let sink =
                        PostgresSink::try_new(config, &self.schema, types, self.workers(), limits).await?;
                    if is_split {
                        let identity = sink.identity().await?;
                        if let Some((_, other)) = databases.iter().find(|(known, _)| *known == identity) {
                            let reason = format!(
                                "is the same place as {}; name it once, with all of its types in one {FRAGMENT}",
                                redacted(other)
                            );
                            return Err(ClientError::BadUrl { location: redacted(&location), reason }.into());
                        }
                        databases.push((identity, location.clone()));
                    }
                    Box::new(sink)
                }
                false => Box::new(ArchiveSink::try_new(&location).await?),
            };
            sinks.push(match share.is_all() {
                true => {
                    sink::expect_share(&*sink, &share).map_err(SinkError::from)?;
                    sink
                }
                false => Box::new(PartSink::try_new(sink, share)?),
            });
        }
        Ok(sinks)
    }
}
