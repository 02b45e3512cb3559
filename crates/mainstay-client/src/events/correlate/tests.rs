use expect_test::expect;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn occurrence(reason: &str, message: &str, second: i64) -> Occurrence {
    Occurrence {
        about: ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Pod".into()),
            namespace: Some("default".into()),
            name: Some("web-n1".into()),
            uid: Some("static".into()),
            field_path: Some("spec.containers{main}".into()),
            ..ObjectReference::default()
        },
        warning: true,
        reason: reason.into(),
        message: message.into(),
        at: at(second),
    }
}

fn create(write: Option<Write>) -> Event {
    match write {
        Some(Write::Create(event)) => *event,
        other => panic!("not a new event: {other:?}"),
    }
}

#[test]
fn an_event_is_what_a_kubelet_writes() {
    let mut correlator = Correlator::new("kubelet", Some("n1"));
    let event = create(correlator.take(occurrence("BackOff", "Back-off", 0)));
    expect![[r#"
        {
          "apiVersion": "v1",
          "kind": "Event",
          "count": 1,
          "firstTimestamp": "2023-11-14T22:13:20Z",
          "involvedObject": {
            "apiVersion": "v1",
            "fieldPath": "spec.containers{main}",
            "kind": "Pod",
            "name": "web-n1",
            "namespace": "default",
            "uid": "static"
          },
          "lastTimestamp": "2023-11-14T22:13:20Z",
          "message": "Back-off",
          "metadata": {
            "name": "web-n1.17979cfe362a0000",
            "namespace": "default"
          },
          "reason": "BackOff",
          "reportingComponent": "kubelet",
          "reportingInstance": "n1",
          "source": {
            "component": "kubelet",
            "host": "n1"
          },
          "type": "Warning"
        }"#]]
    .assert_eq(&serde_json::to_string_pretty(&event).unwrap());
    let mut node = occurrence("Starting", "Starting kubelet.", 0);
    node.about.namespace = None;
    assert_eq!(create(correlator.take(node)).metadata.namespace.as_deref(), Some("default"));
}

#[test]
fn the_same_again_is_counted() {
    let mut correlator = Correlator::new("kubelet", Some("n1"));
    let first = create(correlator.take(occurrence("BackOff", "Back-off", 0)));
    correlator.take(occurrence("BackOff", "Back-off", 5));
    let Some(Write::Patch { patch, whole }) = correlator.take(occurrence("BackOff", "Back-off", 9))
    else {
        panic!("not a patch")
    };
    assert_eq!(whole.metadata.name, first.metadata.name);
    assert_eq!(whole.first_timestamp, first.first_timestamp);
    expect![[r#"{"count":3,"lastTimestamp":"2023-11-14T22:13:29Z","message":"Back-off"}"#]]
        .assert_eq(&patch.to_string());
}

#[test]
fn what_resembles_it_too_often_is_combined() {
    let mut correlator = Correlator::new("kubelet", Some("n1"));
    let mut said = Vec::new();
    for number in 0..12 {
        let write = correlator.take(occurrence("Failed", &format!("no {number}"), number));
        said.push(match write.unwrap() {
            Write::Create(event) => event.message.unwrap(),
            Write::Patch { whole, .. } => {
                format!("{} x{}", whole.message.unwrap(), whole.count.unwrap())
            }
        });
    }
    expect![[r#"
        no 7
        no 8
        (combined from similar events): no 9
        (combined from similar events): no 10 x2
        (combined from similar events): no 11 x3"#]]
    .assert_eq(&said[7..].join("\n"));
    // Ten minutes later it is something new.
    let later = create(correlator.take(occurrence("Failed", "no 99", 700)));
    assert_eq!(later.message.unwrap(), "no 99");
}

#[test]
fn what_never_stops_is_left_out() {
    let mut correlator = Correlator::new("kubelet", Some("n1"));
    let mut take =
        |second: i64| correlator.take(occurrence(&second.to_string(), "no", second)).is_some();
    assert_eq!((0..40).filter(|second| take(*second)).count(), 25);
    assert!(take(400));
    // A clock that is set back gives nothing, and takes nothing.
    assert!(!take(10));
}

#[test]
fn names_and_messages_have_bounds() {
    let mut correlator = Correlator::new("kubelet", Some("n1"));
    let mut long = occurrence("Failed", &"ä".repeat(5000), 0);
    long.about.name = Some("a.".repeat(126));
    let event = create(correlator.take(long));
    assert_eq!(event.message.unwrap().len(), 1024);
    let name = event.metadata.name.unwrap();
    assert!(name.len() <= 253 && !name.contains(".."), "{name}");
}
