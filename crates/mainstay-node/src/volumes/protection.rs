//! Memory that is kept for pods, in the groups above theirs.
//!
//! The kernel keeps for a group no more than is kept for the one above it: that of the pod's class, for which a
//! kubelet does the same (`setMemoryQoS` in `pkg/kubelet/cm/qos_container_manager_linux.go`), and all those above
//! that, up to the root. systemd takes some of them for its own and writes what its units say, so this is done
//! again now and then.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use mainstay_linux::cgroup::Hierarchies;
use mainstay_plan::memory_qos::{LOW, MIN};
use mainstay_plan::qos;

/// Pods come and go beside each other; the last one to count has counted all.
static TURN: Mutex<()> = Mutex::new(());

/// Writes what the groups of a class have together into its group, and into `root` and those above it, each with
/// what is in it.
pub(crate) fn cover(hierarchies: &Hierarchies, root: &str) -> io::Result<()> {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let with_memory =
        |it: &&mainstay_linux::cgroup::Hierarchy| it.unified && it.controllers.contains("memory");
    for hierarchy in hierarchies.iter().filter(with_memory) {
        let of = |group: &str| hierarchy.mount_point.join(group.trim_start_matches('/'));
        // That of a class comes with its first pod.
        let classes: Vec<PathBuf> =
            qos::class_groups(root).map(|it| of(&it)).filter(|it| it.exists()).collect();
        let root = of(root);
        let above = root.ancestors().take_while(|group| *group != hierarchy.mount_point);
        for group in classes.iter().map(PathBuf::as_path).chain(above) {
            for file in [MIN, LOW] {
                let sum = sum(group, file)?.to_string();
                let path = group.join(file);
                if fs::read_to_string(&path)?.trim() != sum {
                    fs::write(&path, sum)?;
                }
            }
        }
    }
    Ok(())
}

/// What the groups in one have together.
fn sum(group: &Path, file: &str) -> io::Result<u64> {
    let mut sum: u64 = 0;
    for entry in fs::read_dir(group)? {
        let path = entry?.path().join(file);
        // What is no group has no such file, and one may have gone.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        sum = sum.saturating_add(match text.trim() {
            "max" => u64::MAX,
            text => text.parse().unwrap_or(0),
        });
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mainstay_linux::cgroup::Hierarchy;

    use super::*;

    #[test]
    fn the_groups_above_have_what_their_pods_have_together() {
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        for (group, min, low) in [
            ("slice", "0", "0"),
            ("slice/other", "5", "0"),
            ("slice/pods", "1", "1"),
            ("slice/pods/a", "10", "0"),
            ("slice/pods/burstable", "0", "90"),
            ("slice/pods/burstable/b", "20", "7"),
        ] {
            fs::create_dir_all(at(group)).unwrap();
            fs::write(at(group).join(MIN), format!("{min}\n")).unwrap();
            fs::write(at(group).join(LOW), format!("{low}\n")).unwrap();
        }
        let hierarchies = Hierarchies::of(vec![Hierarchy {
            mount_point: directory.path().to_owned(),
            controllers: BTreeSet::from(["memory".to_owned()]),
            unified: true,
        }]);
        cover(&hierarchies, "/slice/pods").unwrap();
        let has = |group: &str, file| fs::read_to_string(at(group).join(file)).unwrap();
        for (group, min, low) in
            [("slice/pods/burstable", "20", "7"), ("slice/pods", "30", "7"), ("slice", "35", "7")]
        {
            assert_eq!((has(group, MIN).as_str(), has(group, LOW).as_str()), (min, low), "{group}");
        }
        assert!(!at(MIN).exists());
    }
}
