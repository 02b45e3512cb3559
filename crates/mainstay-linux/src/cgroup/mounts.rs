//! Which hierarchies are mounted where.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::Hierarchy;

/// Controllers and names as the super options of a version 1 mount list them, beside flags such
/// as `rw` and `xattr`. Source: cgroups(7).
const CONTROLLERS: [&str; 14] = [
    "cpu",
    "cpuacct",
    "cpuset",
    "memory",
    "devices",
    "freezer",
    "net_cls",
    "blkio",
    "perf_event",
    "net_prio",
    "hugetlb",
    "pids",
    "rdma",
    "misc",
];

/// Finds the hierarchies in the text of `/proc/self/mountinfo`; one that is mounted twice counts
/// once, where it was mounted first. The controllers of version 2 are not in that text. Source: proc_pid_mountinfo(5).
pub(super) fn parse(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some((mount, file_system)) = line.split_once(" - ") else { continue };
        let Some(mount_point) = mount.split(' ').nth(4) else { continue };
        let mut file_system = file_system.splitn(3, ' ');
        let (kind, options) = (file_system.next(), file_system.nth(1).unwrap_or_default());
        let hierarchy = match kind {
            Some("cgroup2") => Hierarchy {
                mount_point: PathBuf::from(mount_point),
                controllers: BTreeSet::new(),
                unified: true,
            },
            Some("cgroup") => Hierarchy {
                mount_point: PathBuf::from(mount_point),
                controllers: options
                    .split(',')
                    .filter(|word| CONTROLLERS.contains(word) || word.starts_with("name="))
                    .map(str::to_owned)
                    .collect(),
                unified: false,
            },
            _ => continue,
        };
        let same = |other: &Hierarchy| {
            (other.unified, &other.controllers) == (hierarchy.unified, &hierarchy.controllers)
        };
        if !found.iter().any(same) {
            found.push(hierarchy);
        }
    }
    found
}
