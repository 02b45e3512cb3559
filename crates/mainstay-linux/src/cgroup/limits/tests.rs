use std::collections::BTreeSet;

use super::*;

#[test]
fn shares_become_the_weights_that_runc_gives_them() {
    for (shares, weight) in [(2, 1), (1024, 39), (262_144, 10_000), (0, 1)] {
        assert_eq!(weight_of_shares(shares), weight, "{shares}");
    }
}

#[test]
fn some_files_may_be_missing() {
    for (file, may) in [
        ("hugetlb.2MB.max", true),
        ("hugetlb.2MB.rsvd.limit_in_bytes", true),
        (SWAP_V1, true),
        (SWAP_V2, true),
        (MEMORY_V1, false),
        ("memory.max", false),
    ] {
        assert_eq!(may_be_missing(file), may, "{file}");
    }
}

#[test]
fn memory_and_swap_grow_before_memory_does() {
    let order = |now: Option<u64>, limit: &str| {
        let mut files: Vec<_> = [("cpu.shares", "2"), (MEMORY_V1, limit), (SWAP_V1, limit)]
            .map(|(file, value)| (file.to_owned(), value.to_owned()))
            .into();
        put_in_order(&mut files, |_| now);
        files.into_iter().map(|(file, _)| file).collect::<Vec<_>>()
    };
    let (grows, else_) = (["cpu.shares", SWAP_V1, MEMORY_V1], ["cpu.shares", MEMORY_V1, SWAP_V1]);
    assert_eq!(order(Some(1000), "2000"), grows);
    assert_eq!(order(Some(1000), "-1"), grows);
    assert_eq!(order(Some(1000), "1000"), else_);
    assert_eq!(order(Some(1000), "500"), else_);
    assert_eq!(order(None, "2000"), else_);
}

#[test]
fn each_hierarchy_gets_its_own_files() {
    let limits = Limits {
        cpu_shares: Some(512),
        cpu_quota: Some(CpuQuota { quota: Some(50_000), period: 100_000 }),
        memory: Some(u64::MAX),
        ..Limits::default()
    };
    let no_swap = Limits {
        memory: Some(4096),
        memory_and_swap: Some(4096),
        unified: vec![("memory.oom.group".into(), "1".into())],
        ..Limits::default()
    };
    let hierarchy = |names: &[&str], unified| Hierarchy {
        mount_point: "/nowhere".into(),
        controllers: names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>(),
        unified,
    };
    let pairs = |list: &[(&str, &str)]| {
        list.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect::<Vec<_>>()
    };
    assert_eq!(
        limits.files(&hierarchy(&["cpu", "cpuacct"], false)),
        pairs(&[
            ("cpu.shares", "512"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "50000")
        ])
    );
    assert_eq!(
        limits.files(&hierarchy(&["memory"], false)),
        pairs(&[("memory.limit_in_bytes", "-1")])
    );
    assert_eq!(
        limits.files(&hierarchy(&["cpu", "memory"], true)),
        pairs(&[("cpu.weight", "20"), ("cpu.max", "50000 100000"), ("memory.max", "max")])
    );
    assert_eq!(
        no_swap.files(&hierarchy(&["memory"], false)),
        pairs(&[("memory.limit_in_bytes", "4096"), ("memory.memsw.limit_in_bytes", "4096")])
    );
    assert_eq!(
        no_swap.files(&hierarchy(&["memory"], true)),
        pairs(&[("memory.max", "4096"), ("memory.swap.max", "0"), ("memory.oom.group", "1")])
    );
    assert_eq!(
        limits.files(&hierarchy(&["perf_event"], true)),
        pairs(&[]),
        "the version 2 side of a hybrid machine"
    );
    let pages = Limits { huge_pages: vec![("2MB".to_owned(), 4 << 20)], ..Limits::default() };
    assert_eq!(
        pages.files(&hierarchy(&["hugetlb"], true)),
        pairs(&[("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")])
    );
    assert_eq!(
        pages.files(&hierarchy(&["hugetlb"], false)),
        pairs(&[
            ("hugetlb.2MB.limit_in_bytes", "4194304"),
            ("hugetlb.2MB.rsvd.limit_in_bytes", "4194304")
        ])
    );
    assert_eq!(pages.files(&hierarchy(&["memory"], true)), pairs(&[]));
}
