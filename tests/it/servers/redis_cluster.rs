//! A Redis Cluster of several nodes on loopback, from the binary of the system's package.
//!
//! Three masters share the slots; each has a replica if that is wanted. A node that is started again knows its place
//! in the cluster and is empty.
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::process::{Process, folder, free_port, on_free_port, program, wait_until};
use crate::support::output;

const READY: &str = "Ready to accept connections";
/// Nodes talk to each other at this much above their port.
const BUS: u16 = 10_000;
/// From here on the system gives ports to outgoing connections.
const FIRST_OUTGOING: u16 = 32_768;
const MASTERS: usize = 3;
/// After so long without an answer a node is lost, and its replica takes over.
const NODE_TIMEOUT_MS: &str = "2000";

#[derive(Debug)]
pub(crate) struct RedisCluster {
    nodes: Vec<Node>,
}

#[derive(Debug)]
struct Node {
    process: Option<Process>,
    port: u16,
    folder: TempDir,
}

impl RedisCluster {
    pub(crate) fn start(with_replicas: bool) -> Self {
        let count = if with_replicas { 2 * MASTERS } else { MASTERS };
        let nodes = (0..count).map(|_| {
            let folder = folder();
            let (process, port) = on_free_port(|port| {
                // nodes talk to each other at 10,000 above, which has to be as unlikely to be taken
                let mut ports = std::iter::once(port).chain(std::iter::repeat_with(free_port));
                let port = ports.find(|port| port + BUS < FIRST_OUTGOING).unwrap();
                Ok((launch(folder.path(), port)?, port))
            });
            Node { process: Some(process), port, folder }
        });
        let cluster = Self { nodes: nodes.collect() };
        cluster.form();
        cluster
    }

    fn form(&self) {
        let id = |node: usize| self.cli(node, &["CLUSTER", "MYID"]);
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        for node in 0..self.nodes.len() {
            // else nodes that meet would have to find out who is right
            self.cli(node, &["CLUSTER", "SET-CONFIG-EPOCH", &(node + 1).to_string()]);
            if node < MASTERS {
                let end = |node: usize| node * 16_384 / MASTERS;
                // one by one: ADDSLOTSRANGE is newer than some servers
                let slots: Vec<_> = (end(node)..end(node + 1)).map(|slot| slot.to_string()).collect();
                let command = ["CLUSTER", "ADDSLOTS"].into_iter().chain(slots.iter().map(String::as_str));
                assert_eq!(self.cli(node, &command.collect::<Vec<_>>()), "OK");
            }
            if node > 0 {
                self.cli(0, &["CLUSTER", "MEET", "127.0.0.1", &self.nodes[node].port.to_string()]);
            }
        }
        for node in 0..self.nodes.len() {
            wait_until("all nodes have met", || self.cli(node, &["CLUSTER", "INFO"]).contains(&known));
        }
        for replica in MASTERS..self.nodes.len() {
            assert_eq!(self.cli(replica, &["CLUSTER", "REPLICATE", &id(replica - MASTERS)]), "OK");
        }
        self.wait_until_whole();
    }

    pub(crate) fn url(&self, node: usize) -> String {
        format!("redis://127.0.0.1:{}", self.nodes[node].port)
    }

    /// Waits until every node runs, sees every slot served, and replicas have what their masters have.
    pub(crate) fn wait_until_whole(&self) {
        for node in 0..self.nodes.len() {
            wait_until("the cluster serves all slots", || {
                let replication = self.cli(node, &["INFO", "replication"]);
                self.cli(node, &["CLUSTER", "INFO"]).contains("cluster_state:ok")
                    && (replication.contains("role:master") || replication.contains("master_link_status:up"))
            });
        }
    }

    /// Nodes that are masters, as one sees it that runs. A node that is lost is none.
    pub(crate) fn masters_seen_by(&self, node: usize) -> Vec<usize> {
        let seen = self.cli(node, &["CLUSTER", "NODES"]);
        let is_master = |node: &Node| {
            let address = format!(" 127.0.0.1:{}@", node.port);
            let line = seen.lines().find(|line| line.contains(&address)).unwrap_or_default();
            let flags = line.split(' ').nth(2).unwrap_or_default();
            flags.contains("master") && !flags.contains("fail")
        };
        (0..self.nodes.len()).filter(|node| is_master(&self.nodes[*node])).collect()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self, node: usize) {
        let mut process = self.nodes[node].process.take().unwrap();
        process.signal("KILL");
        process.wait();
    }

    /// Sends a signal by its name: `STOP` makes a node that the others give up.
    pub(crate) fn signal(&self, node: usize, name: &str) {
        self.nodes[node].process.as_ref().unwrap().signal(name);
    }

    /// Starts it again, empty; returns when it takes connections.
    pub(crate) fn restart(&mut self, node: usize) {
        let Node { process, port, folder } = &mut self.nodes[node];
        wait_until("the node's ports are free again", || {
            *process = launch(folder.path(), *port).ok();
            process.is_some()
        });
    }

    /// What `redis-cli` prints.
    #[track_caller]
    pub(crate) fn cli(&self, node: usize, arguments: &[&str]) -> String {
        let mut command = Command::new(program("redis-cli", "redis-tools"));
        command.args(["-h", "127.0.0.1", "-p", &self.nodes[node].port.to_string()]);
        output(command.args(arguments)).trim_end().to_owned()
    }

    /// How many entries the streams on a node have that are not acknowledged.
    pub(crate) fn entries(&self, node: usize, queue: &str) -> u64 {
        let keys = self.cli(node, &["KEYS", &format!("{queue}*")]);
        let length = |key: &str| self.cli(node, &["XLEN", key]).parse::<u64>().unwrap();
        keys.lines().filter(|key| !key.is_empty()).map(length).sum()
    }
}

fn launch(folder: &Path, port: u16) -> Result<Process, String> {
    // what a replica was sent
    let _absent = std::fs::remove_file(folder.join("dump.rdb"));
    let mut arguments = vec![program("redis-server", "redis-server").display().to_string()];
    for (name, value) in [
        ("bind", "127.0.0.1"),
        ("port", &port.to_string()),
        ("dir", folder.to_str().unwrap()),
        ("save", ""),
        ("appendonly", "no"),
        ("maxmemory-policy", "noeviction"),
        ("cluster-enabled", "yes"),
        ("cluster-announce-ip", "127.0.0.1"),
        ("cluster-node-timeout", NODE_TIMEOUT_MS),
        // a replica takes over however long it has not heard of its master
        ("cluster-replica-validity-factor", "0"),
        ("repl-diskless-sync-delay", "0"),
    ] {
        arguments.extend([format!("--{name}"), value.to_owned()]);
    }
    Process::start(folder, "KILL", &arguments, READY)
}
