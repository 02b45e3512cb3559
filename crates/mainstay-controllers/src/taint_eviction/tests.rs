use k8s_openapi::api::core::v1::{NodeSpec, PodSpec, Toleration};

use super::*;

fn taint(key: &str, effect: &str) -> Taint {
    Taint { key: key.into(), effect: effect.into(), ..Taint::default() }
}

/// A toleration of a key, for so many seconds.
fn toleration(key: &str, seconds: Option<i64>) -> Toleration {
    Toleration {
        key: Some(key.into()),
        operator: Some("Exists".into()),
        toleration_seconds: seconds,
        ..Toleration::default()
    }
}

#[test]
fn a_pod_goes_when_its_tolerations_say() {
    let now = Instant::now();
    let seconds = Duration::from_secs;
    let (a, b) = (&taint("a", "NoExecute"), &taint("b", "NoExecute"));
    let under_way = Timer { since: now - seconds(20), fires: now + seconds(40) };
    let after = |wait| Some(Timer { since: now, fires: now + seconds(wait) });
    let (all, first) = (&[a, b][..], &[a][..]);
    for (before, taints, tolerations, expected) in [
        (None, &[][..], vec![], None),
        (Some(under_way), &[], vec![], None),
        (None, first, vec![], after(0)),
        (None, first, vec![toleration("a", None)], None),
        (None, first, vec![toleration("b", None)], after(0)),
        (None, first, vec![toleration("a", Some(60))], after(60)),
        (None, first, vec![toleration("a", Some(0))], after(0)),
        (None, first, vec![toleration("a", Some(-3))], after(0)),
        // The first that fits is the one that counts.
        (None, first, vec![toleration("a", None), toleration("a", Some(5))], None),
        (None, first, vec![toleration("a", Some(5)), toleration("a", None)], after(5)),
        (None, all, vec![toleration("a", Some(60))], after(0)),
        (None, all, vec![toleration("a", Some(60)), toleration("b", Some(9))], after(9)),
        (None, all, vec![toleration("a", Some(60)), toleration("b", None)], after(60)),
        (None, first, vec![toleration("a", Some(i64::MAX))], None),
        // What is under way goes on.
        (Some(under_way), first, vec![toleration("a", Some(60))], Some(under_way)),
        (
            Some(under_way),
            all,
            vec![toleration("a", Some(60)), toleration("b", Some(9))],
            Some(under_way),
        ),
        (Some(under_way), first, vec![toleration("a", None)], None),
        (Some(under_way), first, vec![], after(0)),
    ] {
        let timer = decide(before, taints, &tolerations, now);
        assert_eq!(timer, expected, "{before:?} {taints:?} {tolerations:?}");
    }
}

#[test]
fn what_does_not_matter_is_not_looked_at() {
    let pod = |node: &str, tolerations: Vec<Toleration>, label: &str| {
        let mut pod = Pod::default();
        pod.metadata.name = Some("p".into());
        pod.metadata.labels = Some([(label.to_owned(), String::new())].into());
        let node_name = (!node.is_empty()).then(|| node.to_owned());
        pod.spec =
            Some(PodSpec { node_name, tolerations: Some(tolerations), ..PodSpec::default() });
        Arc::new(pod)
    };
    let waits = pod("", vec![], "");
    let (runs, other) = (pod("n", vec![], ""), pod("n", vec![], "other"));
    let tolerates = pod("n", vec![toleration("a", None)], "");
    for (old, new, expected) in [
        (None, Some(&waits), false),
        (Some(&waits), None, false),
        (None, Some(&runs), true),
        (Some(&waits), Some(&runs), true),
        (Some(&runs), Some(&other), false),
        (Some(&runs), Some(&tolerates), true),
        (Some(&runs), None, true),
    ] {
        assert_eq!(of_pod(&Change { old, new }).is_some(), expected, "{old:?} {new:?}");
    }
}

#[test]
fn only_taints_with_which_pods_do_not_stay_count() {
    let taints = vec![taint("a", "NoSchedule"), taint("b", "NoExecute"), taint("c", "NoExecute")];
    let node = Node {
        spec: Some(NodeSpec { taints: Some(taints), ..NodeSpec::default() }),
        ..Node::default()
    };
    let keys: Vec<&str> = no_execute(&node).map(|taint| taint.key.as_str()).collect();
    assert_eq!(keys, ["b", "c"]);
    assert_eq!(no_execute(&Node::default()).count(), 0);
}
