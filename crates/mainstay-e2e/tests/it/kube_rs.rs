//! The embedded API as programs meet it that are written with kube-rs: typed, over TLS, by the
//! kubeconfig that is there for people.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::pin::pin;

use futures_util::{Stream, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Node as KubeNode, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::api::{
    AttachParams, DeleteParams, ListParams, LogParams, Patch, PatchParams, PostParams, WatchEvent,
    WatchParams,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use crate::manifest::pod;
use crate::node::{Node, wait_for};

/// Does something with a client of the node's API.
pub(crate) fn with_client<F: Future<Output = ()>>(node: &Node, act: impl FnOnce(Client) -> F) {
    let path = node.path("root/kubeconfig");
    let kubeconfig = wait_for(|| Kubeconfig::read_from(&path).ok()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
        act(Client::try_from(config).unwrap()).await;
    });
}

fn config_map(name: &str, values: &[(&str, &str)]) -> ConfigMap {
    let pairs = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let mut object = ConfigMap { data: Some(pairs.collect()), ..ConfigMap::default() };
    object.metadata.name = Some(name.to_owned());
    object
}

fn data(object: &ConfigMap) -> BTreeMap<&str, &str> {
    let data = object.data.iter().flatten();
    data.map(|(key, value)| (key.as_str(), value.as_str())).collect()
}

/// Code and reason of a refusal.
#[track_caller]
fn refusal<T: Debug>(result: kube::Result<T>) -> (u16, String) {
    match result {
        Err(kube::Error::Api(status)) => (status.code, status.reason),
        other => panic!("{other:?}"),
    }
}

/// The next event: what it is, which object, and its value `a`.
async fn next(
    events: &mut (impl Stream<Item = kube::Result<WatchEvent<ConfigMap>>> + Unpin),
) -> (&'static str, String, Option<String>) {
    let (what, object) = match events.try_next().await.unwrap().unwrap() {
        WatchEvent::Added(object) => ("added", object),
        WatchEvent::Modified(object) => ("modified", object),
        WatchEvent::Deleted(object) => ("deleted", object),
        other => panic!("{other:?}"),
    };
    (what, object.name_any(), data(&object).get("a").map(|&value| value.to_owned()))
}

/// Those that a field selector finds, when there are any: a pod may run before its node is
/// registered and before its mirror is there.
async fn found<K>(api: &Api<K>, fields: &str) -> Vec<K>
where
    K: Clone + Debug + DeserializeOwned,
{
    let here = ListParams::default().fields(fields);
    let found = api.list(&here).await.unwrap();
    if !found.items.is_empty() {
        return found.items;
    }
    let version = found.metadata.resource_version.unwrap();
    let params = WatchParams::default().fields(fields).disable_bookmarks();
    let mut events = pin!(api.watch(&params, &version).await.unwrap());
    events.try_next().await.unwrap().unwrap();
    api.list(&here).await.unwrap().items
}

async fn text(stream: Option<impl AsyncRead + Unpin>) -> String {
    let mut text = String::new();
    stream.unwrap().read_to_string(&mut text).await.unwrap();
    text
}

#[test]
fn objects_are_made_found_changed_watched_and_deleted() {
    let Some(mut node) = Node::prepare() else { return };
    // Nobody but the test writes ConfigMaps.
    node.arguments.push("--controllers=".to_owned());
    node.launch();
    with_client(&node, |client| async move {
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        let post = PostParams::default();
        let made = api.create(&post, &config_map("one", &[("a", "1")])).await.unwrap();
        assert_eq!(api.get("one").await.unwrap(), made);
        assert_eq!(api.get_opt("none").await.unwrap(), None);
        let taken = api.create(&post, &config_map("one", &[])).await;
        assert_eq!(refusal(taken), (409, "AlreadyExists".to_owned()));

        let from = made.resource_version().unwrap();
        let mut events = pin!(api.watch(&WatchParams::default(), &from).await.unwrap());
        let merge = Patch::Merge(json!({ "data": { "a": "2" } }));
        let own = PatchParams::default();
        let merged = api.patch("one", &own, &merge).await.unwrap();
        assert_eq!(next(&mut events).await, ("modified", "one".to_owned(), Some("2".to_owned())));
        let strategic = Patch::Strategic(json!({ "metadata": { "labels": { "l": "x" } } }));
        api.patch("one", &own, &strategic).await.unwrap();
        next(&mut events).await;

        // What was read before somebody else changed it is not written back.
        let late = api.replace("one", &post, &merged).await;
        assert_eq!(refusal(late), (409, "Conflict".to_owned()));
        let mut whole = api.get("one").await.unwrap();
        whole.data.as_mut().unwrap().insert("b".to_owned(), "3".to_owned());
        let replaced = api.replace("one", &post, &whole).await.unwrap();
        assert_eq!(data(&replaced), BTreeMap::from([("a", "2"), ("b", "3")]));
        next(&mut events).await;

        let apply = |value| Patch::Apply(config_map("one", &[("a", value)]));
        let conflict = api.patch("one", &PatchParams::apply("kube-rs"), &apply("4")).await;
        assert_eq!(refusal(conflict), (409, "Conflict".to_owned()));
        let forced = PatchParams::apply("kube-rs").force();
        let applied = api.patch("one", &forced, &apply("4")).await.unwrap();
        assert_eq!(data(&applied), BTreeMap::from([("a", "4"), ("b", "3")]));
        assert_eq!(next(&mut events).await, ("modified", "one".to_owned(), Some("4".to_owned())));
        // What nobody else wants is gone when it is applied no more.
        let other = Patch::Apply(config_map("one", &[]));
        assert_eq!(data(&api.patch("one", &forced, &other).await.unwrap()).get("a"), None);
        next(&mut events).await;

        api.create(&post, &config_map("two", &[("a", "5")])).await.unwrap();
        assert_eq!(next(&mut events).await, ("added", "two".to_owned(), Some("5".to_owned())));
        let labelled = api.list(&ListParams::default().labels("l=x")).await.unwrap();
        assert_eq!(labelled.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["one"]);
        let first = api.list(&ListParams::default().limit(1)).await.unwrap();
        let more = first.metadata.continue_.unwrap();
        let rest = api.list(&ListParams::default().continue_token(&more)).await.unwrap();
        assert_eq!(first.items.len(), 1);
        assert!(rest.items.iter().any(|object| object.name_any() == "two"), "{rest:?}");

        let deleted = api.delete("two", &DeleteParams::default()).await.unwrap();
        assert!(deleted.right().is_some_and(|status| status.is_success()));
        assert_eq!(next(&mut events).await, ("deleted", "two".to_owned(), Some("5".to_owned())));
        let gone = api.delete("two", &DeleteParams::default()).await;
        assert_eq!(refusal(gone), (404, "NotFound".to_owned()));
        let labelled = ListParams::default().labels("l=x");
        api.delete_collection(&DeleteParams::default(), &labelled).await.unwrap();
        assert_eq!(next(&mut events).await.0, "deleted");
    });
}

#[test]
fn a_static_pod_is_found_read_and_entered() {
    let Some(node) = Node::start() else { return };
    node.put("web.yaml", &pod("web").script("echo hello"));
    node.wait_for_running("web");
    with_client(&node, |client| async move {
        let nodes: Api<KubeNode> = Api::all(client.clone());
        let found = found(&nodes, "metadata.name=n1").await;
        let ready = found[0].status.as_ref().unwrap().conditions.as_ref().unwrap();
        assert!(ready.iter().any(|it| it.type_ == "Ready"), "{ready:?}");
        assert_eq!(nodes.get("n1").await.unwrap().metadata.uid, found[0].metadata.uid);
        assert_eq!(nodes.list(&ListParams::default()).await.unwrap().items.len(), 1);

        let pods: Api<Pod> = Api::default_namespaced(client);
        let found = self::found(&pods, "spec.nodeName=n1").await;
        assert_eq!(found.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["web-n1"]);
        let last = LogParams { tail_lines: Some(1), ..LogParams::default() };
        // What runs has not said it yet, maybe.
        while pods.logs("web-n1", &last).await.unwrap() != "hello\n" {
            tokio::task::yield_now().await;
        }

        let streams = AttachParams::default().stdin(true).stderr(true);
        let script = "read line; echo \"out $line\"; echo err >&2; exit 3";
        let mut process = pods.exec("web-n1", ["sh", "-c", script], &streams).await.unwrap();
        let status = process.take_status().unwrap();
        let mut stdin = process.stdin().unwrap();
        stdin.write_all(b"in\n").await.unwrap();
        let (out, err) = (process.stdout(), process.stderr());
        assert_eq!(tokio::join!(text(out), text(err)), ("out in\n".to_owned(), "err\n".to_owned()));
        let status: Status = status.await.unwrap();
        assert_eq!(status.reason.as_deref(), Some("NonZeroExitCode"));
        let causes = status.details.unwrap().causes.unwrap();
        assert_eq!(causes[0].message.as_deref(), Some("3"));
        process.join().await.unwrap();
    });
}
