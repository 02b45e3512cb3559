//! What there is: the documents by which clients find resources.
//!
//! Source: `staging/src/k8s.io/apiserver/pkg/endpoints/discovery` and
//! `staging/src/k8s.io/api/apidiscovery/v2/types.go`.

use serde_json::{Value, json};

use crate::kind::{Resource, Subresource, api_version};
use crate::kinds;

/// The group and version of `kubectl top`, which are not of objects.
pub(crate) const METRICS: (&str, &str) = ("metrics.k8s.io", "v1beta1");

/// Groups other than the core, each with its versions, the preferred one first.
pub(crate) fn groups() -> Vec<(&'static str, Vec<&'static str>)> {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    let all = kinds::ALL.iter().map(|it| (it.group, it.version)).chain([METRICS]);
    for (group, version) in all.filter(|(group, _)| !group.is_empty()) {
        match groups.iter_mut().find(|(name, _)| *name == group) {
            Some((_, versions)) if versions.contains(&version) => {}
            Some((_, versions)) => versions.push(version),
            None => groups.push((group, vec![version])),
        }
    }
    groups
}

/// `/api`
pub(crate) fn core_versions() -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": "" }],
    })
}

/// `/apis`
pub(crate) fn group_list() -> Value {
    let groups: Vec<Value> =
        groups().iter().map(|(name, versions)| group(name, versions)).collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

/// `/apis/<group>`
pub(crate) fn one_group(name: &str) -> Option<Value> {
    let groups = groups();
    let (name, versions) = groups.iter().find(|(known, _)| *known == name)?;
    let mut group = group(name, versions);
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    Some(group)
}

fn group(name: &str, versions: &[&str]) -> Value {
    let version =
        |version: &&str| json!({ "groupVersion": api_version(name, version), "version": version });
    json!({
        "name": name,
        "versions": versions.iter().map(version).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(version),
    })
}

/// `/api/v1`, `/apis/<group>/<version>`
pub(crate) fn resource_list(group: &str, version: &str) -> Option<Value> {
    let mut resources: Vec<Value> = Vec::new();
    if (group, version) == METRICS {
        resources = metrics_resources();
    }
    for resource in of(group, version) {
        resources.push(resource_entry(resource));
        resources.extend(resource.subresources.iter().map(|it| subresource_entry(resource, it)));
    }
    if resources.is_empty() {
        return None;
    }
    let mut list = json!({
        "kind": "APIResourceList",
        "groupVersion": api_version(group, version),
        "resources": resources,
    });
    if !group.is_empty() {
        list["apiVersion"] = "v1".into();
    }
    Some(list)
}

fn of(group: &str, version: &str) -> impl Iterator<Item = &'static Resource> {
    kinds::ALL.iter().copied().filter(move |it| it.group == group && it.version == version)
}

fn metrics_resources() -> Vec<Value> {
    let of = |name, namespaced, kind| {
        json!({
            "name": name,
            "singularName": "",
            "namespaced": namespaced,
            "kind": kind,
            "verbs": ["get", "list"],
        })
    };
    vec![of("nodes", false, "NodeMetrics"), of("pods", true, "PodMetrics")]
}

fn resource_entry(resource: &Resource) -> Value {
    let mut entry = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = resource.short_names.into();
    }
    if !resource.categories.is_empty() {
        entry["categories"] = resource.categories.into();
    }
    if resource.allows("list") {
        entry["storageVersionHash"] = version_hash(resource).into();
    }
    entry
}

fn subresource_entry(resource: &Resource, subresource: &Subresource) -> Value {
    let mut entry = json!({
        "name": format!("{}/{}", resource.plural, subresource.name),
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": subresource.kind,
        "verbs": subresource.verbs,
    });
    if let Some((group, version)) = subresource.of {
        entry["group"] = group.into();
        entry["version"] = version.into();
    }
    entry
}

/// Something that differs when the stored version does. Eight bytes in base64, as upstream's.
fn version_hash(resource: &Resource) -> String {
    use base64::Engine as _;
    // FNV-1a, 64 bits: this is told to clients and has to be the same in every build.
    let text = format!("{}/{}/{}", resource.group, resource.version, resource.kind);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    base64::engine::general_purpose::STANDARD.encode(hash.to_be_bytes())
}

/// The same in one document. `core` is `/api`, else `/apis`.
pub(crate) fn aggregated(core: bool) -> Value {
    let groups = if core { vec![("", vec!["v1"])] } else { groups() };
    let items: Vec<Value> = groups
        .iter()
        .map(|(group, versions)| {
            let versions: Vec<Value> = versions
                .iter()
                .map(|version| {
                    let resources: Vec<Value> = if (*group, *version) == METRICS {
                        aggregated_metrics()
                    } else {
                        of(group, version).map(aggregated_resource).collect()
                    };
                    json!({ "version": version, "resources": resources, "freshness": "Current" })
                })
                .collect();
            let metadata = match *group {
                "" => json!({ "creationTimestamp": null }),
                group => json!({ "name": group, "creationTimestamp": null }),
            };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_metrics() -> Vec<Value> {
    metrics_resources()
        .into_iter()
        .map(|it| {
            let scope = if it["namespaced"] == true { "Namespaced" } else { "Cluster" };
            json!({
                "resource": it["name"],
                "responseKind": { "group": METRICS.0, "version": METRICS.1, "kind": it["kind"] },
                "scope": scope,
                "singularResource": "",
                "verbs": it["verbs"],
            })
        })
        .collect()
}

fn aggregated_resource(resource: &Resource) -> Value {
    let kind = |group: &str, version: &str, kind: &str| json!({ "group": group, "version": version, "kind": kind });
    let mut entry = json!({
        "resource": resource.plural,
        // What is left empty is that of the resource.
        "responseKind": kind("", "", resource.kind),
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = resource.short_names.into();
    }
    if !resource.categories.is_empty() {
        entry["categories"] = resource.categories.into();
    }
    if !resource.subresources.is_empty() {
        entry["subresources"] = resource
            .subresources
            .iter()
            .map(|it| {
                let (group, version) = it.of.unwrap_or_default();
                json!({
                    "subresource": it.name,
                    "responseKind": kind(group, version, it.kind),
                    "verbs": it.verbs,
                })
            })
            .collect();
    }
    entry
}
