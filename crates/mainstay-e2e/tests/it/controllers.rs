//! Controllers against the API that they are made for, in one process.

mod basics;
mod cluster;
mod daemon_set;
mod deployment;
mod disruption;
mod election;
mod eviction;
mod node_ipam;
mod node_lifecycle;
mod owner_gc;
mod pod_gc;
mod replica_set;
mod scheduler;
