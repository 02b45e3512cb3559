//! Files of volumes that variables are taken from.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use mainstay_linux::path::{open_directory, open_in_root};
use mainstay_plan::translate::{EnvFile, NodeFacts};
use mainstay_pod::Pod;
use rustix::fs::{FileType, OFlags, fstat};

/// The largest file that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// What is in a file, which containers may have written: links in its volume lead to nothing else, and
/// nobody waits for it. Source: `securejoin.SecureJoin`, as `pkg/kubelet/kubelet_pods.go` uses it.
pub(crate) fn read(pod: &Pod, file: &EnvFile, facts: &NodeFacts) -> Result<Vec<u8>, String> {
    let volume = pod.volume(&file.volume);
    let Some(directory) = volume.and_then(|it| facts.volume_path(pod.uid(), it)) else {
        return Err(format!("cannot find the volume {:?} referenced by FileKeyRef", file.volume));
    };
    read_in(&directory, Path::new(&file.path)).map_err(|error| error.to_string())
}

fn read_in(directory: &Path, path: &Path) -> io::Result<Vec<u8>> {
    let root = open_directory(directory)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open_in_root(&root, &Path::new("/").join(path), flags)?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::other("it is not a file"));
    }
    let mut content = Vec::new();
    File::from(file).take(LIMIT + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LIMIT {
        return Err(io::Error::other(format!("it has more than {LIMIT} bytes")));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{CWD, Mode, mknodat};

    use super::*;

    #[test]
    fn files_are_read_and_nothing_else_is() {
        let directory = tempfile::tempdir().unwrap();
        let volume = directory.path().join("volume");
        fs::create_dir_all(volume.join("d")).unwrap();
        fs::write(directory.path().join("secret"), "secret").unwrap();
        fs::write(volume.join("d/f"), "text").unwrap();
        symlink("/d/f", volume.join("link")).unwrap();
        symlink("../secret", volume.join("out")).unwrap();
        mknodat(CWD, volume.join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        fs::File::create(volume.join("large")).unwrap().set_len(LIMIT + 1).unwrap();
        let check = |path: &str, wanted: Result<&str, &str>| {
            let found = read_in(&volume, Path::new(path));
            let found = found.map_err(|error| error.to_string());
            let wanted = wanted.map(|it| it.as_bytes().to_vec()).map_err(str::to_owned);
            assert_eq!(found, wanted, "{path}");
        };
        check("d/f", Ok("text"));
        check("link", Ok("text"));
        for path in ["out", "../secret", "none"] {
            check(path, Err("No such file or directory (os error 2)"));
        }
        check("d", Err("it is not a file"));
        check("fifo", Err("it is not a file"));
        check("large", Err("it has more than 1048576 bytes"));
    }
}
