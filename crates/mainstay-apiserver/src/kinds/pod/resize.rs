//! What the subresource `resize` may change of a pod: requests and limits of CPU and memory.
//!
//! Source: `podResizeStrategy` in `pkg/registry/core/pod/strategy.go`, `ValidatePodResize` in
//! `pkg/apis/core/validation/validation.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;
use mainstay_pod::identity::CONFIG_MIRROR_ANNOTATION;
use mainstay_pod::validate::{self, Errors, FieldError, Path};
use mainstay_pod::{QosClass, resources};
use serde_json::Value;

use super::update::init_containers;
use crate::object::Object;

const ONLY: &str = "only cpu and memory resources are mutable";

/// What [`ResourceRequirements`] lists.
const LISTS: [&str; 2] = ["requests", "limits"];

/// Takes from a write what it may set: resources and their policies, whatever else it says. One that has
/// other containers stays as it is, to be refused.
pub(super) fn prepare(new: &mut Object, old: &Object) {
    let lists = ["containers", "initContainers"];
    let count = |object: &Object, list: &str| object.list_at(&["spec", list]).len();
    if lists.iter().any(|list| count(new, list) != count(old, list)) {
        return;
    }
    let merged = lists.map(|list| merged(new, old, list));
    let resources = new.at(&["spec", "resources"]).cloned();
    let Some(spec) = old.0.get("spec") else { return };
    new.0.insert("spec".into(), spec.clone());
    let spec = new.field_mut("spec");
    for (list, containers) in lists.iter().zip(merged).filter(|(_, it)| !it.is_empty()) {
        spec.insert((*list).into(), containers.into());
    }
    match resources {
        Some(resources) => spec.insert("resources".into(), resources),
        None => spec.remove("resources"),
    };
}

/// The containers of a list as they were, but for what may change; as they are if they are others.
fn merged(new: &Object, old: &Object, list: &str) -> Vec<Value> {
    let [new, old] = [new, old].map(|object| object.list_at(&["spec", list]));
    let is_same = |(new, old): (&Value, &Value)| new.get("name") == old.get("name");
    if !new.iter().zip(old).all(is_same) {
        return new.to_vec();
    }
    let mut merged = old.to_vec();
    for (container, new) in merged.iter_mut().zip(new) {
        let Some(container) = container.as_object_mut() else { continue };
        for field in ["resources", "resizePolicy"] {
            match new.get(field) {
                Some(value) => container.insert(field.into(), value.clone()),
                None => container.remove(field),
            };
        }
    }
    merged
}

/// What is wrong with it.
pub(super) fn validate(new: &Pod, old: &Pod) -> Vec<FieldError> {
    let mut errors = Errors::default();
    let annotations = old.metadata.annotations.as_ref();
    let is_mirror = annotations.is_some_and(|it| it.contains_key(CONFIG_MIRROR_ANNOTATION));
    let (Some(spec), Some(before)) = (&new.spec, &old.spec) else { return errors.0 };
    if is_mirror {
        errors.forbidden(&Path::new(""), "static pods cannot be resized");
        return errors.0;
    }
    if before.os.as_ref().is_some_and(|os| os.name == "windows") {
        errors.forbidden(&Path::new(""), "windows pods cannot be resized");
        return errors.0;
    }
    errors.0.extend(validate::update(new));
    let path = Path::new("spec");
    let told = |pod: &Pod| pod.status.as_ref().and_then(|status| status.qos_class.clone());
    let class = told(old).unwrap_or_else(|| QosClass::of(before).as_str().to_owned());
    if class != QosClass::of(spec).as_str() {
        let shown = told(new).unwrap_or_default();
        let text = "Pod QOS Class may not change as a result of resizing";
        errors.invalid(&path, shown.as_str(), text);
    }
    if !is_supported(old) {
        errors.forbidden(&path, "Pod running on node without support for resize");
    }
    let mut leveled = spec.clone();
    if is_set(spec.resources.as_ref()) || is_set(before.resources.as_ref()) {
        pod_level(spec, before, &mut leveled, &path, &mut errors);
    }
    let claims =
        old.status.as_ref().and_then(|it| it.node_allocatable_resource_claim_statuses.as_ref());
    if claims.is_some_and(|claims| !claims.is_empty()) {
        errors.forbidden(&path, "pods with node allocatable resource claims cannot be resized");
    }
    if !have_same_names(spec, before, &path, &mut errors) {
        return errors.0;
    }
    let (init, init_before) = (init_containers(spec), init_containers(before));
    let pairs = [
        ("initContainers", init, init_before),
        ("containers", &*spec.containers, &*before.containers),
    ];
    for (list, new, old) in pairs {
        let path = path.field(list);
        for (at, (new, old)) in new.iter().zip(old).enumerate() {
            let path = path.index(at);
            let path = path.field("resources");
            let (new, old) = (new.resources.as_ref(), old.resources.as_ref());
            keep_all(new, old, "resource", &path, &mut errors);
        }
    }
    for (new, old) in leveled.containers.iter_mut().zip(&before.containers) {
        level(new, old);
        if !is_same(new, old) {
            errors.forbidden(&path, ONLY);
        }
    }
    let init_path = path.field("initContainers");
    let lists = leveled.init_containers.iter_mut().flatten().zip(init_before);
    for (at, (new, old)) in lists.enumerate() {
        let is_modified = !is_same(new, old);
        level(new, old);
        let path = init_path.index(at);
        if !is_same(new, old) {
            let text = "only cpu and memory resources for init or sidecar containers are mutable";
            errors.forbidden(&path, text);
        }
        let is_sidecar = new.restart_policy.as_deref() == Some("Always");
        let policies = new.resize_policy.iter().flatten();
        for _ in policies
            .filter(|it| is_modified && !is_sidecar && it.restart_policy == "RestartContainer")
        {
            let text = "non-sidecar init containers with a resize policy of RestartContainer cannot be \
                        resized";
            errors.forbidden(&path, text);
        }
    }
    if errors.0.is_empty() && !is_same_spec(&leveled, before) {
        errors.forbidden(&path, ONLY);
    }
    errors.0
}

/// Whether the node resizes pods, as far as the status of one that runs there tells.
fn is_supported(pod: &Pod) -> bool {
    let statuses = pod.status.iter().flat_map(|it| it.container_statuses.iter().flatten());
    let mut running =
        statuses.filter(|it| it.state.as_ref().is_some_and(|state| state.running.is_some()));
    running.next().is_none_or(|it| it.resources.is_some())
}

fn is_set(resources: Option<&ResourceRequirements>) -> bool {
    let is_some =
        |list: &Option<BTreeMap<_, _>>| list.as_ref().is_some_and(|list| !list.is_empty());
    resources.is_some_and(|it| is_some(&it.requests) || is_some(&it.limits))
}

/// Source: `validatePodLevelResourcesResize`.
fn pod_level(
    spec: &PodSpec,
    before: &PodSpec,
    leveled: &mut PodSpec,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    let own = path.field("resources");
    if let Some(old) = &before.resources {
        let Some(new) = &spec.resources else {
            errors.forbidden(&own, "pod-level resources cannot be removed");
            return;
        };
        keep_all(Some(new), Some(old), "pod-level resource", &own, errors);
    }
    if let Some(new) = &mut leveled.resources {
        let none = ResourceRequirements::default();
        level_lists(new, before.resources.as_ref().unwrap_or(&none));
        if before.resources.is_none() && !is_set(Some(new)) && new.claims.is_none() {
            leveled.resources = None;
        }
    }
    if !same_resources(leveled.resources.as_ref(), before.resources.as_ref()) {
        errors.forbidden(path, "only cpu and memory resources are mutable at pod-level");
    }
}

/// Of `what` no request and no limit may go. Source: `resourcesRemoved`.
fn keep_all(
    new: Option<&ResourceRequirements>,
    old: Option<&ResourceRequirements>,
    what: &str,
    path: &Path<'_>,
    errors: &mut Errors,
) {
    for field in LISTS {
        let (new, old) = (list_of(new, field), list_of(old, field));
        let is_kept = |name: &String| new.is_some_and(|new| new.contains_key(name));
        if !old.into_iter().flatten().all(|(name, _)| is_kept(name)) {
            errors.forbidden(&path.field(field), &format!("{what} {field} cannot be removed"));
        }
    }
}

fn list_of<'a>(
    resources: Option<&'a ResourceRequirements>,
    field: &str,
) -> Option<&'a BTreeMap<String, QuantityText>> {
    let it = resources?;
    if field == "requests" { it.requests.as_ref() } else { it.limits.as_ref() }
}

/// Source: `validatePodResizeContainerOrdering`.
fn have_same_names(spec: &PodSpec, before: &PodSpec, path: &Path<'_>, errors: &mut Errors) -> bool {
    let count = errors.0.len();
    let lists = [
        ("containers", &*spec.containers, &*before.containers),
        ("initContainers", init_containers(spec), init_containers(before)),
    ];
    for (name, new, old) in lists {
        let path = path.field(name);
        if new.len() != old.len() {
            let text = format!("{name} may not be added or removed on resize");
            errors.forbidden(&path, &text);
            continue;
        }
        let pairs = new.iter().zip(old).enumerate();
        for (at, _) in pairs.filter(|(_, (new, old))| new.name != old.name) {
            let text = format!("{name} may not be renamed or reordered on resize");
            errors.forbidden(&path.index(at).field("name"), &text);
        }
    }
    errors.0.len() == count
}

/// Lets CPU and memory be as they were. Source: `dropCPUMemoryResourcesFromContainer`.
fn level(container: &mut Container, old: &Container) {
    let none = ResourceRequirements::default();
    let resources = container.resources.get_or_insert_default();
    level_lists(resources, old.resources.as_ref().unwrap_or(&none));
    // As there: nothing of a container with claims can be resized.
    resources.claims = None;
}

fn level_lists(new: &mut ResourceRequirements, old: &ResourceRequirements) {
    let lists = [(&mut new.requests, &old.requests), (&mut new.limits, &old.limits)];
    for (new, old) in lists {
        for name in ["cpu", "memory"] {
            match old.as_ref().and_then(|old| old.get(name)) {
                Some(quantity) => {
                    new.get_or_insert_default().insert(name.to_owned(), quantity.clone());
                }
                None => drop(new.as_mut().and_then(|new| new.remove(name))),
            }
        }
    }
}

fn is_same(new: &Container, old: &Container) -> bool {
    let rest = |it: &Container| Container { resources: None, ..it.clone() };
    same_resources(new.resources.as_ref(), old.resources.as_ref()) && rest(new) == rest(old)
}

/// Whether two say the same, however they write it.
fn same_resources(new: Option<&ResourceRequirements>, old: Option<&ResourceRequirements>) -> bool {
    let lists = |it| LISTS.map(|field| resources::parse(list_of(it, field)));
    let claims = |it: Option<&ResourceRequirements>| it.and_then(|it| it.claims.clone());
    lists(new) == lists(old) && claims(new).unwrap_or_default() == claims(old).unwrap_or_default()
}

fn is_same_spec(new: &PodSpec, old: &PodSpec) -> bool {
    let rest = |spec: &PodSpec| PodSpec {
        containers: Vec::new(),
        init_containers: None,
        resources: None,
        ..spec.clone()
    };
    let same = |new: &[Container], old: &[Container]| {
        new.iter().zip(old).all(|(new, old)| is_same(new, old))
    };
    same_resources(new.resources.as_ref(), old.resources.as_ref())
        && same(&new.containers, &old.containers)
        && same(init_containers(new), init_containers(old))
        && rest(new) == rest(old)
}
