use std::collections::BTreeMap;

use serde_json::json;

use super::super::config::{Form, NetworkConfigList};
use super::*;

/// The network of the specification's examples, in a version.
fn network(version: &str, more: &Value) -> CniNetwork {
    let mut list = json!({
        "cniVersion": version, "name": "dbnet",
        "plugins": [
            {
                "type": "bridge", "keyA": ["some more"], "prevResult": {}, "cni.dev/a": 1,
                "ipam": { "type": "host-local" },
            },
            { "type": "tuning", "capabilities": { "mac": true, "portMappings": false } },
            { "type": "portmap", "capabilities": { "portMappings": true } },
        ],
    });
    let fields = list.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    let list = NetworkConfigList::parse(list.to_string().as_bytes(), Form::List).unwrap();
    let version = list.versions[0];
    CniNetwork::new("/n/a.conflist".into(), list, version, vec!["/a".into(), "/b".into()])
}

fn attachment(version: &str, more: &Value) -> Attachment {
    let args = [("IgnoreUnknown", "1"), ("K8S_POD_NAME", "web")];
    let args = args.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let wanted = json!({
        "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }],
        "mac": "00:11:22:33:44:66", "dns": {},
    });
    let wanted = wanted.as_object().unwrap().clone();
    Attachment::new("ab12".into(), "/x/netns/ab12".into(), network(version, more), args, wanted)
}

fn input(request: &Request) -> Value {
    serde_json::from_slice(&request.input).unwrap()
}

fn told(request: &Request) -> BTreeMap<&str, &str> {
    request.environment.iter().map(|(name, value)| (*name, value.as_str())).collect()
}

#[test]
fn a_sandbox_is_added_by_one_plugin_after_the_other() {
    let attachment = attachment("1.0.0", &json!({}));
    let plugins = &attachment.network.plugins;
    let first = attachment.add(&plugins[0], None);
    assert_eq!(
        input(&first),
        json!({
            "cniVersion": "1.0.0", "name": "dbnet", "type": "bridge", "keyA": ["some more"],
            "ipam": { "type": "host-local" },
        })
    );
    assert_eq!(
        told(&first),
        BTreeMap::from([
            ("CNI_COMMAND", "ADD"),
            ("CNI_CONTAINERID", "ab12"),
            ("CNI_NETNS", "/x/netns/ab12"),
            ("CNI_IFNAME", "eth0"),
            ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=web"),
            ("CNI_PATH", "/a:/b"),
        ])
    );
    let before = json!({ "ips": [] });
    assert_eq!(
        input(&attachment.add(&plugins[1], Some(&before))),
        json!({
            "cniVersion": "1.0.0", "name": "dbnet", "type": "tuning", "prevResult": before,
            "runtimeConfig": { "mac": "00:11:22:33:44:66" },
        })
    );
    let third = input(&attachment.add(&plugins[2], Some(&before)));
    assert_eq!(
        third["runtimeConfig"],
        json!({
            "portMappings": [{ "hostPort": 8080, "containerPort": 80, "protocol": "tcp" }]
        })
    );
}

#[test]
fn it_is_deleted_in_the_other_order_with_what_the_last_one_answered() {
    let order = |requests: &[Request]| -> Vec<String> {
        requests.iter().map(|request| request.plugin.clone()).collect()
    };
    let result = json!({ "ips": [{ "address": "10.1.0.5/16" }] });
    for (version, answered, present, told_result) in [
        ("1.0.0", true, true, true),
        ("0.4.0", true, false, true),
        // It came with version 0.4.0.
        ("0.3.1", true, true, false),
        // The agent was killed before there was one.
        ("1.1.0", false, true, false),
    ] {
        let mut attachment = attachment(version, &json!({}));
        attachment.result = answered.then(|| result.clone());
        let requests = attachment.del(present);
        assert_eq!(order(&requests), ["portmap", "tuning", "bridge"]);
        for request in &requests {
            let expected = told_result.then_some(&result);
            assert_eq!(input(request).get("prevResult"), expected, "{version}");
            let netns = if present { "/x/netns/ab12" } else { "" };
            assert_eq!(told(request)["CNI_NETNS"], netns);
            assert_eq!(told(request)["CNI_COMMAND"], "DEL");
        }
        assert_eq!(input(&requests[0])["runtimeConfig"].as_object().unwrap().len(), 1);
    }
}

#[test]
fn plugins_are_asked_to_check_status_and_collect_only_where_they_know_it() {
    for (version, more, checks, status, collects) in [
        ("0.3.1", json!({}), 0, 0, 0),
        ("0.4.0", json!({}), 3, 0, 0),
        ("1.0.0", json!({ "disableCheck": true }), 0, 0, 0),
        ("1.1.0", json!({}), 3, 3, 3),
        ("1.1.0", json!({ "disableGC": true }), 3, 3, 0),
    ] {
        let mut attachment = attachment(version, &more);
        assert_eq!(attachment.check().len(), 0, "a result is needed");
        attachment.result = Some(json!({ "ips": [] }));
        let network = &attachment.network;
        let valid = [("ab12".to_owned(), "eth0".to_owned())];
        let counts = (attachment.check().len(), network.status().len(), network.gc(&valid).len());
        assert_eq!(counts, (checks, status, collects), "{version} {more}");
    }
    let mut attachment = attachment("1.1.0", &json!({}));
    attachment.result = Some(json!({ "ips": [] }));
    let check = &attachment.check()[0];
    assert_eq!(input(check)["prevResult"], json!({ "ips": [] }));
    assert_eq!((check.plugin.as_str(), told(check)["CNI_COMMAND"]), ("bridge", "CHECK"));
    let network = &attachment.network;
    let status = &network.status()[2];
    assert_eq!(told(status), BTreeMap::from([("CNI_COMMAND", "STATUS"), ("CNI_PATH", "/a:/b")]));
    assert_eq!(input(status)["cniVersion"], "1.1.0");
    let collect = &network.gc(&[("ab12".into(), "eth0".into())])[0];
    assert_eq!(
        input(collect)["cni.dev/valid-attachments"],
        json!([{ "containerID": "ab12", "ifname": "eth0" }])
    );
    assert_eq!(input(collect).get("cni.dev/a"), None);
    let version = network.version(&network.plugins[0]);
    assert_eq!(input(&version), json!({ "cniVersion": "1.1.0" }));
    assert_eq!(told(&version)["CNI_COMMAND"], "VERSION");
}
