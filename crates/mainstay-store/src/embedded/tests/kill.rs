//! A process that is killed at any moment.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use super::simulated::Random;
use super::*;

/// Where the process that is killed finds its file.
const FILE: &str = "MAINSTAY_STORE_KILLED";
/// How many commits it is killed after, at most; it may have begun more.
const COMMITS: usize = 300;
const ROUNDS: usize = 8;

/// Commits, and says what was answered, until it is killed. Of a test run, it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child() {
    let Some(path) = std::env::var_os(FILE) else { return };
    let store: Arc<dyn Store> = Arc::new(EmbeddedStore::open(Path::new(&path), small()).unwrap());
    let begin = store.known().end.0;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..4_u64 {
        let store = store.clone();
        tasks.spawn(async move {
            for number in 0.. {
                let lazy = (number + task) % 3 == 0;
                let durability = if lazy { Durability::Lazy } else { Durability::Synced };
                let (key, value) =
                    (format!("/{task}/{}", number % 10), format!("{begin}-{number}"));
                // Two keys, which are the same at all times.
                let writes =
                    vec![put(&format!("{key}/one"), &value), put(&format!("{key}/two"), &value)];
                let revision = store.commit(writes, durability).await.unwrap();
                println!("done {} {lazy} {key} {value}", revision.0);
            }
        });
    }
    tasks.join_all().await;
}

#[tokio::test]
async fn a_process_that_is_killed_loses_nothing_that_was_synced() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let mut random = Random(std::process::id().into());
    let mut newest = 0;
    for _ in 0..ROUNDS {
        let count = 1 + random.below(COMMITS);
        let answered = kill_after(&path, count);
        let store = EmbeddedStore::open(&path, small()).unwrap();

        // By revision, as they were done.
        let mut states: BTreeMap<String, (u64, String)> = BTreeMap::new();
        let entries = everything(&store).await;
        for pair in entries.chunks(2) {
            let [(one, value, at), (two, other, also)] = pair else { panic!("{pair:?}") };
            assert_eq!((value, at), (other, also), "{one} {two}");
            states.insert(one.trim_end_matches("/one").into(), (at.0, value.clone()));
        }
        let kept = states.values().map(|(revision, _)| *revision).max().unwrap();
        let synced = answered.iter().filter(|(_, (lazy, _, _))| !lazy).map(|(at, _)| *at).max();
        assert!(synced.is_none_or(|synced| kept >= synced));
        // All up to the last that is there are there: the last of each key is as it was answered.
        let mut last: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
        for (revision, (_, key, value)) in answered.range(..=kept) {
            last.insert(key, (*revision, value));
        }
        for (key, (revision, value)) in last {
            let (found, there) = &states[key];
            assert!(*found >= revision, "{key} is at {found} and was at {revision}");
            assert!(*found > revision || there == value);
        }
        // Those who have seen more are told that it is lost, and it is never seen again.
        for (revision, _) in answered.range(kept + 1..) {
            let error = store.watch("", Revision(*revision)).await.err().unwrap();
            assert!(matches!(error, StoreError::Compacted { .. }), "{error}");
        }
        let begun = store.known().end.0;
        assert!(begun > newest);
        newest = answered.last_key_value().map_or(begun, |(revision, _)| begun.max(*revision));
    }
}

/// What was answered, by revision: whether it was lazy, the key and the value.
fn kill_after(path: &Path, count: usize) -> BTreeMap<u64, (bool, String, String)> {
    #[expect(clippy::disallowed_methods, reason = "the test kills a process of its own")]
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "embedded::tests::kill::child", "--nocapture"])
        .env(FILE, path)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut answered = BTreeMap::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut read = |lines: &mut dyn Iterator<Item = std::io::Result<String>>, most: usize| {
        for line in lines.map_while(Result::ok).filter(|line| line.contains("done ")).take(most) {
            let line = &line[line.find("done ").unwrap()..];
            let words: Vec<&str> = line.split(' ').collect();
            // The last line may be cut off.
            let [_, revision, lazy, key, value] = words[..] else { continue };
            let Ok(revision) = revision.parse() else { continue };
            answered.insert(revision, (lazy == "true", key.to_owned(), value.to_owned()));
        }
    };
    read(&mut lines, count);
    child.kill().unwrap();
    child.wait().unwrap();
    // What was answered and not read yet counts as well.
    read(&mut lines, usize::MAX);
    answered
}
