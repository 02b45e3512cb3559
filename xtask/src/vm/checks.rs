//! What is checked, step by step. Every step stands on those before it.

mod install;
mod kernel;
mod logind;
mod power;
mod purge;
mod reboot;
mod resources;
mod survive;

use super::guest::{Driver, Guest};

/// One step.
pub(super) struct Check {
    pub(super) name: &'static str,
    /// Returns what was seen, for the table.
    pub(super) check: fn(&mut Guest) -> anyhow::Result<String>,
}

const fn step(
    driver: Driver,
    name: &'static str,
    check: fn(&mut Guest) -> anyhow::Result<String>,
) -> (Driver, Check) {
    (driver, Check { name, check })
}

use Driver::{Cgroupfs, Systemd};

/// Before all others.
pub(super) const BOOT: Check = Check { name: "boot", check: install::boot };

/// All steps: first with the driver that is chosen by itself, then with the other one.
pub(super) const STEPS: &[(Driver, Check)] = &[
    step(Systemd, "installed as users do", install::install),
    step(Systemd, "options in /etc/default", install::options),
    step(Systemd, "options in a drop-in", install::drop_in),
    step(Systemd, "the agent goes, pods stay", survive::survive),
    step(Systemd, "limits in control groups", resources::limits),
    step(Systemd, "out of memory", resources::out_of_memory),
    step(Systemd, "devices", resources::devices),
    step(Systemd, "system calls", resources::system_calls),
    step(Systemd, "huge pages", kernel::huge_pages),
    step(Systemd, "AppArmor", kernel::apparmor),
    step(Systemd, "NFS", kernel::nfs),
    step(Systemd, "SCTP", kernel::sctp),
    step(Systemd, "memory that is kept", kernel::memory),
    step(Systemd, "logind", logind::shutdown),
    step(Systemd, "reboot", reboot::reboot),
    step(Systemd, "power cuts", power::cuts),
    step(Systemd, "down --purge", purge::purge),
    step(Cgroupfs, "installed as users do", install::install),
    step(Cgroupfs, "options in /etc/default", install::options),
    step(Cgroupfs, "the agent goes, pods stay", survive::survive),
    step(Cgroupfs, "limits in control groups", resources::limits),
    step(Cgroupfs, "out of memory", resources::out_of_memory),
    step(Cgroupfs, "devices", resources::devices),
    step(Cgroupfs, "system calls", resources::system_calls),
    step(Cgroupfs, "huge pages", kernel::huge_pages),
    step(Cgroupfs, "reboot", reboot::reboot),
    step(Cgroupfs, "down --purge", purge::purge),
];

/// SplitMix64: the same numbers after the same seed.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }
}
