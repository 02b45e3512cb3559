//! Random commits, lists, watches and starts, beside a model that keeps everything.

use std::collections::BTreeMap;

use futures_core::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use proptest::prelude::*;

use super::simulated::SimulatedDisk;
use super::*;
use crate::contract::{changed, expecting};
use crate::{Change, Expect, WatchItem, Write};

#[derive(Clone, Debug)]
enum Step {
    /// Keys with what is expected of each and what becomes of it.
    Commit(BTreeMap<u8, (Hope, bool)>, Durability),
    /// Of a prefix, so many revisions ago, from a key on, so many.
    List(u8, u64, Option<u8>, Option<usize>),
    /// Of a prefix, from so many revisions ago.
    Watch(u8, u64),
    /// Reads so many items of each watch.
    Read(usize),
    Restart,
}

#[derive(Clone, Copy, Debug)]
enum Hope {
    Any,
    Absent,
    There,
    Wrong,
}

type Contents = BTreeMap<String, (String, Revision)>;

/// Every state there ever was.
#[derive(Default)]
struct Model {
    states: BTreeMap<Revision, Contents>,
    events: BTreeMap<Revision, Vec<(String, String, String)>>,
}

struct Watching {
    stream: BoxStream<'static, WatchItem>,
    prefix: String,
    told: Revision,
}

fn step() -> impl Strategy<Value = Step> {
    let hope = prop_oneof![
        4 => Just(Hope::Any),
        1 => Just(Hope::Absent),
        2 => Just(Hope::There),
        1 => Just(Hope::Wrong),
    ];
    let writes = prop::collection::btree_map(0..20_u8, (hope, prop::bool::weighted(0.7)), 0..4);
    let durability = prop_oneof![Just(Durability::Synced), Just(Durability::Lazy)];
    prop_oneof![
        12 => (writes, durability).prop_map(|(writes, durability)| Step::Commit(writes, durability)),
        4 => (0..6_u8, 0..25_u64, prop::option::of(0..20_u8), prop::option::of(0..6_usize))
            .prop_map(|(prefix, ago, after, limit)| Step::List(prefix, ago, after, limit)),
        2 => (0..6_u8, 0..25_u64).prop_map(|(prefix, ago)| Step::Watch(prefix, ago)),
        2 => (0..30_usize).prop_map(Step::Read),
        1 => Just(Step::Restart),
    ]
}

fn key(number: u8) -> String {
    format!(
        "/kind{}/{}",
        number % 3,
        ["a", "b", "ba", "c", "ca", "d", "é"][usize::from(number / 3)]
    )
}

fn prefix(number: u8) -> String {
    ["", "/", "/kind0/", "/kind1/b", "/kind2/é", "/kind2/ca"][usize::from(number)].into()
}

impl Model {
    fn now(&self) -> (Revision, &Contents) {
        self.states.last_key_value().map(|(revision, contents)| (*revision, contents)).unwrap()
    }

    /// The state as of a revision, which may lie between two.
    fn at(&self, revision: Revision) -> &Contents {
        self.states.range(..=revision).next_back().unwrap().1
    }

    fn commit(&mut self, writes: &[Write], answer: Result<Revision, StoreError>) {
        let (now, contents) = self.now();
        let conflict = writes.iter().find(|write| {
            let there = contents.get(&*write.key);
            match write.expect {
                Expect::Any => false,
                Expect::Absent => there.is_some(),
                Expect::At(revision) => there.is_none_or(|(_, written)| *written != revision),
            }
        });
        if let Some(write) = conflict {
            let Err(StoreError::Conflict { key, current }) = answer else { panic!("{answer:?}") };
            assert_eq!(key, write.key);
            let current = current.map(|entry| values(&[entry]).remove(0));
            let there = contents.get(&*key).cloned();
            assert_eq!(current, there.map(|(value, revision)| (key.to_string(), value, revision)));
            return;
        }
        let revision = answer.unwrap();
        let mut contents = contents.clone();
        let mut events = Vec::new();
        for write in writes {
            let key = write.key.to_string();
            let old = contents.get(&key).map(|(value, _)| value.clone());
            match &write.change {
                Change::Put(value) => {
                    let value = String::from_utf8(value.to_vec()).unwrap();
                    contents.insert(key.clone(), (value.clone(), revision));
                    events.push((key, value, old.unwrap_or_default()));
                }
                Change::Delete => {
                    contents.remove(&key);
                    events.extend(old.map(|old| (key, String::new(), old)));
                }
            }
        }
        if events.is_empty() {
            assert_eq!(revision, now);
            return;
        }
        assert!(revision > now);
        self.states.insert(revision, contents);
        self.events.insert(revision, events);
    }

    fn check_list(&self, page: &Page, prefix: &str, options: &ListOptions) {
        let at = options.at.unwrap_or(self.now().0);
        assert_eq!(page.revision, at);
        let after = options.after.as_deref().unwrap_or_default();
        let mut expected = self
            .at(at)
            .iter()
            .filter(|(key, _)| {
                key.starts_with(prefix) && (after.is_empty() || key.as_str() > after)
            })
            .map(|(key, (value, revision))| (key.clone(), value.clone(), *revision))
            .collect::<Vec<_>>();
        let limit = options.limit.unwrap_or(usize::MAX).min(expected.len());
        assert_eq!(page.remaining, expected.len() - limit);
        expected.truncate(limit);
        assert_eq!(values(&page.entries), expected);
    }

    /// Reads items of a watch; false if it has ended.
    fn check_watch(&self, watch: &mut Watching, count: usize, oldest: Revision) -> bool {
        for _ in 0..count {
            let mut expected =
                self.events.range(Revision(watch.told.0 + 1)..).filter_map(|(revision, events)| {
                    let mut events = events.clone();
                    events.retain(|(key, _, _)| key.starts_with(&watch.prefix));
                    (!events.is_empty()).then_some((*revision, events))
                });
            let expected = expected.next();
            match (watch.stream.next().now_or_never(), expected) {
                (None, None) => return true,
                (Some(Some(Ok(events))), Some((revision, expected))) => {
                    assert_eq!(events[0].revision, revision);
                    assert_eq!(events.iter().map(changed).collect::<Vec<_>>(), expected);
                    watch.told = revision;
                }
                (Some(Some(Err(StoreError::Compacted { asked, .. }))), Some((revision, _))) => {
                    assert_eq!(asked, watch.told);
                    assert!(revision <= oldest);
                    return false;
                }
                other => panic!("{other:?}"),
            }
        }
        true
    }
}

async fn follows_the_model(steps: Vec<Step>, options: Options) {
    let disk = SimulatedDisk::new();
    let start = || EmbeddedStore::start(disk.clone(), "disk", options).unwrap();
    let mut store = start();
    let mut model = Model::default();
    model.states.insert(Revision(1), Contents::new());
    let mut watches: Vec<Watching> = Vec::new();
    for (number, step) in steps.into_iter().enumerate() {
        let (now, contents) = model.now();
        assert_eq!(store.known().end, Revision(now.0 + 1));
        match step {
            Step::Commit(wanted, durability) => {
                let mut writes = Vec::new();
                for (name, (hope, is_put)) in wanted {
                    let key = key(name);
                    let there = contents.get(&key).map(|(_, revision)| *revision);
                    let expect = match hope {
                        Hope::Any => Expect::Any,
                        Hope::Absent => Expect::Absent,
                        Hope::There => there.map_or(Expect::Absent, Expect::At),
                        Hope::Wrong => Expect::At(Revision(now.0.saturating_sub(3))),
                    };
                    let write = if is_put { put(&key, &number.to_string()) } else { delete(&key) };
                    writes.push(expecting(expect, write));
                }
                let answer = store.commit(writes.clone(), durability).await;
                model.commit(&writes, answer);
            }
            Step::List(number, ago, after, limit) => {
                let prefix = prefix(number);
                let at = (ago > 0).then(|| Revision(now.0.saturating_sub(ago)));
                let options = ListOptions { at, after: after.map(|name| key(name).into()), limit };
                match store.list(&prefix, &options).await {
                    Ok(page) => model.check_list(&page, &prefix, &options),
                    Err(StoreError::Compacted { asked, oldest }) => {
                        assert!(asked < oldest && oldest == store.known().start);
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Watch(number, ago) => {
                let (prefix, told) = (prefix(number), Revision(now.0.saturating_sub(ago)));
                match store.watch(&prefix, told).await {
                    Ok(stream) => watches.push(Watching { stream, prefix, told }),
                    Err(StoreError::Compacted { asked, oldest }) => {
                        assert!(asked < oldest && oldest == store.known().start);
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            Step::Read(count) => {
                let oldest = store.known().start;
                watches.retain_mut(|watch| model.check_watch(watch, count, oldest));
            }
            Step::Restart => {
                let oldest = store.known().start;
                watches.retain_mut(|watch| model.check_watch(watch, usize::MAX, oldest));
                let known = store.known();
                store.close().unwrap();
                store = start();
                assert_eq!(store.known(), known);
                for watch in &mut watches {
                    watch.told = now;
                    watch.stream = store.watch(&watch.prefix, now).await.unwrap();
                }
            }
        }
    }
    let (_, contents) = model.now();
    let contents = contents.iter();
    let expected: Vec<_> =
        contents.map(|(key, (value, revision))| (key.clone(), value.clone(), *revision)).collect();
    assert_eq!(everything(&store).await, expected);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn it_does_what_the_model_does(steps in prop::collection::vec(step(), 1..150)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(follows_the_model(steps, small()));
    }
}
