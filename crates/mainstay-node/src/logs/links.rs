//! Links to logs, by which those who collect logs find them: `<pod>_<namespace>_<container>-<id>.log` in the directory
//! `containers` beside that of all logs, which is `/var/log/pods`.
//!
//! Source: `logSymlink` in `pkg/kubelet/kuberuntime/legacy.go`, which makes them in `/var/log/containers`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// How long the name of a file can be, in bytes. Source: ext4(5).
const LONGEST: usize = 255;

/// Where they are; nowhere if logs are in a directory of another name.
pub fn links_directory(logs: &Path) -> Option<PathBuf> {
    (logs.file_name()? == "pods").then(|| logs.with_file_name("containers"))
}

/// Makes the one of a container that runs. `logs` is where all logs are, `log` is the container's.
///
/// # Errors
///
/// Why there is none.
pub(crate) fn link(
    logs: &Path,
    (name, namespace): (&str, &str),
    (container, id): (&str, &str),
    log: &Path,
) -> io::Result<()> {
    let Some(directory) = links_directory(logs) else { return Ok(()) };
    let mut file = format!("{name}_{namespace}_{container}-{id}");
    file.truncate(LONGEST - ".log".len());
    let path = directory.join(file + ".log");
    match symlink(log, &path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(&directory)?;
            symlink(log, &path)
        }
        // It was begun before; or its name is so long that it is cut off before what tells it from another run's.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Removes those that lead to something of this kind. The directory is everybody's: what cannot be removed from it is
/// told of, and is in nobody's way.
pub(crate) fn sweep(logs: &Path, is: impl Fn(&Path) -> bool) {
    let Some(directory) = links_directory(logs) else { return };
    let remove = || -> io::Result<()> {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            // What is no link, or has just gone, is somebody else's.
            let Ok(target) = fs::read_link(&path) else { continue };
            if target.starts_with(logs) && is(&target) {
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    };
    match remove() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let directory = directory.display();
            tracing::warn!(%error, %directory, "links to logs that have gone are left");
        }
        _ => {}
    }
}

/// Removes those that lead to logs of a version of a pod, as [`sweep`] does.
pub fn unlink_pod(logs: &Path, uid: &str) {
    let end = format!("_{uid}");
    sweep(logs, |target| {
        let below = target.strip_prefix(logs).ok().and_then(|below| below.iter().next());
        below.and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(&end))
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_that_runs_has_one_until_its_pod_goes() {
        let root = tempfile::tempdir().unwrap();
        let logs = root.path().join("pods");
        let names = || -> Vec<String> {
            let names = fs::read_dir(root.path().join("containers")).unwrap();
            let mut names: Vec<_> =
                names.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        };
        let log = |uid: &str| logs.join(format!("ns_web_{uid}/main/0.log"));
        for (id, uid) in [("c1", "u1"), ("c1", "u1"), ("c2", "u2")] {
            link(&logs, ("web", "ns"), ("main", id), &log(uid)).unwrap();
        }
        assert_eq!(names(), ["web_ns_main-c1.log", "web_ns_main-c2.log"]);
        symlink("/elsewhere_u1", root.path().join("containers/other")).unwrap();
        let link_of = root.path().join("containers/web_ns_main-c2.log");
        assert_eq!(fs::read_link(link_of).unwrap(), log("u2"));
        unlink_pod(&logs, "u1");
        assert_eq!(names(), ["other", "web_ns_main-c2.log"]);
        let long = "a".repeat(300);
        link(&logs, (&long, "ns"), ("main", "c3"), &log("u3")).unwrap();
        assert_eq!(names()[0].len(), LONGEST);
        sweep(&logs, |target| !target.exists());
        assert_eq!(names(), ["other"]);
        // Logs that are elsewhere have none.
        link(root.path(), ("web", "ns"), ("main", "c4"), &log("u4")).unwrap();
        assert_eq!(names(), ["other"]);
    }
}
