//! The tasks that show this node to a Kubernetes API.

use std::path::PathBuf;
use std::sync::Arc;

use mainstay_cri::{Images, Runtime, RuntimeCondition};
use mainstay_plan::node_status::Registration;
use mainstay_plan::status::NodeAddresses;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::api::{ApiAccess, ApiPods, Calls, follow};
use super::mirror::Mirrors;
use super::node::{NodeKeeper, keep_lease};
use super::{Board, Events, notes, recorder};
use crate::sources::api::{ApiGoals, ApiSource};
use crate::worker::Performer;

/// What is shown.
pub(crate) struct Shown {
    pub(crate) node_name: String,
    /// A directory of the file system whose space is the node's.
    pub(crate) directory: PathBuf,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) images: Arc<dyn Images>,
    /// Changes when images come or go.
    pub(crate) image_changes: watch::Receiver<u64>,
    pub(crate) health: watch::Receiver<Vec<RuntimeCondition>>,
    pub(crate) addresses: watch::Receiver<NodeAddresses>,
    pub(crate) board: watch::Receiver<Arc<Board>>,
    pub(crate) events: Events,
    pub(crate) performer: Arc<Performer>,
    /// What is to become of the API's pods of this node.
    pub(crate) goals: watch::Sender<Option<Arc<ApiGoals>>>,
}

/// Starts them. Nothing of the agent waits for any of them.
pub(crate) fn show(access: ApiAccess, shown: Shown, tasks: &mut JoinSet<()>) {
    let calls = Calls::new(access.client);
    let pods = Arc::new(ApiPods::new());
    let (uid, node) = watch::channel(None);
    let doubt = Arc::new(Notify::new());
    let goals = shown.goals.subscribe();
    let source = ApiSource {
        calls: calls.clone(),
        pods: pods.clone(),
        node_name: shown.node_name.clone(),
        earlier: shown.performer,
        events: shown.events.clone(),
        board: shown.board.clone(),
        goals: shown.goals,
    };
    tasks.spawn(source.run());
    tasks.spawn(follow(calls.clone(), shown.node_name.clone(), pods.clone()));
    tasks.spawn(keep_lease(calls.clone(), shown.node_name.clone(), node.clone()));
    let (name, events) = (shown.node_name.clone(), shown.events.clone());
    tasks.spawn(recorder::record(calls.clone(), name, events, pods.reachable()));
    tasks.spawn(notes::tell(shown.board.clone(), shown.events.clone()));
    let mirrors = Mirrors {
        calls: calls.clone(),
        pods: pods.clone(),
        node_name: shown.node_name.clone(),
        node,
        board: shown.board,
        goals,
        events: shown.events.clone(),
        doubt: doubt.clone(),
    };
    tasks.spawn(mirrors.run());
    let reachable = pods.reachable();
    tasks.spawn(async move {
        let version = shown.runtime.version().await;
        let version = version.map_or_else(
            |_| "unknown".to_owned(),
            |it| format!("{}://{}", it.runtime_name, it.runtime_version),
        );
        let keeper = NodeKeeper {
            calls,
            name: shown.node_name,
            registration: Registration { labels: access.labels, pod_cidr: access.pod_cidr },
            port: access.node_port,
            directory: shown.directory,
            runtime_version: version,
            images: shown.images,
            image_changes: shown.image_changes,
            health: shown.health,
            addresses: shown.addresses,
            reachable,
            events: shown.events,
            uid,
            doubt,
        };
        keeper.run().await;
    });
}
