//! `delete` and `deletecollection`.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/registry/rest/delete.go` and
//! `staging/src/k8s.io/apiserver/pkg/registry/generic/registry/store.go`.

use jiff::Timestamp;
use mainstay_pod::identity::CONFIG_MIRROR_ANNOTATION;
use mainstay_store::{Durability, Expect, ListOptions, Revision};
use serde_json::{Value, json};

use crate::admission::{Attributes, Operation};
use crate::call::{Answer, Call};
use crate::decode;
use crate::kind::Resource;
use crate::object::{self, Object};
use crate::request::DeleteOptions;
use crate::selector::Selector;
use crate::server::Inner;
use crate::status::{self, ApiError, Result};
use crate::storage::{self, Stored, WriteError, durability};
use crate::verbs::get;
use crate::verbs::list::{self, Found};

/// How often a delete is decided anew when somebody else changes the object.
const ATTEMPTS: usize = 30;

/// What became of an object.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// It is gone; this is how it was.
    Gone(Stored),
    /// It goes, once its time or its finalizers are over.
    Going(Stored),
}

/// What is to be done with an object that somebody wants gone.
#[derive(Debug, PartialEq)]
enum Decision {
    /// Take it out.
    Remove,
    /// Write it, as something whose time is over, and take it out: who watches is told both.
    End(Object),
    /// Write it, as terminating.
    Mark(Object),
    /// Nothing: it goes already.
    Wait,
}

/// Deletes one object.
pub(crate) async fn delete(call: &Call<'_>) -> Result<Answer> {
    let body = decode::options(call)?;
    let options = DeleteOptions::parse(&call.info.query, body.as_ref())?;
    let (namespace, name) = (call.namespace(), &call.info.name);
    let deleted = call.server.delete(call.user, call.resource, namespace, name, &options).await?;
    let strategy = call.resource.strategy;
    Ok(match deleted {
        Deleted::Going(stored) => get::answer(call, stored.object),
        Deleted::Gone(stored) if strategy.returns_deleted() => get::answer(call, stored.object),
        Deleted::Gone(stored) => {
            let (name, uid) = (stored.object.name(), stored.object.uid());
            Answer::json(status::success(call.resource, name, uid))
        }
    })
}

/// Deletes all objects that a selector picks.
pub(crate) async fn delete_collection(call: &Call<'_>) -> Result<Answer> {
    let (resource, query) = (call.resource, &call.info.query);
    let body = decode::options(call)?;
    let options = DeleteOptions::parse(query, body.as_ref())?;
    let selector =
        Selector::parse(resource, query.get("labelSelector"), query.get("fieldSelector"))?;
    let page =
        call.server.storage.page(resource, call.namespace(), &ListOptions::default()).await?;
    let mut items = Vec::new();
    for entry in &page.entries {
        let object = storage::decode(resource, &entry.value, entry.revision)?;
        if !selector.matches(resource, &object) {
            continue;
        }
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        match call.server.delete(call.user, resource, &namespace, &name, &options).await {
            Ok(Deleted::Gone(stored) | Deleted::Going(stored)) => items.push(stored.object),
            Err(error) if error.code == http::StatusCode::NOT_FOUND => {}
            Err(error) => return Err(error),
        }
    }
    let meta = json!({ "resourceVersion": page.revision.0.to_string() });
    Ok(list::answer(call, meta, Found::Objects(items)))
}

impl Inner {
    /// Deletes an object, or lets it begin to go.
    pub(crate) async fn delete(
        &self,
        user: &crate::authn::User,
        resource: &'static Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Deleted> {
        for _ in 0..ATTEMPTS {
            let stored = self.storage.get(resource, namespace, name).await?;
            preconditions(resource, &stored.object, options)?;
            let attributes = Attributes {
                user,
                operation: Operation::Delete,
                resource,
                subresource: "",
                namespace,
                name,
                dry_run: options.dry_run,
            };
            self.validate_admission(&attributes, None, Some(&stored.object)).await?;
            let options = &of_mirror(user, &stored.object, options);
            let decision = decide(resource, &stored.object, options, Timestamp::now());
            let done = match decision {
                Decision::Wait if self.storage.is_current(resource, &stored).await? => {
                    return Ok(Deleted::Going(stored));
                }
                Decision::Wait => continue,
                Decision::Remove if options.dry_run => return Ok(Deleted::Gone(stored)),
                Decision::End(object) if options.dry_run => {
                    return Ok(Deleted::Gone(Stored { object, revision: stored.revision }));
                }
                Decision::Mark(object) if options.dry_run => {
                    return Ok(Deleted::Going(Stored { object, revision: stored.revision }));
                }
                Decision::Remove => self.remove(resource, stored).await.map(Deleted::Gone),
                Decision::End(object) => {
                    self.end(resource, object, stored).await.map(Deleted::Gone)
                }
                Decision::Mark(object) => {
                    let expect = Expect::At(stored.revision);
                    let put = self.storage.put(resource, object, expect, durability(resource));
                    put.await.map(Deleted::Going)
                }
            };
            match done {
                Ok(deleted) => return Ok(deleted),
                Err(WriteError::Conflict) => {}
                Err(WriteError::Other(error)) => return Err(error),
            }
        }
        Err(ApiError::conflict(resource, name, "others change it all the time; try again"))
    }

    /// The first of the two writes is not waited for: the second one, which comes after it, is. Who sees the
    /// first one may be faster with the second; then it is done.
    async fn end(
        &self,
        resource: &'static Resource,
        object: Object,
        stored: Stored,
    ) -> std::result::Result<Stored, WriteError> {
        let expect = Expect::At(stored.revision);
        let ended = self.storage.put(resource, object, expect, Durability::Lazy).await?;
        let (namespace, name) = (ended.object.namespace(), ended.object.name());
        match self.remove(resource, ended.clone()).await {
            Err(WriteError::Conflict) => {
                let there = self.storage.find(resource, namespace, name).await;
                match there.map_err(WriteError::Other)? {
                    Some(there) if there.object.uid() == ended.object.uid() => {
                        Err(WriteError::Conflict)
                    }
                    _ => Ok(ended),
                }
            }
            other => other,
        }
    }

    async fn remove(
        &self,
        resource: &'static Resource,
        stored: Stored,
    ) -> std::result::Result<Stored, WriteError> {
        let revision: Revision = self.storage.remove(resource, &stored).await?;
        let mut object = stored.object;
        object.set_revision(revision);
        Ok(Stored { object, revision })
    }
}

/// A mirror pod goes at once, whoever but its node deletes it: nothing that runs ends with it, and its
/// successor is there within milliseconds. A client that waits, as kubectl does by one list after the
/// other, must not find the old one first and then the new one, whose end it would wait for for ever.
fn of_mirror(user: &crate::authn::User, object: &Object, options: &DeleteOptions) -> DeleteOptions {
    let mut options = options.clone();
    let mirror = object.annotation(CONFIG_MIRROR_ANNOTATION).is_some();
    if mirror && user.node_name().is_none() {
        options.grace_period_seconds = Some(0);
    }
    options
}

fn preconditions(resource: &Resource, object: &Object, options: &DeleteOptions) -> Result<()> {
    let name = object.name();
    if let Some(uid) = options.uid.as_deref().filter(|uid| *uid != object.uid()) {
        let there = object.uid();
        return Err(ApiError::kind_conflict(
            resource,
            name,
            format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({there}). \
                 The object might have been deleted and then recreated"
            ),
        ));
    }
    let version = options.resource_version.as_deref();
    if let Some(version) = version.filter(|version| *version != object.resource_version()) {
        let there = object.resource_version();
        return Err(ApiError::kind_conflict(
            resource,
            name,
            format!(
                "the ResourceVersion in the precondition ({version}) does not match the \
                 ResourceVersion in record ({there}). The object might have been modified"
            ),
        ));
    }
    Ok(())
}

/// Source: `BeforeDelete` and `deletionFinalizersForGarbageCollection`.
fn decide(
    resource: &Resource,
    object: &Object,
    options: &DeleteOptions,
    now: Timestamp,
) -> Decision {
    let requested =
        options.grace_period_seconds.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let mut new = object.clone();
    set_propagation(&mut new, options);
    let grace = resource.strategy.grace_period(object, requested);
    if object.is_terminating() {
        let current =
            object.meta().and_then(|meta| meta.get("deletionGracePeriodSeconds")?.as_i64());
        let shorter = match (current, requested) {
            (None | Some(0), _) | (_, Some(0)) => None,
            (Some(current), Some(seconds)) if seconds < current => Some((current, seconds)),
            _ => return Decision::Wait,
        };
        let Some((current, mut seconds)) = shorter else {
            return finish(resource, new, object, now);
        };
        let end = object.meta_str("deletionTimestamp").parse::<Timestamp>().unwrap_or(now);
        let mut end = end.as_second().saturating_sub(current).saturating_add(seconds);
        if end < now.as_second() {
            end = now.as_second();
            seconds = 1;
        }
        mark(&mut new, end, seconds);
        return Decision::Mark(new);
    }
    match grace {
        None | Some(0) => finish(resource, new, object, now),
        Some(seconds) => {
            mark(&mut new, now.as_second().saturating_add(seconds), seconds);
            next_generation(&mut new);
            Decision::Mark(new)
        }
    }
}

/// An object whose time is over goes, unless it has finalizers. Of kinds that are given time, it is told that
/// it is over, unless that was told before. Source: `markAsDeleting`.
fn finish(resource: &Resource, mut new: Object, old: &Object, now: Timestamp) -> Decision {
    let begins = resource.strategy.begins_to_end(&mut new);
    let goes = !begins && !new.has_finalizers();
    let known = old.meta().and_then(|meta| meta.get("deletionGracePeriodSeconds")?.as_i64());
    let told = old.is_terminating() && known == Some(0);
    if goes && (told || resource.strategy.grace_period(old, Some(0)).is_none()) {
        return Decision::Remove;
    }
    if !old.is_terminating() {
        next_generation(&mut new);
    }
    let end = old.meta_str("deletionTimestamp").parse().ok().filter(|end| *end <= now);
    mark(&mut new, end.unwrap_or(now).as_second(), 0);
    match goes {
        true => Decision::End(new),
        false if new == *old => Decision::Wait,
        false => Decision::Mark(new),
    }
}

fn mark(object: &mut Object, end: i64, seconds: i64) {
    let end = Timestamp::from_second(end).unwrap_or(Timestamp::MAX);
    let meta = object.meta_mut();
    meta.insert("deletionTimestamp".into(), object::time(end).into());
    meta.insert("deletionGracePeriodSeconds".into(), seconds.into());
}

fn next_generation(object: &mut Object) {
    let generation = object.generation();
    if generation > 0 {
        object.meta_mut().insert("generation".into(), (generation + 1).into());
    }
}

/// What is to become of what the object owns is written on it as a finalizer, for the garbage collector.
fn set_propagation(object: &mut Object, options: &DeleteOptions) {
    const FOREGROUND: &str = "foregroundDeletion";
    const ORPHAN: &str = "orphan";
    let wanted = match (options.propagation_policy.as_deref(), options.orphan_dependents) {
        (Some("Foreground"), _) => Some(FOREGROUND),
        (Some("Orphan"), _) | (None, Some(true)) => Some(ORPHAN),
        (Some(_), _) | (None, Some(false)) => None,
        // As it was decided before.
        (None, None) => return,
    };
    let meta = object.meta_mut();
    let mut finalizers: Vec<Value> = meta
        .get("finalizers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter(|it| !matches!(it.as_str(), Some(FOREGROUND | ORPHAN)))
        .cloned()
        .collect();
    finalizers.extend(wanted.map(Value::from));
    if finalizers.is_empty() {
        meta.remove("finalizers");
    } else {
        meta.insert("finalizers".into(), finalizers.into());
    }
}

#[cfg(test)]
mod tests;
