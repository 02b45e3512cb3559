//! An etcd that is full, that does not let one in, and what is none.

use std::io::{Read, Write as _};
use std::net::TcpListener;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use mainstay_grpc::Encoded;
use mainstay_grpc::server::{Reply, Service, serve};
use prost::Message as _;
use tokio::net::UnixListener;

use super::*;
use crate::etcd::wire::{KeyValue, RangeRequest, ResponseHeader};

async fn refusal(options: &Options) -> String {
    timeout(PATIENCE, EtcdStore::open(options)).await.expect("in time").err().unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_etcd_says_so_and_goes_on_when_there_is_room() {
    let world = world(1, &["--quota-backend-bytes=4194304"]);
    let store = world.open().await;
    let value = "x".repeat(500_000);
    let mut last = Revision(0);
    let refused = loop {
        assert!(last.0 < 100, "it is never full");
        match store.commit(vec![put("a", &value)], Durability::Synced).await {
            Ok(revision) => last = revision,
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, StoreError::Unavailable(_)));
    assert!(refused.to_string().contains("it is full: compact and defragment it"), "{refused}");
    assert!(store.catch_up().await.unwrap() >= last);
    assert_eq!(store.get("a").await.unwrap().0.unwrap().revision, last);
    world.etcd.ctl_ok(&["compact", &last.0.to_string(), "--physical"]);
    world.etcd.ctl_ok(&["defrag"]);
    world.etcd.ctl_ok(&["alarm", "disarm"]);
    persist(&*store, put("a", "1")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_for_etcd_is_no_fault_of_it() {
    let world = world(1, &[]);
    let store = world.open().await;
    for size in [1_600_000, 3_000_000] {
        let refused = store.commit(vec![put("a", &"x".repeat(size))], Durability::Synced).await;
        assert!(matches!(&refused, Err(StoreError::TooLarge(_))), "{size} {refused:?}");
    }
    commit(&*store, vec![put("a", "1")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn users_are_asked_for_their_names_and_may_lose_their_rights() {
    let world = world(1, &[]);
    let root = ["--user", "root:r"];
    let ctl = |arguments: &[&str]| {
        let arguments = [&root[..], arguments].concat();
        world.etcd.ctl_ok(&arguments)
    };
    for arguments in [
        &["user", "add", "root:r"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "mainstay:m"],
        &["role", "add", "objects"],
        &["role", "grant-permission", "objects", "readwrite", "--prefix=true", "/registry/"],
        &["user", "grant-role", "mainstay", "objects"],
    ] {
        world.etcd.ctl_ok(arguments);
    }
    let named = |password: &str| {
        let user = User { name: "mainstay".to_owned(), password: password.to_owned() };
        Options { user: Some(user), ..world.options() }
    };
    // There are users, and they need not say who they are.
    let store = EtcdStore::open(&named("m")).await.unwrap();
    commit(&store, vec![put("a", "0")]).await;
    world.etcd.ctl_ok(&["auth", "enable"]);
    let last = persist(&store, put("a", "1")).await;
    let told = refusal(&world.options()).await;
    assert!(told.contains("user name is empty; it wants to know who asks"), "{told}");
    let told = refusal(&named("wrong")).await;
    assert!(told.contains("authentication failed") && told.contains("--etcd-auth-file"), "{told}");
    let other = EtcdStore::open(&named("m")).await.unwrap();
    let mut watch = other.watch("", last).await.unwrap();

    ctl(&["user", "revoke-role", "mainstay", "objects"]);
    let told =
        store.commit(vec![put("a", "no")], Durability::Synced).await.unwrap_err().to_string();
    assert!(told.contains("permission denied; grant the user everything below"), "{told}");
    assert_eq!(store.get("a").await.unwrap().0.unwrap().revision, last);
    ctl(&["user", "grant-role", "mainstay", "objects"]);
    let last = persist(&store, put("a", "2")).await;
    assert_eq!(coming(&mut watch).await.unwrap()[0].revision, last);

    // Gone altogether, and back.
    ctl(&["user", "delete", "mainstay"]);
    let told =
        store.commit(vec![put("a", "no")], Durability::Synced).await.unwrap_err().to_string();
    assert!(told.contains("authentication failed"), "{told}");
    ctl(&["user", "add", "mainstay:m"]);
    ctl(&["user", "grant-role", "mainstay", "objects"]);
    let last = persist(&store, put("a", "3")).await;
    assert_eq!(coming(&mut watch).await.unwrap()[0].revision, last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_kube_apiserver_wrote_is_not_touched() {
    let world = world(1, &[]);
    let pod = String::from_utf8_lossy(b"k8s\0\x0a\x09\x0a\x02v1").into_owned();
    let store = world.open().await;
    commit(&*store, vec![put("pods/default/b", &pod)]).await;
    let told = refusal(&world.options()).await;
    assert!(
        told.contains("/registry/pods/default/b in etcd was written by a kube-apiserver"),
        "{told}"
    );
}

/// Writes until it is told that what answers is another cluster.
async fn refused_by_another_cluster(store: &EtcdStore) {
    let told = async {
        loop {
            let refused = store.commit(vec![put("a", "2")], Durability::Synced).await.unwrap_err();
            if refused.to_string().contains("it is of another cluster") {
                return;
            }
        }
    };
    timeout(PATIENCE, told).await.expect("it is told why");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_of_two_clusters_are_not_one() {
    let (one, two) = (world(1, &[]), world(1, &[]));
    let endpoints = one.etcd.endpoints().into_iter().chain(two.etcd.endpoints()).collect();
    let store = EtcdStore::open(&at(endpoints)).await.unwrap();
    let first = commit(&store, vec![put("a", "1")]).await;
    one.etcd.suspend(0, true);
    refused_by_another_cluster(&store).await;
    one.etcd.suspend(0, false);
    let other = two.open().await;
    assert_eq!(other.list("", &ListOptions::default()).await.unwrap().entries, []);
    assert!(persist(&store, put("a", "3")).await > first);
}

/// What listens where a member was is another cluster's: nothing may be written to it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_written_to_an_etcd_that_was_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let address = mainstay_testkit::etcd::address();
    let start = |name: &str| {
        let flags = vec![format!("--initial-cluster-token={name}")];
        let extent = Extent { flags, ..Extent::default() };
        Etcd::start_at(address, &directory.path().join(name), 1, extent)
    };
    let first = start("first");
    let store = EtcdStore::open(&at(first.endpoints())).await.unwrap();
    commit(&store, vec![put("a", "1")]).await;
    drop(first);
    let second = start("second");
    refused_by_another_cluster(&store).await;
    assert_eq!(second.ctl_ok(&["get", "--prefix", "/", "--keys-only"]), "");
}

/// An etcd that answers small pages alone, as one does at the other end of a slow link.
struct Slow;

const SLOW_ENTRIES: usize = 300;
const SLOW_PAGE: usize = 100;

impl Service for Slow {
    fn call(
        self: Arc<Self>,
        method: String,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Reply, Status>> {
        Box::pin(async move {
            if method != RANGE {
                return Ok(Reply::Many(futures_util::stream::pending().boxed()));
            }
            let request = RangeRequest::decode(request).unwrap();
            let header = Some(ResponseHeader { cluster_id: 1, revision: 7 });
            if request.count_only {
                let answer = RangeResponse { header, ..RangeResponse::default() };
                return Ok(Reply::One(Encoded::of(&answer)));
            }
            let limit = usize::try_from(request.limit).unwrap();
            if limit > SLOW_PAGE {
                return std::future::pending().await;
            }
            let keys =
                (0..SLOW_ENTRIES).map(|number| Bytes::from(format!("/registry/{number:03}")));
            let mut left = keys.filter(|key| *key >= request.key);
            let kvs = left.by_ref().take(limit).map(|key| KeyValue {
                key,
                mod_revision: 7,
                version: 1,
                value: Bytes::from_static(b"1"),
            });
            let kvs = kvs.collect();
            let answer = RangeResponse { header, kvs, more: left.next().is_some() };
            Ok(Reply::One(Encoded::of(&answer)))
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_come_in_time_is_read_in_smaller_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("s");
    let mut serving = JoinSet::new();
    serving.spawn(serve(UnixListener::bind(&socket).unwrap(), Arc::new(Slow)));
    let options = Options { endpoints: vec![Endpoint::Unix(socket)], ..at(Vec::new()) };
    let store = timeout(PATIENCE, EtcdStore::open(&options)).await.expect("in time").unwrap();
    let there = store.list("", &ListOptions::default()).await.unwrap().entries;
    assert_eq!(there.len(), SLOW_ENTRIES);
}

/// Answers whoever connects with these bytes, for ever.
fn server(answer: &'static [u8]) -> (String, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let mut held = Vec::new();
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.write_all(answer);
            if answer.is_empty() {
                held.push(stream);
            } else {
                let _ = stream.read(&mut [0; 64]);
            }
        }
    });
    ("127.0.0.1".to_owned(), port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_etcd_is_told_so_in_time() {
    let nobody = (mainstay_testkit::etcd::address().to_string(), 2379);
    let cases = [
        (nobody, "nobody listens there"),
        (server(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"), "broke"),
        (server(b"\0\0\0\0garbage that is long enough to be a frame of something"), "broke"),
        (server(b""), "has not answered for"),
    ];
    for (endpoint, expected) in cases {
        let told = refusal(&at(vec![endpoint])).await;
        assert!(told.starts_with("etcd at 127.") && told.contains(expected), "{told}");
    }
}
