//! The tasks that show this node to a Kubernetes API.

use std::path::PathBuf;
use std::sync::Arc;

use mainstay_cri::RuntimeCondition;
use mainstay_plan::pressure::Pressure;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::api::{ApiAccess, ApiPods, calls, follow};
use super::mirror::Mirrors;
use super::node::{NodeKeeper, keep_lease};
use super::{Board, PodNetwork, network, notes, recorder};
use crate::sources::api::{ApiGoals, ApiSource};
use crate::worker::Performer;

/// What is shown.
pub(crate) struct Shown {
    pub(crate) node_name: String,
    /// A directory of the file system whose space is the node's.
    pub(crate) directory: PathBuf,
    /// What is short on the machine.
    pub(crate) pressure: watch::Receiver<Pressure>,
    /// Changes when images come or go.
    pub(crate) image_changes: watch::Receiver<u64>,
    pub(crate) health: watch::Receiver<Vec<RuntimeCondition>>,
    pub(crate) board: watch::Receiver<Arc<Board>>,
    pub(crate) performer: Arc<Performer>,
    /// The API's pods of this node, as far as is known.
    pub(crate) pods: Arc<ApiPods>,
    /// The network of pods, if the node makes it.
    pub(crate) network: Option<Arc<dyn PodNetwork>>,
    /// What is to become of the API's pods of this node.
    pub(crate) goals: watch::Sender<Option<Arc<ApiGoals>>>,
}

/// Starts them. Nothing of the agent waits for any of them.
pub(crate) fn show(access: ApiAccess, shown: Shown, tasks: &mut JoinSet<()>) {
    let calls = calls(access.client);
    let Shown { node_name, performer, pods, .. } = shown;
    let events = performer.events.clone();
    let (uid, node) = watch::channel(None);
    let doubt = Arc::new(Notify::new());
    let goals = shown.goals.subscribe();
    let source = ApiSource {
        calls: calls.clone(),
        pods: pods.clone(),
        node_name: node_name.clone(),
        earlier: performer.clone(),
        kernel: performer.facts.kernel.clone(),
        events: events.clone(),
        board: shown.board.clone(),
        pressure: shown.pressure.clone(),
        goals: shown.goals,
    };
    tasks.spawn(source.run());
    tasks.spawn(follow(calls.clone(), node_name.clone(), pods.clone()));
    tasks.spawn(keep_lease(calls.clone(), node_name.clone(), node.clone()));
    if let Some(network) = shown.network.clone() {
        tasks.spawn(network::keep(calls.clone(), node_name.clone(), network));
    }
    let reachable = pods.reachable();
    tasks.spawn(recorder::record(
        calls.clone(),
        node_name.clone(),
        events.clone(),
        reachable.clone(),
    ));
    tasks.spawn(notes::tell(shown.board.clone(), events.clone()));
    let mirrors = Mirrors {
        calls: calls.clone(),
        pods,
        node_name: node_name.clone(),
        node,
        board: shown.board,
        goals,
        events: events.clone(),
        doubt: doubt.clone(),
    };
    tasks.spawn(mirrors.run());
    tasks.spawn(async move {
        let version = performer.runtime.version().await;
        let version = version.map_or_else(
            |_| "unknown".to_owned(),
            |it| format!("{}://{}", it.runtime_name, it.runtime_version),
        );
        let keeper = NodeKeeper {
            calls,
            name: node_name,
            port: access.node_port,
            directory: shown.directory,
            pressure: shown.pressure,
            runtime_version: version,
            images: performer.images.clone(),
            image_changes: shown.image_changes,
            health: shown.health,
            addresses: performer.addresses.clone(),
            reachable,
            events,
            network: shown.network,
            uid,
            doubt,
        };
        keeper.run().await;
    });
}
