use k8s_openapi::api::core::v1::NodeSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use mainstay_pod::identity::PROPOSED_POD_CIDR_ANNOTATION;

use super::*;

/// A node that proposes ranges and has some; nothing where they are empty.
fn node(name: &str, proposes: &str, has: &str) -> Arc<Node> {
    let proposal = (!proposes.is_empty())
        .then(|| (PROPOSED_POD_CIDR_ANNOTATION.to_owned(), proposes.to_owned()));
    let has = (!has.is_empty()).then(|| has.to_owned());
    Arc::new(Node {
        metadata: ObjectMeta {
            name: Some(name.into()),
            annotations: proposal.map(|it| [it].into()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: has.as_ref().and_then(|it| it.split(',').next()).map(str::to_owned),
            pod_cidrs: has.map(|it| it.split(',').map(str::to_owned).collect()),
            ..NodeSpec::default()
        }),
        status: None,
    })
}

#[test]
fn a_node_gets_what_it_proposes_if_nobody_has_it() {
    let (first, second) = ("10.201.0.0/24", "10.201.1.0/24");
    for (node_proposes, has, others, expected) in [
        ("", "", vec![], None),
        ("", "10.1.0.0/24", vec![], None),
        (first, second, vec![], None),
        (first, "", vec![], Some(first)),
        ("10.9.8.0/24", "", vec![("", first)], Some("10.9.8.0/24")),
        // What is no range is no proposal.
        ("10.201.0.1/24", "", vec![], None),
        ("10.201.0.0/30", "", vec![], None),
        ("0.0.0.0/0", "", vec![], None),
        ("fd00::/121", "", vec![], None),
        ("10.201.0.0/24,fd00::", "", vec![], None),
        ("10.201.0.0/24,10.202.0.0/24", "", vec![], None),
        ("10.201.0.0", "", vec![], None),
        // Another one has it, or a part of it, or more.
        (first, "", vec![("", first)], Some(second)),
        (first, "", vec![("", "10.201.0.128/25")], Some(second)),
        (first, "", vec![("", "10.201.0.0/23")], Some("10.201.2.0/24")),
        ("10.201.0.0/25", "", vec![("", first)], Some("10.201.1.0/25")),
        ("10.9.8.0/24", "", vec![("", "10.0.0.0/8")], Some("172.30.0.0/24")),
        (first, "", vec![("", first), (second, "")], Some("10.201.2.0/24")),
        // He who is late gets nothing of what he proposes.
        (first, "", vec![(first, "")], Some(first)),
        (
            first,
            "",
            vec![("", "10.0.0.0/8"), ("", "172.16.0.0/12"), ("", "192.168.0.0/16")],
            Some("198.18.0.0/24"),
        ),
        (first, "", vec![("", "0.0.0.0/0")], Some("")),
        ("10.0.0.0/8", "", vec![("", first)], Some("")),
        // Of the other kind, and of both.
        (first, "", vec![("", "fd00::/64")], Some(first)),
        ("fd00:7::/64", "", vec![("", "0.0.0.0/0")], Some("fd00:7::/64")),
        ("fd00:7::/64", "", vec![("", "fd00:7::/64")], Some("fd00:7:0:1::/64")),
        ("fd00:7::/64", "", vec![("", "fd00:7::/48")], Some("")),
        ("fd00:7::/64,10.9.8.0/24", "", vec![], Some("fd00:7::/64,10.9.8.0/24")),
        (
            "10.201.0.0/24,fd00:7::/64",
            "",
            vec![("", "10.201.0.0/24,fd00:7::/64"), ("fd00:7:0:1::/64", "")],
            Some("10.201.1.0/24,fd00:7:0:2::/64"),
        ),
        ("10.201.0.0/24,fd00:7::/64", "", vec![("", "0.0.0.0/0")], Some("")),
        // What is not understood stands in nobody's way.
        (first, "", vec![("", "a range")], Some(first)),
    ] {
        let asks = node("n", node_proposes, has);
        let others = others.iter().enumerate();
        let others =
            others.map(|(number, (proposes, has))| node(&format!("other-{number}"), proposes, has));
        let all: Vec<Arc<Node>> = others.chain([asks.clone()]).collect();
        let expected = match expected {
            None => Assignment::None,
            Some("") => Assignment::Full,
            Some(ranges) => Assignment::Ranges(ranges.split(',').map(str::to_owned).collect()),
        };
        assert_eq!(decide(&asks, &all), expected, "{node_proposes} {has} {all:?}");
    }
}

#[test]
fn no_two_nodes_have_an_address_in_common() {
    let mut nodes: Vec<Arc<Node>> = Vec::new();
    let mut given = std::collections::BTreeSet::new();
    for number in 0..600 {
        let name = format!("n{number}");
        let proposes = format!("10.201.{}.0/24", number % 7);
        let asks = node(&name, &proposes, "");
        match decide(&asks, &nodes) {
            Assignment::Ranges(ranges) => {
                let ranges = ranges.join(",");
                assert!(given.insert(ranges.clone()));
                nodes.push(node(&name, &proposes, &ranges));
            }
            other => panic!("{number}: {other:?}"),
        }
    }
}
