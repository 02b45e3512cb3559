//! Capabilities of this process, by the names of capabilities(7).

use std::io;

use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set,
    clear_ambient_capability_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities,
};

/// The names in the order of their numbers, without `CAP_`. Source: `include/uapi/linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(u64);

impl Capabilities {
    /// What this process may use itself, and so hand on.
    pub fn held() -> io::Result<Self> {
        let sets = capabilities(None)?;
        Ok(Self((sets.effective & CapabilitySet::all()).bits()))
    }

    /// The set with these numbers as bits.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The numbers as bits.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The set with one capability; `None` if the kernel header knows no such name.
    ///
    /// `name` is taken with and without `CAP_`, in any case.
    pub fn named(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES.iter().position(|known| *known == short).map(|number| Self(1 << number))
    }

    /// Every capability that has a name here.
    pub fn all() -> Self {
        Self((1 << NAMES.len()) - 1)
    }

    /// What is in either.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in this one and not in the other.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// What is in both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether all of the other's are in this one.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names, without `CAP_`, in the order of their numbers.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        NAMES.iter().enumerate().filter(move |(n, _)| self.0 & (1 << n) != 0).map(|(_, name)| *name)
    }
}

/// Takes from the calling thread's bounding set all that is not in `kept`, for good.
///
/// Capabilities that the kernel knows and this crate does not are taken away too.
pub fn limit_bounding_set(kept: Capabilities) -> io::Result<()> {
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        match capability_is_in_bounding_set(one) {
            Ok(true) if kept.0 & (1 << number) == 0 => remove_capability_from_bounding_set(one)?,
            Ok(_) => {}
            // The first number that the kernel does not know; there are none behind it.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Sets what the calling thread has, may use and passes on.
///
/// `ambient` has to be within both of the others. Source: capabilities(7).
pub fn set(
    permitted: Capabilities,
    inheritable: Capabilities,
    ambient: Capabilities,
) -> io::Result<()> {
    let of = |set: Capabilities| CapabilitySet::from_bits_retain(set.0);
    set_capabilities(
        None,
        CapabilitySets {
            effective: of(permitted),
            permitted: of(permitted),
            inheritable: of(inheritable),
        },
    )?;
    clear_ambient_capability_set()?;
    for number in (0..64).filter(|number| ambient.0 & (1 << number) != 0) {
        let one = CapabilitySet::from_bits_retain(1 << number);
        configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_match_the_kernel_header() {
        assert_eq!(Capabilities::named("CAP_SYS_ADMIN"), Some(Capabilities(1 << 21)));
        assert_eq!(Capabilities::named("net_raw"), Some(Capabilities(1 << 13)));
        assert_eq!(Capabilities::named("CHECKPOINT_RESTORE"), Some(Capabilities(1 << 40)));
        assert_eq!(Capabilities::named("FLY"), None);
    }

    #[test]
    fn sets_are_taken_apart_and_put_together() {
        let both = Capabilities::named("KILL").unwrap().with(Capabilities::named("CHOWN").unwrap());
        assert_eq!(both.names().collect::<Vec<_>>(), ["CHOWN", "KILL"]);
        assert!(Capabilities::all().contains(both));
        assert_eq!(both.without(Capabilities::all()), Capabilities::default());
    }
}
