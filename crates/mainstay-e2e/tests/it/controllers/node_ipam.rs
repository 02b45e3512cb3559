//! Ranges of nodes. The nodes are objects that the test writes.

use serde_json::{Value, json};

use super::cluster::Cluster;

const NODES: &str = "/api/v1/nodes";

/// A node that proposes a range.
fn node(name: &str, range: &str) -> Value {
    let proposal = json!({ "mainstay.dev/proposed-pod-cidr": range });
    json!({ "metadata": { "name": name, "annotations": proposal } })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_two_nodes_get_the_same_range() {
    let cluster = Cluster::new().await;
    let range = |name: &str| {
        let path = format!("{NODES}/{name}");
        let cluster = &cluster;
        async move {
            cluster.until(&path, |node| node.unwrap()["spec"]["podCIDR"].is_string()).await;
            let node = cluster.get(&path).await.unwrap();
            assert_eq!(node["spec"]["podCIDRs"], json!([node["spec"]["podCIDR"]]));
            node["spec"]["podCIDR"].as_str().unwrap().to_owned()
        }
    };
    // All at once, and all want the same.
    for number in 0..5 {
        cluster.create(NODES, node(&format!("n{number}"), "10.201.7.0/24")).await;
    }
    let mut ranges = Vec::new();
    for number in 0..5 {
        ranges.push(range(&format!("n{number}")).await);
    }
    ranges.sort();
    ranges.dedup();
    assert_eq!(ranges.len(), 5, "{ranges:?}");
    assert!(ranges.contains(&"10.201.7.0/24".to_owned()), "{ranges:?}");
    cluster.create(NODES, json!({ "metadata": { "name": "without" } })).await;
    cluster.create(NODES, node("other", "10.1.2.0/25")).await;
    assert_eq!(range("other").await, "10.1.2.0/25");
    // Of both kinds.
    cluster.create(NODES, node("dual", "10.201.7.0/24,fd12:3:4:5::/64")).await;
    cluster.until(&format!("{NODES}/dual"), |it| it.unwrap()["spec"]["podCIDR"].is_string()).await;
    let dual = cluster.get(&format!("{NODES}/dual")).await.unwrap();
    let given = dual["spec"]["podCIDRs"].as_array().unwrap();
    assert_eq!((given.len(), &given[1]), (2, &json!("fd12:3:4:5::/64")));
    assert_eq!(dual["spec"]["podCIDR"], given[0]);
    assert!(!ranges.contains(&given[0].as_str().unwrap().to_owned()));
    let without = cluster.get(&format!("{NODES}/without")).await.unwrap();
    assert!(without["spec"]["podCIDR"].is_null());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_had_is_free_when_it_is_gone() {
    let cluster = Cluster::new().await;
    let path = |name: &str| format!("{NODES}/{name}");
    cluster.create(NODES, node("all", "10.0.0.0/8")).await;
    cluster.until(&path("all"), |it| it.unwrap()["spec"]["podCIDR"].is_string()).await;
    cluster.create(NODES, node("late", "10.0.0.0/8")).await;
    let told = |event: &Value| {
        event["source"]["component"] == "cidrAllocator"
            && event["reason"] == "CIDRNotAvailable"
            && event["message"] == "Node late status is now: CIDRNotAvailable"
    };
    cluster.until_event(told).await;
    cluster.delete(&path("all"), "Background").await;
    cluster.until(&path("late"), |it| it.unwrap()["spec"]["podCIDR"] == "10.0.0.0/8").await;
}
