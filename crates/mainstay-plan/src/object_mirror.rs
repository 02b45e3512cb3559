//! What an API is made to show of the ConfigMaps and Secrets beside a node's manifests.
//!
//! As with pods a mirror is a projection: it is called as what it is of, with the node's name at the end, so
//! that the objects of two nodes, and those that somebody makes in the API, do not meet. Static pods take what
//! lies on disk, whatever becomes of it.
//!
//! # Guarantees
//!
//! - A mirror is never changed: one that shows something else goes, and is made anew.
//! - Values that are the service manager's credentials are not shown.
//! - Only what bears the node's name, its label and the path of a file is touched.

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_pod::identity::{
    self, CONFIG_HASH_ANNOTATION, CONFIG_NODE_LABEL, CONFIG_PATH_ANNOTATION, IDENTITY_SECRETS,
};
use mainstay_pod::{Object, ObjectKind, ObjectName, ObjectValue};
use serde_json::{Value, json};

/// The longest name of an object, and the longest value of a label, in bytes.
const NAME_MAX: usize = 253;
const LABEL_MAX: usize = 63;

/// What an API should show of one object.
#[derive(Clone, Debug)]
pub struct Mirror {
    /// What it is called there.
    pub name: ObjectName,
    /// As it is created, but for the Node that owns it.
    object: Value,
    /// Of all that.
    hash: String,
}

/// What an API has, as far as it matters.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Held {
    /// Its UID.
    pub uid: String,
    /// Of what it shows, or showed, if it is a mirror of ours.
    hash: Option<String>,
    /// The UID of the Node that owns it.
    owner: Option<String>,
    deleting: bool,
}

/// One thing to do to the API.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Create it.
    Create(Value),
    /// Delete it at once.
    Delete {
        /// Its UID: a precondition.
        uid: String,
    },
}

// === impl Mirror ===

impl Mirror {
    /// What is shown of an object that lies in a file.
    ///
    /// # Errors
    ///
    /// Why it is not shown.
    pub fn new(name: &ObjectName, object: &Object, path: &str, node: &str) -> Result<Self, String> {
        let shown = identity::object_mirror_name(&name.name, node);
        let mirror = ObjectName { name: shown, ..name.clone() };
        let refuse = |why: String| Err(format!("{name} of {path} is not shown: {why}"));
        if mirror.name.len() > NAME_MAX {
            return refuse(format!("its name and the node's have more than {NAME_MAX} characters"));
        }
        if node.len() > LABEL_MAX {
            return refuse(format!("the node's name has more than {LABEL_MAX} characters"));
        }
        let written = object.written.as_deref();
        let secret_type = written.and_then(|it| it.secret_type.as_deref());
        if let Some(never) = secret_type.filter(|it| IDENTITY_SECRETS.contains(it)) {
            return refuse(format!("an API server would act on a Secret of the type {never}"));
        }
        let mut annotations = written.map(|it| it.annotations.clone()).unwrap_or_default();
        annotations.insert(CONFIG_PATH_ANNOTATION.to_owned(), path.to_owned());
        let mut labels = written.map(|it| it.labels.clone()).unwrap_or_default();
        labels.insert(CONFIG_NODE_LABEL.to_owned(), node.to_owned());
        let mut shown = json!({
            "apiVersion": "v1",
            "kind": name.kind.as_str(),
            "metadata": {
                "name": mirror.name,
                "namespace": mirror.namespace,
                "labels": labels,
                "annotations": annotations,
            },
        });
        if let Some(kind) = secret_type {
            shown["type"] = kind.into();
        }
        // What the service manager keeps encrypted is written nowhere in plain.
        let is_kept = |key: &String| written.is_some_and(|it| it.credentials.contains_key(key));
        for (key, value) in object.values.iter().filter(|(key, _)| !is_kept(key)) {
            let (map, value) = value_of(name.kind, value);
            shown[map][key] = value;
        }
        let hash = identity::hash(&[&shown.to_string()]);
        shown["metadata"]["annotations"][CONFIG_HASH_ANNOTATION] = hash.clone().into();
        Ok(Self { name: mirror, object: shown, hash })
    }

    fn owned(&self, node: &str, uid: &str) -> Value {
        let mut object = self.object.clone();
        object["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "v1",
            "kind": "Node",
            "name": node,
            "uid": uid,
            "controller": true,
        }]);
        object
    }
}

/// Where a value stands, and how.
fn value_of(kind: ObjectKind, value: &ObjectValue) -> (&'static str, Value) {
    match (kind, value) {
        (ObjectKind::ConfigMap, ObjectValue::Text(text)) => ("data", (**text).into()),
        (ObjectKind::ConfigMap, ObjectValue::Bytes(bytes)) => ("binaryData", base64(bytes)),
        (ObjectKind::Secret, value) => ("data", base64(value.as_bytes())),
    }
}

fn base64(bytes: &[u8]) -> Value {
    // It is text.
    serde_json::to_value(ByteString(bytes.to_vec())).unwrap_or_default()
}

// === impl Held ===

impl Held {
    /// Of what bears the node's label.
    pub fn of(metadata: &ObjectMeta, node: &str) -> Self {
        let annotation = |key: &str| metadata.annotations.as_ref()?.get(key).cloned();
        let label = metadata.labels.as_ref().and_then(|it| it.get(CONFIG_NODE_LABEL));
        let label = label.map(String::as_str).filter(|it| *it == node);
        let path = annotation(CONFIG_PATH_ANNOTATION);
        let name = metadata.name.as_deref().unwrap_or_default();
        let is_mirror = identity::is_object_mirror(name, label, path.as_deref());
        let mut owners = metadata.owner_references.iter().flatten();
        let owner = owners.find(|it| it.kind == "Node").map(|it| it.uid.clone());
        Self {
            uid: metadata.uid.clone().unwrap_or_default(),
            hash: is_mirror.then(|| annotation(CONFIG_HASH_ANNOTATION).unwrap_or_default()),
            owner,
            deleting: metadata.deletion_timestamp.is_some(),
        }
    }
}

/// The next thing to do about one name; `None` when the API shows what is.
///
/// `node` is the name and the UID of the Node object, if there is one: without it, mirrors would belong to
/// nobody.
pub fn next(
    mirror: Option<&Mirror>,
    held: Option<&Held>,
    node: (&str, Option<&str>),
) -> Option<Action> {
    let (name, uid) = node;
    match (mirror, held) {
        (None, None) => None,
        (Some(mirror), None) => uid.map(|uid| Action::Create(mirror.owned(name, uid))),
        (mirror, Some(held)) => {
            // Somebody else's, with our label.
            let hash = held.hash.as_ref()?;
            let shows = mirror.is_some_and(|it| it.hash == *hash);
            let ours = uid.is_none() || held.owner.as_deref() == uid;
            let stays = held.deleting || (shows && ours);
            (!stays).then(|| Action::Delete { uid: held.uid.clone() })
        }
    }
}

#[cfg(test)]
mod tests;
