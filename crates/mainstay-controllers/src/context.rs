//! What every controller is given.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::SignedDuration;
use mainstay_client::Calls;
use mainstay_pki::{Authority, SubjectName};
use tokio::task::JoinSet;

use crate::events::Events;
use crate::informers::Informers;
use crate::node_lifecycle::NodeTimes;

/// Who reads for all of them.
pub(crate) const READER: &str = "system:kube-controller-manager";
/// What the API remembers as the writer of what controllers write.
pub(crate) const AGENT: &str =
    concat!("kube-controller-manager/mainstay-", env!("CARGO_PKG_VERSION"));

/// How the API is reached.
pub trait Clients: Send + Sync {
    /// For who acts as this user, such as `system:serviceaccount:kube-system:x`, and writes under the name of
    /// `agent`.
    fn calls(&self, user: &str, agent: &str) -> Calls;
}

/// What controllers are told of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// What the API's certificate is verified with, in PEM.
    pub root_ca: String,
    /// How long nodes are waited for.
    pub node_times: NodeTimes,
    /// What signs certificates of nodes and users; without it nothing here does.
    pub authority: Option<Arc<Authority>>,
    /// For how long what it signs is good at most.
    pub signing_duration: SignedDuration,
    /// The names and addresses of the API, which no node can have.
    pub api_names: BTreeSet<SubjectName>,
}

/// What one controller is given.
#[derive(Clone)]
pub(crate) struct Context {
    /// Writes, and reads what informers may not know yet, as the controller.
    pub(crate) calls: Calls,
    pub(crate) informers: Arc<Informers>,
    pub(crate) events: Events,
    pub(crate) facts: Arc<Facts>,
}

/// Makes contexts.
pub(crate) struct Contexts<'a> {
    clients: &'a dyn Clients,
    informers: Arc<Informers>,
    facts: Arc<Facts>,
}

impl<'a> Contexts<'a> {
    pub(crate) fn new(clients: &'a dyn Clients, facts: Facts) -> Self {
        let reader = clients.calls(READER, AGENT);
        let informers = Arc::new(Informers::new(reader));
        Self { clients, informers, facts: Arc::new(facts) }
    }

    /// For who acts as this user, or as this service account of `kube-system`, and tells its events
    /// as `component`, which is a task of its own.
    pub(crate) fn of(&self, name: &str, component: &str, tasks: &mut JoinSet<()>) -> Context {
        let user = match name.contains(':') {
            true => name.to_owned(),
            false => format!("system:serviceaccount:kube-system:{name}"),
        };
        let calls = self.clients.calls(&user, AGENT);
        Context {
            events: Events::begin(&calls, component, tasks),
            calls,
            informers: self.informers.clone(),
            facts: self.facts.clone(),
        }
    }
}
