//! mainstay leaves.

use anyhow::ensure;

use crate::vm::guest::Guest;
use crate::vm::pods::MANIFESTS;

/// What shows something of mainstay that is still there. Manifests and the installed files are the
/// operator's.
const TRACES: &[(&str, &str)] = &[
    ("control groups", "find /sys/fs/cgroup -name '*mainstay*'"),
    (
        "units",
        "systemctl list-units --all --plain --no-legend 'mainstay*' | grep -v ^mainstay.service",
    ),
    ("failed units", "systemctl --failed --plain --no-legend"),
    ("mounts", "findmnt --raw --noheadings --output TARGET,SOURCE | grep -e mainstay -e overlay"),
    ("links", "ip -brief link | grep -v -e ^lo -e ^en"),
    ("network namespaces", "lsns --noheadings --type net --output COMMAND | grep -v init"),
    ("rules", "nft list ruleset"),
    ("files", "ls -d /var/lib/mainstay /run/mainstay /var/log/pods 2>/dev/null"),
    ("processes", "ps -e -o args= | grep -e '^mainstay' -e '^/usr/local/bin/mainstay'"),
];

pub(super) fn purge(guest: &mut Guest) -> anyhow::Result<String> {
    guest.sh("systemctl stop mainstay && mainstay down --purge")?;
    for (what, script) in TRACES {
        let left = guest.run(script)?.output;
        ensure!(left.trim().is_empty(), "{what} are left:\n{left}");
    }
    // For whoever installs it next.
    guest.sh(&format!("systemctl --quiet disable mainstay; rm -rf {MANIFESTS} /observed/*"))?;
    Ok(format!("none of {}", TRACES.len()))
}
