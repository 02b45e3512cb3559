//! The store in a real etcd: the contract, several at once, and what may go wrong.

mod faults;
mod members;
mod proxy;
mod tls;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use mainstay_testkit::etcd::{Etcd, Extent};
use tempfile::TempDir;

use super::*;
use crate::Expect;
use crate::contract::{self, changed, commit, delete, expecting, put, values};
use proxy::Proxy;

/// How long what comes by itself may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// An etcd, and where it is.
struct World {
    etcd: Etcd,
    _directory: TempDir,
}

fn world(members: usize, flags: &[&str]) -> World {
    let directory = tempfile::tempdir().unwrap();
    let flags = flags.iter().map(ToString::to_string).collect();
    let etcd =
        Etcd::start(&directory.path().join("etcd"), members, Extent { flags, ..Extent::default() });
    World { etcd, _directory: directory }
}

fn at(endpoints: Vec<(String, u16)>) -> Options {
    let endpoints = endpoints.into_iter().map(|(host, port)| Endpoint::Tcp { host, port });
    Options {
        endpoints: endpoints.collect(),
        tls: None,
        user: None,
        prefix: "/registry/".to_owned(),
        window: Window::default(),
    }
}

impl World {
    fn options(&self) -> Options {
        at(self.etcd.endpoints())
    }

    async fn open(&self) -> Arc<dyn Store> {
        Arc::new(EtcdStore::open(&self.options()).await.unwrap())
    }
}

/// The next item of a watch, which comes by itself.
async fn coming(watch: &mut BoxStream<'static, WatchItem>) -> WatchItem {
    timeout(PATIENCE, watch.next()).await.expect("it comes").expect("it has not ended")
}

/// Tries a commit until it is done.
async fn persist(store: &dyn Store, write: Write) -> Revision {
    let tried = async {
        loop {
            match store.commit(vec![write.clone()], Durability::Synced).await {
                Ok(revision) => return revision,
                Err(StoreError::Unavailable(_)) => sleep(Duration::from_millis(50)).await,
                Err(other) => panic!("{other}"),
            }
        }
    };
    timeout(PATIENCE, tried).await.expect("it is done in the end")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    let world = world(1, &[]);
    let store = world.open().await;
    contract::check(&store, "new").await;
    // Beside another one, and after it.
    let other = world.open().await;
    contract::check(&other, "other").await;
    drop(store);
    contract::check(&other, "alone").await;
    let reopened = world.open().await;
    contract::check(&reopened, "reopened").await;
    let prefix = "reopened/pages/";
    let [seen, there] = [&other, &reopened].map(|store| {
        let store = store.clone();
        async move {
            store.catch_up().await.unwrap();
            values(&store.list(prefix, &ListOptions::default()).await.unwrap().entries)
        }
    });
    assert_eq!(seen.await, there.await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_writes_another_sees() {
    let world = world(1, &[]);
    let (one, other) = (world.open().await, world.open().await);
    let start = one.catch_up().await.unwrap();
    let mut watch = other.watch("pods/", start).await.unwrap();
    let first = commit(&*one, vec![put("pods/a", "1"), put("nodes/n", "1")]).await;
    // Having caught up, it has seen it; and so has its watch.
    assert!(other.catch_up().await.unwrap() >= first);
    assert_eq!(other.get("pods/a").await.unwrap().0.unwrap().revision, first);
    assert_eq!(changed(&contract::next(&mut watch).unwrap()[0]).1, "1");
    // A revision that it has heard of from the other one is not of the future.
    let second = commit(&*one, vec![put("pods/a", "2")]).await;
    let options = ListOptions { at: Some(second), ..ListOptions::default() };
    let page = other.list("pods/", &options).await.unwrap();
    assert_eq!(values(&page.entries), [("pods/a".into(), "2".into(), second)]);
    let third = commit(&*one, vec![delete("pods/a")]).await;
    contract::assert_pending(&mut other.watch("pods/", third).await.unwrap());
    // What it has not seen does not make it write the wrong thing; and then it has seen it.
    let fourth = commit(&*one, vec![put("pods/a", "4")]).await;
    let stale = expecting(Expect::At(second), put("pods/a", "stale"));
    let refused = other.commit(vec![stale], Durability::Synced).await;
    assert!(
        matches!(refused, Err(StoreError::Conflict { current: Some(it), .. }) if it.revision == fourth)
    );
    assert_eq!(other.get("pods/a").await.unwrap().0.unwrap().revision, fourth);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_count_lose_nothing() {
    let world = world(1, &[]);
    let stores = [world.open().await, world.open().await];
    let start = commit(&*stores[0], vec![put("counter", "0")]).await;
    stores[1].catch_up().await.unwrap();
    let counting = stores.iter().map(|store| async move {
        for _ in 0..100 {
            loop {
                let entry = store.get("counter").await.unwrap().0.unwrap();
                let number: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                let write = put("counter", &(number + 1).to_string());
                let write = expecting(Expect::At(entry.revision), write);
                match store.commit(vec![write], Durability::Synced).await {
                    Ok(_) => break,
                    Err(StoreError::Conflict { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }
    });
    futures_util::future::join_all(counting).await;
    for store in &stores {
        store.catch_up().await.unwrap();
        assert_eq!(&store.get("counter").await.unwrap().0.unwrap().value[..], b"200");
        let mut watch = store.watch("counter", start).await.unwrap();
        for number in 1..=200 {
            let events = contract::next(&mut watch).unwrap();
            assert_eq!(changed(&events[0]).1, number.to_string());
            assert_eq!(changed(&events[0]).2, (number - 1).to_string());
        }
        contract::assert_pending(&mut watch);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_write_elsewhere_keeps_nobody_waiting() {
    let world = world(1, &[]);
    let store = world.open().await;
    let mut watch = store.watch("", store.catch_up().await.unwrap()).await.unwrap();
    world.etcd.ctl_ok(&["put", "/elsewhere/a", "1"]);
    let revision = store.catch_up().await.unwrap();
    assert!(store.known().end > revision);
    // Nothing happened but that it was shown.
    assert_eq!(&*contract::next(&mut watch).unwrap()[0].key, MARK);
    assert_eq!(store.list("a", &ListOptions::default()).await.unwrap().entries, []);
    // What changes nothing has no revision of its own, and is not waited for either.
    world.etcd.ctl_ok(&["put", "/elsewhere/a", "2"]);
    commit(&*store, vec![delete("nothing")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wanted_for_some_time_goes_by_itself() {
    let world = world(1, &[]);
    let store = world.open().await;
    let kept = commit(&*store, vec![put("k/kept", "1")]).await;
    // It tells also what goes while more is written.
    let mut watch = store.watch("k/", kept).await.unwrap();
    let short = |key: &str| Write { ttl: Some(Duration::from_secs(1)), ..put(key, "1") };
    for key in ["k/a", "k/b", "k/renewed"] {
        commit(&*store, vec![short(key)]).await;
    }
    // The newest write counts.
    let last = commit(&*store, vec![put("k/renewed", "2")]).await;
    let mut left = BTreeSet::from(["k/a".to_owned(), "k/b".to_owned()]);
    while !left.is_empty() {
        for event in coming(&mut watch).await.unwrap().iter() {
            let (key, value, previous) = changed(event);
            if value.is_empty() {
                assert_eq!(previous, "1", "{key}");
                left.remove(&key);
            }
        }
    }
    let left = values(&store.list("k/", &ListOptions::default()).await.unwrap().entries);
    let expected = [("k/kept".into(), "1".into(), kept), ("k/renewed".into(), "2".into(), last)];
    assert_eq!(left, expected);
    // A lease goes after what it was for.
    let none = async {
        while !world.etcd.ctl_ok(&["lease", "list"]).starts_with("found 0 leases") {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, none).await.expect("no lease is left");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_that_somebody_revokes_is_replaced() {
    let world = world(1, &[]);
    let store = world.open().await;
    let long = |key: &str| Write { ttl: Some(Duration::from_secs(3600)), ..put(key, "1") };
    commit(&*store, vec![long("k/a")]).await;
    let leases = world.etcd.ctl_ok(&["lease", "list"]);
    let lease = leases.lines().nth(1).unwrap().to_owned();
    world.etcd.ctl_ok(&["lease", "revoke", &lease]);
    commit(&*store, vec![long("k/b")]).await;
    let left = store.list("k/", &ListOptions::default()).await.unwrap().entries;
    assert_eq!(left.iter().map(|it| &*it.key).collect::<Vec<_>>(), ["k/b"]);
    // Others share the new one.
    commit(&*store, vec![long("k/c")]).await;
    assert_eq!(world.etcd.ctl_ok(&["lease", "list"]).lines().count(), 2);
}

/// More than one answer has, and more than one page.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn much_is_read_in_pieces() {
    let world = world(1, &[]);
    let store = world.open().await;
    let (large, all) = ("x".repeat(200_000), ListOptions::default());
    let mut last = Revision(0);
    for block in 0..12 {
        let writes = (0..100).map(|number| put(&format!("small/{block:02}/{number:02}"), "1"));
        commit(&*store, writes.collect()).await;
    }
    for number in 0..100 {
        last = commit(&*store, vec![put(&format!("large/{number:02}"), &large)]).await;
    }
    let other = world.open().await;
    assert!(other.known().start >= last);
    for (prefix, count) in [("small/", 1200), ("large/", 100)] {
        let [seen, there] = [&other, &store].map(|it| it.list(prefix, &all));
        let seen = seen.await.unwrap().entries;
        assert_eq!(seen.len(), count);
        assert_eq!(seen, there.await.unwrap().entries);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn history_that_is_gone_meanwhile_is_not_missed_in_silence() {
    let world = world(1, &[]);
    let (address, port) = world.etcd.endpoints().remove(0);
    let proxy = Proxy::start((address.as_str(), port)).await;
    let writer = world.open().await;
    let reader = EtcdStore::open(&at(vec![proxy.endpoint()])).await.unwrap();
    let first = commit(&*writer, vec![put("a", "1"), put("b", "1")]).await;
    reader.catch_up().await.unwrap();
    let mut watch = reader.watch("", first).await.unwrap();
    contract::assert_pending(&mut watch);
    proxy.cut().await;
    commit(&*writer, vec![put("a", "2")]).await;
    let deleted = commit(&*writer, vec![delete("b")]).await;
    let last = commit(&*writer, vec![put("c", "1")]).await;
    world.etcd.ctl_ok(&["compact", &last.0.to_string()]);
    // It goes on telling what it knows.
    assert_eq!(&reader.get("b").await.unwrap().0.unwrap().value[..], b"1");
    proxy.mend();
    let ended = coming(&mut watch).await.unwrap_err();
    assert!(matches!(ended, StoreError::Compacted { asked, .. } if asked == first), "{ended}");
    let now = reader.catch_up().await.unwrap();
    let seen = reader.list("", &ListOptions::default()).await.unwrap().entries;
    let seen = values(&seen).into_iter().filter(|(key, ..)| key != MARK);
    assert_eq!(seen.map(|(key, value, _)| key + &value).collect::<Vec<_>>(), ["a2", "c1"]);
    let refused = reader.watch("", deleted).await.err().unwrap();
    assert!(matches!(refused, StoreError::Compacted { .. }), "{refused}");
    // From there on it tells everything again.
    let mut watch = reader.watch("c", now).await.unwrap();
    let next = commit(&*writer, vec![put("c", "2")]).await;
    assert_eq!(coming(&mut watch).await.unwrap()[0].revision, next);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_where_it_was_when_etcd_was_away() {
    let mut world = world(1, &[]);
    let store = world.open().await;
    let start = commit(&*store, vec![put("a", "0")]).await;
    let mut watch = store.watch("", start).await.unwrap();
    world.etcd.kill(0);
    let refused = store.commit(vec![put("a", "no")], Durability::Synced).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(store.catch_up().await.is_err());
    assert_eq!(store.get("a").await.unwrap().0.unwrap().revision, start);
    contract::assert_pending(&mut watch);
    world.etcd.begin(0);
    let revision = persist(&*store, put("a", "1")).await;
    let events = coming(&mut watch).await.unwrap();
    assert_eq!(
        (events[0].revision, changed(&events[0])),
        (revision, ("a".into(), "1".into(), "0".into()))
    );
}
