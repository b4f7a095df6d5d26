//! How to download: limits, timeouts, and what a manifest may reach.
use std::path::PathBuf;
use std::time::Duration;

/// How to download.
#[derive(Debug, Clone)]
pub struct DownloadOptions {
    /// Folder of the cache.
    pub cache: PathBuf,
    /// Downloads at once.
    pub downloads: usize,
    /// Of those, to one host.
    pub per_host: usize,
    /// Attempts in all.
    pub attempts: u32,
    /// Until a connection is made.
    pub connect_timeout: Duration,
    /// Without a byte.
    pub idle_timeout: Duration,
    /// For one attempt as a whole.
    pub timeout: Option<Duration>,
    /// Redirects that are followed.
    pub max_redirects: usize,
    /// Whether addresses of this machine's own networks may be asked.
    pub allow_private: bool,
    /// Schemes that a manifest may name.
    pub schemes: Vec<String>,
    /// A server that wants to be left alone for longer is given up on.
    pub max_wait: Duration,
    /// Whether to ask if the content of what is here already changed.
    pub revalidate: bool,
    /// Whether to wait at all.
    pub no_sleep: bool,
}

impl Default for DownloadOptions {
    fn default() -> Self {
        Self {
            cache: std::env::temp_dir().join("processing-pipeline-download-cache"),
            downloads: 4,
            per_host: 4,
            attempts: 3,
            connect_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(30),
            timeout: None,
            max_redirects: 10,
            allow_private: false,
            schemes: ["http", "https", "file"].map(str::to_owned).to_vec(),
            max_wait: Duration::from_secs(600),
            revalidate: false,
            no_sleep: false,
        }
    }
}
