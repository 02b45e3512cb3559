//! AppArmor: profiles in the kernel of what programs may do. Source:
//! `Documentation/admin-guide/LSM/apparmor.rst` of Linux, apparmor(7).

use std::fs;
use std::io;
use std::path::Path;

const PROFILES: &str = "/sys/kernel/security/apparmor/profiles";

/// Whether the kernel has it, and it is switched on.
pub fn is_enabled() -> bool {
    let on = fs::read_to_string("/sys/module/apparmor/parameters/enabled");
    on.is_ok_and(|on| on.starts_with('Y')) && Path::new(PROFILES).exists()
}

/// Whether a profile is in the kernel.
///
/// # Errors
///
/// When the kernel's list cannot be read, as by others than root.
pub fn is_loaded(profile: &str) -> io::Result<bool> {
    Ok(lists(&fs::read_to_string(PROFILES)?, profile))
}

/// Each line is a name, which may have blanks in it, and a mode in parentheses.
fn lists(text: &str, profile: &str) -> bool {
    text.lines().any(|line| line.rsplit_once(" (").is_some_and(|(name, _)| name == profile))
}

/// Lets the next program that this thread executes, or one that it clones until then, run under a profile.
/// That the system calls until then are not under it is the point of it.
///
/// # Errors
///
/// `NotFound` when the kernel does not have the profile.
pub fn confine_next_program(profile: &str) -> io::Result<()> {
    fs::write("/proc/thread-self/attr/apparmor/exec", format!("exec {profile}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_are_found_by_their_whole_names() {
        let text =
            "docker-default (enforce)\n/usr/bin/man (complain)\na name (of mine) (unconfined)\n";
        for name in ["docker-default", "/usr/bin/man", "a name (of mine)"] {
            assert!(lists(text, name), "{name}");
        }
        for name in ["docker", "default", "a name", "", "docker-default (enforce)"] {
            assert!(!lists(text, name), "{name}");
        }
    }

    #[test]
    fn a_kernel_without_it_takes_no_profile() {
        if !is_enabled() {
            assert!(confine_next_program("some").is_err());
        }
    }
}
