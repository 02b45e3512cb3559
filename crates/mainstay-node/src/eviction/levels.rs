//! How much there is of what pods take.

use std::fs;
use std::path::Path;

use mainstay_linux::cgroup::Hierarchies;
use mainstay_linux::machine;
use mainstay_plan::pressure::{Level, Levels};
use rustix::fs::statvfs;

/// Reads some small files that the kernel makes up, and asks the file system of a directory. All pods together may
/// have `allocatable` bytes of memory, and are in the group of this name.
pub(super) fn levels(
    directory: &Path,
    hierarchies: &Hierarchies,
    (pods, allocatable): (&str, u64),
) -> Levels {
    let disk = statvfs(directory).ok();
    let level = |available, capacity| Level { available, capacity };
    Levels {
        memory: memory(hierarchies),
        allocatable_memory: hierarchies
            .at(pods)
            .usage()
            .memory
            .map(|memory| level(allocatable.saturating_sub(memory.working_set()), allocatable)),
        disk: disk.as_ref().map(|it| {
            let bytes = |blocks: u64| blocks.saturating_mul(it.f_frsize);
            level(bytes(it.f_bavail), bytes(it.f_blocks))
        }),
        // File systems that make files as they are needed count none.
        inodes: disk.as_ref().filter(|it| it.f_files > 0).map(|it| level(it.f_ffree, it.f_files)),
        processes: processes(),
    }
}

/// All but what would be missed: the working set of the outermost control group. In version 2 of control
/// groups that one has no numbers of its own, and those of the machine stand for it.
///
/// Source: `memory.available` of the kubelet, which is cadvisor's `/`, and
/// `statsFromMeminfo` in `opencontainers/cgroups/fs2/memory.go`, which that asks.
fn memory(hierarchies: &Hierarchies) -> Option<Level> {
    let machine = machine::machine().ok().filter(|machine| machine.memory > 0)?;
    let of_group = hierarchies.at("/").usage().memory;
    let working_set = of_group.map_or_else(
        || machine.memory_usage.saturating_sub(machine.inactive_file),
        |memory| memory.working_set(),
    );
    let capacity = machine.memory;
    Some(Level { available: capacity.saturating_sub(working_set), capacity })
}

/// How many processes and threads the machine can have. Source: as of [`processes`].
pub(crate) fn most_processes() -> Option<u64> {
    let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let most = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    most.into_iter().filter_map(number).min()
}

/// Source: proc_loadavg(5), proc_sys_kernel(5); `pkg/kubelet/stats/pidlimit`.
fn processes() -> Option<Level> {
    let capacity = most_processes()?;
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    let running: u64 = load.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()?;
    Some(Level { available: capacity.saturating_sub(running), capacity })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use mainstay_linux::cgroup::Hierarchy;

    use super::*;

    #[test]
    fn this_machine_is_looked_at() {
        let levels = levels(Path::new("/"), &Hierarchies::mounted().unwrap(), ("/none", 1 << 30));
        for level in [levels.memory, levels.disk, levels.processes] {
            let level = level.unwrap();
            assert!(level.available <= level.capacity && level.capacity > 0, "{level:?}");
        }
    }

    #[test]
    fn memory_is_what_the_outermost_group_does_not_need() {
        let directory = tempfile::tempdir().unwrap();
        let controllers = BTreeSet::from(["memory".to_owned()]);
        let mount_point = directory.path().to_owned();
        let unified = Hierarchy { mount_point: mount_point.clone(), controllers, unified: true };
        let legacy = Hierarchy { unified: false, ..unified.clone() };
        // The root of version 2.
        fs::write(mount_point.join("memory.stat"), "inactive_file 5\n").unwrap();
        let machine = machine::machine().unwrap();
        let level = memory(&Hierarchies::of(vec![unified.clone()])).unwrap();
        assert_eq!(level.capacity, machine.memory);
        assert!(level.available >= machine.memory.saturating_sub(machine.memory_usage) / 2);
        // What pods may have and do not.
        let pods = mount_point.join("pods");
        fs::create_dir(&pods).unwrap();
        fs::write(pods.join("memory.current"), "16384\n").unwrap();
        fs::write(pods.join("memory.stat"), "inactive_file 4096\n").unwrap();
        let hierarchies = Hierarchies::of(vec![unified]);
        let of_pods = |most| levels(&mount_point, &hierarchies, ("/pods", most)).allocatable_memory;
        assert_eq!(of_pods(20480), Some(Level { available: 8192, capacity: 20480 }));
        assert_eq!(of_pods(8192).unwrap().available, 0);
        // Version 1 has numbers there too.
        fs::write(mount_point.join("memory.stat"), "total_inactive_file 4096\n").unwrap();
        fs::write(mount_point.join("memory.usage_in_bytes"), "12288\n").unwrap();
        let level = memory(&Hierarchies::of(vec![legacy])).unwrap();
        assert_eq!(level.available, machine.memory - 8192);
    }
}
