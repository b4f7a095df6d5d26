//! A network of hosts on this machine: network namespaces, each with an address of its own, joined by a bridge in
//! another. Where this user may not make them, hosts are addresses 127.0.0.x, which cannot be cut off.
//!
//! A shell waits for the end of its standard input, as for a server (`process.rs`), and then removes what has this
//! network's name; that holds the test process' id, so that networks do not meet. Namespaces take their links with
//! them. Deliberately absent: anything in the namespace that the tests run in.
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// `sh -c WATCH sh NETWORK`
const WATCH: &str = r#"
read -r _
ip netns list | cut -d ' ' -f 1 | grep "^$1-" | while read -r namespace; do ip netns del "$namespace"; done
"#;

#[derive(Debug)]
pub(crate) struct Lan {
    /// Nothing where hosts are mere addresses.
    network: Option<Network>,
    hosts: u8,
}

#[derive(Debug)]
struct Network {
    name: String,
    watchdog: Child,
}

/// A host, for what runs there.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    namespace: Option<String>,
    address: String,
    number: u8,
}

impl Lan {
    pub(crate) fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("pipeline-{}-{number}", std::process::id());
        let switch = format!("{name}-switch");
        if let Err(said) = try_ip(&["netns", "add", &switch]) {
            println!("hosts are addresses 127.0.0.x: namespaces cannot be made ({said})");
            return Self { network: None, hosts: 0 };
        }
        let watchdog = Command::new("sh")
            .args(["-c", WATCH, "sh", &name])
            .stdin(Stdio::piped())
            // Ctrl-C is for the tests; this has to outlive them a little
            .process_group(0)
            .spawn()
            .unwrap();
        let lan = Self { network: Some(Network { name, watchdog }), hosts: 0 };
        let bridged = ip_in(&switch, &["link", "add", "bridge", "type", "bridge"])
            .and_then(|()| ip_in(&switch, &["link", "set", "bridge", "up"]));
        if let Err(said) = bridged {
            println!("hosts are addresses 127.0.0.x: links cannot be made ({said})");
            return Self { network: None, hosts: 0 };
        }
        println!("hosts are network namespaces");
        lan
    }

    /// Whether a host can be cut off and slowed down.
    pub(crate) fn has_links(&self) -> bool {
        self.network.is_some()
    }

    pub(crate) fn host(&mut self) -> Host {
        self.hosts += 1;
        let number = self.hosts;
        let Some(Network { name, .. }) = &self.network else {
            return Host { namespace: None, address: format!("127.0.0.{}", number + 1), number };
        };
        let (namespace, address) = (format!("{name}-{number}"), format!("10.77.0.{number}"));
        let (switch, link) = (format!("{name}-switch"), format!("to-{number}"));
        ip(&["netns", "add", &namespace]);
        let host = Host { namespace: Some(namespace.clone()), address, number };
        let pair = ["link", "add", &link, "type", "veth", "peer", "name", "lan", "netns", &namespace];
        ip_in(&switch, &pair).unwrap();
        ip_in(&switch, &["link", "set", &link, "master", "bridge", "up"]).unwrap();
        ip_in(&namespace, &["address", "add", &format!("{}/24", host.address), "dev", "lan"]).unwrap();
        ip_in(&namespace, &["link", "set", "lan", "up"]).unwrap();
        ip_in(&namespace, &["link", "set", "lo", "up"]).unwrap();
        host
    }

    fn switch(&self) -> String {
        format!("{}-switch", self.network.as_ref().unwrap().name)
    }

    /// Takes a host off the network, or brings it back.
    pub(crate) fn cut(&self, host: &Host, cut: bool) {
        let state = if cut { "down" } else { "up" };
        ip_in(&self.switch(), &["link", "set", &format!("to-{}", host.number), state]).unwrap();
    }

    /// Has what `from` sends to `to` vanish, or arrive again. The other way is open: `from` hears `to`.
    pub(crate) fn silence(&self, from: &Host, to: &Host, silent: bool) {
        let action = if silent { "add" } else { "del" };
        let route = ["route", action, "blackhole", &format!("{}/32", to.address)];
        ip_in(from.namespace.as_ref().unwrap(), &route).unwrap();
    }

    /// Has everything that a host sends arrive so much later, until [`Self::hasten`]. `false` where the kernel cannot.
    pub(crate) fn slow(&self, host: &Host, millis: u64) -> bool {
        let namespace = host.namespace.as_ref().unwrap();
        let delay = format!("{millis}ms");
        let netem = ["qdisc", "add", "dev", "lan", "root", "netem", "delay", &delay];
        let output = Command::new("tc").args(["-n", namespace]).args(netem).output();
        output.is_ok_and(|output| output.status.success())
    }

    pub(crate) fn hasten(&self, host: &Host) {
        let namespace = host.namespace.as_ref().unwrap();
        let deleted =
            Command::new("tc").args(["-n", namespace, "qdisc", "del", "dev", "lan", "root"]).status();
        assert!(deleted.unwrap().success());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        drop(self.watchdog.stdin.take());
        let _ended = self.watchdog.wait();
    }
}

impl Host {
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// What comes before a command that is to run there.
    pub(crate) fn prefix(&self) -> Vec<String> {
        let Some(namespace) = &self.namespace else { return Vec::new() };
        ["ip", "netns", "exec", namespace].map(str::to_owned).to_vec()
    }

    /// The command, to run there.
    pub(crate) fn run(&self, command: &Command) -> Command {
        let prefix = self.prefix();
        let words = prefix.iter().map(std::ffi::OsStr::new);
        let mut words = words.chain([command.get_program()]).chain(command.get_args());
        let mut there = Command::new(words.next().unwrap());
        there.args(words).stdin(Stdio::null());
        if let Some(folder) = command.get_current_dir() {
            there.current_dir(folder);
        }
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => there.env(name, value),
                None => there.env_remove(name),
            };
        }
        there
    }
}

#[track_caller]
fn ip(arguments: &[&str]) {
    try_ip(arguments).unwrap_or_else(|said| panic!("ip {}: {said}", arguments.join(" ")));
}

fn ip_in(namespace: &str, arguments: &[&str]) -> Result<(), String> {
    try_ip(&[&["-n", namespace], arguments].concat())
}

fn try_ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(said) }
}
