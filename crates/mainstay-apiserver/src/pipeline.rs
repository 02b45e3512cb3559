//! How an object gets into the store: admission, the strategy of its kind, judgement, the commit.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/registry/rest/{create,update}.go` and
//! `staging/src/k8s.io/apiserver/pkg/registry/generic/registry/store.go`.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_pod::validate::metadata;
use mainstay_pod::validate::{Errors, FieldError, Path};
use mainstay_store::{Durability, Expect, Revision, Write};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::admission::{Attributes, Operation};
use crate::authn::User;
use crate::kind::{Resource, Strategy};
use crate::kinds;
use crate::managed::{self, Manager};
use crate::object::{self, Object};
use crate::random;
use crate::server::Inner;
use crate::status::{ApiError, Result};
use crate::storage::{Stored, WriteError, durability};

/// How often a change that somebody else was faster with is made again.
const ATTEMPTS: usize = 30;

/// How often a generated name that is taken is made anew. Source: `maxNameGenerationCreateAttempts`.
const NAME_ATTEMPTS: usize = 8;

/// Who writes, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer<'a> {
    pub(crate) user: &'a User,
    /// Who owns the fields that are set.
    pub(crate) manager: Manager<'a>,
    /// Nothing is written.
    pub(crate) dry_run: bool,
    pub(crate) now: Timestamp,
}

impl<'a> Writer<'a> {
    /// The server itself.
    pub(crate) fn system(user: &'a User, now: Timestamp) -> Self {
        Self { user, manager: Manager { name: "mainstay", applied: false }, dry_run: false, now }
    }
}

/// What a change of an object goes by.
pub(crate) struct Change<'a> {
    pub(crate) resource: &'static Resource,
    pub(crate) namespace: &'a str,
    pub(crate) name: &'a str,
    /// Empty, or `status` and the like.
    pub(crate) subresource: &'a str,
    /// Whether the object is made if it is not there.
    pub(crate) may_create: bool,
}

/// What came of a change.
#[derive(Debug)]
pub(crate) struct Changed {
    pub(crate) stored: Stored,
    pub(crate) created: bool,
    pub(crate) warnings: Vec<String>,
}

/// An object that may take the place of another.
struct Prepared {
    object: Object,
    warnings: Vec<String>,
    /// What is to be written with it.
    given: Option<Write>,
}

impl Inner {
    /// Makes a new object. It has been read and held against its schema.
    pub(crate) async fn create(
        &self,
        resource: &'static Resource,
        namespace: &str,
        object: Object,
        writer: &Writer<'_>,
    ) -> Result<Changed> {
        if object.name().is_empty() && !object.meta_str("generateName").is_empty() {
            for _ in 1..NAME_ATTEMPTS {
                match self.create_once(resource, namespace, object.clone(), writer).await {
                    Err(error) if error.reason == "AlreadyExists" => {}
                    other => return other,
                }
            }
        }
        self.create_once(resource, namespace, object, writer).await
    }

    async fn create_once(
        &self,
        resource: &'static Resource,
        namespace: &str,
        object: Object,
        writer: &Writer<'_>,
    ) -> Result<Changed> {
        if !std::ptr::eq(resource, &kinds::SERVICES) {
            let created = self.try_create(resource, namespace, object, writer).await?;
            // Nothing is given to it that others could have been given.
            return created.ok_or_else(|| ApiError::internal("others were faster"));
        }
        for _ in 0..ATTEMPTS {
            let created = self.try_create(resource, namespace, object.clone(), writer).await?;
            if let Some(created) = created {
                return Ok(created);
            }
        }
        Err(ApiError::too_many_requests("others are given addresses and ports all the time", 1))
    }

    /// `None` if something else was given meanwhile what this would have got.
    async fn try_create(
        &self,
        resource: &'static Resource,
        namespace: &str,
        mut object: Object,
        writer: &Writer<'_>,
    ) -> Result<Option<Changed>> {
        let strategy = resource.strategy;
        scope(resource, namespace, &mut object)?;
        name(&mut object);
        strategy.default(&mut object);
        // The client owns what it sent with its defaults, and not what is added on the way.
        managed::track(resource, "", None, &mut object, writer);
        let named = object.name().to_owned();
        let attributes = Attributes {
            user: writer.user,
            operation: Operation::Create,
            resource,
            subresource: "",
            namespace,
            name: &named,
            dry_run: writer.dry_run,
        };
        self.admit(&attributes, &mut object, None).await?;
        system_fields(&mut object, writer.now);
        let given = self.allocate(resource, "", &mut object, None).await?;
        strategy.prepare_create(&mut object);
        if strategy.has_generation() {
            object.meta_mut().insert("generation".into(), 1.into());
        }
        judge(resource, &object, None, strategy.validate(&object))?;
        self.validate_admission(&attributes, Some(&object), None).await?;
        let warnings = strategy.warnings(&object);
        if writer.dry_run {
            let there = self.storage.find(resource, object.namespace(), object.name()).await?;
            if let Some(there) = there {
                return Err(taken(resource, &there.object));
            }
            let stored = Stored { object, revision: Revision(0) };
            return Ok(Some(Changed { stored, created: true, warnings }));
        }
        let (namespace, name) = (object.namespace().to_owned(), object.name().to_owned());
        let may_be_given_to_others = given.is_some();
        let durability = durability(resource);
        match self.storage.put_with(resource, object, Expect::Absent, durability, given).await {
            Ok(stored) => {
                self.announce(resource, &stored.object, writer).await;
                Ok(Some(Changed { stored, created: true, warnings }))
            }
            Err(WriteError::Conflict) => {
                match self.storage.find(resource, &namespace, &name).await? {
                    Some(there) => Err(taken(resource, &there.object)),
                    None if may_be_given_to_others => Ok(None),
                    None => Err(ApiError::already_exists(resource, &name)),
                }
            }
            Err(WriteError::Other(error)) => Err(error),
        }
    }

    /// Changes an object: `transform` makes the new one of the one that is there, as often as somebody
    /// else is faster. What it makes has been held against its schema.
    pub(crate) async fn update(
        &self,
        change: &Change<'_>,
        writer: &Writer<'_>,
        mut transform: impl FnMut(Option<&Object>) -> Result<Object>,
    ) -> Result<Changed> {
        let Change { resource, namespace, name, .. } = *change;
        for _ in 0..ATTEMPTS {
            let Some(current) = self.storage.find(resource, namespace, name).await? else {
                if !change.may_create {
                    return Err(ApiError::not_found(resource, name));
                }
                let object = transform(None)?;
                check_name(&object, name)?;
                check_uid(resource, &object, name, "")?;
                match self.create_once(resource, namespace, object, writer).await {
                    Err(error) if error.reason == "AlreadyExists" => continue,
                    other => return other,
                }
            };
            let new = transform(Some(&current.object))?;
            let Prepared { object: new, warnings, given } =
                self.prepare_update(change, writer, new, &current.object).await?;
            if same(&new, &current.object) {
                if !self.storage.is_current(resource, &current).await? {
                    continue;
                }
                return Ok(Changed { stored: current, created: false, warnings });
            }
            if writer.dry_run {
                let stored = Stored { object: new, revision: current.revision };
                return Ok(Changed { stored, created: false, warnings });
            }
            // The last finalizer of an object that only waited for it. Those in the spec are a namespace's.
            let over = new.is_terminating()
                && !new.has_finalizers()
                && new.meta().is_none_or(|meta| {
                    meta.get("deletionGracePeriodSeconds").and_then(Value::as_i64).unwrap_or(0) == 0
                })
                && new.list_at(&["spec", "finalizers"]).is_empty()
                && matches!(change.subresource, "" | "status" | "finalize");
            let done = if over {
                // What was asked for was never stored, and has no version of its own.
                let gone = Stored { object: new, revision: current.revision };
                self.storage.remove(resource, &gone).await.map(|_| gone)
            } else {
                let durability = match change.subresource {
                    "status" => Durability::Lazy,
                    _ => durability(resource),
                };
                let expect = Expect::At(current.revision);
                self.storage.put_with(resource, new, expect, durability, given).await
            };
            match done {
                Ok(stored) => return Ok(Changed { stored, created: false, warnings }),
                Err(WriteError::Conflict) => {}
                Err(WriteError::Other(error)) => return Err(error),
            }
        }
        Err(ApiError::conflict(
            resource,
            name,
            "others change it all the time; this change has been given up",
        ))
    }

    /// Everything between the object that a client wants and the one that is stored.
    async fn prepare_update(
        &self,
        change: &Change<'_>,
        writer: &Writer<'_>,
        mut new: Object,
        old: &Object,
    ) -> Result<Prepared> {
        let Change { resource, namespace, name, subresource, .. } = *change;
        let strategy = resource.strategy;
        scope(resource, namespace, &mut new)?;
        check_name(&new, name)?;
        check_uid(resource, &new, name, old.uid())?;
        match new.resource_version() {
            "" | "0" if !strategy.allows_unconditional_update() => {
                return Err(ApiError::without_version(resource, name));
            }
            "" | "0" => {}
            version if version != old.resource_version() => {
                return Err(ApiError::modified(resource, name));
            }
            _ => {}
        }
        strategy.default(&mut new);
        managed::track(resource, subresource, Some(old), &mut new, writer);
        let attributes = Attributes {
            user: writer.user,
            operation: Operation::Update,
            resource,
            subresource,
            namespace,
            name,
            dry_run: writer.dry_run,
        };
        self.admit(&attributes, &mut new, Some(old)).await?;
        keep_system_fields(&mut new, old);
        let given = self.allocate(resource, subresource, &mut new, Some(old)).await?;
        let errors = if let Some(part) = part_of(subresource) {
            let changed = take(&mut new, part);
            let mut meta = old.meta().cloned().unwrap_or_default();
            // Source: the status strategies reset the metadata of some kinds and not of others.
            let resets = strategy.resets(subresource);
            for key in WRITTEN_METADATA {
                if resets.iter().any(|path| path.strip_prefix("metadata.") == Some(key)) {
                    continue;
                }
                match new.meta_mut().remove(key) {
                    Some(value) => meta.insert(key.into(), value),
                    None => meta.remove(key),
                };
            }
            new.0 = old.0.clone();
            new.0.insert("metadata".into(), Value::Object(meta));
            put(&mut new, part, changed);
            strategy.prepare_part(subresource, &mut new, old, writer.now);
            if part.starts_with(&["spec"]) {
                count_generation(strategy, &mut new, old);
            }
            strategy.validate_part(subresource, &new, old)
        } else if subresource == "binding" {
            // It changes what nothing else may, and has been judged.
            Vec::new()
        } else {
            if resource.has_status() {
                match old.0.get("status") {
                    Some(status) => new.0.insert("status".into(), status.clone()),
                    None => new.0.remove("status"),
                };
            }
            strategy.prepare_update(&mut new, old);
            count_generation(strategy, &mut new, old);
            strategy.validate_update(&new, old)
        };
        judge(resource, &new, Some(old), errors)?;
        self.validate_admission(&attributes, Some(&new), Some(old)).await?;
        let warnings = if subresource.is_empty() { strategy.warnings(&new) } else { Vec::new() };
        Ok(Prepared { object: new, warnings, given })
    }
}

/// What is said of a name that something else has, which may be about to leave it.
fn taken(resource: &Resource, there: &Object) -> ApiError {
    let refusal = ApiError::already_exists(resource, there.name());
    if !there.is_terminating() {
        return refusal;
    }
    let text = format!("object is being deleted: {}", refusal.message);
    refusal.with_message(text)
}

/// What of an object a subresource changes, if it is a part.
fn part_of(subresource: &str) -> Option<&'static [&'static str]> {
    match subresource {
        "status" | "approval" => Some(&["status"]),
        "finalize" => Some(&["spec"]),
        "ephemeralcontainers" => Some(&["spec", "ephemeralContainers"]),
        // Its strategy says which parts of that.
        "resize" => Some(&["spec"]),
        _ => None,
    }
}

/// What is at a path, which is not there afterwards.
fn take(object: &mut Object, path: &[&str]) -> Option<Value> {
    let (last, above) = path.split_last()?;
    let map = above.iter().try_fold(&mut object.0, |map, key| map.get_mut(*key)?.as_object_mut());
    map?.remove(*last)
}

/// Sets what is at a path, or takes it away.
fn put(object: &mut Object, path: &[&str], value: Option<Value>) {
    drop(take(object, path));
    let (Some(value), Some((last, above))) = (value, path.split_last()) else { return };
    let map = above.iter().try_fold(&mut object.0, |map, key| {
        map.entry(*key).or_insert_with(|| Value::Object(Map::new())).as_object_mut()
    });
    if let Some(map) = map {
        map.insert((*last).into(), value);
    }
}

/// Counts another generation of an object, if a change makes one.
fn count_generation(strategy: &dyn Strategy, new: &mut Object, old: &Object) {
    if strategy.has_generation() && strategy.next_generation(new, old) {
        let next = old.generation() + 1;
        new.meta_mut().insert("generation".into(), next.into());
    }
}

/// Whether two objects differ in nothing that is worth a write: when a field was set is not.
fn same(new: &Object, old: &Object) -> bool {
    let none = Map::new();
    let (new_meta, old_meta) = (new.meta().unwrap_or(&none), old.meta().unwrap_or(&none));
    same_but(&["metadata"], &new.0, &old.0)
        && same_but(&["resourceVersion", "managedFields"], new_meta, old_meta)
        && same_managers(new_meta.get("managedFields"), old_meta.get("managedFields"))
}

fn same_managers(new: Option<&Value>, old: Option<&Value>) -> bool {
    let (Some(Value::Array(entries)), Some(Value::Array(before))) = (new, old) else {
        return new == old;
    };
    entries.len() == before.len()
        && entries.iter().zip(before).all(|pair| match pair {
            (Value::Object(new), Value::Object(old)) => same_but(&["time"], new, old),
            (new, old) => new == old,
        })
}

/// Whether two objects have the same members but for some. Members are in the order of their names.
fn same_but(some: &[&str], new: &Map<String, Value>, old: &Map<String, Value>) -> bool {
    let rest = |(key, _): &(&String, &Value)| !some.contains(&key.as_str());
    new.iter().filter(rest).eq(old.iter().filter(rest))
}

/// Sees to it that an object is in the namespace that the path names, or in none.
///
/// Source: `EnsureObjectNamespaceMatchesRequestNamespace`.
pub(crate) fn scope(resource: &Resource, namespace: &str, object: &mut Object) -> Result<()> {
    if !resource.namespaced {
        object.meta_mut().remove("namespace");
        return Ok(());
    }
    match object.namespace() {
        "" => {
            object.meta_mut().insert("namespace".into(), namespace.into());
            Ok(())
        }
        same if same == namespace => Ok(()),
        _ => Err(ApiError::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        )),
    }
}

/// Sees to it that an object is named as the path says.
pub(crate) fn check_name(object: &Object, name: &str) -> Result<()> {
    match object.name() {
        "" => Err(ApiError::bad_request(format!(
            "the name of the object ({name} based on URL) was undeterminable: name must be provided"
        ))),
        other if other != name => Err(ApiError::bad_request(format!(
            "the name of the object ({other}) does not match the name on the URL ({name})"
        ))),
        _ => Ok(()),
    }
}

/// Sees to it that the object that is there is the one that is meant, if one is.
fn check_uid(resource: &Resource, object: &Object, name: &str, there: &str) -> Result<()> {
    let asked = object.uid();
    if asked.is_empty() || asked == there {
        return Ok(());
    }
    let why =
        format!("Precondition failed: UID in precondition: {asked}, UID in object meta: {there}");
    Err(ApiError::conflict(resource, name, why))
}

/// Makes a name of `generateName`, if that is all there is.
fn name(object: &mut Object) {
    let base = object.meta_str("generateName");
    if object.name().is_empty() && !base.is_empty() {
        let name = random::name(base);
        object.meta_mut().insert("name".into(), name.into());
    }
}

/// What only the server sets. Source: `FillObjectMetaSystemFields`, `WipeObjectMetaSystemFields`.
fn system_fields(object: &mut Object, now: Timestamp) {
    let meta = object.meta_mut();
    for key in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink", "resourceVersion"] {
        meta.remove(key);
    }
    meta.insert("creationTimestamp".into(), object::time(now).into());
    meta.insert("uid".into(), random::uid().into());
}

/// What a write of a part sets of the metadata, too, unless its strategy resets it.
const WRITTEN_METADATA: [&str; 7] = [
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
];

/// What a client does not set. Source: `BeforeUpdate`, and `ValidateObjectMetaAccessorUpdate` for what it may
/// repeat or leave out; another value is judged.
fn keep_system_fields(new: &mut Object, old: &Object) {
    let known = |key: &str| old.meta().and_then(|meta| meta.get(key));
    for key in ["uid", "creationTimestamp", "generation"] {
        match known(key) {
            Some(value) => new.meta_mut().insert(key.into(), value.clone()),
            None => new.meta_mut().remove(key),
        };
    }
    if let Some(end) = known("deletionTimestamp") {
        new.meta_mut().insert("deletionTimestamp".into(), end.clone());
    }
    if let Some(grace) = known("deletionGracePeriodSeconds") {
        new.meta_mut().entry("deletionGracePeriodSeconds").or_insert_with(|| grace.clone());
    }
    new.meta_mut().remove("selfLink");
    let version = old.resource_version().to_owned();
    new.meta_mut().insert("resourceVersion".into(), version.into());
}

/// Puts together what is wrong with an object.
///
/// # Errors
///
/// 422 if anything is.
fn judge(
    resource: &Resource,
    new: &Object,
    old: Option<&Object>,
    of_kind: Vec<FieldError>,
) -> Result<()> {
    let mut errors = Errors::default();
    let path = Path::new("metadata");
    let meta = typed_meta(new)?;
    let strategy = resource.strategy;
    match old {
        None => {
            let names = |name: &str| strategy.name_errors(name);
            metadata::metadata(&meta, resource.namespaced, names, &path, &mut errors);
        }
        Some(old) => {
            metadata::metadata_update(&meta, &typed_meta(old)?, &path, &mut errors);
            if strategy.judges_metadata_again() {
                let names = |name: &str| strategy.name_errors(name);
                metadata::metadata(&meta, resource.namespaced, names, &path, &mut errors);
            }
        }
    }
    errors.0.extend(of_kind);
    let mut told = Vec::with_capacity(errors.0.len());
    for error in std::mem::take(&mut errors.0) {
        if !told.contains(&error) {
            told.push(error);
        }
    }
    errors.0 = told;
    if errors.0.is_empty() {
        return Ok(());
    }
    Err(ApiError::invalid(resource, new.name(), &errors.0))
}

fn typed_meta(object: &Object) -> Result<ObjectMeta> {
    match object.meta().map(ObjectMeta::deserialize) {
        None => Ok(ObjectMeta::default()),
        Some(meta) => meta.map_err(|error| ApiError::bad_request(format!("metadata: {error}"))),
    }
}
