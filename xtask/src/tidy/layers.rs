//! Which crate may depend on which: the table in ARCHITECTURE.md, the layers in the manifests and
//! the dependencies that there are have to agree.
//!
//! The table's columns are read so:
//! - `layer`: a number or `dev`, as in `[package.metadata.mainstay]`;
//! - `crate`: its name;
//! - `may depend on`: crates of ours, separated by commas, with or without `mainstay-`, of lower
//!   layers; `none`; or `all`. Remarks in parentheses are for the reader;
//! - `must not contain`: names in backticks are packages that must not be in the crate's tree of
//!   dependencies as far as it does not lead through other crates of ours, which have their own
//!   rows. The rest is for the reader.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use anyhow::Context;

use super::{ARCHITECTURE, File, Finding, markdown};
use crate::metadata::{DependencyKind, Metadata};

const COLUMNS: [&str; 5] = ["layer", "crate", "purpose", "may depend on", "must not contain"];
/// What every crate's tests may use.
const FOR_TESTS: &str = "mainstay-testkit";

/// How far up a crate is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Layer {
    /// Part of the product; depends on lower numbers.
    Product(u64),
    /// For developing it: above everything.
    Dev,
}

/// A crate of ours as it is.
#[derive(Clone, Debug)]
pub(super) struct Crate {
    name: String,
    manifest: String,
    layer: Option<Layer>,
    /// Crates of ours that it is built from.
    built_from: BTreeSet<String>,
    /// Crates of ours that its tests use besides.
    tested_with: BTreeSet<String>,
    /// Packages that are not ours and that it is built from, directly or through such.
    foreign: BTreeSet<String>,
}

/// A crate of ours as it should be.
struct Row<'a> {
    offset: usize,
    layer: Option<Layer>,
    may_depend: Allowed,
    must_not_contain: Vec<&'a str>,
}

enum Allowed {
    All,
    Only(BTreeSet<String>),
}

/// Our crates, as cargo sees them.
pub(super) fn crates(metadata: &Metadata) -> anyhow::Result<Vec<Crate>> {
    let ours = |id: &String| metadata.workspace_members.contains(id);
    let names: HashMap<&str, &str> =
        metadata.packages.iter().map(|it| (it.id.as_str(), it.name.as_str())).collect();
    let own_names: BTreeSet<&str> = metadata
        .workspace_members
        .iter()
        .filter_map(|id| names.get(id.as_str()).copied())
        .collect();
    let edges: HashMap<&str, Vec<&str>> = metadata
        .resolve
        .nodes
        .iter()
        .map(|node| {
            let built = |kinds: &[DependencyKind]| {
                kinds.iter().any(|kind| kind.kind.as_deref() != Some("dev"))
            };
            let deps = node.deps.iter().filter(|dep| built(&dep.dep_kinds) && !ours(&dep.pkg));
            (node.id.as_str(), deps.map(|dep| dep.pkg.as_str()).collect())
        })
        .collect();
    let top = std::env::current_dir().context("there is no current directory")?;
    let members = metadata.packages.iter().filter(|package| ours(&package.id));
    members
        .map(|package| {
            let of_kind = |dev: bool| {
                let kind = |kind: Option<&str>| (kind == Some("dev")) == dev;
                let all = package.dependencies.iter().filter(move |it| kind(it.kind.as_deref()));
                let names = all.map(|dependency| dependency.name.clone());
                names.filter(|name| own_names.contains(name.as_str())).collect()
            };
            let mut foreign = BTreeSet::new();
            let mut open = edges.get(package.id.as_str()).cloned().unwrap_or_default();
            while let Some(id) = open.pop() {
                if foreign.insert(names[id].to_owned()) {
                    open.extend(edges.get(id).into_iter().flatten());
                }
            }
            let layer = &package.metadata["mainstay"]["layer"];
            let manifest = package.manifest_path.strip_prefix(&top).with_context(|| {
                format!("{} lies outside the project", package.manifest_path.display())
            })?;
            Ok(Crate {
                name: package.name.clone(),
                manifest: manifest.display().to_string(),
                layer: layer
                    .as_u64()
                    .map(Layer::Product)
                    .or_else(|| (layer == "dev").then_some(Layer::Dev)),
                built_from: of_kind(false),
                tested_with: of_kind(true),
                foreign,
            })
        })
        .collect()
}

/// Compares the crates with the table.
pub(super) fn check(files: &[File], crates: &[Crate]) -> Vec<Finding> {
    let whole = |message: String| Finding { path: ARCHITECTURE.into(), line: None, message };
    let Some(file) = files.iter().find(|file| file.path == ARCHITECTURE) else {
        return vec![whole("is missing; its table says which crate may depend on which".into())];
    };
    let Some(rows) = markdown::table(&file.text, &COLUMNS) else {
        let columns = COLUMNS.join(" | ");
        return vec![whole(format!("has no table with the columns | {columns} |"))];
    };
    let rows: BTreeMap<String, Row<'_>> = rows
        .into_iter()
        .map(|(offset, cells)| (full_name(cells.get(1).unwrap_or(&"")), row(offset, &cells)))
        .collect();

    let mut findings = Vec::new();
    for (name, row) in &rows {
        if !crates.iter().any(|it| it.name == *name) {
            findings.push(file.at(row.offset, format!("there is no crate {name}")));
        }
    }
    let layers: HashMap<&str, Option<Layer>> =
        crates.iter().map(|it| (it.name.as_str(), it.layer)).collect();
    for it in crates {
        let Some(row) = rows.get(&it.name) else {
            findings.push(whole(format!("the table of crates lacks {}", it.name)));
            continue;
        };
        findings.extend(it.check(row, &layers));
    }
    findings
}

fn row<'a>(offset: usize, cells: &[&'a str]) -> Row<'a> {
    let cell = |column: usize| cells.get(column).copied().unwrap_or_default();
    let layer = match cell(0) {
        "dev" => Some(Layer::Dev),
        number => number.parse().ok().map(Layer::Product),
    };
    let may_depend = match cell(3) {
        "all" => Allowed::All,
        "none" => Allowed::Only(BTreeSet::new()),
        names => Allowed::Only(without_remarks(names).split(',').map(full_name).collect()),
    };
    let spans = markdown::code_spans(cell(4));
    let must_not_contain = spans.into_iter().map(|(_, name)| name).collect();
    Row { offset, layer, may_depend, must_not_contain }
}

/// `pod (selectors)` is `pod`.
fn without_remarks(text: &str) -> String {
    let mut depth = 0_usize;
    let keep = |c: &char| {
        match c {
            '(' => depth += 1,
            ')' => {
                depth = depth.saturating_sub(1);
                return false;
            }
            _ => {}
        }
        depth == 0
    };
    text.chars().filter(keep).collect()
}

/// `pod` is `mainstay-pod`; what is called differently is not shortened.
fn full_name(name: &str) -> String {
    let name = name.trim().trim_matches('`');
    if name == "xtask" || name.starts_with("mainstay") {
        name.to_owned()
    } else {
        format!("mainstay-{name}")
    }
}

// === impl Crate ===

impl Crate {
    fn check(&self, row: &Row<'_>, layers: &HashMap<&str, Option<Layer>>) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut find = |message: String| {
            findings.push(Finding { path: self.manifest.clone(), line: None, message });
        };
        let Some(layer) = self.layer else {
            find("says no layer: [package.metadata.mainstay] layer = N, or \"dev\"".into());
            return findings;
        };
        if row.layer != Some(layer) {
            let wanted = row.layer.map_or("none".into(), |layer| layer.to_string());
            find(format!("says layer {layer}, {ARCHITECTURE} says {wanted}"));
        }
        let listed = |name: &str| match &row.may_depend {
            Allowed::All => true,
            Allowed::Only(names) => names.contains(name),
        };
        for name in &self.built_from {
            let other = layers.get(name.as_str()).copied().flatten();
            if !listed(name) {
                find(format!("depends on {name}, which {ARCHITECTURE} does not allow"));
            } else if let Some(other) = other
                && other >= layer
                && layer != Layer::Dev
            {
                find(format!(
                    "of layer {layer} depends on {name} of layer {other}, not a lower one"
                ));
            }
        }
        for name in self.tested_with.iter().filter(|name| *name != FOR_TESTS && !listed(name)) {
            find(format!("has tests that depend on {name}, which {ARCHITECTURE} does not allow"));
        }
        for name in row.must_not_contain.iter().filter(|name| self.foreign.contains(**name)) {
            find(format!("must not contain {name}; `cargo tree -p {} -i {name}`", self.name));
        }
        findings
    }
}

// === impl Layer ===

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Product(number) => number.fmt(f),
            Self::Dev => f.write_str("dev"),
        }
    }
}

#[cfg(test)]
mod tests;
