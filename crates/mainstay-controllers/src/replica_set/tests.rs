use k8s_openapi::api::apps::v1::{ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{
    ContainerStatus, Pod as KubernetesPod, PodCondition, PodSpec, PodStatus, PodTemplateSpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn set(replicas: i32, min_ready: i32) -> ReplicaSet {
    let labels = [("app".to_owned(), "x".to_owned())].into();
    let template = ObjectMeta { labels: Some(labels), ..ObjectMeta::default() };
    ReplicaSet {
        metadata: ObjectMeta {
            name: Some("set".into()),
            namespace: Some("a".into()),
            uid: Some("set".into()),
            generation: Some(3),
            ..ObjectMeta::default()
        },
        spec: Some(ReplicaSetSpec {
            replicas: Some(replicas),
            min_ready_seconds: Some(min_ready),
            template: Some(PodTemplateSpec { metadata: Some(template), spec: None }),
            ..ReplicaSetSpec::default()
        }),
        status: None,
    }
}

/// A pod that was made at a second, on `node` unless that is empty.
fn pod(name: &str, node: &str, phase: &str, ready: Option<i64>, made: i64) -> Pod {
    let condition = ready.map(|second| PodCondition {
        type_: "Ready".into(),
        status: "True".into(),
        last_transition_time: Some(Time(at(second))),
        ..PodCondition::default()
    });
    let pod = KubernetesPod {
        metadata: ObjectMeta {
            name: Some(name.into()),
            uid: Some(name.into()),
            creation_timestamp: Some(Time(at(made))),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            node_name: (!node.is_empty()).then(|| node.into()),
            ..PodSpec::default()
        }),
        status: Some(PodStatus {
            phase: Some(phase.into()),
            conditions: condition.map(|it| vec![it]),
            ..PodStatus::default()
        }),
    };
    pod.into()
}

fn running(name: &str) -> Pod {
    pod(name, "n1", "Running", Some(0), 0)
}

#[test]
fn as_many_are_made_or_deleted_as_are_missing_or_too_many() {
    let pods: Vec<Arc<Pod>> = ["a", "b"].map(|name| Arc::new(running(name))).into();
    let decide = |set: &ReplicaSet| decide(set, &pods, Vec::new, at(10));
    assert_eq!(decide(&set(2, 0)), Decision::Nothing);
    assert_eq!(decide(&set(5, 0)), Decision::Create(3));
    assert_eq!(decide(&set(1000, 0)), Decision::Create(500));
    assert_eq!(decide(&set(0, 0)), Decision::Delete(pods.clone()));
    let mut unsaid = set(0, 0);
    unsaid.spec.as_mut().unwrap().replicas = None;
    assert!(matches!(decide(&unsaid), Decision::Delete(pods) if pods.len() == 1));
    let mut ending = set(5, 0);
    ending.metadata.deletion_timestamp = Some(Time(at(0)));
    assert_eq!(decide(&ending), Decision::Nothing);
}

#[test]
fn those_go_first_that_are_missed_least() {
    let cheap = |mut pod: Pod, cost: &str| {
        let cost = ("controller.kubernetes.io/pod-deletion-cost".to_owned(), cost.to_owned());
        let mut said = KubernetesPod::default();
        said.metadata.annotations = Some([cost].into());
        pod.deletion_cost = Pod::from(said).deletion_cost;
        pod
    };
    let restarted = |mut pod: Pod, count: i32| {
        let status = ContainerStatus { restart_count: count, ..ContainerStatus::default() };
        pod.status.as_mut().unwrap().container_statuses = Some(vec![status]);
        pod
    };
    // Of each pair the first one goes.
    let pairs = [
        (pod("a", "", "Running", Some(0), 0), running("b")),
        (pod("a", "n1", "Pending", None, 0), pod("b", "n1", "Unknown", None, 0)),
        (pod("a", "n1", "Unknown", None, 0), pod("b", "n1", "Running", None, 0)),
        (pod("a", "n1", "Running", None, 0), running("b")),
        (cheap(running("a"), "-5"), running("b")),
        (running("a"), cheap(running("b"), "7")),
        // It is beside another one.
        (pod("a", "n2", "Running", Some(0), 0), running("b")),
        // It has been ready for two seconds, the other one for a thousand.
        (pod("a", "n1", "Running", Some(998), 0), running("b")),
        (restarted(running("b"), 2), restarted(running("a"), 1)),
        (pod("a", "n1", "Running", Some(0), 998), running("b")),
        // Of about the same age.
        (pod("a", "n1", "Running", Some(0), 400), pod("b", "n1", "Running", Some(0), 410)),
    ];
    let crowd = [Arc::new(pod("c", "n2", "Running", Some(0), 0)), Arc::new(running("over"))];
    for (first, last) in pairs {
        let (first, last) = (Arc::new(first), Arc::new(last));
        for pods in [[first.clone(), last.clone()], [last.clone(), first.clone()]] {
            let mut related = pods.to_vec();
            related.push(crowd[0].clone());
            let gone = rank::first_to_go(&pods, &related, 1, at(1000));
            assert_eq!(gone, std::slice::from_ref(&first));
        }
    }
}

#[test]
fn the_status_counts_pods() {
    let labelled = |mut pod: Pod| {
        pod.metadata.labels = Some([("app".to_owned(), "x".to_owned())].into());
        Arc::new(pod)
    };
    let pods = [
        labelled(running("a")),
        labelled(pod("b", "n1", "Running", Some(95), 0)),
        Arc::new(pod("c", "n1", "Pending", None, 0)),
    ];
    let mut set = set(3, 10);
    let status = status::compute(&set, &pods, 2, None, at(100)).unwrap();
    let expected = ReplicaSetStatus {
        replicas: 3,
        fully_labeled_replicas: Some(2),
        ready_replicas: Some(2),
        available_replicas: Some(1),
        terminating_replicas: Some(2),
        observed_generation: Some(3),
        conditions: None,
    };
    assert_eq!(status, expected);
    assert_eq!(status::next_available(&set, &pods, at(100)), Some(Duration::from_secs(5)));
    assert_eq!(status::next_available(&set, &pods, at(105)), None);
    set.status = Some(status);
    assert_eq!(status::compute(&set, &pods, 2, None, at(100)), None);
    // What is zero may be left out.
    set.status = Some(ReplicaSetStatus {
        terminating_replicas: Some(0),
        observed_generation: Some(3),
        ..ReplicaSetStatus::default()
    });
    assert_eq!(status::compute(&set, &[], 0, None, at(100)), None);
}

#[test]
fn a_failure_is_told_until_it_is_over() {
    let mut set = set(3, 0);
    let status = status::compute(&set, &[], 0, Some("quota"), at(1)).unwrap();
    let condition = &status.conditions.as_ref().unwrap()[0];
    assert_eq!(
        (condition.reason.as_deref(), condition.message.as_deref()),
        (Some("FailedCreate"), Some("quota"))
    );
    set.status = Some(status);
    assert_eq!(status::compute(&set, &[], 0, Some("other"), at(2)), None);
    let well = status::compute(&set, &[], 0, None, at(3)).unwrap();
    assert_eq!(well.conditions, None);
    // Too many of them.
    set.status = None;
    let pods = ["a", "b", "c", "d"].map(|name| Arc::new(running(name)));
    let status = status::compute(&set, &pods, 0, Some("no"), at(4)).unwrap();
    assert_eq!(status.conditions.unwrap()[0].reason.as_deref(), Some("FailedDelete"));
}
