//! Private Redis servers, from the binary of the system's package.
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;

use super::lan::Host;
use super::process::{Process, folder, make_certificates, on_free_port, program};
use crate::support::output;

const READY: &str = "Ready to accept connections";

/// What a test wants to be different.
#[derive(Debug, Clone, Default)]
pub(crate) struct RedisOptions {
    pub(crate) password: Option<&'static str>,
    /// `noeviction` unless given.
    pub(crate) maxmemory_policy: Option<&'static str>,
    /// No limit unless given: `64mb`.
    pub(crate) maxmemory: Option<&'static str>,
    /// TLS only, with a certificate for localhost and 127.0.0.1.
    pub(crate) tls: bool,
    /// One node that has all slots.
    pub(crate) cluster: bool,
}

/// A private server without persistence: empty after every start.
#[derive(Debug)]
pub(crate) struct Redis {
    process: Option<Process>,
    options: RedisOptions,
    port: u16,
    /// Where it runs, if that is not this host.
    host: Option<Host>,
    folder: TempDir,
}

impl Redis {
    /// The one of this test process, for every test that does not stop it. Streams and keys need names of their
    /// own: [`Redis::unique`].
    pub(crate) fn shared() -> &'static Redis {
        static SHARED: OnceLock<Redis> = OnceLock::new();
        SHARED.get_or_init(Redis::start)
    }

    /// A name that no other test has.
    pub(crate) fn unique(name: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        format!("{name}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// One that the test may stop and kill.
    pub(crate) fn start() -> Redis {
        Self::start_with(RedisOptions::default())
    }

    pub(crate) fn start_with(options: RedisOptions) -> Redis {
        Self::start_as(options, None)
    }

    /// One that is asked over the network of `host`.
    pub(crate) fn start_on(host: Host) -> Redis {
        Self::start_as(RedisOptions::default(), Some(host))
    }

    fn start_as(options: RedisOptions, host: Option<Host>) -> Redis {
        let folder = folder();
        if options.tls {
            make_certificates(folder.path());
        }
        let (process, port) =
            on_free_port(|port| Ok((launch(folder.path(), port, &options, host.as_ref())?, port)));
        let mut redis = Redis { process: Some(process), options, port, host, folder };
        redis.give_slots();
        redis
    }

    fn give_slots(&mut self) {
        if self.options.cluster {
            // one by one: ADDSLOTSRANGE is newer than some servers
            let slots: Vec<_> = (0..16_384).map(|slot| slot.to_string()).collect();
            let command = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str));
            assert_eq!(self.cli(&command.collect::<Vec<_>>()), "OK");
            self.process.as_mut().unwrap().wait_for_line("Cluster state changed: ok").unwrap();
        }
    }

    pub(crate) fn url(&self) -> String {
        let password = self.options.password.map(|password| format!(":{password}@")).unwrap_or_default();
        if self.options.tls {
            let ca = self.at("ca.crt");
            return format!("rediss://{password}127.0.0.1:{}?sslrootcert={}", self.port, ca.display());
        }
        format!("redis://{password}127.0.0.1:{}", self.port)
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().pid
    }

    /// A file of the server: `ca.crt` of one with TLS.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.signal("KILL");
        process.wait();
    }

    /// Sends a signal by its name: `STOP` makes a server that takes connections and does not answer.
    pub(crate) fn signal(&self, name: &str) {
        self.process.as_ref().unwrap().signal(name);
    }

    /// Starts it again on the same port, empty; returns when it takes connections.
    pub(crate) fn restart(&mut self) {
        if self.process.is_some() {
            self.kill();
        }
        let process = launch(self.folder.path(), self.port, &self.options, self.host.as_ref());
        self.process = Some(process.unwrap_or_else(|said| panic!("redis does not start again: {said}")));
        self.give_slots();
    }

    /// What `redis-cli` prints.
    #[track_caller]
    pub(crate) fn cli(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(program("redis-cli", "redis-tools"));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string()]);
        if let Some(password) = self.options.password {
            command.env("REDISCLI_AUTH", password);
        }
        if self.options.tls {
            command.arg("--tls").arg("--cacert").arg(self.at("ca.crt"));
        }
        output(command.args(arguments)).trim_end().to_owned()
    }
}

fn launch(folder: &Path, port: u16, options: &RedisOptions, host: Option<&Host>) -> Result<Process, String> {
    // what a cluster node wrote about itself, and what a killed server dumped, is not there after a start
    for name in ["nodes.conf", "dump.rdb"] {
        let _absent = std::fs::remove_file(folder.join(name));
    }
    let mut arguments = host.map(Host::prefix).unwrap_or_default();
    arguments.push(program("redis-server", "redis-server").display().to_string());
    let mut set = |name: &str, value: &str| arguments.extend([format!("--{name}"), value.to_owned()]);
    set("bind", host.map_or("127.0.0.1", Host::address));
    // others on its network have no password either
    set("protected-mode", if host.is_some() { "no" } else { "yes" });
    set("dir", folder.to_str().unwrap());
    set("save", "");
    set("appendonly", "no");
    set("maxmemory-policy", options.maxmemory_policy.unwrap_or("noeviction"));
    set("maxmemory", options.maxmemory.unwrap_or("0"));
    let port = port.to_string();
    if options.tls {
        let at = |name: &str| folder.join(name).display().to_string();
        set("port", "0");
        set("tls-port", &port);
        set("tls-cert-file", &at("server.crt"));
        set("tls-key-file", &at("server.key"));
        set("tls-ca-cert-file", &at("ca.crt"));
        set("tls-auth-clients", "no");
        // else the node tells clients its port without TLS, which is none
        set("tls-cluster", "yes");
    } else {
        set("port", &port);
    }
    if let Some(password) = options.password {
        set("requirepass", password);
    }
    if options.cluster {
        set("cluster-enabled", "yes");
        set("cluster-announce-ip", "127.0.0.1");
    }
    Process::start(folder, "KILL", &arguments, READY)
}
