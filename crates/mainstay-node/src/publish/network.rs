//! The network of pods across nodes: the node proposes a range, takes the one that it is given, and
//! makes the ways to those of the others.
//!
//! # Guarantees
//!
//! - Nothing is changed before the API has said which nodes there are: one that is away takes no way
//!   away.
//! - An API that lets a node see itself only, as Kubernetes does, tells it its range, and that is all.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_client::{Collection, Object, Sink};
use mainstay_plan::pod_network::{NodeNetwork, PodCluster, cluster};
use mainstay_plan::status::NodeAddresses;
use serde::Deserialize;
use tokio::sync::{Notify, watch};

use super::api::{CallError, CallErrorKind, Calls, Trouble};

/// How long one watch lasts: one that is wedged is found out by then.
const WATCH: Duration = Duration::from_secs(120);

/// How long an API that lets a node see itself only is not asked for the others.
const ALONE: Duration = Duration::from_secs(60);

/// How long what failed is left alone. The runtime tries it again by itself, too.
const PAUSE: Duration = Duration::from_secs(5);

/// The network of pods, where the node makes it itself.
pub trait PodNetwork: std::fmt::Debug + Send + Sync {
    /// The range that new pods get addresses of, such as `10.201.7.0/24`, or ranges with a comma between;
    /// `None` while there is none.
    fn range(&self) -> Option<String>;

    /// Takes in which ranges the node was given, and which others there are.
    fn join(
        &self,
        cluster: PodCluster,
    ) -> Pin<Box<dyn Future<Output = mainstay_cri::Result<()>> + Send + '_>>;

    /// The servers that new pods ask for the names of the node's pods, and all others; none where pods have
    /// no names, or have them from elsewhere.
    ///
    /// # Errors
    ///
    /// Why there are none although pods should have names.
    fn resolvers(
        &self,
    ) -> Pin<Box<dyn Future<Output = mainstay_cri::Result<Vec<IpAddr>>> + Send + '_>>;

    /// Who else listens where pods ask `server`, in words, and is not reached by them there since the network
    /// answers itself; `None` if nobody does.
    fn shadowed(&self, server: IpAddr)
    -> Pin<Box<dyn Future<Output = Option<String>> + Send + '_>>;

    /// Takes in which addresses the node has, at which pods on its own network are found.
    fn node_has(&self, addresses: Vec<IpAddr>);
}

/// Tells the network which addresses the node has, for ever.
pub(crate) async fn tell_addresses(
    mut addresses: watch::Receiver<NodeAddresses>,
    network: Arc<dyn PodNetwork>,
) {
    loop {
        let ips = addresses.borrow_and_update().ips.clone();
        network.node_has(ips);
        if addresses.changed().await.is_err() {
            // They do not change any more.
            return std::future::pending().await;
        }
    }
}

/// All nodes' networks; `None` until the API has said which nodes there are.
type Nodes = Option<BTreeMap<String, NodeNetwork>>;

/// What of a Node is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
struct NodePart {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: SpecPart,
    #[serde(default)]
    status: StatusPart,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpecPart {
    #[serde(rename = "podCIDRs")]
    ranges: Option<Vec<String>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct StatusPart {
    addresses: Option<Vec<AddressPart>>,
}

#[derive(Clone, Debug, Deserialize)]
struct AddressPart {
    #[serde(rename = "type")]
    kind: String,
    address: String,
}

/// Takes in what is heard.
struct Heard {
    nodes: watch::Sender<Nodes>,
    trouble: Mutex<Trouble>,
    /// The API does not let this node see what it asked for.
    refused: Notify,
}

/// Keeps the network as the API says, for ever.
pub(crate) async fn keep(calls: Calls, own: String, network: Arc<dyn PodNetwork>) {
    let (nodes, seen) = watch::channel(None);
    let heard = Heard { nodes, trouble: Mutex::default(), refused: Notify::new() };
    let collection = |query: String| Collection {
        path: "/api/v1/nodes".to_owned(),
        query,
        metadata_only: false,
        lasting: WATCH,
    };
    let (all, itself) =
        (collection(String::new()), collection(format!("fieldSelector=metadata.name%3D{own}")));
    let follow = async {
        loop {
            tokio::select! {
                () = mainstay_client::follow::<NodePart, _>(&calls, &all, &heard) => {}
                () = heard.refused.notified() => {}
            }
            // Source: `authorizeNode` in `plugin/pkg/auth/authorizer/node/node_authorizer.go`.
            let follow = mainstay_client::follow::<NodePart, _>(&calls, &itself, &heard);
            // What was waited for.
            let _ = tokio::time::timeout(ALONE, follow).await;
        }
    };
    tokio::join!(follow, join(seen, &own, &*network));
}

/// Tells the network what it has to know whenever that changes.
async fn join(mut nodes: watch::Receiver<Nodes>, own: &str, network: &dyn PodNetwork) {
    let (mut told, mut said) = (None, String::new());
    loop {
        let wanted = nodes.borrow_and_update().as_ref().map(|nodes| cluster(own, nodes));
        let mut again = None;
        if let Some(wanted) = wanted.filter(|wanted| told.as_ref() != Some(wanted)) {
            match network.join(wanted.clone()).await {
                Ok(()) => {
                    if !std::mem::take(&mut said).is_empty() {
                        tracing::info!("the ways to other nodes' pods are there");
                    }
                    told = Some(wanted);
                }
                Err(error) => {
                    let error = error.chain();
                    if said != error {
                        tracing::warn!(error, "the ways to other nodes' pods are not there");
                        said = error;
                    }
                    again = Some(PAUSE);
                }
            }
        }
        let changed = match again {
            // A timeout is what was waited for. Cancel-safe per docs on `watch::Receiver::changed`.
            Some(pause) => tokio::time::timeout(pause, nodes.changed()).await.unwrap_or(Ok(())),
            None => nodes.changed().await,
        };
        if changed.is_err() {
            return;
        }
    }
}

impl Object for NodePart {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl NodePart {
    fn network(self) -> (String, NodeNetwork) {
        let addresses = self.status.addresses.unwrap_or_default().into_iter();
        let internal = addresses.filter(|it| it.kind == "InternalIP");
        let addresses: Vec<IpAddr> = internal.filter_map(|it| it.address.parse().ok()).collect();
        let ranges = self.spec.ranges.unwrap_or_default();
        (self.metadata.name.unwrap_or_default(), NodeNetwork { ranges, addresses })
    }
}

impl Heard {
    /// Most news of nodes is none of their networks.
    fn change(&self, change: impl FnOnce(&mut BTreeMap<String, NodeNetwork>) -> bool) {
        self.nodes.send_if_modified(|nodes| nodes.as_mut().is_some_and(change));
    }
}

impl Sink<NodePart> for Heard {
    fn replace(&self, listed: Vec<NodePart>, _version: &str) {
        let all: BTreeMap<_, _> = listed.into_iter().map(NodePart::network).collect();
        self.nodes.send_replace(Some(all));
    }

    fn heard(&self, node: NodePart) {
        let (name, network) = node.network();
        self.change(|nodes| nodes.insert(name, network.clone()) != Some(network));
    }

    fn deleted(&self, node: NodePart) {
        let (name, _) = node.network();
        self.change(|nodes| nodes.remove(&name).is_some());
    }

    fn answered(&self, how: Result<(), &CallError>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = trouble.news(how) {
            tracing::debug!(error = error.message, "cannot follow the nodes of the API");
        }
        if how.is_err_and(|error| error.kind == CallErrorKind::Refused) {
            self.refused.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_cri::{Error, ErrorKind};
    use serde_json::json;
    use tokio::sync::mpsc;

    use super::*;

    /// A network that fails the first time.
    #[derive(Debug)]
    struct Network(mpsc::UnboundedSender<PodCluster>, Mutex<bool>);

    impl PodNetwork for Network {
        fn range(&self) -> Option<String> {
            None
        }

        fn join(
            &self,
            cluster: PodCluster,
        ) -> Pin<Box<dyn Future<Output = mainstay_cri::Result<()>> + Send + '_>> {
            Box::pin(async move {
                if !std::mem::replace(&mut *self.1.lock().unwrap(), true) {
                    return Err(Error::new(ErrorKind::Unavailable, "not now"));
                }
                self.0.send(cluster).unwrap();
                Ok(())
            })
        }

        fn resolvers(
            &self,
        ) -> Pin<Box<dyn Future<Output = mainstay_cri::Result<Vec<IpAddr>>> + Send + '_>> {
            Box::pin(async { Ok(Vec::new()) })
        }

        fn shadowed(&self, _: IpAddr) -> Pin<Box<dyn Future<Output = Option<String>> + Send + '_>> {
            Box::pin(async { None })
        }

        fn node_has(&self, _: Vec<IpAddr>) {}
    }

    fn node(name: &str, range: &str, address: &str) -> NodePart {
        let node = json!({
            "metadata": { "name": name },
            "spec": { "podCIDR": range, "podCIDRs": [range], "taints": [] },
            "status": {
                "addresses": [
                    { "type": "Hostname", "address": name },
                    { "type": "InternalIP", "address": address },
                ],
                "images": [{ "names": ["a"] }],
            },
        });
        serde_json::from_value(node).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_network_is_told_what_matters_to_it() {
        let (told, mut seen) = mpsc::unbounded_channel();
        let (nodes, nodes_seen) = watch::channel(None);
        let heard = Heard { nodes, trouble: Mutex::default(), refused: Notify::new() };
        let network = Network(told, Mutex::default());
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(async move { join(nodes_seen, "n1", &network).await });
        // Before it is known which there are, there are none.
        heard.heard(node("n2", "10.2.0.0/24", "192.0.2.2"));
        tokio::time::sleep(PAUSE * 2).await;
        assert!(seen.is_empty());
        heard.replace(vec![node("n1", "10.1.0.0/24", "192.0.2.1")], "1");
        let first = seen.recv().await.unwrap();
        assert_eq!(first, PodCluster { ranges: vec!["10.1.0.0/24".into()], peers: vec![] });
        heard.heard(node("n2", "10.2.0.0/24", "192.0.2.2"));
        let second = seen.recv().await.unwrap();
        assert_eq!((second.peers.len(), second.peers[0].name.as_str()), (1, "n2"));
        heard.heard(node("n2", "10.2.0.0/24", "192.0.2.2"));
        heard.heard(NodePart::default());
        tokio::time::sleep(PAUSE * 2).await;
        assert!(seen.is_empty());
        heard.deleted(node("n2", "10.2.0.0/24", "192.0.2.2"));
        assert_eq!(seen.recv().await.unwrap(), first);
        drop(heard);
        tasks.join_next().await.unwrap().unwrap();
    }
}
