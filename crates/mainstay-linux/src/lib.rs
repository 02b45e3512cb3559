//! Safe, policy-free wrappers for the Linux interfaces that mainstay uses.
//!
//! Everything here says what the kernel can do and nothing about what it is good for. This is the
//! only crate of the workspace with `unsafe` in it; `cargo xtask tidy` checks that.

#![expect(unsafe_code, reason = "the one crate that may; each block states why it is sound")]

pub mod apparmor;
pub mod capability;
pub mod cgroup;
pub mod dbus;
pub mod disk_usage;
pub mod durable;
pub mod machine;
pub mod memfd;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod nftables;
pub mod path;
pub mod process;
pub mod seccomp;
pub mod socket;
pub mod spawn;
pub mod users;
