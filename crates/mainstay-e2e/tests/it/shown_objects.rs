//! ConfigMaps and Secrets beside manifests, as kubectl sees them.

use crate::api::{kubectl, shown, wait_for_event, wait_for_shown};
use crate::node::{Node, wait_for};

fn manifest(value: &str) -> String {
    format!(
        "apiVersion: v1
kind: ConfigMap
metadata: {{name: app, namespace: shop, labels: {{tier: front}}}}
data: {{color: {value}}}
---
apiVersion: v1
kind: Secret
metadata: {{name: db, namespace: shop}}
type: Opaque
stringData: {{password: {value}}}
"
    )
}

/// What the manifest is shown as.
const APP: [&str; 4] = ["configmap", "app.mainstay-n1", "-n", "shop"];
const DB: [&str; 4] = ["secret", "db.mainstay-n1", "-n", "shop"];
const COLOR: &str = "{.data.color}";
const PASSWORD: &str = "{.data.password}";
const NAME: &str = "{.metadata.name}";

#[test]
fn what_lies_beside_manifests_is_shown_and_changed_in_its_file_only() {
    let Some(mut node) = Node::start() else { return };
    node.put("config.yaml", &manifest("red"));
    wait_for_shown(&node, &APP, COLOR, Some("red"));
    // `red`
    wait_for_shown(&node, &DB, PASSWORD, Some("cmVk"));
    let file = node.manifests().join("config.yaml");
    let path = shown(&node, &APP, "{.metadata.annotations.mainstay\\.dev/config\\.path}");
    assert_eq!(path.as_deref(), file.to_str());
    assert_eq!(shown(&node, &APP, "{.metadata.labels.tier}").unwrap(), "front");

    // Whoever wants something else is told where; what somebody deletes is back.
    let patch = ["-p", r#"{"data":{"color":"blue"}}"#];
    let refused = kubectl(&node, &[&["patch"], &APP[..], &patch].concat());
    assert!(!refused.status.success(), "{refused:?}");
    assert!(refused.stderr.contains(&format!("edit {} on node n1", file.display())), "{refused:?}");
    let shown_uid = || shown(&node, &DB, "{.metadata.uid}");
    let uid = shown_uid().unwrap();
    kubectl(&node, &[&["delete", "--wait=false"], &DB[..]].concat()).success();
    let back = wait_for(|| shown_uid().filter(|it| *it != uid));
    assert!(back.is_some(), "{}", node.log());

    node.put("config.yaml", &manifest("green"));
    wait_for_shown(&node, &APP, COLOR, Some("green"));
    // What breaks changes nothing, what is taken away goes, also while no agent looks.
    node.put("config.yaml", &"apiVersion: v1\nkind: ConfigMap\nmetadata: {");
    node.wait_until("the file is read", |status| {
        status.manifests.iter().any(|it| !it.notes.is_empty())
    });
    assert_eq!(shown(&node, &APP, COLOR).as_deref(), Some("green"));
    node.put("config.yaml", &manifest("green"));
    node.put("other.yaml", &manifest("green").replace("name: ", "name: other-"));
    let other = ["secret", "other-db.mainstay-n1", "-n", "shop"];
    wait_for_shown(&node, &other, PASSWORD, Some("Z3JlZW4="));
    node.take("other.yaml");
    wait_for_shown(&node, &other, NAME, None);
    node.terminate();
    node.take("config.yaml");
    node.launch();
    wait_for_shown(&node, &APP, NAME, None);
    wait_for_shown(&node, &DB, NAME, None);
}

#[test]
fn a_name_that_the_api_has_is_left_to_it() {
    let Some(node) = Node::start() else { return };
    let made = wait_for(|| {
        let outcome = kubectl(&node, &["create", "namespace", "shop"]);
        outcome.status.success().then_some(())
    });
    assert!(made.is_some(), "{}", node.log());
    kubectl(&node, &[&["create", "--from-literal=color=theirs"], &APP[..]].concat()).success();
    node.put("config.yaml", &manifest("red"));
    wait_for_shown(&node, &DB, PASSWORD, Some("cmVk"));
    let text = "the API has another ConfigMap shop/app.mainstay-n1";
    wait_for_event(&node, "reason=FailedMirror", text);
    assert_eq!(shown(&node, &APP, COLOR).unwrap(), "theirs");
}
