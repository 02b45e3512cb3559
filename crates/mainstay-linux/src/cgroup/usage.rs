//! How much a control group uses. Source: `Documentation/admin-guide/cgroup-v2.rst`, and
//! `Documentation/admin-guide/cgroup-v1/{cpuacct,memory,pids}.rst`.

use std::fs;
use std::path::Path;

use super::Cgroup;

/// What a control group uses, with all below it, as far as the kernel tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds of processor time since it was made.
    pub cpu: Option<u64>,
    /// Its memory now.
    pub memory: Option<Memory>,
    /// How many processes and threads there are.
    pub pids: Option<u64>,
}

/// Memory of a control group, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// All that is charged to it, caches too.
    pub usage: u64,
    /// Of it, files that nobody has used lately.
    pub inactive_file: u64,
    /// Of it, what belongs to no file.
    pub anonymous: u64,
    /// Page faults since it was made, which need not have cost anything.
    pub page_faults: u64,
    /// Of them, those that waited for a disk.
    pub major_page_faults: u64,
    /// The most that it may have, unless that is more than any machine has.
    pub limit: Option<u64>,
}

impl Memory {
    /// What would be missed: the usage without what the kernel can take back at once. This is what
    /// Kubernetes calls the working set.
    pub fn working_set(&self) -> u64 {
        self.usage.saturating_sub(self.inactive_file)
    }
}

impl Cgroup<'_> {
    /// Reads what it uses: four small files. What cannot be read, because the group is gone or has
    /// no such controller, is `None`.
    pub fn usage(&self) -> Usage {
        Usage { cpu: self.cpu(), memory: self.memory(), pids: self.pids() }
    }

    fn cpu(&self) -> Option<u64> {
        if let Some(directory) = self.directory_of("cpuacct") {
            return number(&directory.join("cpuacct.usage"));
        }
        // In version 2 every group has it, with or without the controller.
        let unified = self.hierarchies.list.iter().find(|hierarchy| hierarchy.unified)?;
        let file = unified.mount_point.join(&self.path).join("cpu.stat");
        let text = fs::read_to_string(file).ok()?;
        field(&text, "usage_usec")?.checked_mul(1000)
    }

    fn memory(&self) -> Option<Memory> {
        let directory = self.directory_of("memory")?;
        let stat = fs::read_to_string(directory.join("memory.stat")).ok()?;
        if let Some(usage) = number(&directory.join("memory.current")) {
            let limit = number(&directory.join("memory.max"));
            return Some(version_2(&stat, usage, limit));
        }
        let usage = number(&directory.join("memory.usage_in_bytes"))?;
        Some(version_1(&stat, usage, number(&directory.join("memory.limit_in_bytes"))))
    }

    fn pids(&self) -> Option<u64> {
        number(&self.directory_of("pids")?.join("pids.current"))
    }
}

fn version_2(stat: &str, usage: u64, limit: Option<u64>) -> Memory {
    let of = |name| field(stat, name).unwrap_or_default();
    Memory {
        usage,
        inactive_file: of("inactive_file"),
        anonymous: of("anon"),
        page_faults: of("pgfault"),
        major_page_faults: of("pgmajfault"),
        limit,
    }
}

fn version_1(stat: &str, usage: u64, limit: Option<u64>) -> Memory {
    /// No limit is the highest number of whole pages, which depends on the size of a page.
    const NONE: u64 = 1 << 62;
    let of = |name| field(stat, name).unwrap_or_default();
    Memory {
        usage,
        inactive_file: of("total_inactive_file"),
        anonymous: of("total_rss"),
        page_faults: of("total_pgfault"),
        major_page_faults: of("total_pgmajfault"),
        limit: limit.filter(|limit| *limit < NONE),
    }
}

/// The number after a name at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok();
    text.lines().find_map(value)
}

/// The only number in a file; `max` is none.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::{Hierarchies, Hierarchy};
    use super::*;

    fn hierarchy(mount_point: &Path, controllers: &[&str], unified: bool) -> Hierarchy {
        let controllers: BTreeSet<String> = controllers.iter().map(ToString::to_string).collect();
        Hierarchy { mount_point: mount_point.to_owned(), controllers, unified }
    }

    #[test]
    fn usage_is_read_from_both_versions() {
        let directory = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| {
            let path = directory.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("v2/pod/cpu.stat", "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n");
        write("v2/pod/memory.current", "1000\n");
        write("v2/pod/memory.max", "max\n");
        let stat = "anon 300\nfile 600\ninactive_file 200\npgfault 7\npgmajfault 1\n";
        write("v2/pod/memory.stat", stat);
        write("v2/pod/pids.current", "4\n");
        let v2 = hierarchy(&directory.path().join("v2"), &["cpu", "memory", "pids"], true);
        let memory = Memory {
            usage: 1000,
            inactive_file: 200,
            anonymous: 300,
            page_faults: 7,
            major_page_faults: 1,
            limit: None,
        };
        let expected = Usage { cpu: Some(1_500_000), memory: Some(memory), pids: Some(4) };
        assert_eq!(Hierarchies::of(vec![v2]).at("/pod").usage(), expected);
        assert_eq!(memory.working_set(), 800);

        write("acct/pod/cpuacct.usage", "1500000\n");
        write("mem/pod/memory.usage_in_bytes", "1000\n");
        write("mem/pod/memory.limit_in_bytes", "4096\n");
        let stat = "inactive_file 1\ntotal_rss 300\ntotal_inactive_file 200\ntotal_pgfault 7\n\
                    total_pgmajfault 1\n";
        write("mem/pod/memory.stat", stat);
        write("pids/pod/pids.current", "4\n");
        let v1 =
            |name: &str, controller| hierarchy(&directory.path().join(name), &[controller], false);
        let list = vec![v1("acct", "cpuacct"), v1("mem", "memory"), v1("pids", "pids")];
        let memory = Memory { limit: Some(4096), ..memory };
        let hierarchies = Hierarchies::of(list);
        let expected = Usage { memory: Some(memory), ..expected };
        assert_eq!(hierarchies.at("/pod").usage(), expected);
        write("mem/pod/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(hierarchies.at("/pod").usage().memory.unwrap().limit, None);
        assert_eq!(hierarchies.at("/other").usage(), Usage::default());
    }
}
