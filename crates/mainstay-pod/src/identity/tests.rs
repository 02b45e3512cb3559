use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::{json, yaml};

fn tree(text: &str) -> Node {
    let mut documents = if json::is_json(text) { json::read(text) } else { yaml::read(text) };
    documents.remove(0).root.expect("it parses")
}

const WEB: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - {name: web, image: 'nginx:1.27'}\n";

/// These values are promises: a change of any of them restarts every pod of every user at an upgrade.
#[test]
fn hashes_are_pinned_for_ever() {
    let hash = content_hash(&tree(WEB));
    expect![[r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"image":"nginx:1.27","name":"web"}]}}"#]].assert_eq(&tree(WEB).canonical_json());
    expect!["29d2d8ef0f866d3a77ab9f8dc16e926c"].assert_eq(&hash);
    expect!["c6d26780e038c9dcf6e7ce83add16b07"].assert_eq(&uid(
        SourceKind::File,
        "default",
        "web",
        &hash,
    ));
    expect!["f3a3e859ecfe7a6c3dc5a545d74191a1"].assert_eq(&uid(
        SourceKind::Http,
        "default",
        "web",
        &hash,
    ));
    expect!["8f96047f2e061edfbdd862592ae1dd64"].assert_eq(&uid(
        SourceKind::File,
        "other",
        "web",
        &hash,
    ));
    let odd = tree(r#"{"b": "é\n\"\u0001", "a": [1.50, true, null, {"z": null, "y": {}}]}"#);
    expect![[r#"{"a":[1.50,true,null,{"y":{}}],"b":"é\n\"\u0001"}"#]]
        .assert_eq(&odd.canonical_json());
    expect!["2309a9eb7449be6e4167021d96fde315"].assert_eq(&content_hash(&odd));
}

#[test]
fn what_means_the_same_has_the_same_hash() {
    let hash = content_hash(&tree(WEB));
    let same = [
        "# a comment\nkind: Pod\napiVersion: \"v1\"\nspec:\n    containers:\n        - image: nginx:1.27\n          name: web\nmetadata:\n    name: web\n",
        r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [{"image": "nginx:1.27", "name": "web"}]}}"#,
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web, labels: ~, namespace: ''}\nspec: {containers: [{name: &n web, image: 'nginx:1.27', args: null}]}",
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: default}\nspec: {containers: [{name: web, image: 'nginx:1.27'}]}",
    ];
    for text in same {
        assert_eq!(content_hash(&tree(text)), hash, "{text}");
    }
    let other = [
        WEB.replace("1.27", "1.28"),
        WEB.replace("name: web}", "name: web, labels: {a: b}}"),
        WEB.replace("name: web}", "name: web, namespace: other}"),
        WEB.replace("image:", "args: [], image:"),
    ];
    for text in other {
        assert_ne!(content_hash(&tree(&text)), hash, "{text}");
    }
}

#[test]
fn a_static_pod() {
    let mut pod: Pod = serde_json::from_value(tree(WEB).to_json()).expect("it fits");
    let node = NodeName::new("Node-1").expect("a name");
    let facts = Facts {
        source: SourceKind::Http,
        node: &node,
        path: "/etc/web.yaml",
        seen: "2026-01-02T03:04:05.000000006Z",
        content_hash: "abc",
    };
    apply(&mut pod, &facts);
    expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "Pod",
          "metadata": {
            "annotations": {
              "kubernetes.io/config.hash": "c428dbddfaa09980472a554f09baabfd",
              "kubernetes.io/config.seen": "2026-01-02T03:04:05.000000006Z",
              "kubernetes.io/config.source": "http",
              "mainstay.dev/config.path": "/etc/web.yaml"
            },
            "name": "web-node-1",
            "namespace": "default",
            "uid": "c428dbddfaa09980472a554f09baabfd"
          },
          "spec": {
            "containers": [
              {
                "image": "nginx:1.27",
                "name": "web"
              }
            ],
            "nodeName": "node-1",
            "tolerations": [
              {
                "effect": "NoExecute",
                "operator": "Exists"
              }
            ]
          },
          "status": {
            "phase": "Pending"
          }
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&pod).expect("it is JSON"));
}

#[test]
fn the_toleration_is_there_once() {
    let toleration = |operator: &str, effect: &str, key: &str| Toleration {
        operator: Some(operator.to_owned()),
        effect: Some(effect.to_owned()),
        key: (!key.is_empty()).then(|| key.to_owned()),
        ..Default::default()
    };
    let all = toleration("Exists", "NoExecute", "");
    let mut tolerations = vec![
        Toleration { toleration_seconds: Some(3), ..all.clone() },
        toleration("Exists", "NoExecute", "mine"),
    ];
    tolerate_no_execute(&mut tolerations);
    assert_eq!(tolerations, [all.clone(), toleration("Exists", "NoExecute", "mine")]);
    let mut tolerations = vec![toleration("Exists", "NoSchedule", "")];
    tolerate_no_execute(&mut tolerations);
    assert_eq!(tolerations, [toleration("Exists", "NoSchedule", ""), all]);
}

#[test]
fn node_names() {
    assert_eq!(NodeName::new(" Host.Example ").expect("a name").as_str(), "host.example");
    expect![[r#""my_host" cannot be a node's name: a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*'); choose another with --hostname-override"#]].assert_eq(&NodeName::new("my_host").expect_err("an underscore").to_string());
    assert!(NodeName::new("").is_err());
    assert!(NodeName::new(&"a".repeat(254)).is_err());
}

#[test]
fn long_names() {
    let node = NodeName::new("node").expect("a name");
    assert!(!is_too_long(&"a".repeat(248), &node));
    assert!(is_too_long(&"a".repeat(249), &node));
    // Too long without the node's name already, which is reported by itself.
    assert!(!is_too_long(&"a".repeat(254), &node));
}

proptest! {
    /// Neither the order of keys nor that of hashing what is equal matters.
    #[test]
    fn the_order_of_keys_does_not_matter(
        mut pairs in prop::collection::btree_map("[a-z]{1,8}", "[ -~]{0,12}", 0..8)
            .prop_map(|map| map.into_iter().collect::<Vec<_>>())
            .prop_shuffle()
    ) {
        let text = |pairs: &[(String, String)]| {
            let fields: Vec<String> = pairs
                .iter()
                .map(|(key, value)| format!("{}: {}", serde_json::json!(key), serde_json::json!(value)))
                .collect();
            format!("{{{}}}", fields.join(", "))
        };
        let shuffled = content_hash(&tree(&text(&pairs)));
        pairs.sort();
        prop_assert_eq!(shuffled, content_hash(&tree(&text(&pairs))));
    }
}
