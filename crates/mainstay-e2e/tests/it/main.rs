//! The programs as an operator meets them: files go in, pods run, the command line tells.
//!
//! Every test has an instance of its own, [`node::Node`], with directories of its own, so that
//! tests run beside each other and beside a mainstay that serves somebody.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod chance;
mod http;
mod image;
mod machines;
mod manifest;
mod node;
mod program;

mod admission;
mod api;
mod bad_input;
mod cli;
mod cni;
mod config;
mod configuration;
mod container;
mod containerd;
mod controllers;
mod cri;
mod debug;
mod dns;
mod dual_stack;
mod etcd;
mod image_volumes;
mod images;
mod init_containers;
mod instances;
mod join;
mod killed;
mod kube_rs;
mod kubectl;
mod kubectl_run;
mod life;
mod lifecycle;
mod lives;
mod main_job;
mod member;
mod model;
mod mounts;
mod namespaces;
mod network;
mod node_shutdown;
mod partition;
mod pressure;
mod probes;
mod pull_secrets;
mod resize;
mod restart_rules;
mod runtime_class;
mod security;
mod servers;
mod shown_objects;
mod sources;
mod storage;
mod tutorial;
mod users;
mod variables;
mod volumes;
