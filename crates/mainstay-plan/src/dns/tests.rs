use std::sync::Arc;

use expect_test::{Expect, expect};

use super::*;

fn pod(spec: &str) -> Arc<Pod> {
    mainstay_testkit::pods::pod(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web, namespace: ns}}\n\
         spec: {{containers: [{{name: c, image: i}}]{spec}}}"
    ))
}

fn cluster() -> ClusterDns {
    ClusterDns { servers: vec![[10, 96, 0, 10].into()], domain: "cluster.local".into() }
}

const HOST: &str = "nameserver 192.0.2.1\nsearch example.org\noptions ndots:2 edns0\n";

/// The settings, a line each, and what was left out.
fn text(dns: &PodDns) -> String {
    let DnsConfig { servers, searches, options } = &dns.config;
    let lists = [("nameservers", servers), ("search", searches), ("options", options)];
    let lines = lists.map(|(name, list)| format!("{name}: {}\n", list.join(" ")));
    lines.concat() + &dns.omitted.iter().map(|text| format!("{text}\n")).collect::<String>()
}

#[track_caller]
fn check(spec: &str, cluster: &ClusterDns, expected: &Expect) {
    expected.assert_eq(&text(&of_pod(&pod(spec), parse(HOST), cluster)));
}

#[test]
fn what_resolvers_read_is_read() {
    let text = "# comment\nnameserver 192.0.2.1\nnameserver ::1 # here\nsearch a.b c\n\
                options ndots:2 edns0\nsearch d. .\nsortlist 1.2.3.4\noptions ndots:3 rotate\n";
    let dns = parse(text);
    assert_eq!(dns.servers, ["192.0.2.1", "::1"]);
    assert_eq!(dns.searches, ["d"]);
    assert_eq!(dns.options, ["ndots:3", "edns0", "rotate"]);
}

#[test]
fn the_policy_says_whose_settings_a_pod_starts_from() {
    let host = expect![[r#"
        nameservers: 192.0.2.1
        search: example.org
        options: ndots:2 edns0
    "#]];
    let of_cluster = expect![[r#"
        nameservers: 10.96.0.10
        search: ns.svc.cluster.local svc.cluster.local cluster.local example.org
        options: ndots:5
    "#]];
    // Where there is no cluster, all have the host's.
    let none = ClusterDns::default();
    for policy in ["", "ClusterFirst", "ClusterFirstWithHostNet", "Default"] {
        let field =
            if policy.is_empty() { String::new() } else { format!(", dnsPolicy: {policy}") };
        check(&field, &none, &host);
        let expected = if policy == "Default" { &host } else { &of_cluster };
        check(&field, &cluster(), expected);
        // On the host's network a pod has to ask for it.
        let on_host = format!("{field}, hostNetwork: true");
        let expected = if policy == "ClusterFirstWithHostNet" { &of_cluster } else { &host };
        check(&on_host, &cluster(), expected);
    }
    check(
        ", dnsPolicy: None, dnsConfig: {nameservers: [192.0.2.9]}",
        &cluster(),
        &expect![[r#"
            nameservers: 192.0.2.9
            search: 
            options: 
        "#]],
    );
}

#[test]
fn a_pod_is_called_as_its_manifest_and_as_the_api_say() {
    for (spec, node, expected) in [
        ("", "n1", "web.ns.svc web-n1.ns.svc"),
        // What made it had another name; so did whoever has this one now.
        ("", "n2", "web-n1.ns.svc"),
        (", hostname: db", "n1", "web.ns.svc web-n1.ns.svc"),
        (
            ", hostname: db, subdomain: sub",
            "n1",
            "web.ns.svc web-n1.ns.svc db.sub.ns.svc sub.ns.svc",
        ),
        (", subdomain: sub", "n1", "web.ns.svc web-n1.ns.svc web-n1.sub.ns.svc sub.ns.svc"),
        // A subdomain of its own name is one name more, and not two of the same.
        (", hostname: a, subdomain: web", "n1", "web.ns.svc web-n1.ns.svc a.web.ns.svc"),
    ] {
        assert_eq!(names(&pod(spec), node).join(" "), expected, "{spec} {node}");
    }
}

#[test]
fn a_pods_own_settings_are_added() {
    check(
        ", dnsConfig: {nameservers: [192.0.2.9, 192.0.2.1], searches: [example.org, b.c], \
         options: [{name: ndots, value: '7'}, {name: edns0, value: ''}, {name: rotate}]}",
        &ClusterDns::default(),
        &expect![[r#"
            nameservers: 192.0.2.1 192.0.2.9
            search: example.org b.c
            options: ndots:7 edns0 rotate
        "#]],
    );
}

#[test]
fn more_than_resolvers_take_is_left_out_and_told() {
    check(
        ", dnsConfig: {nameservers: [192.0.2.2, 192.0.2.3, 192.0.2.4]}",
        &ClusterDns::default(),
        &expect![[r#"
            nameservers: 192.0.2.1 192.0.2.2 192.0.2.3
            search: example.org
            options: ndots:2 edns0
            Nameserver limits were exceeded, some nameservers have been omitted, the applied nameserver line is: 192.0.2.1 192.0.2.2 192.0.2.3
        "#]],
    );
    let fitted = |searches: Vec<String>| {
        let config = DnsConfig { searches, ..DnsConfig::default() };
        let PodDns { config, omitted } = fit(config);
        (config.searches.len(), omitted.len())
    };
    let some = |count: usize, length: usize| vec!["a".repeat(length); count];
    assert_eq!(fitted(some(32, 10)), (32, 0));
    assert_eq!(fitted(some(33, 10)), (32, 1));
    assert_eq!(fitted(some(1, 253)), (1, 0));
    assert_eq!(fitted(some(1, 254)), (0, 1));
    // 8 × 253 and the spaces between are 2031.
    assert_eq!(fitted(some(8, 253)), (8, 0));
    assert_eq!(fitted(some(9, 253)), (8, 1));
    assert_eq!(fitted([some(8, 253), some(1, 16)].concat()), (9, 0));
    assert_eq!(fitted([some(8, 253), some(1, 17)].concat()), (8, 1));
}
