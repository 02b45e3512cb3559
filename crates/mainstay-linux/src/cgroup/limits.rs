//! Limits in one vocabulary, written in that of the hierarchy at hand.

use super::Hierarchy;

/// What a control group may use. `None` leaves what is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// 2 to 262144; 1024 stands for one processor.
    pub cpu_shares: Option<u64>,
    /// Microseconds of processor time per period; `None` in it is no limit.
    pub cpu_quota: Option<CpuQuota>,
    /// Bytes; `u64::MAX` is no limit.
    pub memory: Option<u64>,
    /// Bytes of memory and swap together, at least `memory`. Without effect where the kernel does
    /// not count swap.
    pub memory_and_swap: Option<u64>,
    /// Processes and threads; `u64::MAX` is no limit.
    pub pids: Option<u64>,
    /// Further files of version 2, by name.
    pub unified: Vec<(String, String)>,
}

/// A share of processor time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuQuota {
    /// Microseconds in each period; `None` is no limit.
    pub quota: Option<u64>,
    /// Microseconds; 1000 to 1000000.
    pub period: u64,
}

impl Limits {
    /// The files to write in one hierarchy, and what to write.
    pub(super) fn files(&self, hierarchy: &Hierarchy) -> Vec<(String, String)> {
        let mut files: Vec<(&str, String)> = Vec::new();
        let unlimited = |value: u64, word: &str| {
            if value == u64::MAX { word.to_owned() } else { value.to_string() }
        };
        let has = |controller: &str| hierarchy.controllers.contains(controller);
        let unified = hierarchy.unified;
        if has("cpu") {
            if let Some(shares) = self.cpu_shares {
                files.push(if unified {
                    ("cpu.weight", weight_of_shares(shares).to_string())
                } else {
                    ("cpu.shares", shares.to_string())
                });
            }
            match self.cpu_quota {
                Some(CpuQuota { quota, period }) if unified => {
                    let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
                    files.push(("cpu.max", format!("{quota} {period}")));
                }
                Some(CpuQuota { quota, period }) => {
                    // The period first: a quota is checked against the period that is set.
                    files.push(("cpu.cfs_period_us", period.to_string()));
                    let quota = quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
                    files.push(("cpu.cfs_quota_us", quota));
                }
                None => {}
            }
        }
        if has("memory")
            && let Some(bytes) = self.memory
        {
            files.push(if unified {
                ("memory.max", unlimited(bytes, "max"))
            } else {
                ("memory.limit_in_bytes", unlimited(bytes, "-1"))
            });
        }
        if has("memory")
            && let (Some(memory), Some(total)) = (self.memory, self.memory_and_swap)
        {
            // After the memory: on version 1 the sum is never less.
            files.push(if unified {
                (SWAP_V2, total.saturating_sub(memory).to_string())
            } else {
                (SWAP_V1, total.to_string())
            });
        }
        if has("pids")
            && let Some(count) = self.pids
        {
            files.push(("pids.max", unlimited(count, "max")));
        }
        let further = self.unified.iter().filter(|(name, _)| {
            unified && name.split_once('.').is_some_and(|(controller, _)| has(controller))
        });
        own(files).chain(further.cloned()).collect()
    }
}

const SWAP_V1: &str = "memory.memsw.limit_in_bytes";
const SWAP_V2: &str = "memory.swap.max";

/// Whether a file may be missing: the kernel counts swap only if it was built and told to.
pub(super) fn may_be_missing(file: &str) -> bool {
    [SWAP_V1, SWAP_V2].contains(&file)
}

fn own(files: Vec<(&str, String)>) -> impl Iterator<Item = (String, String)> {
    files.into_iter().map(|(name, value)| (name.to_owned(), value))
}

/// Shares of version 1 (2 to 262144, usually 1024) as a weight of version 2 (1 to 10000, usually
/// 100), as the kubelet and runc convert them.
///
/// Source: `libcontainer/cgroups/utils.go` of runc, `ConvertCPUSharesToCgroupV2Value`.
fn weight_of_shares(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + ((shares - 2) * 9_999) / 262_142
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn shares_become_the_weights_that_runc_gives_them() {
        for (shares, weight) in [(2, 1), (1024, 39), (262_144, 10_000), (0, 1)] {
            assert_eq!(weight_of_shares(shares), weight, "{shares}");
        }
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
    }
}
