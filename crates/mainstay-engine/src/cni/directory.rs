//! The network that a directory of configurations says: the first file of it.
//!
//! It is read whenever it is needed, which costs less than any plugin, so that a change is seen at
//! once and nothing has to watch it. Source: `loadFromConfDir` in `opts.go` of containerd's go-cni.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::config::{Form, NetworkConfigList, PluginConfig, candidates};
use super::error::CniError;

/// The largest file that is read, in bytes.
const FILE_MAX: u64 = 1 << 20;

/// What a directory says.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The network, and its file; `None` if there is no configuration.
    pub(super) network: Option<(PathBuf, NetworkConfigList)>,
    /// Files that are passed over, and whose they are.
    pub(super) passed_over: Vec<(PathBuf, &'static str)>,
}

/// Looks for the network. A directory that is not there has none.
///
/// # Errors
///
/// When the first file that is one's own cannot be used: another one would be another network.
pub(super) fn look(directory: &Path) -> Result<Found, CniError> {
    let mut found = Found::default();
    for (name, form) in candidates(names(directory)?) {
        let path = directory.join(name);
        let parsed = NetworkConfigList::parse(&read(&path)?, form);
        let mut list =
            parsed.map_err(|problem| CniError::Config { path: path.clone(), problem })?;
        if let Some(owner) = list.owner {
            found.passed_over.push((path, owner));
            continue;
        }
        if list.load_more {
            add_plugins(&mut list, directory)?;
        }
        if list.plugins.is_empty() {
            let directory = directory.join(&list.name);
            return Err(CniError::NoPlugins { path, directory });
        }
        found.network = Some((path, list));
        break;
    }
    Ok(found)
}

/// Adds the plugins that lie in the directory of the network's name. Source:
/// `NetworkPluginConfsFromFiles` in `libcni/conf.go`.
fn add_plugins(list: &mut NetworkConfigList, directory: &Path) -> Result<(), CniError> {
    let directory = directory.join(&list.name);
    for (name, form) in candidates(names(&directory)?) {
        if form != Form::Single || !name.ends_with(".conf") {
            continue;
        }
        let path = directory.join(name);
        let value = serde_json::from_slice(&read(&path)?)
            .map_err(|error| CniError::Read { path: path.clone(), source: error.into() })?;
        let plugin =
            PluginConfig::parse(value).map_err(|problem| CniError::Config { path, problem })?;
        list.plugins.push(plugin);
    }
    Ok(())
}

/// The files of a directory.
fn names(directory: &Path) -> Result<Vec<String>, CniError> {
    let entries = match fs::read_dir(directory) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(Vec::new());
        }
        other => other.map_err(CniError::read(directory))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(CniError::read(directory))?;
        let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
        names.extend(entry.file_name().into_string().ok().filter(|_| !is_directory));
    }
    Ok(names)
}

fn read(path: &Path) -> Result<Vec<u8>, CniError> {
    let read = || {
        let file = File::open(path)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no file"));
        }
        let mut bytes = Vec::new();
        file.take(FILE_MAX + 1).read_to_end(&mut bytes)?;
        match u64::try_from(bytes.len()).is_ok_and(|length| length <= FILE_MAX) {
            true => Ok(bytes),
            false => Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB")),
        }
    };
    read().map_err(CniError::read(path))
}

#[cfg(test)]
mod tests;
