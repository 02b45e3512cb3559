//! What can go wrong with a network of plugins.

use std::io;
use std::path::{Path, PathBuf};

use mainstay_cri::ErrorKind;

use super::answer::{Complaint, InvalidAnswer};
use super::capability::Incapable;
use super::config::{InvalidConfig, SpecVersion};
use super::request::Command;
use crate::record::RecordError;

/// A network of plugins that could not be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CniError {
    /// A configuration that cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A configuration that says nothing usable.
    #[error("{} is no network configuration: {problem}", .path.display())]
    Config { path: PathBuf, problem: InvalidConfig },
    /// A configuration without plugins.
    #[error(
        "{} has no plugins, and there are none in {}/*.conf", .path.display(), .directory.display()
    )]
    NoPlugins { path: PathBuf, directory: PathBuf },
    /// A program that is not there.
    #[error(
        "plugin {plugin} of network {network} is not in {directories}; install it, or name its \
         directory with --cni-bin-dir; --cni-conf-dir= has pods use the built-in network"
    )]
    Missing { plugin: String, network: String, directories: String },
    /// Plugins that speak no common version.
    #[error(
        "plugin {plugin} speaks none of the CNI versions of network {network} ({}): {wanted}; it \
         speaks {spoken}", .file.display()
    )]
    Version { plugin: String, network: String, file: PathBuf, wanted: String, spoken: String },
    /// A plugin that could not be called.
    #[error("plugin type={plugin:?} name={network:?} failed ({command}): {problem}")]
    Call { command: Command, plugin: String, network: String, problem: String },
    /// A plugin that failed, as libcni says it.
    #[error("plugin type={plugin:?} name={network:?} failed ({command}): {complaint}")]
    Plugin { command: Command, plugin: String, network: String, complaint: Complaint },
    /// A plugin that answered something else than it should.
    #[error("plugin type={plugin:?} name={network:?} failed ({command}): {problem}")]
    Answer { command: Command, plugin: String, network: String, problem: InvalidAnswer },
    /// Something that nobody in the network can do.
    #[error(transparent)]
    Incapable(#[from] Incapable),
    /// Something that plugins are not asked for.
    #[error(transparent)]
    Engine(#[from] mainstay_cri::Error),
    /// The record of a sandbox in a network.
    #[error(transparent)]
    Attachment(#[from] RecordError),
    /// The network namespace of a sandbox.
    #[error("cannot {step} {}", .path.display())]
    Namespace {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The loopback link of a sandbox.
    #[error("cannot switch on the loopback link of sandbox {sandbox}")]
    Loopback {
        sandbox: String,
        #[source]
        source: mainstay_linux::netlink::Error,
    },
    /// What an earlier agent left running.
    #[error("cannot end the plugins that an earlier agent called")]
    Leftovers(#[source] io::Error),
}

impl CniError {
    pub(super) fn missing(plugin: &str, network: &str, directories: &[PathBuf]) -> Self {
        let names: Vec<_> = directories.iter().map(|it| it.display().to_string()).collect();
        Self::Missing {
            plugin: plugin.to_owned(),
            network: network.to_owned(),
            directories: names.join(", "),
        }
    }

    pub(super) fn read(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Read { path, source }
    }

    pub(super) fn versions(
        (plugin, network, file): (&str, &str, &Path),
        wanted: &[SpecVersion],
        spoken: &[SpecVersion],
    ) -> Self {
        let list = |versions: &[SpecVersion]| -> String {
            let all: Vec<_> = versions.iter().map(ToString::to_string).collect();
            if all.is_empty() { "none".to_owned() } else { all.join(", ") }
        };
        Self::Version {
            plugin: plugin.to_owned(),
            network: network.to_owned(),
            file: file.to_owned(),
            wanted: list(wanted),
            spoken: list(spoken),
        }
    }

    /// What the caller may do about it.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Incapable(_) => ErrorKind::FailedPrecondition,
            Self::Engine(error) => error.kind,
            Self::Plugin { complaint, .. } if complaint.is_passing() => {
                ErrorKind::FailedPrecondition
            }
            Self::Read { .. }
            | Self::Config { .. }
            | Self::NoPlugins { .. }
            | Self::Missing { .. }
            | Self::Version { .. }
            | Self::Call { .. }
            | Self::Plugin { .. }
            | Self::Answer { .. }
            | Self::Attachment(_)
            | Self::Namespace { .. }
            | Self::Loopback { .. }
            | Self::Leftovers(_) => ErrorKind::Internal,
        }
    }
}
