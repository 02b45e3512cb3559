//! Bodies in protobuf, as clients written in Go send them. They were made with Kubernetes 1.36's own
//! serializer; the answers to bad ones are those of its server.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use mainstay_apiserver::User;
use serde_json::json;

use crate::common::{Response, Server, server};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

const CONFIG_MAP: &str = "\
    azhzAAoPCgJ2MRIJQ29uZmlnTWFwEhsKEQoBYRIAGgAiACoAMgA4AEIAEgYKAXgSAXkaACIA";
const POD: &str = "\
    azhzAAoJCgJ2MRIDUG9kEpwBChEKAWESABoAIgAqADIAOABCABJyCgkKAXYSBBICCgASSQoBYxIBaSoAQg8KDQoD\
    Y3B1EgYKBDUwMG1SHgoSEhAKAS8SBwgBEAAaAXAaACIAEAAYACAAKAAwAGoAcgCAAQCIAQCQAQCiAQAaADIAQgBK\
    AFIAWABgAGgAggEAigEAmgEAwgEAGhMKABoAIgAqADIASgBaAHIAiAEAGgAiAA==";
const EVICTION_V1BETA1: &str = "\
    azhzAAoaCg5wb2xpY3kvdjFiZXRhMRIIRXZpY3Rpb24SFwoRCgFhEgAaACIAKgAyADgAQgASAggHGgAiAA==";
const DRY_RUN: &str = "azhzAAoTCgJ2MRINRGVsZXRlT3B0aW9ucxIFKgNBbGwaACIA";
const MAY_I_DELETE_PODS: &str = "\
    azhzAAoyChdhdXRob3JpemF0aW9uLms4cy5pby92MRIXU2VsZlN1YmplY3RBY2Nlc3NSZXZpZXcSOAoQCgASABoA\
    IgAqADIAOABCABIaChgKABIGZGVsZXRlGgAiACoEcG9kczIAOgAaCAgAEgAaACAAGgAiAA==";

async fn send(server: &Server, method: &str, path: &str, body: Vec<u8>) -> Response {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/vnd.kubernetes.protobuf")
        .header("accept", "application/vnd.kubernetes.protobuf,application/json")
        .body(Full::new(Bytes::from(body)))
        .unwrap();
    server.send(User::master("admin"), request).await
}

fn bytes(base64: &str) -> Vec<u8> {
    STANDARD.decode(base64).unwrap()
}

#[tokio::test]
async fn objects_are_made_as_from_json() {
    let server = server().await;
    let made = send(&server, "POST", CONFIG_MAPS, bytes(CONFIG_MAP)).await;
    assert_eq!((made.code, &made.body["data"]), (201, &json!({ "x": "y" })), "{made:?}");
    let strict = format!("{PODS}?fieldValidation=Strict&dryRun=All");
    let made = send(&server, "POST", &strict, bytes(POD)).await;
    let pod = json!({
        "metadata": { "name": "a" },
        "spec": {
            "containers": [{
                "name": "c",
                "image": "i",
                "resources": { "limits": { "cpu": "0.5" } },
                "livenessProbe": { "httpGet": { "port": "p", "path": "/" } },
            }],
            "volumes": [{ "name": "v", "emptyDir": {} }],
        },
    });
    let same = server.ask("POST", &strict, Some(&pod)).await;
    assert_eq!((made.code, same.code), (201, 201), "{made:?}");
    assert_eq!(made.body["spec"], same.body["spec"]);
}

#[tokio::test]
async fn a_review_is_answered() {
    let server = server().await;
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let review = send(&server, "POST", path, bytes(MAY_I_DELETE_PODS)).await;
    assert_eq!((review.code, &review.body["status"]["allowed"]), (201, &json!(true)));
}

#[tokio::test]
async fn an_eviction_has_its_options() {
    let server = server().await;
    send(&server, "POST", PODS, bytes(POD)).await;
    let evicted =
        send(&server, "POST", &format!("{PODS}/a/eviction"), bytes(EVICTION_V1BETA1)).await;
    assert_eq!(evicted.code, 201, "{evicted:?}");
    assert_eq!(server.ask("GET", &format!("{PODS}/a"), None).await.code, 404);
}

#[tokio::test]
async fn options_of_a_delete_count() {
    let server = server().await;
    send(&server, "POST", CONFIG_MAPS, bytes(CONFIG_MAP)).await;
    let path = format!("{CONFIG_MAPS}/a");
    for options in [bytes(DRY_RUN), Vec::new()] {
        let deleted = send(&server, "DELETE", &path, options).await;
        assert_eq!(deleted.code, 200, "{deleted:?}");
    }
    assert_eq!(server.ask("GET", &path, None).await.code, 404);
}

#[tokio::test]
async fn what_is_no_protobuf_is_refused_in_the_words_of_kubernetes() {
    let server = server().await;
    let config_map = bytes(CONFIG_MAP);
    let cases: [(&[u8], &str); 6] = [
        (
            b"",
            "the object provided is unrecognized (must be of type ConfigMap): empty data (<empty>)",
        ),
        (
            b"{\"kind\":\"ConfigMap\"}",
            "the object provided is unrecognized (must be of type ConfigMap): provided data does not \
             appear to be a protobuf message, expected prefix [107 56 115 0] ({\"kind\":\"ConfigMap\"})",
        ),
        (
            b"k8s\0",
            "the object provided is unrecognized (must be of type ConfigMap): empty body (6b387300)",
        ),
        (
            &config_map[..40],
            "the object provided is unrecognized (must be of type ConfigMap): unexpected EOF \
             (6b3873000a0f0a0276311209436f6e6669674d6170121b0a110a01611200 ...)",
        ),
        (
            b"k8s\0\x12\x02\x12\x05",
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: unexpected EOF",
        ),
        (
            &bytes(POD),
            "Pod in version \"v1\" cannot be handled as a ConfigMap: converting (Pod) to (ConfigMap): \
             unknown conversion",
        ),
    ];
    for (body, message) in cases {
        let refused = send(&server, "POST", CONFIG_MAPS, body.to_vec()).await;
        assert_eq!((refused.code, &refused.body["message"]), (400, &json!(message)));
    }
    let path = format!("{CONFIG_MAPS}/kube-root-ca.crt");
    let cases: [(&[u8], &str); 2] = [
        (b"k8s\0", "empty body"),
        (&config_map, "decoded object cannot be converted to DeleteOptions: it is a ConfigMap"),
    ];
    for (body, message) in cases {
        let refused = send(&server, "DELETE", &path, body.to_vec()).await;
        assert_eq!((refused.code, &refused.body["message"]), (400, &json!(message)));
    }
    let other = server
        .ask_as(User::master("admin"), "POST", CONFIG_MAPS, "text/plain", Some(&json!({})))
        .await;
    let message = "the body of the request was in an unknown format - accepted media types include: \
                   application/json, application/yaml, application/vnd.kubernetes.protobuf";
    assert_eq!((other.code, &other.body["message"]), (415, &json!(message)));
}
