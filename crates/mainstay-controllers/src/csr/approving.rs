//! Nodes get the certificates that are theirs, and nobody gets another's.
//!
//! | who asks | for what | is approved |
//! | --- | --- | --- |
//! | a node | its own client certificate | yes: the one that it shows is the proof |
//! | who has a bootstrap token | a node's client certificate | if no such node is registered or about to be, and the token is not for another one |
//! | a node | its serving certificate | if the names and addresses are its own, and nobody else's |
//!
//! Whether whoever asks may is asked of the API, as upstream does. What is not approved stays pending, with a
//! condition that says why, and is looked at again when that changes: the Node of somebody who is gone for
//! good is deleted, and his successor joins.
//!
//! Source: `pkg/controller/certificates/approver/sarapprove.go`, which has neither the second column's
//! condition nor serving certificates.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use k8s_openapi::api::core::v1::Node;
use mainstay_client::CallError;
use mainstay_pki::{RequestFacts, SubjectName};
use mainstay_pod::NodeName;
use serde_json::{Value, json};

use super::{
    KUBELET_CLIENT, KUBELET_SERVING, NODE_PREFIX, client_error, is, is_decided, is_issued,
    serving_error, set_condition, usages, write,
};
use crate::context::Context;
use crate::informer::{Informer, ObjectKey};
use crate::queue::Queue;

/// For how long a name is taken that a certificate was approved for and no Node has yet.
const CLAIM: SignedDuration = SignedDuration::from_mins(5);

/// How often what is held is looked at again, since another node's addresses may have changed.
const AGAIN: Duration = Duration::from_secs(30);

/// The condition of what is not approved yet. `kubectl get csr` shows such a request as `Pending`.
const HELD: &str = "Held";

/// In the `extra` of whoever has a token for one node only: that node.
const TOKEN_NODE: &str = "authentication.kubernetes.io/node-name";

/// What is known of others.
struct World<'a> {
    /// All Nodes.
    nodes: &'a [Arc<Node>],
    /// All requests.
    requests: &'a [Arc<CertificateSigningRequest>],
    /// What the API itself is reached by.
    api_names: &'a BTreeSet<SubjectName>,
}

impl World<'_> {
    /// The Node of that name.
    fn node(&self, name: &str) -> Option<&Node> {
        let mut nodes = self.nodes.iter().map(|node| &**node);
        nodes.find(|node| node.metadata.name.as_deref() == Some(name))
    }
}

/// What is to be done about a request.
#[derive(Debug, PartialEq)]
enum Verdict {
    /// It is none of ours, or is decided.
    Leave,
    /// It is approved, if whoever asks may `create` this part of requests, or if there is none.
    Approve { permission: Option<&'static str>, message: &'static str },
    /// Not now.
    Hold { reason: &'static str, message: String },
}

fn decide(request: &CertificateSigningRequest, world: &World<'_>, now: Timestamp) -> Verdict {
    if is_decided(request) || is_issued(request) {
        return Verdict::Leave;
    }
    let spec = &request.spec;
    let Ok(facts) = RequestFacts::read(&spec.request.0) else { return Verdict::Leave };
    let own = spec.username.as_deref() == Some(&facts.subject.common_name);
    match spec.signer_name.as_str() {
        KUBELET_CLIENT if client_error(&facts, usages(request)).is_none() => match own {
            true => Verdict::Approve {
                permission: Some("selfnodeclient"),
                message: "Auto approving self kubelet client certificate after SubjectAccessReview.",
            },
            false => first(request, &facts, world, now),
        },
        KUBELET_SERVING if own && serving_error(&facts, usages(request)).is_none() => {
            serving(&facts, world)
        }
        _ => Verdict::Leave,
    }
}

/// The first certificate of a node.
fn first(
    request: &CertificateSigningRequest,
    facts: &RequestFacts,
    world: &World<'_>,
    now: Timestamp,
) -> Verdict {
    let name = facts.subject.common_name.strip_prefix(NODE_PREFIX).unwrap_or_default();
    if NodeName::new(name).is_err() {
        return Verdict::Leave;
    }
    let bound = request.spec.extra.as_ref().and_then(|extra| extra.get(TOKEN_NODE));
    if let Some(bound) = bound.filter(|bound| !bound.iter().any(|node| node == name)) {
        let bound = bound.join(", ");
        let message = format!("the token is for node {bound} and not for {name}");
        return Verdict::Hold { reason: "OtherNode", message };
    }
    if world.api_names.iter().any(|it| matches!(it, SubjectName::Dns(dns) if dns == name)) {
        let message = format!("{name} is a name of the API, or of its machine");
        return Verdict::Hold { reason: "NameOfAPI", message };
    }
    if world.node(name).is_some() {
        let message = format!(
            "a node {name} is registered; if it is gone for good, `kubectl delete node {name}`, else \
             give this one another name (--hostname-override)"
        );
        return Verdict::Hold { reason: "NodeExists", message };
    }
    let claimed = world.requests.iter().any(|other| {
        let since = super::condition(other, "Approved").and_then(|it| it.last_update_time.as_ref());
        other.spec.signer_name == KUBELET_CLIENT
            && since.is_some_and(|since| now.duration_since(since.0) < CLAIM)
            && RequestFacts::read(&other.spec.request.0).is_ok_and(|other| {
                other.subject.common_name == facts.subject.common_name && other.key != facts.key
            })
    });
    if claimed {
        let message = format!("another machine is joining as node {name}");
        return Verdict::Hold { reason: "NodeJoins", message };
    }
    Verdict::Approve {
        permission: Some("nodeclient"),
        message: "Auto approving kubelet client certificate after SubjectAccessReview.",
    }
}

/// What a node's own API shows.
fn serving(facts: &RequestFacts, world: &World<'_>) -> Verdict {
    let name = facts.subject.common_name.strip_prefix(NODE_PREFIX).unwrap_or_default();
    let hold = |reason, message: String| Verdict::Hold { reason, message };
    let Some(node) = world.node(name) else {
        return hold("NodeNotFound", format!("node {name} is not registered"));
    };
    let own: BTreeSet<IpAddr> = addresses(node).collect();
    for wanted in &facts.names {
        if world.api_names.contains(wanted) {
            return hold("NameOfAPI", format!("{wanted} is the API's"));
        }
        match wanted {
            SubjectName::Dns(dns) if dns == name => {}
            SubjectName::Dns(dns) => {
                return hold("NameOfOther", format!("{dns} is not the name of node {name}"));
            }
            SubjectName::Ip(ip) if ip.is_loopback() || !own.contains(ip) => {
                return hold("AddressOfOther", format!("node {name} does not have address {ip}"));
            }
            SubjectName::Ip(ip) => {
                let others = world.nodes.iter().filter(|it| it.metadata.name != node.metadata.name);
                let other = others
                    .filter(|it| addresses(it).any(|has| has == *ip))
                    .find_map(|it| it.metadata.name.as_deref());
                if let Some(other) = other {
                    return hold("AddressOfOther", format!("{ip} is an address of node {other}"));
                }
            }
        }
    }
    Verdict::Approve {
        permission: None,
        message: "Auto approving kubelet serving certificate of a node's own names and addresses.",
    }
}

fn addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    let addresses = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let ips = addresses.into_iter().flatten();
    ips.filter(|it| matches!(it.type_.as_str(), "InternalIP" | "ExternalIP"))
        .filter_map(|it| it.address.parse().ok())
}

/// The controller at work.
struct Controller {
    context: Context,
    requests: Arc<Informer<CertificateSigningRequest>>,
    nodes: Arc<Informer<Node>>,
}

pub(crate) async fn run(context: Context) {
    let requests = context.informers.of::<CertificateSigningRequest>();
    let nodes = context.informers.of::<Node>();
    let queue = Arc::new(Queue::new("csr_approving"));
    let _requests =
        requests.feed(&queue, |change| change.new.map(|it| ObjectKey::of(&it.metadata).name));
    let _nodes = nodes.feed(&queue, {
        let requests = requests.clone();
        move |change| {
            let told = change.old.and_then(|old| old.status.as_ref()).map(|it| &it.addresses);
            let now = change.new.and_then(|new| new.status.as_ref()).map(|it| &it.addresses);
            // Of a Node that stays as it was, nothing follows.
            let news = change.old.is_none() || change.new.is_none() || told != now;
            held_for(&requests, change.latest().filter(|_| news))
        }
    });
    requests.complete().await;
    nodes.complete().await;
    let controller = Controller { context, requests, nodes };
    queue.work(1, |name| controller.sync(name)).await;
}

/// The requests that wait for what has become of a node.
fn held_for(requests: &Informer<CertificateSigningRequest>, node: Option<&Node>) -> Vec<String> {
    let Some(name) = node.and_then(|node| node.metadata.name.as_ref()) else { return Vec::new() };
    let user = format!("{NODE_PREFIX}{name}");
    let held = requests.all().into_iter().filter(|request| {
        is(request, HELD)
            && !is_issued(request)
            && RequestFacts::read(&request.spec.request.0)
                .is_ok_and(|facts| facts.subject.common_name == user)
    });
    held.map(|it| ObjectKey::of(&it.metadata).name).collect()
}

// === impl Controller ===

impl Controller {
    async fn sync(&self, name: String) -> Result<Option<Duration>, CallError> {
        let Some(request) = self.requests.get(&ObjectKey::new("", &name)) else { return Ok(None) };
        // Most are: for these the lists are not needed.
        if is_decided(&request) || is_issued(&request) {
            return Ok(None);
        }
        let world = World {
            nodes: &self.nodes.all(),
            requests: &self.requests.all(),
            api_names: &self.context.facts.api_names,
        };
        match decide(&request, &world, Timestamp::now()) {
            Verdict::Leave => Ok(None),
            Verdict::Approve { permission, message } => {
                if let Some(permission) = permission
                    && !self.may(&request, permission).await?
                {
                    tracing::debug!(name, permission, "a request whose sender may not have it");
                    return Ok(None);
                }
                let approve = |status: &mut Value| {
                    if let Some(conditions) = status["conditions"].as_array_mut() {
                        conditions.retain(|it| it["type"] != HELD);
                    }
                    set_condition(status, "Approved", "AutoApproved", message);
                };
                write(&self.context, &request, "approval", approve).await.map(|()| None)
            }
            Verdict::Hold { reason, message } => {
                let said = super::condition(&request, HELD);
                if said.is_none_or(|it| it.message.as_deref() != Some(&message)) {
                    let hold = |status: &mut Value| set_condition(status, HELD, reason, &message);
                    write(&self.context, &request, "approval", hold).await?;
                }
                Ok(Some(AGAIN))
            }
        }
    }

    /// Whether whoever asked may.
    async fn may(
        &self,
        request: &CertificateSigningRequest,
        permission: &str,
    ) -> Result<bool, CallError> {
        let spec = &request.spec;
        let review = json!({
            "spec": {
                "user": spec.username,
                "uid": spec.uid,
                "groups": spec.groups,
                "extra": spec.extra,
                "resourceAttributes": {
                    "group": "certificates.k8s.io",
                    "version": "*",
                    "resource": "certificatesigningrequests",
                    "subresource": permission,
                    "verb": "create",
                },
            },
        });
        let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
        let answer: Value = self.context.calls.post(path, &review).await?;
        Ok(answer["status"]["allowed"] == true)
    }
}

#[cfg(test)]
mod tests;
