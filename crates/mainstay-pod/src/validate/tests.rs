use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

use super::*;
use crate::{schema, source, yaml};

/// A Pod read from YAML, with its defaults.
fn pod(text: &str) -> Pod {
    let document = yaml::read(text).into_iter().next().expect("a document");
    let mut root = document.root.expect("a tree");
    let mut findings = Vec::new();
    let source = source::Source::new("case", text);
    let fits =
        schema::check(&mut root, schema::pod(), &source, crate::Validation::Strict, &mut findings);
    assert!(fits && findings.is_empty(), "{findings:?}\n{text}");
    let mut pod: Pod = serde_json::from_value(root.to_json()).expect("it fits the schema");
    defaults::apply(&mut pod);
    pod
}

/// `{..}` for a struct that is printed as a bad value.
fn without_structs(text: &str) -> String {
    let start = ["Invalid value: {", "Invalid value: [{"].into_iter().find_map(|it| text.find(it));
    let end = text.rfind("}]: ").map(|at| at + 2).or_else(|| text.rfind("}: ").map(|at| at + 1));
    match (start, end) {
        (Some(start), Some(end)) => {
            format!("{}{{..}}{}", &text[..start + "Invalid value: ".len()], &text[end..])
        }
        _ => text.to_owned(),
    }
}

/// Go leaves out what is empty; k8s-openapi writes what was set.
fn without_empty(value: Value) -> Option<Value> {
    match value {
        Value::Null => None,
        Value::Bool(false) => None,
        Value::String(text) if text.is_empty() => None,
        Value::Number(number) if number.as_i64() == Some(0) => None,
        Value::Array(items) => {
            let items: Vec<Value> =
                items.into_iter().map(|item| without_empty(item).unwrap_or(Value::Null)).collect();
            (!items.is_empty()).then_some(Value::Array(items))
        }
        Value::Object(fields) => {
            let fields: serde_json::Map<String, Value> = fields
                .into_iter()
                .filter_map(|(key, value)| Some((key, without_empty(value)?)))
                .collect();
            (!fields.is_empty()).then_some(Value::Object(fields))
        }
        value => Some(value),
    }
}

/// Every case of `tests/cases.txt` gets the verdict that Kubernetes gives, in the same words.
#[test]
fn verdicts_are_those_of_kubernetes() {
    let mut count = 0;
    for case in include_str!("tests/cases.txt").split("=== ").skip(1) {
        count += 1;
        let (title, rest) = case.split_once('\n').expect("a title");
        let mut manifest = "apiVersion: v1\nkind: Pod\n".to_owned();
        if !rest.starts_with("metadata:") {
            manifest.push_str("metadata: {name: p, namespace: default}\n");
        }
        let mut expected: Vec<String> = Vec::new();
        let mut defaulted = None;
        for line in rest.lines() {
            if let Some(error) = line.strip_prefix("-> ") {
                expected.push(error.to_owned());
            } else if let Some(object) = line.strip_prefix("=> ") {
                defaulted = Some(object);
            } else {
                manifest.push_str(line);
                manifest.push('\n');
            }
        }
        let pod = pod(&manifest);
        let mut found: Vec<String> =
            create(&pod).iter().map(|error| without_structs(&error.to_string())).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{title}");
        if let Some(defaulted) = defaulted {
            let mut object = serde_json::to_value(&pod).expect("a pod is JSON");
            for key in ["apiVersion", "kind"] {
                object.as_object_mut().expect("an object").remove(key);
            }
            let expected = serde_json::from_str(defaulted).expect("the recorded object is JSON");
            assert_eq!(without_empty(object), without_empty(expected), "{title}");
        }
    }
    assert!(count > 75, "only {count} cases were read");
}

#[test]
fn doing_defaults_twice_changes_nothing() {
    let once = pod(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: d}\nspec: {hostNetwork: true, resources: {limits: {cpu: 2}}, containers: [{name: c, image: i, ports: [{containerPort: 1}], resources: {limits: {cpu: 0.0001}}}]}",
    );
    let mut twice = once.clone();
    defaults::apply(&mut twice);
    assert_eq!(once, twice);
}

#[test]
fn references_are_named_as_a_kubelet_names_them() {
    let cases = [
        ("serviceAccountName: default", "serviceaccounts"),
        ("serviceAccount: x", "serviceaccounts"),
        ("imagePullSecrets: [{name: s}]", "secrets"),
        ("resourceClaims: [{name: a, resourceClaimName: b}]", "resourceclaims"),
        ("volumes: [{name: v, secret: {secretName: s}}]", "secrets"),
        ("volumes: [{name: v, secret: {}}]", "secrets (via secret volumes)"),
        ("volumes: [{name: v, configMap: {name: m}}]", "configmaps"),
        ("volumes: [{name: v, configMap: {}}]", "configmaps (via configmap volumes)"),
        ("volumes: [{name: v, csi: {driver: d}}]", "csidrivers (via CSI volumes)"),
        ("volumes: [{name: v, csi: {driver: d, nodePublishSecretRef: {name: s}}}]", "secrets"),
        (
            "volumes: [{name: v, glusterfs: {endpoints: e, path: p}}]",
            "endpoints (via glusterFS volumes)",
        ),
        ("volumes: [{name: v, persistentVolumeClaim: {claimName: c}}]", "persistentvolumeclaims"),
        ("volumes: [{name: v, ephemeral: {}}]", "persistentvolumeclaims (via ephemeral volumes)"),
        ("volumes: [{name: v, azureFile: {shareName: s}}]", "secrets (via azureFile volumes)"),
        ("volumes: [{name: v, cephfs: {monitors: [m], secretRef: {name: s}}}]", "secrets"),
        (
            "volumes: [{name: v, projected: {sources: [{secret: {}}]}}]",
            "secrets (via projected volumes)",
        ),
        ("volumes: [{name: v, projected: {sources: [{configMap: {name: m}}]}}]", "configmaps"),
        (
            "volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: p}}]}}]",
            "serviceaccounts (via projected volumes)",
        ),
        (
            "volumes: [{name: v, projected: {sources: [{clusterTrustBundle: {path: p}}]}}]",
            "clustertrustbundles",
        ),
        ("volumes: [{name: v, projected: {sources: [{podCertificate: {}}]}}]", "podcertificates"),
        (
            "initContainers: [{name: i, env: [{name: a, valueFrom: {secretKeyRef: {name: s}}}]}]",
            "secrets",
        ),
        ("initContainers: [{name: i, envFrom: [{configMapRef: {name: m}}]}]", "configmaps"),
    ];
    for (field, resource) in cases {
        let pod = pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  {field}\n  containers: [{{name: c, image: i}}]"
        ));
        let found = api_references(&pod);
        assert_eq!(found.first().map(|it| it.resource), Some(resource), "{field}");
        assert_eq!(found[0].to_string(), format!("static pods may not reference {resource}"));
    }
    let allowed = pod(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  volumes: [{name: a}, {name: b, hostPath: {path: /}}, {name: c, downwardAPI: {}}, {name: d, image: {reference: x}}, {name: e, nfs: {server: s, path: /}}, {name: f, projected: {sources: [{downwardAPI: {}}]}}]\n  containers: [{name: c, image: i}]",
    );
    assert_eq!(api_references(&allowed), []);
}
