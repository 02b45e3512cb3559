//! Controllers against the API that they are made for, in one process.

mod basics;
mod cluster;
mod daemon_set;
mod deployment;
mod owner_gc;
mod replica_set;
mod scheduler;
