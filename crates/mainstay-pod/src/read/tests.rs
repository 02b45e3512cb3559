use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;

fn options(validation: Validation) -> ReadOptions {
    ReadOptions {
        validation,
        node_name: NodeName::new("n1").expect("a name"),
        source: SourceKind::File,
        seen: "2026-01-02T03:04:05.000000006Z".to_owned(),
    }
}

fn read_strictly(text: &str) -> Outcome {
    read("web.yaml", text.as_bytes(), &options(Validation::Strict))
}

/// One line for each entry, then its diagnostics.
fn show(outcome: &Outcome) -> String {
    let mut out = String::new();
    for entry in &outcome.entries {
        let (title, diagnostics): (_, Vec<&Diagnostic>) = match entry {
            Entry::Pod { pod, warnings } => {
                (format!("pod {}", pod.full_name()), warnings.iter().collect())
            }
            Entry::Refused { identity, errors, warnings } => {
                assert!(!errors.is_empty());
                let name = identity.as_ref().map_or_else(|| "?".to_owned(), FullName::to_string);
                (format!("refused {name}"), errors.iter().chain(warnings).collect())
            }
            Entry::Object { name, object, warnings } => {
                (format!("{name} {object:?}"), warnings.iter().collect())
            }
            Entry::RefusedObject { name, errors, warnings } => {
                assert!(!errors.is_empty());
                let name = name.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string);
                (format!("refused object {name}"), errors.iter().chain(warnings).collect())
            }
        };
        out.push_str(&title);
        out.push('\n');
        for diagnostic in diagnostics {
            out.push_str(&format!("  {diagnostic}\n"));
        }
    }
    for diagnostic in &outcome.diagnostics {
        out.push_str(&format!("{diagnostic}\n"));
    }
    out
}

#[expect(clippy::needless_pass_by_value, reason = "the expectation is written in the call")]
fn check(text: &str, expected: Expect) {
    expected.assert_eq(&show(&read_strictly(text)));
}

fn manifest(name: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\nspec:\n  containers:\n  - name: c\n    image: i\n"
    )
}

/// The fixtures are what `kubectl run web --image=nginx --dry-run=client -o yaml` wrote, in kubectl 1.20.2
/// (Debian 12) and 1.32.4, and with `--image=local/x:latest --port=8080 --env=A=b --labels=app=web
/// --restart=Never --command -- sleep 1`.
#[test]
fn what_kubectl_run_writes_runs_without_a_warning() {
    let fixtures = [
        include_str!("tests/kubectl-1.20-run.yaml"),
        include_str!("tests/kubectl-1.32-run.yaml"),
        include_str!("tests/kubectl-1.32-run-options.yaml"),
    ];
    for text in fixtures {
        assert_eq!(show(&read_strictly(text)), "pod web-n1_default\n");
    }
}

#[test]
fn documents_and_lists() {
    let list = "---\napiVersion: v1\nkind: List\nmetadata: {resourceVersion: ''}\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: c}\n  spec: {containers: [{name: c, image: i}]}\n- apiVersion: v1\n  kind: List\n  items:\n  - apiVersion: v1\n    kind: Service\n    metadata: {name: d}\n---\napiVersion: v1\nkind: PodList\nitems:\n- metadata: {name: e}\n  spec: {containers: [{name: c, image: i}]}\n- metadata: {name: f}\n";
    check(
        &format!("{}---\n# nothing\n---\n{}{list}", manifest("a"), manifest("b")),
        expect![[r#"
            pod a-n1_default
            pod b-n1_default
            pod c-n1_default
            refused d-n1_default
              web.yaml:33:11: kind: document 3 is of kind Service; a manifest directory takes Pods, ConfigMaps and Secrets only (objects of kind Service are applied through the Kubernetes API: kubectl apply -f)
            pod e-n1_default
            refused f-n1_default
              web.yaml:41:3: spec.containers: Required value
        "#]],
    );
    check(
        "apiVersion: v1\nkind: List\n---\nkind: List\nitem: []\nitems: []\nitems: []\n---\nkind: List\nitems: []\n",
        expect![[r#"
            refused ?
              web.yaml:1:1: items: Required value
            refused ?
              web.yaml:5:1: item: unknown field
              web.yaml:7:1: items: duplicate field, already set on line 6
        "#]],
    );
    check(
        "apiVersion: v1\nkind: List\nitems: {}\n",
        expect![[r#"
        refused ?
          web.yaml:3:1: items: expected a list of Pods
    "#]],
    );
}

#[test]
fn other_kinds() {
    check(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\n---\napiVersion: v1\nkind: Service\n---\nkind: pod\n---\nmetadata: {name: x}\n---\napiVersion: v2\nkind: Pod\nmetadata: {name: x}\n---\nkind: Pod\n---\n- a\n---\njust text\n---\nkind: [x]\napiVersion: 1\n",
        expect![[r#"
            refused web-n1_default
              web.yaml:2:7: kind: document 1 is of kind Deployment; a manifest directory takes Pods, ConfigMaps and Secrets only (static pods are Pods: write a Pod from the template of the Deployment, or apply the Deployment through the Kubernetes API)
            refused ?
              web.yaml:6:7: kind: document 2 is of kind Service; a manifest directory takes Pods, ConfigMaps and Secrets only (objects of kind Service are applied through the Kubernetes API: kubectl apply -f)
            refused ?
              web.yaml:8:7: kind: document 3 is of kind pod; a manifest directory takes Pods, ConfigMaps and Secrets only (did you mean Pod?)
            refused x-n1_default
              web.yaml:10:1: kind: Required value (a static pod starts with apiVersion: v1 and kind: Pod)
              web.yaml:10:1: apiVersion: Required value (a Pod has apiVersion: v1)
            refused x-n1_default
              web.yaml:12:13: apiVersion: Unsupported value: "v2": supported values: "v1"
            refused ?
              web.yaml:16:1: apiVersion: Required value (a Pod has apiVersion: v1)
            refused ?
              web.yaml:18:1: expected a Pod, found a list
            refused ?
              web.yaml:20:1: expected a Pod, found the string "just text"
            refused ?
              web.yaml:22:7: kind: expected a string, found a list
              web.yaml:23:13: apiVersion: expected a string, found the number 1
        "#]],
    );
}

#[test]
fn only_secrets_have_credentials() {
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: m\n  annotations: \
         {mainstay.dev/credentials: a=b}\n---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: s\n  \
         annotations: {mainstay.dev/credentials: a=../b}\n---\napiVersion: v1\nkind: Secret\nmetadata:\n  \
         name: t\n  annotations: {mainstay.dev/credentials: a=b}\n",
        expect![[r#"
            refused object ConfigMap default/m
              web.yaml:5:3: metadata.annotations[mainstay.dev/credentials]: only a Secret takes credentials (such as password=db-password,user=db-user)
            refused object Secret default/s
              web.yaml:11:3: metadata.annotations[mainstay.dev/credentials]: Invalid value: "../b": the name of a credential has letters, digits, '-', '_' and '.' (such as password=db-password,user=db-user)
            Secret default/t {}
        "#]],
    );
}

/// What an API shows of an object is, pasted, the object.
#[test]
fn a_pasted_mirror_of_an_object_is_the_object() {
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: web-n7\n  uid: x\n  labels: \
         {app: web, mainstay.dev/config.node: n7}\n  annotations: {mainstay.dev/config.path: /m/web.yaml, \
         kubernetes.io/config.hash: abc}\n  ownerReferences: [{apiVersion: v1, kind: Node, name: n7, uid: y, \
         controller: true}]\ndata: {a: b}\n",
        expect![[r#"
            ConfigMap default/web {"a"}
              web.yaml:4:9: dropped what a cluster had added: the suffix -n7 of metadata.name, metadata.uid, metadata.ownerReferences, metadata.annotations[kubernetes.io/config.hash], metadata.annotations[mainstay.dev/config.path], metadata.labels[mainstay.dev/config.node]
        "#]],
    );
}

#[test]
fn what_pods_refer_to_lies_beside_them() {
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m, namespace: ns, uid: x}\ndata: {a: b}\n\
         binaryData: {c: AA==}\n---\napiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  \
         kind: Secret\n  metadata: {name: s}\n  type: Opaque\n  stringData: {p: q}\n- apiVersion: v1\n  \
         kind: Pod\n  metadata: {name: p}\n  spec: {containers: [{name: c, image: i, envFrom: \
         [{secretRef: {name: s}}]}]}\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\n",
        expect![[r#"
            ConfigMap ns/m {"a", "c"}
              web.yaml:3:36: dropped what a cluster had added: metadata.uid
            Secret default/s {"p"}
            pod p-n1_default
            refused object Secret default/s
              web.yaml:22:18: metadata.name: Duplicate value: document 2 of this file is the same Secret
        "#]],
    );
    check(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: M}\ndata: {a b: c}\n---\n\
         apiVersion: v1\nkind: Secret\nmetadata: {name: s}\ndata: {p: 'plain text'}\n---\n\
         apiVersion: v1\nkind: ConfigMap\ndata: {'': x, a/b: z}\nbinaryData: {d: AA==}\n---\n\
         apiVersion: v1\nkind: ConfigMap\nmetadata: {name: d}\ndata: {d: x, ..: z}\nbinaryData: {d: AA==}\n\
         ---\napiVersion: v2\nkind: Secret\nmetadata: {name: t}\n---\napiVersion: v1\n\
         kind: Secret\nmetadata: {name: u}\ndata: {a: [\n",
        expect![[r#"
            refused object ConfigMap default/M
              web.yaml:3:18: metadata.name: Invalid value: "M": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
              web.yaml:4:13: data[a b]: Invalid value: "a b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
            refused object Secret default/s
              web.yaml:9:11: data[p]: it is not base64 (text goes into stringData)
            refused object ?
              web.yaml:11:1: metadata.name: Required value: name or generateName is required
              web.yaml:13:12: data[]: Invalid value: "": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
              web.yaml:13:20: data[a/b]: Invalid value: "a/b": a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')
            refused object ConfigMap default/d
              web.yaml:19:11: data[d]: Invalid value: "d": duplicate of key present in binaryData
              web.yaml:19:18: data[..]: Invalid value: "..": must not be '..'
            refused object Secret default/t
              web.yaml:22:13: apiVersion: Unsupported value: "v2": supported values: "v1"
            refused object Secret default/u
              web.yaml:29:11: unclosed bracket '['
        "#]],
    );
}

/// Above the limit an API server would refuse it.
#[test]
fn objects_are_small() {
    let map = |length: usize| {
        let value = "x".repeat(length);
        show(&read_strictly(&format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: m}}\ndata: {{a: {value}}}\n"
        )))
    };
    assert_eq!(map(1 << 20), "ConfigMap default/m {\"a\"}\n");
    let refused = map((1 << 20) + 1);
    assert!(refused.contains("Too long: may not be more than 1048576 bytes"), "{refused}");
}

#[test]
fn one_bad_document_harms_no_other() {
    let bad = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: bad\n  namespace: x\nspec:\n  containers: [\n";
    check(
        &format!("{}---\n{bad}---\n{}", manifest("a"), manifest("b")),
        expect![[r#"
        pod a-n1_default
        refused bad-n1_x
          web.yaml:16:15: unclosed bracket '['
        pod b-n1_default
    "#]],
    );
    // A list that breaks keeps the names of everything in it.
    check(
        "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a}\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: b}\n  spec: ]\n",
        expect![[r#"
            refused a-n1_default
              web.yaml:10:9: misplaced bracket
            refused b-n1_default
              web.yaml:10:9: misplaced bracket
        "#]],
    );
    check(
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "j"}, "spec": {"#,
        expect![[r#"
            refused j-n1_default
              web.yaml:1:73: expected a key in double quotes, found the end of the file
        "#]],
    );
    check(
        "{apiVersion: v1, kind: Pod}",
        expect![[r#"
        refused ?
          web.yaml:1:2: expected a key in double quotes, found 'a' (a file that begins with { is read as JSON)
    "#]],
    );
}

#[test]
fn files_that_are_no_manifests() {
    check(
        "",
        expect![[r#"
        web.yaml: the file holds no manifest (remove the file to stop its pods)
    "#]],
    );
    check(
        "# all of it commented out\n",
        expect![[r#"
        web.yaml: the file holds no manifest (remove the file to stop its pods)
    "#]],
    );
    let not_utf8 = read("a.yaml", b"a: 1\nb: \xff\n", &options(Validation::Strict));
    expect![[r#"
        a.yaml: the file is not UTF-8: byte 8 in line 2 (save it as UTF-8)
    "#]]
    .assert_eq(&show(&not_utf8));
    let utf16 = read("a.yaml", b"\xff\xfea\x00", &options(Validation::Strict));
    expect![[r#"
        a.yaml: the file is not UTF-8: byte 0 in line 1; it seems to be UTF-16 (save it as UTF-8)
    "#]]
    .assert_eq(&show(&utf16));
    let large = vec![b' '; MAX_FILE_BYTES];
    expect![[r#"
        a.yaml: the file has 10485760 bytes; a manifest must have less than 10485760
    "#]]
    .assert_eq(&show(&read("a.yaml", &large, &options(Validation::Strict))));
    assert!(read("a.yaml", &large[1..], &options(Validation::Strict)).entries.is_empty());
}

#[test]
fn every_error_has_its_place() {
    check(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: Web\n  labels:\n    ok: fine\n    bad label: x\nspec:\n  serviceAccountName: me\n  imagePullSecrets: [{name: s}]\n  restartPolicy: Sometimes\n  initContainers:\n  - name: init\n  containers:\n  - name: c\n    workdir: /\n    ports:\n    - containerPort: 0\n    volumeMounts:\n    - name: nowhere\n      mountPath: /x\n      subPath: /abs\n    env:\n    - name: SECRET\n      valueFrom: {secretKeyRef: {name: s, key: k}}\n  volumes:\n  - name: claim\n    persistentVolumeClaim: {claimName: x}\n",
        expect![[r#"
            refused Web-n1_default
              web.yaml:4:9: metadata.name: Invalid value: "Web": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')
              web.yaml:7:16: metadata.labels: Invalid value: "bad label": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')
              web.yaml:9:23: spec.serviceAccountName: static pods may not reference serviceaccounts (leave it out: a static pod has no service account)
              web.yaml:11:18: spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"
              web.yaml:13:5: spec.initContainers[0].image: Required value
              web.yaml:15:5: spec.containers[0].image: Required value
              web.yaml:16:5: spec.containers[0].workdir: unknown field (did you mean workingDir?)
              web.yaml:18:22: spec.containers[0].ports[0].containerPort: Required value
              web.yaml:20:7: spec.containers[0].volumeMounts.subPath: Invalid value: "/abs": must be a relative path
              web.yaml:20:13: spec.containers[0].volumeMounts[0].name: Not found: "nowhere"
              web.yaml:28:5: spec.volumes[0].persistentVolumeClaim: static pods may not reference persistentvolumeclaims (use a hostPath volume for data of this machine)
        "#]],
    );
}

#[test]
fn nobody_reads_a_thousand_errors() {
    let unknown: String = (0..5000).map(|at| format!("  unknown{at}: x\n")).collect();
    let text = manifest("web") + &unknown;
    let outcome = read_strictly(&text);
    let Entry::Refused { errors, .. } = &outcome.entries[0] else { panic!("it is refused") };
    assert_eq!(errors.len(), 100);
    assert!(errors[99].message.ends_with("more after this one"), "{}", errors[99]);
    // However many warnings there are, an error after them refuses the manifest.
    let text = text + "  hostNetwork: 1\n";
    let outcome = read("f", text.as_bytes(), &options(Validation::Warn));
    assert!(matches!(&outcome.entries[0], Entry::Refused { errors, .. } if errors.len() == 1));
}

#[test]
fn wrong_types_stop_before_the_rules() {
    check(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers: {}\n  hostNetwork: 1\n",
        expect![[r#"
            refused web-n1_default
              web.yaml:5:15: spec.containers: expected a list, found an object (start each item with "- ")
              web.yaml:6:16: spec.hostNetwork: expected true or false, found the number 1
        "#]],
    );
}

#[test]
fn validation_is_the_users_choice() {
    let text = format!("{}    workdir: /x\n    image: j\n", manifest("web"));
    let shown = |validation| show(&read("f", text.as_bytes(), &options(validation)));
    expect![[r#"
        refused web-n1_default
          f:9:5: spec.containers[0].workdir: unknown field (did you mean workingDir?)
          f:10:5: spec.containers[0].image: duplicate field, already set on line 8
    "#]]
    .assert_eq(&shown(Validation::Strict));
    expect![[r#"
        pod web-n1_default
          f:9:5: spec.containers[0].workdir: unknown field (did you mean workingDir?)
          f:10:5: spec.containers[0].image: duplicate field, already set on line 8
    "#]]
    .assert_eq(&shown(Validation::Warn));
    expect![[r#"
        pod web-n1_default
    "#]]
    .assert_eq(&shown(Validation::Ignore));
}

#[test]
fn a_pasted_pod_is_cleaned_with_a_warning() {
    check(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web-n1\n  uid: x\n  annotations: {kubernetes.io/config.mirror: abc}\n  ownerReferences: [{apiVersion: v1, kind: Node, name: n1, uid: u}]\nspec:\n  nodeName: n1\n  containers: [{name: c, image: i}]\nstatus: {phase: Running}\n",
        expect![[r#"
            pod web-n1_default
              web.yaml:4:9: dropped what a cluster had added: the suffix -n1 of metadata.name, metadata.uid, metadata.ownerReferences, metadata.annotations[kubernetes.io/config.mirror], status, spec.nodeName
        "#]],
    );
}

#[test]
fn a_class_of_priority_that_only_an_api_has_counts_as_none() {
    let with = |fields: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {name}\nspec:\n  {fields}\n  containers: {list}\n",
            name = "{name: p}",
            list = "[{name: c, image: i}]"
        )
    };
    check(
        &with("priorityClassName: high"),
        expect![[r#"
            pod p-n1_default
              web.yaml:5:22: spec.priorityClassName: a static pod of the class "high" has the priority 0 (write its number in spec.priority, too)
        "#]],
    );
    for known in
        ["priorityClassName: high\n  priority: 7", "priorityClassName: system-node-critical"]
    {
        check(
            &with(known),
            expect![[r#"
            pod p-n1_default
        "#]],
        );
    }
}

#[test]
fn names() {
    check(
        &manifest(&"a".repeat(251)),
        expect![[r#"
        refused aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-n1_default
          web.yaml:4:9: metadata.name: Invalid value: "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa": together with "-n1" must be no more than 253 characters
    "#]],
    );
    check(
        &manifest("''"),
        expect![[r#"
        refused ?
          web.yaml:4:9: metadata.name: Required value: name or generateName is required
    "#]],
    );
    check(
        &manifest("1"),
        expect![[r#"
        refused ?
          web.yaml:4:9: metadata.name: expected a string, found the number 1 (quote the value: "1")
    "#]],
    );
    check(
        &format!("{}---\n{}", manifest("twice"), manifest("twice")),
        expect![[r#"
        pod twice-n1_default
        refused twice-n1_default
          web.yaml:13:9: metadata.name: Duplicate value: document 1 of this file is the same pod
    "#]],
    );
}

#[test]
fn neither_file_nor_node_make_another_pod() {
    let text = manifest("web");
    let read = |file: &str, node: &str, seen: &str| {
        let options = ReadOptions {
            node_name: NodeName::new(node).expect("a name"),
            seen: seen.to_owned(),
            ..options(Validation::Strict)
        };
        match super::read(file, text.as_bytes(), &options).entries.remove(0) {
            Entry::Pod { pod, .. } => pod,
            other => panic!("{other:?}"),
        }
    };
    let (one, two) = (read("a.yaml", "n1", "then"), read("b.yaml", "n2", "now"));
    assert_eq!(one.uid(), two.uid());
    assert_ne!(one.name(), two.name());
}

#[test]
fn an_empty_pull_policy_is_not_written() {
    let written = |policy: &str| {
        let text = format!("{}    imagePullPolicy: {policy}\n", manifest("web"));
        match read_strictly(&text).entries.remove(0) {
            Entry::Pod { pod, .. } => pod.has_written_pull_policy("c"),
            other => panic!("{other:?}"),
        }
    };
    assert!(written("Always"));
    assert!(!written("''"));
    assert!(!written(""));
}

/// The version that knows the field must not make another pod of the manifest.
#[test]
fn a_field_that_is_not_known_yet_is_part_of_what_was_written() {
    let hash = |text: &str, validation| match read("f", text.as_bytes(), &options(validation))
        .entries
        .remove(0)
    {
        Entry::Pod { pod, .. } => pod.content_hash().to_owned(),
        other => panic!("{other:?}"),
    };
    let text = manifest("web") + "    shiny: {new: 1}\n";
    let warned = hash(&text, Validation::Warn);
    assert_eq!(warned, hash(&text, Validation::Ignore));
    assert_ne!(warned, hash(&manifest("web"), Validation::Warn));
    expect!["f0cb31308edead523802de0de8181819"].assert_eq(&warned);
}

#[test]
fn the_way_a_list_is_written_makes_no_other_pod() {
    let pod = |text: &str| match read_strictly(text).entries.remove(0) {
        Entry::Pod { pod, .. } => pod.uid().to_owned(),
        other => panic!("{other:?}"),
    };
    let content = "metadata: {name: a}, spec: {containers: [{name: c, image: i}]}";
    let alone = pod(&format!("--- {{apiVersion: v1, kind: Pod, {content}}}"));
    for list in [
        format!("apiVersion: v1\nkind: PodList\nitems:\n- {{{content}}}\n"),
        format!(
            "apiVersion: v1\nkind: PodList\nitems:\n- {{apiVersion: v1, kind: Pod, {content}}}\n"
        ),
        format!("apiVersion: v1\nkind: List\nitems:\n- {{apiVersion: v1, kind: Pod, {content}}}\n"),
    ] {
        assert_eq!(pod(&list), alone, "{list}");
    }
}

/// To take only some of them would stop the others.
#[test]
fn of_too_many_manifests_none_is_read() {
    let texts = [
        "--- {apiVersion: v1}\n".repeat(10_001),
        "{}".repeat(10_001),
        format!("apiVersion: v1\nkind: List\nitems: [{}]\n", "1, ".repeat(10_001)),
    ];
    for text in texts {
        let outcome = read_strictly(&text);
        assert!(outcome.entries.is_empty());
        let messages: Vec<_> = outcome.diagnostics.iter().map(ToString::to_string).collect();
        let expected =
            "web.yaml: the file holds more than 10000 manifests (split it into several files)";
        assert_eq!(messages, [expected]);
    }
}

#[test]
fn hostile_files_are_refused_quickly() {
    let bomb: String = std::iter::once("a0: &a0 [x, x]\n".to_owned())
        .chain((1..60).map(|level| format!("a{level}: &a{level} [*a{0}, *a{0}]\n", level - 1)))
        .collect();
    let label = format!("\"a\":\"{}\",", "x".repeat(100));
    let hostile = [
        "[".repeat(1 << 17),
        "{\"a\":".repeat(1 << 17),
        "- ".repeat(1 << 17),
        "a: ".repeat(1 << 17),
        "&a ".repeat(1 << 17),
        "? ".repeat(1 << 17),
        "---\n".repeat(1 << 17),
        "---\na: [\n".repeat(1 << 15),
        "'".repeat(1 << 17),
        "\"\\".repeat(1 << 17),
        "!".repeat(1 << 17),
        "a: |\n".to_owned() + &" ".repeat(1 << 17),
        "x".repeat(1 << 20),
        "a: 1\n".repeat(1 << 17),
        // All on one line, so that a column is far to count.
        format!(
            "{{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{{\"labels\":{{{}\"a\":1}}}}}}",
            label.repeat(1 << 16)
        ),
        bomb,
    ];
    for text in hostile {
        let outcome = read_strictly(&text);
        let refused = outcome.entries.iter().all(|entry| matches!(entry, Entry::Refused { .. }));
        assert!(refused, "{:?}...", &text[..40.min(text.len())]);
    }
}

/// A valid manifest with much in it, for mutation.
const RICH: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n  labels: {app: web}\nspec:\n  hostNetwork: true\n  volumes:\n  - name: data\n    hostPath: {path: /srv}\n  containers:\n  - name: web\n    image: nginx\n    ports: [{containerPort: 80}]\n    resources: {limits: {cpu: 500m, memory: 64Mi}}\n    env: &env\n    - {name: A, value: \"1\"}\n    volumeMounts: [{name: data, mountPath: /data}]\n  - name: side\n    image: nginx\n    env: *env\n";

proptest! {
    #[test]
    fn any_bytes_are_judged(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        show(&read("f", &bytes, &options(Validation::Strict)));
    }

    #[test]
    fn any_text_in_a_manifest_is_judged(
        at in 0..RICH.len(),
        length in 0..20_usize,
        text in "[-a-z0-9:{}\\[\\]\"'&*!|>%@#,. \n\t\u{e9}]{0,12}",
    ) {
        let end = (at + length).min(RICH.len());
        let mutated = format!("{}{text}{}", &RICH[..at], &RICH[end..]);
        for validation in [Validation::Strict, Validation::Warn, Validation::Ignore] {
            let outcome = read("f", mutated.as_bytes(), &options(validation));
            show(&outcome);
            for entry in outcome.entries {
                let diagnostics = match entry {
                    Entry::Pod { pod, warnings } => {
                        prop_assert_eq!(&Pod::from_stored(&pod.to_stored()).unwrap(), &*pod);
                        warnings
                    }
                    Entry::Object { warnings, .. } => warnings,
                    Entry::Refused { errors, .. } | Entry::RefusedObject { errors, .. } => errors,
                };
                for diagnostic in diagnostics {
                    prop_assert!(diagnostic.line > 0 && diagnostic.column > 0, "{}", diagnostic);
                    diagnostic.render(&mutated, true);
                }
            }
        }
    }
}

#[test]
fn the_rich_manifest_is_valid() {
    check(
        RICH,
        expect![[r#"
        pod web-n1_default
    "#]],
    );
}
