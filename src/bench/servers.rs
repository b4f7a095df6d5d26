//! CPU time of the servers, where they run on this machine.
//!
//! Postgres tells the process id of a session; its parent is the server, and the server's children are what works
//! for it. Redis tells its own times. Deliberately absent: guessing which process may be a server.
use std::fs;

use tokio_postgres::Client;

use super::process::ProcStat;
use crate::client::RedisConnection;

/// Where the CPU times of the servers are read.
pub struct ServerClocks {
    postmaster: Option<u32>,
    redis: Option<RedisConnection>,
}

impl ServerClocks {
    /// Finds the servers behind these connections.
    pub async fn find(client: &Client, redis: Option<RedisConnection>) -> Self {
        let sql = "SELECT pg_backend_pid(), coalesce(host(inet_server_addr()), 'socket')";
        let postmaster = client.query_one(sql, &[]).await.ok().and_then(|row| {
            let (backend, address): (i32, String) = (row.get(0), row.get(1));
            let is_local = address == "socket" || address == "::1" || address.starts_with("127.");
            let session = ProcStat::read(u32::try_from(backend).ok()?)?;
            let server = ProcStat::read(session.parent)?;
            // a server in a container numbers its processes by itself
            (is_local && [&session, &server].iter().all(|stat| stat.name.contains("postgres")))
                .then_some(session.parent)
        });
        Self { postmaster, redis }
    }

    /// Seconds of CPU that Postgres has used since it was started.
    pub fn postgres_seconds(&self) -> Option<f64> {
        let postmaster = self.postmaster?;
        let total = |stat: ProcStat| stat.own_cpu_seconds + stat.children_cpu_seconds;
        let pids = fs::read_dir("/proc").ok()?.flatten();
        let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let sessions = pids.filter_map(ProcStat::read).filter(|stat| stat.parent == postmaster);
        Some(sessions.map(total).sum::<f64>() + total(ProcStat::read(postmaster)?))
    }

    /// Seconds of CPU that Redis has used since it was started.
    pub async fn redis_seconds(&mut self) -> Option<f64> {
        let text: String = redis::cmd("INFO").arg("cpu").query_async(self.redis.as_mut()?).await.ok()?;
        let seconds = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse::<f64>().ok())
        };
        Some(seconds("used_cpu_user")? + seconds("used_cpu_sys")?)
    }
}
