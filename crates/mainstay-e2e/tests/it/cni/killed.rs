//! Agents that are killed while plugins do something.

use std::fs;

use serde_json::json;

use super::{calls, configure, own, plugins, prepare, unbalanced, wait_for_calls};
use crate::node::{Node, wait_for};

/// A node with two plugins, and no agent yet.
fn chained() -> Option<Node> {
    let node = prepare(&["first", "second"])?;
    configure(&node, &json!([{ "type": "first" }, { "type": "second" }]));
    Some(node)
}

/// Has a plugin stay until it is ended, when it is called for the next time.
fn block(node: &Node, point: &str) {
    fs::write(node.host().join(format!("block-{point}")), "").unwrap();
}

/// Waits until a plugin stays.
fn wait_for_block(node: &Node, point: &str) {
    let gone = || (!node.host().join(format!("block-{point}")).exists()).then_some(());
    assert!(wait_for(gone).is_some(), "{point} is not called: {:?}", calls(node));
}

/// Whether all plugins come to an end that are called for sandboxes.
fn ended(node: &Node) -> bool {
    wait_for(|| (plugins(node, "CNI_CONTAINERID=") == 0).then_some(())).is_some()
}

#[test]
fn what_plugins_were_collecting_when_the_agent_was_killed_is_collected() {
    let Some(mut node) = chained() else { return };
    block(&node, "GC-first");
    node.launch();
    wait_for_block(&node, "GC-first");
    node.kill();
    assert!(plugins(&node, "CNI_COMMAND=GC") > 0);
    node.launch();
    node.put("web.yaml", &own("web"));
    node.wait_for_running("web");
    wait_for_calls(&node, "GC second", 1);
    // By now it has ended also who was only called.
    let ended = || (plugins(&node, "CNI_COMMAND=GC") == 0).then_some(());
    assert!(wait_for(ended).is_some(), "a plugin runs on");
}

#[test]
fn what_plugins_were_adding_when_the_agent_was_killed_is_deleted() {
    let Some(mut node) = chained() else { return };
    node.launch();
    for point in ["ADD-first", "ADD-second"] {
        block(&node, point);
        node.put("web.yaml", &own("web"));
        wait_for_block(&node, point);
        node.kill();
        node.launch();
        node.wait_for_running("web");
        // What is left is the sandbox that there is now; the other one may go after that.
        let deleted = || (unbalanced(&node).len() == 2).then_some(());
        assert!(wait_for(deleted).is_some(), "{point}: {:?}", calls(&node));
        assert!(ended(&node), "{point}: a plugin runs on");
        node.take("web.yaml");
        node.wait_for_gone("web");
        assert_eq!(unbalanced(&node), Vec::<String>::new(), "{point}: {:?}", calls(&node));
    }
}

#[test]
fn what_plugins_were_deleting_when_the_agent_was_killed_is_deleted() {
    let Some(mut node) = chained() else { return };
    node.launch();
    for point in ["DEL-second", "DEL-first"] {
        block(&node, point);
        node.put("web.yaml", &own("web"));
        node.wait_for_running("web");
        node.take("web.yaml");
        wait_for_block(&node, point);
        node.kill();
        node.launch();
        node.wait_for_gone("web");
        assert!(ended(&node), "{point}: a plugin runs on");
        // Also by the one that was not asked to its end.
        let deleted = |name: &str| {
            let asked = format!("DEL {name} ");
            calls(&node).iter().filter(|call| call.starts_with(&asked)).count()
        };
        let expected = if point == "DEL-first" { (2, 2) } else { (2, 1) };
        assert_eq!((deleted("second"), deleted("first")), expected, "{:?}", calls(&node));
        fs::remove_file(node.host().join("calls")).unwrap();
    }
}

#[test]
fn what_plugins_gave_is_taken_back_after_the_machine_lost_its_power() {
    let Some(mut node) = chained() else { return };
    node.launch();
    node.put("web.yaml", &own("web"));
    node.wait_for_running("web");
    let id = wait_for_calls(&node, "ADD second", 1);
    node.cut_power();
    node.launch();
    node.wait_for_running("web");
    // The network namespace is gone, and so is what was in it.
    for plugin in ["second", "first"] {
        let call = format!("DEL {plugin} {id}");
        wait_for_calls(&node, &call, 1);
        assert!(calls(&node).contains(&call), "{:?}", calls(&node));
    }
}

#[test]
fn a_sandbox_whose_shim_was_killed_is_deleted_in_its_network_namespace() {
    let Some(mut node) = prepare(&["first"]) else { return };
    configure(&node, &json!([{ "type": "first" }]));
    node.launch();
    node.put("web.yaml", &own("web"));
    for (agent, added) in [(true, 1), (false, 2)] {
        let id = wait_for_calls(&node, "ADD first", added);
        node.wait_for_running("web");
        if !agent {
            node.kill();
        }
        node.kill_shims();
        if !agent {
            node.launch();
        }
        wait_for_calls(&node, &format!("DEL first {id} there"), 1);
    }
}
