//! What is said of how it gets on.

use super::*;

/// A Deployment of three pods that was looked at before, when it progressed for a reason.
fn looked_at(reason: &str, replicas: i32, updated: i32, available: i32) -> Deployment {
    let mut deployment = deployment(&json!({}));
    let is = match reason {
        reason::TIMED_OUT => "False",
        reason::PAUSED => "Unknown",
        _ => "True",
    };
    let mut status = DeploymentStatus {
        replicas: Some(replicas),
        updated_replicas: Some(updated),
        ready_replicas: Some(available),
        available_replicas: Some(available),
        observed_generation: Some(1),
        ..DeploymentStatus::default()
    };
    conditions::set(&mut status, condition(PROGRESSING, is, reason, "before".into(), at(0)));
    deployment.status = Some(status);
    deployment
}

fn new(pods: [i32; 3]) -> ReplicaSet {
    sized(set("new", 2, pods), 3, 4)
}

#[test]
fn a_new_replica_set_is_told() {
    let decision = decide_without_pods(&deployment(&json!({})), &[], at(5));
    let [Write::Create(made), Write::Status { status, revision }] = &*decision.writes else {
        panic!("{decision:?}");
    };
    let expected =
        [(annotations::REVISION, "1"), (annotations::DESIRED, "3"), (annotations::MAX, "4")];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(made.metadata.annotations, Some(expected.into()));
    assert_eq!(revision.as_deref(), Some("1"));
    let created = format!("Created new replica set {:?}", sets::name(made));
    assert_eq!(
        conditions_of(status),
        [
            ["Progressing", "True", "NewReplicaSetCreated", &*created],
            [
                "Available",
                "False",
                "MinimumReplicasUnavailable",
                "Deployment does not have minimum availability.",
            ],
        ]
    );
    let numbers = [status.replicas, status.updated_replicas, status.unavailable_replicas];
    assert_eq!(numbers, [Some(0), Some(0), Some(3)]);
    assert_eq!((status.observed_generation, status.terminating_replicas), (Some(1), Some(0)));
    assert_eq!(decision.again, Some(Duration::from_secs(601)));
}

#[test]
fn progress_is_told_by_what_has_changed() {
    use reason::{CREATED, DONE, TIMED_OUT, UPDATED};
    let progressing = ["True", UPDATED, "ReplicaSet \"new\" is progressing."];
    let done = ["True", DONE, "ReplicaSet \"new\" has successfully progressed."];
    let timed_out = ["False", TIMED_OUT, "ReplicaSet \"new\" has timed out progressing."];
    let before = |reason: &'static str| ["True", reason, "before"];
    // The reason and the numbers before, the new and the old pods, the second, and what is said.
    let rows = [
        (CREATED, [0, 0, 0], [3, 3, 0], [0, 0, 0], 10, progressing),
        (CREATED, [3, 0, 3], [1, 1, 0], [3, 3, 3], 10, progressing),
        (UPDATED, [4, 1, 3], [1, 1, 1], [3, 3, 3], 10, progressing),
        (UPDATED, [4, 1, 3], [1, 1, 0], [2, 2, 2], 10, progressing),
        (UPDATED, [4, 1, 3], [1, 1, 0], [3, 3, 3], 10, before(UPDATED)),
        (UPDATED, [4, 1, 3], [1, 1, 0], [3, 3, 3], 600, before(UPDATED)),
        (UPDATED, [4, 1, 3], [1, 1, 0], [3, 3, 3], 601, timed_out),
        (UPDATED, [4, 1, 3], [1, 1, 1], [3, 3, 3], 601, progressing),
        (TIMED_OUT, [4, 1, 3], [1, 1, 0], [3, 3, 3], 601, ["False", TIMED_OUT, "before"]),
        (TIMED_OUT, [4, 1, 3], [1, 1, 1], [3, 3, 3], 601, progressing),
        (UPDATED, [4, 3, 3], [3, 3, 3], [0, 0, 0], 10, done),
        (TIMED_OUT, [3, 3, 2], [3, 3, 3], [0, 0, 0], 1000, done),
        // What fails after it is done is no lack of progress.
        (DONE, [3, 3, 3], [3, 3, 1], [0, 0, 0], 10_000, before(DONE)),
        (DONE, [3, 0, 3], [1, 1, 0], [3, 3, 3], 10_000, progressing),
        (DONE, [3, 0, 3], [0, 0, 0], [3, 3, 3], 10_000, before(DONE)),
    ];
    for (reason, [replicas, updated, available], new_pods, old_pods, second, expected) in rows {
        let deployment = looked_at(reason, replicas, updated, available);
        let sets = [sized(set("old", 1, old_pods), 3, 4), new(new_pods)];
        let decision = decide_without_pods(&deployment, &sets, at(second));
        let progress = conditions::find(status(&decision), PROGRESSING).unwrap();
        assert_eq!(told(progress)[1..], expected, "{reason} {new_pods:?} {old_pods:?} {second}");
        let since = progress.last_transition_time.as_ref().unwrap().0;
        let is_other = (reason == TIMED_OUT) != (expected[1] == TIMED_OUT);
        assert_eq!(since, if is_other { at(second) } else { at(0) });
    }
}

#[test]
fn it_is_looked_at_again_when_the_deadline_is_over() {
    let sets = [sized(set("old", 1, [3, 3, 3]), 3, 4), new([1, 1, 0])];
    let again =
        |reason, second| decide_without_pods(&looked_at(reason, 4, 1, 3), &sets, at(second)).again;
    assert_eq!(again(reason::UPDATED, 400), Some(Duration::from_secs(201)));
    assert_eq!(again(reason::UPDATED, 600), Some(Duration::from_secs(1)));
    assert_eq!(again(reason::UPDATED, 601), None);
    assert_eq!(again(reason::TIMED_OUT, 400), None);
    let mut lasting = looked_at(reason::UPDATED, 4, 1, 3);
    lasting.spec.as_mut().unwrap().progress_deadline_seconds = Some(i32::MAX);
    let decision = decide_without_pods(&lasting, &sets, at(10_000));
    assert_eq!(decision.again, None);
    assert!(conditions::find(status(&decision), PROGRESSING).is_none());
    let done = [new([3, 3, 3])];
    assert_eq!(decide_without_pods(&looked_at(reason::UPDATED, 3, 3, 2), &done, at(1)).again, None);
}

#[test]
fn a_pause_is_no_lack_of_progress() {
    let sets = [sized(set("old", 1, [3, 3, 3]), 3, 4), new([1, 1, 0])];
    let progress = |reason: &str, is_paused: bool| {
        let mut deployment = looked_at(reason, 4, 1, 3);
        deployment.spec.as_mut().unwrap().paused = Some(is_paused);
        let decision = decide_without_pods(&deployment, &sets, at(300));
        assert!(writes(&decision).is_empty(), "{decision:?}");
        let condition = conditions::find(status(&decision), PROGRESSING).unwrap().clone();
        told(&condition)[1..].join("|")
    };
    let paused = "Unknown|DeploymentPaused|Deployment is paused";
    assert_eq!(progress(reason::UPDATED, true), paused);
    assert_eq!(progress(reason::PAUSED, true), "Unknown|DeploymentPaused|before");
    let resumed = "Unknown|DeploymentResumed|Deployment is resumed";
    assert_eq!(progress(reason::PAUSED, false), resumed);
    let timed_out = "False|ProgressDeadlineExceeded|before";
    assert_eq!(progress(reason::TIMED_OUT, true), timed_out);
    assert_eq!(progress(reason::TIMED_OUT, false), timed_out);
}

#[test]
fn what_keeps_pods_from_being_made_is_told() {
    let failing = |mut set: ReplicaSet, message: &str| {
        let failure = json!([{
            "type": "ReplicaFailure",
            "status": "True",
            "reason": "FailedCreate",
            "message": message,
        }]);
        let status = set.status.as_mut().unwrap();
        status.conditions = serde_json::from_value(failure).unwrap();
        set
    };
    let old = || sized(set("old", 1, [3, 3, 3]), 3, 4);
    let rows = [
        (failing(old(), "old"), failing(new([1, 1, 0]), "new"), Some("new")),
        (failing(old(), "old"), new([1, 1, 0]), Some("old")),
        (old(), new([1, 1, 0]), None),
    ];
    let mut deployment = looked_at(reason::UPDATED, 4, 1, 3);
    let before = condition(conditions::FAILURE, "True", "FailedDelete", "before".into(), at(0));
    conditions::set(deployment.status.as_mut().unwrap(), before);
    for (old, new, expected) in rows {
        let decision = decide_without_pods(&deployment, &[old, new], at(1));
        let failure = conditions::find(status(&decision), conditions::FAILURE);
        assert_eq!(failure.and_then(|it| it.message.as_deref()), expected);
    }
}

#[test]
fn what_nobody_counts_is_not_said() {
    let mut silent = new([3, 3, 3]);
    silent.status.as_mut().unwrap().terminating_replicas = None;
    let mut unseen = silent.clone();
    unseen.status.as_mut().unwrap().observed_generation = None;
    let terminating = |sets: &[ReplicaSet]| {
        let sets: Vec<_> = sets.iter().cloned().map(Arc::new).collect();
        sets::terminating(&sets)
    };
    let mut two = new([3, 3, 3]);
    two.status.as_mut().unwrap().terminating_replicas = Some(2);
    assert_eq!(terminating(&[two.clone(), two.clone()]), Some(4));
    assert_eq!(terminating(&[two.clone(), unseen]), Some(2));
    assert_eq!(terminating(&[two, silent]), None);
}
