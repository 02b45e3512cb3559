use expect_test::{Expect, expect};

use super::*;
use crate::yaml;

/// What is found in a manifest, one line each: warnings begin with "warning".
#[expect(clippy::needless_pass_by_value, reason = "the expectation is written in the call")]
fn check_with(validation: Validation, text: &str, expected: Expect) {
    let mut root = yaml::read(text).remove(0).root.expect("it parses");
    let source = Source::new("f", text);
    let mut findings = Vec::new();
    let fits = check(&mut root, crate::schema::pod(), &source, validation, &mut findings);
    let mut out = String::new();
    for finding in findings {
        if finding.severity == Severity::Warning {
            out.push_str("warning ");
        }
        out.push_str(&format!("{}\n", finding.into_diagnostic(&source, 1)));
    }
    if !fits {
        out.push_str("cannot be decoded\n");
    }
    expected.assert_eq(&out);
}

fn strict(text: &str, expected: Expect) {
    check_with(Validation::Strict, text, expected);
}

#[test]
fn unknown_fields_get_a_hint() {
    strict(
        "spec:\n  restartpolicy: Never\n  contaners: []\n  runAsUser: 1\n  nonsense: x\n  containers:\n  - workdir: /\n    comand: [a]\n    restartPolicyy: x\n    hostNetwork: true\n    runAsNonRoot: true\n    ports:\n    - port: 80\n",
        expect![[r#"
            f:2:3: spec.restartpolicy: unknown field (did you mean restartPolicy?)
            f:3:3: spec.contaners: unknown field (did you mean containers?)
            f:4:3: spec.runAsUser: unknown field (this field belongs to securityContext)
            f:5:3: spec.nonsense: unknown field
            f:7:5: spec.containers[0].workdir: unknown field (did you mean workingDir?)
            f:8:5: spec.containers[0].comand: unknown field (did you mean command?)
            f:9:5: spec.containers[0].restartPolicyy: unknown field (did you mean restartPolicy?)
            f:10:5: spec.containers[0].hostNetwork: unknown field (this field belongs to spec)
            f:11:5: spec.containers[0].runAsNonRoot: unknown field (this field belongs to securityContext)
            f:13:7: spec.containers[0].ports[0].port: unknown field
        "#]],
    );
    strict(
        "containers: []\nname: web\nlabels: {}\n",
        expect![[r#"
        f:1:1: containers: unknown field (this field belongs to spec)
        f:2:1: name: unknown field (this field belongs to metadata)
        f:3:1: labels: unknown field (this field belongs to metadata)
    "#]],
    );
    strict(
        "spec:\n  labels: {a: b}\n  image: x\n  mountPath: /x\n",
        expect![[r#"
            f:2:3: spec.labels: unknown field (this field belongs to metadata)
            f:3:3: spec.image: unknown field (this field belongs to an item of containers)
            f:4:3: spec.mountPath: unknown field
        "#]],
    );
}

#[test]
fn what_to_do_about_them_is_the_users_choice() {
    let text = "spec:\n  hostNetwork: true\n  hostnetwork: true\n  hostNetwork: false\n";
    strict(
        text,
        expect![[r#"
        f:4:3: spec.hostNetwork: duplicate field, already set on line 2
        f:3:3: spec.hostnetwork: unknown field (did you mean hostNetwork?)
    "#]],
    );
    check_with(
        Validation::Warn,
        text,
        expect![[r#"
        warning f:4:3: spec.hostNetwork: duplicate field, already set on line 2
        warning f:3:3: spec.hostnetwork: unknown field (did you mean hostNetwork?)
    "#]],
    );
    check_with(Validation::Ignore, text, expect![[""]]);
}

#[test]
fn wrong_types_are_always_errors() {
    let text = "metadata:\n  labels: {a: 1, b: on}\n  name: [x]\nspec:\n  hostNetwork: \"true\"\n  terminationGracePeriodSeconds: \"30\"\n  containers:\n    name: web\n  volumes: x\n  nodeSelector: a=b\n  securityContext: [{runAsUser: 1}]\n  priority: 3000000000\n  dnsConfig: 3\n";
    check_with(
        Validation::Ignore,
        text,
        expect![[r#"
            f:2:15: metadata.labels[a]: expected a string, found the number 1 (quote the value: "1")
            f:2:21: metadata.labels[b]: expected a string, found the boolean true (quote the value: "on")
            f:3:9: metadata.name: expected a string, found a list
            f:5:16: spec.hostNetwork: expected true or false, found the string "true" (write true without quotes)
            f:6:34: spec.terminationGracePeriodSeconds: expected an integer, found the string "30" (write 30 without quotes)
            f:8:5: spec.containers: expected a list, found an object (start each item with "- ")
            f:9:12: spec.volumes: expected a list, found the string "x"
            f:10:17: spec.nodeSelector: expected an object of names and values, found the string "a=b" (write a: b)
            f:11:20: spec.securityContext: expected an object, found a list (leave out the "- ")
            f:12:13: spec.priority: 3000000000 does not fit a 32-bit integer
            f:13:14: spec.dnsConfig: expected an object, found the number 3
            cannot be decoded
        "#]],
    );
    strict(
        "spec:\n  containers:\n  - env:\n    - name: PORT\n      value: 8080\n    - name: MODE\n      value: 0777\n    - name: DEBUG\n      value: yes\n    args: sleep\n    command: [sleep, 1]\n    ports:\n    - containerPort: 80.5\n    - containerPort: \"80\"\n    livenessProbe: {httpGet: {port: 1.5}}\n",
        expect![[r#"
            f:5:14: spec.containers[0].env[0].value: expected a string, found the number 8080 (quote the value: "8080")
            f:7:14: spec.containers[0].env[1].value: expected a string, found the number 511 (quote the value: "0777")
            f:9:14: spec.containers[0].env[2].value: expected a string, found the boolean true (quote the value: "yes")
            f:10:11: spec.containers[0].args: expected a list, found the string "sleep" (write it as a list: [sleep])
            f:11:22: spec.containers[0].command[1]: expected a string, found the number 1 (quote the value: "1")
            f:13:22: spec.containers[0].ports[0].containerPort: expected an integer, found the number 80.5
            f:14:22: spec.containers[0].ports[1].containerPort: expected an integer, found the string "80" (write 80 without quotes)
            f:15:37: spec.containers[0].livenessProbe.httpGet.port: expected an integer or a string, found the number 1.5
            cannot be decoded
        "#]],
    );
}

#[test]
fn quantities() {
    strict(
        "spec:\n  containers:\n  - resources:\n      limits: {cpu: 500M, memory: 512MB, a: 1 Gi, b: 1gib, c: [], d: 1.5, e: true, f: 10mib}\n",
        expect![[r#"
            f:4:35: spec.containers[0].resources.limits[memory]: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$' (did you mean 512M?)
            f:4:45: spec.containers[0].resources.limits[a]: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$' (did you mean 1Gi?)
            f:4:54: spec.containers[0].resources.limits[b]: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$' (did you mean 1Gi?)
            f:4:63: spec.containers[0].resources.limits[c]: expected a quantity such as 500m or 64Mi, found a list
            f:4:78: spec.containers[0].resources.limits[e]: expected a quantity such as 500m or 64Mi, found the boolean true
            f:4:87: spec.containers[0].resources.limits[f]: quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$' (did you mean 10Mi?)
            cannot be decoded
        "#]],
    );
}

#[test]
fn duplicates_name_both_places() {
    strict(
        "metadata:\n  name: a\n  labels: {x: a, y: b, x: c}\n  name: b\nmetadata: {}\n",
        expect![[r#"
            f:5:1: metadata: duplicate field, already set on line 1
        "#]],
    );
    // A key before the merge that sets it again.
    strict(
        "metadata:\n  labels: &l {a: b}\n  annotations:\n    a: c\n    <<: *l\n",
        expect![[r#"
        f:2:15: metadata.annotations[a]: duplicate field, already set on line 4
    "#]],
    );
}

#[test]
fn nulls_are_nothing_or_empty() {
    strict(
        "metadata:\n  creationTimestamp: null\n  labels:\n    app:\nspec:\n  volumes:\n  containers:\n  - command: [a, ~]\n    resources: ~\n  -\n",
        expect![[r#"
            warning f:4:5: metadata.labels[app]: null is read as an empty string
            warning f:8:18: spec.containers[0].command[1]: null is read as an empty string
            warning f:10:4: spec.containers[1]: null is read as an empty object
        "#]],
    );
}

#[test]
fn of_equal_keys_the_last_stays() {
    let text = "metadata:\n  name: a\n  name: b\n";
    let mut root = yaml::read(text).remove(0).root.expect("it parses");
    let source = Source::new("f", text);
    check(&mut root, crate::schema::pod(), &source, Validation::Ignore, &mut Vec::new());
    assert_eq!(root.canonical_json(), r#"{"metadata":{"name":"b"}}"#);
}
