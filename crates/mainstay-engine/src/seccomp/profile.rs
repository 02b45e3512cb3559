//! Profiles in Docker's JSON format, which is that of the OCI runtime specification with
//! conditions on whole rules.
//!
//! Source: `config-linux.md` of the OCI runtime specification, "Seccomp"; `profiles/seccomp/seccomp.go`
//! of moby.

use mainstay_linux::capability::Capabilities;
use mainstay_linux::seccomp::{Action, Architecture, Comparison, Condition, Filter, Rule};
use serde::Deserialize;

use super::{Circumstances, family};

/// A file that is not a profile that can be applied.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProfileError {
    /// It does not parse; the cause has line and column.
    #[error("it is not a seccomp profile")]
    Json(#[source] serde_json::Error),
    /// An action that there is not.
    #[error(
        "the action {0} is not supported; there are SCMP_ACT_ALLOW, _ERRNO, _KILL, \
             _KILL_PROCESS, _KILL_THREAD, _LOG, _TRACE and _TRAP"
    )]
    Action(String),
    /// A comparison that there is not.
    #[error(
        "the comparison {0} does not exist; there are SCMP_CMP_EQ, _NE, _LT, _LE, _GT, _GE and \
             _MASKED_EQ"
    )]
    Comparison(String),
    /// A number that is not one of an error.
    #[error("{0} is not the number of an error; they are 0 to 4095")]
    Errno(u32),
    /// Neither `name` nor `names`, or both.
    #[error("a rule has to have names, or one name")]
    Names,
    /// A kernel version that is not one.
    #[error("minKernel {0:?} is not a version such as 4.8")]
    Kernel(String),
    /// The architectures leave out the machine's own.
    #[error("its architectures do not include this machine's, {0}, so that nothing could run")]
    Architecture(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    syscalls: Option<Vec<Syscalls>>,
    /// They tune how filters are loaded and change nothing about what they let through.
    #[serde(default, rename = "flags")]
    _flags: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ArchMap {
    architecture: String,
    #[serde(default)]
    sub_architectures: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Syscalls {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Argument>>,
    #[serde(default, rename = "comment")]
    _comment: Option<String>,
    #[serde(default)]
    includes: Option<Filters>,
    #[serde(default)]
    excludes: Option<Filters>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Argument {
    index: u8,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Filters {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Makes the filter that a profile describes under the circumstances at hand.
pub(super) fn filter(json: &[u8], circumstances: &Circumstances) -> Result<Filter, ProfileError> {
    let profile: Profile = serde_json::from_slice(json).map_err(ProfileError::Json)?;
    let mut rules = Vec::new();
    for syscalls in profile.syscalls.iter().flatten() {
        let includes = syscalls.includes.as_ref();
        let excludes = syscalls.excludes.as_ref();
        if includes.map_or(Ok(true), |it| it.all_hold(circumstances))?
            && !excludes.map_or(Ok(false), |it| it.any_holds(circumstances))?
        {
            rules.push(rule(syscalls)?);
        }
    }
    Ok(Filter {
        default: action(&profile.default_action, profile.default_errno_ret)?,
        architectures: architectures(&profile, circumstances.architecture)?,
        rules,
    })
}

fn rule(syscalls: &Syscalls) -> Result<Rule, ProfileError> {
    let names = match (&syscalls.name, &syscalls.names) {
        (Some(name), None) => vec![name.clone()],
        (None, Some(names)) => names.clone(),
        // Docker writes both, and leaves one of them empty.
        (Some(name), Some(names)) if name.is_empty() => names.clone(),
        (Some(name), Some(names)) if names.is_empty() => vec![name.clone()],
        _ => return Err(ProfileError::Names),
    };
    let conditions = syscalls.args.iter().flatten().map(condition).collect::<Result<_, _>>()?;
    Ok(Rule { names, conditions, action: action(&syscalls.action, syscalls.errno_ret)? })
}

/// `EPERM`, which an action without a number means.
const EPERM: u32 = 1;

fn action(name: &str, errno: Option<u32>) -> Result<Action, ProfileError> {
    let number = || {
        let number = errno.unwrap_or(EPERM);
        u16::try_from(number).ok().filter(|it| *it <= 4095).ok_or(ProfileError::Errno(number))
    };
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_ERRNO" => Action::Errno(number()?),
        "SCMP_ACT_TRACE" => Action::Trace(number()?),
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        other => return Err(ProfileError::Action(other.to_owned())),
    })
}

fn condition(argument: &Argument) -> Result<Condition, ProfileError> {
    let Argument { index, value, value_two, op } = argument;
    let (comparison, value) = match op.as_str() {
        "SCMP_CMP_EQ" => (Comparison::Equal, *value),
        "SCMP_CMP_NE" => (Comparison::NotEqual, *value),
        "SCMP_CMP_LT" => (Comparison::Less, *value),
        "SCMP_CMP_LE" => (Comparison::LessOrEqual, *value),
        "SCMP_CMP_GT" => (Comparison::Greater, *value),
        "SCMP_CMP_GE" => (Comparison::GreaterOrEqual, *value),
        // Here `value` is the mask, and `valueTwo` what is left of the argument under it.
        "SCMP_CMP_MASKED_EQ" => (Comparison::MaskedEqual { mask: *value }, *value_two),
        other => return Err(ProfileError::Comparison(other.to_owned())),
    };
    Ok(Condition { argument: *index, comparison, value })
}

fn architectures(
    profile: &Profile,
    native: Architecture,
) -> Result<Vec<Architecture>, ProfileError> {
    let listed: Option<Vec<Architecture>> = match (&profile.architectures, &profile.arch_map) {
        (Some(names), _) if !names.is_empty() => {
            Some(names.iter().filter_map(|name| architecture(name)).collect())
        }
        (_, Some(map)) if !map.is_empty() => {
            let own = map.iter().find(|entry| architecture(&entry.architecture) == Some(native));
            let entry = own.map(|entry| {
                let sub = entry.sub_architectures.iter().flatten();
                sub.filter_map(|name| architecture(name)).chain([native]).collect()
            });
            Some(entry.unwrap_or_default())
        }
        // Nothing is said, so everything that the machine can run counts.
        _ => None,
    };
    match listed {
        None => Ok(family(native)),
        Some(list) if list.contains(&native) => Ok(list),
        Some(_) => Err(ProfileError::Architecture(std::env::consts::ARCH)),
    }
}

/// Names of other machines' conventions are not known here, and not needed.
fn architecture(name: &str) -> Option<Architecture> {
    Some(match name {
        "SCMP_ARCH_X86_64" => Architecture::X86_64,
        "SCMP_ARCH_X86" => Architecture::X86,
        "SCMP_ARCH_X32" => Architecture::X32,
        "SCMP_ARCH_AARCH64" => Architecture::Aarch64,
        "SCMP_ARCH_ARM" => Architecture::Arm,
        _ => return None,
    })
}

impl Filters {
    /// For `includes`: whatever is named has to hold.
    fn all_hold(&self, circumstances: &Circumstances) -> Result<bool, ProfileError> {
        let caps = self.caps.iter().flatten().all(|name| holds(name, circumstances));
        let arches = self.arches.as_ref().is_none_or(|names| {
            names.is_empty() || names.iter().any(|name| is_native(name, circumstances))
        });
        let kernel = self.min_kernel.as_deref().map_or(Ok(true), |it| is_new(it, circumstances))?;
        Ok(caps && arches && kernel)
    }

    /// For `excludes`: one that holds is enough.
    fn any_holds(&self, circumstances: &Circumstances) -> Result<bool, ProfileError> {
        let caps = self.caps.iter().flatten().any(|name| holds(name, circumstances));
        let arches = self.arches.iter().flatten().any(|name| is_native(name, circumstances));
        let kernel =
            self.min_kernel.as_deref().map_or(Ok(false), |it| is_new(it, circumstances))?;
        Ok(caps || arches || kernel)
    }
}

fn holds(name: &str, circumstances: &Circumstances) -> bool {
    Capabilities::named(name).is_some_and(|it| circumstances.capabilities.contains(it))
}

/// Names as Go has them.
fn is_native(name: &str, circumstances: &Circumstances) -> bool {
    match circumstances.architecture {
        Architecture::X86_64 => name == "amd64",
        Architecture::X86 => name == "x86" || name == "386",
        Architecture::X32 => name == "x32",
        Architecture::Aarch64 => name == "arm64",
        Architecture::Arm => name == "arm",
    }
}

fn is_new(version: &str, circumstances: &Circumstances) -> Result<bool, ProfileError> {
    let parse = || {
        let (major, minor) = version.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    let wanted: (u32, u32) = parse().ok_or_else(|| ProfileError::Kernel(version.to_owned()))?;
    Ok(circumstances.kernel >= wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Filter, ProfileError> {
        let circumstances = Circumstances {
            capabilities: Capabilities::named("SYS_TIME").unwrap(),
            architecture: Architecture::X86_64,
            kernel: (5, 14),
        };
        filter(json.as_bytes(), &circumstances)
    }

    fn names(syscalls: &str) -> Vec<String> {
        let json = format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{syscalls}]}}"#);
        of(&json).unwrap().rules.into_iter().flat_map(|rule| rule.names).collect()
    }

    #[test]
    fn rules_count_under_their_conditions() {
        let rule = |conditions: &str| {
            format!(r#"{{"names":["x"],"action":"SCMP_ACT_ALLOW",{conditions}}}"#)
        };
        for (conditions, counts) in [
            (r#""args":[]"#, true),
            (r#""includes":{"caps":["CAP_SYS_TIME"]}"#, true),
            (r#""includes":{"caps":["CAP_SYS_BOOT"]}"#, false),
            (r#""includes":{"arches":["arm64","amd64"]}"#, true),
            (r#""includes":{"arches":["arm64"]}"#, false),
            (r#""includes":{"minKernel":"4.8"}"#, true),
            (r#""includes":{"minKernel":"6.0"}"#, false),
            (r#""excludes":{"caps":["CAP_SYS_TIME"]}"#, false),
            (r#""excludes":{"caps":["CAP_SYS_BOOT"],"arches":["arm64"]}"#, true),
        ] {
            assert_eq!(!names(&rule(conditions)).is_empty(), counts, "{conditions}");
        }
    }

    #[test]
    fn a_masked_comparison_has_its_mask_first() {
        let json = r#"{"defaultAction":"SCMP_ACT_KILL","syscalls":[{"name":"clone",
            "action":"SCMP_ACT_ERRNO","errnoRet":38,
            "args":[{"index":0,"value":12,"valueTwo":4,"op":"SCMP_CMP_MASKED_EQ"}]}]}"#;
        let filter = of(json).unwrap();
        assert_eq!(filter.default, Action::KillThread);
        assert_eq!(filter.rules[0].action, Action::Errno(38));
        let comparison = Comparison::MaskedEqual { mask: 12 };
        assert_eq!(filter.rules[0].conditions, [Condition { argument: 0, comparison, value: 4 }]);
    }

    #[test]
    fn what_cannot_be_applied_is_refused_by_name() {
        let allow = r#""defaultAction":"SCMP_ACT_ALLOW""#;
        for (json, expected) in [
            ("{", "it is not a seccomp profile"),
            (
                r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#,
                "the action SCMP_ACT_NOTIFY is not supported",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":5000}"#,
                "5000 is not the number",
            ),
            (
                &format!(r#"{{{allow},"architectures":["SCMP_ARCH_S390X"]}}"#),
                "its architectures do not",
            ),
            (&format!(r#"{{{allow},"sycalls":[]}}"#), "it is not a seccomp profile"),
            (
                &format!(r#"{{{allow},"syscalls":[{{"action":"SCMP_ACT_LOG"}}]}}"#),
                "a rule has to have names",
            ),
        ] {
            let error = of(json).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{json}: {error}");
        }
    }
}
