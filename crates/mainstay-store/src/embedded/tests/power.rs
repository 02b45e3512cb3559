//! The power is cut at any moment: what was answered as synced is there, and what is there is whole.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use proptest::prelude::*;

use super::simulated::{Random, SimulatedDisk};
use super::*;
use crate::contract::{assert_pending, changed, next};
use crate::{Change, Write};

/// One life of a process: what it commits, and after how many writes the power is cut.
#[derive(Clone, Debug)]
struct Life {
    /// Commits that are asked for at the same time.
    groups: Vec<Vec<Asked>>,
    power_for: u64,
    seed: u64,
}

#[derive(Clone, Debug)]
struct Asked {
    durability: Durability,
    /// A key, and whether it is deleted.
    writes: BTreeMap<u8, bool>,
}

/// A commit that was asked for.
#[derive(Clone, Debug)]
struct Known {
    /// As far as that was answered.
    revision: Option<Revision>,
    synced: bool,
    writes: Vec<Write>,
}

type Contents = BTreeMap<String, String>;

fn life() -> impl Strategy<Value = Life> {
    let writes = prop::collection::btree_map(0..12_u8, prop::bool::weighted(0.3), 1..4);
    let durability = prop_oneof![Just(Durability::Synced), Just(Durability::Lazy)];
    let asked = (durability, writes).prop_map(|(durability, writes)| Asked { durability, writes });
    let groups = prop::collection::vec(prop::collection::vec(asked, 1..4), 1..30);
    (groups, 0..400_u64, any::<u64>()).prop_map(|(groups, power_for, seed)| Life {
        groups,
        power_for,
        seed,
    })
}

fn apply(contents: &mut Contents, writes: &[Write]) {
    for write in writes {
        match &write.change {
            Change::Put(value) => {
                let value = String::from_utf8(value.to_vec()).unwrap();
                contents.insert(write.key.to_string(), value);
            }
            Change::Delete => {
                contents.remove(&*write.key);
            }
        }
    }
}

/// Commits until the power is cut, or everything is done.
async fn live(store: &EmbeddedStore, life: &Life, known: &mut Vec<Known>, counter: &mut u32) {
    for group in &life.groups {
        let mut running = Vec::new();
        let mut asked = Vec::new();
        for Asked { durability, writes } in group {
            *counter += 1;
            let mut writes: Vec<Write> = writes
                .iter()
                .map(|(key, gone)| match gone {
                    true => delete(&format!("/key/{key}")),
                    // Long ones, so that pages fill up.
                    false => put(&format!("/key/{key}"), &format!("{counter:0>300}")),
                })
                .collect();
            // No two states are the same.
            writes.push(put("/last", &counter.to_string()));
            running.push(store.commit(writes.clone(), *durability));
            asked.push((writes, *durability == Durability::Synced));
        }
        let mut failed = false;
        for (result, (writes, synced)) in join_all(running).await.into_iter().zip(asked) {
            let revision = result.ok();
            failed |= revision.is_none();
            known.push(Known { revision, synced: synced && revision.is_some(), writes });
        }
        if failed {
            return;
        }
    }
}

/// Checks what is there after the power came back, and gives it.
async fn check(store: &EmbeddedStore, known: &[Known], start: &Contents) -> Contents {
    let found: Contents =
        everything(store).await.into_iter().map(|(key, value, _)| (key, value)).collect();
    let synced = known.iter().rposition(|commit| commit.synced).map_or(0, |last| last + 1);
    // The state after each commit, from the last that has to be there.
    let mut contents = start.clone();
    let mut kept = None;
    for count in 0..=known.len() {
        if count > 0 {
            apply(&mut contents, &known[count - 1].writes);
        }
        if count >= synced && contents == found {
            kept = Some(count);
        }
    }
    let Some(kept) = kept else {
        panic!("{found:?} is none of the states after {synced} of {known:?} from {start:?}");
    };

    // A watch of what is there goes on; one that has seen what was lost does not.
    let mut at: Option<Revision> = None;
    for (index, commit) in known.iter().enumerate() {
        let Some(revision) = commit.revision else { continue };
        assert!(store.known().end > revision);
        let watch = store.watch("", revision).await;
        if index >= kept && at.is_none_or(|at| revision > at) {
            let error = watch.err().expect("what was lost cannot be watched from");
            assert!(matches!(error, StoreError::Compacted { asked, oldest }
                if asked == revision && oldest > revision));
            let options = ListOptions { at: Some(revision), ..ListOptions::default() };
            assert!(store.list("", &options).await.is_err());
            continue;
        }
        at = Some(revision);
        if revision < store.known().start {
            continue;
        }
        let mut watch = watch.unwrap();
        let mut contents = start.clone();
        for commit in &known[..=index] {
            apply(&mut contents, &commit.writes);
        }
        let mut last = revision;
        for commit in &known[index + 1..kept] {
            let mut changing = contents.clone();
            let events = next(&mut watch).unwrap();
            assert!(events[0].revision > last);
            last = events[0].revision;
            assert!(commit.revision.is_none_or(|revision| revision == last));
            apply(&mut changing, &commit.writes);
            for (key, new, old) in events.iter().map(changed) {
                assert_eq!(contents.get(&key).cloned().unwrap_or_default(), old);
                if new.is_empty() {
                    contents.remove(&key);
                } else {
                    contents.insert(key, new);
                }
            }
            assert_eq!(contents, changing);
        }
        assert_pending(&mut watch);
    }
    found
}

async fn survives(lives: &[Life], options: Options) {
    let mut disk = SimulatedDisk::new();
    let mut start = Contents::new();
    let mut counter = 0;
    let mut newest = Revision(0);
    for life in lives {
        disk.faults().power_for = Some(life.power_for);
        let mut known = Vec::new();
        // The power may be cut while it is opened.
        if let Ok(store) = EmbeddedStore::start(disk.clone(), "disk", options) {
            live(&store, life, &mut known, &mut counter).await;
            newest = newest.max(Revision(store.known().end.0 - 1));
            // It does not end well, unless there is power for it.
            let _ = store.close();
        }
        disk = disk.after_power_cut(&mut Random(life.seed));
        let store = EmbeddedStore::start(disk.clone(), "disk", options).unwrap();
        start = check(&store, &known, &start).await;
        let next = commit(&store, vec![put("/other", &counter.to_string())]).await;
        assert!(next > newest);
        newest = next;
        start.insert("/other".into(), counter.to_string());
        store.close().unwrap();
    }
}

fn run(lives: &[Life], options: Options) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(survives(lives, options));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_takes_nothing_that_was_synced(lives in prop::collection::vec(life(), 1..4)) {
        let retry = Duration::ZERO;
        run(&lives, Options { retry, ..small() });
    }

    #[test]
    fn nor_with_all_of_the_history(lives in prop::collection::vec(life(), 1..4)) {
        let retry = Duration::ZERO;
        run(&lives, Options { retry, ..Options::default() });
    }
}
