//! Three members, of which one or two are away.

use std::collections::BTreeMap;

use super::*;

/// Whoever writes and whoever watches goes on while one member after the other is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_member_may_be_killed_at_a_time() {
    let mut world = world(3, &[]);
    let stores = [world.open().await, world.open().await];
    let start = stores[0].catch_up().await.unwrap();
    let mut watch = stores[1].watch("number/", start).await.unwrap();
    let mut written = BTreeMap::new();
    let mut number = 0;
    for member in [0, 1, 2, 0] {
        world.etcd.kill(member);
        for _ in 0..20 {
            // Whether one was done that failed is not known; so it is one that may be done twice.
            let revision = persist(&*stores[0], put(&format!("number/{number:03}"), "1")).await;
            written.insert(format!("number/{number:03}"), revision);
            number += 1;
        }
        world.etcd.begin(member);
    }
    // Everything that was answered is there, in both.
    for store in &stores {
        let there = caught_up(&**store).await;
        for (key, revision) in &written {
            assert!(there.get(key).is_some_and(|there| there >= revision), "{key} {revision:?}");
        }
        assert_eq!(there.len(), written.len());
    }
    // And told, in order, as often as it was done.
    let (mut last, mut told) = (start, BTreeMap::new());
    while told.get("number/079") != written.get("number/079") {
        let events = coming(&mut watch).await.unwrap();
        assert!(events[0].revision > last);
        last = events[0].revision;
        told.insert(events[0].key.to_string(), last);
    }
    assert_eq!(told, caught_up(&*stores[1]).await);
}

async fn caught_up(store: &dyn Store) -> BTreeMap<String, Revision> {
    let reached = async {
        while store.catch_up().await.is_err() {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, reached).await.unwrap();
    let page = store.list("number/", &ListOptions::default()).await.unwrap();
    page.entries.into_iter().map(|it| (it.key.to_string(), it.revision)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_most_members_nothing_is_written_and_what_is_known_is_read() {
    let mut world = world(3, &[]);
    let store = world.open().await;
    let first = commit(&*store, vec![put("a", "1")]).await;
    let mut watch = store.watch("", first).await.unwrap();
    world.etcd.kill(1);
    world.etcd.kill(2);
    let write = expecting(Expect::At(first), put("a", "2"));
    let refused = store.commit(vec![write.clone()], Durability::Synced).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    // The member that is left has noticed by now that it is alone, or does so in a moment.
    let told = async {
        loop {
            match store.catch_up().await {
                Err(error) if error.to_string().contains("most of its members have to be up") => {
                    return;
                }
                Err(StoreError::Unavailable(_)) => sleep(Duration::from_millis(50)).await,
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(PATIENCE, told).await.expect("it is told why");
    assert_eq!(store.get("a").await.unwrap().0.unwrap().revision, first);
    assert_eq!(store.list("", &ListOptions::default()).await.unwrap().entries.len(), 1);
    contract::assert_pending(&mut watch);
    world.etcd.spawn(1);
    // What it was left in doubt about may have been done after all.
    let settled = async {
        loop {
            match store.commit(vec![write.clone()], Durability::Synced).await {
                Ok(_) => return,
                Err(StoreError::Conflict { current: Some(it), .. }) if &it.value[..] == b"2" => {
                    return;
                }
                Err(StoreError::Unavailable(_)) => sleep(Duration::from_millis(50)).await,
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(PATIENCE, settled).await.expect("it goes on by itself");
    assert_eq!(
        changed(&coming(&mut watch).await.unwrap()[0]),
        ("a".into(), "2".into(), "1".into())
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_stands_still_is_left() {
    let world = world(3, &[]);
    let store = world.open().await;
    let first = commit(&*store, vec![put("a", "1")]).await;
    let mut watch = store.watch("", first).await.unwrap();
    world.etcd.suspend(0, true);
    let revision = persist(&*store, put("b", "1")).await;
    assert!(revision > first);
    assert_eq!(coming(&mut watch).await.unwrap()[0].key, "b".into());
    world.etcd.suspend(0, false);
    commit(&*store, vec![put("c", "1")]).await;
}
