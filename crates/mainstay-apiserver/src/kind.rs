//! What the server has to know about a kind of object. Each kind is one file in `kinds/`.

use std::borrow::Cow;

use jiff::Timestamp;
use mainstay_pod::validate::FieldError;
use serde_json::Value;

use crate::object::Object;

/// A resource: a kind in a version, under the name that paths have for it.
pub struct Resource {
    /// The API group; empty for the core.
    pub group: &'static str,
    /// Such as `v1`.
    pub version: &'static str,
    /// Such as `Pod`.
    pub kind: &'static str,
    /// Such as `pods`.
    pub plural: &'static str,
    /// Such as `pod`.
    pub singular: &'static str,
    /// Such as `po`.
    pub short_names: &'static [&'static str],
    /// Such as `all`.
    pub categories: &'static [&'static str],
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
    /// What is below its objects.
    pub subresources: &'static [Subresource],
    /// The first part of its keys in the store. Versions of one kind share it.
    pub storage: &'static str,
    /// Whether its writes may be lost by a power cut for some seconds.
    pub lazy: bool,
    /// What everybody who uses it is told; empty of what is to stay.
    pub deprecated: &'static str,
    /// How its objects are made, changed, judged and shown.
    pub strategy: &'static dyn Strategy,
}

/// A resource without anything of its own yet, to be filled in: in namespaces, with all verbs.
pub(crate) const PLAIN: Resource = Resource {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    singular: "",
    short_names: &[],
    categories: &[],
    namespaced: true,
    verbs: ALL_VERBS,
    subresources: &[],
    storage: "",
    lazy: false,
    deprecated: "",
    strategy: &Plain,
};

/// Nothing of its own.
struct Plain;

impl Strategy for Plain {}

/// What is below an object.
#[derive(Clone, Copy, Debug)]
pub struct Subresource {
    /// Such as `status`.
    pub name: &'static str,
    /// The kind of what is sent or answered there.
    pub kind: &'static str,
    /// Its group and version where they are not the resource's own: `(group, version)`.
    pub of: Option<(&'static str, &'static str)>,
    /// What can be done with it.
    pub verbs: &'static [&'static str],
}

/// A column of the table that `kubectl get` shows.
#[derive(Clone, Copy, Debug)]
pub struct Column {
    /// The heading.
    pub name: &'static str,
    /// `string`, `integer`, `boolean` or `date`.
    pub kind: &'static str,
    /// `name` for the column of names.
    pub format: &'static str,
    /// What it says.
    pub description: &'static str,
    /// 0 for what is always shown, 1 for what `-o wide` adds.
    pub priority: i32,
}

/// All verbs of a resource with objects that live.
pub(crate) const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// `status` of a kind that has one.
pub(crate) const fn status(kind: &'static str) -> Subresource {
    part("status", kind)
}

/// A part of an object that is changed by itself.
pub(crate) const fn part(name: &'static str, kind: &'static str) -> Subresource {
    Subresource { name, kind, of: None, verbs: &["get", "patch", "update"] }
}

/// `proxy` of a kind that has one: what is sent there goes on to what the object stands for.
pub(crate) const fn proxy(kind: &'static str) -> Subresource {
    let verbs = &["create", "delete", "get", "patch", "update"];
    Subresource { name: "proxy", kind, of: None, verbs }
}

/// `scale` of a kind that has a number of replicas.
pub(crate) const SCALE: Subresource = Subresource {
    name: "scale",
    kind: "Scale",
    of: Some(("autoscaling", "v1")),
    verbs: &["get", "patch", "update"],
};

/// How objects of a kind are made, changed, judged and shown. All of it is pure.
///
/// Source for the split: `staging/src/k8s.io/apiserver/pkg/registry/rest/{create,update,delete}.go`.
pub trait Strategy: Send + Sync {
    /// Fills in what was left out.
    fn default(&self, _object: &mut Object) {}

    /// Takes out what clients may not set in a new object, and sets what the server sets.
    fn prepare_create(&self, _object: &mut Object) {}

    /// The same for a change. The status has been put back already, if there is one, and the generation
    /// has not been counted yet.
    fn prepare_update(&self, _new: &mut Object, _old: &Object) {}

    /// The same for a change of the status; all but the status and the metadata have been put back.
    fn prepare_status(&self, _new: &mut Object, _old: &Object) {}

    /// The same for any subresource that changes a part: `status`, `approval`, `finalize`,
    /// `ephemeralcontainers`, `resize`.
    fn prepare_part(&self, _part: &str, new: &mut Object, old: &Object, _now: Timestamp) {
        self.prepare_status(new, old);
    }

    /// Fields that a write to the object, or to a part of it, does not set whatever it says, as paths such as
    /// `metadata.labels`; nobody comes to own them by it. Source: `GetResetFields`.
    fn resets(&self, subresource: &str) -> &'static [&'static str] {
        match subresource {
            "" => &["status"],
            "status" => &["spec"],
            _ => &[],
        }
    }

    /// Fields that alone a write to a subresource sets, as paths in which `*` is any item of a list; empty if
    /// it sets any. Source: `GetResetFieldsFilter`.
    fn sets_only(&self, _subresource: &str) -> &'static [&'static str] {
        &[]
    }

    /// Whether its objects have generations, counted from 1.
    fn has_generation(&self) -> bool {
        false
    }

    /// Whether a change makes another generation of an object that has generations.
    fn next_generation(&self, new: &Object, old: &Object) -> bool {
        new.0.get("spec") != old.0.get("spec")
    }

    /// What is wrong with a name: Kubernetes' sentences.
    fn name_errors(&self, name: &str) -> Vec<String> {
        mainstay_pod::validate::names::dns_subdomain(name)
    }

    /// Whether a change is judged as a new object would be, with the metadata that changes do not touch
    /// as a rule. Kubernetes' kinds differ in this.
    fn judges_metadata_again(&self) -> bool {
        true
    }

    /// What is wrong with an object, beyond its metadata.
    fn validate(&self, _object: &Object) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with a change, beyond its metadata.
    fn validate_update(&self, new: &Object, _old: &Object) -> Vec<FieldError> {
        self.validate(new)
    }

    /// What is wrong with a change of the status.
    fn validate_status(&self, _new: &Object, _old: &Object) -> Vec<FieldError> {
        Vec::new()
    }

    /// What is wrong with a change by any subresource that changes a part.
    fn validate_part(&self, _part: &str, new: &Object, old: &Object) -> Vec<FieldError> {
        self.validate_status(new, old)
    }

    /// What the client should know although nothing is wrong.
    fn warnings(&self, _object: &Object) -> Vec<String> {
        Vec::new()
    }

    /// Whether a PUT may make an object.
    fn allows_create_on_update(&self) -> bool {
        false
    }

    /// Whether a PUT may leave the resourceVersion out.
    fn allows_unconditional_update(&self) -> bool {
        true
    }

    /// Seconds that an object has to end after a delete that asked for `requested`; `None` if it is gone
    /// at once.
    fn grace_period(&self, _object: &Object, _requested: Option<i64>) -> Option<i64> {
        None
    }

    /// Whether a delete only begins the end of an object, beside finalizers in its metadata; what it says of
    /// itself meanwhile is set.
    fn begins_to_end(&self, _object: &mut Object) -> bool {
        false
    }

    /// Whether a delete answers the object and not a Status.
    fn returns_deleted(&self) -> bool {
        false
    }

    /// What field selectors can ask for, beyond `metadata.name` and `metadata.namespace`.
    fn selectable(&self) -> &'static [&'static str] {
        &[]
    }

    /// One of [`Self::selectable`], of an object.
    fn field<'a>(&self, _object: &'a Object, _field: &str) -> Cow<'a, str> {
        Cow::Borrowed("")
    }

    /// What `kubectl get` shows.
    fn columns(&self) -> &'static [Column] {
        &[NAME, CREATED_AT]
    }

    /// One object as a row of those columns.
    fn row(&self, object: &Object, _now: Timestamp) -> Vec<Value> {
        vec![object.name().into(), object.meta_str("creationTimestamp").into()]
    }

    /// What a row says about its object as a whole: `Completed` of what has ended.
    fn row_conditions(&self, _object: &Object) -> Vec<Value> {
        Vec::new()
    }

    /// From the version that is stored to this one.
    fn served(&self, _object: &mut Object) {}

    /// From this version to the one that is stored.
    fn stored(&self, _object: &mut Object) {}

    /// Whether the two above do anything.
    fn converts(&self) -> bool {
        false
    }
}

/// A column that is always shown.
pub(crate) const fn column(
    name: &'static str,
    kind: &'static str,
    description: &'static str,
) -> Column {
    Column { name, kind, format: "", description, priority: 0 }
}

/// A column for `-o wide`.
pub(crate) const fn wide(
    name: &'static str,
    kind: &'static str,
    description: &'static str,
) -> Column {
    Column { name, kind, format: "", description, priority: 1 }
}

/// The first column of every table.
pub(crate) const NAME: Column = Column {
    name: "Name",
    kind: "string",
    format: "name",
    description: "Name must be unique within a namespace.",
    priority: 0,
};

/// How long ago it was made.
pub(crate) const AGE: Column = column("Age", "string", "Time since the object was created.");

/// Of kinds that have no columns of their own.
pub(crate) const CREATED_AT: Column = column("Created At", "date", "When the object was created.");

/// A group and a version as objects have them: `v1`, `apps/v1`.
pub(crate) fn api_version<'a>(group: &str, version: &'a str) -> Cow<'a, str> {
    match group {
        "" => Cow::Borrowed(version),
        group => Cow::Owned(format!("{group}/{version}")),
    }
}

/// A resource or a kind with its group: `pods`, `deployments.apps`.
pub(crate) fn qualified<'a>(name: &'a str, group: &str) -> Cow<'a, str> {
    match group {
        "" => Cow::Borrowed(name),
        group => Cow::Owned(format!("{name}.{group}")),
    }
}

impl Resource {
    /// `v1`, `apps/v1`.
    pub fn api_version(&self) -> Cow<'static, str> {
        api_version(self.group, self.version)
    }

    /// `pods`, `deployments.apps`: as refusals name it.
    pub fn qualified(&self) -> Cow<'static, str> {
        qualified(self.plural, self.group)
    }

    /// `Pod`, `Deployment.apps`: as refusals name the kind.
    pub fn qualified_kind(&self) -> Cow<'static, str> {
        qualified(self.kind, self.group)
    }

    /// Whether a verb can be used on it.
    pub fn allows(&self, verb: &str) -> bool {
        self.verbs.contains(&verb)
    }

    /// Whether the objects have a status that only the subresource can change.
    pub(crate) fn has_status(&self) -> bool {
        self.subresource("status").is_some()
    }

    /// One of its subresources.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|subresource| subresource.name == name)
    }

    /// The key of an object. `namespace` is empty for what is in none.
    pub(crate) fn key(&self, namespace: &str, name: &str) -> String {
        match self.namespaced {
            true => format!("{}/{namespace}/{name}", self.storage),
            false => format!("{}/{name}", self.storage),
        }
    }

    /// What keys of a namespace, or of all, begin with.
    pub(crate) fn prefix(&self, namespace: &str) -> String {
        match namespace {
            "" => format!("{}/", self.storage),
            namespace => format!("{}/{namespace}/", self.storage),
        }
    }
}

impl std::fmt::Debug for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.api_version(), self.plural)
    }
}
