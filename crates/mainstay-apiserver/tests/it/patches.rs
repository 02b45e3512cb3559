//! Patches that do not fit, against what kube-apiserver 1.36.2 said about them.

use crate::common::{Response, Server, server};
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use mainstay_apiserver::User;
use serde_json::{Value, json};

const PODS: &str = "/api/v1/namespaces/default/pods";
const JSON: &str = "application/json-patch+json";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": "x"}},
        "spec": {"containers": [{"name": "main", "image": "busybox"}]},
    })
}

async fn patch(server: &Server, media: &str, query: &str, patch: &str) -> Response {
    let request = Request::patch(format!("{PODS}/p?dryRun=All&{query}"))
        .header("content-type", media)
        .body(Full::new(Bytes::from(patch.to_owned())))
        .unwrap();
    server.send(User::master("admin"), request).await
}

/// The code and the sentence; of a sentence that shows a whole object, what it ends in.
fn told(response: &Response) -> (u16, &str) {
    let text = response.body["message"].as_str().unwrap_or("no refusal");
    let shown = " \"\" is invalid: patch: Invalid value: \"{";
    match text.rsplit_once("}\": ").filter(|_| text.starts_with(shown)) {
        Some((_, end)) => (response.code, end),
        None => (response.code, text),
    }
}

async fn check(media: &str, query: &str, cases: &[(&str, u16, &str)]) {
    let server = server().await;
    assert_eq!(server.ask("POST", PODS, Some(&pod("p"))).await.code, 201);
    for (body, code, text) in cases {
        let response = patch(&server, media, query, body).await;
        assert_eq!(told(&response), (*code, *text), "{media} {body}");
    }
}

#[tokio::test]
async fn strategic_merge_patches() {
    let invalid = |patch: &str, why: &str| {
        format!(" \"\" is invalid: patch: Invalid value: \"{patch}\": {why}")
    };
    let labels = invalid("map[metadata:map[labels:3]]", "cannot restore map from int64");
    let carried_out = invalid("map[spec:map[]]", "cannot convert int64 to string");
    let replaced = invalid("map[metadata:map[labels:map[u:3]]]", "cannot convert int64 to string");
    let retained = invalid(
        "map[metadata:map[labels:map[a:<nil> b:true] x:<nil>] \
         spec:map[containers:[map[image:3 name:main]]]]",
        "unrecognized type: string",
    );
    let unknown = invalid(
        "map[spec:map[w:-5e-08 x:[1 2 [3 a]] y:1e+30 z:0.1]]",
        "strict decoding error: unknown field \"spec.w\", unknown field \"spec.x\", \
         unknown field \"spec.y\", unknown field \"spec.z\"",
    );
    let twice = invalid(
        "map[metadata:map[labels:map[c:d]]]",
        "strict decoding error: duplicate field \"metadata.labels\"",
    );
    let quoted = invalid(
        r#"map[metadata:map[labels:map[a:\x01é \n\"<]] q:1]"#,
        "strict decoding error: unknown field \"q\"",
    );
    let cases = [
        (r#"{"metadata":{"labels":3}}"#, 422, labels.as_str()),
        (
            r#"{"spec":{"$setElementOrder/containers":[{"name":"main"}],
                "containers":[{"name":"main","image":3}]}}"#,
            422,
            &carried_out,
        ),
        (r#"{"metadata":{"labels":{"$patch":"replace","u":3}}}"#, 422, &replaced),
        (
            r#"{"spec":{"$retainKeys":["containers"],"containers":[{"name":"main","image":3}]},
                "metadata":{"x":null,"labels":{"a":null,"b":true}}}"#,
            422,
            &retained,
        ),
        (r#"{"spec":{"x":[1,2,[3,"a"]],"y":1e30,"z":0.1,"w":-0.5e-7}}"#, 422, &unknown),
        (r#"{"metadata":{"labels":{"a":"b"},"labels":{"c":"d"}}}"#, 422, &twice),
        (r#"{"metadata":{"labels":{"a":"\u0001\u00e9 \n\"<"}},"q":1}"#, 422, &quoted),
        (
            r#"{"spec":{"containers":[3]}}"#,
            500,
            "list element types are not identical: [[map[image:busybox imagePullPolicy:Always \
             name:main resources:map[] terminationMessagePath:/dev/termination-log \
             terminationMessagePolicy:File]] [3]]",
        ),
        (r#"{"$retainKeys":3}"#, 400, "invalid patch format of retainKeys"),
        ("{", 400, "unexpected end of JSON input"),
        ("[]", 400, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ("null", 200, "no refusal"),
        (r#"{"kind":"Node"}"#, 200, "no refusal"),
    ];
    check(STRATEGIC, "fieldValidation=Strict", &cases).await;
}

#[tokio::test]
async fn merge_patches() {
    let cases = [
        (
            r#"{"metadata":{"labels":3}}"#,
            422,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type \
             map[string]string",
        ),
        (
            r#"{"metadata":{"lables":{"a":"b"}}}"#,
            422,
            "strict decoding error: unknown field \"metadata.lables\"",
        ),
        (r#"{"kind":"Node"}"#, 422, "converting (v1.Node) to (core.Pod): unknown conversion"),
        (
            r#"{"apiVersion":"v2"}"#,
            422,
            "no kind \"Pod\" is registered for version \"v2\" in scheme \
             \"pkg/api/legacyscheme/scheme.go:30\"",
        ),
        ("null", 400, "Invalid JSON Patch"),
        (
            "3",
            400,
            "error decoding patch: json: cannot unmarshal number into Go value of type \
             map[string]interface {}",
        ),
    ];
    check(MERGE, "fieldValidation=Strict", &cases).await;
}

#[tokio::test]
async fn json_patches() {
    let rejected = "the server rejected our request due to an error in our request";
    let cases = [
        (r#"[{"op":"foo","path":"/a"}]"#, 422, rejected),
        ("[null]", 422, rejected),
        (r#"[{"op":"remove","path":"/metadata/labels/nothing"}]"#, 422, rejected),
        (
            r#"[{"op":3}]"#,
            400,
            "error decoding patch: json: cannot unmarshal number into Go struct field \
             jsonPatchOp.op of type string",
        ),
        (
            "{}",
            400,
            "error decoding patch: json: cannot unmarshal object into Go value of type \
             []handlers.jsonPatchOp",
        ),
        (
            r#"[{"op":"add","path":"/metadata/labels/z","value":"3","foo":1}]"#,
            422,
            "strict decoding error: json patch unknown field \"[0].foo\"",
        ),
        // What is not there may be replaced, and nothing may be added.
        (
            r#"[{"op":"replace","path":"/spec/nope","value":3}]"#,
            422,
            "strict decoding error: unknown field \"spec.nope\"",
        ),
        (r#"[{"op":"replace","path":"/metadata/labels/b","value":"c"}]"#, 200, "no refusal"),
        (r#"[{"op":"add","path":"/metadata/labels/z"}]"#, 200, "no refusal"),
        (r#"[{"op":"remove","path":"/kind"}]"#, 200, "no refusal"),
        ("null", 200, "no refusal"),
    ];
    check(JSON, "fieldValidation=Strict", &cases).await;
}

#[tokio::test]
async fn applied_configurations() {
    let typed = "failed to create typed patch object (/; /v1, Kind=Pod): ";
    let labels = format!("{typed}.metadata.labels: expected map, got &{{3}}");
    let field = format!("{typed}.metadata.lables: field not declared in schema");
    let cases = [
        (r#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":3}}"#, 500, labels.as_str()),
        (r#"{"apiVersion":"v1","kind":"Pod","metadata":{"lables":{}}}"#, 500, &field),
        (r#"{"apiVersion":"v1","kind":"Node"}"#, 400, "invalid object type: /v1, Kind=Node"),
        (
            "[]",
            400,
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot \
             unmarshal array into Go value of type map[string]interface {}",
        ),
    ];
    check("application/apply-patch+yaml", "fieldManager=m", &cases).await;
}

#[tokio::test]
async fn a_refusal_is_about_the_patch_and_no_object() {
    let server = server().await;
    server.ask("POST", PODS, Some(&pod("p"))).await;
    let refused = patch(&server, STRATEGIC, "", r#"{"metadata":{"labels":3}}"#).await.body;
    assert_eq!(refused["reason"], "Invalid");
    assert_eq!(
        refused["details"],
        json!({"causes": [{
            "reason": "FieldValueInvalid",
            "message": "Invalid value: \"map[metadata:map[labels:3]]\": cannot restore map from \
                        int64",
            "field": "patch",
        }]})
    );
}

#[tokio::test]
async fn parameters_that_are_none_are_refused_before_anything_else() {
    let server = server().await;
    let long = format!("POST {PODS}?fieldManager={}", "x".repeat(129));
    let cases = [
        (
            format!("PATCH {PODS}/p?dryRun=foo"),
            "PatchOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"foo\"]: \
             supported values: \"All\"",
        ),
        (
            format!("PUT {PODS}/p?dryRun=foo"),
            "UpdateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"foo\"]: \
             supported values: \"All\"",
        ),
        (
            format!("DELETE {PODS}/p?dryRun=foo"),
            "DeleteOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"foo\"]: \
             supported values: \"All\"",
        ),
        (
            format!("POST {PODS}/p/eviction?dryRun=foo"),
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"foo\"]: \
             supported values: \"All\"",
        ),
        (
            format!("POST {PODS}?fieldValidation=foo"),
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \
             \"foo\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"",
        ),
        (
            format!("PATCH {PODS}/p?force=true"),
            "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for \
             non-apply patch",
        ),
        (
            long,
            "CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more \
             than 128 bytes",
        ),
        (
            format!("DELETE {PODS}/p?propagationPolicy=foo"),
            "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \
             \"foo\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"",
        ),
        (
            format!("GET {PODS}?watch=1&resourceVersionMatch=Exact"),
            "ListOptions.meta.k8s.io \"\" is invalid: [resourceVersionMatch: Forbidden: \
             resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided, \
             resourceVersionMatch: Unsupported value: \"Exact\": supported values: \
             \"NotOlderThan\"]",
        ),
    ];
    for (request, text) in cases {
        let (method, path) = request.split_once(' ').unwrap();
        let answer = server.ask_as(User::master("admin"), method, path, MERGE, None).await;
        assert_eq!((answer.code, answer.body["message"].as_str()), (422, Some(text)), "{request}");
        assert_eq!(answer.body["details"]["group"], "meta.k8s.io", "{request}");
    }
}

#[tokio::test]
async fn what_was_found_out_about_a_new_pod_is_added_to_a_changed_one() {
    let server = server().await;
    let made = server.ask("POST", PODS, Some(&pod("p"))).await.body;
    assert_eq!(made["spec"]["tolerations"].as_array().unwrap().len(), 2);
    let mut again = pod("p");
    again["spec"]["serviceAccountName"] = "default".into();
    again["spec"]["serviceAccount"] = "default".into();
    let put = server.ask("PUT", &format!("{PODS}/p"), Some(&again)).await;
    assert_eq!((put.code, &put.body["spec"]), (200, &made["spec"]), "{put:?}");
    let none = json!({ "spec": { "tolerations": null } });
    let path = format!("{PODS}/p");
    let patched = server.ask_as(User::master("admin"), "PATCH", &path, MERGE, Some(&none)).await;
    assert_eq!((patched.code, &patched.body["spec"]), (200, &made["spec"]));
}

#[tokio::test]
async fn a_name_that_is_about_to_be_free_is_told_to_be_so() {
    let server = server().await;
    let mut bound = pod("p");
    bound["spec"]["nodeName"] = "n1".into();
    server.ask("POST", PODS, Some(&bound)).await;
    server.ask("DELETE", &format!("{PODS}/p"), None).await;
    for query in ["", "?dryRun=All"] {
        let again = server.ask("POST", &format!("{PODS}{query}"), Some(&bound)).await;
        assert_eq!((again.code, &again.body["reason"]), (409, &"AlreadyExists".into()));
        let text = "object is being deleted: pods \"p\" already exists";
        assert_eq!(again.body["message"], text);
    }
}
