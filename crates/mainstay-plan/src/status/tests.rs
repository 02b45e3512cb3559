//! One line for each state that a pod can be seen in.

use std::fmt::Write;

use expect_test::{Expect, expect};
use mainstay_cri::{ContainerId, ContainerState, SandboxId};
use mainstay_testkit::pods::pod as pod_of;

use super::*;
use crate::pod::{Failure, Key, SeenContainer};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn pod(policy: &str) -> std::sync::Arc<Pod> {
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
        backoff: None,
        image: "i".into(),
        image_ref: "sha256:1".into(),
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
            ips: vec!["10.0.0.2".parse().unwrap()],
            containers: containers.iter().map(container).collect(),
        }],
    }
}

fn node() -> NodeAddresses {
    NodeAddresses { ips: vec!["192.0.2.1".parse().unwrap()] }
}

#[track_caller]
fn check(pod: &Pod, seen: &SeenPod, memory: &Memory, expected: &Expect) {
    let status = compute(pod, seen, memory, &node(), None, at(21));
    let mut text = format!("{}\n", status.phase.unwrap());
    for container in status.container_statuses.unwrap() {
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
fn times_and_addresses_stay_what_they_were() {
    let pod = pod("Always");
    let whole = seen(&pod, &[("a", 0, running()), ("b", 0, running())]);
    // An agent that has just been started knows the beginning from the sandbox.
    let first = compute(&pod, &whole, &Memory::default(), &node(), None, at(50));
    assert_eq!(first.start_time, Some(Time(at(9))));
    assert_eq!(first.host_ip.as_deref(), Some("192.0.2.1"));
    assert_eq!(first.pod_ip.as_deref(), Some("10.0.0.2"));
    let later = compute(&pod, &whole, &Memory::default(), &node(), Some(&first), at(60));
    assert_eq!(later, first);
    let broken = seen(&pod, &[("a", 0, running()), ("b", 0, ended(1))]);
    let broken = compute(&pod, &broken, &Memory::default(), &node(), Some(&later), at(70));
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
        let status = compute_stopping(&pod, &seen, &memory, &node(), None, ended, at(21));
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
