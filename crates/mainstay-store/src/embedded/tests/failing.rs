//! Disks that are full, or broken for a while.

use std::io::ErrorKind;
use std::time::Duration;

use super::simulated::{Random, SimulatedDisk};
use super::*;
use crate::contract::next;

fn start(disk: &SimulatedDisk, options: Options) -> EmbeddedStore {
    EmbeddedStore::start(disk.clone(), "the disk", options).unwrap()
}

#[tokio::test]
async fn a_full_disk_refuses_commits_until_there_is_space() {
    let disk = SimulatedDisk::new();
    let store = start(&disk, Options { retry: Duration::ZERO, ..Options::default() });
    let first = commit(&store, vec![put("a", "1")]).await;
    let mut watch = store.watch("", first).await.unwrap();
    let lazy = store.commit(vec![put("b", "1")], Durability::Lazy).await.unwrap();
    assert_eq!(next(&mut watch).unwrap()[0].revision, lazy);

    disk.faults().error = Some(ErrorKind::StorageFull);
    for durability in [Durability::Synced, Durability::Lazy, Durability::Synced] {
        let error = store.commit(vec![put("a", "2")], durability).await.unwrap_err();
        let StoreError::Unavailable(text) = error else { panic!("{error}") };
        assert_eq!(
            &*text,
            "the store cannot write the disk (no storage space); make space on its disk, or repair it, \
             and it goes on by itself"
        );
        // Reads go on, as if nothing had been asked for.
        let expected = [("a".into(), "1".into(), first), ("b".into(), "1".into(), lazy)];
        assert_eq!(everything(&store).await, expected);
        assert_eq!(store.known().end, Revision(lazy.0 + 1));
        contract::assert_pending(&mut watch);
    }

    disk.faults().error = None;
    let second = commit(&store, vec![put("a", "3")]).await;
    assert!(second > lazy);
    let events = next(&mut watch).unwrap();
    assert_eq!(events[0].revision, second);
    assert_eq!(contract::changed(&events[0]), ("a".into(), "3".into(), "1".into()));

    // All of it is in the file that was written anew, which needs no end.
    let all = everything(&store).await;
    let copy = disk.after_power_cut(&mut Random(1));
    drop(store);
    for disk in [disk, copy] {
        let store = start(&disk, Options::default());
        assert_eq!(everything(&store).await, all);
        let mut watch = store.watch("", first).await.unwrap();
        assert_eq!(next(&mut watch).unwrap()[0].revision, lazy);
        assert_eq!(next(&mut watch).unwrap()[0].revision, second);
        contract::assert_pending(&mut watch);
    }
}

#[tokio::test]
async fn a_failed_write_is_not_tried_again_at_once() {
    let disk = SimulatedDisk::new();
    let store = start(&disk, Options { retry: Duration::MAX / 4, ..Options::default() });
    disk.faults().error = Some(ErrorKind::StorageFull);
    store.commit(vec![put("a", "1")], Durability::Synced).await.unwrap_err();
    disk.faults().error = None;
    let syncs = disk.faults().syncs;
    store.commit(vec![put("a", "1")], Durability::Synced).await.unwrap_err();
    store.commit(vec![put("a", "1")], Durability::Lazy).await.unwrap_err();
    assert_eq!(disk.faults().syncs, syncs);
    // The end is the last chance.
    store.close().unwrap();
    assert!(disk.faults().syncs > syncs);
}

/// Each operation fails once in turn, and the store goes on after it.
#[tokio::test]
async fn an_error_of_the_disk_at_any_moment_is_survived() {
    let options = Options { retry: Duration::ZERO, ..small() };
    for moment in 0..60 {
        let disk = SimulatedDisk::new();
        let store = start(&disk, options);
        disk.faults().power_for = Some(moment);
        let mut expected = Vec::new();
        for number in 0..40 {
            let key = format!("{:02}", number % 10);
            let value = format!("{number:0>400}");
            let revision = match store.commit(vec![put(&key, &value)], Durability::Synced).await {
                Ok(revision) => revision,
                Err(_) => {
                    disk.faults().power_for = None;
                    commit(&store, vec![put(&key, &value)]).await
                }
            };
            expected.retain(|(there, _, _)| *there != key);
            expected.push((key, value, revision));
        }
        expected.sort();
        assert_eq!(everything(&store).await, expected);
        disk.faults().power_for = None;
        store.close().unwrap();
        let store = start(&disk, options);
        assert_eq!(everything(&store).await, expected);
    }
}

#[tokio::test]
async fn lazy_commits_reach_the_disk_by_themselves() {
    let disk = SimulatedDisk::new();
    let store = start(&disk, Options { lazy: Duration::ZERO, ..Options::default() });
    let syncs = disk.faults().syncs;
    let revision = store.commit(vec![put("a", "1")], Durability::Lazy).await.unwrap();
    while disk.faults().syncs == syncs {
        tokio::task::yield_now().await;
    }
    let copy = start(&disk.after_power_cut(&mut Random(1)), Options::default());
    assert_eq!(everything(&copy).await, [("a".into(), "1".into(), revision)]);
}

#[tokio::test]
async fn lazy_commits_wait_for_the_next_that_is_synced() {
    let disk = SimulatedDisk::new();
    let store = start(&disk, Options::default());
    let syncs = disk.faults().syncs;
    let lazy = store.commit(vec![put("a", "1")], Durability::Lazy).await.unwrap();
    assert_eq!(disk.faults().syncs, syncs);
    // They are lost until then, and whoever has seen them is told so.
    let copy = start(&disk.after_power_cut(&mut Random(1)), Options::default());
    assert!(everything(&copy).await.is_empty());
    let error = copy.watch("", lazy).await.err().unwrap();
    assert!(matches!(error, StoreError::Compacted { asked, .. } if asked == lazy), "{error}");
    // What was there before goes on.
    let mut watch = copy.watch("", Revision(1)).await.unwrap();
    contract::assert_pending(&mut watch);
    let after = commit(&copy, vec![put("b", "1")]).await;
    assert!(after > lazy);
    assert_eq!(next(&mut watch).unwrap()[0].revision, after);
    // Also after another start.
    copy.close().unwrap();

    let synced = commit(&store, vec![put("b", "1")]).await;
    assert_eq!(disk.faults().syncs, syncs + 1);
    let copy = start(&disk.after_power_cut(&mut Random(1)), Options::default());
    let expected = [("a".into(), "1".into(), lazy), ("b".into(), "1".into(), synced)];
    assert_eq!(everything(&copy).await, expected);
}

#[tokio::test]
async fn what_was_lost_stays_lost_over_another_start() {
    let disk = SimulatedDisk::new();
    let store = start(&disk, Options::default());
    let kept = commit(&store, vec![put("a", "1")]).await;
    let lost = store.commit(vec![put("a", "2")], Durability::Lazy).await.unwrap();
    let disk = disk.after_power_cut(&mut Random(1));
    for round in 0..3 {
        let store = start(&disk, Options::default());
        let error = store.watch("", lost).await.err().unwrap();
        assert!(matches!(error, StoreError::Compacted { asked, .. } if asked == lost), "{error}");
        let mut watch = store.watch("", kept).await.unwrap();
        for value in 0..round {
            let events = next(&mut watch).unwrap();
            assert_eq!(contract::changed(&events[0]).1, value.to_string());
        }
        contract::assert_pending(&mut watch);
        commit(&store, vec![put("a", &round.to_string())]).await;
        store.close().unwrap();
    }
}
