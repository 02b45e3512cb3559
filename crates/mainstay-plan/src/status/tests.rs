//! One line for each state that a pod can be seen in.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};
use mainstay_cri::{ContainerId, ContainerState, SandboxId};
use mainstay_testkit::pods::pod as pod_of;
use serde_json::{Value, json};

use mainstay_pod::Pod;

use super::*;
use crate::pod::{Began, Eviction, EvictionCause, Failure, Health, Key, SeenContainer};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pod(policy: &str) -> Arc<Pod> {
    pod_of(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  restartPolicy: {policy}\n  \
         containers:\n  - {{name: a, image: i}}\n  - {{name: b, image: i}}\n"
    ))
}

fn running() -> ContainerState {
    ContainerState::Running { started_at: at(10) }
}

fn ended(exit_code: i32) -> ContainerState {
    ContainerState::Exited {
        started_at: Some(at(10)),
        finished_at: at(20),
        exit_code,
        reason: if exit_code == 0 { "Completed" } else { "Error" }.into(),
        message: String::new(),
    }
}

/// A pod with one sandbox and these containers, by name and restart count.
fn seen(pod: &Pod, containers: &[(&str, u32, ContainerState)]) -> SeenPod {
    let container = |(name, restart_count, state): &(&str, u32, ContainerState)| SeenContainer {
        id: ContainerId(format!("{name}{restart_count}")),
        name: (*name).into(),
        state: state.clone(),
        restart_count: *restart_count,
        round: 0,
        ephemeral: false,
        backoff: None,
        image: "i".into(),
        image_ref: "sha256:1".into(),
        pre_stop: None,
        termination_message: None,
        user: None,
    };
    SeenPod {
        sandboxes: vec![SeenSandbox {
            id: SandboxId("s".into()),
            uid: pod.uid().into(),
            incarnation: None,
            attempt: 0,
            ready: true,
            created_at: at(9),
            grace: std::time::Duration::from_secs(30),
            exclusive: crate::exclusive::Exclusive::default(),
            sidecars: vec![],
            ips: vec!["10.0.0.2".parse().unwrap()],
            containers: containers.iter().map(container).collect(),
        }],
    }
}

fn run(pod: &Arc<Pod>) -> RunGoal {
    RunGoal { pod: pod.clone(), incarnation: None }
}

/// The status at a second.
fn status(
    pod: &Arc<Pod>,
    seen: &SeenPod,
    memory: &Memory,
    before: Option<&PodStatus>,
    second: i64,
) -> PodStatus {
    let (run, node, now) = (run(pod), node(), at(second));
    compute(&Facts { run: &run, seen, memory, node: &node, before, runtime: "mainstay", now })
}

fn node() -> NodeAddresses {
    NodeAddresses { ips: vec!["192.0.2.1".parse().unwrap()] }
}

#[track_caller]
fn check(pod: &Arc<Pod>, seen: &SeenPod, memory: &Memory, expected: &Expect) {
    let status = status(pod, seen, memory, None, 21);
    let mut text = format!("{}\n", status.phase.unwrap());
    let init = status.init_container_statuses.unwrap_or_default();
    for container in init.into_iter().chain(status.container_statuses.unwrap()) {
        let state = container.state.unwrap();
        write!(text, "{} restarts={}", container.name, container.restart_count).unwrap();
        if let Some(running) = state.running {
            write!(text, " running since {}", running.started_at.unwrap().0.as_second()).unwrap();
        }
        if let Some(waiting) = state.waiting {
            let (reason, message) = (waiting.reason.unwrap(), waiting.message.unwrap_or_default());
            let message = message.replace(pod.uid(), "UID");
            write!(text, " waiting: {reason} {message}").unwrap();
        }
        if let Some(ended) = state.terminated {
            write!(text, " ended: {} {}", ended.exit_code, ended.reason.unwrap()).unwrap();
        }
        if let Some(last) = container.last_state.and_then(|state| state.terminated) {
            write!(text, " (before: {})", last.exit_code).unwrap();
        }
        text.push('\n');
    }
    for condition in status.conditions.unwrap() {
        if condition.status == "False" {
            let (reason, message) = (condition.reason, condition.message);
            let (reason, message) = (reason.unwrap_or_default(), message.unwrap_or_default());
            writeln!(text, "not {}: {reason} {message}", condition.type_).unwrap();
        }
    }
    expected.assert_eq(&text);
}

#[test]
fn a_pod_on_its_way() {
    let pod = pod("Always");
    check(
        &pod,
        &SeenPod::default(),
        &Memory::default(),
        &expect![[r#"
        Pending
        a restarts=0 waiting: ContainerCreating 
        b restarts=0 waiting: ContainerCreating 
        not PodReadyToStartContainers:  
        not Ready: ContainersNotReady containers with unready status: [a b]
        not ContainersReady: ContainersNotReady containers with unready status: [a b]
    "#]],
    );
    let half = seen(&pod, &[("a", 0, running()), ("b", 0, ContainerState::Created)]);
    check(
        &pod,
        &half,
        &Memory::default(),
        &expect![[r#"
        Pending
        a restarts=0 running since 10
        b restarts=0 waiting: ContainerCreating 
        not Ready: ContainersNotReady containers with unready status: [b]
        not ContainersReady: ContainersNotReady containers with unready status: [b]
    "#]],
    );
    let whole = seen(&pod, &[("a", 0, running()), ("b", 0, running())]);
    check(
        &pod,
        &whole,
        &Memory::default(),
        &expect![[r#"
        Running
        a restarts=0 running since 10
        b restarts=0 running since 10
    "#]],
    );
}

#[test]
fn a_pod_keeps_its_address_when_its_sandbox_has_none_any_more() {
    let pod = pod("Never");
    let all = seen(&pod, &[("a", 0, ended(0)), ("b", 0, ended(0))]);
    let memory = Memory::default();
    let before = status(&pod, &all, &memory, None, 20);
    let ips = |ready: bool, before: Option<&PodStatus>| {
        let mut seen = all.clone();
        seen.sandboxes[0].ready = ready;
        seen.sandboxes[0].ips.clear();
        let status = status(&pod, &seen, &memory, before, 21);
        let first = status.pod_ips.as_ref().and_then(|ips| ips.first());
        assert_eq!(first.map(|first| &first.ip), status.pod_ip.as_ref());
        status.pod_ip
    };
    assert_eq!(ips(false, Some(&before)).as_deref(), Some("10.0.0.2"));
    assert_eq!(ips(false, None), None);
    // One that runs has its own.
    assert_eq!(ips(true, Some(&before)), None);
}

#[test]
fn what_keeps_a_container_from_starting_is_said() {
    let pod = pod("Always");
    let mut memory = Memory::default();
    let failure = |reason: &str| Failure {
        reason: reason.into(),
        message: "why".into(),
        count: 1,
        retry_at: Some(at(30)),
    };
    memory.failures.insert(Key::Image("a".into()), failure("ErrImagePull"));
    memory.failures.insert(Key::Sandbox, failure("FailedCreatePodSandBox"));
    check(
        &pod,
        &SeenPod::default(),
        &memory,
        &expect![[r#"
        Pending
        a restarts=0 waiting: ImagePullBackOff Back-off pulling image "i": ErrImagePull: why
        b restarts=0 waiting: FailedCreatePodSandBox why
        not PodReadyToStartContainers:  
        not Ready: ContainersNotReady containers with unready status: [a b]
        not ContainersReady: ContainersNotReady containers with unready status: [a b]
    "#]],
    );
    // While it is tried again, what is known is how it failed.
    memory.in_flight.insert(Key::Image("a".into()));
    check(
        &pod,
        &SeenPod::default(),
        &memory,
        &expect![[r#"
        Pending
        a restarts=0 waiting: ErrImagePull why
        b restarts=0 waiting: FailedCreatePodSandBox why
        not PodReadyToStartContainers:  
        not Ready: ContainersNotReady containers with unready status: [a b]
        not ContainersReady: ContainersNotReady containers with unready status: [a b]
    "#]],
    );
}

#[test]
fn ends_are_told_by_the_restart_policy() {
    for (policy, expected) in [
        (
            "Always",
            expect![[r#"
            Running
            a restarts=0 ended: 0 Completed
            b restarts=1 ended: 0 Completed (before: 3)
            not Ready: ContainersNotReady containers with unready status: [a b]
            not ContainersReady: ContainersNotReady containers with unready status: [a b]
        "#]],
        ),
        (
            "OnFailure",
            expect![[r#"
            Succeeded
            a restarts=0 ended: 0 Completed
            b restarts=1 ended: 0 Completed (before: 3)
            not Ready: PodCompleted 
            not ContainersReady: PodCompleted 
        "#]],
        ),
        (
            "Never",
            expect![[r#"
            Succeeded
            a restarts=0 ended: 0 Completed
            b restarts=1 ended: 0 Completed (before: 3)
            not Ready: PodCompleted 
            not ContainersReady: PodCompleted 
        "#]],
        ),
    ] {
        let pod = pod(policy);
        let both = seen(&pod, &[("a", 0, ended(0)), ("b", 1, ended(0)), ("b", 0, ended(3))]);
        check(&pod, &both, &Memory::default(), &expected);
    }
    let pod = pod("Never");
    let failed = seen(&pod, &[("a", 0, ended(0)), ("b", 0, ended(3))]);
    check(
        &pod,
        &failed,
        &Memory::default(),
        &expect![[r#"
        Failed
        a restarts=0 ended: 0 Completed
        b restarts=0 ended: 3 Error
        not Ready: PodFailed 
        not ContainersReady: PodFailed 
    "#]],
    );
}

#[test]
fn a_container_tells_what_it_has() {
    let spec = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  volumes:\n  \
                - {name: v, emptyDir: {}}\n  containers:\n  - name: a\n    image: i\n    \
                resources: {requests: {cpu: 100m, ephemeral-storage: 1Mi}, limits: {memory: 64Mi}}\n    \
                volumeMounts: [{name: v, mountPath: /v}, {name: v, mountPath: /r, readOnly: true}]\n  \
                - {name: b, image: i}\n";
    let pod = pod_of(spec);
    let text = |pod: &Arc<Pod>, seen: &SeenPod| {
        let status = status(pod, seen, &Memory::default(), None, 21);
        let mut status = serde_json::to_value(status).unwrap();
        let pod = json!([status["resources"].take(), status["allocatedResources"].take()]);
        let fields = ["image", "resources", "allocatedResources", "volumeMounts"];
        let of = |status: &Value| fields.map(|field| status[field].clone());
        let containers = status["containerStatuses"].as_array().unwrap().iter().map(of);
        let containers: Vec<String> = containers.map(|it| json!(it).to_string()).collect();
        format!("{pod}\n{}", containers.join("\n"))
    };
    // What it is asked for with, until it is there.
    expect![[r#"
        [{"limits":{"memory":"64Mi"},"requests":{"cpu":"100m","ephemeral-storage":"1Mi","memory":"64Mi"}},{"cpu":"100m","ephemeral-storage":"1Mi","memory":"64Mi"}]
        ["i",null,null,[{"mountPath":"/v","name":"v"},{"mountPath":"/r","name":"v","readOnly":true,"recursiveReadOnly":"Disabled"}]]
        ["i",null,null,null]"#]].assert_eq(&text(&pod, &SeenPod::default()));
    let mut whole = seen(&pod, &[("a", 0, running()), ("b", 0, running())]);
    whole.sandboxes[0].containers[0].image = "docker.io/library/i:latest".into();
    expect![[r#"
        [{"limits":{"memory":"64Mi"},"requests":{"cpu":"100m","ephemeral-storage":"1Mi","memory":"64Mi"}},{"cpu":"100m","ephemeral-storage":"1Mi","memory":"64Mi"}]
        ["docker.io/library/i:latest",{"limits":{"memory":"64Mi"},"requests":{"cpu":"100m","ephemeral-storage":"1Mi","memory":"64Mi"}},{"cpu":"100m","ephemeral-storage":"1Mi","memory":"64Mi"},[{"mountPath":"/v","name":"v"},{"mountPath":"/r","name":"v","readOnly":true,"recursiveReadOnly":"Disabled"}]]
        ["i",{},null,null]"#]].assert_eq(&text(&pod, &whole));
    // Of one of an API it is told what it is held to.
    let object = json!({"metadata": {"name": "p", "uid": "u"}, "spec": pod.spec()});
    let pod = Arc::new(Pod::from_api(serde_json::from_value(object).unwrap()).unwrap());
    let whole = seen(&pod, &[("a", 0, running()), ("b", 0, running())]);
    expect![[r#"[{"requests":{"cpu":"100m","memory":"64Mi"}},{"cpu":"100m","ephemeral-storage":"1Mi","memory":"64Mi"}]"#]].assert_eq(text(&pod, &whole).lines().next().unwrap());
}

#[test]
fn what_a_container_left_to_say_is_told_and_has_an_end() {
    let pod = pod("Always");
    let mut seen = seen(&pod, &[("a", 1, running()), ("a", 0, ended(3)), ("b", 0, ended(0))]);
    let containers = &mut seen.sandboxes[0].containers;
    containers[1].termination_message = Some("no\n".into());
    containers[2].termination_message = Some("€".repeat(4096));
    let status = status(&pod, &seen, &Memory::default(), None, 21);
    let message = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
        state.as_ref()?.terminated.as_ref()?.message.clone()
    };
    let containers = status.container_statuses.unwrap();
    assert_eq!(message(&containers[0].state), None);
    assert_eq!(message(&containers[0].last_state).as_deref(), Some("no\n"));
    // Two containers have half of it each.
    assert_eq!(message(&containers[1].state).map(|it| it.len()), Some(6144));
}

#[test]
fn what_took_too_much_has_failed_whatever_its_containers_say() {
    let pod = pod_of(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  \
         - {name: a, image: i}\n",
    );
    let (uid, message) = (pod.uid().to_owned(), "Container a took too much.".to_owned());
    let grace = Duration::ZERO;
    let evicted = Eviction {
        uid,
        incarnation: None,
        message: message.clone(),
        grace,
        cause: EvictionCause::Limit,
    };
    let memory = Memory { evicted: Some(evicted), ..Memory::default() };
    for state in [running(), ended(0)] {
        let status = status(&pod, &seen(&pod, &[("a", 0, state)]), &memory, None, 20);
        assert_eq!(status.phase.as_deref(), Some("Failed"));
        assert_eq!(
            (status.reason.as_deref(), status.message),
            (Some("Evicted"), Some(message.clone()))
        );
    }
}

#[test]
fn a_pod_of_an_api_says_that_its_node_ended_it() {
    let spec = serde_json::json!({"containers": [{"name": "a", "image": "i"}]});
    let held = serde_json::json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec});
    let pod = Arc::new(Pod::from_api(serde_json::from_value(held).unwrap()).unwrap());
    let told = |cause| {
        let (uid, message, grace) = (pod.uid().to_owned(), "Low.".to_owned(), Duration::ZERO);
        let evicted = Eviction { uid, incarnation: None, message, grace, cause };
        let memory = Memory { evicted: Some(evicted), ..Memory::default() };
        let status = status(&pod, &seen(&pod, &[("a", 0, running())]), &memory, None, 20);
        let mut all = status.conditions.unwrap().into_iter();
        let found = all.find(|it| it.type_ == "DisruptionTarget");
        found.map(|it| (it.status, it.reason.unwrap(), it.message.unwrap()))
    };
    assert_eq!(told(EvictionCause::Limit), None);
    let expected = ("True".to_owned(), "TerminationByKubelet".to_owned(), "Low.".to_owned());
    assert_eq!(told(EvictionCause::Pressure), Some(expected.clone()));
    assert_eq!(told(EvictionCause::Shutdown), Some(expected));
}

#[test]
fn a_deadline_ends_a_pod_that_has_not_ended_before() {
    let check = |policy: &str, states: &[(&str, u32, ContainerState)], second, expected| {
        let pod = pod_of(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  restartPolicy: {policy}\n  \
             activeDeadlineSeconds: 10\n  containers:\n  - {{name: a, image: i}}\n  \
             - {{name: b, image: i}}\n"
        ));
        let seen = seen(&pod, states);
        // Before the sandbox, which came at 9.
        let began = Began { uid: pod.uid().into(), incarnation: None, at: at(8) };
        let memory = Memory { began: Some(began), ..Memory::default() };
        let status = status(&pod, &seen, &memory, None, second);
        let ready = &status.conditions.as_ref().unwrap()[2];
        let text = [status.phase, status.reason, ready.reason.clone()];
        assert_eq!(text.map(Option::unwrap_or_default).join(" "), expected, "{policy} {second}");
        assert_eq!(status.start_time, Some(Time(at(8))));
    };
    let both = |end: ContainerState| [("a", 0, end.clone()), ("b", 0, end)];
    check("Always", &both(running()), 17, "Running  ");
    check("Always", &both(running()), 18, "Failed DeadlineExceeded PodFailed");
    check("Always", &[("a", 0, running())], 18, "Failed DeadlineExceeded PodFailed");
    // They ended at 20, since they were told to.
    check("Never", &both(ended(0)), 21, "Failed DeadlineExceeded PodFailed");
    check("Never", &both(ended(1)), 17, "Failed  PodFailed");
    let early = ContainerState::Exited {
        started_at: Some(at(10)),
        finished_at: at(17),
        exit_code: 0,
        reason: "Completed".into(),
        message: String::new(),
    };
    check("Never", &both(early.clone()), 30, "Succeeded  PodCompleted");
    check("OnFailure", &both(early.clone()), 30, "Succeeded  PodCompleted");
    check("Always", &both(early), 30, "Failed DeadlineExceeded PodFailed");
}

#[test]
fn times_and_addresses_stay_what_they_were() {
    let pod = pod("Always");
    let whole = seen(&pod, &[("a", 0, running()), ("b", 0, running())]);
    // An agent that has just been started knows the beginning from the sandbox.
    let first = status(&pod, &whole, &Memory::default(), None, 50);
    assert_eq!(first.start_time, Some(Time(at(9))));
    assert_eq!(first.host_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(first.pod_ip.as_deref(), Some("10.0.0.2"));
    let later = status(&pod, &whole, &Memory::default(), Some(&first), 60);
    assert_eq!(later, first);
    let broken = seen(&pod, &[("a", 0, running()), ("b", 0, ended(1))]);
    let broken = status(&pod, &broken, &Memory::default(), Some(&later), 70);
    let since = |status: &PodStatus, kind: &str| {
        let conditions = status.conditions.as_ref().unwrap();
        let condition = conditions.iter().find(|it| it.type_ == kind).unwrap();
        condition.last_transition_time.as_ref().unwrap().0
    };
    assert_eq!(since(&broken, "Ready"), at(70));
    assert_eq!(since(&broken, "PodScheduled"), at(50));
}

#[test]
fn a_pod_that_is_ended_by_others_has_a_last_phase() {
    let pod = pod("Always");
    let phase = |states: &[(&str, u32, ContainerState)], ended| {
        let (seen, memory) = (seen(&pod, states), Memory::default());
        let (run, node, now) = (run(&pod), node(), at(21));
        let facts = Facts {
            run: &run,
            seen: &seen,
            memory: &memory,
            node: &node,
            before: None,
            runtime: "mainstay",
            now,
        };
        let status = compute_stopping(&facts, ended);
        status.phase.unwrap()
    };
    let rows = [
        phase(&[("a", 0, running()), ("b", 0, running())], false),
        phase(&[("a", 0, running()), ("b", 0, ended(1))], false),
        phase(&[("a", 0, ended(0)), ("b", 0, ended(0))], true),
        phase(&[("a", 0, ended(0)), ("b", 0, ended(137))], true),
        // It never ran as a whole.
        phase(&[("a", 0, running())], false),
        phase(&[("a", 0, ended(0))], true),
        phase(&[], true),
    ];
    assert_eq!(rows, ["Running", "Running", "Succeeded", "Failed", "Pending", "Failed", "Failed"]);
}

/// A pod with an init container `i`, a sidecar `s` and one main container `a`.
fn with_sidecar(policy: &str) -> Arc<Pod> {
    pod_of(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{restartPolicy: {policy}, \
         initContainers: [{{name: i, image: i}}, {{name: s, image: i, restartPolicy: Always}}], \
         containers: [{{name: a, image: i}}]}}"
    ))
}

#[test]
fn a_pod_that_is_initialized() {
    let pod = with_sidecar("Always");
    let mut memory = Memory::default();
    // What has not its turn yet waits for that, whatever is known of its image.
    let failure = Failure {
        reason: "ErrImagePull".into(),
        message: "why".into(),
        count: 1,
        retry_at: Some(at(30)),
    };
    memory.failures.insert(Key::Image("a".into()), failure.clone());
    memory.failures.insert(Key::Image("i".into()), failure);
    check(
        &pod,
        &SeenPod::default(),
        &memory,
        &expect![[r#"
        Pending
        i restarts=0 waiting: ImagePullBackOff Back-off pulling image "i": ErrImagePull: why
        s restarts=0 waiting: PodInitializing 
        a restarts=0 waiting: PodInitializing 
        not PodReadyToStartContainers:  
        not Initialized: ContainersNotInitialized containers with incomplete status: [i s]
        not Ready: ContainersNotReady containers with unready status: [s a]
        not ContainersReady: ContainersNotReady containers with unready status: [s a]
    "#]],
    );
    let memory = Memory::default();
    check(
        &pod,
        &seen(&pod, &[("i", 0, running())]),
        &memory,
        &expect![[r#"
        Pending
        i restarts=0 running since 10
        s restarts=0 waiting: PodInitializing 
        a restarts=0 waiting: PodInitializing 
        not Initialized: ContainersNotInitialized containers with incomplete status: [i s]
        not Ready: ContainersNotReady containers with unready status: [s a]
        not ContainersReady: ContainersNotReady containers with unready status: [s a]
    "#]],
    );
    let failing = seen(&pod, &[("i", 0, ended(1)), ("i", 1, ended(1))]);
    check(
        &pod,
        &failing,
        &memory,
        &expect![[r#"
        Pending
        i restarts=1 ended: 1 Error (before: 1)
        s restarts=0 waiting: PodInitializing 
        a restarts=0 waiting: PodInitializing 
        not Initialized: ContainersNotInitialized containers with incomplete status: [i s]
        not Ready: ContainersNotReady containers with unready status: [s a]
        not ContainersReady: ContainersNotReady containers with unready status: [s a]
    "#]],
    );
    let half = seen(&pod, &[("i", 0, ended(0)), ("s", 0, running())]);
    check(
        &pod,
        &half,
        &memory,
        &expect![[r#"
        Pending
        i restarts=0 ended: 0 Completed
        s restarts=0 running since 10
        a restarts=0 waiting: PodInitializing 
        not Ready: ContainersNotReady containers with unready status: [a]
        not ContainersReady: ContainersNotReady containers with unready status: [a]
    "#]],
    );
    let whole = seen(&pod, &[("i", 0, ended(0)), ("s", 0, running()), ("a", 0, running())]);
    check(
        &pod,
        &whole,
        &memory,
        &expect![[r#"
        Running
        i restarts=0 ended: 0 Completed
        s restarts=0 running since 10
        a restarts=0 running since 10
    "#]],
    );
    // It stays initialized while its sidecar is started again.
    let again = seen(&pod, &[("i", 0, ended(0)), ("s", 0, ended(1)), ("a", 0, running())]);
    check(
        &pod,
        &again,
        &memory,
        &expect![[r#"
        Running
        i restarts=0 ended: 0 Completed
        s restarts=0 ended: 1 Error
        a restarts=0 running since 10
        not Ready: ContainersNotReady containers with unready status: [s]
        not ContainersReady: ContainersNotReady containers with unready status: [s]
    "#]],
    );
}

#[test]
fn the_phase_is_that_of_what_a_pod_runs_for() {
    let phase = |policy: &str, containers: &[(&str, u32, ContainerState)]| {
        let pod = with_sidecar(policy);
        let status = status(&pod, &seen(&pod, containers), &Memory::default(), None, 21);
        let initialized =
            status.conditions.unwrap().into_iter().find(|it| it.type_ == "Initialized");
        let Some(it) = initialized else { panic!("no condition") };
        format!("{} {} {}", status.phase.unwrap(), it.status, it.reason.unwrap_or_default())
    };
    let done = ("i", 0, ended(0));
    let rows = [
        phase("Never", &[("i", 0, ended(1))]),
        phase("OnFailure", &[("i", 0, ended(1))]),
        phase("Never", &[done.clone(), ("s", 0, running()), ("a", 0, ended(0))]),
        phase("Never", &[done.clone(), ("s", 0, ended(137)), ("a", 0, ended(0))]),
        phase("Never", &[done.clone(), ("s", 0, ended(0)), ("a", 0, ended(2))]),
        phase("OnFailure", &[done.clone(), ("s", 0, ended(0)), ("a", 0, ended(2))]),
        phase("Always", &[done, ("s", 0, ended(0)), ("a", 0, ended(0))]),
    ];
    expect![[r#"
        Failed False ContainersNotInitialized
        Pending False ContainersNotInitialized
        Running True 
        Succeeded True PodCompleted
        Failed True 
        Running True 
        Running True "#]]
    .assert_eq(&rows.join("\n"));
}

#[test]
fn a_container_with_probes_is_ready_when_they_say_so() {
    let pod = pod_of(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: a\n    \
         image: i\n    startupProbe: {tcpSocket: {port: 1}}\n    readinessProbe: {tcpSocket: {port: 1}}\n  \
         - {name: b, image: i}\n",
    );
    let both = seen(&pod, &[("a", 0, running()), ("b", 0, running())]);
    let told = |health: Option<Health>, seen: &SeenPod| {
        let mut memory = Memory::default();
        memory.health.extend(health.map(|health| (ContainerId("a0".into()), health)));
        let status = status(&pod, seen, &memory, None, 21);
        let flags = |it: &k8s_openapi::api::core::v1::ContainerStatus| {
            format!("{} {:?} {}, ", it.name, it.started.unwrap(), it.ready)
        };
        let mut text: String = status.container_statuses.iter().flatten().map(flags).collect();
        for condition in &status.conditions.unwrap()[2..4] {
            write!(text, "{} {}", condition.type_, condition.status).unwrap();
            let message = condition.message.as_ref();
            text += &message.map_or(" ".to_owned(), |message| format!(" ({message}) "));
        }
        text
    };
    let health = |started, ready| Some(Health { started, ready, alive: true });
    let not = "Ready False (containers with unready status: [a]) \
               ContainersReady False (containers with unready status: [a]) ";
    assert_eq!(told(None, &both), format!("a false false, b true true, {not}"));
    assert_eq!(told(health(false, true), &both), format!("a false false, b true true, {not}"));
    assert_eq!(told(health(true, false), &both), format!("a true false, b true true, {not}"));
    let all = "a true true, b true true, Ready True ContainersReady True ";
    assert_eq!(told(health(true, true), &both), all);
    let ended = seen(&pod, &[("a", 0, ended(1)), ("b", 0, running())]);
    assert_eq!(told(health(true, true), &ended), format!("a false false, b true true, {not}"));
}

#[test]
fn a_pod_with_gates_is_not_ready_by_itself() {
    let pod = pod_of(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  readinessGates: [{conditionType: x/y}]\n  \
         containers: [{name: a, image: i}]\n",
    );
    check(
        &pod,
        &seen(&pod, &[("a", 0, running())]),
        &Memory::default(),
        &expect![[r#"
            Running
            a restarts=0 running since 10
            not Ready: ReadinessGatesNotReady corresponding condition of pod readiness gate "x/y" does not exist.
        "#]],
    );
}

#[test]
fn a_pod_whose_containers_are_started_over_runs_on() {
    let pod = pod_of(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {restartPolicy: Never, \
         initContainers: [{name: i, image: i}], containers: [{name: a, image: i, \
         restartPolicy: Never, restartPolicyRules: [{action: RestartAllContainers, \
         exitCodes: {operator: In, values: [7]}}]}, {name: b, image: i}]}",
    );
    let begun = seen(&pod, &[("i", 0, ended(0)), ("a", 0, ended(7)), ("b", 0, running())]);
    check(
        &pod,
        &begun,
        &Memory::default(),
        &expect![[r#"
        Running
        i restarts=0 waiting: RestartingAllContainers all containers of the pod are started over (before: 0)
        a restarts=0 waiting: RestartingAllContainers all containers of the pod are started over (before: 7)
        b restarts=0 running since 10
        not Ready: ContainersNotReady containers with unready status: [a]
        not ContainersReady: ContainersNotReady containers with unready status: [a]
    "#]],
    );
    let ended = &[("i", 0, ended(0)), ("a", 0, ended(7)), ("b", 0, ended(137))];
    check(
        &pod,
        &seen(&pod, ended),
        &Memory::default(),
        &expect![[r#"
        Running
        i restarts=0 waiting: RestartingAllContainers all containers of the pod are started over (before: 0)
        a restarts=0 waiting: RestartingAllContainers all containers of the pod are started over (before: 7)
        b restarts=0 waiting: RestartingAllContainers all containers of the pod are started over (before: 137)
        not Ready: ContainersNotReady containers with unready status: [a b]
        not ContainersReady: ContainersNotReady containers with unready status: [a b]
        not AllContainersRestarting:  
    "#]],
    );
}

#[test]
fn what_was_added_to_a_pod_is_told_of_and_counts_for_nothing() {
    let added = json!([{"name": "e", "image": "i"}, {"name": "d", "image": "i", "resources": {}}]);
    let added = serde_json::from_value(added).unwrap();
    let pod = Arc::new(pod("Always").with_ephemeral_containers(added));
    let others = [("a", 0, running()), ("b", 0, running())];
    let look =
        |more: &[(&str, u32, ContainerState)], memory: &Memory, before: Option<&PodStatus>| {
            let mut seen = seen(&pod, &[&others[..], more].concat());
            let all = &mut seen.sandboxes[0].containers;
            all.iter_mut().for_each(|it| it.ephemeral = it.name == "d" || it.name == "e");
            status(&pod, &seen, memory, before, 21)
        };
    let told = |status: &PodStatus| {
        assert_eq!(status.phase.as_deref(), Some("Running"));
        assert!(status.conditions.iter().flatten().all(|it| it.status == "True"));
        assert_eq!(status.container_statuses.as_ref().map(Vec::len), Some(2));
        serde_json::to_string_pretty(&status.ephemeral_container_statuses).unwrap()
    };
    let mut memory = Memory::default();
    let failure = Failure {
        reason: "CreateContainerConfigError".into(),
        message: "unable to find target container b".into(),
        count: 1,
        retry_at: None,
    };
    memory.failures.insert(Key::Container("e".into()), failure);
    let first = look(&[("d", 0, running())], &memory, None);
    expect![[r#"
        [
          {
            "containerID": "mainstay://d0",
            "image": "i",
            "imageID": "sha256:1",
            "lastState": {},
            "name": "d",
            "ready": false,
            "resources": {},
            "restartCount": 0,
            "state": {
              "running": {
                "startedAt": "1970-01-01T00:00:10Z"
              }
            }
          },
          {
            "image": "i",
            "imageID": "",
            "lastState": {},
            "name": "e",
            "ready": false,
            "restartCount": 0,
            "state": {
              "waiting": {
                "message": "unable to find target container b",
                "reason": "CreateContainerConfigError"
              }
            }
          }
        ]"#]]
    .assert_eq(&told(&first));
    let memory = Memory { spent: ["d".to_owned(), "e".to_owned()].into(), ..Memory::default() };
    let ended = look(&[("d", 0, ended(3))], &memory, Some(&first));
    expect![[r#"
        [
          {
            "containerID": "mainstay://d0",
            "image": "i",
            "imageID": "sha256:1",
            "lastState": {},
            "name": "d",
            "ready": false,
            "resources": {},
            "restartCount": 0,
            "state": {
              "terminated": {
                "containerID": "mainstay://d0",
                "exitCode": 3,
                "finishedAt": "1970-01-01T00:00:20Z",
                "reason": "Error",
                "startedAt": "1970-01-01T00:00:10Z"
              }
            }
          },
          {
            "image": "i",
            "imageID": "",
            "lastState": {},
            "name": "e",
            "ready": false,
            "restartCount": 0,
            "state": {
              "terminated": {
                "exitCode": 137,
                "message": "The container could not be located when the pod was terminated",
                "reason": "ContainerStatusUnknown"
              }
            }
          }
        ]"#]]
    .assert_eq(&told(&ended));
    // With its sandbox, of which nobody can tell anything any more.
    assert_eq!(told(&look(&[], &memory, Some(&ended))), told(&ended));
    // But an API, to a new agent.
    let mut lost = look(&[], &memory, None);
    assert_ne!(told(&lost), told(&ended));
    keep_ends(&mut lost, &first);
    assert_ne!(told(&lost), told(&ended));
    keep_ends(&mut lost, &ended);
    assert_eq!(told(&lost), told(&ended));
}
