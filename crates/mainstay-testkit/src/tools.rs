//! Programs that tests run, unpacked from Debian packages by `cargo xtask test-tools`.

use std::path::PathBuf;

/// The directory of the unpacked programs: `$MAINSTAY_TEST_TOOLS`, else `target/test-tools`.
pub fn directory() -> PathBuf {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-tools");
    std::env::var_os("MAINSTAY_TEST_TOOLS").map_or_else(|| PathBuf::from(workspace), PathBuf::from)
}

/// One of the programs.
///
/// # Panics
///
/// When it is not there, with the command that brings it: a test that cannot run must not pass.
pub fn program(name: &str) -> PathBuf {
    let path = directory().join(name);
    assert!(path.exists(), "{} is missing; `cargo xtask test-tools` brings it", path.display());
    path
}

/// Whether this is root. Prints why a test is skipped when it is not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}
