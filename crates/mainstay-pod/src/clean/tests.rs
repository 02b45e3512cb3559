use expect_test::{Expect, expect};

use super::*;
use crate::yaml;

/// The warning, then what is left as JSON.
#[expect(clippy::needless_pass_by_value, reason = "the expectation is written in the call")]
fn check(text: &str, expected: Expect) {
    let mut root = yaml::read(text).remove(0).root.expect("it parses");
    let warning = clean(&mut root).map_or_else(|| "no warning".to_owned(), |it| it.message);
    expected.assert_eq(&format!("{warning}\n{}\n", root.canonical_json()));
}

#[test]
fn what_kubectl_run_writes_needs_no_warning() {
    check(
        "metadata: {creationTimestamp: null, name: web}\nspec: {containers: [{name: web, resources: {}}]}\nstatus: {}\n",
        expect![[r#"
            no warning
            {"metadata":{"name":"web"},"spec":{"containers":[{"name":"web"}]}}
        "#]],
    );
}

#[test]
fn a_pod_of_a_cluster() {
    check(
        r#"
apiVersion: v1
kind: Pod
metadata:
  annotations:
    kubectl.kubernetes.io/last-applied-configuration: "{}"
    mine: kept
  creationTimestamp: "2026-01-01T00:00:00Z"
  generateName: web-
  generation: 1
  labels: {app: web, pod-template-hash: abc}
  managedFields: [{manager: kubectl, operation: Update}]
  name: web-7d9f
  namespace: default
  ownerReferences: [{apiVersion: apps/v1, kind: ReplicaSet, name: web, uid: u}]
  resourceVersion: "123"
  selfLink: /api/v1/x
  uid: 5f1c
spec:
  containers:
  - image: nginx
    name: web
    resources: {}
    volumeMounts:
    - {mountPath: /data, name: data}
    - {mountPath: /var/run/secrets/kubernetes.io/serviceaccount, name: kube-api-access-x7k2p, readOnly: true}
  ephemeralContainers: [{image: busybox, name: debugger-x7k2p, targetContainerName: web}]
  nodeName: worker-1
  serviceAccount: default
  serviceAccountName: default
  tolerations:
  - {effect: NoExecute, key: node.kubernetes.io/not-ready, operator: Exists, tolerationSeconds: 300}
  - {effect: NoExecute, key: node.kubernetes.io/unreachable, operator: Exists, tolerationSeconds: 300}
  - {key: mine, operator: Exists}
  volumes:
  - {name: data, emptyDir: {}}
  - name: kube-api-access-x7k2p
    projected: {sources: [{serviceAccountToken: {path: token}}]}
status: {phase: Running}
"#,
        expect![[r#"
            dropped what a cluster had added: metadata.uid, metadata.resourceVersion, metadata.generation, metadata.selfLink, metadata.creationTimestamp, metadata.managedFields, metadata.ownerReferences, metadata.generateName, metadata.annotations[kubectl.kubernetes.io/last-applied-configuration], status, spec.nodeName, spec.volumes[1], spec.serviceAccountName, spec.serviceAccount, spec.tolerations[0], spec.tolerations[1], spec.ephemeralContainers, spec.containers[0].volumeMounts[1]
            {"apiVersion":"v1","kind":"Pod","metadata":{"annotations":{"mine":"kept"},"labels":{"app":"web","pod-template-hash":"abc"},"name":"web-7d9f","namespace":"default"},"spec":{"containers":[{"image":"nginx","name":"web","volumeMounts":[{"mountPath":"/data","name":"data"}]}],"tolerations":[{"key":"mine","operator":"Exists"}],"volumes":[{"emptyDir":{},"name":"data"}]}}
        "#]],
    );
}

#[test]
fn a_mirror_pod() {
    check(
        r#"
metadata:
  annotations:
    kubernetes.io/config.hash: abc
    kubernetes.io/config.mirror: abc
    kubernetes.io/config.seen: "2026-01-01T00:00:00Z"
    kubernetes.io/config.source: file
    mainstay.dev/config.path: /etc/x.yaml
  name: web-node-1
  ownerReferences: [{apiVersion: v1, controller: true, kind: Node, name: Node-1, uid: u}]
  uid: 5f1c
spec:
  nodeName: Node-1
  tolerations: [{effect: NoExecute, operator: Exists}]
  containers: [{name: web}]
"#,
        expect![[r#"
            dropped what a cluster had added: the suffix -node-1 of metadata.name, metadata.uid, metadata.ownerReferences, metadata.annotations[kubernetes.io/config.hash], metadata.annotations[kubernetes.io/config.mirror], metadata.annotations[kubernetes.io/config.seen], metadata.annotations[kubernetes.io/config.source], metadata.annotations[mainstay.dev/config.path], spec.nodeName, spec.tolerations[0]
            {"metadata":{"name":"web"},"spec":{"containers":[{"name":"web"}]}}
        "#]],
    );
}

#[test]
fn an_old_token_volume() {
    check(
        r"
spec:
  serviceAccountName: default
  containers: [{name: a, volumeMounts: [{name: default-token-s8ejd, mountPath: /var/run/secrets/kubernetes.io/serviceaccount}]}]
  volumes: [{name: default-token-s8ejd, secret: {secretName: default-token-s8ejd}}]
",
        expect![[r#"
            dropped what a cluster had added: spec.volumes[0], spec.serviceAccountName, spec.containers[0].volumeMounts[0]
            {"spec":{"containers":[{"name":"a"}]}}
        "#]],
    );
}

#[test]
fn what_somebody_wrote_stays() {
    check(
        r"
metadata: {name: web-node-1, generateName: x, annotations: {a: b}}
spec:
  serviceAccountName: default
  tolerations: [{effect: NoExecute, operator: Exists}]
  volumes: [{name: my-token-abcde, secret: {secretName: other}}, {name: kube-api-access-abcde, emptyDir: {}}]
  containers: [{name: a, resources: {limits: {cpu: 1}}}]
",
        expect![[r#"
            no warning
            {"metadata":{"annotations":{"a":"b"},"generateName":"x","name":"web-node-1"},"spec":{"containers":[{"name":"a","resources":{"limits":{"cpu":1}}}],"serviceAccountName":"default","tolerations":[{"effect":"NoExecute","operator":"Exists"}],"volumes":[{"name":"my-token-abcde","secret":{"secretName":"other"}},{"emptyDir":{},"name":"kube-api-access-abcde"}]}}
        "#]],
    );
}
