//! What AppArmor lets containers do.
//!
//! Where the kernel has it, a container for which nothing is said has the default profile, as with
//! containerd (`internal/cri/server/container_create.go`, `generateApparmorSpecOpts`). That one is made here
//! and put into the kernel by `apparmor_parser`, which compiles it for what this kernel knows of; it stays
//! there, since containers of other instances may have it.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, Once, PoisonError};

use mainstay_cri::{AppArmorProfile, Error, ErrorKind, Result};
use mainstay_linux::apparmor;

use crate::io_failed;

/// The default profile. Whoever changes its text changes its name too: what is in the kernel is not replaced.
const DEFAULT: &str = "mainstay-default-1";

/// What a program in a container has no business with, though its user may be root: the machine's settings,
/// its devices and its kernel's inner life. Without `include`, so that it needs nothing of the distribution's.
const RULES: &str = "
  capability,
  file,
  network,
  umount,
  signal (receive) peer=unconfined,
  signal (send, receive) peer=@{profile_name},
  ptrace (trace, read, tracedby, readby) peer=@{profile_name},

  deny mount,
  deny /proc/* w,
  deny /proc/{[^1-9s],s[^y]}*/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/k[^e]** w,
  deny /proc/sys/kernel/[^s]** w,
  deny /proc/sys/kernel/s[^h]** w,
  deny /proc/sys/kernel/sh[^m]** w,
  deny /proc/{kcore,kmem,mem,sysrq-trigger} rwklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
";

/// Where the program is that puts profiles into the kernel.
const PARSERS: [&str; 3] =
    ["/usr/sbin/apparmor_parser", "/sbin/apparmor_parser", "/usr/bin/apparmor_parser"];

/// AppArmor on this machine.
#[derive(Debug)]
pub(crate) struct AppArmor {
    enabled: bool,
    /// One at a time puts the default profile into the kernel.
    loading: Mutex<()>,
    /// That it cannot be loaded is told once.
    told: Once,
}

impl AppArmor {
    /// Looks whether the kernel has it.
    pub(crate) fn of_machine() -> Self {
        Self { enabled: apparmor::is_enabled(), loading: Mutex::new(()), told: Once::new() }
    }

    /// The profile that a container is to have, which is in the kernel then; `None` if it is to have none.
    ///
    /// # Errors
    ///
    /// When one is asked for that cannot be had.
    pub(crate) fn profile(
        &self,
        wanted: Option<&AppArmorProfile>,
        privileged: bool,
    ) -> Result<Option<String>> {
        let refuse = |message: String| Err(Error::new(ErrorKind::InvalidArgument, message));
        match wanted {
            Some(AppArmorProfile::Unconfined) => Ok(None),
            None if !self.enabled || privileged => Ok(None),
            Some(_) if !self.enabled => refuse(
                "AppArmor is not enabled on the host, and the container has a profile of it".into(),
            ),
            Some(AppArmorProfile::RuntimeDefault) if privileged => Ok(None),
            Some(AppArmorProfile::Localhost(name)) => {
                if is_loaded(name)? {
                    return Ok(Some(name.clone()));
                }
                refuse(format!("apparmor profile not found {name}; load it with apparmor_parser"))
            }
            wanted => match (self.load_default(), wanted) {
                (Ok(()), _) => Ok(Some(DEFAULT.to_owned())),
                (Err(error), Some(_)) => Err(error),
                (Err(error), None) => {
                    self.told.call_once(|| {
                        let error = error.chain();
                        tracing::warn!(
                            error,
                            "containers that ask for no profile of AppArmor have none"
                        );
                    });
                    Ok(None)
                }
            },
        }
    }

    /// Puts the default profile into the kernel, if it is not there.
    fn load_default(&self) -> Result<()> {
        let _turn = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if is_loaded(DEFAULT)? {
            return Ok(());
        }
        let parser = PARSERS.into_iter().find(|path| Path::new(path).exists());
        let Some(parser) = parser else {
            let message = "AppArmor's default profile needs apparmor_parser, which is not on this machine; \
                           install the package apparmor, or give the pod an appArmorProfile of the type \
                           Unconfined";
            return Err(Error::new(ErrorKind::FailedPrecondition, message));
        };
        load(parser, &default_profile())
            .map_err(io_failed(format!("cannot load AppArmor's default profile with {parser}")))
    }
}

fn is_loaded(profile: &str) -> Result<bool> {
    apparmor::is_loaded(profile)
        .map_err(io_failed("cannot read the kernel's list of AppArmor profiles"))
}

fn default_profile() -> String {
    let rules = RULES.replace("@{profile_name}", DEFAULT);
    format!("profile {DEFAULT} flags=(attach_disconnected, mediate_deleted) {{{rules}}}\n")
}

/// Has the parser read a profile and give it to the kernel.
fn load(parser: &str, profile: &str) -> io::Result<()> {
    #[expect(clippy::disallowed_methods, reason = "the one program that compiles profiles")]
    let mut child = Command::new(parser)
        .args(["--replace", "--skip-cache", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let written =
        child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(profile.as_bytes()));
    // What it says is a line or two, however it ends.
    let output = child.wait_with_output()?;
    if output.status.success() {
        return written;
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without() -> AppArmor {
        AppArmor { enabled: false, loading: Mutex::new(()), told: Once::new() }
    }

    #[test]
    fn a_machine_without_it_refuses_who_asks_for_a_profile() {
        let none = without();
        for (wanted, taken) in [
            (None, true),
            (Some(AppArmorProfile::Unconfined), true),
            (Some(AppArmorProfile::RuntimeDefault), false),
            (Some(AppArmorProfile::Localhost("mine".into())), false),
        ] {
            for privileged in [false, true] {
                let profile = none.profile(wanted.as_ref(), privileged);
                assert_eq!(profile.is_ok(), taken, "{wanted:?}");
                assert!(profile.is_err() || profile.is_ok_and(|it| it.is_none()));
            }
        }
    }

    #[test]
    fn the_default_profile_speaks_of_itself() {
        let text = default_profile();
        assert!(text.starts_with("profile mainstay-default-1 flags=("));
        assert!(text.contains("signal (send, receive) peer=mainstay-default-1,"));
        assert!(!text.contains('@') && !text.contains("include"));
    }
}
