use std::sync::Arc;

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use mainstay_testkit::pods::pod;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::references::{Known, Referenced};
use crate::status::NodeAddresses;

fn name(kind: ObjectKind, name: &str) -> ObjectName {
    ObjectName { kind, namespace: "default".into(), name: name.into() }
}

fn objects() -> Referenced {
    let map: ConfigMap = serde_json::from_value(json!({
        "data": {"A": "map", "odd.key-": "odd", "REF": "$(A)"}, "binaryData": {"BIN": "AA=="},
    }))
    .unwrap();
    let secret: Secret = serde_json::from_value(json!({
        "data": {"A": "c2VjcmV0", "NOT": "/w==", "NUL": "YQBi"},
    }))
    .unwrap();
    let secret_env: Secret =
        serde_json::from_value(json!({"stringData": {"A": "secret", "S": "s"}})).unwrap();
    let found = |object: Object| Known::Found(Arc::new(object));
    Referenced(
        [
            (name(ObjectKind::ConfigMap, "map"), found(map.into())),
            (name(ObjectKind::Secret, "bytes"), found(secret.into())),
            (name(ObjectKind::Secret, "secret"), found(secret_env.into())),
            (name(ObjectKind::ConfigMap, "none"), Known::Missing),
            (name(ObjectKind::Secret, "none"), Known::Missing),
            (name(ObjectKind::Secret, "away"), Known::Unreadable("forbidden".into())),
            (name(ObjectKind::ConfigMap, "later"), Known::Awaited),
        ]
        .into(),
    )
}

fn of(container: &str) -> String {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n  \
         - {{name: c, image: i, {container}}}\n"
    );
    let (pod, objects, node) = (pod(&manifest), objects(), NodeAddresses::default());
    let around = Surroundings {
        allocatable: Default::default(),
        node: &node,
        pod_ips: &[[10, 0, 0, 7].into()],
        objects: &objects,
        tokens: &Default::default(),
    };
    let services = [("SVC", "service"), ("A", "service")];
    let services = services.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let given = Given { services: services.into(), files: EnvFiles::new() };
    let given = if container.contains("SVC") { given } else { Given::default() };
    match environment(&pod, &pod.spec().containers[0], &around, &given) {
        Ok(list) => list.iter().map(|(name, value)| format!("{name}={value}\n")).collect(),
        Err(error) => error.to_string(),
    }
}

fn check(container: &str, expected: &Expect) {
    expected.assert_eq(&of(container));
}

#[test]
fn variables_come_from_everywhere_and_the_later_one_counts() {
    check(
        "envFrom: [{configMapRef: {name: map}}, {secretRef: {name: secret}, prefix: X_}, \
         {secretRef: {name: secret}}, {configMapRef: {name: none, optional: true}}], \
         env: [{name: REF, value: '$(A) $(X_S) $(NONE)'}, {name: S, value: own}, \
         {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}, \
         {name: K, valueFrom: {configMapKeyRef: {name: map, key: REF}}}, \
         {name: CPU, valueFrom: {resourceFieldRef: {resource: requests.cpu}}}, \
         {name: E, value: $(IP)$(K)}]",
        &expect![[r#"
            A=secret
            REF=secret s $(NONE)
            odd.key-=odd
            X_A=secret
            X_S=s
            S=own
            IP=10.0.0.7
            K=$(A)
            CPU=0
            E=10.0.0.7$(A)
        "#]],
    );
}

#[test]
fn what_is_not_there_is_named_or_left_out() {
    let one = |source: &str| of(&format!("env: [{{name: A, valueFrom: {{{source}}}}}]"));
    for (source, expected) in [
        ("configMapKeyRef: {name: none, key: k}", "configmap \"none\" not found"),
        ("configMapKeyRef: {name: none, key: k, optional: true}", ""),
        ("secretKeyRef: {name: none, key: k}", "secret \"none\" not found"),
        ("configMapKeyRef: {name: map, key: k}", "couldn't find key k in ConfigMap default/map"),
        ("configMapKeyRef: {name: map, key: k, optional: true}", ""),
        (
            "configMapKeyRef: {name: map, key: BIN}",
            "couldn't find key BIN in ConfigMap default/map",
        ),
        ("secretKeyRef: {name: bytes, key: k}", "couldn't find key k in Secret default/bytes"),
        ("secretKeyRef: {name: bytes, key: A}", "A=secret\n"),
        (
            "secretKeyRef: {name: bytes, key: NOT}",
            "key NOT in Secret default/bytes is not UTF-8 text without NUL bytes, and a variable \
             can hold nothing else; mount it as a file",
        ),
        (
            "secretKeyRef: {name: away, key: A, optional: true}",
            "cannot read Secret default/away: forbidden",
        ),
        (
            "configMapKeyRef: {name: later, key: A, optional: true}",
            "failed to sync configmap cache: timed out waiting for the condition",
        ),
    ] {
        assert_eq!(one(source), expected, "{source}");
    }
    assert_eq!(of("envFrom: [{secretRef: {name: none}}]"), "secret \"none\" not found");
    let nul = of("envFrom: [{secretRef: {name: bytes}}]");
    assert!(nul.starts_with("key NOT in Secret default/bytes"), "{nul}");
}

proptest! {
    /// Each name once, with the value that was put last.
    #[test]
    fn variables_are_a_map_in_order(puts in prop::collection::vec(("[A-D]", "[a-z]"), 0..20)) {
        let mut variables = Variables::default();
        let mut last = std::collections::BTreeMap::new();
        for (name, value) in &puts {
            variables.put(name.clone(), value.clone());
            last.insert(name.clone(), value.clone());
        }
        for (name, value) in &last {
            prop_assert_eq!(variables.get(name), Some(value.as_str()));
        }
        let listed: std::collections::BTreeMap<_, _> = variables.list.iter().cloned().collect();
        prop_assert_eq!(listed, last);
        prop_assert_eq!(variables.list.len(), variables.places.len());
    }
}

#[test]
fn services_count_least_and_can_be_referred_to() {
    expect![[r#"
        A=own
        B=service of own
        SVC=service
    "#]]
    .assert_eq(&of("env: [{name: A, value: own}, {name: B, value: $(SVC) of $(A)}]"));
    assert_eq!(of("env: [{name: SVC, value: own}]"), "SVC=own\nA=service\n");
}
