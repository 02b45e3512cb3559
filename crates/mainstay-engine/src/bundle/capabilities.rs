//! What a container's processes may do beyond an ordinary user.

use mainstay_cri::LinuxContainerSecurityContext;
use mainstay_linux::capability::Capabilities;
use mainstay_shim_protocol::Capabilities as Sets;

/// What every container has unless it says otherwise. Source: `defaultUnixCaps` in
/// `pkg/oci/spec.go` of containerd.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// A capability that cannot be given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UnknownCapability {
    /// There is none of this name.
    #[error("there is no capability {0}; the names are those of capabilities(7), without CAP_")]
    NoSuch(String),
    /// This process does not have it itself.
    #[error(
        "capability {0} cannot be given: mainstay does not have it itself on this machine; run \
         mainstay with it, or take it out of securityContext.capabilities.add"
    )]
    NotHeld(String),
}

/// The sets of a container.
///
/// Added and dropped ones as the CRI says (`ALL` first, then by name), and with `ALL` in both, nothing but what is
/// added by name, as containerd has it (`WithCapabilities` in its `internal/cri/opts/spec_opts.go`). What was added
/// by name has to be there; what comes by default or with `ALL` is given as far as it is.
pub(crate) fn of(
    security: &LinuxContainerSecurityContext,
    held: Capabilities,
) -> Result<Sets, UnknownCapability> {
    let is_all = |name: &String| name.eq_ignore_ascii_case("all");
    let named = |name: &String| {
        Capabilities::named(name).ok_or_else(|| UnknownCapability::NoSuch(name.clone()))
    };
    let mut set = if security.privileged {
        held
    } else if security.drop_capabilities.iter().any(is_all) {
        Capabilities::default()
    } else if security.add_capabilities.iter().any(is_all) {
        held
    } else {
        let default = DEFAULT.iter().filter_map(|name| Capabilities::named(name));
        default.fold(Capabilities::default(), Capabilities::with).and(held)
    };
    for name in security.add_capabilities.iter().filter(|name| !is_all(name)) {
        let one = named(name)?;
        if !held.contains(one) {
            return Err(UnknownCapability::NotHeld(name.clone()));
        }
        set = set.with(one);
    }
    for name in security.drop_capabilities.iter().filter(|name| !is_all(name)) {
        set = set.without(named(name)?);
    }
    // Not inheritable: that would hand them to programs of other users too (CVE-2022-24769).
    Ok(Sets { bounding: set.bits(), permitted: set.bits(), inheritable: 0, ambient: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(security: &LinuxContainerSecurityContext, held: Capabilities) -> Vec<&'static str> {
        Capabilities::from_bits(of(security, held).unwrap().bounding).names().collect()
    }

    fn security(add: &[&str], drop: &[&str]) -> LinuxContainerSecurityContext {
        let strings = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
        LinuxContainerSecurityContext {
            add_capabilities: strings(add),
            drop_capabilities: strings(drop),
            ..Default::default()
        }
    }

    #[test]
    fn added_and_dropped_as_the_cri_says() {
        let all = Capabilities::all();
        assert_eq!(names(&security(&[], &[]), all).len(), DEFAULT.len());
        assert_eq!(names(&security(&["NET_ADMIN"], &["ALL"]), all), ["NET_ADMIN"]);
        assert_eq!(names(&security(&["ALL"], &["KILL"]), all).len(), 40);
        assert_eq!(names(&security(&["ALL", "KILL"], &["ALL"]), all), ["KILL"]);
        assert!(!names(&security(&[], &["NET_RAW"]), all).contains(&"NET_RAW"));
        let both = security(&["CAP_SYS_TIME"], &["SYS_TIME"]);
        assert!(!names(&both, all).contains(&"SYS_TIME"));
    }

    #[test]
    fn what_is_not_held_is_missed_only_by_those_who_name_it() {
        let resource = Capabilities::named("SYS_RESOURCE").unwrap();
        let held = Capabilities::all().without(resource);
        assert_eq!(names(&security(&["ALL"], &[]), held).len(), 40);
        let error = of(&security(&["SYS_RESOURCE"], &[]), held).unwrap_err().to_string();
        assert!(error.contains("SYS_RESOURCE") && error.contains("take it out"), "{error}");
        assert!(of(&security(&["FLY"], &[]), held).is_err());
        assert!(of(&security(&[], &["FLY"]), held).is_err());
    }
}
