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
        // It was begun anew under the same agent or another one.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

/// Removes those that lead to something of this kind.
///
/// # Errors
///
/// Why one of them is still there.
pub(crate) fn sweep(logs: &Path, is: impl Fn(&Path) -> bool) -> io::Result<()> {
    let Some(directory) = links_directory(logs) else { return Ok(()) };
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
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
}

/// Removes those that lead to logs of a version of a pod.
///
/// # Errors
///
/// As of [`sweep`].
pub fn unlink_pod(logs: &Path, uid: &str) -> io::Result<()> {
    let end = format!("_{uid}");
    sweep(logs, |target| {
        let below = target.strip_prefix(logs).ok().and_then(|below| below.iter().next());
        below.and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(&end))
    })
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
        unlink_pod(&logs, "u1").unwrap();
        assert_eq!(names(), ["other", "web_ns_main-c2.log"]);
        let long = "a".repeat(300);
        link(&logs, (&long, "ns"), ("main", "c3"), &log("u3")).unwrap();
        assert_eq!(names()[0].len(), LONGEST);
        sweep(&logs, |target| !target.exists()).unwrap();
        assert_eq!(names(), ["other"]);
        // Logs that are elsewhere have none.
        link(root.path(), ("web", "ns"), ("main", "c4"), &log("u4")).unwrap();
        assert_eq!(names(), ["other"]);
    }
}
