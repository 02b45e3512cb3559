//! The agent: it reads manifests, sees what runs, and carries out what lies between.
//!
//! It speaks to a container runtime through the contract of `mainstay-cri` and cannot tell which
//! one it has. What is to be done is decided in `mainstay-plan`; here it is carried out.
//!
//! # Tasks and channels
//!
//! | task | hears | tells |
//! | --- | --- | --- |
//! | a thread `manifests` for each path ([`sources::manifest_dir`]) | inotify, directories | batches of changes → `merge_all` |
//! | `merge_all` ([`agent`], over [`sources::merge`]) | batches | goals (`watch`) → supervisor; notes (`watch`) → board |
//! | [`sources::api::ApiSource`], with an API | the API's pods of this node | goals (`watch`) → supervisor, `publish::mirror` |
//! | [`objects::api::keep`], with an API | what pods refer to, the API | what is known of it (`watch`) → workers |
//! | [`objects::services::keep`], with an API | the API's services | what is known of them → workers |
//! | [`observe::follow`] | the runtime's events | one picture for each pod (`watch`) → its worker |
//! | [`supervise::Supervisor`] | goals, pods that appear, requests, workers that end | a goal for each worker (`watch`) |
//! | one [`worker::Worker`] for each pod | its goal, its picture, its actions, what probes find, time | reports → board; what runs → prober |
//! | [`probe::serve`], with the thread `probes` | what runs of each pod, time, containers' answers | what is found (`watch`) → the pod's worker |
//! | [`publish::keep`] | reports, notes | the board (`watch`) → control socket |
//! | [`http::serve`] | the control socket | requests → supervisor |
//! | [`sources::url::watch`], with a URL | a server, time | manifests → merge |
//! | [`logs::rotate_all`] | time | |
//! | [`eviction::Eviction`] | the board, the machine, time | evictions → workers; what is short (`watch`) → the Node, new pods; restarts → supervisor |
//! | [`image_gc::ImageGc`] | the board, images, time | |
//! | [`node_shutdown::NodeShutdown`], with the thread `logind`, if pods end in an order | logind, the board, time | whose turn it is to end → workers; that the node goes → the Node, new pods |
//! | [`addresses::keep`] | time | the node's addresses (`watch`) → workers, when they report |
//! | [`pods_group::keep`] | time | the limits of all pods together |
//! | [`qos::keep`] | the board, time | what the classes of pods weigh, how long their end takes |
//! | `ask_runtime` ([`agent`]) | time, changes of images | how the runtime is (`watch`) → board |
//! | [`publish::show`], with an API: several | the board, the API's pods of this node, what lies beside manifests, time | mirror pods and objects, the state of its own pods, the Node, its lease, events → the API |
//! | thread `ledger` ([`ledger`]) | changes | files in the root directory |
//!
//! # Guarantees
//!
//! - From a file to a process nothing waits for a timer, a disk's sync or an API.
//! - The end of the agent ends no pod, and nothing has to be told to the next one.
//! - None of the tasks and threads ends by itself. One that does ends the agent, with an error, so
//!   that it is started again: without it something would stand still in silence.

pub mod addresses;
mod agent;
mod dns;
mod eviction;
mod exclusive;
pub mod http;
mod image_gc;
mod ledger;
mod logs;
pub mod node_api;
mod node_shutdown;
mod objects;
mod observe;
mod percent;
mod pods_group;
mod probe;
mod publish;
mod qos;
mod sources;
mod supervise;
mod tokens;
mod users;
mod volumes;
mod worker;

pub use agent::{Agent, AgentConfig, STOP_PATIENCE};
pub use logs::{LogBounds, LogOptions, LogReader, LogStream, links_directory, unlink_pod};
pub use mainstay_plan::pod::PodKey;
pub use node_api::NodeApiSettings;
pub use node_shutdown::GracefulShutdown;
pub use pods_group::{OwnGroup, PodsGroup};
pub use publish::{ApiAccess, NodeTimes, PodNetwork, look_at_processors, look_at_resources};
pub use sources::manifest_dir::{ManifestPaths, manifests_in};
pub use sources::url::{ManifestUrl, UrlError};
pub use volumes::{NfsHelper, help_nfs, unmount_below};
pub use worker::PullLimits;

/// The version of Kubernetes whose node this is.
pub const KUBERNETES: &str = "v1.36.0";

/// Something that the agent cannot run without.
#[derive(Debug, thiserror::Error)]
#[error("cannot {step}: {cause}")]
pub struct AgentError {
    step: &'static str,
    cause: String,
}

impl AgentError {
    fn new(step: &'static str, cause: &dyn std::error::Error) -> Self {
        Self { step, cause: mainstay_cri::chain(cause) }
    }
}

/// What `kubectl version` and `kubectl get nodes` show: the version of Kubernetes, and ours.
pub fn version() -> String {
    format!("{KUBERNETES}+mainstay-{}", env!("CARGO_PKG_VERSION"))
}
