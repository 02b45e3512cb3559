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
    /// Bytes of huge pages, by the size of the page as the files' names have it: `2MB`. Without effect where
    /// no hierarchy has the controller, or the group does not.
    pub huge_pages: Vec<(String, u64)>,
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
                (MEMORY_V1, unlimited(bytes, "-1"))
            });
        }
        if has("memory")
            && let (Some(memory), Some(total)) = (self.memory, self.memory_and_swap)
        {
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
        let huge_pages =
            self.huge_pages.iter().filter(|_| has("hugetlb")).flat_map(|(size, bytes)| {
                // What is reserved by a mapping counts too, so that it fails at once and not by a signal
                // when it is used.
                let suffix = if unified { "max" } else { "limit_in_bytes" };
                let file =
                    |kind: &str| (format!("hugetlb.{size}{kind}.{suffix}"), bytes.to_string());
                [file(""), file(RESERVED)]
            });
        let further = self.unified.iter().filter(|(name, _)| {
            unified && name.split_once('.').is_some_and(|(controller, _)| has(controller))
        });
        own(files).chain(huge_pages).chain(further.cloned()).collect()
    }
}

/// On version 1 memory is never more than memory and swap: of two that grow the sum goes first, else last.
/// `current` reads what is in a file now.
pub(super) fn put_in_order(files: &mut [(String, String)], current: impl Fn(&str) -> Option<u64>) {
    let at = |files: &[(String, String)], name| files.iter().position(|(file, _)| file == name);
    let (Some(memory), Some(sum)) = (at(files, MEMORY_V1), at(files, SWAP_V1)) else { return };
    // More than any sum is to have none.
    let wanted = files.get(memory).and_then(|(_, value)| value.parse().ok()).unwrap_or(u64::MAX);
    if current(SWAP_V1).is_some_and(|sum| sum < wanted) {
        files.swap(memory, sum);
    }
}

const MEMORY_V1: &str = "memory.limit_in_bytes";
const SWAP_V1: &str = "memory.memsw.limit_in_bytes";
const SWAP_V2: &str = "memory.swap.max";

/// What is reserved and perhaps never used.
const RESERVED: &str = ".rsvd";

/// Whether a file may be missing: the kernel counts swap only if it was built and told to, reserved huge
/// pages since 5.7, and huge pages at all only in groups that were given their controller, as those of an
/// earlier mainstay may not have been.
pub(super) fn may_be_missing(file: &str) -> bool {
    [SWAP_V1, SWAP_V2].contains(&file) || file.starts_with("hugetlb.")
}

fn own(files: Vec<(&str, String)>) -> impl Iterator<Item = (String, String)> {
    files.into_iter().map(|(name, value)| (name.to_owned(), value))
}

/// Shares of version 1 (2 to 262144, usually 1024) as a weight of version 2 (1 to 10000, usually
/// 100), as the kubelet and runc convert them.
///
/// Source: `libcontainer/cgroups/utils.go` of runc, `ConvertCPUSharesToCgroupV2Value`.
pub fn weight_of_shares(shares: u64) -> u64 {
    let shares = shares.clamp(2, 262_144);
    1 + ((shares - 2) * 9_999) / 262_142
}

#[cfg(test)]
mod tests;
