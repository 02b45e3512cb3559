use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Time};
use mainstay_client::Sink;

use super::*;
use crate::pods::Pod;

fn labels(app: &str) -> Option<BTreeMap<String, String>> {
    Some(BTreeMap::from([("app".to_owned(), app.to_owned())]))
}

fn set(name: &str, app: &str) -> ReplicaSet {
    ReplicaSet {
        metadata: meta(name),
        spec: Some(ReplicaSetSpec {
            selector: LabelSelector { match_labels: labels(app), ..LabelSelector::default() },
            ..ReplicaSetSpec::default()
        }),
        ..ReplicaSet::default()
    }
}

fn meta(name: &str) -> ObjectMeta {
    ObjectMeta {
        namespace: Some("a".into()),
        name: Some(name.into()),
        uid: Some(name.into()),
        resource_version: Some("1".into()),
        ..ObjectMeta::default()
    }
}

fn pod(name: &str, app: &str, owner: Option<&ReplicaSet>) -> Arc<Pod> {
    let owners = owner.map(|owner| vec![reference(owner)]);
    let metadata = ObjectMeta { labels: labels(app), owner_references: owners, ..meta(name) };
    let mut pod = Pod::default();
    pod.metadata = metadata;
    Arc::new(pod)
}

fn ending(mut pod: Arc<Pod>) -> Arc<Pod> {
    Arc::make_mut(&mut pod).metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    pod
}

#[test]
fn pods_are_taken_and_let_go_by_their_labels() {
    let (mut one, other) = (set("one", "x"), set("other", "x"));
    let pods = || {
        vec![
            pod("own", "x", Some(&set("one", "x"))),
            pod("own-other", "x", Some(&other)),
            pod("changed", "y", Some(&set("one", "x"))),
            pod("free", "x", None),
            pod("free-other", "y", None),
            ending(pod("free-ending", "x", None)),
        ]
    };
    let names = |pods: &[Arc<Pod>]| -> Vec<String> {
        pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect()
    };
    let decision = decide(&one.metadata, &one.selector(), pods());
    assert_eq!(names(&decision.own), ["own"]);
    assert_eq!(names(&decision.adopt), ["free"]);
    assert_eq!(names(&decision.release), ["changed"]);
    // One that goes takes and lets go nothing.
    one.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    let decision = decide(&one.metadata, &one.selector(), pods());
    assert_eq!(names(&decision.own), ["own"]);
    assert!(decision.adopt.is_empty() && decision.release.is_empty());
}

#[test]
fn a_change_is_about_whoever_controls_the_object_or_would() {
    let sets = Informer::new(Arc::default());
    let (one, two) = (set("one", "x"), set("two", "x"));
    sets.replace(vec![one.clone(), two.clone(), set("three", "y")], "1");
    let about = |old: Option<&Arc<Pod>>, new: Option<&Arc<Pod>>| -> Vec<String> {
        claimants(&sets, &Change { old, new }).into_iter().map(|key| key.name).collect()
    };
    let (owned, free) = (pod("p", "x", Some(&one)), pod("p", "x", None));
    assert_eq!(about(None, Some(&owned)), ["one"]);
    assert_eq!(about(Some(&owned), None), ["one"]);
    assert_eq!(about(Some(&owned), Some(&pod("p", "x", Some(&two)))), ["one", "two"]);
    assert_eq!(about(None, Some(&free)), ["one", "two"]);
    assert_eq!(about(Some(&owned), Some(&free)), ["one", "two"]);
    assert_eq!(about(Some(&free), Some(&free)), Vec::<String>::new());
    assert_eq!(about(Some(&free), Some(&pod("p", "y", None))), ["three"]);
    assert_eq!(about(Some(&free), None), Vec::<String>::new());
    // Another one of its name.
    let mut gone = one.clone();
    gone.metadata.uid = Some("gone".into());
    assert_eq!(about(None, Some(&pod("p", "x", Some(&gone)))), Vec::<String>::new());
}
