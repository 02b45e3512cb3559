//! Writing events to the API, in the words of a kubelet.

use k8s_openapi::api::core::v1::ObjectReference;
use mainstay_client::events::{Correlator, record as write};
use tokio::sync::watch;

use super::api::Calls;
use super::{About, Events};

/// Who tells them: tools look for this word.
const COMPONENT: &str = "kubelet";

/// Writes what is told, for ever.
pub(crate) async fn record(
    calls: Calls,
    node: String,
    events: Events,
    reachable: watch::Receiver<bool>,
) {
    let correlator = Correlator::new(COMPONENT, Some(&node));
    let involved = |about| involved(about, &node);
    write(&calls, correlator, events.queue(), involved, reachable).await;
}

fn involved(about: About, node: &str) -> ObjectReference {
    match about {
        // Its UID is its name: what describes nodes looks for this one as well.
        About::Node => ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            uid: Some(node.to_owned()),
            ..ObjectReference::default()
        },
        About::Pod { namespace, name, uid, field_path } => ObjectReference {
            kind: Some("Pod".to_owned()),
            api_version: Some("v1".to_owned()),
            namespace: Some(namespace),
            name: Some(name),
            uid: Some(uid),
            field_path,
            ..ObjectReference::default()
        },
    }
}

#[cfg(test)]
mod tests;
