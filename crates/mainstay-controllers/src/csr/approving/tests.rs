use k8s_openapi::api::core::v1::{NodeAddress, NodeStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::super::tests::{Asked, NOW, approved, with};
use super::*;

fn node(name: &str, ips: &[&str]) -> Arc<Node> {
    let address = |ip: &&str| NodeAddress { type_: "InternalIP".into(), address: (*ip).into() };
    Arc::new(Node {
        metadata: ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() },
        status: Some(NodeStatus {
            addresses: Some(ips.iter().map(address).collect()),
            ..NodeStatus::default()
        }),
        ..Node::default()
    })
}

fn judge_at(
    request: &CertificateSigningRequest,
    nodes: &[Arc<Node>],
    requests: &[Arc<CertificateSigningRequest>],
    now: Timestamp,
) -> Verdict {
    let api_names = ["kubernetes", "10.0.0.1"].map(|name| name.parse().unwrap());
    let api_names = &api_names.into();
    decide(request, &World { nodes, requests, api_names }, now)
}

fn judge(asked: Asked, nodes: &[Arc<Node>]) -> Verdict {
    judge_at(&asked.request(), nodes, &[], NOW.parse().unwrap())
}

fn permission(verdict: &Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Approve { permission, .. } => Some(permission.unwrap_or("none")),
        Verdict::Leave | Verdict::Hold { .. } => None,
    }
}

fn held(verdict: Verdict) -> (&'static str, String) {
    match verdict {
        Verdict::Hold { reason, message } => (reason, message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_gets_a_client_certificate() {
    let new = Asked::of_node("n1");
    assert_eq!(permission(&judge(new, &[])), Some("nodeclient"));
    assert_eq!(permission(&judge(new, &[node("n2", &[])])), Some("nodeclient"));
    // Who has the old one needs no other proof, and no Node.
    let renewed = Asked { user: "system:node:n1", ..new };
    assert_eq!(permission(&judge(renewed, &[node("n1", &[])])), Some("selfnodeclient"));
    assert_eq!(permission(&judge(renewed, &[])), Some("selfnodeclient"));
    // Another node is anybody.
    let claimed = Asked { user: "system:node:n2", ..new };
    for asked in [new, claimed] {
        let (reason, message) = held(judge(asked, &[node("n1", &[])]));
        assert_eq!(reason, "NodeExists");
        assert!(message.contains("kubectl delete node n1"), "{message}");
    }
    let (reason, _) = held(judge(Asked { common_name: "system:node:kubernetes", ..new }, &[]));
    assert_eq!(reason, "NameOfAPI");
    let bound = Asked { token_node: Some("n1"), ..new };
    assert_eq!(permission(&judge(bound, &[])), Some("nodeclient"));
    let (reason, message) = held(judge(Asked { token_node: Some("n2"), ..new }, &[]));
    assert_eq!((reason, &*message), ("OtherNode", "the token is for node n2 and not for n1"));
}

#[test]
fn a_name_is_taken_from_when_its_first_certificate_is_approved() {
    let now: Timestamp = NOW.parse().unwrap();
    let request = Asked::of_node("n1").request();
    let other = Arc::new(approved(Asked::of_node("n1").request()));
    let (reason, _) = held(judge_at(&request, &[], std::slice::from_ref(&other), now));
    assert_eq!(reason, "NodeJoins");
    let later = now + CLAIM;
    assert_eq!(permission(&judge_at(&request, &[], &[other], later)), Some("nodeclient"));
    // Its own, made again after it was approved; another name; one that waits itself.
    let own = Arc::new(approved(request.clone()));
    let else_ = Arc::new(approved(Asked::of_node("n2").request()));
    let waits = Arc::new(with(Asked::of_node("n1").request(), "Held"));
    let found = judge_at(&request, &[], &[own, else_, waits], now);
    assert_eq!(permission(&found), Some("nodeclient"));
}

#[test]
fn what_is_decided_or_not_a_nodes_is_left() {
    let now: Timestamp = NOW.parse().unwrap();
    for kind in ["Approved", "Denied", "Failed"] {
        let request = with(Asked::of_node("n1").request(), kind);
        assert_eq!(judge_at(&request, &[], &[], now), Verdict::Leave, "{kind}");
    }
    let new = Asked::of_node("n1");
    for asked in [
        Asked { signer: super::super::CLIENT, ..new },
        Asked { organization: "system:masters", ..new },
        Asked { common_name: "system:node:", ..new },
        Asked { common_name: "system:node:N 1", ..new },
        Asked { common_name: "jane", ..new },
        Asked { usages: &["digital signature", "client auth", "server auth"], ..new },
        Asked { names: &["n1"], ..new },
        // A serving certificate with a token.
        Asked { user: "system:bootstrap:abcdef", ..Asked::serving(&["n1"]) },
        Asked { user: "system:node:n2", ..Asked::serving(&["n1"]) },
        Asked { usages: &["digital signature", "client auth"], ..Asked::serving(&["n1"]) },
    ] {
        assert_eq!(judge(asked, &[node("n1", &[])]), Verdict::Leave, "{}", asked.common_name);
    }
}

#[test]
fn a_serving_certificate_is_for_what_is_the_nodes_own() {
    let nodes =
        [node("n1", &["10.0.0.7", "fd00::7", "10.0.0.1", "127.0.0.1"]), node("n2", &["fd00::7"])];
    let good = judge(Asked::serving(&["n1", "10.0.0.7"]), &nodes);
    assert_eq!(permission(&good), Some("none"));
    for (names, reason) in [
        (&["n1", "10.0.0.8"][..], "AddressOfOther"),
        (&["n1", "fd00::7"], "AddressOfOther"),
        (&["n1", "127.0.0.1"], "AddressOfOther"),
        // What it says of itself does not make it the API.
        (&["n1", "10.0.0.1"], "NameOfAPI"),
        (&["n1", "kubernetes"], "NameOfAPI"),
        (&["n1", "n2"], "NameOfOther"),
        (&["*.n1"], "NameOfOther"),
    ] {
        let (found, message) = held(judge(Asked::serving(names), &nodes));
        assert_eq!(found, reason, "{names:?}: {message}");
    }
    assert_eq!(held(judge(Asked::serving(&["n1"]), &[])).0, "NodeNotFound");
}
