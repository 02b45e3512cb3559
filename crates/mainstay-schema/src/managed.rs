//! Who set which field: `metadata.managedFields`, and server-side apply.
//!
//! Objects are in the form that [`crate::decode`] gives them. Managers of other versions than the one
//! of the request are forgotten, since mainstay knows each kind in one version.
//!
//! Sources: `staging/src/k8s.io/apimachinery/pkg/util/managedfields`,
//! `sigs.k8s.io/structured-merge-diff/merge`.

mod cap;
mod entries;
mod error;
mod last_applied;
mod merge;
mod place;
mod set;
mod validate;
mod walk;

use jiff::Timestamp;
use serde_json::Value;

use self::entries::{Entries, Held, Manager, Operation};
pub use self::error::{ApplyError, Conflict, Conflicts};
use self::set::{Element, Set};
use self::validate::Duplicates;
use self::walk::Comparison;
use crate::decode;
use crate::types::Type;

/// Who writes, and what.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager; of clients that name none it is the first part of their user agent. Empty is
    /// written as `unknown`.
    pub manager: &'a str,
    /// Group and version of the object, such as `apps/v1`.
    pub api_version: &'a str,
    /// The subresource that is written to, such as `status`; empty for the object itself.
    pub subresource: &'a str,
    /// Fields that such a write resets, with what is below them, so that nobody comes to hold them by it:
    /// `GetResetFields` of Kubernetes' strategies. Paths are like `metadata.deletionTimestamp`.
    pub resets: &'a [&'a str],
    /// Fields that alone such a write sets, with what is below them; empty if it sets any. `*` in a path is
    /// any item of a list.
    pub only: &'a [&'a str],
    /// The time of the write; whole seconds of it are kept.
    pub now: Timestamp,
}

/// Keeps track of a create, an update or a patch: sets the managed fields of the new object.
///
/// `live` is the object as it was, `None` for a create. `new` is the one that is about to be stored; if
/// it has managed fields, the client sent them, and they are taken instead of the live ones unless a
/// subresource is written. Nothing is set if the object has none though it exists already, which is how
/// clients switch tracking off: they send `managedFields: [{}]`.
pub fn update(live: Option<Value>, new: &mut Value, of: &'static Type, by: &Writer<'_>) {
    let live_entries = || live.as_ref().and_then(|live| entries::of(live).ok()).unwrap_or_default();
    let managed = if !by.subresource.is_empty() {
        live_entries()
    } else if entries::are_reset(new) {
        Entries::new()
    } else {
        match entries::of(new) {
            Ok(managed) if !managed.is_empty() => managed,
            _ => live_entries(),
        }
    };
    entries::remove(new);
    let exists = live.as_ref().is_some_and(|live| {
        let uid = live.get("metadata").and_then(|metadata| metadata.get("uid"));
        uid.and_then(Value::as_str).is_some_and(|uid| !uid.is_empty())
    });
    if managed.is_empty() && exists {
        return;
    }
    let live = bare(live, of);
    // What cannot be told apart cannot be held.
    let is_trackable = |object: &Value| validate::validate(object, of, Duplicates::Allowed).is_ok();
    if is_trackable(&live) && is_trackable(new) {
        let managed = track(&live, new, managed, of, by);
        entries::set(new, managed);
    }
}

/// Merges an applied configuration into an object, and gives the object with its managed fields. It is to
/// be decoded with [`decode::from_patched`] and defaulted.
///
/// `live` is the object as it is, `None` to create it. What the manager applied before and does not now
/// is removed, unless others hold it.
///
/// # Errors
///
/// When the configuration is not what its type says, or sets fields that others hold to other values and
/// `force` is false.
pub fn apply(
    live: Option<Value>,
    config: &Value,
    of: &'static Type,
    by: &Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    check_kind(config, of, by)?;
    let given = config.get("metadata").and_then(|metadata| metadata.get("managedFields"));
    if given.is_some_and(Value::is_array) {
        return Err(ApplyError::BadRequest("metadata.managedFields must be nil".to_owned()));
    }
    let managed = live.as_ref().map_or_else(|| Ok(Entries::new()), entries::of);
    let managed = managed.map_err(|error| {
        ApplyError::Untyped(format!("failed to decode managed fields: {error}"))
    })?;
    let live = bare(live, of);
    let managed = if managed.is_empty() {
        let first = Writer { manager: "before-first-apply", ..*by };
        track(&decode::zero(of), &live, managed, of, &first)
    } else {
        managed
    };
    validate::validate(config, of, Duplicates::Refused).map_err(|errors| {
        let named = name_for_errors(config);
        ApplyError::Untyped(format!("failed to create typed patch object ({named}): {errors}"))
    })?;
    validate::validate(&live, of, Duplicates::Allowed).map_err(|errors| {
        let named = name_for_errors(&live);
        ApplyError::Untyped(format!("failed to create typed live object ({named}): {errors}"))
    })?;

    let result = merge_in(&live, config, managed.clone(), of, by, force);
    let result = match result {
        Err(ApplyError::Conflicts(conflicts)) if by.manager == "kubectl" => {
            let allowed = last_applied::allowed(&live, of, by.api_version);
            match conflicts.except(allowed.as_ref()) {
                Some(left) => Err(ApplyError::Conflicts(left)),
                None => merge_in(&live, config, managed, of, by, true),
            }
        }
        other => other,
    };
    let (merged, managed) = result?;
    let mut object = merged.unwrap_or(live);
    if by.manager == "kubectl" {
        last_applied::renew(&mut object, config);
    }
    entries::set(&mut object, managed);
    Ok(object)
}

/// An object without managed fields; of none the one that Go makes.
fn bare(object: Option<Value>, of: &'static Type) -> Value {
    let Some(mut object) = object else { return decode::zero(of) };
    entries::remove(&mut object);
    object
}

/// Takes changed fields from all managers and gives them to the writer.
fn track(
    live: &Value,
    new: &Value,
    mut managed: Entries,
    of: &'static Type,
    by: &Writer<'_>,
) -> Entries {
    let Comparison { removed, modified, added } = compare(live, new, of, by);
    managed.retain(|_, held| held.api_version == by.api_version);
    let changed = modified.union(added);
    for held in managed.values_mut() {
        held.fields = held.fields.difference(&changed).difference(&removed);
    }
    managed.retain(|_, held| !held.fields.is_empty());

    let own = changed.difference(&stripped());
    if !own.is_empty() {
        let held = managed.entry(by.id(Operation::Update)).or_insert_with(|| Held {
            api_version: by.api_version.to_owned(),
            fields: Set::default(),
            time: None,
        });
        held.fields = std::mem::take(&mut held.fields).union(own);
        held.time = Some(by.now.as_second());
    }
    cap::cap(&mut managed);
    managed
}

/// Merges, removes what is no longer applied, and looks for conflicts. There is no object if it is as it
/// was.
fn merge_in(
    live: &Value,
    config: &Value,
    mut managed: Entries,
    of: &'static Type,
    by: &Writer<'_>,
    force: bool,
) -> Result<(Option<Value>, Entries), ApplyError> {
    managed.retain(|_, held| held.api_version == by.api_version);
    let id = by.id(Operation::Apply);
    let applied = by.concerned(walk::field_set(config, of));
    let last = managed.get(&id).map(|held| held.fields.clone()).unwrap_or_default();
    let time = managed.get(&id).and_then(|held| held.time);
    let api_version = by.api_version.to_owned();
    managed.insert(id.clone(), Held { api_version, fields: applied, time });

    let merged = merge::merge(live, config, of);
    let merged = if last.is_empty() { merged } else { prune(&merged, &managed, &last, of) };

    let Comparison { removed, modified, added } = compare(live, &merged, of, by);
    let changed = modified.union(added);
    let mut conflicts = Vec::new();
    for (manager, held) in managed.iter_mut().filter(|(manager, _)| **manager != id) {
        let taken = held.fields.intersection(&changed);
        for path in taken.paths() {
            conflicts.push(Conflict::new(manager, path));
        }
        held.fields = held.fields.difference(&taken).difference(&removed);
    }
    if !force && !conflicts.is_empty() {
        return Err(ApplyError::Conflicts(Conflicts(conflicts)));
    }
    if let Some(held) = managed.get_mut(&id) {
        held.fields = held.fields.difference(&stripped());
    }
    managed.retain(|_, held| !held.fields.is_empty());

    if set::equal(live, &merged) {
        return Ok((None, managed));
    }
    if let Some(held) = managed.get_mut(&id) {
        held.time = Some(by.now.as_second());
    }
    Ok((Some(merged), managed))
}

/// Removes what the manager applied last time, unless anybody holds it now.
fn prune(merged: &Value, managed: &Entries, last: &Set, of: &'static Type) -> Value {
    let last = walk::with_named_fields(last, of);
    let named = |object: &Value| walk::with_named_fields(&walk::field_set(object, of), of);
    let everything = named(merged);
    let held = managed.values().fold(Set::default(), |all, held| all.union(held.fields.clone()));

    let pruned = walk::without(merged, &last, of);
    let kept = named(&pruned).union(walk::with_named_fields(&held, of));
    let pruned = walk::without(merged, &everything.difference(&kept), of);
    // What hangs below something that went, but was never this manager's, comes back.
    let gone = everything.difference(&named(&pruned)).intersection(&last);
    walk::without(merged, &gone, of)
}

fn compare(live: &Value, new: &Value, of: &'static Type, by: &Writer<'_>) -> Comparison {
    let Comparison { removed, modified, added } = walk::compare(live, new, of);
    Comparison {
        removed: by.concerned(removed),
        modified: by.concerned(modified),
        added: by.concerned(added),
    }
}

/// Fields that nobody holds.
fn stripped() -> Set {
    let mut set = Set::default();
    for field in ["apiVersion", "kind", "metadata"] {
        set.insert(&[Element::field(field)]);
    }
    for field in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ] {
        set.insert(&[Element::field("metadata"), Element::field(field)]);
    }
    set
}

fn check_kind(config: &Value, of: &'static Type, by: &Writer<'_>) -> Result<(), ApplyError> {
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    if text("apiVersion") == by.api_version && text("kind") == of.go_name() {
        return Ok(());
    }
    let kind = kind_for_errors(config);
    Err(ApplyError::BadRequest(format!("invalid object type: {kind}")))
}

/// What a configuration is, as errors have it: `apps/v1, Kind=Deployment`.
#[must_use]
pub fn kind_for_errors(config: &Value) -> String {
    let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default();
    let slash = if text("apiVersion").contains('/') { "" } else { "/" };
    format!("{slash}{}, Kind={}", text("apiVersion"), text("kind"))
}

/// What a configuration is about, as errors have it: `default/web; apps/v1, Kind=Deployment`.
#[must_use]
pub fn name_for_errors(config: &Value) -> String {
    let metadata = config.get("metadata");
    let text = |key: &str| {
        metadata.and_then(|metadata| metadata.get(key)).and_then(Value::as_str).unwrap_or_default()
    };
    format!("{}/{}; {}", text("namespace"), text("name"), kind_for_errors(config))
}

// === impl Writer ===

impl<'a> Writer<'a> {
    fn id(&self, operation: Operation) -> Manager {
        let name = if self.manager.is_empty() { "unknown" } else { self.manager };
        Manager::new(name, operation, self.api_version, self.subresource)
    }

    /// What of a set the write does not reset.
    fn concerned(&self, set: Set) -> Set {
        let split = |path: &&'a str| path.split('.').collect::<Vec<_>>();
        let only: Vec<_> = self.only.iter().map(split).collect();
        let set = if only.is_empty() { set } else { set.within(&only) };
        if self.resets.is_empty() { set } else { set.outside(&paths(self.resets)) }
    }
}

fn paths(names: &[&str]) -> Set {
    let mut set = Set::default();
    for name in names {
        let path: Vec<Element> = name.split('.').map(Element::field).collect();
        set.insert(&path);
    }
    set
}

#[cfg(test)]
mod tests;
