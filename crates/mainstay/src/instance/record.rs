//! `instance.json`: the mark by which a directory is known to be an instance's, with what does not
//! follow from its directories. It is in the root directory, for good, and in the run directory,
//! so that what runs is found even when somebody has removed the root directory.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use mainstay_linux::durable::replace;
use serde::{Deserialize, Serialize};

/// The file's name.
pub(super) const RECORD: &str = "instance.json";
/// What it is called until it is whole.
const STAGED: &str = "instance.new";
/// The version of the file.
const VERSION: u32 = 1;

/// What the file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Record {
    version: u32,
    /// How the node was run last; none if there are only images.
    pub(super) node: Option<NodeRecord>,
}

/// How a node was run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeRecord {
    /// The instance's root directory.
    pub(crate) root_dir: PathBuf,
    /// The instance's run directory.
    pub(crate) run_dir: PathBuf,
    /// The node's name, which its pods' names end in.
    pub(crate) node_name: String,
    /// The control group of all that runs.
    pub(crate) cgroup_root: String,
    /// Where container logs go.
    pub(crate) log_directory: PathBuf,
    /// The socket of the container runtime that has its pods; none for the embedded one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) runtime_socket: Option<PathBuf>,
}

impl Record {
    /// The record of a directory; none if it has none.
    pub(super) fn read(directory: &Path) -> anyhow::Result<Option<Self>> {
        let path = directory.join(RECORD);
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let record: Self = serde_json::from_slice(&bytes).with_context(|| {
            let path = path.display();
            format!("{path} is damaged; remove it, and `mainstay run` writes it anew")
        })?;
        ensure!(
            record.version <= VERSION,
            "{} is of version {}, and this mainstay knows {VERSION}; use a newer one",
            path.display(),
            record.version
        );
        Ok(Some(record))
    }

    /// Marks a directory that has no record yet.
    pub(super) fn mark(directory: &Path) -> anyhow::Result<()> {
        let writing = Writing::begin(directory)?;
        match Self::read(directory)? {
            Some(_) => Ok(()),
            None => writing.put(&Self { version: VERSION, node: None }),
        }
    }

    /// Replaces the record of a directory, if it says something else: a full disk keeps no node
    /// from being run again.
    pub(super) fn write(directory: &Path, node: &NodeRecord) -> anyhow::Result<()> {
        let writing = Writing::begin(directory)?;
        let record = Self { version: VERSION, node: Some(node.clone()) };
        if Self::read(directory)?.as_ref() == Some(&record) { Ok(()) } else { writing.put(&record) }
    }
}

/// The turn to write the record of a directory: images may be imported while a node starts.
struct Writing<'a> {
    directory: &'a Path,
    _turn: File,
}

impl<'a> Writing<'a> {
    fn begin(directory: &'a Path) -> anyhow::Result<Self> {
        let open = || File::open(directory).and_then(|handle| handle.lock().map(|()| handle));
        let turn = open().with_context(|| format!("cannot lock {}", directory.display()))?;
        Ok(Self { directory, _turn: turn })
    }

    /// Writes it, so that after a power cut the old one or the new one is there.
    fn put(&self, record: &Record) -> anyhow::Result<()> {
        let (staged, path) = (self.directory.join(STAGED), self.directory.join(RECORD));
        replace(&path, &staged, &serde_json::to_vec(record)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }
}
