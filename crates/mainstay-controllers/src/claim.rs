//! Which objects a controller's object controls: those that its selector picks, of those that nobody
//! else controls.
//!
//! Source: `pkg/controller/controller_ref_manager.go`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_client::{CallError, CallErrorKind, Calls, Object, Partial};
use mainstay_pod::scheduling::selector::Selector;
use serde_json::json;

use crate::informer::{Change, Informer, ObjectKey};
use crate::informers::{Kind, path};
use crate::owner::{controller, is_of, reference};
use crate::written::Written;

/// A kind whose objects control others that a selector picks.
pub(crate) trait Claims: Kind {
    fn selector(&self) -> Selector;
}

/// What is to be done about each of some objects.
#[derive(Debug)]
pub(crate) struct Decision<O> {
    /// They are controlled already.
    own: Vec<Arc<O>>,
    adopt: Vec<Arc<O>>,
    release: Vec<Arc<O>>,
}

/// Decides about objects of the same namespace.
fn decide<O: Object>(owner: &ObjectMeta, selector: &Selector, objects: Vec<Arc<O>>) -> Decision<O> {
    let mut decision = Decision { own: Vec::new(), adopt: Vec::new(), release: Vec::new() };
    let ends = owner.deletion_timestamp.is_some();
    for object in objects {
        let meta = object.meta();
        let picked = picks(selector, meta);
        match controller(meta) {
            Some(it) if Some(&it.uid) != owner.uid.as_ref() => {}
            Some(_) if picked => decision.own.push(object),
            Some(_) if ends => {}
            Some(_) => decision.release.push(object),
            None if ends || !picked || meta.deletion_timestamp.is_some() => {}
            None => decision.adopt.push(object),
        }
    }
    decision
}

fn picks(selector: &Selector, meta: &ObjectMeta) -> bool {
    static NONE: BTreeMap<String, String> = BTreeMap::new();
    selector.matches(meta.labels.as_ref().unwrap_or(&NONE))
}

/// Adopts and releases; answers what is controlled after that.
pub(crate) async fn claim<K: Claims, O: Kind>(
    calls: &Calls,
    written: &Written,
    owner: &K,
    objects: Vec<Arc<O>>,
) -> Result<Vec<Arc<O>>, CallError> {
    let meta = owner.meta();
    let key = ObjectKey::of(meta);
    let Decision { mut own, adopt, release } = decide(meta, &owner.selector(), objects);
    for object in release {
        let owners = json!([{ "$patch": "delete", "uid": meta.uid }]);
        patch(calls, written, &key, &*object, owners).await?;
    }
    if !adopt.is_empty() {
        // It may have been deleted, and what it had be orphaned, since this was heard.
        let there = match calls.get_metadata(&path::<K>(&key.namespace, &key.name)).await {
            Ok(there) => there.metadata,
            Err(error) if error.kind == CallErrorKind::NotFound => return Ok(own),
            Err(error) => return Err(error),
        };
        if there.uid != meta.uid || there.deletion_timestamp.is_some() {
            return Ok(own);
        }
        for object in adopt {
            if patch(calls, written, &key, &*object, json!([reference(owner)])).await? {
                own.push(object);
            }
        }
    }
    Ok(own)
}

/// Changes the owners of an object; answers whether that was done.
async fn patch<O: Kind>(
    calls: &Calls,
    written: &Written,
    key: &ObjectKey,
    object: &O,
    owners: serde_json::Value,
) -> Result<bool, CallError> {
    let ObjectKey { namespace, name } = ObjectKey::of(object.meta());
    let patch = json!({ "metadata": { "ownerReferences": owners, "uid": object.meta().uid } });
    match calls.patch::<Partial>(&path::<O>(&namespace, &name), &patch).await {
        Ok(answer) => {
            written.note(key, &answer.metadata);
            Ok(true)
        }
        // It is gone, another one, or somebody else's; each is heard of.
        Err(error) if error.is_of_another() || error.is_invalid() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whom a change of an object is about: its controllers and, if it has none, all that would take it.
pub(crate) fn claimants<K: Claims, O: Object>(
    owners: &Informer<K>,
    change: &Change<'_, O>,
) -> BTreeSet<ObjectKey> {
    let mut keys = BTreeSet::new();
    for object in change.both() {
        let meta = object.meta();
        let Some(it) = controller(meta).filter(|it| is_of::<K>(it)) else { continue };
        let key = ObjectKey::new(meta.namespace.as_deref().unwrap_or_default(), &it.name);
        if owners.get(&key).is_some_and(|owner| owner.meta().uid.as_ref() == Some(&it.uid)) {
            keys.insert(key);
        }
    }
    let Some(new) = change.new.map(|new| new.meta()) else { return keys };
    let is_other = change.old.is_none_or(|old| {
        let old = old.meta();
        old.labels != new.labels || controller(old) != controller(new)
    });
    if controller(new).is_none() && is_other {
        let namespace = new.namespace.as_deref().unwrap_or_default();
        let owners = owners.of_namespace(namespace).into_iter();
        let takers = owners.filter(|owner| picks(&owner.selector(), new));
        keys.extend(takers.map(|owner| ObjectKey::of(owner.meta())));
    }
    keys
}

#[cfg(test)]
mod tests;
