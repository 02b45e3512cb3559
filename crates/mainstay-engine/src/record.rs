//! What the engine writes down about sandboxes and containers, in the run directory.
//!
//! It has to outlive the agent, not the machine: after a boot nothing of it is true any more. So
//! it is renamed into place and not synced. The types here are the files' own; the rest of the
//! engine has the CRI's.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use mainstay_cri::{
    ContainerId, ContainerMetadata, IdMapping, ImageSpec, NamespaceMode, NamespaceOptions,
    PodSandboxConfig, PodSandboxMetadata, PortMapping, Protocol, SandboxId,
};
use mainstay_linux::process::{self, Pidfd};
use mainstay_shim_protocol::{ExitStatus, Process};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of these files. A file of a later one is not understood, and its sandbox is left
/// alone.
const VERSION: u32 = 1;

const SANDBOX: &str = "sandbox.json";
const CONTAINER: &str = "container.json";
const EXIT: &str = "exit.json";

/// A record, or the directory of records, that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {}", path.display())]
pub(crate) struct RecordError {
    verb: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Who made something, and so looks after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Maker {
    /// The agent.
    Agent,
    /// Another program, by the CRI.
    Client,
}

/// A sandbox as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SandboxRecord {
    pub(crate) id: SandboxId,
    pub(crate) maker: Maker,
    pub(crate) created_at: Timestamp,
    pub(crate) metadata: PodSandboxMetadata,
    pub(crate) hostname: String,
    pub(crate) log_directory: String,
    pub(crate) labels: Pairs,
    pub(crate) annotations: Pairs,
    pub(crate) cgroup_parent: String,
    pub(crate) namespaces: NamespaceOptions,
    pub(crate) port_mappings: Vec<PortMapping>,
    /// Known once the network is set up.
    pub(crate) ips: Vec<IpAddr>,
    /// Whether containers may run in it: it was made to its end, and neither stopped nor given up.
    pub(crate) ready: bool,
    /// The shim's process, once the sandbox has been made.
    pub(crate) shim: Option<ShimProcess>,
}

/// A process, told from all others that had or will have its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ShimProcess {
    pub(crate) pid: i32,
    /// When it was started, in clock ticks after the boot.
    pub(crate) started: u64,
}

/// A container as it was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContainerRecord {
    pub(crate) id: ContainerId,
    pub(crate) maker: Maker,
    pub(crate) created_at: Timestamp,
    pub(crate) metadata: ContainerMetadata,
    pub(crate) image: ImageSpec,
    pub(crate) image_ref: String,
    pub(crate) labels: Pairs,
    pub(crate) annotations: Pairs,
    pub(crate) log_path: String,
    /// Its cgroup, from the root of each hierarchy.
    pub(crate) cgroup: String,
    /// The number of the signal that asks it to stop.
    pub(crate) stop_signal: i32,
    /// Its first process, and the pattern for further ones.
    pub(crate) process: Process,
}

/// Labels or annotations, by name: a map would keep room for eleven of them, and most have a few.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pairs(Box<[(Box<str>, Box<str>)]>);

impl Pairs {
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, value)| &**value)
    }

    /// Whether all of these are among them.
    pub(crate) fn carry(&self, wanted: &BTreeMap<String, String>) -> bool {
        wanted.iter().all(|(name, value)| self.get(name) == Some(value))
    }

    pub(crate) fn to_map(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(name, value)| ((**name).to_owned(), (**value).to_owned())).collect()
    }
}

impl From<&BTreeMap<String, String>> for Pairs {
    fn from(map: &BTreeMap<String, String>) -> Self {
        Self(
            map.iter().map(|(name, value)| (name.as_str().into(), value.as_str().into())).collect(),
        )
    }
}

impl Maker {
    /// Whether it is shown what somebody made: the agent has to do with nothing but its own.
    pub(crate) fn sees(self, other: Self) -> bool {
        self == Self::Client || other == Self::Agent
    }
}

impl ShimProcess {
    /// The process that has this number now.
    pub(crate) fn of(pid: i32) -> io::Result<Self> {
        Ok(Self { pid, started: process::origin(pid)?.started })
    }

    /// Opens it, if it has not ended.
    pub(crate) fn open(self) -> Option<Pidfd> {
        let process = Pidfd::open(self.pid).ok()?;
        // After it was opened, so that it cannot be another one.
        Self::of(self.pid).is_ok_and(|it| it == self).then_some(process)
    }
}

impl RecordError {
    /// Gives an I/O error what was to be done with which file.
    pub(crate) fn at(verb: &'static str, path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| Self { verb, path: path.to_owned(), source }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.source.kind() == io::ErrorKind::NotFound
    }
}

impl SandboxRecord {
    pub(crate) fn new(
        id: SandboxId,
        maker: Maker,
        config: &PodSandboxConfig,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            maker,
            created_at: now,
            metadata: config.metadata.clone(),
            hostname: config.hostname.clone(),
            log_directory: config.log_directory.clone(),
            labels: Pairs::from(&config.labels),
            annotations: Pairs::from(&config.annotations),
            cgroup_parent: config.cgroup_parent.clone(),
            namespaces: config.security_context.namespaces,
            port_mappings: config.port_mappings.clone(),
            ips: Vec::new(),
            ready: false,
            shim: None,
        }
    }

    pub(crate) fn write(&self, directory: &Path) -> Result<(), RecordError> {
        write(&directory.join(SANDBOX), &SandboxFile::from(self))
    }

    pub(crate) fn read(directory: &Path) -> Result<Self, RecordError> {
        read::<SandboxFile>(&directory.join(SANDBOX), |file| file.version).map(Self::from)
    }
}

impl ContainerRecord {
    pub(crate) fn write(&self, bundle: &Path) -> Result<(), RecordError> {
        write(&bundle.join(CONTAINER), &ContainerFile::from(self))
    }

    pub(crate) fn read(bundle: &Path) -> Result<Self, RecordError> {
        read::<ContainerFile>(&bundle.join(CONTAINER), |file| file.version).map(Self::from)
    }
}

/// How a container ended, if its shim wrote it down.
pub(crate) fn read_exit(bundle: &Path) -> Option<ExitStatus> {
    // Not there, or damaged by a full file system: the shim's own word is the first source, and
    // this one only counts when that is gone too.
    serde_json::from_slice(&fs::read(bundle.join(EXIT)).ok()?).ok()
}

fn write<T: Serialize>(path: &Path, file: &T) -> Result<(), RecordError> {
    let failed = RecordError::at("write", path);
    let new = path.with_extension("json.new");
    let bytes = serde_json::to_vec(file).map_err(|error| failed(error.into()))?;
    // A container's environment is in it.
    let create = || File::options().write(true).create(true).truncate(true).mode(0o600).open(&new);
    create()
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| fs::rename(&new, path))
        .map_err(failed)
}

fn read<T: DeserializeOwned>(path: &Path, version: fn(&T) -> u32) -> Result<T, RecordError> {
    let failed = RecordError::at("read", path);
    let bytes = fs::read(path).map_err(&failed)?;
    let file: T = serde_json::from_slice(&bytes).map_err(|error| failed(error.into()))?;
    if version(&file) > VERSION {
        let message =
            format!("it is of version {}, and this mainstay knows {VERSION}", version(&file));
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, message)));
    }
    Ok(file)
}

#[derive(Serialize, Deserialize)]
struct SandboxFile {
    version: u32,
    id: String,
    /// Whether it was made by a client of the CRI. An earlier mainstay takes no notice of pods without its
    /// own labels.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    of_client: bool,
    created_at: Timestamp,
    name: String,
    namespace: String,
    uid: String,
    attempt: u32,
    hostname: String,
    log_directory: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    cgroup_parent: String,
    network_namespace: Sharing,
    pid_namespace: Sharing,
    ipc_namespace: Sharing,
    /// The first one on the machine, and how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    users: Option<(u32, u32)>,
    ports: Vec<Port>,
    ips: Vec<IpAddr>,
    ready: bool,
    shim: Option<ShimProcess>,
}

#[derive(Serialize, Deserialize)]
struct ContainerFile {
    version: u32,
    id: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    of_client: bool,
    created_at: Timestamp,
    name: String,
    attempt: u32,
    image: String,
    image_ref: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    log_path: String,
    cgroup: String,
    stop_signal: i32,
    process: Process,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sharing {
    Pod,
    Container,
    Node,
}

#[derive(Serialize, Deserialize)]
struct Port {
    protocol: String,
    container: u16,
    host: u16,
    ip: Option<IpAddr>,
}

fn maker(of_client: bool) -> Maker {
    if of_client { Maker::Client } else { Maker::Agent }
}

// === impl SandboxFile ===

impl From<&SandboxRecord> for SandboxFile {
    fn from(record: &SandboxRecord) -> Self {
        Self {
            version: VERSION,
            id: record.id.0.clone(),
            of_client: record.maker == Maker::Client,
            created_at: record.created_at,
            name: record.metadata.name.clone(),
            namespace: record.metadata.namespace.clone(),
            uid: record.metadata.uid.clone(),
            attempt: record.metadata.attempt,
            hostname: record.hostname.clone(),
            log_directory: record.log_directory.clone(),
            labels: record.labels.to_map(),
            annotations: record.annotations.to_map(),
            cgroup_parent: record.cgroup_parent.clone(),
            network_namespace: record.namespaces.network.into(),
            pid_namespace: record.namespaces.pid.into(),
            ipc_namespace: record.namespaces.ipc.into(),
            users: record.namespaces.users.map(|it| (it.host_id, it.length)),
            ports: record.port_mappings.iter().map(Port::from).collect(),
            ips: record.ips.clone(),
            ready: record.ready,
            shim: record.shim,
        }
    }
}

impl From<SandboxFile> for SandboxRecord {
    fn from(file: SandboxFile) -> Self {
        Self {
            id: SandboxId(file.id),
            maker: maker(file.of_client),
            created_at: file.created_at,
            metadata: PodSandboxMetadata {
                name: file.name,
                uid: file.uid,
                namespace: file.namespace,
                attempt: file.attempt,
            },
            hostname: file.hostname,
            log_directory: file.log_directory,
            labels: Pairs::from(&file.labels),
            annotations: Pairs::from(&file.annotations),
            cgroup_parent: file.cgroup_parent,
            namespaces: NamespaceOptions {
                network: file.network_namespace.into(),
                pid: file.pid_namespace.into(),
                ipc: file.ipc_namespace.into(),
                users: file.users.map(|(host_id, length)| IdMapping { host_id, length }),
            },
            port_mappings: file.ports.into_iter().map(PortMapping::from).collect(),
            ips: file.ips,
            ready: file.ready,
            shim: file.shim,
        }
    }
}

// === impl ContainerFile ===

impl From<&ContainerRecord> for ContainerFile {
    fn from(record: &ContainerRecord) -> Self {
        Self {
            version: VERSION,
            id: record.id.0.clone(),
            of_client: record.maker == Maker::Client,
            created_at: record.created_at,
            name: record.metadata.name.clone(),
            attempt: record.metadata.attempt,
            image: record.image.0.clone(),
            image_ref: record.image_ref.clone(),
            labels: record.labels.to_map(),
            annotations: record.annotations.to_map(),
            log_path: record.log_path.clone(),
            cgroup: record.cgroup.clone(),
            stop_signal: record.stop_signal,
            process: record.process.clone(),
        }
    }
}

impl From<ContainerFile> for ContainerRecord {
    fn from(file: ContainerFile) -> Self {
        Self {
            id: ContainerId(file.id),
            maker: maker(file.of_client),
            created_at: file.created_at,
            metadata: ContainerMetadata { name: file.name, attempt: file.attempt },
            image: ImageSpec(file.image),
            image_ref: file.image_ref,
            labels: Pairs::from(&file.labels),
            annotations: Pairs::from(&file.annotations),
            log_path: file.log_path,
            cgroup: file.cgroup,
            stop_signal: file.stop_signal,
            process: file.process,
        }
    }
}

// === impl Sharing ===

impl From<NamespaceMode> for Sharing {
    fn from(mode: NamespaceMode) -> Self {
        match mode {
            NamespaceMode::Pod => Self::Pod,
            NamespaceMode::Container => Self::Container,
            NamespaceMode::Node => Self::Node,
        }
    }
}

impl From<Sharing> for NamespaceMode {
    fn from(sharing: Sharing) -> Self {
        match sharing {
            Sharing::Pod => Self::Pod,
            Sharing::Container => Self::Container,
            Sharing::Node => Self::Node,
        }
    }
}

// === impl Port ===

impl From<&PortMapping> for Port {
    fn from(mapping: &PortMapping) -> Self {
        Self {
            protocol: mapping.protocol.to_string(),
            container: mapping.container_port,
            host: mapping.host_port,
            ip: mapping.host_ip,
        }
    }
}

impl From<Port> for PortMapping {
    fn from(port: Port) -> Self {
        let protocol = match port.protocol.as_str() {
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            _ => Protocol::Tcp,
        };
        Self { protocol, container_port: port.container, host_port: port.host, host_ip: port.ip }
    }
}
