//! The server as its clients see it.

use crate::common::server;
use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use mainstay_apiserver::User;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": "n1", "containers": [{"name": "c", "image": "busybox"}]},
    })
}

#[tokio::test]
async fn objects_live_and_die() {
    let server = server().await;
    let made = server.ask("POST", PODS, Some(&pod("a"))).await;
    assert_eq!(made.code, 201, "{made:?}");
    assert_eq!(made.body["status"]["phase"], "Pending");
    assert_eq!(made.body["status"]["qosClass"], "BestEffort");
    assert_eq!(made.body["spec"]["restartPolicy"], "Always");
    assert_eq!(made.body["metadata"]["generation"], 1);
    let again = server.ask("POST", PODS, Some(&pod("a"))).await;
    assert_eq!((again.code, &again.body["reason"]), (409, &"AlreadyExists".into()));
    assert_eq!(again.body["message"], "pods \"a\" already exists");

    let got = server.ask("GET", &format!("{PODS}/a"), None).await;
    assert_eq!(got.body, made.body);
    let none = server.ask("GET", &format!("{PODS}/b"), None).await;
    assert_eq!((none.code, &none.body["message"]), (404, &"pods \"b\" not found".into()));

    let mut changed = got.body.clone();
    changed["metadata"]["labels"]["x"] = "y".into();
    let put = server.ask("PUT", &format!("{PODS}/a"), Some(&changed)).await;
    assert_eq!(put.code, 200, "{put:?}");
    assert_eq!(put.body["metadata"]["generation"], 1);
    let stale = server.ask("PUT", &format!("{PODS}/a"), Some(&changed)).await;
    assert_eq!((stale.code, &stale.body["reason"]), (409, &"Conflict".into()));

    let going = server.ask("DELETE", &format!("{PODS}/a"), None).await;
    assert_eq!(going.code, 200);
    assert_eq!(going.body["metadata"]["deletionGracePeriodSeconds"], 30);
    let options = json!({"gracePeriodSeconds": 0});
    let gone = server.ask("DELETE", &format!("{PODS}/a"), Some(&options)).await;
    assert_eq!((gone.code, &gone.body["kind"]), (200, &"Pod".into()));
    assert_eq!(gone.body["metadata"]["deletionGracePeriodSeconds"], 0);
    assert_eq!(server.ask("GET", &format!("{PODS}/a"), None).await.code, 404);

    // Who watches is told that it was over before it was gone.
    let version = going.body["metadata"]["resourceVersion"].as_str().unwrap();
    let uri = format!("{PODS}?watch=1&resourceVersion={version}");
    let request = Request::get(uri).body(Full::new(Bytes::new())).unwrap();
    let mut watch = server.raw(User::master("admin"), request).await.into_body();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        let frame = watch.frame().await.unwrap().unwrap().into_data().unwrap();
        for line in frame.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line).unwrap();
            assert_eq!(event["object"]["metadata"]["deletionGracePeriodSeconds"], 0, "{event}");
            seen.push(event["type"].clone());
        }
    }
    assert_eq!(seen, ["MODIFIED", "DELETED"]);
}

#[tokio::test]
async fn each_patch_has_its_language() {
    let server = server().await;
    server.ask("POST", PODS, Some(&pod("a"))).await;
    let path = format!("{PODS}/a");
    let master = || User::master("admin");
    let cases = [
        (
            "application/json-patch+json",
            json!([{"op": "add", "path": "/metadata/labels/j", "value": "1"}]),
            json!({"app": "a", "j": "1"}),
        ),
        (
            "application/merge-patch+json",
            json!({"metadata": {"labels": {"j": null, "m": "2"}}}),
            json!({"app": "a", "m": "2"}),
        ),
        (
            "application/strategic-merge-patch+json",
            json!({
                "metadata": {"labels": {"s": "3"}},
                "spec": {"containers": [{"name": "c", "image": "other"}]},
            }),
            json!({"app": "a", "m": "2", "s": "3"}),
        ),
    ];
    for (media, patch, labels) in cases {
        let answer = server.ask_as(master(), "PATCH", &path, media, Some(&patch)).await;
        assert_eq!(answer.code, 200, "{media} {answer:?}");
        assert_eq!(answer.body["metadata"]["labels"], labels, "{media}");
    }
    let got = server.ask("GET", &path, None).await;
    assert_eq!(got.body["spec"]["containers"][0]["image"], "other");
    assert_eq!(got.body["metadata"]["generation"], 2);
    let bad = server.ask_as(master(), "PATCH", &path, "text/plain", Some(&json!({}))).await;
    assert_eq!(bad.code, 415);
    let patch = json!([{"op": "test", "path": "/kind", "value": "Node"}]);
    let bad =
        server.ask_as(master(), "PATCH", &path, "application/json-patch+json", Some(&patch)).await;
    assert_eq!((bad.code, &bad.body["reason"]), (422, &"Invalid".into()));
}

#[tokio::test]
async fn who_applies_a_field_owns_it() {
    let server = server().await;
    let path = format!("{PODS}/a");
    let apply = async |manager: &str, force: bool, label: &str| {
        let uri = format!("{path}?fieldManager={manager}&force={force}");
        let mut wanted = pod("a");
        wanted["metadata"]["labels"] = json!({ "app": label });
        let media = "application/apply-patch+yaml";
        server.ask_as(User::master("admin"), "PATCH", &uri, media, Some(&wanted)).await
    };
    let made = apply("one", false, "x").await;
    assert_eq!(made.code, 201, "{made:?}");
    assert_eq!(made.body["metadata"]["managedFields"][0]["manager"], "one");
    assert_eq!(made.body["metadata"]["managedFields"][0]["operation"], "Apply");
    assert_eq!(apply("one", false, "x").await.body, made.body, "nothing changed");
    let refused = apply("two", false, "y").await;
    assert_eq!((refused.code, &refused.body["reason"]), (409, &"Conflict".into()));
    let cause = &refused.body["details"]["causes"][0];
    assert_eq!(
        (&cause["reason"], &cause["field"]),
        (&"FieldManagerConflict".into(), &".metadata.labels.app".into())
    );
    let forced = apply("two", true, "y").await;
    assert_eq!((forced.code, &forced.body["metadata"]["labels"]["app"]), (200, &"y".into()));
    let nameless = server
        .ask_as(
            User::master("admin"),
            "PATCH",
            &path,
            "application/apply-patch+yaml",
            Some(&pod("a")),
        )
        .await;
    assert_eq!(nameless.code, 422);
}

#[tokio::test]
async fn lists_come_in_pieces_of_one_moment() {
    let server = server().await;
    for name in ["a", "b", "c", "d", "e"] {
        server.ask("POST", PODS, Some(&pod(name))).await;
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap().iter();
        items.map(|it| it["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    let first = server.ask("GET", &format!("{PODS}?limit=2"), None).await.body;
    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(first["metadata"]["remainingItemCount"], 3);
    // What happens between two pieces is not seen by the second.
    let now = json!({"gracePeriodSeconds": 0});
    server.ask("DELETE", &format!("{PODS}/c"), Some(&now)).await;
    server.ask("POST", PODS, Some(&pod("cc"))).await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let second = server.ask("GET", &format!("{PODS}?limit=2&continue={token}"), None).await.body;
    assert_eq!(names(&second), ["c", "d"], "{second}");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    let picked = "?labelSelector=app%20in%20(a,d,e)&limit=2";
    let page = server.ask("GET", &format!("{PODS}{picked}"), None).await.body;
    assert_eq!(names(&page), ["a", "d"]);
    let token = page["metadata"]["continue"].as_str().unwrap();
    let rest = server.ask("GET", &format!("{PODS}{picked}&continue={token}"), None).await.body;
    assert_eq!(names(&rest), ["e"]);
    assert!(rest["metadata"].get("continue").is_none(), "{rest}");
    let everywhere = server.ask("GET", "/api/v1/pods?fieldSelector=spec.nodeName=n1", None).await;
    assert_eq!(names(&everywhere.body), ["a", "b", "cc", "d", "e"]);
}

#[tokio::test]
async fn a_watch_tells_what_a_selector_picks() {
    let server = server().await;
    let list = server.ask("GET", PODS, None).await.body;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let uri = format!("{PODS}?watch=1&resourceVersion={version}&labelSelector=on");
    let request = Request::get(uri).body(Full::new(Bytes::new())).unwrap();
    let mut watch = server.raw(User::master("admin"), request).await.into_body();
    server.ask("POST", PODS, Some(&pod("a"))).await;
    let path = format!("{PODS}/a");
    for labels in [json!({"on": "1"}), json!({"on": "2"}), json!({"on": null})] {
        let patch = json!({"metadata": {"labels": labels}});
        let media = "application/merge-patch+json";
        server.ask_as(User::master("admin"), "PATCH", &path, media, Some(&patch)).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let frame = watch.frame().await.unwrap().unwrap().into_data().unwrap();
        for line in frame.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line).unwrap();
            let on = event["object"]["metadata"]["labels"]["on"].clone();
            seen.push((event["type"].as_str().unwrap().to_owned(), on));
        }
    }
    let expected = [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")];
    assert_eq!(seen, expected.map(|(kind, on)| (kind.to_owned(), on.into())));
}

#[tokio::test]
async fn a_version_that_is_long_gone_is_410() {
    let server = server().await;
    let uri = format!("{PODS}?watch=1&resourceVersion=999999");
    let request = Request::get(uri).body(Full::new(Bytes::new())).unwrap();
    let response = server.raw(User::master("admin"), request).await;
    assert_eq!(response.status(), 504);
    let old = server.ask("GET", &format!("{PODS}?resourceVersion=x"), None).await;
    assert_eq!(old.code, 400);
}

#[tokio::test]
async fn who_may_do_nothing_is_told_so() {
    let server = server().await;
    let nobody = || User { name: "bob".into(), ..User::default() };
    let answer = server.ask_as(nobody(), "GET", PODS, "", None).await;
    assert_eq!(answer.code, 403);
    assert_eq!(
        answer.body["message"],
        "pods is forbidden: User \"bob\" cannot list resource \"pods\" in API group \"\" in the \
         namespace \"default\""
    );
    for path in ["/healthz", "/version", "/livez", "/readyz"] {
        assert_eq!(
            server.ask_as(User::anonymous(), "GET", path, "", None).await.code,
            200,
            "{path}"
        );
    }
    assert_eq!(server.ask_as(User::anonymous(), "GET", "/api", "", None).await.code, 403);
}

#[tokio::test]
async fn bad_requests_have_their_conventional_errors() {
    let server = server().await;
    let unknown = server.ask("GET", "/apis/example.com/v1/things", None).await;
    assert_eq!((unknown.code, &unknown.body["reason"]), (404, &"NotFound".into()));
    assert_eq!(server.ask("PUT", PODS, Some(&pod("a"))).await.code, 405);
    let mut typo = pod("a");
    typo["spec"]["replicas"] = 1.into();
    let strict = server.ask("POST", &format!("{PODS}?fieldValidation=Strict"), Some(&typo)).await;
    assert_eq!(strict.code, 400);
    let text = strict.body["message"].as_str().unwrap();
    assert!(text.ends_with("strict decoding error: unknown field \"spec.replicas\""), "{text}");
    let warned = server.ask("POST", &format!("{PODS}?dryRun=All"), Some(&typo)).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.warnings, ["299 - \"unknown field \\\"spec.replicas\\\"\""]);
    assert_eq!(server.ask("GET", &format!("{PODS}/a"), None).await.code, 404);
    let wrong = json!({"metadata": {"name": "a"}, "spec": {"containers": [{"name": 1}]}});
    let wrong = server.ask("POST", PODS, Some(&wrong)).await;
    assert_eq!(wrong.code, 400, "{wrong:?}");
    let invalid = json!({"metadata": {"name": "A"}, "spec": {"containers": []}});
    let invalid = server.ask("POST", PODS, Some(&invalid)).await;
    assert_eq!((invalid.code, &invalid.body["reason"]), (422, &"Invalid".into()));
    let causes = invalid.body["details"]["causes"].as_array().unwrap();
    assert!(causes.iter().any(|cause| cause["field"] == "metadata.name"), "{causes:?}");
    assert!(causes.iter().any(|cause| cause["field"] == "spec.containers"), "{causes:?}");
    let elsewhere = server.ask("POST", "/api/v1/namespaces/none/pods", Some(&pod("a"))).await;
    assert_eq!(elsewhere.code, 404);
    assert_eq!(elsewhere.body["message"], "namespaces \"none\" not found");
    let huge = "x".repeat(4 * 1024 * 1024);
    let large = server.ask("POST", PODS, Some(&json!({ "a": huge }))).await;
    assert_eq!(large.code, 413);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let request = Request::post(PODS).body(Full::new(Bytes::from(deep))).unwrap();
    assert_eq!(server.send(User::master("admin"), request).await.code, 400);
}

#[tokio::test]
async fn a_namespace_goes_with_what_is_in_it() {
    let server = server().await;
    let namespace = json!({"metadata": {"name": "x"}});
    assert_eq!(server.ask("POST", "/api/v1/namespaces", Some(&namespace)).await.code, 201);
    let map = json!({"metadata": {"name": "m"}, "data": {"a": "b"}});
    let maps = "/api/v1/namespaces/x/configmaps";
    assert_eq!(server.ask("POST", maps, Some(&map)).await.code, 201);
    let going = server.ask("DELETE", "/api/v1/namespaces/x", None).await;
    assert_eq!((going.code, &going.body["status"]["phase"]), (200, &"Terminating".into()));
    let late = server.ask("POST", maps, Some(&json!({"metadata": {"name": "n"}}))).await;
    assert_eq!(late.code, 403, "{late:?}");
    assert_eq!(late.body["details"]["causes"][0]["reason"], "NamespaceTerminating");
    let watch = format!("/api/v1/namespaces?watch=1&resourceVersion={}", {
        going.body["metadata"]["resourceVersion"].as_str().unwrap()
    });
    let request = Request::get(watch).body(Full::new(Bytes::new())).unwrap();
    let mut watch = server.raw(User::master("admin"), request).await.into_body();
    let gone = async {
        loop {
            let frame = watch.frame().await.unwrap().unwrap().into_data().unwrap();
            if frame.starts_with(b"{\"type\":\"DELETED\"") {
                return;
            }
        }
    };
    tokio::select! {
        () = server.api.keep_house() => {}
        () = gone => {}
    }
    assert_eq!(server.ask("GET", "/api/v1/namespaces/x", None).await.code, 404);
    assert_eq!(server.ask("GET", &format!("{maps}/m"), None).await.code, 404);
    let kept = server.ask("DELETE", "/api/v1/namespaces/default", None).await;
    assert_eq!(kept.code, 403);
}
