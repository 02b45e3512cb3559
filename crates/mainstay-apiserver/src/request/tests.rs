use super::*;

fn parse(method: &Method, uri: &str) -> RequestInfo {
    RequestInfo::parse(method, &uri.parse().unwrap())
}

#[test]
fn paths_and_methods_become_verbs() {
    let cases: &[(Method, &str, [&str; 7])] = &[
        // verb, group, version, namespace, resource, name, subresource
        (Method::GET, "/api/v1/pods", ["list", "", "v1", "", "pods", "", ""]),
        (Method::GET, "/api/v1/namespaces/n/pods", ["list", "", "v1", "n", "pods", "", ""]),
        (Method::GET, "/api/v1/namespaces/n/pods/p", ["get", "", "v1", "n", "pods", "p", ""]),
        (
            Method::GET,
            "/api/v1/namespaces/n/pods/p/log",
            ["get", "", "v1", "n", "pods", "p", "log"],
        ),
        (
            Method::GET,
            "/api/v1/namespaces/n/pods?watch=true",
            ["watch", "", "v1", "n", "pods", "", ""],
        ),
        (Method::GET, "/api/v1/namespaces/n/pods?watch=0", ["list", "", "v1", "n", "pods", "", ""]),
        (Method::GET, "/api/v1/watch/pods", ["watch", "", "v1", "", "pods", "", ""]),
        (Method::GET, "/api/v1/namespaces", ["list", "", "v1", "", "namespaces", "", ""]),
        (Method::GET, "/api/v1/namespaces/n", ["get", "", "v1", "n", "namespaces", "n", ""]),
        (
            Method::PUT,
            "/api/v1/namespaces/n/status",
            ["update", "", "v1", "n", "namespaces", "n", "status"],
        ),
        (
            Method::DELETE,
            "/apis/apps/v1/namespaces/n/deployments",
            ["deletecollection", "apps", "v1", "n", "deployments", "", ""],
        ),
        (
            Method::POST,
            "/api/v1/namespaces/n/pods/p/eviction",
            ["create", "", "v1", "n", "pods", "p", "eviction"],
        ),
        (Method::PATCH, "/api/v1/nodes/a%3Ab", ["patch", "", "v1", "", "nodes", "a:b", ""]),
        (Method::GET, "/healthz", ["get", "", "", "", "", "", ""]),
        (Method::GET, "/apis/apps/v1", ["get", "", "", "", "", "", ""]),
    ];
    for (method, uri, expected) in cases {
        let it = parse(method, uri);
        let found = [
            it.verb,
            &it.group,
            &it.version,
            &it.namespace,
            &it.resource,
            &it.name,
            &it.subresource,
        ];
        assert_eq!(found, *expected, "{method} {uri}");
    }
    let proxy = parse(&Method::GET, "/api/v1/nodes/n/proxy/a/b/");
    assert_eq!((proxy.subresource.as_str(), proxy.rest.as_str()), ("proxy", "a/b/"));
}

#[test]
fn the_first_thing_that_both_know_is_answered() {
    let kubectl = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;\
                   g=meta.k8s.io,application/json";
    assert_eq!(Accept::parse(kubectl).unwrap().shape, Shape::Table("v1"));
    let go = "application/vnd.kubernetes.protobuf,application/json";
    assert_eq!(Accept::parse(go).unwrap().shape, Shape::Plain);
    assert!(Accept::parse("application/yaml").unwrap().yaml);
    let error = Accept::parse("application/vnd.kubernetes.protobuf").unwrap_err();
    assert_eq!(error.code, http::StatusCode::NOT_ACCEPTABLE);
}
