use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

fn resource(kind: &str) -> Arc<Resource> {
    Arc::new(Resource {
        api_version: "v1".into(),
        kind: kind.into(),
        plural: kind.to_lowercase() + "s",
        namespaced: kind != "Node",
        followed: true,
    })
}

/// An owner by UID, which is its name too; a `!` after it lets it wait for this one.
fn owner(text: &str) -> OwnerReference {
    let uid = text.trim_end_matches('!');
    OwnerReference {
        api_version: "v1".into(),
        kind: "Pod".into(),
        name: uid.into(),
        uid: uid.into(),
        block_owner_deletion: text.ends_with('!').then_some(true),
        ..OwnerReference::default()
    }
}

fn seen(uid: &str, owners: &[&str], ending: Ending) -> Seen {
    Seen {
        resource: resource("Pod"),
        key: ObjectKey::new("a", uid),
        uid: uid.into(),
        owners: owners.iter().map(|it| owner(it)).collect(),
        ending,
    }
}

/// What is to be done, in short.
fn words(tasks: Vec<Task>) -> String {
    let words = tasks.into_iter().map(|task| match task {
        Task::Check(uid) => uid,
        Task::Orphan(uid) => format!("orphan:{uid}"),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn an_object_is_looked_at_whose_owner_is_not_known() {
    let mut graph = Graph::default();
    assert_eq!(words(graph.set(seen("p", &["o"], Ending::No))), "p");
    assert!(matches!(graph.ask("p"), Ask::Look(_)));
    // Once it is, there is nothing to look at.
    assert_eq!(words(graph.set(seen("o", &[], Ending::No))), "");
    assert_eq!(graph.ask("p"), Ask::Nothing);
    assert_eq!(words(graph.set(seen("q", &["o"], Ending::No))), "");
    assert_eq!(words(graph.remove("o")), "p q");
    assert!(matches!(graph.ask("q"), Ask::Look(_)));
    assert_eq!(words(graph.remove("p")), "");
    assert_eq!(graph.ask("p"), Ask::Nothing);
}

#[test]
fn an_owner_is_to_be_named_rightly() {
    let table: [fn(&mut OwnerReference); 3] = [
        |owner| owner.name = "x".into(),
        |owner| owner.kind = "Node".into(),
        |owner| owner.api_version = "v2".into(),
    ];
    for wrong in table {
        let mut graph = Graph::default();
        graph.set(seen("o", &[], Ending::No));
        let mut object = seen("p", &["o"], Ending::No);
        wrong(&mut object.owners[0]);
        assert_eq!(words(graph.set(object.clone())), "p");
        assert!(matches!(graph.ask("p"), Ask::Look(_)));
        // The other way round.
        let mut graph = Graph::default();
        graph.set(object);
        assert_eq!(words(graph.set(seen("o", &[], Ending::No))), "p");
    }
    let mut graph = Graph::default();
    graph.set(seen("o", &[], Ending::No));
    let mut elsewhere = seen("p", &["o"], Ending::No);
    elsewhere.key.namespace = "b".into();
    assert_eq!(words(graph.set(elsewhere)), "p");
}

#[test]
fn an_owner_waits_for_what_blocks_it() {
    let mut graph = Graph::default();
    graph.set(seen("o", &[], Ending::No));
    graph.set(seen("p", &["o!"], Ending::No));
    graph.set(seen("q", &["o"], Ending::No));
    assert_eq!(words(graph.set(seen("o", &[], Ending::Foreground))), "p q o");
    assert_eq!(graph.ask("o"), Ask::Waits(vec!["p"]));
    assert!(matches!(graph.ask("p"), Ask::Look(_)) && matches!(graph.ask("q"), Ask::Look(_)));
    // One that waits itself is on its way.
    graph.set(seen("p", &["o!"], Ending::Foreground));
    assert_eq!(graph.ask("o"), Ask::Waits(vec![]));
    assert_eq!(graph.has_dependents("o"), Dependents::Waiting);
    // It goes, or does not block any more, or has another owner.
    for change in [&[][..], &["o"], &["x"]] {
        let mut graph = Graph::default();
        graph.set(seen("o", &[], Ending::Foreground));
        assert_eq!(words(graph.set(seen("p", &["o!"], Ending::No))), "p");
        let tasks = match change {
            [] => graph.remove("p"),
            owners => graph.set(seen("p", owners, Ending::No)),
        };
        assert!(words(tasks).split(' ').any(|uid| uid == "o"), "{change:?}");
        assert!(matches!(graph.ask("o"), Ask::Finish(_)), "{change:?}");
    }
}

#[test]
fn what_is_owned_can_be_let_go() {
    let mut graph = Graph::default();
    graph.set(seen("o", &[], Ending::No));
    graph.set(seen("p", &["o!", "x"], Ending::No));
    assert!(graph.orphans("o").is_none());
    assert_eq!(words(graph.set(seen("o", &[], Ending::Orphan))), "orphan:o");
    let (owner, dependents) = graph.orphans("o").unwrap();
    assert_eq!((owner.uid.as_str(), dependents.len()), ("o", 1));
    assert_eq!(graph.ask("o"), Ask::Nothing);
    graph.set(seen("p", &["x"], Ending::No));
    assert!(graph.orphans("o").unwrap().1.is_empty());
    assert_eq!(graph.has_dependents("o"), Dependents::None);
    assert_eq!(graph.has_dependents("x"), Dependents::Some);
}

#[test]
fn nothing_is_kept_of_what_is_gone() {
    let mut graph = Graph::default();
    for round in 0..2 {
        graph.set(seen("o", &[], Ending::No));
        graph.set(seen("p", &["o!"], Ending::No));
        let (first, last) = if round == 0 { ("o", "p") } else { ("p", "o") };
        graph.remove(first);
        graph.remove(last);
        assert!(graph.objects.is_empty() && graph.dependents.is_empty());
    }
}

#[test]
fn how_an_object_ends_stands_in_its_metadata() {
    let meta = |finalizers: &[&str], ends: bool| ObjectMeta {
        finalizers: Some(finalizers.iter().map(ToString::to_string).collect()),
        deletion_timestamp: ends.then_some(Time(jiff::Timestamp::UNIX_EPOCH)),
        ..ObjectMeta::default()
    };
    for (meta, expected) in [
        (meta(&[ORPHAN], false), Ending::No),
        (meta(&["other"], true), Ending::Plain),
        (meta(&["other", FOREGROUND], true), Ending::Foreground),
        (meta(&[FOREGROUND, ORPHAN], true), Ending::Orphan),
    ] {
        assert_eq!(Ending::of(&meta), expected);
    }
}
