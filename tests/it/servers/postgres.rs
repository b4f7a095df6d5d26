//! Private Postgres servers, from the binaries of the system's package.
//!
//! `fsync` is off: what a test kills is the server, never the machine, and what a process wrote outlives it in
//! the operating system's cache. Deliberately absent: the system's own clusters.
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tempfile::TempDir;
use tokio_postgres::{NoTls, SimpleQueryMessage};

use super::lan::Host;
use super::process::{Process, folder, make_certificates, on_free_port, program};
use crate::support::output;

/// A standby's words have "read-only" in them.
const READY: &str = "database system is ready to accept ";
/// Stops at once and recovers at the next start, but takes its shared memory with it, as `KILL` does not.
const IMMEDIATE: &str = "QUIT";

/// Settings of every test server.
const SETTINGS: &[&str] = &[
    "fsync=off",
    "full_page_writes=off",
    "listen_addresses=127.0.0.1",
    "shared_buffers=64MB",
    "max_connections=100",
    // both die with the server's folder
    "dynamic_shared_memory_type=mmap",
    "unix_socket_directories=",
    "log_min_messages=warning",
];

/// A private server; user and password are `pipeline`.
#[derive(Debug)]
pub(crate) struct Postgres {
    process: Option<Process>,
    port: u16,
    tls: bool,
    /// Where databases are made, when the disk is to be small.
    small_disk: Option<PathBuf>,
    /// Where it runs, if that is not this host.
    host: Option<Host>,
    folder: TempDir,
}

impl Postgres {
    /// The one of this test process, for every test that does not stop it.
    pub(crate) fn shared() -> &'static Postgres {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Postgres::start)
    }

    /// One that the test may stop and kill.
    pub(crate) fn start() -> Postgres {
        Self::start_in(Self::new_cluster(), false)
    }

    /// One that also takes TLS, with a certificate for localhost and 127.0.0.1.
    pub(crate) fn start_with_tls() -> Postgres {
        let folder = Self::new_cluster();
        make_certificates(folder.path());
        let user = ServerUser::find();
        for name in ["server.crt", "server.key"] {
            user.give(&folder.path().join(name));
        }
        let key = folder.path().join("server.key");
        std::fs::set_permissions(key, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self::start_in(folder, true)
    }

    /// One whose databases are on a disk of this size, to be filled. `None` where this user cannot mount one:
    /// nothing else fails as a full disk does (a limit of the process on file size gives another error).
    pub(crate) fn start_on_small_disk(size_mib: u32) -> Option<Postgres> {
        let folder = Self::new_cluster();
        let disk = folder.path().join("small");
        std::fs::create_dir(&disk).unwrap();
        let size = format!("size={size_mib}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&disk).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let place = disk.join("tablespace");
        std::fs::create_dir(&place).unwrap();
        ServerUser::find().give(&place);
        let mut postgres = Self::start_in(folder, false);
        postgres.small_disk = Some(disk);
        postgres.admin(&format!("CREATE TABLESPACE small LOCATION '{}'", place.display()));
        Some(postgres)
    }

    /// One that is asked over the network of `host`; the test itself reaches it by a socket of the file system.
    pub(crate) fn start_on(host: Host) -> Postgres {
        let folder = Self::new_cluster();
        let rules = cluster(&folder).join("pg_hba.conf");
        let rule = "host all all samenet scram-sha-256\n";
        std::fs::OpenOptions::new().append(true).open(rules).unwrap().write_all(rule.as_bytes()).unwrap();
        let (process, port) = on_free_port(|port| Ok((launch(&folder, port, false, Some(&host))?, port)));
        Postgres { process: Some(process), port, tls: false, small_disk: None, host: Some(host), folder }
    }

    /// A hot standby of this one: what is committed here can be read there, soon.
    pub(crate) fn standby(&self) -> Postgres {
        let (folder, user) = (folder(), ServerUser::find());
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        user.give(folder.path());
        let mut backup = user.run(&binary("pg_basebackup"));
        let source = format!("--dbname=postgres://pipeline:pipeline@{}", self.server());
        backup.extend([source, format!("--pgdata={}", cluster(&folder).display())]);
        let how = ["--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"];
        backup.extend(how.map(str::to_owned));
        output(Command::new(&backup[0]).args(&backup[1..]).current_dir("/"));
        Self::start_in(folder, false)
    }

    /// The same database there.
    pub(crate) fn database_of(&self, primary: &Database) -> String {
        url(&self.server(), primary.name())
    }

    fn new_cluster() -> TempDir {
        let folder = folder();
        let user = ServerUser::find();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let password_file = folder.path().join("password");
        std::fs::write(&password_file, "pipeline\n").unwrap();
        user.give(folder.path());
        user.give(&password_file);
        let mut arguments = user.run(&binary("initdb"));
        arguments.extend(["--no-sync", "--no-locale", "--encoding=UTF8"].map(str::to_owned));
        arguments.extend(["--auth=scram-sha-256", "--username=pipeline"].map(str::to_owned));
        arguments.push(format!("--pwfile={}", password_file.display()));
        arguments.push(format!("--pgdata={}", cluster(&folder).display()));
        output(Command::new(&arguments[0]).args(&arguments[1..]).current_dir("/"));
        folder
    }

    fn start_in(folder: TempDir, tls: bool) -> Postgres {
        let (process, port) = on_free_port(|port| Ok((launch(&folder, port, tls, None)?, port)));
        Postgres { process: Some(process), port, tls, small_disk: None, host: None, folder }
    }

    /// A new, empty database, dropped with its handle.
    pub(crate) fn database(&self) -> Database {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let place = if self.small_disk.is_some() { " TABLESPACE small" } else { "" };
        self.admin(&format!("CREATE DATABASE {name}{place}"));
        Database { name, server: self.server() }
    }

    /// Host and port of a URL.
    fn server(&self) -> String {
        let socket = || self.folder.path().display().to_string().replace('/', "%2F");
        let host = self.host.as_ref().map_or_else(|| "127.0.0.1".to_owned(), |_| socket());
        format!("{host}:{}", self.port)
    }

    /// A statement in the database `postgres`.
    pub(crate) fn admin(&self, sql: &str) -> String {
        query(&url(&self.server(), "postgres"), sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.as_ref().unwrap().pid
    }

    /// A file or folder of the server: `ca.crt` of one with TLS.
    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `pg_ctl stop -m immediate`: what was not committed is lost, and the next start recovers.
    pub(crate) fn stop_immediate(&mut self) {
        self.end(IMMEDIATE);
    }

    /// `kill -9` of the postmaster; its processes end when they notice.
    pub(crate) fn kill(&mut self) {
        self.end("KILL");
    }

    fn end(&mut self, signal: &str) {
        let mut process = self.process.take().unwrap();
        process.signal(signal);
        process.wait();
    }

    /// Sends a signal by its name: `STOP` makes a server that takes connections and does not answer.
    pub(crate) fn signal(&self, name: &str) {
        self.process.as_ref().unwrap().signal(name);
    }

    /// Starts it again on the same port and files; returns when it takes connections.
    pub(crate) fn restart(&mut self) {
        if self.process.is_some() {
            self.stop_immediate();
        }
        let process = launch(&self.folder, self.port, self.tls, self.host.as_ref());
        self.process = Some(process.unwrap_or_else(|said| panic!("postgres does not start again: {said}")));
    }

    /// Takes what room is left on the small disk.
    pub(crate) fn fill_disk(&self) {
        let disk = self.small_disk.as_ref().unwrap();
        let filled =
            std::io::copy(&mut std::io::repeat(0), &mut std::fs::File::create(disk.join("ballast")).unwrap());
        assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    }

    /// Gives the room back.
    pub(crate) fn free_disk(&self) {
        std::fs::remove_file(self.small_disk.as_ref().unwrap().join("ballast")).unwrap();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        drop(self.process.take());
        if let Some(disk) = &self.small_disk {
            // a disk that stays mounted is a test that leaves something behind, and is found by its folder
            let _unmounted = Command::new("umount").arg(disk).status();
        }
    }
}

fn cluster(folder: &TempDir) -> PathBuf {
    folder.path().join("cluster")
}

fn url(server: &str, database: &str) -> String {
    format!("postgres://pipeline:pipeline@{server}/{database}")
}

fn launch(folder: &TempDir, port: u16, tls: bool, host: Option<&Host>) -> Result<Process, String> {
    let mut arguments = host.map(Host::prefix).unwrap_or_default();
    arguments.extend(ServerUser::find().run(&binary("postgres")));
    arguments.extend(["-D".to_owned(), cluster(folder).display().to_string()]);
    let port = format!("port={port}");
    for setting in SETTINGS.iter().copied().chain([port.as_str()]) {
        arguments.extend(["-c".to_owned(), setting.to_owned()]);
    }
    if let Some(host) = host {
        arguments.extend(["-c".to_owned(), format!("listen_addresses={}", host.address())]);
        let sockets = format!("unix_socket_directories={}", folder.path().display());
        arguments.extend(["-c".to_owned(), sockets]);
    }
    if tls {
        let at = |name| folder.path().join(name).display().to_string();
        arguments.extend(["-c".to_owned(), "ssl=on".to_owned()]);
        arguments.extend(["-c".to_owned(), format!("ssl_cert_file={}", at("server.crt"))]);
        arguments.extend(["-c".to_owned(), format!("ssl_key_file={}", at("server.key"))]);
    }
    Process::start(folder.path(), IMMEDIATE, &arguments, READY)
}

/// A program of the newest Postgres: Debian keeps the server's out of PATH.
fn binary(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let version = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions
        .map(|entry| entry.path())
        .filter(|path| path.join("bin/initdb").is_file() && path.join("bin/postgres").is_file())
        .max_by_key(|path| version(path));
    match newest {
        Some(folder) => folder.join("bin").join(name),
        None => program(name, "postgresql"),
    }
}

/// Postgres refuses to run as root.
struct ServerUser(Option<(String, u32)>);

impl ServerUser {
    fn find() -> Self {
        let id = |arguments: &[&str]| {
            let output = Command::new("id").args(arguments).output().unwrap();
            String::from_utf8(output.stdout).unwrap().trim().parse::<u32>().ok()
        };
        if id(&["-u"]) != Some(0) {
            return Self(None);
        }
        let mut users = ["postgres", "nobody"].into_iter();
        Self(users.find_map(|user| Some((user.to_owned(), id(&["-u", user])?))))
    }

    fn give(&self, path: &Path) {
        if let Some((_, id)) = self.0 {
            chown(path, Some(id), None).unwrap();
        }
    }

    fn run(&self, program: &Path) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some((user, _)) = &self.0 {
            let reuid = format!("--reuid={user}");
            arguments.extend(["setpriv", &reuid, "--clear-groups", "--"].map(str::to_owned));
        }
        arguments.push(program.display().to_string());
        arguments
    }
}

/// A database of one test.
#[derive(Debug)]
pub(crate) struct Database {
    name: String,
    server: String,
}

impl Database {
    pub(crate) fn url(&self) -> String {
        self.url_at(&self.server)
    }

    /// For one who reaches the server at this host and port.
    pub(crate) fn url_at(&self, server: &str) -> String {
        url(server, &self.name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The rows that the statements give, as `psql -qAt` prints them.
    #[track_caller]
    pub(crate) fn sql(&self, sql: &str) -> String {
        self.try_sql(sql).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// [`Self::sql`] where an error is expected: the server's words.
    pub(crate) fn try_sql(&self, sql: &str) -> Result<String, String> {
        query(&self.url(), sql)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // the server may be stopped, and then its folder goes with all that is in it
        let _dropped =
            query(&url(&self.server, "postgres"), &format!("DROP DATABASE {} WITH (FORCE)", self.name));
    }
}

/// On a thread of its own, so that a test may be async too.
fn query(url: &str, sql: &str) -> Result<String, String> {
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
            let driven = tokio::spawn(connection);
            let messages = client.simple_query(sql).await;
            drop(client);
            // it only ends now; what it failed with, the query did too
            let _ended = driven.await;
            messages
        })
    };
    let messages = std::thread::scope(|scope| scope.spawn(ask).join().unwrap());
    let mut text = String::new();
    for message in messages.map_err(|error| words(&error))? {
        if let SimpleQueryMessage::Row(row) = message {
            let values: Vec<_> = (0..row.len()).map(|column| row.get(column).unwrap_or_default()).collect();
            writeln!(text, "{}", values.join("|")).unwrap();
        }
    }
    Ok(text.trim_end_matches('\n').to_owned())
}

fn words(error: &tokio_postgres::Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
}
