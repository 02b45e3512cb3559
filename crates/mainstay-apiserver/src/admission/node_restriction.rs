//! What a node may write: mirrors of its own static pods and of what lies beside their manifests, its own status,
//! its own lease.
//!
//! Source: `plugin/pkg/admission/noderestriction/admission.go` (Kubernetes 1.36). Together with the node
//! authorizer: that one knows who asks for what, this one sees the object.
//!
//! All of it is pure: [`needs`] says what has to be looked up, [`admit`] judges.

mod node;
mod object;
mod pod;
mod token;

use crate::admission::Operation;
use crate::authn::User;
use crate::authz::node::LEASES;
use crate::object::Object;

/// Who does what to which object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Request<'a> {
    pub(crate) user: &'a User,
    pub(crate) operation: Operation,
    pub(crate) group: &'a str,
    pub(crate) resource: &'a str,
    pub(crate) subresource: &'a str,
    pub(crate) namespace: &'a str,
    /// Of the object; of a new one, if it is known.
    pub(crate) name: &'a str,
}

/// What has to be looked up before [`admit`] can judge.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Needs {
    /// The Node object of this name.
    pub(crate) node: Option<String>,
    /// The pod of this name in the request's namespace.
    pub(crate) pod: Option<String>,
}

/// What was found of it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Found<'a> {
    pub(crate) node: Option<&'a Object>,
    pub(crate) pod: Option<&'a Object>,
}

/// Why a node must not write something.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Refusal {
    /// 403; the reason, which comes after `... is forbidden: `.
    Forbidden(String),
    /// 404 of an object of the core group.
    NotFound {
        /// `pods` or `nodes`.
        resource: &'static str,
        /// Its name.
        name: String,
    },
}

/// What has to be looked up for a request. `new` is the object that was sent.
pub(crate) fn needs(request: &Request<'_>, new: Option<&Object>) -> Needs {
    let mut needs = Needs::default();
    let Some(node) = request.user.node_name() else { return needs };
    match (request.group, request.resource, request.subresource, request.operation) {
        ("", "pods" | "configmaps" | "secrets", "", Operation::Create) => {
            needs.node = Some(node.to_owned());
        }
        ("", "pods", "", Operation::Delete) => needs.pod = Some(request.name.to_owned()),
        ("", "pods", "eviction", Operation::Create) => {
            needs.pod = Some(object_name(request, new).to_owned());
        }
        ("", "serviceaccounts", "token", Operation::Create) => {
            needs.pod = new.map(|new| new.str_at(&["spec", "boundObjectRef", "name"]).to_owned());
        }
        _ => {}
    }
    needs
}

/// Whether a request that was authorized may be carried out. Whoever is not a node may.
///
/// # Errors
///
/// What a node must not do.
pub(crate) fn admit(
    request: &Request<'_>,
    new: Option<&Object>,
    old: Option<&Object>,
    found: &Found<'_>,
) -> Result<(), Refusal> {
    let Some(node) = request.user.node_name() else { return Ok(()) };
    if node.is_empty() {
        let text = format!("could not determine node from user {:?}", request.user.name);
        return forbid(text);
    }
    match (request.group, request.resource, request.subresource) {
        ("", "pods", "") => pod::itself(node, request, new, found),
        ("", "pods", "status") => pod::status(node, request, new, old),
        ("", "pods", "eviction") => pod::eviction(node, request, new, found),
        ("", "pods", "ephemeralcontainers") if old.is_some_and(pod::is_mirror) => {
            pod::ephemeral_containers(node, request, new, old)
        }
        ("", "pods", other) => forbid(format!(
            "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
        )),
        ("", "configmaps" | "secrets", "") => object::admit(node, request, new, old, found),
        ("", "nodes", _) => node::admit(node, request, new, old),
        ("", "serviceaccounts", "token") => token::admit(node, request, new, found),
        ("coordination.k8s.io", "leases", _) => lease(node, request, new),
        ("certificates.k8s.io", "certificatesigningrequests", _) => {
            certificate_request(node, request, new)
        }
        _ => Ok(()),
    }
}

fn lease(node: &str, request: &Request<'_>, new: Option<&Object>) -> Result<(), Refusal> {
    if request.namespace != LEASES {
        return forbid(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    let name = match (request.operation, new) {
        (Operation::Create, Some(new)) => new.name(),
        _ => request.name,
    };
    if name != node {
        return forbid("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

/// A node asks for certificates in its own name only.
fn certificate_request(
    node: &str,
    request: &Request<'_>,
    new: Option<&Object>,
) -> Result<(), Refusal> {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    let (Operation::Create, Some(new)) = (request.operation, new) else { return Ok(()) };
    let for_nodes =
        ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
    if !for_nodes.contains(&new.str_at(&["spec", "signerName"])) {
        return Ok(());
    }
    let pem = STANDARD.decode(new.str_at(&["spec", "request"])).unwrap_or_default();
    let Ok(subject) = mainstay_pki::request_subject(&pem) else {
        return forbid("unable to parse csr: PEM block type must be CERTIFICATE REQUEST");
    };
    let name = format!("system:node:{node}");
    if subject.common_name != name {
        return forbid(format!("can only create a node CSR with CN={name}"));
    }
    Ok(())
}

/// The name that a request is about; of a new object, the one that it has itself.
fn object_name<'a>(request: &Request<'a>, new: Option<&'a Object>) -> &'a str {
    match request.name {
        "" => new.map_or("", Object::name),
        name => name,
    }
}

/// `"CREATE"`, as messages have it.
fn operation(request: &Request<'_>) -> &'static str {
    match request.operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
    }
}

fn forbid<T>(text: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Forbidden(text.into()))
}

/// The pod that had to be looked up.
fn existing<'a>(found: &Found<'a>, name: &str) -> Result<&'a Object, Refusal> {
    found.pod.ok_or_else(|| Refusal::NotFound { resource: "pods", name: name.to_owned() })
}

/// The node that a pod is on.
fn node_of(pod: &Object) -> &str {
    pod.str_at(&["spec", "nodeName"])
}

#[cfg(test)]
mod tests;
