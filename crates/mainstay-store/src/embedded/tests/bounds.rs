//! What is kept is bounded, and who is too slow is told so.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::task::JoinSet;

use super::simulated::{Random, SimulatedDisk};
use super::*;
use crate::contract::{assert_pending, next};

async fn write_many(store: &dyn Store, key: &str, count: usize) -> Vec<Revision> {
    let mut revisions = Vec::new();
    for number in 0..count {
        let write = put(key, &number.to_string());
        revisions.push(store.commit(vec![write], Durability::Lazy).await.unwrap());
    }
    revisions
}

#[tokio::test]
async fn each_bound_of_the_history_holds() {
    let wide = Window {
        events: usize::MAX,
        bytes: usize::MAX,
        age: Duration::MAX,
        fresh: Duration::MAX,
        aged_bytes: 0,
    };
    let windows = [
        (Window { events: 10, ..wide }, 10..11),
        // About 330 bytes each.
        (Window { bytes: 3300, ..wide }, 8..11),
        (Window { age: Duration::ZERO, ..wide }, 0..2),
        (Window { fresh: Duration::ZERO, ..wide }, 0..2),
        (Window { fresh: Duration::ZERO, aged_bytes: 3300, ..wide }, 8..11),
        (wide, 101..102),
    ];
    for (window, expected) in windows {
        let options = Options { window, ..Options::default() };
        let store = EmbeddedStore::start(SimulatedDisk::new(), "disk", options).unwrap();
        let revisions = write_many(&store, "a", 100).await;
        let known = store.known();
        assert_eq!(known.end.0, revisions[99].0 + 1);
        let length = known.end.0 - known.start.0 - 1;
        assert!(
            expected.contains(&length) || length == 100 && expected.contains(&101),
            "{known:?}"
        );
        // The oldest that is known can be used, and the one before it cannot.
        let at = |revision| ListOptions { at: Some(revision), ..ListOptions::default() };
        let page = store.list("", &at(known.start)).await.unwrap();
        assert_eq!(page.revision, known.start);
        drop(store.watch("", known.start).await.unwrap());
        let older = Revision(known.start.0 - 1);
        let error = store.list("", &at(older)).await.unwrap_err().to_string();
        let oldest = known.start.0;
        let expected =
            format!("revision {} has been compacted; the oldest known is {oldest}", older.0);
        assert_eq!(error, expected);
        assert_eq!(store.watch("", older).await.err().unwrap().to_string(), expected);
    }
}

#[tokio::test]
async fn a_watch_that_is_too_slow_ends() {
    let store = EmbeddedStore::start(SimulatedDisk::new(), "disk", small()).unwrap();
    let start = commit(&store, vec![put("slow/a", "1")]).await;
    let mut slow = store.watch("slow/", start).await.unwrap();
    let mut quiet = store.watch("quiet/", start).await.unwrap();
    let mut behind = store.watch("slow/", start).await.unwrap();
    let first = write_many(&store, "slow/a", 10).await;
    assert_eq!(next(&mut behind).unwrap()[0].revision, first[0]);
    write_many(&store, "slow/a", 20).await;
    for (watch, told) in [(&mut slow, start), (&mut behind, first[0])] {
        match next(watch) {
            Err(StoreError::Compacted { asked, oldest }) => {
                assert_eq!((asked, oldest), (told, store.known().start));
            }
            other => panic!("{other:?}"),
        }
        assert!(watch.next().now_or_never().unwrap().is_none());
    }
    // One for which nothing has happened is not slow.
    assert_pending(&mut quiet);
    let revision = commit(&store, vec![put("quiet/a", "1")]).await;
    write_many(&store, "slow/a", 5).await;
    assert_eq!(next(&mut quiet).unwrap()[0].revision, revision);
    assert_pending(&mut quiet);
}

#[tokio::test]
async fn a_watch_that_keeps_up_sees_everything() {
    let store = EmbeddedStore::start(SimulatedDisk::new(), "disk", small()).unwrap();
    let start = commit(&store, vec![put("a", "1")]).await;
    let mut watch = store.watch("a", start).await.unwrap();
    for _ in 0..30 {
        for revision in write_many(&store, "a", 7).await {
            assert_eq!(next(&mut watch).unwrap()[0].revision, revision);
        }
        write_many(&store, "b", 5).await;
    }
    assert_pending(&mut watch);
}

#[tokio::test]
async fn watches_leave_nothing_behind() {
    let store = EmbeddedStore::start(SimulatedDisk::new(), "disk", small()).unwrap();
    let start = commit(&store, vec![put("a", "1")]).await;
    let mut watches = Vec::new();
    for prefix in ["a", "a", "ab", "", "b"] {
        watches.push(store.watch(prefix, start).await.unwrap());
    }
    assert_eq!(store.shared.read().interests.count(), (4, 3));
    watches.truncate(1);
    assert_eq!(store.shared.read().interests.count(), (1, 1));
    let revision = commit(&store, vec![put("a", "2")]).await;
    assert_eq!(next(&mut watches[0]).unwrap()[0].revision, revision);
    drop(watches);
    assert_eq!(store.shared.read().interests.count(), (0, 0));
}

#[tokio::test]
async fn a_thousand_watches_of_one_key_share_what_they_are_told() {
    let store = EmbeddedStore::start(SimulatedDisk::new(), "disk", Options::default()).unwrap();
    let start = commit(&store, vec![put("pod", "1")]).await;
    let mut watches = Vec::new();
    for _ in 0..1000 {
        watches.push(store.watch("pod", start).await.unwrap());
    }
    let revision = commit(&store, vec![put("pod", "2")]).await;
    let first = next(&mut watches[0]).unwrap();
    for watch in &mut watches[1..] {
        let events = next(watch).unwrap();
        assert_eq!(events[0].revision, revision);
        assert!(Arc::ptr_eq(&events, &first));
    }
}

/// More revisions than are reserved at once, and more lazy bytes than may wait.
#[tokio::test]
async fn lazy_commits_without_end_are_written_on_the_way() {
    let disk = SimulatedDisk::new();
    let store = EmbeddedStore::start(disk.clone(), "disk", Options::default()).unwrap();
    let syncs = disk.faults().syncs;
    let revisions = write_many(&store, "a", 5000).await;
    assert!(revisions.is_sorted_by(|one, other| one.0 + 1 == other.0));
    assert!((1..20).contains(&(disk.faults().syncs - syncs)));
    // Whatever of them is lost, no revision comes twice.
    let copy = disk.after_power_cut(&mut Random(1));
    let copy = EmbeddedStore::start(copy, "copy", Options::default()).unwrap();
    assert!(commit(&copy, vec![put("a", "1")]).await > revisions[4999]);

    let syncs = disk.faults().syncs;
    let value = "x".repeat(100 << 10);
    for _ in 0..50 {
        store.commit(vec![put("b", &value)], Durability::Lazy).await.unwrap();
    }
    assert!((4..20).contains(&(disk.faults().syncs - syncs)), "{}", disk.faults().syncs - syncs);
}

/// Watches that read while others write see everything once, in order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_miss_nothing_of_what_many_write() {
    const WRITERS: usize = 4;
    const EACH: usize = 200;
    let store: Arc<dyn Store> =
        Arc::new(EmbeddedStore::start(SimulatedDisk::new(), "disk", Options::default()).unwrap());
    let mut watching = JoinSet::new();
    for number in 0..8 {
        let prefix = ["/", "/0/", "/1/", "/1"][number % 4];
        let count = if prefix == "/" { WRITERS * EACH } else { EACH };
        let mut watch = store.watch(prefix, Revision(1)).await.unwrap();
        watching.spawn(async move {
            let mut told = Vec::new();
            while told.len() < count {
                let events = watch.next().await.unwrap().unwrap();
                assert!(events.iter().all(|event| event.key.starts_with(prefix)));
                told.extend(events.iter().map(|event| (event.revision, event.key.clone())));
            }
            (prefix, told)
        });
    }
    let mut writing = JoinSet::new();
    for writer in 0..WRITERS {
        let store = store.clone();
        writing.spawn(async move {
            for number in 0..EACH {
                let durability = [Durability::Synced, Durability::Lazy][number % 2];
                let write = put(&format!("/{writer}/{number}"), "1");
                store.commit(vec![write], durability).await.unwrap();
            }
        });
    }
    writing.join_all().await;
    let expected = store.list("", &ListOptions::default()).await.unwrap().entries;
    for (prefix, told) in watching.join_all().await {
        let mut expected: Vec<_> = expected
            .iter()
            .filter(|entry| entry.key.starts_with(prefix))
            .map(|entry| (entry.revision, entry.key.clone()))
            .collect();
        expected.sort();
        assert_eq!(told, expected);
    }
}

/// Those who ask at the same time share a sync.
#[tokio::test]
async fn commits_share_a_sync() {
    let disk = SimulatedDisk::new();
    let store = EmbeddedStore::start(disk.clone(), "disk", Options::default()).unwrap();
    let syncs = disk.faults().syncs;
    let writes = (0..200).map(|number| vec![put(&number.to_string(), "1")]);
    let commits = writes.map(|writes| store.commit(writes, Durability::Synced));
    let mut revisions = Vec::new();
    for revision in futures_util::future::join_all(commits).await {
        revisions.push(revision.unwrap().0);
    }
    revisions.dedup();
    assert_eq!(revisions.len(), 200);
    assert!(disk.faults().syncs - syncs < 100, "{}", disk.faults().syncs - syncs);
}
