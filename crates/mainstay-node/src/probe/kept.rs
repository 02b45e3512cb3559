//! What is known of containers with probes, kept in a file of their pod's directory for the next agent.
//!
//! It is not synced: containers do not outlive the machine either.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

use mainstay_cri::ContainerId;
use mainstay_plan::pod::Health;
use serde::{Deserialize, Serialize};

/// The file's name.
const FILE: &str = "probes.json";

/// The version that is written.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    containers: BTreeMap<String, KeptHealth>,
}

#[derive(Serialize, Deserialize)]
struct KeptHealth {
    started: bool,
    ready: bool,
}

/// Writes what is known of the containers of a pod into its directory.
///
/// # Errors
///
/// When it cannot be written. A pod whose directory is gone needs no file.
pub(super) fn write(directory: &Path, known: &BTreeMap<ContainerId, Health>) -> io::Result<()> {
    let kept = |(id, health): (&ContainerId, &Health)| {
        (id.0.clone(), KeptHealth { started: health.started, ready: health.ready })
    };
    let kept = Kept { version: VERSION, containers: known.iter().map(kept).collect() };
    let unfinished = directory.join(format!("{FILE}.new"));
    let written = fs::write(&unfinished, serde_json::to_vec(&kept)?)
        .and_then(|()| fs::rename(&unfinished, directory.join(FILE)));
    match written {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Reads it; nothing is known without it, or when it cannot be understood.
pub(crate) fn read(directory: &Path) -> BTreeMap<ContainerId, Health> {
    let path = directory.join(FILE);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                unreadable(&path, &error);
            }
            return BTreeMap::new();
        }
    };
    match serde_json::from_slice::<Kept>(&bytes) {
        Ok(kept) if kept.version <= VERSION => {
            let known = |(id, kept): (String, KeptHealth)| {
                let KeptHealth { started, ready } = kept;
                (ContainerId(id), Health { started, ready, alive: true })
            };
            kept.containers.into_iter().map(known).collect()
        }
        Ok(kept) => {
            unreadable(&path, &format!("it is of version {}", kept.version));
            BTreeMap::new()
        }
        Err(error) => {
            unreadable(&path, &error);
            BTreeMap::new()
        }
    }
}

fn unreadable(path: &Path, error: &dyn std::fmt::Display) {
    tracing::warn!(
        file = %path.display(),
        %error,
        "what probes found before cannot be read; containers are ready when they find it again"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        assert!(read(directory.path()).is_empty());
        let health = |ready, alive| Health { started: true, ready, alive };
        let id = |name: &str| ContainerId(name.to_owned());
        let known =
            BTreeMap::from([(id("a"), health(true, true)), (id("b"), health(false, false))]);
        write(directory.path(), &known).unwrap();
        // Whether it is to be ended is found out anew.
        let expected =
            BTreeMap::from([(id("a"), health(true, true)), (id("b"), health(false, true))]);
        assert_eq!(read(directory.path()), expected);
        for text in ["", "{}", "{\"version\":2,\"containers\":{}}", "\u{0}"] {
            fs::write(directory.path().join(FILE), text).unwrap();
            assert!(read(directory.path()).is_empty(), "{text}");
        }
        write(&directory.path().join("gone"), &known).unwrap();
    }
}
