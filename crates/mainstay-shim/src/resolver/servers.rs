//! The servers that the machine itself asks, as its file says now.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use mainstay_shim::dns;

/// The longest file that is read, in bytes.
const LONGEST: u64 = 64 << 10;

/// The servers. The file is looked at whenever they are asked for, since it comes and changes with
/// networks, and read when it is another one or was changed.
#[derive(Debug, Default)]
pub(super) struct Servers {
    file: PathBuf,
    /// Addresses at which this process itself would be asked.
    own: Vec<IpAddr>,
    read: Option<(Version, Vec<SocketAddr>)>,
}

/// By which one version of a file is told from another.
type Version = (u64, u64, i64, i64, u64);

impl Servers {
    /// Says where they are named.
    pub(super) fn are_named_in(&mut self, file: PathBuf, own: Vec<IpAddr>) {
        *self = Self { file, own, read: None };
    }

    /// The servers, in the order in which they are asked; none if the file is not there.
    pub(super) fn now(&mut self) -> Vec<SocketAddr> {
        let Ok(found) = fs::metadata(&self.file) else { return Vec::new() };
        let version = (found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.len());
        if let Some((known, servers)) = &self.read
            && *known == version
        {
            return servers.clone();
        }
        if !found.is_file() || found.len() > LONGEST {
            return Vec::new();
        }
        // Perhaps there are no descriptors left just now: it is tried again for the next question.
        let Ok(text) = fs::read(&self.file) else { return Vec::new() };
        let servers = dns::servers(&String::from_utf8_lossy(&text), &self.own, number_of_link);
        self.read = Some((version, servers.clone()));
        servers
    }
}

fn number_of_link(name: &str) -> Option<u32> {
    // Also of a file's text, so it may be anything.
    let name = Some(name).filter(|name| !name.contains('/') && !name.starts_with('.'))?;
    let text = fs::read_to_string(format!("/sys/class/net/{name}/ifindex")).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_when_it_is_another_one() {
        let directory = tempfile::tempdir().unwrap();
        let (file, staged) = (directory.path().join("a"), directory.path().join("b"));
        let mut servers = Servers::default();
        servers.are_named_in(file.clone(), vec!["10.1.0.1".parse().unwrap()]);
        assert_eq!(servers.now(), []);
        for server in ["192.0.2.1", "192.0.2.2"] {
            fs::write(&staged, format!("nameserver 10.1.0.1\nnameserver {server}\n")).unwrap();
            fs::rename(&staged, &file).unwrap();
            for _ in 0..2 {
                assert_eq!(servers.now(), [format!("{server}:53").parse().unwrap()]);
            }
        }
        fs::remove_file(&file).unwrap();
        assert_eq!(servers.now(), []);
    }
}
