//! The small control plane, over the Kubernetes API only.
//!
//! | controller | what it sees to | asks as |
//! | --- | --- | --- |
//! | [`csr`]: approving, signing, cleaning | nodes have the certificates that are theirs | `certificate-controller` |
//! | [`daemon_set`] | one pod of a template on each node that takes it | `daemon-set-controller` |
//! | [`deployment`] | the ReplicaSets of a Deployment, one for each template | `deployment-controller` |
//! | [`disruption`] | how many pods of a budget may be disrupted | `disruption-controller` |
//! | [`node_ipam`] | each node has a range of addresses for its pods | `node-controller` |
//! | [`node_lifecycle`] | nodes that are not heard of are told from those that are | `node-controller` |
//! | [`owner_gc`] | what is owned goes with its owners | `generic-garbage-collector` |
//! | [`pod_gc`] | pods that nobody runs any more go | `pod-garbage-collector` |
//! | [`replica_set`] | as many pods of a template as a ReplicaSet says | `replicaset-controller` |
//! | [`service_account`] | each namespace has the account `default` | `service-account-controller` |
//! | [`scheduler`] | each pod has a node that can run it | `system:kube-scheduler` |
//! | [`token_cleaner`] | bootstrap tokens go when they have expired | `token-cleaner` |
//! | [`root_ca`] | each namespace has the authority's certificate | `root-ca-cert-publisher` |
//! | [`taint_eviction`] | pods do not stay where a taint does not let them | `node-controller` |
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
//! - There is no way but the API's: all this could be on another machine. Only the signer needs more than
//!   that, the authority, which it is handed in [`Facts`].
//! - A panic in one controller restarts that one.
//!
//! Where several processes serve one API, [`lead`] lets one of them run the controllers.
//!
//! To add one: a file with `decide` and `run`, a line in [`CONTROLLERS`] and in the table above, and its role
//! in the API server's `authz/bootstrap/controllers.rs`.

mod claim;
mod context;
mod csr;
mod daemon_set;
mod deployment;
mod disruption;
mod election;
mod events;
mod expiry;
mod informer;
mod informers;
mod keep;
mod namespaces;
mod node_ipam;
mod node_lifecycle;
mod outage;
mod owner;
mod owner_gc;
mod pod_control;
mod pod_gc;
mod pods;
mod queue;
mod replica_set;
mod root_ca;
mod scheduler;
mod selection;
mod service_account;
mod taint_eviction;
mod template_hash;
mod token_cleaner;
mod written;

use std::pin::Pin;

use tokio::task::JoinSet;

use context::Contexts;
pub use context::{Clients, Facts};
pub use election::lead;
pub use node_lifecycle::NodeTimes;
pub use selection::{Selection, UnknownController};

/// All of them.
const CONTROLLERS: &[Controller] = &[
    Controller {
        name: "certificatesigningrequest-approving-controller",
        user: "certificate-controller",
        component: "certificate-controller",
        run: |it| Box::pin(csr::approving::run(it)),
    },
    Controller {
        name: "certificatesigningrequest-cleaner-controller",
        user: "certificate-controller",
        component: "certificate-controller",
        run: |it| Box::pin(csr::cleaning::run(it)),
    },
    Controller {
        name: "certificatesigningrequest-signing-controller",
        user: "certificate-controller",
        component: "certificate-controller",
        run: |it| Box::pin(csr::signing::run(it)),
    },
    Controller {
        name: "daemonset-controller",
        user: "daemon-set-controller",
        component: "daemonset-controller",
        run: |it| Box::pin(daemon_set::run(it)),
    },
    Controller {
        name: "deployment-controller",
        user: "deployment-controller",
        component: "deployment-controller",
        run: |it| Box::pin(deployment::run(it)),
    },
    Controller {
        name: "disruption-controller",
        user: "disruption-controller",
        component: "controllermanager",
        run: |it| Box::pin(disruption::run(it)),
    },
    Controller {
        name: "garbage-collector-controller",
        user: "generic-garbage-collector",
        component: "garbage-collector-controller",
        run: |it| Box::pin(owner_gc::run(it)),
    },
    Controller {
        name: "kube-scheduler",
        user: scheduler::USER,
        component: "default-scheduler",
        run: |it| Box::pin(scheduler::run(it)),
    },
    Controller {
        name: "node-ipam-controller",
        user: "node-controller",
        component: "cidrAllocator",
        run: |it| Box::pin(node_ipam::run(it)),
    },
    Controller {
        name: "node-lifecycle-controller",
        user: "node-controller",
        component: "node-controller",
        run: |it| Box::pin(node_lifecycle::run(it)),
    },
    Controller {
        name: "pod-garbage-collector-controller",
        user: "pod-garbage-collector",
        component: "pod-garbage-collector",
        run: |it| Box::pin(pod_gc::run(it)),
    },
    Controller {
        name: "replicaset-controller",
        user: "replicaset-controller",
        component: "replicaset-controller",
        run: |it| Box::pin(replica_set::run(it)),
    },
    Controller {
        name: "root-ca-certificate-publisher-controller",
        user: "root-ca-cert-publisher",
        component: "root-ca-cert-publisher",
        run: |it| Box::pin(root_ca::run(it)),
    },
    Controller {
        name: "serviceaccount-controller",
        user: "service-account-controller",
        component: "serviceaccount-controller",
        run: |it| Box::pin(service_account::run(it)),
    },
    Controller {
        name: "taint-eviction-controller",
        user: "node-controller",
        component: "taint-eviction-controller",
        run: |it| Box::pin(taint_eviction::run(it)),
    },
    Controller {
        name: "token-cleaner-controller",
        user: "token-cleaner",
        component: "token-cleaner",
        run: |it| Box::pin(token_cleaner::run(it)),
    },
];

/// One of them.
struct Controller {
    /// What a kube-controller-manager calls it.
    name: &'static str,
    /// Whom it acts as.
    user: &'static str,
    /// Who tells its events.
    component: &'static str,
    run: Run,
}

/// Runs the controllers that are selected, for ever; they end when this is dropped.
pub async fn run(clients: &dyn Clients, facts: Facts, selection: &Selection) {
    let contexts = Contexts::new(clients, facts);
    let mut controllers = JoinSet::new();
    for controller in CONTROLLERS.iter().filter(|it| selection.has(it.name)) {
        let context = contexts.of(controller.user, controller.component, &mut controllers);
        let run = controller.run;
        controllers.spawn(keep::keep(controller.name, move || run(context.clone())));
    }
    while controllers.join_next().await.is_some() {}
}

/// A controller at work.
type Run = fn(context::Context) -> Pin<Box<dyn Future<Output = ()> + Send>>;
