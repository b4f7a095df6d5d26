//! Flags of commands that read logs.
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::units::{parse_duration, parse_size};
use crate::source::{CutOptions, Shard};
use crate::stage::reader::ReadOptions;

/// What to read, and how to cut it.
#[derive(Debug, Args)]
pub(super) struct InputArgs {
    /// Files, folders (their *.log, *.log.gz, *.log.zst), globs, objects (s3://, gs://, az://: one, a folder with all
    /// below it, or a glob), or - for standard input [default: data/logs]
    #[arg(value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// Cut the input into chunks of about this size
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    chunk_size: usize,
    /// Cut what has arrived when a slow source pauses for this long
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    flush_interval: Duration,
    /// Keep a longer line as a reject, in pieces of this size
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    max_line_bytes: usize,
    /// Go on when everything is read: follow new files, appended bytes, rotation and truncation
    #[arg(long)]
    pub(super) watch: bool,
    /// Identity of standard input, so that the same stream can be resumed
    #[arg(long, value_name = "NAME")]
    source_name: Option<String>,
    /// Read only this share of the files and parts of objects: the I-th of N readers that divide them [e.g. 1/4]
    #[arg(long, value_name = "I/N")]
    shard: Option<Shard>,
    /// Read larger objects in parts of this size, side by side
    #[arg(long, value_name = "SIZE", default_value = "256MiB", value_parser = parse_size)]
    split_size: usize,
}

impl InputArgs {
    /// The paths given, or the default ones.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        match (self.paths.is_empty(), std::env::var_os("LOG_DIR")) {
            (false, _) => self.paths.clone(),
            (true, Some(folder)) => vec![folder.into()],
            (true, None) => vec!["data/logs".into()],
        }
    }

    pub(super) fn options(&self) -> ReadOptions {
        ReadOptions {
            cut: CutOptions { chunk_size_bytes: self.chunk_size, max_line_bytes: self.max_line_bytes },
            flush_interval: self.flush_interval,
            watch: self.watch,
            source_name: self.source_name.clone(),
            shard: self.shard,
            split_size_bytes: self.split_size as u64,
            ..ReadOptions::default()
        }
    }
}
