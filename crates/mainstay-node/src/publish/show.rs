//! The tasks that show this node to a Kubernetes API.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_cri::RuntimeCondition;
use mainstay_plan::node_status::NodeSettings;
use mainstay_plan::pressure::Pressure;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::api::{ApiAccess, ApiPods, calls, follow};
use super::mirror::Mirrors;
use super::node::{NodeKeeper, NodeTimes, keep_lease};
use super::object_mirrors::{ObjectMirrors, StaticObjects};
use super::{Board, PodNetwork, network, notes, recorder};
use crate::sources::api::{ApiGoals, ApiSource};
use crate::worker::Performer;

/// How long is waited for the runtime's version before the Node is shown without it.
const VERSION_PATIENCE: Duration = Duration::from_secs(5);

/// What is shown.
pub(crate) struct Shown {
    pub(crate) node_name: String,
    /// What the machine's owner has said of it.
    pub(crate) settings: Arc<NodeSettings>,
    pub(crate) times: NodeTimes,
    /// Whether the node registers itself.
    pub(crate) registers: bool,
    /// A directory of the file system whose space is the node's.
    pub(crate) directory: PathBuf,
    /// What is short on the machine.
    pub(crate) pressure: watch::Receiver<Pressure>,
    /// Whether the machine is being shut down.
    pub(crate) shutting_down: watch::Receiver<bool>,
    /// Changes when images come or go.
    pub(crate) image_changes: watch::Receiver<u64>,
    pub(crate) health: watch::Receiver<Vec<RuntimeCondition>>,
    pub(crate) board: watch::Receiver<Arc<Board>>,
    pub(crate) performer: Arc<Performer>,
    /// The API's pods of this node, as far as is known.
    pub(crate) pods: Arc<ApiPods>,
    /// What lies beside manifests.
    pub(crate) objects: watch::Receiver<Option<Arc<StaticObjects>>>,
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
    // Before anybody tells of something.
    events.queue().open();
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
        shutting_down: shown.shutting_down.clone(),
        goals: shown.goals,
    };
    tasks.spawn(source.run());
    tasks.spawn(follow(calls.clone(), node_name.clone(), pods.clone()));
    tasks.spawn(keep_lease(calls.clone(), node_name.clone(), shown.times.lease, node.clone()));
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
    let object_mirrors = ObjectMirrors {
        calls: calls.clone(),
        node_name: node_name.clone(),
        node: node.clone(),
        objects: shown.objects,
        events: events.clone(),
    };
    object_mirrors.keep(tasks);
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
    let (version, runtime_version) = watch::channel(String::new());
    tasks.spawn(keep_version(performer.clone(), shown.health.clone(), version));
    let keeper = NodeKeeper {
        calls,
        name: node_name,
        port: access.node_port,
        settings: shown.settings,
        times: shown.times,
        registers: shown.registers,
        directory: shown.directory,
        pressure: shown.pressure,
        shutting_down: shown.shutting_down,
        runtime_version,
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
    tasks.spawn(async move {
        // Most runtimes say it before anybody has asked twice.
        let mut version = keeper.runtime_version.clone();
        let _ = timeout(VERSION_PATIENCE, version.wait_for(|version| !version.is_empty())).await;
        keeper.run().await;
    });
}

/// Keeps the runtime's name and version. It is asked again when it is another way than before, since it may be
/// another one then.
async fn keep_version(
    performer: Arc<Performer>,
    mut health: watch::Receiver<Vec<RuntimeCondition>>,
    version: watch::Sender<String>,
) {
    loop {
        if let Ok(it) = performer.runtime.version().await {
            let now = format!("{}://{}", it.runtime_name, it.runtime_version);
            version.send_if_modified(|known| {
                let changed = *known != now;
                *known = now;
                changed
            });
        }
        if health.changed().await.is_err() {
            // Without a sender the agent ends.
            std::future::pending::<()>().await;
        }
    }
}
