//! The API that a node belongs to: its own, another machine's, or any cluster's.

use std::pin::Pin;
use std::sync::Arc;

use mainstay_apiserver::User;
use mainstay_node::ApiAccess;
use mainstay_node::node_api::{NodeApi, NodeAuth};

use super::{Api, ApiConfig, JoinConfig, Joined, Member, MemberConfig};

/// What is known of it before it is opened or joined.
#[derive(Clone, Debug)]
pub(crate) enum ClusterConfig {
    Embedded(ApiConfig),
    Joined(JoinConfig),
    Member(MemberConfig),
}

/// The API.
pub(crate) enum Cluster {
    Embedded(Api),
    Joined(Joined),
    Member(Member),
}

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

impl Cluster {
    /// Nothing is opened or asked yet.
    pub(crate) fn new(config: ClusterConfig) -> Self {
        match config {
            ClusterConfig::Embedded(config) => Self::Embedded(Api::new(config)),
            ClusterConfig::Joined(config) => Self::Joined(Joined::new(config)),
            ClusterConfig::Member(config) => Self::Member(Member::new(config)),
        }
    }

    /// How the agent of a node reaches it.
    pub(crate) fn access(&self, node_name: &str) -> ApiAccess {
        match self {
            Self::Embedded(api) => ApiAccess {
                client: kube::Client::new(api.client(User::node(node_name)), "default"),
                node_port: api.node_port(),
            },
            Self::Joined(joined) => joined.access(),
            Self::Member(member) => member.access(),
        }
    }

    /// Who may ask the node's API.
    pub(crate) fn node_auth(&self) -> Arc<dyn NodeAuth> {
        match self {
            Self::Embedded(api) => api.node_auth(),
            Self::Joined(joined) => joined.node_auth(),
            Self::Member(member) => member.node_auth(),
        }
    }

    /// Runs the controllers, if they are this process's to run.
    pub(crate) fn controllers(&self) -> Task {
        match self {
            Self::Embedded(api) => Box::pin(api.controllers()),
            Self::Joined(_) | Self::Member(_) => Box::pin(std::future::pending()),
        }
    }

    /// Opens or joins it, and keeps it so. Never ends.
    pub(crate) fn run(self, node: NodeApi) -> Task {
        match self {
            Self::Embedded(api) => Box::pin(api.run(node)),
            Self::Joined(joined) => Box::pin(joined.run(node)),
            Self::Member(member) => Box::pin(member.run(node)),
        }
    }
}
