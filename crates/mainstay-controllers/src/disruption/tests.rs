use k8s_openapi::api::policy::v1::PodDisruptionBudgetStatus;

use super::scale::Scale;
use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn budget(spec: &Value) -> PodDisruptionBudget {
    let budget = json!({
        "metadata": { "name": "b", "namespace": "a", "generation": 2 },
        "spec": spec,
    });
    serde_json::from_value(budget).unwrap()
}

/// Ready if its name begins with `r`; of this controller unless that is empty.
fn pod(name: &str, controller: &str) -> Arc<Pod> {
    let mut pod = json!({
        "metadata": { "name": name, "namespace": "a", "labels": { "app": "x" } },
        "status": { "phase": "Running" },
    });
    if !controller.is_empty() {
        let owner = json!({
            "apiVersion": "apps/v1", "kind": "X", "name": "x", "uid": controller, "controller": true,
        });
        pod["metadata"]["ownerReferences"] = json!([owner]);
    }
    if name.starts_with('r') {
        pod["status"]["conditions"] = json!([{ "type": "Ready", "status": "True" }]);
    }
    Arc::new(serde_json::from_value(pod).unwrap())
}

fn deleted(pod: &Arc<Pod>) -> Arc<Pod> {
    let mut pod = (**pod).clone();
    pod.metadata.deletion_timestamp = serde_json::from_value(json!(at(0).to_string())).unwrap();
    Arc::new(pod)
}

/// `s1` and `s2` are ReplicaSets of the same Deployment of ten, `s3` has four.
fn scales() -> Scales {
    let scale = |uid: &str, replicas| Ok(Some(Scale { uid: uid.to_owned(), replicas }));
    [
        ("s1", scale("d", 10)),
        ("s2", scale("d", 10)),
        ("s3", scale("s3", 4)),
        ("gone", Ok(None)),
        ("odd", Err("odd".to_owned())),
    ]
    .map(|(uid, scale)| (uid.to_owned(), scale))
    .into()
}

fn decided(budget: &PodDisruptionBudget, pods: &[Arc<Pod>]) -> Decision {
    decide(budget, pods, &scales(), at(0))
}

fn reasons(decision: &Decision) -> Vec<&str> {
    decision.events.iter().map(|(_, reason, _)| *reason).collect()
}

#[test]
fn as_many_may_go_as_are_healthy_beyond_what_is_wanted() {
    let ready = |count: usize, of: &str| -> Vec<Arc<Pod>> {
        (0..count).map(|it| pod(&format!("r{it}{of}"), of)).collect()
    };
    let (bare, managed) = (ready(3, ""), ready(4, "s3"));
    let rolling = [ready(6, "s1"), ready(6, "s2")].concat();
    let going = [&managed[..3], &[deleted(&managed[3])]].concat();
    let sick = [&managed[..], &[pod("sick", "s3")]].concat();
    let mixed = [&bare[..], &managed].concat();
    let none: Vec<Arc<Pod>> = Vec::new();
    // What the budget says, of which pods; expected, healthy, wanted, and how many may go.
    for (spec, pods, numbers) in [
        (json!({ "minAvailable": 2 }), &bare, [3, 3, 2, 1]),
        (json!({ "minAvailable": 3 }), &bare, [3, 3, 3, 0]),
        (json!({ "minAvailable": 5 }), &bare, [3, 3, 5, 0]),
        (json!({ "minAvailable": 0 }), &none, [0, 0, 0, 0]),
        (json!({ "minAvailable": 1 }), &going, [4, 3, 1, 2]),
        (json!({ "minAvailable": 1 }), &sick, [5, 4, 1, 3]),
        (json!({ "minAvailable": "50%" }), &managed, [4, 4, 2, 2]),
        (json!({ "minAvailable": "51%" }), &managed, [4, 4, 3, 1]),
        (json!({ "minAvailable": "0%" }), &managed, [4, 4, 0, 4]),
        (json!({ "maxUnavailable": 1 }), &managed, [4, 4, 3, 1]),
        (json!({ "maxUnavailable": 9 }), &managed, [4, 4, 0, 4]),
        (json!({ "maxUnavailable": 1 }), &going, [4, 3, 3, 0]),
        // Rounded up: two of four.
        (json!({ "maxUnavailable": "26%" }), &managed, [4, 4, 2, 2]),
        (json!({ "maxUnavailable": 2 }), &rolling, [10, 12, 8, 4]),
        (json!({ "maxUnavailable": 1 }), &mixed, [4, 7, 3, 4]),
        (json!({ "maxUnavailable": 1 }), &bare, [0, 3, 0, 0]),
        (json!({ "maxUnavailable": 1 }), &none, [0, 0, 0, 0]),
        (json!({}), &managed, [0, 4, 0, 0]),
    ] {
        let mut budget = budget(&spec);
        let decision = decided(&budget, pods);
        let status = decision.status.unwrap();
        let is = [
            status.expected_pods,
            status.current_healthy,
            status.desired_healthy,
            status.disruptions_allowed,
        ];
        assert_eq!(is, numbers.map(Some), "{spec}");
        let condition = &status.conditions.as_ref().unwrap()[0];
        let (says, reason) = match numbers[3] {
            0 => ("False", "InsufficientPods"),
            _ => ("True", "SufficientPods"),
        };
        assert_eq!((&*condition.status, &*condition.reason), (says, reason), "{spec}");
        assert_eq!(condition.observed_generation, Some(2));
        assert_eq!(status.observed_generation, Some(2));
        assert_eq!(status.disrupted_pods, None);
        // What is as it should be is not written.
        budget.status = Some(status);
        assert_eq!(decided(&budget, pods).status, None, "{spec}");
        budget.metadata.generation = Some(3);
        assert!(decided(&budget, pods).status.is_some());
    }
}

#[test]
fn what_is_odd_is_told() {
    let one = |name: &str, controller: &str| vec![pod(name, controller)];
    let integer = json!({ "minAvailable": 1 });
    let share = json!({ "maxUnavailable": "10%", "selector": {
        "matchLabels": { "b": "2", "a": "1" },
        "matchExpressions": [{ "key": "c", "operator": "In", "values": ["3", "4"] }],
    } });
    for (spec, pods, expected) in [
        (&integer, vec![], vec!["NoPods"]),
        (&integer, one("r", ""), vec![]),
        (&share, one("r", ""), vec!["UnmanagedPods"]),
        (&share, one("r", "s1"), vec![]),
        (&share, one("r", "gone"), vec!["CalculateExpectedPodCountFailed"]),
        (&share, one("r", "odd"), vec!["CalculateExpectedPodCountFailed"]),
    ] {
        assert_eq!(reasons(&decided(&budget(spec), &pods)), expected);
    }
    let message = |decision: Decision| decision.events[0].2.clone();
    let unmanaged = message(decided(&budget(&share), &one("r", "")));
    let selector = "(selector: &LabelSelector{MatchLabels:map[string]string{a: 1,b: 2,},\
        MatchExpressions:[]LabelSelectorRequirement{\
        LabelSelectorRequirement{Key:c,Operator:In,Values:[3 4],},},}) were found";
    assert!(unmanaged.contains(selector), "{unmanaged}");
    let failure = message(decided(&budget(&share), &one("r", "gone")));
    let expected = "Failed to calculate the number of expected pods: found no controllers for pod \
                    \"r\"";
    assert_eq!(failure, expected);
}

#[test]
fn what_cannot_be_counted_allows_nothing() {
    let mut budget = budget(&json!({ "maxUnavailable": 1 }));
    let well =
        decided(&budget, &[pod("r1", "s3"), pod("r2", "s3"), pod("r3", "s3"), pod("r4", "s3")]);
    budget.status = well.status;
    budget.metadata.generation = Some(3);
    let odd = [pod("r1", "odd")];
    let status = decided(&budget, &odd).status.unwrap();
    assert_eq!(status.disruptions_allowed, Some(0));
    // The numbers are those of the last time, and so is the generation.
    assert_eq!((status.current_healthy, status.observed_generation), (Some(4), Some(2)));
    let condition = &status.conditions.as_ref().unwrap()[0];
    assert_eq!((&*condition.status, &*condition.reason), ("False", "SyncFailed"));
    assert_eq!(condition.message, "odd");
    budget.status = Some(status);
    assert_eq!(decided(&budget, &odd).status, None);
    // One that never was counted has numbers, too.
    budget.status = None;
    assert_eq!(decided(&budget, &odd).status.unwrap().current_healthy, Some(0));
}

#[test]
fn who_is_to_be_evicted_is_not_counted_on() {
    let mut budget = budget(&json!({ "minAvailable": 1 }));
    let granted = json!({ "disruptedPods": {
        "r1": at(0).to_string(), "r2": at(30).to_string(), "r3": at(0).to_string(),
        "other": at(0).to_string(),
    } });
    budget.status = serde_json::from_value(granted).unwrap();
    let pods = [pod("r1", ""), pod("r2", ""), deleted(&pod("r3", "")), pod("r4", "")];
    // When; who is still to be evicted, how many are healthy, who was not, and when it is over.
    for (second, disrupted, healthy, not_deleted, again) in [
        (60, vec!["r1", "r2"], 1, vec![], Some(60)),
        (120, vec!["r1", "r2"], 1, vec![], Some(0)),
        (121, vec!["r2"], 2, vec!["r1"], Some(29)),
        (151, vec![], 3, vec!["r1", "r2"], None),
    ] {
        let decision = decide(&budget, &pods, &scales(), at(second));
        let status: PodDisruptionBudgetStatus = decision.status.unwrap();
        let known: Vec<String> =
            status.disrupted_pods.into_iter().flatten().map(|it| it.0).collect();
        assert_eq!(known, disrupted, "{second}");
        assert_eq!(status.current_healthy, Some(healthy), "{second}");
        let late: Vec<&str> =
            decision.not_deleted.iter().filter_map(|pod| pod.metadata.name.as_deref()).collect();
        assert_eq!(late, not_deleted, "{second}");
        assert_eq!(decision.again, again.map(Duration::from_secs), "{second}");
    }
}

#[test]
fn a_pod_says_for_two_minutes_that_it_is_to_go() {
    let said = |reason: &str, status: &str, phase: &str| {
        let mut said = (*pod("r", "")).clone();
        let condition = json!([{
            "type": "DisruptionTarget", "status": status, "reason": reason,
            "lastTransitionTime": at(0).to_string(),
        }]);
        let it = json!({ "phase": phase, "conditions": condition });
        said.status = serde_json::from_value(it).unwrap();
        said
    };
    let evicted = said("EvictionByEvictionAPI", "True", "Running");
    let rest = |pod: &Pod, second| stale::decide(pod, at(second)).map(|it| it.as_secs());
    assert_eq!(rest(&evicted, 30), Some(90));
    assert_eq!(rest(&evicted, 120), Some(0));
    assert_eq!(rest(&evicted, 999), Some(0));
    for other in [
        said("TerminationByKubelet", "True", "Running"),
        said("EvictionByEvictionAPI", "False", "Running"),
        said("EvictionByEvictionAPI", "True", "Failed"),
        (*deleted(&Arc::new(evicted))).clone(),
        (*pod("r", "")).clone(),
    ] {
        assert_eq!(rest(&other, 999), None);
    }
}
