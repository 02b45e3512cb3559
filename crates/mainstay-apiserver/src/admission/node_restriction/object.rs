//! ConfigMaps and Secrets that lie beside the manifests of a node: it may show its own, and takes back what it
//! showed. Kubernetes lets nodes write none.

use mainstay_pod::identity::{self, CONFIG_NODE_LABEL, CONFIG_PATH_ANNOTATION, IDENTITY_SECRETS};

use super::{Found, Refusal, Request, forbid, pod};
use crate::admission::Operation;
use crate::object::Object;

pub(super) fn admit(
    node: &str,
    request: &Request<'_>,
    new: Option<&Object>,
    old: Option<&Object>,
    found: &Found<'_>,
) -> Result<(), Refusal> {
    let what = request.resource;
    match (request.operation, new.or(old)) {
        (Operation::Create | Operation::Delete, Some(object)) if !is_own(node, object) => {
            forbid(format!(
                "node {node:?} can only create and delete {what} whose names end in {:?}, with the label \
                 {CONFIG_NODE_LABEL:?} set to itself and the annotation {CONFIG_PATH_ANNOTATION:?}",
                identity::object_mirror_name("", node)
            ))
        }
        (Operation::Create, Some(object)) => {
            let kind = object.str_at(&["type"]);
            // A node must not make anybody up.
            if IDENTITY_SECRETS.contains(&kind) {
                return forbid(format!("node {node:?} can not create {what} of the type {kind:?}"));
            }
            pod::owner(node, what, object, found)
        }
        // The authorizer lets no node change any.
        (Operation::Create | Operation::Update | Operation::Delete, _) => Ok(()),
    }
}

fn is_own(node: &str, object: &Object) -> bool {
    let label = object.label(CONFIG_NODE_LABEL).filter(|label| *label == node);
    let path = object.annotation(CONFIG_PATH_ANNOTATION);
    identity::is_object_mirror(object.name(), label, path)
}
