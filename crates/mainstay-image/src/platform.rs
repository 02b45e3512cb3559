//! Operating system, architecture and variant, and which image of an index fits a machine best.
//!
//! The rules are containerd's (`containerd/platforms`: `database.go` `normalizeArch`, `compare.go`
//! `platformVector`), with one addition: the level of an amd64 machine (v1 to v4) is looked up, so
//! that an image built for it is preferred where the index has one.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What an image runs on. Source: OCI image-spec, `image-index.md`, `platform` property.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Platform {
    /// The operating system in Go's words, such as `linux`.
    #[serde(default)]
    pub os: String,
    /// The architecture in Go's words, such as `amd64`, `arm64`, `arm`, `riscv64`.
    #[serde(default)]
    pub architecture: String,
    /// The variant, such as `v7`; empty where the architecture says enough.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

// === impl Platform ===

impl Platform {
    /// The platform of this machine.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" if cfg!(target_endian = "little") => "ppc64le",
            "powerpc64" => "ppc64",
            "loongarch64" => "loong64",
            other => other,
        };
        Self { os: "linux".into(), architecture: architecture.into(), variant: host_variant() }
            .normalized()
    }

    /// The same platform in the one spelling that comparisons use.
    pub fn normalized(&self) -> Self {
        let os = self.os.to_ascii_lowercase();
        let architecture = self.architecture.to_ascii_lowercase();
        let variant = self.variant.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
            ("i386" | "386", _) => ("386", ""),
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", "v7"),
            ("armel", _) => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            ("arm", "5") => ("arm", "v5"),
            ("arm", "6") => ("arm", "v6"),
            ("arm", "8") => ("arm", "v8"),
            (architecture, variant) => (architecture, variant),
        };
        Self { os, architecture: architecture.into(), variant: variant.into() }
    }

    /// The platforms that a machine of this one can run, best first. Source: `platformVector`.
    fn runnable(&self) -> Vec<Self> {
        let Self { os, architecture, variant } = self.normalized();
        let of = |architecture: &str, variant: String| Self {
            os: os.clone(),
            architecture: architecture.into(),
            variant,
        };
        let level = |variant: &str| variant.strip_prefix('v').and_then(|n| n.parse::<u32>().ok());
        let arm_down_to_v5 = |from: u32| (5..=from).rev().map(|n| format!("v{n}"));
        let mut list: Vec<Self> = match architecture.as_str() {
            "amd64" => {
                let levels = (2..=level(&variant).unwrap_or(1).min(9)).rev();
                let levels = levels.map(|n| of("amd64", format!("v{n}")));
                levels.chain([of("amd64", String::new()), of("386", String::new())]).collect()
            }
            "arm" => match level(&variant) {
                Some(n @ 5..=9) => arm_down_to_v5(n).map(|v| of("arm", v)).collect(),
                _ => Vec::new(),
            },
            "arm64" => {
                let mut list: Vec<Self> =
                    arm64_variants(&variant).into_iter().map(|v| of("arm64", v)).collect();
                list.extend(arm_down_to_v5(8).map(|v| of("arm", v)));
                list
            }
            _ => Vec::new(),
        };
        // An unknown variant runs at least what is built for exactly it.
        let itself = of(&architecture, variant);
        if !list.contains(&itself) {
            list.insert(0, itself);
        }
        list
    }

    /// Whether a machine of this one runs what is built for `other`. What does not say what it is
    /// built for may be anything.
    pub fn runs(&self, other: &Self) -> bool {
        other.os.is_empty() || other.architecture.is_empty() || self.choose([other]).is_some()
    }

    /// What to tell about an image that is built for another machine and was asked for all the
    /// same: it may run by an emulator, or be labelled wrongly.
    pub(crate) fn note(&self, name: &str, other: &Self) -> Option<String> {
        (!self.runs(other)).then(|| {
            format!("image {name} is built for {other} and this is {self}: it may not start")
        })
    }

    /// The index of the candidate that this machine runs best, or `None` if it runs none of them.
    /// Of equals the first wins, as index entries are in order of preference.
    pub fn choose<'a>(&self, candidates: impl IntoIterator<Item = &'a Self>) -> Option<usize> {
        let runnable = self.runnable();
        let rank = |candidate: &Self| {
            let candidate = candidate.normalized();
            runnable.iter().position(|platform| *platform == candidate)
        };
        let ranked = candidates.into_iter().enumerate();
        let ranked = ranked.filter_map(|(i, candidate)| rank(candidate).map(|rank| (rank, i)));
        ranked.min().map(|(_, i)| i)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// The arm64 variants that a machine of `variant` runs, best first. Armv9.n includes Armv8.(n+5),
/// and no Armv8 above 8.9 exists. Source: `arm64variantToVersion`.
fn arm64_variants(variant: &str) -> Vec<String> {
    let name = |major: u32, minor: u32| match (major, minor) {
        (8, 0) => String::new(),
        (major, 0) => format!("v{major}"),
        (major, minor) => format!("v{major}.{minor}"),
    };
    let down = |major: u32, from: u32| (0..=from).rev().map(move |minor| name(major, minor));
    let version = match variant {
        "" => Some((8, 0)),
        "v9" => Some((9, 0)),
        other => other.strip_prefix('v').and_then(|text| {
            let (major, minor) = text.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        }),
    };
    match version {
        Some((8, minor @ 0..=9)) => down(8, minor).collect(),
        Some((9, minor @ 0..=9)) => down(9, minor).chain(down(8, (minor + 5).min(9))).collect(),
        _ => down(8, 0).collect(),
    }
}

#[cfg(target_arch = "x86_64")]
fn host_variant() -> String {
    // The levels of the x86-64 psABI, section 3.1.1; what is not listed comes with what is.
    let v2 = is_x86_feature_detected!("sse4.2")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("cmpxchg16b");
    let v3 = is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("f16c")
        && is_x86_feature_detected!("fma")
        && is_x86_feature_detected!("lzcnt")
        && is_x86_feature_detected!("movbe");
    let v4 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512cd")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    match (v2, v3, v4) {
        (true, true, true) => "v4",
        (true, true, false) => "v3",
        (true, false, _) => "v2",
        (false, ..) => "",
    }
    .into()
}

#[cfg(target_arch = "arm")]
fn host_variant() -> String {
    // What the processor is, as containerd's `cpuinfo.go` reads it: the kernel may serve 32-bit
    // programs on an ARMv8 processor, which then runs images up to v8.
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("CPU architecture"));
    let version: String = line
        .and_then(|line| line.split_once(':'))
        .map(|(_, value)| value.trim().chars().take_while(char::is_ascii_digit).collect())
        .unwrap_or_default();
    match version.as_str() {
        "5" | "6" | "7" | "8" => format!("v{version}"),
        _ => "v7".into(),
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "arm")))]
fn host_variant() -> String {
    String::new()
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap_or_default(),
            architecture: parts.next().unwrap_or_default(),
            variant: parts.next().unwrap_or_default(),
        }
    }

    fn check(host: &str, candidates: &[&str], expected: &Expect) {
        let parsed: Vec<Platform> = candidates.iter().map(|text| platform(text)).collect();
        let chosen = platform(host).choose(&parsed);
        expected.assert_eq(chosen.map_or("none", |i| candidates[i]));
    }

    #[test]
    fn amd64_takes_the_highest_level_it_has_and_386_last() {
        let index = ["linux/386", "linux/amd64", "linux/amd64/v2", "linux/amd64/v3", "linux/arm64"];
        check("linux/amd64/v4", &index, &expect!["linux/amd64/v3"]);
        check("linux/amd64/v2", &index, &expect!["linux/amd64/v2"]);
        check("linux/amd64", &index, &expect!["linux/amd64"]);
        check("linux/amd64/v3", &["linux/386"], &expect!["linux/386"]);
        check("linux/amd64", &["linux/amd64/v3", "linux/arm64"], &expect!["none"]);
        check("linux/amd64", &["windows/amd64"], &expect!["none"]);
    }

    #[test]
    fn arm_falls_back_to_older_versions() {
        let index = ["linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8"];
        check("linux/arm/v7", &index, &expect!["linux/arm/v7"]);
        check("linux/arm/v6", &index, &expect!["linux/arm/v6"]);
        check("linux/arm/v5", &index, &expect!["linux/arm/v5"]);
        check("linux/arm/v5", &["linux/arm/v6"], &expect!["none"]);
        // An entry without a variant is v7.
        check("linux/arm/v6", &["linux/arm"], &expect!["none"]);
        check("linux/arm/v7", &["linux/arm"], &expect!["linux/arm"]);
    }

    #[test]
    fn arm64_runs_older_arm64_and_32_bit_arm() {
        let index = ["linux/arm/v7", "linux/arm64/v8", "linux/arm64/v8.2"];
        check("linux/arm64", &index, &expect!["linux/arm64/v8"]);
        check("linux/arm64/v8.5", &index, &expect!["linux/arm64/v8.2"]);
        check("linux/arm64/v9", &index, &expect!["linux/arm64/v8.2"]);
        check(
            "linux/arm64/v9.2",
            &["linux/arm64/v9.3", "linux/arm64/v8.7"],
            &expect!["linux/arm64/v8.7"],
        );
        check("linux/arm64", &["linux/arm/v7", "linux/arm/v6"], &expect!["linux/arm/v7"]);
    }

    #[test]
    fn spellings_are_the_same_platform() {
        check("linux/x86_64", &["linux/AMD64/v1"], &expect!["linux/AMD64/v1"]);
        check("linux/aarch64/v8", &["linux/arm64"], &expect!["linux/arm64"]);
        check("linux/armhf", &["linux/arm/7"], &expect!["linux/arm/7"]);
        check("linux/riscv64", &["linux/riscv64"], &expect!["linux/riscv64"]);
        check("linux/amd64", &["unknown/unknown"], &expect!["none"]);
    }

    #[test]
    fn what_says_nothing_about_itself_may_run() {
        let host = platform("linux/amd64/v3");
        assert!(host.runs(&platform("linux/x86_64")) && host.runs(&platform("linux")));
        assert!(host.runs(&platform("")) && !host.runs(&platform("linux/arm64")));
    }

    #[test]
    fn the_first_of_equals_wins() {
        let candidates = [platform("linux/amd64"), platform("linux/amd64/v1")];
        assert_eq!(platform("linux/amd64").choose(&candidates), Some(0));
    }

    #[test]
    fn this_machine_has_a_platform() {
        let host = Platform::host();
        assert_eq!(host.os, "linux");
        assert_eq!(host.choose([&host]), Some(0));
    }
}
