//! What a pod asks of a machine: requests, limits and the class of service that follows from them.
//!
//! Source: `k8s.io/component-helpers/resource/helpers.go`, `pkg/apis/core/v1/helper/qos/qos.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, PodSpec, PodStatus, ResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as QuantityText;

use crate::containers::restarts_always;
use crate::quantity::Quantity;

/// Amounts by the name of the resource.
pub type ResourceList = BTreeMap<String, Quantity>;

/// CPU and memory of a container or of a whole pod. None means that nothing was said.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Amounts {
    /// Thousandths of a CPU, rounded up.
    pub cpu_milli: Option<u64>,
    /// Bytes, rounded up.
    pub memory_bytes: Option<u64>,
    /// Bytes of local disk, rounded up.
    pub ephemeral_storage_bytes: Option<u64>,
}

/// Requests and limits of a whole pod, by the name of the resource, as its status shows them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodTotals {
    /// What is asked for.
    pub requests: BTreeMap<String, QuantityText>,
    /// What may be used at most.
    pub limits: BTreeMap<String, QuantityText>,
}

/// The class of service that decides who is throttled and killed first.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum QosClass {
    /// Every container has limits for CPU and memory, and requests equal to them.
    Guaranteed,
    /// Something is requested or limited.
    Burstable,
    /// Nothing is requested and nothing limited.
    BestEffort,
}

// === impl QosClass ===

impl QosClass {
    /// The name that the status of a pod carries.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }

    /// The class of a pod, after defaulting (`ComputePodQOS`).
    pub fn of(spec: &PodSpec) -> Self {
        let mut requests = ResourceList::new();
        let mut limits = ResourceList::new();
        let mut guaranteed = true;
        let mut count = |resources: Option<&ResourceRequirements>, must_limit: bool| {
            add_positive(&mut requests, resources.and_then(|it| it.requests.as_ref()));
            let limited = add_positive(&mut limits, resources.and_then(|it| it.limits.as_ref()));
            guaranteed &= limited == 2 || !must_limit;
        };
        if let Some(resources) = &spec.resources {
            let limited = resources.limits.as_ref().is_some_and(|limits| !limits.is_empty());
            count(Some(resources), limited);
        } else {
            for container in spec.containers.iter().chain(spec.init_containers.iter().flatten()) {
                count(container.resources.as_ref(), true);
            }
        }
        if requests.is_empty() && limits.is_empty() {
            Self::BestEffort
        } else if guaranteed && requests == limits {
            Self::Guaranteed
        } else {
            Self::Burstable
        }
    }
}

/// Adds CPU and memory that are more than zero; returns how many of the two there were.
fn add_positive(sum: &mut ResourceList, list: Option<&BTreeMap<String, QuantityText>>) -> usize {
    let mut found = 0;
    for (name, text) in list.into_iter().flatten() {
        if !matches!(name.as_str(), "cpu" | "memory") {
            continue;
        }
        if let Ok(quantity) = Quantity::parse(&text.0)
            && quantity > Quantity::ZERO
        {
            found += 1;
            let entry = sum.entry(name.clone()).or_insert(Quantity::ZERO);
            *entry = entry.plus(quantity);
        }
    }
    found
}

// === impl Amounts ===

impl Amounts {
    /// What a container requests, after defaulting.
    pub fn requested_by(container: &Container) -> Self {
        Self::of_texts(container.resources.as_ref().and_then(|it| it.requests.as_ref()))
    }

    /// What a container may use at most.
    pub fn limit_of(container: &Container) -> Self {
        Self::of_texts(container.resources.as_ref().and_then(|it| it.limits.as_ref()))
    }

    /// What a pod requests as a whole: the sum of its containers, at least what its init containers need
    /// one after another, what the pod itself says before either, and its overhead.
    pub fn requested_by_pod(spec: &PodSpec) -> Self {
        Self::of_list(&requests_of(spec))
    }

    /// What a pod may use as a whole. Of a resource that some container may use without limit, there is
    /// none, unless the pod itself sets one (`ResourceConfigForPod`).
    pub fn limit_of_pod(spec: &PodSpec) -> Self {
        Self::of_list(&enforced_limits_of(spec))
    }

    /// What is requested.
    pub fn request_in(resources: &ResourceRequirements) -> Self {
        Self::of_texts(resources.requests.as_ref())
    }

    /// What may be used at most.
    pub fn limit_in(resources: &ResourceRequirements) -> Self {
        Self::of_texts(resources.limits.as_ref())
    }

    /// What the containers of a pod request together, whatever the pod itself says.
    pub fn requested_by_containers(spec: &PodSpec) -> Self {
        Self::of_list(&aggregate(spec, |it| it.requests.as_ref()))
    }

    fn of_texts(list: Option<&BTreeMap<String, QuantityText>>) -> Self {
        Self::of_list(&parse(list))
    }

    fn of_list(list: &ResourceList) -> Self {
        let positive = |value: i64| u64::try_from(value).unwrap_or(0);
        Self {
            cpu_milli: list.get("cpu").map(|quantity| positive(quantity.milli())),
            memory_bytes: list.get("memory").map(|quantity| positive(quantity.units())),
            ephemeral_storage_bytes: list.get("ephemeral-storage").map(|it| positive(it.units())),
        }
    }
}

// === impl PodTotals ===

impl PodTotals {
    /// Of what the containers say, each resource that one of them names (`PodRequests`, `PodLimits`).
    pub fn said(spec: &PodSpec) -> Self {
        let limits = limits_of(spec, aggregate(spec, |it| it.limits.as_ref()));
        Self { requests: texts(&requests_of(spec)), limits: texts(&limits) }
    }

    /// Of what a pod that runs is held to: CPU and memory, and limits only of what all its containers are
    /// limited in (`convertToAPIPodLevelResourcesStatus`).
    pub fn enforced(spec: &PodSpec) -> Self {
        let own = |list: ResourceList| {
            list.into_iter().filter(|(name, _)| matches!(name.as_str(), "cpu" | "memory")).collect()
        };
        Self {
            requests: texts(&own(requests_of(spec))),
            limits: texts(&own(enforced_limits_of(spec))),
        }
    }
}

fn texts(list: &ResourceList) -> BTreeMap<String, QuantityText> {
    list.iter().map(|(name, quantity)| (name.clone(), QuantityText(quantity.canonical()))).collect()
}

/// What a pod requests as a whole, of every resource that it names (`PodRequests`): see
/// [`Amounts::requested_by_pod`].
pub fn requests_of(spec: &PodSpec) -> ResourceList {
    requests_with(spec, None, &ResourceList::new())
}

/// As [`requests_of`], of a pod that may be about to be resized: of what it asks for, is allocated and has, as
/// its status tells, the most. Of resources of which a container says nothing it requests `by_default`.
///
/// Source: `PodRequests` with `UseStatusResources`.
pub fn requests_with(
    spec: &PodSpec,
    status: Option<&PodStatus>,
    by_default: &ResourceList,
) -> ResourceList {
    let statuses = |list: fn(&PodStatus) -> &Option<Vec<ContainerStatus>>| {
        status.into_iter().flat_map(move |it| list(it).iter().flatten())
    };
    let of_containers = statuses(|it| &it.container_statuses);
    let of_all = of_containers.chain(statuses(|it| &it.init_container_statuses));
    let mut total = aggregate_of(spec, |container| {
        let mut own = by_default.clone();
        own.extend(parse(container.resources.as_ref().and_then(|it| it.requests.as_ref())));
        // One that prepares the pod counts as it asks, as there.
        let is_main = spec.containers.iter().any(|it| it.name == container.name);
        let mut known = of_all.clone().filter(|it| it.name == container.name);
        if let Some(known) = known.next().filter(|_| is_main || restarts_always(container))
            && let Some(has) = &known.resources
        {
            raise(&mut own, parse(has.requests.as_ref()));
            raise(&mut own, parse(known.allocated_resources.as_ref()));
        }
        own
    });
    let mut own = parse(spec.resources.as_ref().and_then(|it| it.requests.as_ref()));
    let has = status.and_then(|status| Some((status, status.resources.as_ref()?)));
    if let Some((status, has)) = has {
        let mut more = parse(has.requests.as_ref());
        raise(&mut more, parse(status.allocated_resources.as_ref()));
        more.retain(|name, _| own.contains_key(name));
        raise(&mut own, more);
    }
    override_by_pod(&mut total, own);
    add(&mut total, &parse(spec.overhead.as_ref()));
    total
}

fn enforced_limits_of(spec: &PodSpec) -> ResourceList {
    let mut total = aggregate(spec, |it| it.limits.as_ref());
    total.retain(|name, _| {
        let limits = |container: &Container| {
            let limits = container.resources.as_ref().and_then(|it| it.limits.as_ref());
            limits.is_some_and(|limits| limits.contains_key(name))
        };
        // One that runs before the others may use any amount, unless a sidecar beside it is limited.
        let mut beside = false;
        let mut init = spec.init_containers.iter().flatten().map(|container| {
            beside |= restarts_always(container) && limits(container);
            limits(container) || beside && !restarts_always(container)
        });
        spec.containers.iter().all(limits) && init.all(|limited| limited)
    });
    limits_of(spec, total)
}

/// With what the pod itself says, and its overhead.
fn limits_of(spec: &PodSpec, mut total: ResourceList) -> ResourceList {
    let own = parse(spec.resources.as_ref().and_then(|it| it.limits.as_ref()));
    override_by_pod(&mut total, own);
    for (name, overhead) in parse(spec.overhead.as_ref()) {
        if let Some(limit) = total.get_mut(&name).filter(|limit| !limit.is_zero()) {
            *limit = limit.plus(overhead);
        }
    }
    total
}

/// Whether the resource is one that a pod may set for all its containers together.
pub(crate) fn is_pod_level(name: &str) -> bool {
    matches!(name, "cpu" | "memory") || is_huge_page(name)
}

/// Whether the resource is of huge pages of some size.
pub fn is_huge_page(name: &str) -> bool {
    name.starts_with("hugepages-")
}

/// Bytes of huge pages that are in a list, by the size of the page in bytes. Source: `HugePageLimits` in
/// `pkg/kubelet/cm/helpers_linux.go`.
pub fn huge_pages(list: &ResourceList) -> BTreeMap<u64, u64> {
    let bytes = |quantity: Quantity| u64::try_from(quantity.units()).unwrap_or(0);
    let mut pages = BTreeMap::new();
    for (name, amount) in list {
        let size = name.strip_prefix("hugepages-").and_then(|size| Quantity::parse(size).ok());
        let Some(size) = size else { continue };
        // The same size can be written in several ways.
        let sum: &mut u64 = pages.entry(bytes(size)).or_default();
        *sum = sum.saturating_add(bytes(*amount));
    }
    pages
}

/// Requests or limits of all containers together (`AggregateContainerRequests`, KEP-753): the sum of the
/// containers and the init containers that keep running, or what one init container needs beside those
/// started before it, whichever is more.
pub(crate) fn aggregate(
    spec: &PodSpec,
    list: impl Fn(&ResourceRequirements) -> Option<&BTreeMap<String, QuantityText>>,
) -> ResourceList {
    aggregate_of(spec, |container| parse(container.resources.as_ref().and_then(&list)))
}

fn aggregate_of(spec: &PodSpec, of: impl Fn(&Container) -> ResourceList) -> ResourceList {
    let mut total = ResourceList::new();
    for container in &spec.containers {
        add(&mut total, &of(container));
    }
    let mut sidecars = ResourceList::new();
    let mut peak = ResourceList::new();
    for container in spec.init_containers.iter().flatten() {
        let own = of(container);
        // What the sidecars need without it has been counted when they were started.
        let with_sidecars: ResourceList = own
            .iter()
            .map(|(name, quantity)| {
                let before = sidecars.get(name).copied().unwrap_or(Quantity::ZERO);
                (name.clone(), quantity.plus(before))
            })
            .collect();
        if restarts_always(container) {
            add(&mut total, &own);
            add(&mut sidecars, &own);
        }
        raise(&mut peak, with_sidecars);
    }
    raise(&mut total, peak);
    total
}

fn override_by_pod(total: &mut ResourceList, own: ResourceList) {
    total.extend(own.into_iter().filter(|(name, _)| is_pod_level(name)));
}

fn add(total: &mut ResourceList, list: &ResourceList) {
    for (name, quantity) in list {
        total.entry(name.clone()).and_modify(|sum| *sum = sum.plus(*quantity)).or_insert(*quantity);
    }
}

fn raise(total: &mut ResourceList, list: ResourceList) {
    for (name, quantity) in list {
        total
            .entry(name)
            .and_modify(|max| {
                if quantity > *max {
                    *max = quantity;
                }
            })
            .or_insert(quantity);
    }
}

/// Quantities have been checked when the manifest was read; one that is none counts as nothing.
pub fn parse(list: Option<&BTreeMap<String, QuantityText>>) -> ResourceList {
    list.into_iter()
        .flatten()
        .map(|(name, text)| (name.clone(), Quantity::parse(&text.0).unwrap_or(Quantity::ZERO)))
        .collect()
}

#[cfg(test)]
mod tests;
