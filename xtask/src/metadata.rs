//! What cargo knows about the workspace: the part of `cargo metadata` that is used here.
//!
//! Source: cargo, `src/doc/man/cargo-metadata.md`.

use std::path::PathBuf;

use anyhow::Context;
use serde::Deserialize;

use crate::process;

/// The answer of `cargo metadata`.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    /// Every package of the tree.
    pub(crate) packages: Vec<Package>,
    /// The ids of ours.
    pub(crate) workspace_members: Vec<String>,
    /// What depends on what.
    pub(crate) resolve: Resolve,
    /// Where cargo builds.
    pub(crate) target_directory: PathBuf,
}

/// One package.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    /// Its id.
    pub(crate) id: String,
    /// Its name.
    pub(crate) name: String,
    /// Where its manifest lies.
    pub(crate) manifest_path: PathBuf,
    /// `[package.metadata]`.
    pub(crate) metadata: serde_json::Value,
    /// What the manifest asks for.
    pub(crate) dependencies: Vec<Dependency>,
}

/// A dependency as the manifest has it.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    /// The package.
    pub(crate) name: String,
    /// `dev` or `build`; a normal one has none.
    pub(crate) kind: Option<String>,
}

/// The graph, with the features that are on.
#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    /// One for each package.
    pub(crate) nodes: Vec<Node>,
}

/// A package in the graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    /// Its id.
    pub(crate) id: String,
    /// What it depends on.
    pub(crate) deps: Vec<NodeDependency>,
}

/// An edge of the graph.
#[derive(Debug, Deserialize)]
pub(crate) struct NodeDependency {
    /// The id of the package.
    pub(crate) pkg: String,
    /// In which ways.
    pub(crate) dep_kinds: Vec<DependencyKind>,
}

/// One way in which a package is used.
#[derive(Debug, Deserialize)]
pub(crate) struct DependencyKind {
    /// `dev` or `build`; a normal one has none.
    pub(crate) kind: Option<String>,
}

/// Asks cargo about the workspace, as it is built for this machine.
pub(crate) fn read() -> anyhow::Result<Metadata> {
    let version = process::output(process::command("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("rustc -vV does not name its host")?;
    let mut command = process::cargo();
    command.args(["metadata", "--format-version=1", "--locked", "--filter-platform", host]);
    let text = process::output(&mut command)?;
    serde_json::from_str(&text).context("the output of cargo metadata is not understood")
}
