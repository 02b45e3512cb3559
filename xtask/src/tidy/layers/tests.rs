use expect_test::{Expect, expect};

use super::super::testing::{file, lines};
use super::*;

const TABLE: &str = "\
| layer | crate | purpose | may depend on | must not contain |
| --- | --- | --- | --- | --- |
| 0 | `mainstay-pod` | Pods. | none | `tokio`, clocks |
| 1 | `mainstay-plan` | Plans. | pod (all of it, really), cri | |
| 1 | `mainstay-cri` | Contract. | none | |
| 4 | `mainstay` | The binary. | all | |
| dev | `mainstay-testkit` | Tests. | pod | |
";

fn named(name: &str, layer: Layer) -> Crate {
    Crate {
        name: name.into(),
        manifest: format!("crates/{name}/Cargo.toml"),
        layer: Some(layer),
        built_from: BTreeSet::new(),
        tested_with: BTreeSet::new(),
        foreign: BTreeSet::new(),
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Crates that agree with the table.
fn good() -> Vec<Crate> {
    let plan = named("mainstay-plan", Layer::Product(1));
    vec![
        named("mainstay-pod", Layer::Product(0)),
        Crate { built_from: set(&["mainstay-pod"]), ..plan },
        named("mainstay-cri", Layer::Product(1)),
        Crate { built_from: set(&["mainstay-plan"]), ..named("mainstay", Layer::Product(4)) },
        Crate { built_from: set(&["mainstay-pod"]), ..named(FOR_TESTS, Layer::Dev) },
    ]
}

fn check(change: impl FnOnce(&mut Vec<Crate>), expected: &Expect) {
    let mut crates = good();
    change(&mut crates);
    let findings = super::check(&[file(ARCHITECTURE, TABLE)], &crates);
    expected.assert_eq(&lines(findings));
}

#[test]
fn edges() {
    check(|_| {}, &expect![""]);
    check(
        |it| it[0].built_from = set(&["mainstay-plan"]),
        &expect![[r#"
        crates/mainstay-pod/Cargo.toml: depends on mainstay-plan, which ARCHITECTURE.md does not allow
    "#]],
    );
    check(
        |it| it[1].built_from = set(&["mainstay-cri"]),
        &expect![[r#"
        crates/mainstay-plan/Cargo.toml: of layer 1 depends on mainstay-cri of layer 1, not a lower one
    "#]],
    );
    check(
        |it| it[3].built_from = set(&["mainstay-testkit"]),
        &expect![[r#"
        crates/mainstay/Cargo.toml: of layer 4 depends on mainstay-testkit of layer dev, not a lower one
    "#]],
    );
    check(
        |it| it[4].built_from = set(&["mainstay"]),
        &expect![[r#"
        crates/mainstay-testkit/Cargo.toml: depends on mainstay, which ARCHITECTURE.md does not allow
    "#]],
    );
}

#[test]
fn tests_may_use_the_testkit() {
    check(|it| it[0].tested_with = set(&["mainstay-testkit"]), &expect![""]);
    check(
        |it| it[0].tested_with = set(&["mainstay-plan"]),
        &expect![[r#"
        crates/mainstay-pod/Cargo.toml: has tests that depend on mainstay-plan, which ARCHITECTURE.md does not allow
    "#]],
    );
}

#[test]
fn forbidden_packages() {
    check(
        |it| it[0].foreign = set(&["serde", "tokio"]),
        &expect![[r#"
        crates/mainstay-pod/Cargo.toml: must not contain tokio; `cargo tree -p mainstay-pod -i tokio`
    "#]],
    );
    check(|it| it[1].foreign = set(&["tokio"]), &expect![""]);
}

#[test]
fn the_table_and_the_crates() {
    check(
        |it| it[0].layer = None,
        &expect![[r#"
        crates/mainstay-pod/Cargo.toml: says no layer: [package.metadata.mainstay] layer = N, or "dev"
    "#]],
    );
    check(
        |it| it[0].layer = Some(Layer::Dev),
        &expect![[r#"
        crates/mainstay-pod/Cargo.toml: says layer dev, ARCHITECTURE.md says 0
        crates/mainstay-plan/Cargo.toml: of layer 1 depends on mainstay-pod of layer dev, not a lower one
    "#]],
    );
    check(
        |it| it[2].name = "mainstay-new".into(),
        &expect![[r#"
        ARCHITECTURE.md:5: there is no crate mainstay-cri
        ARCHITECTURE.md: the table of crates lacks mainstay-new
    "#]],
    );
    let none = super::check(&[], &good());
    expect![[r#"
        ARCHITECTURE.md: is missing; its table says which crate may depend on which
    "#]]
    .assert_eq(&lines(none));
    let other = super::check(&[file(ARCHITECTURE, "| a |\n")], &good());
    expect![[r#"
        ARCHITECTURE.md: has no table with the columns | layer | crate | purpose | may depend on | must not contain |
    "#]].assert_eq(&lines(other));
}
