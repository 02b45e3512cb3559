//! The small control plane, over the Kubernetes API only.
//!
//! | controller | what it sees to | asks as |
//! | --- | --- | --- |
//! | [`daemon_set`] | one pod of a template on each node that takes it | `daemon-set-controller` |
//! | [`deployment`] | the ReplicaSets of a Deployment, one for each template | `deployment-controller` |
//! | [`owner_gc`] | what is owned goes with its owners | `generic-garbage-collector` |
//! | [`replica_set`] | as many pods of a template as a ReplicaSet says | `replicaset-controller` |
//! | [`service_account`] | each namespace has the account `default` | `service-account-controller` |
//! | [`scheduler`] | each pod has a node that can run it | `system:kube-scheduler` |
//! | [`root_ca`] | each namespace has the authority's certificate | `root-ca-cert-publisher` |
//!
//! # Flow
//!
//! [`Informers`](informers::Informers) follow each kind once for all controllers, as
//! `system:kube-controller-manager`. A controller is told of changes ([`informer`]), which puts keys
//! into its [`queue`]; for each key it reads what the informers have, `decide`s what is to be written
//! (a pure function: objects and the time in, writes out) and writes that as the service account of
//! `kube-system` that it has in every cluster, with no more rights than that.
//!
//! # Guarantees
//!
//! - Nothing is asked again and again that a watch tells.
//! - There is no way but the API's: all this could be on another machine.
//! - A panic in one controller restarts that one.
//!
//! To add one: a file with `decide` and `run`, a line in [`CONTROLLERS`] and in the table above, and its role
//! in the API server's `authz/bootstrap/controllers.rs`.

mod claim;
mod context;
mod daemon_set;
mod deployment;
mod events;
mod informer;
mod informers;
mod keep;
mod outage;
mod owner;
mod owner_gc;
mod pod_control;
mod pods;
mod queue;
mod replica_set;
mod root_ca;
mod scheduler;
mod service_account;
mod written;

use std::pin::Pin;

use tokio::task::JoinSet;

use context::Contexts;
pub use context::{Clients, Facts};

/// Whom each acts as, who tells its events, and what it does.
const CONTROLLERS: &[(&str, &str, Run)] = &[
    ("daemon-set-controller", "daemonset-controller", |it| Box::pin(daemon_set::run(it))),
    ("deployment-controller", "deployment-controller", |it| Box::pin(deployment::run(it))),
    ("generic-garbage-collector", "garbage-collector-controller", |it| Box::pin(owner_gc::run(it))),
    ("replicaset-controller", "replicaset-controller", |it| Box::pin(replica_set::run(it))),
    ("root-ca-cert-publisher", "root-ca-cert-publisher", |it| Box::pin(root_ca::run(it))),
    (scheduler::USER, "default-scheduler", |it| Box::pin(scheduler::run(it))),
    ("service-account-controller", "serviceaccount-controller", |it| {
        Box::pin(service_account::run(it))
    }),
];

/// Runs all controllers, for ever; they end when this is dropped.
pub async fn run(clients: &dyn Clients, facts: Facts) {
    let contexts = Contexts::new(clients, facts);
    let mut controllers = JoinSet::new();
    for (name, component, run) in CONTROLLERS {
        let context = contexts.of(name, component, &mut controllers);
        controllers.spawn(keep::keep(*name, move || run(context.clone())));
    }
    while controllers.join_next().await.is_some() {}
}

/// A controller at work.
type Run = fn(context::Context) -> Pin<Box<dyn Future<Output = ()> + Send>>;
