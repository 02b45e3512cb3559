use super::*;

/// Lines of a hybrid machine, of a version 2 machine, and of one with a hierarchy mounted twice.
const HYBRID: &str = "\
30 25 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 30 0:29 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
33 30 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
34 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
35 30 0:29 / /elsewhere/memory rw,relatime - cgroup cgroup rw,memory
";

#[test]
fn the_layout_is_read_from_the_mount_table() {
    let list = mounts::parse(HYBRID);
    let points: Vec<_> = list.iter().map(|h| h.mount_point.to_str().unwrap()).collect();
    assert_eq!(
        points,
        [
            "/sys/fs/cgroup/cpu,cpuacct",
            "/sys/fs/cgroup/memory",
            "/sys/fs/cgroup/systemd",
            "/sys/fs/cgroup/unified"
        ]
    );
    assert_eq!(Hierarchies { list }.layout(), Layout::Hybrid);
    let v2 = mounts::parse("30 25 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n");
    assert_eq!(Hierarchies { list: v2 }.layout(), Layout::V2);
}

/// A group of this test's own, removed when the test ends, however it ends.
struct Own(Hierarchies, String);

impl Drop for Own {
    fn drop(&mut self) {
        let group = self.0.at(self.1.trim_end_matches("/inner"));
        while group.kill().is_ok_and(|count| count > 0) {}
        let _ = group.remove();
    }
}

#[test]
fn a_group_whose_maker_was_killed_takes_processes() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let path = format!("/mainstay-test-halfway-{}/inner", std::process::id());
    let own = Own(Hierarchies::mounted().unwrap(), path.clone());
    let (top, group) = (own.0.at(path.trim_end_matches("/inner")), own.0.at(&path));
    // As far as a maker may have come.
    for directory in top.directories().chain(group.directories()) {
        fs::create_dir(directory).unwrap();
    }
    group.create().unwrap();
    #[expect(clippy::disallowed_methods, reason = "a test needs a process")]
    let mut child = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
    group.add(i32::try_from(child.id()).unwrap()).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_group_is_made_limited_filled_emptied_and_removed() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let path = format!("/mainstay-test-{}/inner", std::process::id());
    let own = Own(Hierarchies::mounted().unwrap(), path.clone());
    let top = own.0.at(path.trim_end_matches("/inner"));
    let group = own.0.at(&path);
    group.create().unwrap();
    group.create().unwrap();
    assert!(top.has_children().unwrap() && !group.has_children().unwrap());
    let limits = Limits {
        cpu_shares: Some(200),
        cpu_quota: Some(CpuQuota { quota: Some(20_000), period: 100_000 }),
        memory: Some(64 << 20),
        memory_and_swap: Some(64 << 20),
        pids: Some(50),
        huge_pages: Vec::new(),
        unified: Vec::new(),
    };
    group.limit(&limits).unwrap();
    // Also what is there already can grow and shrink.
    for bytes in [128 << 20, 64 << 20] {
        let resized =
            Limits { memory: Some(bytes), memory_and_swap: Some(bytes), ..Limits::default() };
        group.limit(&resized).unwrap();
    }
    // What somebody left who has ended does not keep the group above it from shrinking.
    let quota = |quota| Limits {
        cpu_quota: Some(CpuQuota { quota: Some(quota), period: 100_000 }),
        ..Limits::default()
    };
    top.limit(&quota(20_000)).unwrap();
    top.lift_empty().unwrap();
    top.limit(&quota(10_000)).unwrap();
    let memory = group.directory_of("memory").unwrap();
    let limit = ["memory.limit_in_bytes", "memory.max"]
        .iter()
        .find_map(|file| fs::read_to_string(memory.join(file)).ok());
    assert_eq!(limit.unwrap().trim(), (64u64 << 20).to_string());

    #[expect(clippy::disallowed_methods, reason = "a test needs a process")]
    let mut child = std::process::Command::new("/bin/sleep").arg("600").spawn().unwrap();
    let pid = i32::try_from(child.id()).unwrap();
    group.add(pid).unwrap();
    assert_eq!(top.processes().unwrap(), BTreeSet::from([pid]));
    assert_eq!(group.remove().unwrap_err().source.raw_os_error(), Some(libc::EBUSY));
    assert!(top.kill().unwrap() <= 1);
    child.wait().unwrap();
    assert_eq!(group.oom_kills(), 0);
    top.remove().unwrap();
    top.remove().unwrap();
    assert!(!top.exists());
}

#[test]
fn controllers_that_cannot_be_passed_down_are_no_secret() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("cgroup.controllers"), "cpu memory").unwrap();
    let enabled = directory.path().join("cgroup.subtree_control");
    // A file of the kernel that can be read and not written.
    std::os::unix::fs::symlink("/proc/version", &enabled).unwrap();
    let hierarchies = Hierarchies::of(vec![Hierarchy {
        mount_point: directory.path().to_owned(),
        controllers: BTreeSet::new(),
        unified: true,
    }]);
    let error = hierarchies.at("/group").create().unwrap_err();
    assert_eq!(error.to_string(), format!("cannot pass controllers down in {}", enabled.display()));
    assert!(!directory.path().join("group").exists());
    // What is there already goes on with what it has.
    fs::create_dir(directory.path().join("group")).unwrap();
    hierarchies.at("/group").create().unwrap();
}

#[test]
fn controllers_are_passed_down_to_what_is_there_too() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("group")).unwrap();
    fs::write(directory.path().join("cgroup.controllers"), "hugetlb").unwrap();
    let enabled = directory.path().join("cgroup.subtree_control");
    fs::write(&enabled, "").unwrap();
    let hierarchies = Hierarchies::of(vec![Hierarchy {
        mount_point: directory.path().to_owned(),
        controllers: BTreeSet::new(),
        unified: true,
    }]);
    hierarchies.at("/group").create().unwrap();
    assert_eq!(fs::read_to_string(enabled).unwrap(), "+hugetlb");
}
