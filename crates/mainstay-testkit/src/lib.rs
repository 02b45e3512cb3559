//! What tests share: payload programs, and the means to leave nothing behind.

pub mod containerd;
pub mod contract;
pub mod datagrams;
pub mod etcd;
pub mod logind;
pub mod pods;
pub mod registry;
pub mod runtime;
pub mod tools;
