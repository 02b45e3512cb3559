//! The store in one file, on files, on disks that fail, and with processes that are killed.

mod bounds;
mod damage;
mod failing;
mod kill;
mod model;
mod power;
mod simulated;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};

use super::*;
use crate::contract::{self, commit, delete, put, values};

/// A history so small that it is left behind, and moved in the file, all the time.
fn small() -> Options {
    let window = Window { events: 16, ..Window::default() };
    Options { window, ..Options::default() }
}

fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path, Options::default()).unwrap()
}

async fn everything(store: &dyn Store) -> Vec<(String, String, Revision)> {
    values(&store.list("", &ListOptions::default()).await.unwrap().entries)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store: Arc<dyn Store> = Arc::new(open(&path));
    contract::check(&store, "/new").await;
    drop(store);
    let store: Arc<dyn Store> = Arc::new(open(&path));
    contract::check(&store, "/reopened").await;
}

#[tokio::test]
async fn a_new_store_is_empty_at_revision_one() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    assert_eq!(store.known(), Revision(1)..Revision(2));
    let page = store.list("", &ListOptions::default()).await.unwrap();
    assert_eq!(page, Page { entries: Vec::new(), revision: Revision(1), remaining: 0 });
    assert_eq!(commit(&store, vec![put("a", "1")]).await, Revision(2));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut names = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect::<Vec<_>>();
    names.sort();
    assert_eq!(names, ["store", "store.lock"]);
}

#[tokio::test]
async fn a_store_that_was_closed_goes_on_where_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    let first = commit(&store, vec![put("a", "1"), put("b", "1")]).await;
    commit(&store, vec![put("a", "2")]).await;
    let last = store.commit(vec![delete("b")], Durability::Lazy).await.unwrap();
    let known = store.known();
    let all = everything(&store).await;
    store.close().unwrap();

    let store = open(&path);
    assert_eq!(store.known(), known);
    assert_eq!(everything(&store).await, all);
    // What watches and lists have got before goes on: nothing is missing, nothing comes twice.
    let options = ListOptions { at: Some(first), ..ListOptions::default() };
    let older = store.list("", &options).await.unwrap();
    let expected = [("a".into(), "1".into(), first), ("b".into(), "1".into(), first)];
    assert_eq!(values(&older.entries), expected);
    let mut watch = store.watch("", first).await.unwrap();
    let seen = contract::next(&mut watch).unwrap();
    assert_eq!(contract::changed(&seen[0]), ("a".into(), "2".into(), "1".into()));
    let seen = contract::next(&mut watch).unwrap();
    assert_eq!(contract::changed(&seen[0]), ("b".into(), String::new(), "1".into()));
    contract::assert_pending(&mut watch);
    let next = commit(&store, vec![put("c", "1")]).await;
    assert_eq!(next, Revision(last.0 + 1));
    assert_eq!(contract::next(&mut watch).unwrap()[0].revision, next);
}

#[tokio::test]
async fn the_end_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    let first = commit(&store, vec![put("a", "1")]).await;
    let mut watch = store.watch("", first).await.unwrap();
    contract::assert_pending(&mut watch);
    let last = store.commit(vec![put("a", "2")], Durability::Lazy).await.unwrap();
    store.close().unwrap();
    // First what happened, then that nothing more will.
    assert_eq!(contract::next(&mut watch).unwrap()[0].revision, last);
    let error = contract::next(&mut watch).unwrap_err().to_string();
    assert_eq!(error, format!("the store in {} has been closed", path.display()));
    assert!(watch.next().now_or_never().unwrap().is_none());
}

#[test]
fn a_store_is_opened_once() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = open(&path);
    let error = EmbeddedStore::open(&path, Options::default()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }));
    let expected = format!("{} is in use by another process; stop that one first", path.display());
    assert_eq!(error.to_string(), expected);
    drop(store);
    open(&path);
}

#[tokio::test]
async fn what_an_attempt_has_left_is_in_nobodys_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    std::fs::write(directory.path().join("store.new"), "half of someth").unwrap();
    let store = open(&path);
    commit(&store, vec![put("a", "1")]).await;
    assert!(!directory.path().join("store.new").exists());
}

#[tokio::test]
async fn a_file_that_has_become_too_large_is_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let value = "x".repeat(16 << 10);
    let window = Window { bytes: 1 << 20, ..Window::default() };
    let options = Options { window, ..Options::default() };
    let store = EmbeddedStore::open(&path, options).unwrap();
    for block in 0..20 {
        let keys = (0..64).map(|number| format!("{block}/{number}"));
        let writes = keys.map(|key| put(&key, &value)).collect();
        commit(&store, writes).await;
    }
    for block in 0..20 {
        commit(&store, (0..64).map(|number| delete(&format!("{block}/{number}"))).collect()).await;
    }
    let last = commit(&store, vec![put("kept", "1")]).await;
    let known = store.known();
    let before = std::fs::metadata(&path).unwrap().len();
    // As when it was killed: closing gives some of it back as well.
    std::fs::copy(&path, directory.path().join("copy")).unwrap();
    drop(store);
    let path = directory.path().join("copy");
    let store = EmbeddedStore::open(&path, options).unwrap();
    let after = std::fs::metadata(&path).unwrap().len();
    assert!(before > 8 << 20 && after < before / 4, "{before} {after}");
    assert_eq!(everything(&store).await, [("kept".into(), "1".into(), last)]);
    assert!(store.known().contains(&last));
    assert!(known.end < store.known().end);
}
