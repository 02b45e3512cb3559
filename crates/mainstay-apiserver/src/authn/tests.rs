use std::collections::HashMap;

use http::{HeaderName, HeaderValue};
use mainstay_pki::{BoundObject, Pki, Subject, TokenRequest, Wanted};

use super::*;
use crate::object::Object;

const NOW: &str = "2027-03-04T05:06:07Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn list(items: &[&str]) -> Vec<String> {
    items.iter().map(|it| (*it).to_owned()).collect()
}

/// Objects by kind, namespace and name: the UID, and when the deletion began; and a Secret of a bootstrap
/// token.
#[derive(Default)]
struct Objects(HashMap<(&'static str, String, String), Found>, Option<Object>);

impl Objects {
    fn with(
        mut self,
        kind: Bound,
        namespace: &str,
        name: &str,
        uid: &str,
        deleted: Option<&str>,
    ) -> Self {
        let deletion_timestamp = deleted.map(|it| it.parse().unwrap());
        let found = Found { uid: uid.to_owned(), deletion_timestamp };
        self.0.insert((key(kind), namespace.to_owned(), name.to_owned()), found);
        self
    }
}

fn key(kind: Bound) -> &'static str {
    match kind {
        Bound::ServiceAccount => "serviceaccounts",
        Bound::Pod => "pods",
        Bound::Node => "nodes",
        Bound::Secret => "secrets",
    }
}

#[async_trait::async_trait]
impl Lookup for Objects {
    async fn find(&self, kind: Bound, namespace: &str, name: &str) -> Result<Option<Found>> {
        Ok(self.0.get(&(key(kind), namespace.to_owned(), name.to_owned())).cloned())
    }

    async fn bootstrap_secret(&self, name: &str) -> Result<Option<Object>> {
        Ok(self.1.clone().filter(|secret| secret.name() == name))
    }
}

struct Server {
    _directory: tempfile::TempDir,
    pki: Pki,
    authenticator: Authenticator,
}

fn server() -> Server {
    let directory = tempfile::tempdir().unwrap();
    let (pki, _) = Pki::open(directory.path(), &Wanted::default(), now()).unwrap();
    let file = "secret,jane,42,\"devs,ops\"\nbare,joe,7\n";
    let authenticator = Authenticator {
        keys: pki.tokens().clone(),
        static_tokens: StaticTokens::parse(file).unwrap(),
        issuers: list(&["https://kubernetes.default.svc"]),
        audiences: list(&["https://kubernetes.default.svc"]),
    };
    Server { _directory: directory, pki, authenticator }
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn object(name: &str, uid: &str) -> BoundObject {
    BoundObject { name: name.to_owned(), uid: uid.to_owned() }
}

fn account_token(server: &Server, change: impl FnOnce(&mut TokenRequest)) -> String {
    let mut request = TokenRequest {
        issuer: "https://kubernetes.default.svc".to_owned(),
        audiences: list(&["https://kubernetes.default.svc"]),
        seconds: 3600,
        namespace: "web".to_owned(),
        service_account: object("shop", "sa-1"),
        ..TokenRequest::default()
    };
    change(&mut request);
    server.authenticator.keys.sign(&request, now()).unwrap().0
}

fn world() -> Objects {
    Objects::default().with(Bound::ServiceAccount, "web", "shop", "sa-1", None)
}

#[tokio::test]
async fn who_sends_what() {
    let server = server();
    let admin = ClientCertificate::read(server.pki.admin().certificate()).unwrap();
    let nobody = ClientCertificate { subject: Subject::default(), ..admin.clone() };
    let ended = ClientCertificate {
        not_after: now() - jiff::SignedDuration::from_secs(1),
        ..admin.clone()
    };
    let early = ClientCertificate {
        not_before: now() + jiff::SignedDuration::from_secs(1),
        ..admin.clone()
    };
    let token = account_token(&server, |_| {});
    let bearer = format!("Bearer {token}");
    let account = "system:serviceaccount:web:shop [system:serviceaccounts, system:serviceaccounts:web, system:authenticated]";
    let anonymous = "system:anonymous [system:unauthenticated]";
    let jane = "jane [devs, ops, system:authenticated]";
    for (certificate, authorization, expected) in [
        (None, None, anonymous),
        (Some(&admin), None, "kubernetes-admin [system:masters, system:authenticated]"),
        // The certificate comes first.
        (
            Some(&admin),
            Some("Bearer wrong"),
            "kubernetes-admin [system:masters, system:authenticated]",
        ),
        (Some(&nobody), None, anonymous),
        (Some(&nobody), Some("Bearer secret"), jane),
        (Some(&ended), None, "401"),
        (Some(&early), None, "401"),
        (Some(&ended), Some("Bearer secret"), jane),
        (None, Some("Bearer secret"), jane),
        (None, Some("bearer  secret"), anonymous),
        (None, Some("BEARER secret trailing words"), jane),
        (None, Some("Bearer bare"), "joe [system:authenticated]"),
        (None, Some(bearer.as_str()), account),
        (None, Some("Bearer secret2"), "401"),
        (None, Some("Bearer"), anonymous),
        (None, Some("Bearer "), anonymous),
        (None, Some("Basic c2VjcmV0Og=="), anonymous),
    ] {
        let mut headers =
            headers(&[("x-remote-user", "root"), ("x-remote-extra-a", "b"), ("x-other", "c")]);
        if let Some(text) = authorization {
            headers.insert("authorization", text.parse().unwrap());
        }
        let found = server.authenticator.request(certificate, &mut headers, &world(), now()).await;
        let text = match &found {
            Ok(user) => format!("{} [{}]", user.name, user.groups.join(", ")),
            Err(error) => error.code.as_u16().to_string(),
        };
        assert_eq!(text, expected, "{certificate:?} {authorization:?}");
        if found.is_ok() {
            // Nothing secret and nothing that somebody could mistake for a proof goes on.
            assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-other"]);
        }
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_are_a_wrong_token() {
    let server = server();
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_bytes(b"Bearer \xff").unwrap());
    let found = server.authenticator.request(None, &mut headers, &world(), now()).await;
    assert_eq!(found.unwrap_err().code, 401);
}

#[tokio::test]
async fn tokens_of_websockets() {
    let server = server();
    let upgrade = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
    let protocol = "sec-websocket-protocol";
    // base64url("secret"), base64url("wrong"), base64url("\xff")
    let (good, wrong, binary) = ("c2VjcmV0", "d3Jvbmc", "_w");
    let offer = |token: &str| format!("base64url.bearer.authorization.k8s.io.{token}");
    for (protocols, upgraded, expected) in [
        (vec![format!("{}, v4.channel.k8s.io, v5.channel.k8s.io", offer(good))], true, "jane"),
        (vec!["v4.channel.k8s.io".to_owned(), offer(good)], true, "jane"),
        (vec![format!("{}, v4", offer(good))], false, "system:anonymous"),
        (vec![offer(good)], true, "401"),
        (vec![format!("{}, v4", offer(wrong))], true, "401"),
        (vec![format!("{}, v4", offer(binary))], true, "401"),
        (vec![format!("{}, v4", offer("c2VjcmV0="))], true, "401"),
        (vec![format!("{}, {}, v4", offer(good), offer(good))], true, "401"),
        (vec!["v4".to_owned()], true, "system:anonymous"),
    ] {
        let mut headers = headers(if upgraded { &upgrade } else { &[] });
        for value in &protocols {
            headers.append(protocol, value.parse().unwrap());
        }
        let found = server.authenticator.request(None, &mut headers, &world(), now()).await;
        let text = match &found {
            Ok(user) => user.name.clone(),
            Err(error) => error.code.as_u16().to_string(),
        };
        assert_eq!(text, expected, "{protocols:?}");
        if found.is_ok() {
            let left =
                headers.get_all(protocol).iter().any(|it| it.to_str().unwrap().contains("bearer"));
            assert!(!left, "{headers:?}");
            assert!(headers.get(protocol).unwrap().to_str().unwrap().contains("v4"));
        }
    }
}

#[tokio::test]
async fn what_a_token_is_bound_to_must_be_there() {
    let server = server();
    let minute = "2027-03-04T05:05:07Z";
    let before = "2027-03-04T05:05:06Z";
    let uid = "service account UID (sa-2) does not match claim (sa-1)";
    let gone = "service account token has been invalidated";
    type Change = fn(&mut TokenRequest);
    let none: Change = |_| {};
    let pod: Change = |it| it.pod = Some(object("p", "pod-1"));
    let node: Change = |it| it.node = Some(object("n", "node-1"));
    let pod_on_node: Change = |it| {
        it.pod = Some(object("p", "pod-1"));
        it.node = Some(object("n", "node-1"));
    };
    let secret: Change = |it| it.secret = Some(object("s", "secret-1"));
    let account =
        |uid, deleted| Objects::default().with(Bound::ServiceAccount, "web", "shop", uid, deleted);
    for (change, objects, expected) in [
        (none, account("sa-1", None), Ok(())),
        (none, Objects::default(), Err("serviceaccounts \"shop\" not found")),
        (none, account("sa-2", None), Err(uid)),
        (none, account("sa-1", Some(minute)), Ok(())),
        (none, account("sa-1", Some(before)), Err("service account web/shop has been deleted")),
        (pod, world(), Err(gone)),
        (pod, world().with(Bound::Pod, "web", "p", "pod-1", None), Ok(())),
        (pod, world().with(Bound::Pod, "other", "p", "pod-1", None), Err(gone)),
        (pod, world().with(Bound::Pod, "web", "p", "pod-1", Some(before)), Err(gone)),
        (
            pod,
            world().with(Bound::Pod, "web", "p", "pod-2", None),
            Err("pod UID (pod-2) does not match service account pod ref claim (pod-1)"),
        ),
        // The node of a pod need not be there, the pod is.
        (pod_on_node, world().with(Bound::Pod, "web", "p", "pod-1", None), Ok(())),
        (node, world(), Err(gone)),
        (node, world().with(Bound::Node, "", "n", "node-1", None), Ok(())),
        (
            node,
            world().with(Bound::Node, "", "n", "node-2", None),
            Err("node UID (node-2) does not match service account node ref claim (node-1)"),
        ),
        (secret, world(), Err(gone)),
        (secret, world().with(Bound::Secret, "web", "s", "secret-1", None), Ok(())),
        (
            secret,
            world().with(Bound::Secret, "web", "s", "secret-2", None),
            Err("secret UID (secret-2) does not match service account secret ref claim (secret-1)"),
        ),
    ] {
        let token = account_token(&server, change);
        let found = server.authenticator.token(&token, &[], &objects, now()).await;
        let found = match &found {
            Ok(_) => Ok(()),
            Err(Refusal::Token(text)) => Err(text.as_str()),
            Err(Refusal::Unknown(error)) => panic!("{error:?}"),
        };
        assert_eq!(found, expected, "{:?}", objects.0);
    }
}

#[tokio::test]
async fn what_a_token_tells_of_its_user() {
    let server = server();
    let objects = world().with(Bound::Pod, "web", "p", "pod-1", None);
    let token = account_token(&server, |it| {
        it.pod = Some(object("p", "pod-1"));
        it.node = Some(object("n", "node-1"));
    });
    let found = server.authenticator.token(&token, &[], &objects, now()).await.unwrap();
    assert_eq!(found.audiences, ["https://kubernetes.default.svc"]);
    let mut json = found.user.to_json();
    let extra = json["extra"].as_object_mut().unwrap();
    let id = extra.remove("authentication.kubernetes.io/credential-id").unwrap();
    assert!(id[0].as_str().unwrap().starts_with("JTI="));
    assert_eq!(
        json,
        serde_json::json!({
            "username": "system:serviceaccount:web:shop",
            "uid": "sa-1",
            "groups": ["system:serviceaccounts", "system:serviceaccounts:web", "system:authenticated"],
            "extra": {
                "authentication.kubernetes.io/pod-name": ["p"],
                "authentication.kubernetes.io/pod-uid": ["pod-1"],
                "authentication.kubernetes.io/node-name": ["n"],
                "authentication.kubernetes.io/node-uid": ["node-1"],
            },
        })
    );
}

#[tokio::test]
async fn audiences_that_are_asked_for() {
    let server = server();
    let vault = list(&["vault"]);
    let for_vault = account_token(&server, |it| it.audiences = list(&["vault"]));
    let asked = |token: String, audiences: Vec<String>| {
        let authenticator = &server.authenticator;
        async move {
            let found = authenticator.token(&token, &audiences, &world(), now()).await;
            found.map(|it| it.audiences).ok()
        }
    };
    assert_eq!(asked(for_vault.clone(), vault.clone()).await, Some(vault.clone()));
    assert_eq!(asked(for_vault, Vec::new()).await, None);
    assert_eq!(
        asked("secret".to_owned(), Vec::new()).await,
        Some(server.authenticator.audiences.clone())
    );
    assert_eq!(asked("secret".to_owned(), vault).await, None);
}

#[test]
fn names_of_accounts_and_nodes() {
    for (name, expected) in [
        ("system:serviceaccount:web:shop", Some(("web", "shop"))),
        ("system:serviceaccount:web:a.b", Some(("web", "a.b"))),
        ("system:serviceaccount:web:", None),
        ("system:serviceaccount::shop", None),
        ("system:serviceaccount:web", None),
        ("system:serviceaccount:web:a:b", None),
        ("system:serviceaccount:Web:shop", None),
        ("shop", None),
    ] {
        assert_eq!(user::split_service_account(name), expected, "{name}");
    }
    let node = |name: &str, groups: &[&str]| {
        let user = User { name: name.to_owned(), groups: list(groups), ..User::default() };
        user.node_name().map(str::to_owned)
    };
    assert_eq!(node("system:node:n1", &["system:nodes"]).as_deref(), Some("n1"));
    assert_eq!(node("system:node:", &["system:nodes"]).as_deref(), Some(""));
    assert_eq!(node("system:node:n1", &["nodes"]), None);
    assert_eq!(node("n1", &["system:nodes"]), None);
    assert_eq!(User::node("n1").node_name(), Some("n1"));
}

#[tokio::test]
async fn a_bootstrap_token_is_for_the_server() {
    let server = server();
    let secret = serde_json::json!({
        "metadata": { "name": "bootstrap-token-abcdef", "namespace": "kube-system" },
        "type": "bootstrap.kubernetes.io/token",
        "data": {
            "token-id": "YWJjZGVm",
            "token-secret": "MDEyMzQ1Njc4OWFiY2RlZg==",
            "usage-bootstrap-authentication": "dHJ1ZQ==",
        },
    });
    let objects = Objects(HashMap::new(), Some(Object::from_json(secret)));
    let ask = async |token: &str, audiences: &[&str]| {
        let found = server.authenticator.token(token, &list(audiences), &objects, now()).await;
        found.map(|it| it.user.name).map_err(|error| match error {
            Refusal::Token(why) => why,
            Refusal::Unknown(error) => panic!("{}", error.message),
        })
    };
    let user = Ok("system:bootstrap:abcdef".to_owned());
    let refused = Err("invalid bearer token".to_owned());
    assert_eq!(ask("abcdef.0123456789abcdef", &[]).await, user);
    assert_eq!(ask("abcdef.0123456789abcdef", &["elsewhere"]).await, refused);
    assert_eq!(ask("abcdef.0123456789abcdeg", &[]).await, refused);
    assert_eq!(ask("bbcdef.0123456789abcdef", &[]).await, refused);
}
