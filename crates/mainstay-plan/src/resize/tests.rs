use k8s_openapi::api::core::v1::{PodCondition, PodStatus};
use mainstay_cri::SandboxId;

use super::*;
use crate::pod::SeenContainer;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// A pod of containers, each as `name requests limits [policy]`, with `cpu/memory`, `-` for nothing.
fn pod(containers: &[&str]) -> std::sync::Arc<Pod> {
    let list = |text: &str| {
        let (cpu, memory) = text.split_once('/').unwrap();
        let of = |name, amount: &str| (amount != "-").then(|| format!("{name}: {amount}"));
        let all: Vec<String> = of("cpu", cpu).into_iter().chain(of("memory", memory)).collect();
        format!("{{{}}}", all.join(", "))
    };
    let container = |text: &&str| {
        let words: Vec<&str> = text.split(' ').collect();
        let policy = words.get(3).map(|resource| {
            format!(
                ", resizePolicy: [{{resourceName: {resource}, restartPolicy: RestartContainer}}]"
            )
        });
        format!(
            "  - {{name: {}, image: i, resources: {{requests: {}, limits: {}}}{}}}\n",
            words[0],
            list(words[1]),
            list(words[2]),
            policy.unwrap_or_default(),
        )
    };
    let all: String = containers.iter().map(container).collect();
    mainstay_testkit::pods::pod(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n{all}"
    ))
}

fn sandbox(names: &[&str]) -> SeenSandbox {
    let container = |name: &&str| SeenContainer {
        id: ContainerId(format!("{name}1")),
        name: (*name).to_owned(),
        restart_count: 0,
        round: 0,
        ephemeral: false,
        state: ContainerState::Running { started_at: at(1) },
        backoff: None,
        image: "i".into(),
        image_ref: "i".into(),
        pre_stop: None,
        termination_message: None,
        user: None,
    };
    SeenSandbox {
        id: SandboxId("s".into()),
        uid: "u".into(),
        incarnation: None,
        attempt: 0,
        ready: true,
        created_at: at(1),
        ips: Vec::new(),
        grace: std::time::Duration::from_secs(1),
        exclusive: crate::exclusive::Exclusive::default(),
        sidecars: Vec::new(),
        containers: names.iter().map(container).collect(),
    }
}

fn shown(step: &Step<'_>) -> String {
    match step {
        Step::Pod(Part::Memory) => "pod memory".to_owned(),
        Step::Pod(Part::CpuLimit) => "pod limit".to_owned(),
        Step::Pod(Part::CpuRequest) => "pod request".to_owned(),
        Step::Container(update, given) => {
            let show = |it: Amounts| {
                let number = |it: Option<u64>| it.map_or("-".to_owned(), |it| it.to_string());
                format!("{}/{}", number(it.cpu_milli), number(it.memory_bytes))
            };
            let Requirements { requests, limits } = given;
            format!("{} {} {}", update.container, show(*requests), show(*limits))
        }
    }
}

fn next_of(old: &[&str], new: &[&str], running: &[&str]) -> String {
    let (old, new) = (pod(old), pod(new));
    let resizing = Resizing::begin(None, &old, &new, at(10));
    match next(&new, &sandbox(running), &resizing) {
        Next::Nothing => "nothing".to_owned(),
        Next::Restart(ids) => {
            let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
            format!("restart {}", ids.join(", "))
        }
        Next::Resize(resize) => resize.steps().iter().map(shown).collect::<Vec<_>>().join("; "),
    }
}

#[test]
fn pods_grow_before_their_containers_and_shrink_after_them() {
    let cases: &[(&[&str], &[&str], &str)] = &[
        (&["a 100m/1k 200m/2k"], &["a 100m/1k 200m/2k"], "nothing"),
        (&["a 100m/1k 200m/2k"], &["a 0.1/1k 0.2/2000"], "nothing"),
        (&["a 100m/1k 200m/2k"], &["a 100m/1k 200m/3k"], "pod memory; a 100/1000 200/3000"),
        (&["a 100m/1k 200m/2k"], &["a 100m/1k 200m/1k"], "a 100/1000 200/1000; pod memory"),
        // Requests of memory are no kernel's.
        (&["a 100m/1k 200m/2k"], &["a 100m/2k 200m/2k"], "a 100/2000 200/2000"),
        (
            &["a 100m/1k 200m/2k"],
            &["a 200m/1k 400m/2k"],
            "pod limit; pod request; a 200/1000 400/2000",
        ),
        (
            &["a 200m/1k 400m/2k"],
            &["a 100m/1k 200m/2k"],
            "a 100/1000 200/2000; pod request; pod limit",
        ),
        // Memory first, with the CPU that it had; then CPU, with the memory that it has.
        (
            &["a 100m/1k 200m/2k"],
            &["a 100m/1k 400m/1k"],
            "a 100/1000 200/1000; pod memory; pod limit; a 100/1000 400/1000",
        ),
        // Less before more.
        (
            &["a -/- -/2k", "b -/- -/5k"],
            &["a -/- -/4k", "b -/- -/1k"],
            "b -/1000 -/1000; a -/4000 -/4000; pod memory",
        ),
        // A limit where there was none.
        (&["a -/1k -/-"], &["a -/1k -/2k"], "a -/1000 -/2000; pod memory"),
        (&["a 100m/- -/-"], &["a 100m/- 200m/-"], "pod limit; a 100/- 200/-"),
        (&["a 100m/1k 200m/2k cpu"], &["a 100m/1k 200m/3k cpu"], "pod memory; a 100/1000 200/3000"),
        (&["a 100m/1k 200m/2k cpu"], &["a 150m/1k 200m/3k cpu"], "restart a1"),
        // All who have to are ended before anything is changed.
        (
            &["a 100m/- -/- cpu", "b 100m/- -/-", "c 1m/- -/- cpu"],
            &["a 200m/- -/- cpu", "b 200m/- -/-", "c 2m/- -/- cpu"],
            "restart a1, c1",
        ),
    ];
    for (old, new, expected) in cases {
        assert_eq!(next_of(old, new, &["a", "b", "c"]), *expected, "{old:?} {new:?}");
    }
    // What does not run gets it when it is started.
    assert_eq!(next_of(&["a 100m/- -/- cpu"], &["a 200m/- -/- cpu"], &[]), "pod request");
}

#[test]
fn a_resize_is_over_when_all_that_runs_has_what_it_is_to_have() {
    let (old, new) = (pod(&["a 1/- -/-", "b 1/- -/-"]), pod(&["a 2/- -/-", "b 2/- -/-"]));
    let mut resizing = Resizing::begin(None, &old, &new, at(10));
    let mut seen = SeenPod { sandboxes: vec![sandbox(&["a"])] };
    seen.sandboxes[0].uid = new.uid().to_owned();
    assert!(!resizing.is_over(&new, &seen));
    let a = Requirements::of_container(&new, &new.spec().containers[0]);
    resizing.containers.insert("a".into(), a);
    assert!(!resizing.is_over(&new, &seen));
    resizing.pod = Requirements::of_pod(&new);
    assert!(resizing.is_over(&new, &seen));
    // What is left of it is taken along by the next one.
    let third = pod(&["a 2/- -/-", "b 3/- -/-"]);
    let next = Resizing::begin(Some(&resizing), &new, &third, at(20));
    assert_eq!((next.since, next.containers["a"]), (at(20), a));
    let b = Requirements::of_container(&old, &old.spec().containers[1]);
    assert_eq!(next.containers["b"], b);
}

#[test]
fn an_error_is_news_once() {
    let pod = pod(&["a 1/- -/-"]);
    let mut resizing = Resizing::begin(None, &pod, &pod, at(10));
    assert!(resizing.fail("x".into(), at(20)));
    assert!(!resizing.fail("x".into(), at(30)));
    assert!(resizing.fail("y".into(), at(40)));
    assert_eq!(resizing.since, at(20));
}

#[test]
fn nothing_is_to_have_less_memory_than_it_uses() {
    let check = |old: &str, new: &str, pod_usage, usage| {
        let (old, new) = (pod(&[old]), pod(&[new]));
        let resizing = Resizing::begin(None, &old, &new, at(10));
        let Next::Resize(resize) = next(&new, &sandbox(&["a"]), &resizing) else { panic!() };
        let containers = BTreeMap::from([("a".to_owned(), usage)]);
        (resize.shrinks(), resize.check(pod_usage, &containers).err().unwrap_or_default())
    };
    let fine = |shrinks| (shrinks, String::new());
    assert_eq!(check("a -/- -/1k", "a -/- -/2k", Some(5000), Some(5000)), fine(false));
    assert_eq!(check("a -/- -/2k", "a -/- -/1k", Some(999), Some(998)), fine(true));
    let (shrinks, text) = check("a -/- -/2k", "a -/- -/1k", Some(1500), Some(1000));
    assert!(shrinks);
    assert_eq!(
        text,
        "cannot decrease memory limits: [attempting to set pod memory limit (1000) below current \
         usage (1500), attempting to set container \"a\" memory limit (1000) below current usage \
         (1000)]"
    );
    assert_eq!(
        check("a -/1k -/-", "a -/1k -/2k", None, Some(1)).1,
        "cannot decrease memory limits: missing pod memory usage"
    );
}

#[test]
fn those_that_wait_are_judged_in_the_order_of_a_kubelet() {
    let (small, large) = (pod(&["a 1/- -/-"]), pod(&["a 2/- -/-"]));
    let guaranteed = pod(&["a 2/1k 2/1k"]);
    let important = mainstay_testkit::pods::pod(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {priorityClassName: \
         system-node-critical, containers: [{name: a, image: i, resources: {requests: {cpu: '2'}}}]}",
    );
    let request =
        |allocated, wanted, since: Option<i64>| Request { allocated, wanted, since: since.map(at) };
    let sorted = [
        request(&*large, &*small, None),
        request(&*small, &*important, None),
        request(&*small, &*guaranteed, None),
        request(&*small, &*large, Some(5)),
        request(&*small, &*large, Some(7)),
        request(&*small, &*large, None),
    ];
    for (at, one) in sorted.iter().enumerate() {
        for (other_at, other) in sorted.iter().enumerate() {
            assert_eq!(one.before(other), at.cmp(&other_at), "{at} {other_at}");
        }
    }
}

#[test]
fn events_and_conditions_say_it_as_a_kubelet_does() {
    let pod = pod(&["a 100m/1k 200m/-", "b -/- -/-"]);
    assert_eq!(
        message("started", &pod, 3, None),
        "Pod resize started: {\"containers\":[{\"name\":\"a\",\"resources\":{\"limits\":{\"cpu\":\
         \"200m\"},\"requests\":{\"cpu\":\"100m\",\"memory\":\"1k\"}}},{\"name\":\"b\",\"resources\":\
         {}}],\"generation\":3}"
    );
    let text = message("Deferred", &pod, 3, Some("a \"b\""));
    assert!(text.ends_with("\"generation\":3,\"error\":\"a \\\"b\\\"\"}"), "{text}");
    let pending = Pending { message: "m".into(), generation: 3, since: at(5) };
    let mut resizing = Resizing::begin(None, &pod, &pod, at(10));
    let shown = |resizing: &Resizing| {
        let conditions = conditions(Some(&pending), Some(resizing)).into_iter();
        let show = |it: PodCondition| {
            let at = it.last_transition_time.unwrap().0.as_second();
            let reason = it.reason.unwrap_or_default();
            let message = it.message.unwrap_or_default();
            let generation = it.observed_generation.unwrap();
            format!("{} {} {reason} {message} {generation} {at}", it.type_, it.status)
        };
        conditions.map(show).collect::<Vec<_>>()
    };
    assert_eq!(
        shown(&resizing),
        ["PodResizePending True Deferred m 3 5", "PodResizeInProgress True   0 10"]
    );
    let status = PodStatus {
        conditions: Some(conditions(Some(&pending), Some(&resizing))),
        ..PodStatus::default()
    };
    assert_eq!(pending_of(&status), Some(pending.clone()));
    resizing.fail("e".into(), at(20));
    assert_eq!(shown(&resizing)[1], "PodResizeInProgress True Error e 0 20");
}

#[test]
fn what_is_in_force_is_shown_in_place_of_what_is_allocated() {
    let (old, new) = (pod(&["a 100m/64Mi 200m/-"]), pod(&["a 300m/1Gi 400m/2Gi"]));
    let has = Requirements::of_container(&old, &old.spec().containers[0]);
    let mut shown = new.spec().containers[0].resources.clone().unwrap();
    in_force(&mut shown, &has);
    let text = |list: Option<BTreeMap<_, _>>| format!("{list:?}");
    let expected = old.spec().containers[0].resources.clone().unwrap();
    assert_eq!(text(shown.requests), text(expected.requests));
    // There is none yet.
    let limits = shown.limits.unwrap();
    assert_eq!((&*limits["cpu"].0, &*limits["memory"].0), ("200m", "2Gi"));
}
