//! What nodes may do: their own things, and what their pods refer to.
//!
//! Source: `plugin/pkg/auth/authorizer/node` (Kubernetes 1.36, with `AuthorizeNodeWithSelectors`, which
//! cannot be switched off any more). Persistent volumes, and what comes with devices, do not exist here.

mod graph;

use std::sync::LazyLock;

use mainstay_pod::identity::{self, CONFIG_NODE_LABEL};

pub(crate) use graph::Graph;
use graph::Referred;

use super::{Attributes, Decision, Rule, bootstrap};

/// Where the leases of nodes are.
pub(crate) const LEASES: &str = "kube-node-lease";

/// What all nodes may do, whatever runs on them.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(bootstrap::node_rules);

impl Graph {
    /// Whether a node may do something. It has no opinion on what others do.
    pub(crate) fn decide(&self, attributes: &Attributes<'_>) -> Decision {
        let Some(node) = attributes.user.node_name() else { return none("") };
        if node.is_empty() {
            return none(format!("unknown node for user {:?}", attributes.user.name));
        }
        if attributes.is_resource {
            match (attributes.group, attributes.resource) {
                ("", "secrets") => return self.read(node, Referred::Secret, attributes),
                ("", "configmaps") => return self.read(node, Referred::ConfigMap, attributes),
                ("", "persistentvolumeclaims") => return self.claim(node, attributes),
                ("", "serviceaccounts") => return self.service_account(node, attributes),
                ("coordination.k8s.io", "leases") => return lease(node, attributes),
                ("", "nodes") => return own_node(node, attributes),
                ("", "pods") => return self.pod(node, attributes),
                (
                    "storage.k8s.io" | "resource.k8s.io" | "" | "certificates.k8s.io",
                    "volumeattachments"
                    | "csinodes"
                    | "resourceclaims"
                    | "resourceslices"
                    | "persistentvolumes"
                    | "podcertificaterequests",
                ) => return none(""),
                _ => {}
            }
        }
        match RULES.iter().any(|rule| rule.allows(attributes)) {
            true => allow(),
            false => none(""),
        }
    }

    /// One object at a time, by `get` or as a list or watch of one name.
    fn read(&self, node: &str, kind: Referred, attributes: &Attributes<'_>) -> Decision {
        if let Some(allowed) = mirrored(node, attributes) {
            return allowed;
        }
        if !matches!(attributes.verb, "get" | "list" | "watch") {
            return none("can only read resources of this type");
        }
        if !attributes.subresource.is_empty() {
            return none("cannot read subresource");
        }
        if attributes.namespace.is_empty() {
            return none("can only read namespaced object of this type");
        }
        self.related(node, kind, attributes)
    }

    fn claim(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        match (attributes.subresource, attributes.verb) {
            ("status", "update" | "patch") | ("", "get") => {
                self.related(node, Referred::PersistentVolumeClaim, attributes)
            }
            ("status", _) => none("can only get/update/patch this type"),
            (_, "get") => none("cannot get subresource"),
            _ => none("can only get individual resources of this type"),
        }
    }

    fn related(&self, node: &str, kind: Referred, attributes: &Attributes<'_>) -> Decision {
        let Attributes { namespace, name, .. } = *attributes;
        if name.is_empty() {
            return none("No Object name found");
        }
        match self.refers(node, kind, namespace, name) {
            true => allow(),
            false => unrelated(node),
        }
    }

    fn service_account(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        let kind = Referred::ServiceAccount;
        match (attributes.verb, attributes.subresource) {
            ("get", "") => self.read(node, kind, attributes),
            ("create", _) if attributes.name.is_empty() => {
                none("can only create tokens for individual service accounts")
            }
            ("create", "token") => self.related(node, kind, attributes),
            ("create", _) => none("can only create token subresource of serviceaccount"),
            _ => none("can only create tokens for individual service accounts"),
        }
    }

    /// What is only let through here, NodeRestriction looks at: there the pod is known.
    fn pod(&self, node: &str, attributes: &Attributes<'_>) -> Decision {
        let Attributes { namespace, name, .. } = *attributes;
        let own = || match name {
            "" => none("No Object name found"),
            name if self.is_on(node, namespace, name) => allow(),
            _ => unrelated(node),
        };
        match (attributes.subresource, attributes.verb) {
            ("", "get") => own(),
            ("", "list" | "watch")
                if attributes
                    .fields
                    .iter()
                    .any(|(field, value)| field == "spec.nodeName" && value == node) =>
            {
                allow()
            }
            ("", "list" | "watch") if !name.is_empty() => own(),
            ("", "list" | "watch") => {
                none("can only list/watch pods with spec.nodeName field selector")
            }
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => {
                allow()
            }
            // Kubernetes has none of it for nodes: there mirrors get no containers.
            ("ephemeralcontainers", "update" | "patch") => allow(),
            _ => none(""),
        }
    }
}

/// What a node shows of what lies beside its manifests. Kubernetes knows nothing of that. What it makes and deletes,
/// NodeRestriction looks at.
fn mirrored(node: &str, attributes: &Attributes<'_>) -> Option<Decision> {
    let own = |(label, value): &(String, String)| label == CONFIG_NODE_LABEL && value == node;
    let allowed = match attributes.verb {
        "create" => !attributes.namespace.is_empty(),
        "delete" => identity::is_object_mirror_name(attributes.name, node),
        "list" | "watch" => attributes.labels.iter().any(own),
        _ => false,
    };
    let plain = matches!(attributes.resource, "configmaps" | "secrets")
        && attributes.subresource.is_empty();
    (plain && allowed).then(allow)
}

/// A node is made and changed through NodeRestriction too, which knows its name.
fn own_node(node: &str, attributes: &Attributes<'_>) -> Decision {
    match (attributes.subresource, attributes.verb) {
        ("", "create" | "update" | "patch") | ("status", "update" | "patch") => allow(),
        ("", "get" | "list" | "watch") => match attributes.name {
            name if name == node => allow(),
            "" => none(format!("node '{node}' cannot read all nodes, only its own Node object")),
            name => none(format!("node '{node}' cannot read '{name}', only its own Node object")),
        },
        _ => none(""),
    }
}

fn lease(node: &str, attributes: &Attributes<'_>) -> Decision {
    let Attributes { verb, namespace, name, .. } = *attributes;
    if !matches!(verb, "get" | "create" | "update" | "patch" | "delete") {
        return none("can only get, create, update, patch, or delete a node lease");
    }
    if namespace != LEASES {
        return none(format!("can only access leases in the {LEASES:?} system namespace"));
    }
    // The name of a new one is not known here; NodeRestriction looks at it.
    if verb != "create" && name != node {
        return none("can only access node lease with the same name as the requesting node");
    }
    allow()
}

fn unrelated(node: &str) -> Decision {
    none(format!("no relationship found between node '{node}' and this object"))
}

fn allow() -> Decision {
    Decision::Allow(String::new())
}

fn none(reason: impl Into<String>) -> Decision {
    Decision::NoOpinion(reason.into())
}

#[cfg(test)]
mod tests;
