use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::schemas::references_in;
use super::{Resource, Subresource, v2, v2_protobuf, v3, v3_index};

const ALL: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

const RESOURCES: &[Resource<'static>] = &[
    Resource {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        namespaced: true,
        verbs: ALL,
        subresources: &[
            Subresource {
                name: "status",
                group: "",
                version: "v1",
                kind: "Pod",
                verbs: &["get", "patch", "update"],
            },
            Subresource {
                name: "eviction",
                group: "policy",
                version: "v1",
                kind: "Eviction",
                verbs: &["create"],
            },
            Subresource {
                name: "log",
                group: "",
                version: "v1",
                kind: "PodLogOptions",
                verbs: &["get"],
            },
        ],
    },
    Resource {
        group: "",
        version: "v1",
        kind: "Namespace",
        plural: "namespaces",
        namespaced: false,
        verbs: ALL,
        subresources: &[],
    },
    Resource {
        group: "rbac.authorization.k8s.io",
        version: "v1",
        kind: "Role",
        plural: "roles",
        namespaced: true,
        verbs: ALL,
        subresources: &[],
    },
    Resource {
        group: "metrics.k8s.io",
        version: "v1beta1",
        kind: "NodeMetrics",
        plural: "nodes",
        namespaced: false,
        verbs: &["get", "list"],
        subresources: &[],
    },
];

fn core_v3() -> Value {
    serde_json::from_slice(&v3("v1.36.0", "", "v1", RESOURCES).unwrap()).unwrap()
}

fn swagger() -> Value {
    serde_json::from_slice(&v2("v1.36.0", RESOURCES)).unwrap()
}

#[test]
fn every_reference_leads_somewhere() {
    for (document, place) in [(swagger(), "/definitions"), (core_v3(), "/components/schemas")] {
        let defined: BTreeSet<String> =
            document.pointer(place).unwrap().as_object().unwrap().keys().cloned().collect();
        let mut referred = BTreeSet::new();
        references_in(&document, &mut referred);
        let missing: Vec<&String> = referred.difference(&defined).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert!(defined.len() > 100);
    }
}

/// kubectl finds the kind of a resource by its path, then the definition by the kind.
#[test]
fn explain_finds_its_way() {
    let document = core_v3();
    let operation = &document["paths"]["/api/v1/namespaces/{namespace}/pods"]["get"];
    let kind = &operation["x-kubernetes-group-version-kind"];
    assert_eq!(*kind, json!({"group": "", "kind": "Pod", "version": "v1"}));
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let found: Vec<&String> = schemas
        .iter()
        .filter(|(_, schema)| {
            let kinds = schema["x-kubernetes-group-version-kind"].as_array();
            kinds.is_some_and(|kinds| kinds.contains(kind))
        })
        .map(|(name, _)| name)
        .collect();
    assert_eq!(found, ["io.k8s.api.core.v1.Pod"]);
    let container = &schemas["io.k8s.api.core.v1.Container"];
    assert_eq!(
        container["properties"]["ports"],
        json!({
            "description": container["properties"]["ports"]["description"],
            "type": "array",
            "items": {"$ref": "#/components/schemas/io.k8s.api.core.v1.ContainerPort"},
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["containerPort", "protocol"],
            "x-kubernetes-patch-merge-key": "containerPort",
            "x-kubernetes-patch-strategy": "merge",
        })
    );
    let description = container["properties"]["name"]["description"].as_str().unwrap();
    assert!(description.starts_with("Name of the container specified as a DNS_LABEL."));
    assert_eq!(container["required"], json!(["name"]));
    assert_eq!(
        container["properties"]["imagePullPolicy"]["enum"],
        json!(["Always", "IfNotPresent", "Never"])
    );
    let quantity = &schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"];
    assert!(
        quantity["description"].as_str().unwrap().contains("\n\nThe serialization format is:\n\n")
    );
}

/// kubectl leaves validation to a server whose patches take `fieldValidation`.
#[test]
fn patches_take_field_validation_and_dry_run() {
    let patch = &core_v3()["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    let names = |parameters: &Value| -> Vec<Value> {
        let parameters = parameters.as_array().unwrap();
        parameters.iter().map(|parameter| parameter["name"].clone()).collect()
    };
    assert_eq!(names(&patch["parameters"]), ["dryRun", "fieldManager", "fieldValidation", "force"]);
    assert_eq!(patch["operationId"], "patchCoreV1NamespacedPod");
    assert_eq!(patch["requestBody"]["content"].as_object().unwrap().len(), 4);
    let swagger = swagger();
    let patch = &swagger["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    assert!(names(&patch["parameters"]).contains(&json!("dryRun")));
}

#[test]
fn paths_are_those_of_the_verbs() {
    let swagger = swagger();
    let paths: Vec<(String, Vec<String>)> = swagger["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, item)| {
            let methods = item.as_object().unwrap().keys().filter(|key| *key != "parameters");
            (path.clone(), methods.cloned().collect())
        })
        .collect();
    let expected = [
        ("/api/v1/namespaces", "delete get post"),
        ("/api/v1/namespaces/{namespace}/pods", "delete get post"),
        ("/api/v1/namespaces/{namespace}/pods/{name}", "delete get patch put"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/eviction", "post"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/log", "get"),
        ("/api/v1/namespaces/{namespace}/pods/{name}/status", "get patch put"),
        ("/api/v1/namespaces/{name}", "delete get patch put"),
        ("/api/v1/pods", "get"),
        ("/apis/metrics.k8s.io/v1beta1/nodes", "get"),
        ("/apis/metrics.k8s.io/v1beta1/nodes/{name}", "get"),
        ("/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles", "delete get post"),
        (
            "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles/{name}",
            "delete get patch put",
        ),
        ("/apis/rbac.authorization.k8s.io/v1/roles", "get"),
    ]
    .map(|(path, methods)| {
        (path.to_owned(), methods.split(' ').map(str::to_owned).collect::<Vec<_>>())
    });
    assert_eq!(paths, expected);
    let id = |path: &str, method: &str| swagger["paths"][path][method]["operationId"].clone();
    assert_eq!(id("/api/v1/pods", "get"), "listCoreV1PodForAllNamespaces");
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/roles";
    assert_eq!(id(roles, "delete"), "deleteRbacAuthorizationV1CollectionNamespacedRole");
}

#[test]
fn the_index_names_each_document_and_changes_with_it() {
    let index = |resources: &[Resource<'_>]| -> Value {
        serde_json::from_slice(&v3_index("v1.36.0", resources)).unwrap()
    };
    let all = index(RESOURCES);
    let names: Vec<&String> = all["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        names,
        ["api/v1", "apis/metrics.k8s.io/v1beta1", "apis/rbac.authorization.k8s.io/v1"]
    );
    let address = |index: &Value| index["paths"]["api/v1"]["serverRelativeURL"].clone();
    assert!(address(&all).as_str().unwrap().starts_with("/openapi/v3/api/v1?hash="));
    assert_ne!(address(&all), address(&index(&RESOURCES[..2])));
    assert!(v3("v1.36.0", "batch", "v1", RESOURCES).is_none());
}

/// Every field of a message with its number, as far as protobuf tells without the schema.
fn fields(mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let mut number = 0;
        for shift in (0..).step_by(7) {
            let (byte, rest) = bytes.split_first().unwrap();
            *bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let length = match key & 7 {
            0 => {
                varint(&mut bytes);
                continue;
            }
            2 => usize::try_from(varint(&mut bytes)).unwrap(),
            other => panic!("wire type {other}"),
        };
        let (value, rest) = bytes.split_at(length);
        fields.push((key >> 3, value));
        bytes = rest;
    }
    fields
}

#[test]
fn protobuf_has_the_same_names() {
    let bytes = v2_protobuf("v1.36.0", RESOURCES);
    let get = |bytes: &'static [u8], number: u64| -> Vec<&'static [u8]> {
        fields(bytes).into_iter().filter(|(found, _)| *found == number).map(|(_, it)| it).collect()
    };
    let bytes: &'static [u8] = bytes.leak();
    let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_owned();
    assert_eq!(text(get(bytes, 1)[0]), "2.0");
    let names: Vec<String> =
        get(get(bytes, 9)[0], 1).into_iter().map(|named| text(get(named, 1)[0])).collect();
    let swagger = swagger();
    let expected: Vec<&String> = swagger["definitions"].as_object().unwrap().keys().collect();
    assert_eq!(names.iter().collect::<Vec<_>>(), expected);
    let paths: BTreeSet<String> =
        get(get(bytes, 8)[0], 2).into_iter().map(|named| text(get(named, 1)[0])).collect();
    let expected: BTreeSet<String> =
        swagger["paths"].as_object().unwrap().keys().cloned().collect();
    assert_eq!(paths, expected);
}
