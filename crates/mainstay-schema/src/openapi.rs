//! The OpenAPI documents: what `kubectl explain` prints, and what tells kubectl that the server validates
//! fields.
//!
//! They are made when somebody asks, from the table of types and a text in the program that nothing else
//! reads; one definition at a time is in memory beside the document.
//!
//! Sources: `k8s.io/kube-openapi/pkg/builder` and `builder3`,
//! `staging/src/k8s.io/apiserver/pkg/endpoints/installer.go`.

mod paths;
mod protobuf;
mod schemas;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use self::schemas::{Definition, Dialect, Text};
use crate::types;

/// The media type of [`v2_protobuf`], as answers have it.
pub const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The same as clients ask for it, which is no valid media type: they cannot read it in an answer.
pub const V2_PROTOBUF_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// A resource that is served.
#[derive(Clone, Copy, Debug)]
pub struct Resource<'a> {
    /// The group; empty for the core one.
    pub group: &'a str,
    /// The version.
    pub version: &'a str,
    /// The kind of its objects.
    pub kind: &'a str,
    /// The name in paths, such as `pods`.
    pub plural: &'a str,
    /// Whether its objects are in namespaces.
    pub namespaced: bool,
    /// Verbs as in discovery: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`,
    /// `deletecollection`.
    pub verbs: &'a [&'a str],
    /// What is below each object.
    pub subresources: &'a [Subresource<'a>],
}

/// A part of an object that has its own path.
#[derive(Clone, Copy, Debug)]
pub struct Subresource<'a> {
    /// The name in paths, such as `status`.
    pub name: &'a str,
    /// The group of the kind.
    pub group: &'a str,
    /// The version of the kind.
    pub version: &'a str,
    /// The kind that is read and written there, such as `Scale`.
    pub kind: &'a str,
    /// Verbs as in discovery.
    pub verbs: &'a [&'a str],
}

/// `/openapi/v2` as JSON. `version` is that of the server, such as `v1.36.2`.
#[must_use]
pub fn v2(version: &str, resources: &[Resource<'_>]) -> Vec<u8> {
    let mut out = b"{\"swagger\":\"2.0\",\"info\":".to_vec();
    write(&mut out, &info(version));
    out.extend_from_slice(b",\"paths\":");
    entries(&mut out, paths::all(resources));
    out.extend_from_slice(b",\"definitions\":");
    let text = Text::new();
    let definitions = schemas::reachable(&roots(resources)).into_iter();
    entries(&mut out, definitions.map(|it| (it.name(), it.schema(Dialect::V2, &text))));
    out.push(b'}');
    out
}

/// `/openapi/v2` in the form of [`V2_PROTOBUF`], for which kubectl asks.
#[must_use]
pub fn v2_protobuf(version: &str, resources: &[Resource<'_>]) -> Vec<u8> {
    let text = Text::new();
    let definitions = schemas::reachable(&roots(resources)).into_iter();
    protobuf::document(
        &info(version),
        paths::all(resources),
        definitions.map(|it| (it.name(), it.schema(Dialect::V2, &text))),
    )
}

/// `/openapi/v3`: where the documents are, by group and version. A client that has a document of one
/// address does not ask for it again, so the address changes with its content.
#[must_use]
pub fn v3_index(version: &str, resources: &[Resource<'_>]) -> Vec<u8> {
    let digest = digest(&format!("{version} {resources:?}"));
    let versions: BTreeSet<String> =
        resources.iter().map(|it| paths::root(it.group, it.version)).collect();
    let list = versions.into_iter().map(|root| {
        let address = format!("/openapi/v3/{root}?hash={digest:016X}");
        (root, json!({ "serverRelativeURL": address }))
    });
    let mut out = b"{\"paths\":".to_vec();
    entries(&mut out, list);
    out.push(b'}');
    out
}

/// `/openapi/v3/api/v1` and `/openapi/v3/apis/<group>/<version>`; `None` if no such resource is served.
#[must_use]
pub fn v3(
    version: &str,
    group: &str,
    group_version: &str,
    resources: &[Resource<'_>],
) -> Option<Vec<u8>> {
    let own: Vec<Resource<'_>> = resources
        .iter()
        .filter(|it| it.group == group && it.version == group_version)
        .copied()
        .collect();
    if own.is_empty() {
        return None;
    }
    let mut out = b"{\"openapi\":\"3.0.0\",\"info\":".to_vec();
    write(&mut out, &info(version));
    out.extend_from_slice(b",\"paths\":");
    entries(&mut out, paths::all(&own).map(|(path, item)| (path, paths::to_v3(item))));
    out.extend_from_slice(b",\"components\":{\"schemas\":");
    let text = Text::new();
    let definitions = schemas::reachable(&roots(&own)).into_iter();
    entries(&mut out, definitions.map(|it| (it.name(), it.schema(Dialect::V3, &text))));
    out.extend_from_slice(b"}}");
    Some(out)
}

fn info(version: &str) -> Value {
    json!({"title": "Kubernetes", "version": version})
}

/// What the paths refer to.
fn roots(resources: &[Resource<'_>]) -> Vec<Definition> {
    let mut roots = vec![Definition::Patch];
    for name in ["Status", "DeleteOptions"] {
        roots.extend(types::of("", "v1", name).map(Definition::Type));
    }
    for resource in resources {
        if let Some(of) = types::of(resource.group, resource.version, resource.kind) {
            if resource.verbs.contains(&"list") {
                roots.push(Definition::List(of));
            }
            roots.push(Definition::Type(of));
        }
        for sub in resource.subresources {
            roots.extend(types::of(sub.group, sub.version, sub.kind).map(Definition::Type));
        }
    }
    roots
}

/// Changes with the types, their texts and what is given; FNV-1a, since nobody has to be convinced.
fn digest(more: &str) -> u64 {
    more.bytes()
        .fold(types::digest(), |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

fn write(out: &mut Vec<u8>, value: &Value) {
    out.extend_from_slice(value.to_string().as_bytes());
}

/// An object of entries that are made one after the other.
fn entries(out: &mut Vec<u8>, entries: impl Iterator<Item = (String, Value)>) {
    out.push(b'{');
    for (at, (key, value)) in entries.enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, &Value::String(key));
        out.push(b':');
        write(out, &value);
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests;
