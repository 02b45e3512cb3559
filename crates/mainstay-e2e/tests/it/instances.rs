//! Several instances on one machine.

use std::fs;

use crate::http;
use crate::manifest::pod;
use crate::node::Node;

/// Two pods of the same names everywhere, one on the host's network.
fn put(node: &Node, port: u16) {
    node.put("host.yaml", &pod("host"));
    let web = pod("web").exactly("echo page > index.html; exec httpd -f -p 80");
    let web = web.main("workingDir", "/srv").set("spec.hostNetwork", false);
    let web = web.set("spec.terminationGracePeriodSeconds", 0);
    let ports = serde_json::json!([{ "containerPort": 80, "hostPort": port }]);
    node.put("web.yaml", &web.main("ports", ports));
}

#[test]
fn instances_do_not_touch_each_other_and_one_goes_without_a_trace() {
    let (Some(going), Some(staying)) = (Node::start(), Node::start()) else { return };
    let (other_port, port) = (http::free_port(), http::free_port());
    put(&going, other_port);
    put(&staying, port);
    let before = ["host", "web"].map(|name| staying.wait_for_running(name));
    for name in ["host", "web"] {
        let pod = going.wait_for_running(name);
        assert_ne!(pod.id(), staying.status().pod(name).unwrap().id());
    }
    assert_ne!(going.names().table, staying.names().table);
    let answers = |port: u16| {
        let address = ([127, 0, 0, 1], port).into();
        http::get(address).is_ok_and(|answer| answer.contains("page"))
    };
    crate::node::wait_for(|| (answers(port) && answers(other_port)).then_some(())).unwrap();

    // All of one is taken away, which is verified there.
    drop(going);
    assert!(!answers(other_port));
    assert!(answers(port));
    let status = staying.status();
    assert_eq!(status.pods.len(), 2);
    for before in before {
        let name = before.name.strip_suffix("-n1").unwrap();
        let after = status.pod(name).unwrap();
        assert_eq!((after.id(), after.restarts, after.runs()), (before.id(), 0, true));
    }
    staying.mainstay(&["exec", "web", "--", "wget", "-qO-", "127.0.0.1"]).success();
    // It still watches.
    staying.put("new.yaml", &pod("new"));
    staying.wait_for_running("new");
    staying.take("web.yaml");
    staying.wait_for_gone("web");
}

#[test]
fn an_instance_has_one_agent_at_a_time() {
    let Some(node) = Node::start() else { return };
    node.put("web.yaml", &pod("web"));
    let before = node.wait_for_running("web");
    let refused = node.mainstay(&["run", "--hostname-override=n2"]).failure(1);
    assert!(refused.contains(node.path("root").to_str().unwrap()), "{refused}");
    assert_eq!(node.status().pod("web").unwrap().id(), before.id());
}

#[test]
fn down_finds_logs_where_the_node_put_them_and_leaves_what_is_not_mainstays() {
    let Some(mut node) = Node::prepare() else { return };
    let logs = node.path("elsewhere");
    node.configure(&format!("podLogsDir: {}", logs.display()));
    node.launch();
    node.put("web.yaml", &pod("web").exactly("echo done").set("spec.restartPolicy", "Never"));
    node.wait_for_state("web", "Completed");
    // Nothing of it is left but its log, or nobody who knows more of it.
    node.cut_power();
    assert_eq!(node.mainstay(&["logs", "web"]).success(), "done\n");
    node.begin_runtime();
    fs::create_dir(logs.join("default_etcd-n1_1")).unwrap();
    fs::write(node.path("root/photo"), "").unwrap();
    let left = node.mainstay(&["down", "--purge"]).failure(1);
    assert!(left.contains("has what is not mainstay's: photo;"), "{left}");
    let kept: Vec<_> = fs::read_dir(&logs).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(kept, ["default_etcd-n1_1"]);
    fs::remove_file(node.path("root/photo")).unwrap();
    node.mainstay(&["down", "--purge"]).success();
    assert!(!node.path("root").exists());
}
