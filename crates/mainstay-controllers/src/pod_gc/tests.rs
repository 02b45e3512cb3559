use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// A pod of a phase, made at a second, and whether it is to end.
fn pod(name: &str, phase: &str, made: i64, ends: bool) -> Pod {
    let mut pod = json!({
        "metadata": { "name": name, "generation": 2, "creationTimestamp": at(made).to_string() },
        "spec": { "containers": [], "nodeName": "n1" },
        "status": { "phase": phase },
    });
    if ends {
        pod["metadata"]["deletionTimestamp"] = at(0).to_string().into();
        pod["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    }
    serde_json::from_value(pod).unwrap()
}

fn node(taint: &str, ready: &str) -> Node {
    let node = json!({
        "metadata": { "name": "n1" },
        "spec": { "taints": [{ "key": taint, "effect": "NoExecute" }] },
        "status": { "conditions": [{ "type": "Ready", "status": ready }] },
    });
    serde_json::from_value(node).unwrap()
}

#[test]
fn a_pod_goes_that_nobody_ends() {
    let off = node("node.kubernetes.io/out-of-service", "False");
    let lying = node("node.kubernetes.io/out-of-service", "True");
    let unreachable = node("node.kubernetes.io/unreachable", "Unknown");
    let (runs, ends) = (pod("a", "Running", 0, false), pod("a", "Running", 0, true));
    let over = pod("a", "Succeeded", 0, false);
    let mut done = pod("a", "Failed", 0, true);
    let late = done.clone();
    done.metadata.deletion_grace_period_seconds = Some(0);
    let mut mirror = runs.clone();
    let annotation = ("kubernetes.io/config.mirror".to_owned(), "1".to_owned());
    mirror.metadata.annotations = Some([annotation].into());
    for (pod, place, why) in [
        (&runs, Place::Nowhere, None),
        (&ends, Place::Nowhere, Some(Why::Unscheduled)),
        (&late, Place::Nowhere, Some(Why::Unscheduled)),
        (&done, Place::Nowhere, None),
        (&runs, Place::On(&off), None),
        (&ends, Place::On(&off), Some(Why::OutOfService)),
        (&ends, Place::On(&lying), None),
        (&ends, Place::On(&unreachable), None),
        (&runs, Place::Gone, Some(Why::Orphaned)),
        (&ends, Place::Gone, Some(Why::Orphaned)),
        (&over, Place::Gone, Some(Why::Orphaned)),
        (&done, Place::Gone, None),
        (&mirror, Place::Gone, Some(Why::Orphaned)),
    ] {
        assert_eq!(decide(pod, &place), why, "{pod:?}");
    }
}

#[test]
fn a_pod_fails_before_it_goes() {
    let mut runs = pod("a", "Running", 0, true);
    let plain = json!({ "phase": "Failed", "observedGeneration": 2 });
    for why in [Why::Unscheduled, Why::OutOfService] {
        assert_eq!(failed(&runs, why, at(5)), Some(plain.clone()));
    }
    let mut orphaned = plain;
    orphaned["conditions"] = json!([{
        "type": "DisruptionTarget", "status": "True", "reason": "DeletionByPodGC",
        "message": "PodGC: node no longer exists", "observedGeneration": 2,
        "lastTransitionTime": at(5).to_string(),
    }]);
    assert_eq!(failed(&runs, Why::Orphaned, at(5)), Some(orphaned.clone()));
    // It was to be disrupted before: since when that is does not change.
    let known = json!({ "phase": "Running", "conditions": orphaned["conditions"] });
    runs.status = serde_json::from_value(known).unwrap();
    let status = failed(&runs, Why::Orphaned, at(9)).unwrap();
    assert!(status["conditions"][0]["lastTransitionTime"].is_null());
    for over in ["Succeeded", "Failed"] {
        assert_eq!(failed(&pod("a", over, 0, false), Why::Orphaned, at(5)), None);
    }
}

#[test]
fn of_too_many_that_are_over_the_oldest_go() {
    let mut evicted = pod("e", "Failed", 9, false);
    evicted.status.as_mut().unwrap().reason = Some("Evicted".into());
    let pods: Vec<Arc<Pod>> = [
        pod("d", "Succeeded", 5, false),
        pod("c", "Failed", 3, false),
        pod("b", "Succeeded", 3, false),
        pod("runs", "Running", 0, false),
        evicted,
    ]
    .map(Arc::new)
    .into();
    for (most, gone) in [
        (5, vec![]),
        (4, vec![]),
        (3, vec!["e"]),
        (1, vec!["e", "b", "c"]),
        (0, vec!["e", "b", "c", "d"]),
    ] {
        let surplus = surplus(pods.clone(), most);
        let names: Vec<&str> =
            surplus.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
        assert_eq!(names, gone, "{most}");
    }
}

#[test]
fn a_node_is_missed_for_a_while_first() {
    let (mut missing, begin) = (Missing::default(), Instant::now());
    let mut rest = |node: &str, second| missing.rest(node, begin + Duration::from_secs(second));
    let seconds = Duration::from_secs;
    assert_eq!(rest("n1", 0), seconds(40));
    assert_eq!(rest("n1", 30), seconds(10));
    assert_eq!(rest("n2", 30), seconds(40));
    assert_eq!(rest("n1", 40), seconds(0));
    assert_eq!(rest("n1", 99), seconds(0));
    missing.is_there("n1");
    assert_eq!(missing.rest("n1", begin + seconds(100)), seconds(40));
}
