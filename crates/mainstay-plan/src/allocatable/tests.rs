use super::*;

fn reserved(list: &[(&str, &str)]) -> Reserved {
    let list = list.iter().map(|(name, amount)| ((*name).to_owned(), (*amount).to_owned()));
    Reserved::parse(&list.collect()).unwrap()
}

/// Four processors, 8 GiB and 100 GiB of disk.
fn machine() -> Machine {
    Machine { processors: 4, memory: (8 << 30) + 1000, storage: 100 << 30, ..Machine::default() }
}

fn told(list: &BTreeMap<String, Quantity>) -> String {
    let list = list.iter().map(|(name, amount)| format!("{name}={amount}"));
    list.collect::<Vec<_>>().join(" ")
}

fn thresholds(list: &[(&str, &str)]) -> Vec<Threshold> {
    let mut thresholds = Thresholds::none();
    for (signal, text) in list {
        thresholds.set_hard(signal, text).unwrap();
    }
    thresholds.iter().copied().collect()
}

#[test]
fn pods_can_have_what_nothing_else_is_kept_for() {
    let none = Allocation { hard: Vec::new(), ..Allocation::default() };
    let two_kinds = Allocation {
        system: reserved(&[("cpu", "500m"), ("memory", "1Gi"), ("pid", "1000")]),
        kube: reserved(&[("cpu", "100m"), ("memory", "512Mi"), ("ephemeral-storage", "10Gi")]),
        ..none.clone()
    };
    for (allocation, expected) in [
        (none.clone(), "cpu=4 ephemeral-storage=100Gi memory=8Gi pods=110"),
        // A tenth of the disk, in single precision, and 100 MiB, as a kubelet has it by default.
        (Allocation::default(), "cpu=4 ephemeral-storage=96636764000 memory=8092Mi pods=110"),
        (two_kinds.clone(), "cpu=3400m ephemeral-storage=90Gi memory=6656Mi pods=110"),
        (
            Allocation { hard: thresholds(&[("memory.available", "25%")]), ..two_kinds.clone() },
            "cpu=3400m ephemeral-storage=90Gi memory=4608Mi pods=110",
        ),
        // Processors by their numbers beat those by amounts.
        (
            Allocation { cpus: [0, 3].into(), ..two_kinds },
            "cpu=2 ephemeral-storage=90Gi memory=6656Mi pods=110",
        ),
        (
            Allocation { max_pods: 30, pods_per_core: 5, ..none.clone() },
            "cpu=4 ephemeral-storage=100Gi memory=8Gi pods=20",
        ),
        (
            Allocation { max_pods: 10, pods_per_core: 5, has_storage: false, ..none.clone() },
            "cpu=4 memory=8Gi pods=10",
        ),
        // Never less than nothing.
        (
            Allocation { system: reserved(&[("cpu", "5"), ("memory", "9Gi")]), ..none.clone() },
            "cpu=0 ephemeral-storage=100Gi memory=0 pods=110",
        ),
    ] {
        assert_eq!(told(&allocation.allocatable(&machine())), expected, "{allocation:?}");
    }
    let huge = Machine { huge_pages: [("1Gi".to_owned(), 2 << 30)].into(), ..machine() };
    let expected = "cpu=4 ephemeral-storage=100Gi hugepages-1Gi=2Gi memory=6Gi pods=110";
    assert_eq!(told(&none.allocatable(&huge)), expected);
    let amounts = none.amounts(&huge);
    assert_eq!(amounts.cpu_milli, Some(4000));
    assert_eq!(amounts.memory_bytes, Some(6 << 30));
}

#[test]
fn all_pods_together_are_held_to_that_but_for_what_they_are_ended_at() {
    let kept = Allocation {
        system: reserved(&[("cpu", "1500m"), ("memory", "1Gi"), ("pid", "1000")]),
        kube: reserved(&[("pid", "24")]),
        ..Allocation::default()
    };
    let enforced = NodeLimits { cpu_shares: 2560, memory: 7 << 30, pids: Some(30_976) };
    assert_eq!(kept.limits(&machine(), Some(32_000)), enforced);
    let all = NodeLimits { cpu_shares: 4096, memory: 8 << 30, pids: Some(32_000) };
    let free = Allocation { enforced: false, ..kept };
    assert_eq!(free.limits(&machine(), Some(32_000)), all);
    let untold = NodeLimits { pids: None, ..all };
    assert_eq!(Allocation::default().limits(&machine(), None), untold);
}

#[test]
fn what_a_machine_does_not_have_cannot_be_kept() {
    let online = cpus("0-3").unwrap();
    let check = |allocation: Allocation| allocation.check(&machine(), &online);
    assert_eq!(check(Allocation::default()), Ok(()));
    let much = Allocation {
        system: reserved(&[("cpu", "3"), ("memory", "8Gi")]),
        kube: reserved(&[("cpu", "1001m")]),
        ..Allocation::default()
    };
    let expected = "invalid Node Allocatable configuration. Resource \"cpu\" has a reservation of 4001m \
                    but capacity of 4. Expected capacity >= reservation. Resource \"memory\" has a \
                    reservation of 8292Mi but capacity of 8Gi. Expected capacity >= reservation.";
    assert_eq!(check(much).unwrap_err(), expected);
    let absent = Allocation { cpus: [1, 4].into(), ..Allocation::default() };
    assert_eq!(check(absent).unwrap_err(), "reservedSystemCPUs: there is no processor 4 online");
}

#[test]
fn lists_are_read_as_a_kubelet_reads_them() {
    let error = |name: &str, amount: &str| {
        Reserved::parse(&[(name.to_owned(), amount.to_owned())].into()).unwrap_err()
    };
    assert_eq!(error("pods", "1"), "cannot reserve \"pods\" resource");
    assert_eq!(error("cpu", "-1"), "resource quantity for \"cpu\" cannot be negative: -1");
    assert!(error("cpu", "x").starts_with("failed to parse quantity \"x\" for \"cpu\" resource"));
    for (list, expected) in
        [("", vec![]), ("2", vec![2]), ("0-2,5", vec![0, 1, 2, 5]), ("1,1", vec![1])]
    {
        assert_eq!(cpus(list), Ok(expected.into_iter().collect()), "{list}");
    }
    for list in ["a", "1-", "3-1", "0,", "-1", "0-4294967295"] {
        assert!(cpus(list).is_err(), "{list}");
    }
}
