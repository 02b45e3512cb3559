//! What tests run, unpacked from Debian packages by `cargo xtask test-tools`.

use std::path::PathBuf;
use std::process::Child;

use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

/// The directory of it all: `$MAINSTAY_TEST_TOOLS`, an absolute path, else `target/test-tools`.
pub fn directory() -> PathBuf {
    let workspace = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/test-tools");
    std::env::var_os("MAINSTAY_TEST_TOOLS").map_or_else(|| PathBuf::from(workspace), PathBuf::from)
}

/// One of the programs: `busybox`, `docker-registry`, `etcd/usr/bin/etcdctl`; or a directory tree
/// that is the root of an image: `etcd`, `nginx`; or one of CNI plugins: `cni`.
///
/// # Panics
///
/// When it is not there, with the command that brings it: a test that cannot run must not pass.
pub fn program(name: &str) -> PathBuf {
    let path = directory().join(name);
    assert!(path.exists(), "{} is missing; `cargo xtask test-tools` brings it", path.display());
    path
}

/// A file with an image, as `docker save` writes it: `busybox`, `etcd` or `nginx`, which is called
/// `local/busybox:1` and so on. That of nginx serves Debian's default page on port 80.
///
/// # Panics
///
/// When it is not there, as [`program`].
pub fn image(name: &str) -> PathBuf {
    program(&format!("images/{name}.tar"))
}

/// kubectl: the one on the path, else Debian's, which is of version 1.20.
///
/// # Panics
///
/// When there is none, as [`program`].
pub fn kubectl() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|directory| directory.join("kubectl"))
        .find(|path| path.is_file())
        .unwrap_or_else(|| program("kubectl"))
}

/// Whether this is root. Prints why a test is skipped when it is not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: needs root");
    }
    root
}

/// Has a program stand still, or go on. When this returns, none of its threads runs: between the signal and the first
/// thread that takes it they may, and answer.
///
/// # Panics
///
/// When it has ended.
#[expect(clippy::unwrap_used, reason = "for tests")]
pub fn suspend(child: &Child, suspended: bool) {
    let pid = Pid::from_child(child);
    if !suspended {
        return kill_process(pid, Signal::CONT).unwrap();
    }
    kill_process(pid, Signal::STOP).unwrap();
    let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let status = retry_on_intr(|| waitid(WaitId::Pid(pid), stopped)).unwrap().unwrap();
    assert!(status.stopped(), "{status:?}");
}
