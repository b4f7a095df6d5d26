//! Flags of `pipeline fetch`: how to download, how to process.
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use super::super::UsageError;
use super::super::units::{parse_duration, parse_size};
use crate::download::DownloadOptions;

/// How to download.
#[derive(Debug, Args)]
#[command(next_help_heading = "Downloads")]
pub(super) struct DownloadArgs {
    /// Downloads at once
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) downloads: u16,
    /// Of those, to one host; fewer when it says that it is busy
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) per_host: u16,
    /// Folder for files on their way; what is done is removed [default: processing-pipeline-download-cache in the
    /// folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub(super) download_cache: Option<PathBuf>,
    /// Attempts in all, with growing waits between
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(super) retries: u32,
    /// Longest wait for a connection
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub(super) connect_timeout: Duration,
    /// Longest wait for the next byte
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub(super) idle_timeout: Duration,
    /// Longest time for an attempt as a whole [default: none]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    pub(super) download_timeout: Option<Duration>,
    /// Longest wait that a server may ask for
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub(super) max_retry_after: Duration,
    /// Redirects that are followed
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u16).range(0..=100))]
    pub(super) max_redirects: u16,
    /// Also fetch from private, loopback and link-local addresses
    #[arg(long)]
    pub(super) allow_private: bool,
    /// Schemes that a manifest may name, of http, https, file, s3, gs, az
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "http,https,file")]
    pub(super) schemes: Vec<String>,
    /// No network, nothing stored (neither ingest nor keep:DIR): each item takes 1 to 3 s, and 5 to 10 s to process
    #[arg(long)]
    pub(super) simulate_downloads: bool,
    /// Share of simulated items that fail, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = parse_share, requires = "simulate_downloads")]
    pub(super) simulate_failures: f64,
    /// Decides simulated delays and failures
    #[arg(long, value_name = "N", default_value = "42")]
    pub(super) seed: u64,
    #[arg(long, hide = true, value_parser = FalseyValueParser::new())]
    pub(super) no_sleep: bool,
}

/// How to process.
#[derive(Debug, Args)]
#[command(next_help_heading = "Processing")]
pub(super) struct WorkArgs {
    /// Files that wait to be pre-processed; more hold back the download
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) download_queue_size: u16,
    /// Files that wait to be processed
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) pre_processing_queue_size: u16,
    /// Files processed at once
    #[arg(long, value_name = "N", default_value = "3", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(super) processing_limit: u16,
    /// Most that `decompress` makes of one file, in GiB
    #[arg(long, value_name = "GIB", default_value = "64", value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    pub(super) max_unpacked_gib: u64,
    /// Most that `decompress` makes of one file, as a multiple of its size
    #[arg(long, value_name = "N", default_value = "250", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) max_unpack_ratio: u64,
    /// A command of `exec` is killed after this time
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub(super) exec_timeout: Duration,
    /// Cut the input of `ingest` into chunks of about this size
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    pub(super) chunk_size: usize,
    /// Keep a longer line as a reject, in pieces of this size
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = parse_size)]
    pub(super) max_line_bytes: usize,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "a share from 0 to 1 is expected".to_owned())
}

impl DownloadArgs {
    pub(super) fn options(&self, revalidate: bool) -> Result<DownloadOptions, UsageError> {
        let known = ["http", "https", "file", "s3", "gs", "az"];
        if let Some(unknown) = self.schemes.iter().find(|scheme| !known.contains(&scheme.as_str())) {
            return Err(UsageError(format!("--schemes: {unknown} is none of {}", known.join(", "))));
        }
        let default = DownloadOptions::default();
        Ok(DownloadOptions {
            cache: self.download_cache.clone().unwrap_or(default.cache),
            downloads: self.downloads.into(),
            per_host: self.per_host.into(),
            attempts: self.retries,
            connect_timeout: self.connect_timeout,
            idle_timeout: self.idle_timeout,
            timeout: self.download_timeout,
            max_redirects: self.max_redirects.into(),
            allow_private: self.allow_private,
            schemes: self.schemes.clone(),
            max_wait: self.max_retry_after,
            revalidate,
            no_sleep: self.no_sleep,
        })
    }
}
