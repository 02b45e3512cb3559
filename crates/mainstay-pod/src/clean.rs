//! Takes out of a manifest what a cluster put into it: pasted `kubectl get pod -o yaml` runs (B34).

use std::collections::HashSet;

use crate::diagnostic::Finding;
use crate::identity::{CONFIG_MIRROR_ANNOTATION, CONFIG_NODE_LABEL, CONFIG_PATH_ANNOTATION};
use crate::path::Path;
use crate::tree::{Node, Span, Value};

/// Fields of the metadata that only an API server writes.
const SERVER_METADATA: [&str; 9] = [
    "uid",
    "resourceVersion",
    "generation",
    "selfLink",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "ownerReferences",
];

/// Annotations that a kubelet, kubectl or mainstay writes.
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubernetes.io/config.hash",
    CONFIG_MIRROR_ANNOTATION,
    "kubernetes.io/config.seen",
    "kubernetes.io/config.source",
    "kubectl.kubernetes.io/last-applied-configuration",
    CONFIG_PATH_ANNOTATION,
];

/// Where the service account admission plugin mounts a token.
const TOKEN_MOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Dropped fields that the warning names.
const MAX_NAMES: usize = 100;

/// What was taken out.
#[derive(Default)]
struct Dropped {
    names: Vec<String>,
    first: Option<Span>,
}

/// Cleans a Pod and returns the warning that lists what was taken out, if there is anything to say.
///
/// `creationTimestamp: null`, `resources: {}` and `status: {}`, which `kubectl run --dry-run=client`
/// writes, go without a word.
pub(crate) fn clean(pod: &mut Node) -> Option<Finding> {
    let mut dropped = Dropped::default();
    let pasted = is_pasted(pod);
    strip_mirror_suffix(pod, &mut dropped);
    if let Some(metadata) = pod.get_mut("metadata") {
        clean_metadata(metadata, pasted, &mut dropped);
    }
    if let Some(status) = pod.remove("status").filter(|entry| !entry.node.is_empty()) {
        dropped.add(Path::new("status"), status.key_span);
    }
    if let Some(spec) = pod.get_mut("spec") {
        clean_spec(spec, pasted, &mut dropped);
    }
    dropped.into_warning()
}

/// The same of a ConfigMap or a Secret.
pub(crate) fn clean_object(object: &mut Node) -> Option<Finding> {
    let mut dropped = Dropped::default();
    let pasted = is_pasted(object);
    strip_mirror_suffix(object, &mut dropped);
    if let Some(metadata) = object.get_mut("metadata") {
        clean_metadata(metadata, pasted, &mut dropped);
        clean_labels(metadata, &mut dropped);
    }
    dropped.into_warning()
}

/// Whether the manifest carries what only an API server writes.
fn is_pasted(pod: &Node) -> bool {
    let metadata = pod.get("metadata");
    let present = |key: &str| metadata.and_then(|it| it.get(key)).is_some_and(|it| !it.is_null());
    present("uid")
        || present("resourceVersion")
        || present("managedFields")
        || metadata
            .and_then(|it| it.get("annotations"))
            .is_some_and(|it| it.get(CONFIG_MIRROR_ANNOTATION).is_some())
        || pod.get("status").is_some_and(|it| !it.is_empty())
}

/// A mirror's name ends in the name of its node; the file's pod would end in it twice.
fn strip_mirror_suffix(pod: &mut Node, dropped: &mut Dropped) {
    let Some(metadata) = pod.get("metadata") else { return };
    let mirror =
        metadata.get("annotations").is_some_and(|it| it.get(CONFIG_MIRROR_ANNOTATION).is_some());
    let owner = metadata.get("ownerReferences").and_then(|owners| {
        owners.items().iter().find(|it| it.get_str("kind") == Some("Node"))?.get_str("name")
    });
    let node_name = pod.get("spec").and_then(|spec| spec.get_str("nodeName")).filter(|_| mirror);
    let Some(suffix) = owner.or(node_name).map(|node| format!("-{}", node.to_lowercase())) else {
        return;
    };
    let Some(name) = pod.get_mut("metadata").and_then(|it| it.get_mut("name")) else { return };
    if let Value::String(text) = &mut name.value
        && let Some(own) = text.strip_suffix(&suffix).filter(|own| !own.is_empty())
    {
        dropped.names.push(format!("the suffix {suffix} of metadata.name"));
        dropped.first.get_or_insert(name.span);
        *text = own.into();
    }
}

fn clean_metadata(metadata: &mut Node, pasted: bool, dropped: &mut Dropped) {
    let path = Path::new("metadata");
    for name in SERVER_METADATA {
        dropped.remove(metadata, name, &path);
    }
    let named = metadata.get("name").is_some_and(|it| !it.is_null());
    if pasted && named {
        dropped.remove(metadata, "generateName", &path);
    }
    if let Some(annotations) = metadata.get_mut("annotations") {
        for name in OWN_ANNOTATIONS {
            if let Some(entry) = annotations.remove(name) {
                dropped.add(path.field("annotations").key(name), entry.key_span);
            }
        }
        if annotations.is_empty() {
            metadata.remove("annotations");
        }
    }
}

/// What a node finds the mirrors of its ConfigMaps and Secrets by.
fn clean_labels(metadata: &mut Node, dropped: &mut Dropped) {
    let Some(labels) = metadata.get_mut("labels") else { return };
    if let Some(entry) = labels.remove(CONFIG_NODE_LABEL) {
        let path = Path::new("metadata");
        dropped.add(path.field("labels").key(CONFIG_NODE_LABEL), entry.key_span);
    }
    if labels.is_empty() {
        metadata.remove("labels");
    }
}

fn clean_spec(spec: &mut Node, pasted: bool, dropped: &mut Dropped) {
    let path = Path::new("spec");
    dropped.remove(spec, "nodeName", &path);
    let tokens = clean_token_volumes(spec, dropped);
    if pasted || !tokens.is_empty() {
        for name in ["serviceAccountName", "serviceAccount"] {
            if spec.get_str(name) == Some("default") {
                dropped.remove(spec, name, &path);
            }
        }
    }
    if pasted {
        clean_tolerations(spec, dropped);
        // They were added to the pod that was there, to look into it.
        dropped.remove(spec, "ephemeralContainers", &path);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        let path = path.field(list);
        let Some(Node { value: Value::List(containers), .. }) = spec.get_mut(list) else {
            continue;
        };
        for (index, container) in containers.iter_mut().enumerate() {
            let path = path.index(index);
            clean_token_mounts(container, &tokens, &path, dropped);
            if container.get("resources").is_some_and(Node::is_empty) {
                container.remove("resources");
            }
        }
    }
}

/// Takes out the volumes that the service account admission plugin adds; returns their names.
fn clean_token_volumes(spec: &mut Node, dropped: &mut Dropped) -> HashSet<String> {
    let mut names = HashSet::new();
    let spec_path = Path::new("spec");
    let path = spec_path.field("volumes");
    let Some(volumes) = spec.get_mut("volumes") else { return names };
    if let Value::List(items) = &mut volumes.value {
        let mut index = 0;
        items.retain(|volume| {
            let at = index;
            index += 1;
            let Some(name) = volume.get_str("name").filter(|name| is_token_volume(name, volume))
            else {
                return true;
            };
            names.insert(name.to_owned());
            dropped.add(path.index(at), volume.span);
            false
        });
    }
    if !names.is_empty() && volumes.is_empty() {
        spec.remove("volumes");
    }
    names
}

/// `kube-api-access-x7k2p`, or `default-token-x7k2p` before Kubernetes 1.21.
fn is_token_volume(name: &str, volume: &Node) -> bool {
    let generated =
        |suffix: &str| suffix.len() == 5 && suffix.bytes().all(|b| b.is_ascii_alphanumeric());
    if let Some(suffix) = name.strip_prefix("kube-api-access-") {
        return generated(suffix) && volume.get("projected").is_some();
    }
    let secret = volume.get("secret").and_then(|it| it.get_str("secretName"));
    name.rsplit_once("-token-").is_some_and(|(_, suffix)| generated(suffix)) && secret == Some(name)
}

fn clean_token_mounts(
    container: &mut Node,
    tokens: &HashSet<String>,
    path: &Path<'_>,
    dropped: &mut Dropped,
) {
    let path = path.field("volumeMounts");
    let Some(mounts) = container.get_mut("volumeMounts") else { return };
    let Value::List(items) = &mut mounts.value else { return };
    let before = items.len();
    let mut index = 0;
    items.retain(|mount| {
        let at = index;
        index += 1;
        let token = mount.get_str("name").is_some_and(|name| tokens.contains(name));
        let keep = !(token && mount.get_str("mountPath") == Some(TOKEN_MOUNT));
        if !keep {
            dropped.add(path.index(at), mount.span);
        }
        keep
    });
    if items.is_empty() && before > 0 {
        container.remove("volumeMounts");
    }
}

/// The tolerations that admission and the kubelet add to every pod.
fn clean_tolerations(spec: &mut Node, dropped: &mut Dropped) {
    let spec_path = Path::new("spec");
    let path = spec_path.field("tolerations");
    let Some(tolerations) = spec.get_mut("tolerations") else { return };
    let Value::List(items) = &mut tolerations.value else { return };
    let before = items.len();
    let mut index = 0;
    items.retain(|toleration| {
        let at = index;
        index += 1;
        let number = |key: &str| match toleration.get(key).map(|it| &it.value) {
            Some(Value::Number(text)) => Some(&**text),
            _ => None,
        };
        let no_execute = toleration.get_str("operator") == Some("Exists")
            && toleration.get_str("effect") == Some("NoExecute");
        let added = match toleration.get_str("key") {
            None => no_execute && toleration.entries().len() == 2,
            Some("node.kubernetes.io/not-ready" | "node.kubernetes.io/unreachable") => {
                no_execute && number("tolerationSeconds") == Some("300")
            }
            Some(_) => false,
        };
        if added {
            dropped.add(path.index(at), toleration.span);
        }
        !added
    });
    if items.is_empty() && before > 0 {
        spec.remove("tolerations");
    }
}

// === impl Dropped ===

impl Dropped {
    fn add(&mut self, path: Path<'_>, span: Span) {
        self.names.push(path.to_string());
        self.first.get_or_insert(span);
    }

    /// Removes a field; a null is nothing worth naming.
    fn remove(&mut self, node: &mut Node, name: &str, path: &Path<'_>) {
        if let Some(entry) = node.remove(name).filter(|entry| !entry.node.is_null()) {
            self.add(path.field(name), entry.key_span);
        }
    }

    fn into_warning(self) -> Option<Finding> {
        let span = self.first?;
        let span = Span { end: span.end.min(span.start.saturating_add(200)), ..span };
        let mut names =
            self.names.iter().take(MAX_NAMES).map(String::as_str).collect::<Vec<_>>().join(", ");
        if self.names.len() > MAX_NAMES {
            names.push_str(", ...");
        }
        let message = format!("dropped what a cluster had added: {names}");
        Some(Finding::warning(span, "", message))
    }
}

#[cfg(test)]
mod tests;
