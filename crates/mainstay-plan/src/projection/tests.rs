use std::sync::Arc;

use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use mainstay_pod::{Amounts, Object, ObjectName};
use mainstay_testkit::pods::pod;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::references::{Known, Referenced};
use crate::status::NodeAddresses;
use crate::tokens::Token;

fn objects() -> Referenced {
    let name =
        |kind, name: &str| ObjectName { kind, namespace: "default".into(), name: name.into() };
    let map: ConfigMap = serde_json::from_value(json!({
        "data": {"a.conf": "one", "b": "two"}, "binaryData": {"bin": "/w=="},
    }))
    .unwrap();
    let secret: Secret = serde_json::from_value(json!({"stringData": {"token": "t"}})).unwrap();
    let found = |object: Object| Known::Found(Arc::new(object));
    Referenced(
        [
            (name(ObjectKind::ConfigMap, "map"), found(map.into())),
            (name(ObjectKind::Secret, "secret"), found(secret.into())),
            (name(ObjectKind::ConfigMap, "none"), Known::Missing),
            (name(ObjectKind::Secret, "none"), Known::Missing),
        ]
        .into(),
    )
}

fn of(volume: &str) -> String {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p, labels: {{a: b}}}}\nspec:\n  containers:\n  \
         - {{name: c, image: i}}\n  volumes:\n  - {{name: v, {volume}}}\n"
    );
    let (pod, objects, node) = (pod(&manifest), objects(), NodeAddresses::default());
    let around = Surroundings {
        allocatable: Amounts { memory_bytes: Some(3 << 20), ..Amounts::default() },
        node: &node,
        pod_ips: &[],
        objects: &objects,
        tokens: &Default::default(),
    };
    let volume = &pod.spec().volumes.as_ref().unwrap()[0];
    let line = |(path, file): (&String, &File<'_>)| {
        format!("{path} {:o} {:?}\n", file.mode, String::from_utf8_lossy(&file.content))
    };
    match Projection::of(volume).unwrap().files(&pod, &around) {
        Ok(files) => files.iter().map(line).collect(),
        Err(error) => error.to_string(),
    }
}

fn check(volume: &str, expected: &Expect) {
    expected.assert_eq(&of(volume));
}

#[test]
fn volumes_show_what_they_are_made_of() {
    check(
        "configMap: {name: map}",
        &expect![[r#"
            a.conf 644 "one"
            b 644 "two"
            bin 644 "�"
        "#]],
    );
    check(
        "configMap: {name: map, defaultMode: 0400, items: [{key: b, path: x//y/./z}, \
         {key: bin, path: bin, mode: 0640}]}",
        &expect![[r#"
            bin 640 "�"
            x/y/z 400 "two"
        "#]],
    );
    check(
        "secret: {secretName: secret, defaultMode: 256}",
        &expect![[r#"
            token 400 "t"
        "#]],
    );
    check(
        "downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}, \
         {path: mem, mode: 0600, resourceFieldRef: {containerName: c, resource: limits.memory, \
         divisor: 1Mi}}]}",
        &expect![[r#"
            labels 644 "a=\"b\""
            mem 600 "3"
        "#]],
    );
    check(
        "projected: {defaultMode: 0440, sources: [{configMap: {name: map, items: [{key: b, path: d/b}]}}, \
         {secret: {name: secret, items: [{key: token, path: d/t, mode: 0400}]}}, \
         {configMap: {name: none, optional: true}}, \
         {downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}]}}]}",
        &expect![[r#"
            d/b 440 "two"
            d/t 400 "t"
            name 440 "p-n1"
        "#]],
    );
}

#[test]
fn what_is_missing_is_named_or_left_out() {
    for (volume, expected) in [
        ("configMap: {name: none}", "configmap \"none\" not found"),
        ("configMap: {name: none, optional: true}", ""),
        ("secret: {secretName: none}", "secret \"none\" not found"),
        ("secret: {secretName: none, optional: true, items: [{key: a, path: a}]}", ""),
        (
            "configMap: {name: map, items: [{key: x, path: a}]}",
            "configmap references non-existent config key: x",
        ),
        (
            "secret: {secretName: secret, items: [{key: x, path: a}]}",
            "references non-existent secret key: x",
        ),
        ("secret: {secretName: secret, optional: true, items: [{key: x, path: a}]}", ""),
    ] {
        assert_eq!(of(volume), expected, "{volume}");
    }
}

#[test]
fn mount_points_in_a_volume_are_known_beforehand() {
    let pod = pod("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  volumes:\n  \
                   - {name: v, configMap: {name: map}}\n  - {name: w, emptyDir: {}}\n  containers:\n  \
                   - name: c\n    image: i\n    volumeMounts:\n    - {name: v, mountPath: /etc/x}\n    \
                   - {name: w, mountPath: /etc/x/nested}\n    - {name: w, mountPath: /etc/x/nested-b/c}\n    \
                   - {name: w, mountPath: /etc/x/nested/double}\n    - {name: w, mountPath: /etc/xy}\n  \
                   - name: d\n    image: i\n    volumeMounts: [{name: w, mountPath: /etc/x/no}]\n");
    assert_eq!(nested_mount_points(&pod, "v"), ["nested", "nested-b/c"]);
    assert_eq!(nested_mount_points(&pod, "w"), ["double"]);
}

proptest! {
    /// Whatever a path is, it stays in the volume and out of what is the volume's own.
    #[test]
    fn paths_stay_in_the_volume(path in "[a/.\0]{0,12}") {
        if let Some(clean) = clean(&path) {
            prop_assert!(!clean.is_empty() && !clean.starts_with('/') && !clean.starts_with(".."));
            for name in clean.split('/') {
                prop_assert!(!name.is_empty() && name != "." && name != ".." && !name.contains('\0'));
            }
            let names: Vec<&str> = path.split('/').filter(|it| !matches!(*it, "" | ".")).collect();
            prop_assert_eq!(names.join("/"), clean);
        }
    }
}

#[test]
fn tokens_are_for_those_who_use_them() {
    let of = |spec: &str, given: Option<Token>| {
        let manifest = format!(
            "{{\"metadata\": {{\"name\": \"p\", \"namespace\": \"ns\", \"uid\": \"u\"}}, \"spec\": \
             {{\"serviceAccountName\": \"a\", {spec}, \"volumes\": [{{\"name\": \"v\", \"projected\": \
             {{\"defaultMode\": 420, \"sources\": [{{\"serviceAccountToken\": {{\"path\": \"token\", \
             \"expirationSeconds\": 600}}}}]}}}}]}}}}"
        );
        let pod = mainstay_pod::Pod::from_api(serde_json::from_str(&manifest).unwrap()).unwrap();
        let wanted = crate::tokens::wanted(&pod).pop_first().unwrap();
        assert_eq!((wanted.audience.as_str(), wanted.seconds), ("", 600));
        let (objects, node) = (Referenced::default(), NodeAddresses::default());
        let around = Surroundings {
            allocatable: Amounts::default(),
            node: &node,
            pod_ips: &[],
            objects: &objects,
            tokens: &given.into_iter().map(|token| (wanted.clone(), token)).collect(),
        };
        let volume = &pod.spec().volumes.as_ref().unwrap()[0];
        match Projection::of(volume).unwrap().files(&pod, &around) {
            Ok(files) => format!("{:o} {:?}", files["token"].mode, files["token"].owner),
            Err(error) => error.to_string(),
        }
    };
    let token = || Some(Ok("t".into()));
    let containers = |users: [Option<u32>; 2]| {
        let one = |user: Option<u32>| match user {
            Some(user) => format!(r#"{{"name": "c", "securityContext": {{"runAsUser": {user}}}}}"#),
            None => r#"{"name": "d"}"#.to_owned(),
        };
        format!("\"containers\": [{}, {}]", one(users[0]), one(users[1]))
    };
    assert_eq!(of(&containers([None, None]), token()), "644 None");
    assert_eq!(of(&containers([Some(7), Some(7)]), token()), "600 Some(7)");
    assert_eq!(of(&containers([Some(7), Some(8)]), token()), "644 None");
    assert_eq!(of(&containers([Some(7), None]), token()), "644 None");
    let group = format!("{}, \"securityContext\": {{\"fsGroup\": 5}}", containers([None, None]));
    assert_eq!(of(&group, token()), "600 None");
    let refused = Some(Err("failed to fetch token: no".into()));
    assert_eq!(of(&containers([None, None]), refused), "failed to fetch token: no");
}
