mod page;

use std::collections::BTreeSet;

use expect_test::{Expect, expect};

use super::*;
use crate::schema::{self, Shape};
use crate::yaml;

/// Every field of the schema, as a path of the table.
fn fields(object: &'static schema::Type, path: &str, visit: &mut dyn FnMut(String, Shape)) {
    for field in object.fields() {
        let name = field.name();
        let mut path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let mut shape = field.shape();
        visit(path.clone(), shape);
        while let Shape::List(item) = shape {
            path.push_str("[]");
            shape = item.shape();
        }
        if let Shape::Object(object) = shape {
            fields(object, &path, visit);
        }
    }
}

fn holds_objects(shape: Shape) -> bool {
    match shape {
        Shape::Object(_) => true,
        Shape::List(item) | Shape::Map(item) => holds_objects(item.shape()),
        _ => false,
    }
}

/// The row that holds for a path: its own, or that of the nearest thing above it, or that of the same field of
/// other containers.
fn row(path: &str) -> Option<&'static (&'static str, Decision)> {
    nearest(path).or_else(|| nearest(&shared(path)))
}

fn nearest(path: &str) -> Option<&'static (&'static str, Decision)> {
    DECISIONS
        .iter()
        .filter(|(row, _)| {
            path.strip_prefix(row)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
        })
        .max_by_key(|(row, _)| row.len())
}

/// The path that decides of a path in one of the lists of containers.
fn shared(path: &str) -> String {
    let list = CONTAINERS.iter().find_map(|list| path.strip_prefix(&format!("spec.{list}[]")));
    list.map_or(path.to_owned(), |rest| format!("spec.{}[]{rest}", CONTAINERS[0]))
}

#[test]
fn every_field_is_decided() {
    let mut undecided = Vec::new();
    let mut known = BTreeSet::new();
    let mut leaves = 0;
    fields(schema::pod(), "", &mut |path, shape| {
        known.insert(path.clone());
        let is_leaf = !holds_objects(shape);
        leaves += usize::from(is_leaf);
        match row(&path) {
            None if is_leaf => undecided.push(path),
            // What is below a supported field would be supported without anybody having decided it.
            Some((row, Decision::Supported)) => assert!(is_leaf, "{row} has fields of its own"),
            Some(_) | None => {}
        }
    });
    assert_eq!(undecided, Vec::<String>::new(), "add rows for these fields");
    assert!(leaves > 1000, "the schema has only {leaves} fields");
    for (row, _) in DECISIONS {
        assert!(known.contains(*row), "{row} is no field of a Pod");
    }
}

#[test]
fn rows_are_sorted_and_unique() {
    let rows: Vec<&str> = DECISIONS.iter().map(|(row, _)| *row).collect();
    let mut sorted = rows.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(rows, sorted);
}

#[expect(clippy::needless_pass_by_value, reason = "the expectation is written in the call")]
fn check(spec: &str, expected: Expect) {
    let root = yaml::read(&format!("spec:\n{spec}")).remove(0).root.expect("it parses");
    let found: Vec<String> =
        super::check(&root).iter().map(|it| format!("{}: {}\n", it.field, it.message)).collect();
    expected.assert_eq(&found.concat());
}

#[test]
fn refused_by_name() {
    check(
        "  hostIPC: false\n  hostUsers: false\n  initContainers: [{name: a, volumeDevices: [{name: b}]}]\n  os: {name: windows}\n  containers:\n  - name: a\n    livenessProbe: {exec: {}}\n    env: [{name: a, value: b}, {name: c, valueFrom: {fieldRef: {}}}]\n    envFrom: [{configMapRef: {name: x}}]\n    resources: {limits: {cpu: 1, nvidia.com/gpu: 1}, requests: {ephemeral-storage: 1Gi, hugepages-2Mi: 1}}\n    terminationMessagePath: /log\n    volumeMounts: [{name: a}, {name: b, subPath: c, mountPropagation: HostToContainer}]\n    securityContext: {procMount: Unmasked, seLinuxOptions: {level: a}, appArmorProfile: {type: RuntimeDefault}}\n  volumes:\n  - {name: a, emptyDir: {sizeLimit: 1Gi}}\n  - {name: b, emptyDir: {medium: Memory, sizeLimit: 1Gi}}\n  - {name: c, emptyDir: {medium: Huge}}\n  - {name: d, emptyDir: {medium: HugePages}}\n  - {name: d, emptyDir: {medium: HugePages-2Mi}}\n  - {name: d, projected: {}}\n  - {name: e, nfs: {server: a}}\n",
        expect![[r#"
            spec.containers[0].resources.limits[nvidia.com/gpu]: not supported by this version of mainstay yet
            spec.initContainers[0].volumeDevices: not supported by this version of mainstay yet
            spec.os.name: windows is not supported by this version of mainstay yet
            spec.volumes[2].emptyDir.medium: Huge is not supported by this version of mainstay yet
        "#]],
    );
}

#[test]
fn defaults_and_empty_values_are_no_trouble() {
    check(
        "  hostPID: false\n  hostUsers: true\n  dnsPolicy: Default\n  initContainers: []\n  nodeSelector: {}\n  hostAliases: []\n  os: {name: linux}\n  shareProcessNamespace: false\n  schedulerName: mine\n  affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: a}]}}\n  securityContext: {supplementalGroupsPolicy: Merge}\n  containers: [{name: a, terminationMessagePolicy: File, volumeMounts: [{mountPropagation: None, recursiveReadOnly: Disabled, subPath: ''}], securityContext: {procMount: Default, appArmorProfile: {type: Unconfined}}}]\n",
        expect![[""]],
    );
}
