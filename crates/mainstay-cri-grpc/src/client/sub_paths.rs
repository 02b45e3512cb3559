//! Parts of volumes for servers, which mount nothing but whole paths.
//!
//! Whoever writes to a volume chooses what names in it lead to. So a part is opened once, beneath the volume,
//! and bound to a path of its own, where nobody else can change what is there when a server comes to mount it,
//! also for the second time. Source: `pkg/volume/util/subpath/subpath_linux.go`.
//!
//! A sandbox's parts are below a directory with its id, and go when it does.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use mainstay_cri::{ContainerConfig, Error, ErrorKind, Mount, Result, SandboxId};
use mainstay_linux::mount;
use mainstay_linux::path::{of_descriptor, open_beneath, open_directory, remove_all};
use rustix::fs::{CWD, FileType, OFlags, fstat};

use crate::files::{blocking, failed};

/// The parts of an instance's pods.
#[derive(Debug)]
pub(super) struct SubPaths {
    directory: PathBuf,
}

impl SubPaths {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The mounts of a container, with each part replaced by the path that it was bound to.
    pub(super) async fn mount(
        &self,
        sandbox: &SandboxId,
        config: &ContainerConfig,
    ) -> Result<Vec<Mount>> {
        let mut mounts = config.mounts.clone();
        if mounts.iter().all(|mount| !is_part(mount)) {
            return Ok(mounts);
        }
        let metadata = &config.metadata;
        let directory = self.of(sandbox)?.join(format!("{}-{}", metadata.name, metadata.attempt));
        blocking(move || {
            // Of an attempt that came to nothing.
            clear(&directory)?;
            fs::create_dir_all(&directory).map_err(failed(&directory, "make"))?;
            for (number, mount) in mounts.iter_mut().enumerate().filter(|(_, it)| is_part(it)) {
                let place = directory.join(number.to_string());
                bind(Path::new(&mount.host_path), Path::new(&mount.sub_path), &place).map_err(
                    |error| {
                        let message = format!(
                            "cannot use {:?} of the volume at {}",
                            mount.sub_path, mount.host_path
                        );
                        Error::with_source(ErrorKind::Internal, message, error)
                    },
                )?;
                mount.host_path = place.to_string_lossy().into_owned();
                mount.sub_path = String::new();
            }
            Ok(mounts)
        })
        .await
    }

    /// Removes those of a sandbox.
    pub(super) async fn remove(&self, sandbox: &SandboxId) -> Result<()> {
        let directory = self.of(sandbox)?;
        blocking(move || clear(&directory)).await
    }

    /// A server's id becomes a name in our directory.
    fn of(&self, sandbox: &SandboxId) -> Result<PathBuf> {
        let name = &sandbox.0;
        let is_name =
            !name.is_empty() && name.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-');
        if !is_name {
            let message = format!("a sandbox cannot be called {name:?}");
            return Err(Error::new(ErrorKind::InvalidArgument, message));
        }
        Ok(self.directory.join(name))
    }
}

fn is_part(mount: &Mount) -> bool {
    mount.image.is_none() && !mount.sub_path.is_empty()
}

/// Binds what is at `part` of `volume`, with all that is mounted below it, to `place`.
fn bind(volume: &Path, part: &Path, place: &Path) -> io::Result<()> {
    let volume = open_directory(volume)?;
    let part = open_beneath(&volume, part, OFlags::PATH)?;
    let kind = FileType::from_raw_mode(fstat(&part)?.st_mode);
    if kind == FileType::Directory {
        fs::create_dir(place)?;
    } else {
        File::create(place)?;
    }
    let tree = mount::copy_tree(CWD, &of_descriptor(&part))?;
    let target =
        rustix::fs::open(place, OFlags::PATH | OFlags::CLOEXEC, rustix::fs::Mode::empty())?;
    mount::attach(tree, target.as_fd())
}

/// Unmounts all that is below a directory, and removes it.
fn clear(directory: &Path) -> Result<()> {
    mount::detach_below(directory).map_err(failed(directory, "unmount what is below"))?;
    remove_all(directory).map_err(failed(directory, "remove"))
}

#[cfg(test)]
mod tests {
    use mainstay_testkit::contract::Sample;
    use mainstay_testkit::tools::is_root;

    use super::*;

    fn part(volume: &Path, sub_path: &str) -> Mount {
        Mount {
            container_path: "/data".into(),
            host_path: volume.to_string_lossy().into_owned(),
            image: None,
            readonly: false,
            recursive_read_only: false,
            propagation: Default::default(),
            sub_path: sub_path.into(),
        }
    }

    #[tokio::test]
    async fn a_part_stays_what_it_was_and_never_leads_out() {
        if !is_root() {
            return;
        }
        let root = tempfile::tempdir().unwrap();
        let volume = root.path().join("volume");
        fs::create_dir_all(volume.join("a")).unwrap();
        fs::write(volume.join("a/file"), "inside").unwrap();
        fs::write(root.path().join("secret"), "outside").unwrap();
        std::os::unix::fs::symlink("../secret", volume.join("out")).unwrap();
        let parts = SubPaths::new(root.path().join("parts"));
        let sandbox = SandboxId("5a".into());
        let mut config = Sample::new("pod", root.path()).container("main");

        config.mounts = vec![part(&volume, "a"), part(&volume, ""), part(&volume, "a/file")];
        let mounts = parts.mount(&sandbox, &config).await.unwrap();
        fs::rename(volume.join("a"), volume.join("b")).unwrap();
        std::os::unix::fs::symlink("../secret", volume.join("a")).unwrap();
        let read = |mount: &Mount, name: &str| {
            fs::read_to_string(Path::new(&mount.host_path).join(name)).unwrap()
        };
        assert_eq!(read(&mounts[0], "file"), "inside");
        assert_eq!(mounts[1], config.mounts[1]);
        assert_eq!(fs::read_to_string(&mounts[2].host_path).unwrap(), "inside");

        for out in ["out", "a", "..", "/etc/passwd", "missing"] {
            config.mounts = vec![part(&volume, out)];
            assert!(parts.mount(&sandbox, &config).await.is_err(), "{out}");
        }
        parts.remove(&sandbox).await.unwrap();
        assert!(!root.path().join("parts/5a").exists());
        assert!(volume.join("b/file").exists());
        for name in ["", "..", "a/b", "/"] {
            assert!(parts.remove(&SandboxId(name.into())).await.is_err(), "{name}");
        }
    }
}
