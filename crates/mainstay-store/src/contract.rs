//! What every store does, whatever it keeps its objects in.
//!
//! The cases take any store, also one that others write to, and use keys of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use tokio::task::JoinSet;

use crate::{
    Change, Durability, Entry, Event, Expect, ListOptions, Page, Revision, Store, StoreError,
    WatchItem, Write,
};

/// Checks all of it, with keys that begin with `root`.
pub(crate) async fn check(store: &Arc<dyn Store>, root: &str) {
    conditions(store, &format!("{root}/conditions")).await;
    whole_or_nothing(store, &format!("{root}/whole")).await;
    pages(store, &format!("{root}/pages")).await;
    older_revisions(store, &format!("{root}/older")).await;
    watches(store, &format!("{root}/watches")).await;
    watches_tell_once(store, &format!("{root}/once")).await;
    the_future(store, &format!("{root}/future")).await;
    lazy_and_synced(store, &format!("{root}/lazy")).await;
    many_writers(store, &format!("{root}/many")).await;
    limits(store, &format!("{root}/limits")).await;
}

// === what tests are written with ===

pub(crate) fn put(key: &str, value: &str) -> Write {
    let change = Change::Put(Bytes::copy_from_slice(value.as_bytes()));
    Write { key: key.into(), expect: Expect::Any, change, ttl: None }
}

pub(crate) fn delete(key: &str) -> Write {
    Write { key: key.into(), expect: Expect::Any, change: Change::Delete, ttl: None }
}

pub(crate) fn expecting(expect: Expect, write: Write) -> Write {
    Write { expect, ..write }
}

pub(crate) async fn commit(store: &dyn Store, writes: Vec<Write>) -> Revision {
    store.commit(writes, Durability::Synced).await.unwrap()
}

/// What a page says, in a form that is easily compared.
pub(crate) fn values(entries: &[Entry]) -> Vec<(String, String, Revision)> {
    let value = |entry: &Entry| String::from_utf8(entry.value.to_vec()).unwrap();
    entries.iter().map(|entry| (entry.key.to_string(), value(entry), entry.revision)).collect()
}

/// The next item of a watch, which has to be there.
pub(crate) fn next(watch: &mut BoxStream<'static, WatchItem>) -> WatchItem {
    watch.next().now_or_never().expect("there is one").expect("it has not ended")
}

pub(crate) fn assert_pending(watch: &mut BoxStream<'static, WatchItem>) {
    assert!(watch.next().now_or_never().is_none());
}

/// An event: the key, the value, and the one before; "" stands for none.
pub(crate) fn changed(event: &Event) -> (String, String, String) {
    let text = |value: &Option<Bytes>| {
        String::from_utf8(value.clone().unwrap_or_default().to_vec()).unwrap()
    };
    (event.key.to_string(), text(&event.value), text(&event.previous))
}

fn owned(events: &[(&str, &str, &str)]) -> Vec<(String, String, String)> {
    events
        .iter()
        .map(|(key, new, old)| (key.to_string(), new.to_string(), old.to_string()))
        .collect()
}

// === the cases ===

async fn conditions(store: &Arc<dyn Store>, root: &str) {
    /// What is expected of a key, beside how it is.
    #[derive(Clone, Copy, Debug)]
    enum Of {
        Any,
        Absent,
        Itself,
        Older,
        Newer,
    }
    let cases = [
        (true, Of::Any, true),
        (true, Of::Absent, false),
        (true, Of::Itself, true),
        (true, Of::Older, false),
        (true, Of::Newer, false),
        (false, Of::Any, true),
        (false, Of::Absent, true),
        (false, Of::Older, false),
        (false, Of::Newer, false),
    ];
    let key = &*format!("{root}/key");
    for (there, of, met) in cases {
        for change in [put(key, "2"), delete(key)] {
            let older = commit(&**store, vec![put(key, "0")]).await;
            let now = commit(&**store, vec![if there { put(key, "1") } else { delete(key) }]).await;
            let expect = match of {
                Of::Any => Expect::Any,
                Of::Absent => Expect::Absent,
                Of::Itself => Expect::At(now),
                Of::Older => Expect::At(older),
                Of::Newer => Expect::At(Revision(now.0 + 1)),
            };
            let (before, _) = store.get(key).await.unwrap();
            assert_eq!(before.is_some(), there);
            let is_put = change.change != Change::Delete;
            let write = expecting(expect, change);
            let done = store.commit(vec![write], Durability::Synced).await;
            let (after, _) = store.get(key).await.unwrap();
            match done {
                Ok(revision) => {
                    assert!(met, "{there} {of:?}");
                    assert_eq!(revision > now, is_put || there, "{there} {of:?}");
                    assert_eq!(after.map(|entry| entry.revision), is_put.then_some(revision));
                }
                Err(StoreError::Conflict { key: named, current }) => {
                    assert!(!met, "{there} {of:?}");
                    assert_eq!((&*named, &current), (key, &before));
                    assert_eq!(after, before);
                }
                Err(other) => panic!("{other}"),
            }
        }
    }
}

async fn whole_or_nothing(store: &Arc<dyn Store>, root: &str) {
    let (a, b) = (format!("{root}/a"), format!("{root}/b"));
    let first = commit(&**store, vec![put(&a, "1"), put(&b, "1")]).await;
    assert_eq!(store.get(&a).await.unwrap().0.unwrap().revision, first);
    assert_eq!(store.get(&b).await.unwrap().0.unwrap().revision, first);
    let failed = vec![put(&a, "2"), expecting(Expect::Absent, put(&b, "2"))];
    let error = store.commit(failed, Durability::Synced).await.unwrap_err();
    assert!(matches!(error, StoreError::Conflict { key, .. } if *key == *b));
    assert_eq!(&store.get(&a).await.unwrap().0.unwrap().value[..], b"1");
    // Nothing that changes nothing.
    let (_, now) = store.get(&a).await.unwrap();
    let nothing = store.commit(vec![delete(&format!("{root}/none"))], Durability::Synced).await;
    assert!(nothing.unwrap() >= now);
    assert!(store.commit(Vec::new(), Durability::Synced).await.unwrap() >= now);
}

async fn pages(store: &Arc<dyn Store>, root: &str) {
    let keys = ["a", "a/1", "a/2", "b", "c/1", "ä"];
    for key in keys {
        commit(&**store, vec![put(&format!("{root}/{key}"), key)]).await;
    }
    let all = |prefix: &'static str, after: Option<&'static str>, limit: Option<usize>| async move {
        let options =
            ListOptions { at: None, after: after.map(|key| format!("{root}/{key}").into()), limit };
        let page = store.list(&format!("{root}/{prefix}"), &options).await.unwrap();
        let found = page.entries.iter().map(|entry| entry.key[root.len() + 1..].to_owned());
        (found.collect::<Vec<_>>(), page.remaining)
    };
    let cases = [
        ("", None, None, &keys[..], 0),
        ("", None, Some(2), &["a", "a/1"], 4),
        ("", Some("a/1"), Some(2), &["a/2", "b"], 2),
        ("", Some("a/15"), None, &["a/2", "b", "c/1", "ä"], 0),
        ("", Some("ä"), Some(1), &[], 0),
        ("", None, Some(0), &[], 6),
        ("a/", None, None, &["a/1", "a/2"], 0),
        // Before the prefix, and after it.
        ("a/", Some("a"), None, &["a/1", "a/2"], 0),
        ("a/", Some("b"), None, &[], 0),
        ("none", None, None, &[], 0),
    ];
    for (prefix, after, limit, expected, remaining) in cases {
        let found = all(prefix, after, limit).await;
        let expected = expected.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(found, (expected, remaining), "{prefix} {after:?} {limit:?}");
    }
}

async fn older_revisions(store: &Arc<dyn Store>, root: &str) {
    let key = |name: &str| format!("{root}/{name}");
    let mut pictures: Vec<Page> = Vec::new();
    let steps = [
        vec![put(&key("a"), "1"), put(&key("b"), "1"), put(&key("d"), "1")],
        vec![put(&key("a"), "2")],
        vec![delete(&key("b")), put(&key("c"), "1")],
        vec![put(&key("b"), "3"), delete(&key("a"))],
        vec![delete(&key("c")), delete(&key("d"))],
        vec![put(&key("d"), "5")],
    ];
    for step in steps {
        let revision = commit(&**store, step).await;
        let now = store.list(root, &ListOptions::default()).await.unwrap();
        assert!(now.revision >= revision);
        pictures.push(now);
    }
    for picture in pictures {
        let at = Some(picture.revision);
        let whole = store.list(root, &ListOptions { at, ..ListOptions::default() }).await.unwrap();
        assert_eq!(values(&whole.entries), values(&picture.entries));
        assert_eq!(whole.revision, picture.revision);
        // In chunks, it is the same.
        let (mut chunks, mut after) = (Vec::new(), None);
        loop {
            let options = ListOptions { at, after, limit: Some(1) };
            let page = store.list(root, &options).await.unwrap();
            assert_eq!(page.remaining + page.entries.len() + chunks.len(), picture.entries.len());
            after = page.entries.last().map(|entry| entry.key.clone());
            chunks.extend(page.entries);
            if page.remaining == 0 {
                break;
            }
        }
        assert_eq!(chunks, picture.entries);
    }
}

async fn watches(store: &Arc<dyn Store>, root: &str) {
    let (a, b, other) = (format!("{root}/in/a"), format!("{root}/in/b"), format!("{root}/other"));
    let prefix = format!("{root}/in/");
    let start = commit(&**store, vec![put(&a, "0")]).await;
    let first = commit(&**store, vec![put(&a, "1"), put(&other, "1")]).await;
    let mut watch = store.watch(&prefix, start).await.unwrap();
    // What has been, and what comes; each commit as one.
    let events = next(&mut watch).unwrap();
    assert_eq!(events[0].revision, first);
    assert_eq!(events.iter().map(changed).collect::<Vec<_>>(), owned(&[(&a, "1", "0")]));
    assert_pending(&mut watch);
    commit(&**store, vec![put(&other, "2")]).await;
    assert_pending(&mut watch);
    commit(&**store, vec![put(&b, "2"), put(&a, "2")]).await;
    commit(&**store, vec![delete(&a), put(&other, "3"), delete(&b)]).await;
    commit(&**store, vec![put(&a, "4")]).await;
    let expected = [
        owned(&[(&b, "2", ""), (&a, "2", "1")]),
        owned(&[(&a, "", "2"), (&b, "", "2")]),
        owned(&[(&a, "4", "")]),
    ];
    for expected in expected {
        let events = next(&mut watch).unwrap();
        assert_eq!(events.iter().map(changed).collect::<Vec<_>>(), expected);
        assert!(events.iter().all(|event| event.revision == events[0].revision));
    }
    assert_pending(&mut watch);
}

/// A watch that is begun where another was left goes on there.
async fn watches_tell_once(store: &Arc<dyn Store>, root: &str) {
    let key = format!("{root}/key");
    let mut at = commit(&**store, vec![put(&key, "0")]).await;
    for number in 1..=20 {
        commit(&**store, vec![put(&key, &number.to_string())]).await;
    }
    let mut told = Vec::new();
    for length in [1, 2, 0, 5, 12] {
        let mut watch = store.watch(root, at).await.unwrap();
        for _ in 0..length {
            let events = next(&mut watch).unwrap();
            at = events[0].revision;
            told.extend(events.iter().map(|event| changed(event).1));
        }
    }
    assert_eq!(told, (1..=20).map(|number| number.to_string()).collect::<Vec<_>>());
    // From now on there is nothing.
    assert_pending(&mut store.watch(root, at).await.unwrap());
}

async fn the_future(store: &Arc<dyn Store>, root: &str) {
    let (_, now) = store.get(root).await.unwrap();
    let asked = Revision(now.0 + 1_000_000);
    let is_future = |error: StoreError| match error {
        StoreError::Future { asked: named, current } => {
            assert_eq!(named, asked);
            assert!(current >= now);
        }
        other => panic!("{other}"),
    };
    let options = ListOptions { at: Some(asked), ..ListOptions::default() };
    is_future(store.list(root, &options).await.unwrap_err());
    is_future(store.watch(root, asked).await.err().unwrap());
    assert!(store.known().contains(&now));
    assert!(!store.known().contains(&asked));
}

async fn lazy_and_synced(store: &Arc<dyn Store>, root: &str) {
    let mut watch = store.watch(root, store.get(root).await.unwrap().1).await.unwrap();
    let key = format!("{root}/key");
    let mut last = Revision(0);
    for (number, durability) in
        [Durability::Lazy, Durability::Synced, Durability::Lazy, Durability::Lazy]
            .into_iter()
            .enumerate()
    {
        let write = put(&key, &number.to_string());
        let revision = store.commit(vec![write], durability).await.unwrap();
        assert!(revision > last);
        last = revision;
        // Seen before it is answered, whichever it is.
        let (entry, _) = store.get(&key).await.unwrap();
        assert_eq!(entry.unwrap().revision, revision);
        assert_eq!(next(&mut watch).unwrap()[0].revision, revision);
    }
}

/// Writers that each add one to what they have read lose nothing, and a watch sees all of it.
async fn many_writers(store: &Arc<dyn Store>, root: &str) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 20;
    let key: Arc<str> = format!("{root}/counter").into();
    let start = commit(&**store, vec![put(&key, "0")]).await;
    let mut watch = store.watch(root, start).await.unwrap();
    let mut writers = JoinSet::new();
    for _ in 0..WRITERS {
        let (store, key) = (store.clone(), key.clone());
        writers.spawn(async move {
            let mut done = 0;
            while done < EACH {
                let entry = store.get(&key).await.unwrap().0.unwrap();
                let number: u64 = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
                let write = put(&key, &(number + 1).to_string());
                let write = expecting(Expect::At(entry.revision), write);
                match store.commit(vec![write], Durability::Synced).await {
                    Ok(_) => done += 1,
                    Err(StoreError::Conflict { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        });
    }
    writers.join_all().await;
    let mut seen = BTreeMap::new();
    for number in 1..=WRITERS * EACH {
        let events = next(&mut watch).unwrap();
        assert_eq!(changed(&events[0]).1, number.to_string());
        assert_eq!(changed(&events[0]).2, (number - 1).to_string());
        seen.insert(events[0].revision, number);
    }
    assert_pending(&mut watch);
    assert!(seen.values().is_sorted());
}

async fn limits(store: &Arc<dyn Store>, root: &str) {
    let long = format!("{root}/{}", "x".repeat(crate::KEY_MAX));
    let twice = format!("{root}/twice");
    for writes in [vec![put(&long, "1")], vec![put(&twice, "1"), delete(&twice)]] {
        let error = store.commit(writes, Durability::Synced).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    }
    let entries = store.list(root, &ListOptions::default()).await.unwrap().entries;
    assert!(entries.is_empty(), "{entries:?}");
}
