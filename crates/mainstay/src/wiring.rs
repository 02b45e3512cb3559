//! Putting the agent and its runtime together. The only place that knows both.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use mainstay_cri::DnsConfig;
use mainstay_engine::{Engine, EngineImages};
use mainstay_node::{Agent, AgentConfig, LogBounds};
use mainstay_plan::status::NodeAddresses;
use mainstay_plan::translate::NodeFacts;
use mainstay_pod::{NodeName, Validation};

use crate::instance::{Instance, shim};

/// What a node is started with, resolved.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub instance: Instance,
    pub node_name: NodeName,
    pub manifest_paths: Vec<std::path::PathBuf>,
    pub validation: Validation,
    pub manifest_interval: Duration,
    pub log_directory: std::path::PathBuf,
    pub log_bounds: LogBounds,
    pub addresses: NodeAddresses,
}

/// Opens the embedded runtime and an agent on it.
pub async fn node(config: NodeConfig) -> anyhow::Result<Agent> {
    let engine =
        Engine::own(config.instance.engine(shim()?)).await.context("cannot open the engine")?;
    let images = EngineImages::new(engine.store().clone());
    let facts = NodeFacts {
        name: config.node_name.as_str().to_owned(),
        pods_directory: config.instance.root_dir.join("pods"),
        log_directory: config.log_directory,
        cgroup_root: config.instance.cgroup_root(),
        dns: host_dns(),
        machine_memory: machine_memory(),
        seccomp_directory: config.instance.root_dir.join("seccomp"),
    };
    let agent = AgentConfig {
        node_name: config.node_name,
        manifest_paths: config.manifest_paths,
        validation: config.validation,
        manifest_interval: config.manifest_interval,
        ledger_directory: config.instance.root_dir.join("ledger"),
        control_socket: config.instance.control_socket(),
        facts,
        addresses: config.addresses,
        log_bounds: config.log_bounds,
    };
    Agent::open(agent, Arc::new(engine), Arc::new(images)).await.context("cannot open the agent")
}

/// The host's own resolver settings, which pods get too. Source: resolv.conf(5).
fn host_dns() -> DnsConfig {
    // A host without the file resolves no names, and neither do its pods.
    let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let list = |words: std::str::SplitWhitespace<'_>| words.map(str::to_owned).collect();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            Some("search") => dns.searches = list(words),
            Some("options") => dns.options = list(words),
            _ => {}
        }
    }
    dns
}

/// Bytes of memory of this machine. Source: proc_meminfo(5).
fn machine_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}
