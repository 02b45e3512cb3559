//! The names of everything that an instance has on the machine's network.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// The root-dir whose instance uses the plain names.
const DEFAULT_ROOT_DIR: &str = "/var/lib/mainstay";

/// The names of one instance, derived from its root-dir, so that several instances live side by
/// side and each finds its own things again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The bridge: `mainstay0`, or `ms-` and eight hexadecimal digits.
    pub bridge: String,
    /// The table of nf_tables: `mainstay`, or `mainstay-` and the same digits.
    pub table: String,
    /// The link group of the bridge and its ports, by which they are known even when the bridge
    /// is gone; and the priority of the instance's routes.
    pub group: u32,
    /// The link group of ports that are about to be deleted, all together.
    pub doomed: u32,
}

impl Names {
    /// The names of the instance whose root-dir is `root_dir`, an absolute path.
    pub fn of(root_dir: &Path) -> Self {
        // By components: a trailing or doubled slash makes no other instance.
        let root_dir: PathBuf = root_dir.components().collect();
        let digest = Sha256::digest(root_dir.as_os_str().as_encoded_bytes());
        // Far away from the small numbers that people choose, and two of a kind.
        let group = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        let group = group & 0x3fff_fffe | 0x4000_0000;
        let (bridge, table) = if root_dir == Path::new(DEFAULT_ROOT_DIR) {
            ("mainstay0".into(), "mainstay".into())
        } else {
            let digits = hex(&digest[..4]);
            (format!("ms-{digits}"), format!("mainstay-{digits}"))
        };
        Self { bridge, table, group, doomed: group + 1 }
    }

    /// The name of a sandbox's link on the machine's side; a link name has at most 15 bytes.
    pub fn link(&self, sandbox: &str) -> String {
        let digest = Sha256::digest(format!("{}\0{sandbox}", self.table));
        format!("ms{}", hex(&digest[..6]))
    }

    /// The name of the link that what a sandbox sends takes a detour through, if that is bounded.
    pub fn detour(&self, sandbox: &str) -> String {
        self.link(sandbox).replacen("ms", "mb", 1)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn check(root_dir: &str, expected: &expect_test::Expect) {
        let names = Names::of(Path::new(root_dir));
        expected.assert_debug_eq(&(&names, names.link("a")));
    }

    #[test]
    fn the_default_root_dir_has_the_plain_names() {
        check(
            "/var/lib/mainstay",
            &expect![[r#"
            (
                Names {
                    bridge: "mainstay0",
                    table: "mainstay",
                    group: 1899126996,
                    doomed: 1899126997,
                },
                "msf077776eed2f",
            )
        "#]],
        );
        assert_eq!(
            Names::of(Path::new("/var/lib/mainstay")),
            Names::of(Path::new("/var/lib//mainstay/")),
        );
    }

    #[test]
    fn another_root_dir_has_other_names() {
        check(
            "/srv/node-2",
            &expect![[r#"
            (
                Names {
                    bridge: "ms-eda9455c",
                    table: "mainstay-eda9455c",
                    group: 1839809884,
                    doomed: 1839809885,
                },
                "ms18e42a4ffb55",
            )
        "#]],
        );
    }

    #[test]
    fn names_fit_the_kernels_limit() {
        for number in 0..1000 {
            let names = Names::of(Path::new(&format!("/srv/node-{number}")));
            assert!(names.bridge.len() <= 15 && names.link("a sandbox").len() <= 15);
            assert!(names.group != 0 && names.group != names.doomed);
        }
    }
}
