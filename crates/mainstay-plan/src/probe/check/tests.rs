use serde_json::{Value, json};

use super::*;

fn container() -> Container {
    serde_json::from_value(json!({
        "name": "a", "image": "i",
        "ports": [{"name": "http", "containerPort": 8080}, {"containerPort": 9}],
        "env": [
            {"name": "A", "value": "1"}, {"name": "A", "value": "2"},
            {"name": "F", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
    }))
    .unwrap()
}

fn ask(probe: Value) -> Result<Check, String> {
    check(&serde_json::from_value(probe).unwrap(), &container(), "10.0.0.2")
}

#[test]
fn ports_have_numbers_or_names() {
    for (port, expected) in [
        (json!(80), Ok(80)),
        (json!("http"), Ok(8080)),
        (json!("81"), Ok(81)),
        (json!("web"), Err("strconv.Atoi: parsing \"web\": invalid syntax")),
        (json!(0), Err("invalid port number: 0")),
        (json!("70000"), Err("invalid port number: 70000")),
    ] {
        let expected = expected.map_err(str::to_owned);
        let tcp = ask(json!({"tcpSocket": {"port": port}}));
        let expected = expected.map(|port| Check::Tcp { host: "10.0.0.2".into(), port });
        assert_eq!(tcp, expected, "{port}");
    }
    let elsewhere = ask(json!({"tcpSocket": {"port": 1, "host": "[::1]"}}));
    assert_eq!(elsewhere, Ok(Check::Tcp { host: "::1".into(), port: 1 }));
    let grpc = ask(json!({"grpc": {"port": 2, "service": "s"}}));
    let expected = Check::Grpc { host: "10.0.0.2".into(), port: 2, service: "s".into() };
    assert_eq!(grpc, Ok(expected));
    assert!(ask(json!({})).is_err());
}

#[test]
fn commands_know_what_the_manifest_says() {
    let exec = ask(json!({"exec": {"command": ["x", "$(A)$(F)$(B)", "$$(A)"]}}));
    let command = ["x", "2$(B)", "$(A)"].map(str::to_owned).into();
    assert_eq!(exec, Ok(Check::Exec { command }));
}

#[test]
fn a_request_has_the_headers_that_a_kubelets_has() {
    let headers = |headers: Value| {
        let Ok(Check::Http(get)) =
            ask(json!({"httpGet": {"port": 1, "path": "/", "httpHeaders": headers}}))
        else {
            panic!("no request")
        };
        let line = |(name, value): &(String, String)| format!("{name}: {value}");
        get.headers.iter().map(line).collect::<Vec<_>>().join(", ")
    };
    assert_eq!(headers(json!(null)), "User-Agent: kube-probe/1.36, Accept: */*");
    let given = json!([
        {"name": "user-agent", "value": ""}, {"name": "ACCEPT", "value": "a/b"},
        {"name": "Host", "value": "h"},
    ]);
    assert_eq!(headers(given), "ACCEPT: a/b, Host: h");
}

#[test]
fn schemes_and_hosts() {
    let get = |action: Value| match ask(json!({ "httpGet": action })) {
        Ok(Check::Http(get)) => (get.tls, get.authority),
        other => panic!("{other:?}"),
    };
    assert_eq!(get(json!({"port": 1})), (false, "10.0.0.2:1".to_owned()));
    let to = json!({"port": 1, "scheme": "HTTPS", "host": "fd00::1"});
    assert_eq!(get(to), (true, "[fd00::1]:1".to_owned()));
}

#[test]
fn paths_are_sent_as_go_sends_them() {
    for (written, sent) in [
        ("", "/"),
        ("/", "/"),
        ("healthz", "/healthz"),
        ("/healthz?a=b&c#d", "/healthz?a=b&c"),
        ("/a b/ü", "/a%20b/%C3%BC"),
        ("/a%2Fb", "/a%2Fb"),
        ("/a%2Fb c", "/a/b%20c"),
        ("/(x)[y]*", "/(x)[y]*"),
        ("/%zz?a", "/%25zz%3Fa"),
        ("/x%", "/x%25"),
        ("http://else.where/x?y", "/x?y"),
        ("//else.where/x", "/x"),
        ("//else.where", "/"),
        ("/q?a b", "/q?a%20b"),
        ("?x", "/?x"),
        ("/a\r\nX: y", "/a%0D%0AX:%20y"),
    ] {
        assert_eq!(request_path(written), sent, "{written}");
    }
}
