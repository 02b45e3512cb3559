//! The users of a pod that shares none with the machine (`hostUsers: false`).
//!
//! Source: `pkg/kubelet/userns/userns_manager.go`. Unlike there no range is kept for a pod that waits
//! for its next sandbox: what lies on a disk is owned as if the users were the machine's.

use std::collections::BTreeMap;

use mainstay_cri::{IdMapping, PodSandboxConfig};

use crate::labels;

/// How many users and groups a pod gets. Source: `defaultIDsPerPod`.
pub const LENGTH: u32 = 1 << 16;

/// How many ranges there are: half of all numbers, since some programs take the others for negative.
/// The first one is the machine's own.
const RANGES: u32 = (1 << 31) / LENGTH;

/// The range that a sandbox has by its annotations.
pub fn of(annotations: &BTreeMap<String, String>) -> Option<IdMapping> {
    let host_id = annotations.get(labels::USERS)?.parse().ok()?;
    Some(IdMapping { host_id, length: LENGTH })
}

/// Chooses a range that has nothing in common with those `taken`; `None` if every one has. `seed` says
/// where the search begins, so that several instances on a machine rarely choose the same one.
pub fn choose(seed: u32, taken: &[IdMapping]) -> Option<IdMapping> {
    let overlap = |one: &IdMapping, other: &IdMapping| {
        one.host_id < other.host_id.saturating_add(other.length)
            && other.host_id < one.host_id.saturating_add(one.length)
    };
    (0..RANGES - 1).find_map(|step| {
        let number = seed.wrapping_add(step) % (RANGES - 1) + 1;
        let range = IdMapping { host_id: number * LENGTH, length: LENGTH };
        (!taken.iter().any(|other| overlap(&range, other))).then_some(range)
    })
}

/// The ranges in a file such as `/etc/subuid`, which others may give to their containers. Lines that are
/// not understood have none. Source: subuid(5).
pub fn delegated(text: &str) -> Vec<IdMapping> {
    let line = |line: &str| {
        let mut fields = line.trim().split(':').skip(1);
        let mut number = || fields.next()?.parse().ok();
        Some(IdMapping { host_id: number()?, length: number()? })
    };
    text.lines().filter_map(line).collect()
}

/// Has a sandbox get these users.
pub fn give(range: IdMapping, config: &mut PodSandboxConfig) {
    config.security_context.namespaces.users = Some(range);
    config.annotations.insert(labels::USERS.to_owned(), range.host_id.to_string());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_free_and_not_the_machines() {
        let mut taken = delegated("a:65536:65536\nb:200000:1\n# c\nd:x:1\n\ne:4294967295:65536");
        assert_eq!(taken.len(), 3);
        for seed in [0, 0, 5, RANGES - 2, RANGES - 2, u32::MAX] {
            let range = choose(seed, &taken).unwrap();
            assert!(range.host_id >= LENGTH && range.host_id.checked_add(LENGTH).is_some());
            for other in &taken {
                let apart = range.host_id.abs_diff(other.host_id);
                assert!(apart >= if range.host_id < other.host_id { LENGTH } else { other.length });
            }
            taken.push(range);
        }
        assert_eq!(choose(7, &[IdMapping { host_id: 0, length: u32::MAX }]), None);
    }

    #[test]
    fn a_sandbox_tells_its_range() {
        let range = IdMapping { host_id: 5 * LENGTH, length: LENGTH };
        let annotations = [(labels::USERS.to_owned(), range.host_id.to_string())].into();
        assert_eq!(of(&annotations), Some(range));
        assert_eq!(of(&BTreeMap::new()), None);
    }
}
