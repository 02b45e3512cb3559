use serde_json::{Value, json};

use super::*;

#[test]
fn what_is_asked_for() {
    let asked = |tls, name, port| Some(Asked { tls, name, port });
    let cases = [
        ("a", asked(false, "a", "")),
        ("a:80", asked(false, "a", "80")),
        ("http:a:", asked(false, "a", "")),
        ("https:a:8443", asked(true, "a", "8443")),
        ("ftp:a:80", None),
        (":a", None),
        ("a:b:c:d", None),
    ];
    for (text, expected) in cases {
        assert_eq!(Asked::parse(text), expected, "{text}");
    }
}

fn address(text: &str, ip: &str, ports: &Value) -> std::result::Result<String, (u16, String)> {
    let pod = Object::from_json(json!({
        "spec": {"containers": [{"name": "none"}, {"name": "a", "ports": ports}]},
        "status": {"podIP": ip},
    }));
    let address = Asked::parse(text).unwrap().address(&pod);
    address.map(|address| address.to_string()).map_err(|error| (error.code.as_u16(), error.message))
}

#[test]
fn where_a_pod_is() {
    let ports = json!([{"containerPort": 8080}, {"containerPort": 1}]);
    let none = json!([]);
    assert_eq!(address("a", "10.1.2.3", &ports).unwrap(), "10.1.2.3:8080");
    assert_eq!(address("a", "10.1.2.3", &none).unwrap(), "10.1.2.3:80");
    assert_eq!(address("https:a:", "fd00::1", &none).unwrap(), "[fd00::1]:443");
    assert_eq!(address("a:81", "10.1.2.3", &ports).unwrap(), "10.1.2.3:81");
    assert_eq!(address("a:99999", "10.1.2.3", &ports).unwrap_err().0, 503);
    assert_eq!(address("a:http", "10.1.2.3", &ports).unwrap_err().0, 503);
    let local = [
        "",
        "127.0.0.1",
        "169.254.1.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "fe80::1",
    ];
    for ip in local {
        let refused = (400, "address not allowed".to_owned());
        assert_eq!(address("a", ip, &ports).unwrap_err(), refused, "{ip}");
    }
}

#[test]
fn what_is_asked_of_the_pod() {
    let proxy = "/api/v1/namespaces/n/pods/a:80/proxy";
    for path in ["", "/", "/a%2Fb//c/"] {
        assert_eq!(split(&format!("{proxy}{path}")), (proxy, path));
    }
}

#[test]
fn redirects_lead_through_the_proxy() {
    let names = ["10.1.2.3:80".to_owned(), "api:6443".to_owned()];
    let cases = [
        ("/login?x=y", Some("/p/login?x=y")),
        ("http://10.1.2.3:80/a/", Some("/p/a/")),
        ("https://api:6443/p/b", Some("/p/b")),
        ("http://example.com/a", None),
        ("a/b", None),
    ];
    for (location, expected) in cases {
        assert_eq!(relocated(location, "/p", &names).as_deref(), expected, "{location}");
    }
}
