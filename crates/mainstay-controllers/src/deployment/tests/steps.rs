//! One step of each strategy.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;

fn of(deployment: &Deployment, sets: &[ReplicaSet]) -> Vec<String> {
    writes(&decide_without_pods(deployment, sets, at(100)))
}

#[test]
fn new_pods_come_as_old_ones_go() {
    // What is wanted, how many more and fewer there may be, the new and the old ReplicaSets with
    // what they are to have and what is available, and what is written.
    type Row<'a> = (i32, i32, i32, Option<[i32; 2]>, &'a [[i32; 2]], &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        // There is nothing at all, or only what nobody needs.
        (3, 1, 1, None, &[], &["create 3"]),
        (0, 1, 1, None, &[], &["create 0"]),
        (3, 1, 1, None, &[[0, 0]], &["create 3"]),
        // Up.
        (10, 1, 0, None, &[[10, 10]], &["create 1"]),
        (10, 0, 2, None, &[[10, 10]], &["create 0", "old1 10->8"]),
        (10, 2, 0, Some([0, 0]), &[[10, 10]], &["new 0->2"]),
        (10, 20, 0, Some([0, 0]), &[[10, 10]], &["new 0->10"]),
        (10, 0, 5, Some([0, 0]), &[[7, 7]], &["new 0->3"]),
        (10, 2, 0, Some([2, 0]), &[[10, 10]], &[]),
        (10, 2, 0, Some([12, 12]), &[], &["new 12->10"]),
        // Down, as far as enough are available.
        (10, 0, 2, Some([0, 0]), &[[10, 10]], &["old1 10->8"]),
        (10, 0, 2, Some([2, 0]), &[[8, 8]], &[]),
        (10, 0, 2, Some([2, 2]), &[[8, 8]], &["old1 8->6"]),
        (10, 2, 2, Some([2, 2]), &[[10, 10]], &["old1 10->6"]),
        (10, 2, 2, Some([2, 1]), &[[10, 10]], &["old1 10->7"]),
        (10, 0, 5, Some([5, 5]), &[[3, 3], [2, 2]], &["old1 3->0", "old2 2->0"]),
        (10, 0, 3, Some([5, 5]), &[[3, 3], [2, 2]], &["old1 3->0"]),
        // Those that are not available anyway go first.
        (10, 0, 2, Some([0, 0]), &[[10, 8]], &["old1 10->8"]),
        (3, 1, 0, Some([1, 0]), &[[3, 2]], &[]),
        (10, 3, 2, Some([5, 0]), &[[8, 0]], &[]),
        (10, 3, 2, Some([5, 5]), &[[4, 0], [4, 4]], &["old1 4->0", "old2 4->3"]),
        (10, 0, 0, Some([9, 9]), &[[1, 0]], &["old1 1->0"]),
        (1, 1, 0, Some([1, 0]), &[[1, 1]], &[]),
        (1, 1, 0, Some([1, 1]), &[[1, 1]], &["old1 1->0"]),
        // One is being scaled down still.
        (10, 0, 2, Some([2, 2]), &[[6, 8]], &["new 2->4"]),
        (10, 2, 2, Some([6, 6]), &[[6, 8]], &[]),
        (3, 1, 0, Some([3, 3]), &[], &[]),
    ];
    for (wanted, surge, unavailable, new, old, expected) in rows {
        let deployment = rolling(*wanted, &json!(surge), &json!(unavailable));
        let mut sets = Vec::new();
        for (number, [size, available]) in (1..).zip(*old) {
            sets.push(set(&format!("old{number}"), number, [*size, *available, *available]));
        }
        // Made last, so that it has the highest revision.
        sets.extend(new.map(|[size, available]| set("new", 9, [size, size, available])));
        let sets: Vec<_> = sets
            .into_iter()
            .map(|set| sized(set, i64::from(*wanted), i64::from(wanted + surge)))
            .collect();
        let row = format!("{wanted} +{surge} -{unavailable} {new:?} {old:?}");
        assert_eq!(of(&deployment, &sets), *expected, "{row}");
    }
}

#[test]
fn old_pods_are_gone_before_new_ones_come() {
    let deployment = recreate();
    let pod = |phase: &str| -> Vec<Arc<Pod>> {
        vec![Arc::new(serde_json::from_value(json!({ "status": { "phase": phase } })).unwrap())]
    };
    let rows: &[(&[ReplicaSet], &str, &[&str])] = &[
        (&[], "", &["create 3"]),
        (&[set("old", 1, [3, 3, 3])], "Running", &["old 3->0"]),
        (&[set("old", 1, [0, 2, 0])], "Running", &[]),
        (&[set("old", 1, [0, 0, 0])], "Running", &[]),
        (&[set("old", 1, [0, 0, 0])], "Unknown", &[]),
        (&[set("old", 1, [0, 0, 0])], "Failed", &["create 3"]),
        (&[set("old", 1, [0, 0, 0])], "", &["create 3"]),
        (&[set("old", 1, [0, 0, 0]), set("new", 2, [0, 0, 0])], "", &["new 0->3"]),
        (&[set("old", 1, [0, 0, 0]), set("new", 2, [0, 0, 0])], "Running", &[]),
        (&[set("new", 2, [3, 3, 1])], "Running", &[]),
    ];
    for (sets, phase, expected) in rows {
        let pods = |set: &ReplicaSet| match *phase {
            "" => Vec::new(),
            _ if sets::name(set) == "new" => pod("Running"),
            phase => pod(phase),
        };
        let sets_now = sets.iter().cloned().map(Arc::new).collect();
        let decision = decide(&deployment, sets_now, pods, at(100));
        assert_eq!(writes(&decision), *expected, "{sets:?} {phase}");
    }
}

#[test]
fn what_is_scaled_in_a_rollout_stays_as_far_as_it_is() {
    // What is wanted and how many more there may be, now and before; the new and the old ones.
    type Row<'a> = ([i64; 2], [i64; 2], i32, &'a [i32], &'a [&'a str]);
    let rows: &[Row<'_>] = &[
        // All are the newest one's.
        ([5, 0], [3, 0], 3, &[], &["new 3->5"]),
        ([5, 0], [3, 0], 0, &[3], &["old1 3->5"]),
        ([0, 0], [3, 0], 3, &[0], &["new 3->0"]),
        ([3, 0], [0, 0], 0, &[0, 0], &["new 0->3"]),
        // Alike.
        ([12, 0], [10, 0], 5, &[5], &["new 5->6", "old1 5->6"]),
        ([6, 0], [10, 0], 5, &[5], &["old1 5->3", "new 5->3"]),
        ([20, 0], [10, 0], 5, &[3, 2], &["new 5->10", "old1 3->6", "old2 2->4"]),
        ([3, 0], [10, 0], 5, &[3, 2], &["new 5->1", "old1 3->1", "old2 2->1"]),
        ([0, 0], [10, 0], 3, &[3, 4], &["old2 4->0", "old1 3->0", "new 3->0"]),
        ([5, 2], [10, 2], 4, &[8], &["old1 8->5", "new 4->2"]),
        // What is left by rounding is the largest one's.
        ([11, 0], [10, 0], 5, &[3, 2], &["new 5->6", "old1 3->3", "old2 2->2"]),
        ([30, 0], [10, 0], 1, &[9], &["old1 9->27", "new 1->3"]),
    ];
    for ([wanted, surge], [wanted_before, surge_before], new, old, expected) in rows {
        let deployment = rolling(i32::try_from(*wanted).unwrap(), &json!(surge), &json!(1));
        let mut sets: Vec<_> = (1..)
            .zip(*old)
            .map(|(number, size)| set(&format!("old{number}"), number, [*size, *size, 0]))
            .collect();
        sets.push(set("new", 9, [*new, *new, 0]));
        let most = wanted_before + surge_before;
        let sets: Vec<_> = sets.into_iter().map(|set| sized(set, *wanted_before, most)).collect();
        let mut paused = deployment.clone();
        paused.spec.as_mut().unwrap().paused = Some(true);
        assert_eq!(of(&paused, &sets), *expected);
        // Nobody is asked to come back to what has no pods.
        if sets.iter().any(|set| sets::size(set) > 0) {
            assert_eq!(of(&deployment, &sets), *expected, "{wanted} {surge} {new} {old:?}");
        }
    }
    // The new one has all pods already.
    let deployment = rolling(3, &json!(1), &json!(1));
    let sets = [sized(set("old", 1, [2, 2, 2]), 5, 6), sized(set("new", 9, [3, 3, 3]), 3, 4)];
    assert_eq!(of(&deployment, &sets), ["old 2->0"]);
}

#[test]
fn so_many_old_replica_sets_stay_as_are_wanted() {
    let busy = |mut set: ReplicaSet| {
        set.metadata.generation = Some(2);
        set
    };
    let ending = |mut set: ReplicaSet| {
        set.metadata.deletion_timestamp = Some(Time(at(0)));
        set
    };
    let old = |number: i64| set(&format!("old{number}"), number, [0; 3]);
    let rows: &[(i32, &[ReplicaSet], &[&str])] = &[
        (0, &[old(1), old(2)], &["delete old1", "delete old2"]),
        (1, &[old(2), old(1)], &["delete old1"]),
        (2, &[old(1), old(2)], &[]),
        (i32::MAX, &[old(1), old(2)], &[]),
        (1, &[busy(old(1)), old(2), old(3)], &["delete old2"]),
        (1, &[ending(old(1)), old(2), old(3)], &["delete old2"]),
        (0, &[set("old1", 1, [0, 1, 0]), old(2)], &["delete old2"]),
    ];
    for (limit, old, expected) in rows {
        let mut deployment = deployment(&json!({ "revisionHistoryLimit": limit }));
        let mut sets = old.to_vec();
        sets.push(sized(set("new", 9, [3, 3, 3]), 3, 4));
        // It is complete only once that has been said.
        assert_eq!(of(&deployment, &sets), [""; 0]);
        deployment.status = serde_json::from_value(json!({
            "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "observedGeneration": 1,
        }))
        .unwrap();
        assert_eq!(of(&deployment, &sets), *expected);
    }
}

#[test]
fn an_earlier_template_is_the_new_one_again() {
    let deployment = rolling(3, &json!(1), &json!(0));
    let new = sized(set("new", 1, [0, 0, 0]), 3, 4);
    let old = sized(set("old", 2, [3, 3, 3]), 3, 4);
    let decision = decide_without_pods(&deployment, &[new.clone(), old.clone()], at(100));
    assert_eq!(writes(&decision), ["update new", "new 0->1"]);
    let Write::Update { annotations, min_ready_seconds: None, .. } = &decision.writes[0] else {
        panic!("{decision:?}");
    };
    let expected = [(annotations::REVISION, "3"), (annotations::HISTORY, "1")];
    assert_eq!(*annotations, expected.map(|(key, value)| (key.into(), value.into())).into());
    let Some(Write::Status { revision, .. }) = decision.writes.last() else {
        panic!("{decision:?}");
    };
    assert_eq!(revision.as_deref(), Some("3"));
    // Of two with the same template the older one is taken.
    let mut twin = sized(set("new", 0, [0, 0, 0]), 3, 4);
    twin.metadata.name = Some("twin".into());
    assert_eq!(of(&deployment, &[new, old, twin]), ["update twin", "twin 0->1"]);
}

#[test]
fn one_that_ends_makes_nothing() {
    let mut deployment = deployment(&json!({}));
    deployment.metadata.deletion_timestamp = Some(Time(at(0)));
    assert_eq!(of(&deployment, &[set("old", 1, [3, 3, 3])]), [""; 0]);
}
