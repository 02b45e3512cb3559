use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use mainstay_client::Partial;

use super::*;

fn object(name: &str, uid: &str, version: &str, controller: &str) -> Partial {
    let owner = OwnerReference {
        uid: controller.to_owned(),
        controller: Some(true),
        ..OwnerReference::default()
    };
    let annotations = BTreeMap::from([(LAST_APPLIED.to_owned(), "{}".to_owned())]);
    Partial {
        metadata: ObjectMeta {
            namespace: Some("a".into()),
            name: Some(name.into()),
            uid: Some(uid.into()),
            resource_version: Some(version.into()),
            owner_references: (!controller.is_empty()).then(|| vec![owner]),
            managed_fields: Some(Vec::new()),
            annotations: Some(annotations),
            ..ObjectMeta::default()
        },
    }
}

type Told = Arc<Mutex<Vec<String>>>;

/// An informer, and what it tells, as words.
fn informer() -> (Arc<Informer<Partial>>, Told, Subscription) {
    let informer = Arc::new(Informer::new(Arc::default()));
    let told = Arc::new(Mutex::new(Vec::new()));
    let subscription = tell(&informer, &told);
    (informer, told, subscription)
}

fn tell(informer: &Informer<Partial>, told: &Told) -> Subscription {
    let told = told.clone();
    informer.on_change(move |change: &Change<'_, Partial>| {
        let word = |object: Option<&Arc<Partial>>| {
            object.map_or("-".to_owned(), |it| {
                let meta = &it.metadata;
                let version = meta.resource_version.as_deref().unwrap();
                format!("{}@{version}", meta.name.as_deref().unwrap())
            })
        };
        told.lock().unwrap().push(format!("{} {}", word(change.old), word(change.new)));
    })
}

fn taken(told: &Mutex<Vec<String>>) -> Vec<String> {
    std::mem::take(&mut told.lock().unwrap())
}

#[test]
fn changes_are_told_as_they_are() {
    let (informer, told, _subscription) = informer();
    informer.replace(vec![object("x", "1", "1", ""), object("y", "2", "2", "")], "2");
    assert_eq!(taken(&told), ["- x@1", "- y@2"]);
    informer.heard(object("x", "1", "3", ""));
    informer.heard(object("x", "1", "3", ""));
    assert_eq!(taken(&told), ["x@1 x@3"]);
    informer.deleted(object("x", "1", "4", ""));
    informer.deleted(object("x", "1", "4", ""));
    assert_eq!(taken(&told), ["x@3 -"]);
    // What went while nobody watched.
    informer.replace(vec![object("z", "3", "5", "")], "5");
    assert_eq!(taken(&told), ["- z@5", "y@2 -"]);
    // Another one of the same name.
    informer.heard(object("z", "4", "6", ""));
    assert_eq!(taken(&told), ["z@5 -", "- z@6"]);
}

#[test]
fn who_comes_later_is_told_of_what_is_there() {
    let (informer, told, subscription) = informer();
    informer.heard(object("x", "1", "1", ""));
    let _second = tell(&informer, &told);
    assert_eq!(taken(&told), ["- x@1", "- x@1"]);
    drop(subscription);
    informer.heard(object("x", "1", "2", ""));
    assert_eq!(taken(&told), ["x@1 x@2"]);
}

#[test]
fn objects_are_found_by_their_controller() {
    let (informer, _told, _subscription) = informer();
    let names = |uid: &str| -> Vec<String> {
        let objects = informer.of_controller(uid);
        objects.iter().map(|it| it.metadata.name.clone().unwrap()).collect()
    };
    informer.replace(vec![object("x", "1", "1", "c"), object("y", "2", "2", "c")], "2");
    assert_eq!(names("c"), ["x", "y"]);
    informer.heard(object("x", "1", "3", "d"));
    assert_eq!((names("c"), names("d")), (vec!["y".to_owned()], vec!["x".to_owned()]));
    informer.deleted(object("y", "2", "4", "c"));
    assert!(names("c").is_empty() && informer.objects().by_controller.len() == 1);
    informer.heard(object("x", "1", "5", ""));
    assert_eq!((informer.orphans("a").len(), informer.orphans("b").len()), (1, 0));
    assert_eq!(informer.reached(), 5);
    assert_eq!(informer.of_namespace("a").len(), 1);
    assert!(informer.of_namespace("").is_empty() && informer.of_namespace("b").is_empty());
}

#[test]
fn what_nobody_reads_is_not_kept() {
    let (informer, _told, _subscription) = informer();
    informer.heard(object("x", "1", "1", ""));
    let kept = &informer.all()[0].metadata;
    assert_eq!((&kept.managed_fields, &kept.annotations), (&None, &None));
}

#[tokio::test]
async fn it_is_complete_when_all_were_listed() {
    let (informer, _told, _subscription) = informer();
    let waits = std::time::Duration::ZERO;
    assert!(tokio::time::timeout(waits, informer.complete()).await.is_err());
    informer.replace(Vec::new(), "1");
    informer.complete().await;
}
