//! Objects of an API, followed one by one: more than those that its pods refer to a node may not read.
//!
//! Source: `pkg/kubelet/util/manager/watch_based_manager.go`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_client::{CallError, Calls, Collection, Sink, Trouble};
use mainstay_plan::references::Known;
use mainstay_pod::{DockerFormat, Object, ObjectKind, ObjectName, ObjectValue};
use serde::Deserialize;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, Id, JoinSet};

use super::Shelf;

/// How long one watch lasts: one that is wedged is found out by then.
const WATCH: Duration = Duration::from_secs(600);

/// Keeps a shelf filled, for ever.
pub(crate) async fn keep(calls: Calls, shelf: Arc<Shelf>) {
    let mut wanted = shelf.wanted();
    let mut tasks = JoinSet::new();
    let mut followed: BTreeMap<ObjectName, AbortHandle> = BTreeMap::new();
    loop {
        wanted.mark_unchanged();
        let names = shelf.names();
        followed.retain(|name, task| {
            let kept = names.contains(name);
            if !kept {
                task.abort();
            }
            kept
        });
        for name in names {
            followed.entry(name).or_insert_with_key(|name| {
                tasks.spawn(follow(calls.clone(), shelf.clone(), name.clone()))
            });
        }
        tokio::select! {
            // Cancel-safe per docs on `watch::Receiver::changed`; the shelf is ours.
            _ = wanted.changed() => {}
            // Cancel-safe per docs on `JoinSet::join_next_with_id`.
            Some(ended) = tasks.join_next_with_id() => take_in(ended, &mut followed),
        }
    }
}

/// What does not change any more need not be followed, and is not begun again.
fn take_in(
    ended: Result<(Id, ()), tokio::task::JoinError>,
    followed: &mut BTreeMap<ObjectName, AbortHandle>,
) {
    if let Err(error) = ended
        && error.is_panic()
    {
        let id = error.id();
        tracing::error!(%error, "following an object of the API panicked; it is begun again");
        followed.retain(|_, task| task.id() != id);
    }
}

/// Follows one object for as long as it can change.
async fn follow(calls: Calls, shelf: Arc<Shelf>, name: ObjectName) {
    let collection = Collection {
        path: format!("/api/v1/namespaces/{}/{}", name.namespace, name.kind.plural()),
        query: format!("fieldSelector=metadata.name%3D{}", name.name),
        metadata_only: false,
        lasting: WATCH,
    };
    let heard = Heard { shelf, name, trouble: Mutex::default(), immutable: Notify::new() };
    tokio::select! {
        () = mainstay_client::follow(&calls, &collection, &heard) => {}
        () = heard.immutable.notified() => {}
    }
}

/// Takes in what is heard of one object.
struct Heard {
    shelf: Arc<Shelf>,
    name: ObjectName,
    trouble: Mutex<Trouble>,
    immutable: Notify,
}

/// A ConfigMap or a Secret as an API has it.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Held {
    metadata: ObjectMeta,
    #[serde(default)]
    data: Option<BTreeMap<String, String>>,
    #[serde(default)]
    binary_data: Option<BTreeMap<String, ByteString>>,
    #[serde(default)]
    immutable: Option<bool>,
    /// Of a Secret.
    #[serde(default, rename = "type")]
    type_: Option<String>,
}

impl mainstay_client::Object for Held {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

impl Held {
    fn into_object(self, kind: ObjectKind) -> Result<Object, serde_json::Error> {
        let mut values = BTreeMap::new();
        for (key, value) in self.data.into_iter().flatten() {
            let value = match kind {
                ObjectKind::ConfigMap => ObjectValue::Text(value.into()),
                ObjectKind::Secret => {
                    let bytes: ByteString = serde_json::from_value(value.into())?;
                    ObjectValue::Bytes(bytes.0.into())
                }
            };
            values.insert(key, value);
        }
        let binary = self.binary_data.into_iter().flatten();
        values.extend(binary.map(|(key, value)| (key, ObjectValue::Bytes(value.0.into()))));
        let docker = self.type_.as_deref().and_then(DockerFormat::of_type);
        Ok(Object { values, immutable: self.immutable == Some(true), docker, written: None })
    }
}

impl Sink<Held> for Heard {
    fn replace(&self, listed: Vec<Held>, _version: &str) {
        match listed.into_iter().next() {
            Some(held) => self.heard(held),
            None => self.shelf.put(&self.name, Known::Missing),
        }
    }

    fn heard(&self, held: Held) {
        match held.into_object(self.name.kind) {
            Ok(object) => {
                let immutable = object.immutable;
                self.shelf.put(&self.name, Known::Found(Arc::new(object)));
                if immutable {
                    self.immutable.notify_one();
                }
            }
            // What it says is nobody's business.
            Err(_) => self.shelf.put(&self.name, Known::Unreadable("a value is not base64".into())),
        }
    }

    fn deleted(&self, _held: Held) {
        self.shelf.put(&self.name, Known::Missing);
    }

    fn answered(&self, how: Result<(), &CallError>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(CallError { message: error, .. }) = trouble.news(how) {
            let object = &self.name;
            tracing::warn!(%object, error, "cannot follow an object that pods refer to");
        }
        if let Err(error) = how {
            self.shelf.unreadable(&self.name, &error.answer);
        }
    }
}
