//! One situation, one answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use expect_test::{Expect, expect};
use jiff::Timestamp;
use mainstay_cri::{ContainerId, ContainerState, SandboxId};
use mainstay_testkit::pods::pod;

use crate::backoff::{Backoff, FIRST};
use crate::pod::{
    Began, Ending, Eviction, EvictionCause, Failure, Finished, Goal, Health, ImageMemory, Key,
    Memory, RunGoal, SeenContainer, SeenPod, SeenSandbox, plan,
};

/// A pod with two containers.
fn goal(policy: &str) -> Goal {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{restartPolicy: {policy}, \
         containers: [{{name: a, image: i}}, {{name: b, image: i}}]}}"
    );
    Goal::Run(RunGoal { pod: pod(&manifest), incarnation: None })
}

pub(super) fn uid(goal: &Goal) -> String {
    let Goal::Run(run) = goal else { panic!("not a pod that runs") };
    run.pod.uid().to_owned()
}

pub(super) fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

/// `a0 running`, `b2 exited 1 at 90`, `b2 created`, `b2 discarded`; the number counts restarts.
fn container(text: &str) -> SeenContainer {
    let words: Vec<&str> = text.split(' ').collect();
    let (name, count) = words[0].split_at(1);
    let state = match words[1..] {
        ["running"] => ContainerState::Running { started_at: at(50) },
        ["created"] => ContainerState::Created,
        // By an agent that ended before it had removed it.
        ["discarded"] => ContainerState::Exited {
            started_at: None,
            finished_at: at(90),
            exit_code: 137,
            reason: "Error".into(),
            message: String::new(),
        },
        ["exited", code, "at", second] => ContainerState::Exited {
            started_at: Some(at(50)),
            finished_at: at(second.parse().unwrap()),
            exit_code: code.parse().unwrap(),
            reason: "Error".into(),
            message: String::new(),
        },
        _ => panic!("{text}"),
    };
    let restart_count: u32 = count.parse().unwrap();
    // As the first restart leaves it; the one before had none.
    let backoff = (restart_count > 0).then_some(Backoff { wait: FIRST, since: at(80) });
    SeenContainer {
        id: ContainerId(words[0].to_owned()),
        name: name.to_owned(),
        restart_count,
        round: 0,
        ephemeral: false,
        state,
        backoff,
        image: "i".into(),
        image_ref: "i".into(),
        pre_stop: None,
        termination_message: None,
        user: None,
    }
}

pub(super) fn sandbox(id: &str, uid: &str, ready: bool, containers: &[&str]) -> SeenSandbox {
    SeenSandbox {
        id: SandboxId(id.into()),
        uid: uid.into(),
        incarnation: None,
        attempt: 0,
        ready,
        created_at: at(40),
        ips: vec![],
        grace: Duration::from_secs(30),
        exclusive: crate::exclusive::Exclusive::default(),
        sidecars: vec![],
        containers: containers.iter().map(|text| container(text)).collect(),
    }
}

pub(super) fn ready(goal: &Goal) -> Memory {
    let image = || ImageMemory::Ready("i".into());
    Memory {
        prepared: Some(uid(goal)),
        hosted: [uid(goal)].into(),
        version: Some(uid(goal)),
        images: BTreeMap::from([("a".to_owned(), image()), ("b".to_owned(), image())]),
        ..Memory::default()
    }
}

/// The plan at second 100, one line for each action, names instead of UIDs.
fn check(goal: &Goal, sandboxes: Vec<SeenSandbox>, memory: &Memory, expected: &Expect) {
    expected.assert_eq(&answer(goal, sandboxes, memory));
}

fn answer(goal: &Goal, sandboxes: Vec<SeenSandbox>, memory: &Memory) -> String {
    let plan = plan(goal, &SeenPod { sandboxes }, memory, at(100));
    let mut lines: Vec<String> = plan.actions.iter().map(|action| format!("{action:?}")).collect();
    lines.extend(plan.wake_at.map(|at| format!("wake at {}", at.as_second())));
    lines.extend(plan.waiting.map(|waiting| format!("waiting: {waiting:?}")));
    lines.extend(plan.done.then(|| "done".to_owned()));
    let mut text = lines.join("\n");
    if let Some(run) = goal.pod() {
        text = text.replace(run.pod.uid(), "UID");
    }
    text
}

#[test]
fn a_new_pod_is_prepared_while_its_images_come() {
    check(
        &goal("Always"),
        vec![],
        &Memory::default(),
        &expect![[r#"
            EnsureImage { container: "a" }
            EnsureImage { container: "b" }
            Prepare { uid: "UID" }"#]],
    );
}

#[test]
fn a_prepared_pod_gets_its_sandbox() {
    let goal = goal("Always");
    check(&goal, vec![], &ready(&goal), &expect!["RunSandbox { attempt: 0 }"]);
}

#[test]
fn all_containers_are_started_at_once_when_their_images_are_there() {
    let goal = goal("Always");
    let mut memory = ready(&goal);
    memory.images.remove("b");
    check(
        &goal,
        vec![sandbox("s", &uid(&goal), true, &[])],
        &memory,
        &expect![[r#"
            EnsureImage { container: "b" }
            StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "a", restart_count: 0, round: 0, backoff: None, image: "i" } }"#]],
    );
}

#[test]
fn nothing_is_asked_for_twice() {
    let goal = goal("Always");
    let mut memory = ready(&goal);
    memory.in_flight = [Key::Container("a".into()), Key::Container("b".into())].into();
    check(&goal, vec![sandbox("s", &uid(&goal), true, &["a0 created"])], &memory, &expect![""]);
}

#[test]
fn a_start_that_was_lost_with_an_agent_is_made_anew() {
    let goal = goal("Always");
    let seen = vec![sandbox("s", &uid(&goal), true, &["a0 created", "b0 running"])];
    check(&goal, seen, &ready(&goal), &expect![[r#"RemoveContainer { id: ContainerId("a0") }"#]]);
}

#[test]
fn what_never_ran_is_no_end_whatever_became_of_it() {
    for policy in ["Always", "OnFailure", "Never"] {
        let goal = goal(policy);
        let mut memory = ready(&goal);
        let seen = |sandboxes: &[&str]| vec![sandbox("s", &uid(&goal), true, sandboxes)];
        for state in ["created", "discarded"] {
            let (a, b) = (format!("a0 {state}"), format!("b0 {state}"));
            check(
                &goal,
                seen(&[&a, &b]),
                &memory,
                &expect![[r#"
                    RemoveContainer { id: ContainerId("a0") }
                    RemoveContainer { id: ContainerId("b0") }"#]],
            );
        }
        memory.in_flight.insert(Key::Dead(ContainerId("a0".into())));
        check(&goal, seen(&["a0 discarded", "b0 running"]), &memory, &expect![""]);
        memory.in_flight.clear();
        let old = vec![sandbox("s", "old", true, &["a0 created", "b0 running"])];
        check(
            &Goal::Gone,
            old,
            &Memory::default(),
            &expect![[r#"
                RemoveContainer { id: ContainerId("a0") }
                StopContainer { id: ContainerId("b0"), grace: 30s, why: Some(PodEnds) }"#]],
        );
    }
}

#[test]
fn a_pod_that_runs_asks_for_nothing() {
    let goal = goal("Always");
    let seen = vec![sandbox("s", &uid(&goal), true, &["a0 running", "b0 running"])];
    check(&goal, seen, &ready(&goal), &expect![""]);
}

#[test]
fn a_container_is_restarted_as_its_policy_says() {
    for (policy, ended, expected) in [
        (
            "Always",
            "a0 exited 0 at 99",
            expect![[
                r#"StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "a", restart_count: 1, round: 0, backoff: Some(Backoff { wait: 10s, since: 1970-01-01T00:01:40Z }), image: "i" } }"#
            ]],
        ),
        ("Always", "a1 exited 0 at 99", expect!["wake at 109"]),
        (
            "Always",
            "a1 exited 0 at 85",
            expect![[
                r#"StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "a", restart_count: 2, round: 0, backoff: Some(Backoff { wait: 20s, since: 1970-01-01T00:01:40Z }), image: "i" } }"#
            ]],
        ),
        ("OnFailure", "a0 exited 0 at 99", expect![""]),
        (
            "OnFailure",
            "a0 exited 1 at 99",
            expect![[
                r#"StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "a", restart_count: 1, round: 0, backoff: Some(Backoff { wait: 10s, since: 1970-01-01T00:01:40Z }), image: "i" } }"#
            ]],
        ),
        ("Never", "a0 exited 1 at 99", expect![""]),
    ] {
        let goal = goal(policy);
        let seen = vec![sandbox("s", &uid(&goal), true, &[ended, "b0 running"])];
        check(&goal, seen, &ready(&goal), &expected);
    }
}

#[test]
fn the_image_is_asked_for_again_before_a_restart() {
    let goal = goal("Always");
    let mut memory = ready(&goal);
    memory.images.clear();
    let seen = vec![sandbox("s", &uid(&goal), true, &["a0 exited 1 at 99", "b0 running"])];
    check(&goal, seen, &memory, &expect![[r#"EnsureImage { container: "a" }"#]]);
}

#[test]
fn one_ended_container_of_each_name_is_kept() {
    let goal = goal("Always");
    let seen = ["a0 exited 1 at 60", "a1 exited 1 at 70", "a2 running", "b0 running"];
    let seen = vec![sandbox("s", &uid(&goal), true, &seen)];
    check(&goal, seen, &ready(&goal), &expect![[r#"RemoveContainer { id: ContainerId("a0") }"#]]);
}

#[test]
fn a_pod_that_is_through_is_written_down_and_then_its_sandbox_goes() {
    let goal = goal("Never");
    let seen =
        || vec![sandbox("s", &uid(&goal), true, &["a0 exited 0 at 90", "b0 exited 3 at 95"])];
    let mut memory = ready(&goal);
    check(&goal, seen(), &memory, &expect!["RecordFinished { at: 1970-01-01T00:01:35Z }"]);
    memory.finished = Some(Finished { uid: uid(&goal), incarnation: None });
    check(&goal, seen(), &memory, &expect![[r#"StopSandbox { id: SandboxId("s") }"#]]);
    let stopped =
        vec![sandbox("s", &uid(&goal), false, &["a0 exited 0 at 90", "b0 exited 3 at 95"])];
    check(&goal, stopped, &memory, &expect!["done"]);
    // After a reboot nothing of it is there, and it stays so.
    check(&goal, vec![], &memory, &expect!["done"]);
}

#[test]
fn nothing_is_kept_of_a_pod_that_is_through_when_the_disk_is_short() {
    let goal = goal("Never");
    let ends = ["a0 exited 0 at 90", "b0 exited 3 at 95"];
    let seen = |ready| vec![sandbox("s", &uid(&goal), ready, &ends)];
    let mut memory = Memory { reclaims: true, ..ready(&goal) };
    memory.turn_to(&goal);
    // First it is written down.
    check(&goal, seen(true), &memory, &expect!["RecordFinished { at: 1970-01-01T00:01:35Z }"]);
    memory.finished = Some(Finished { uid: uid(&goal), incarnation: None });
    check(&goal, seen(true), &memory, &expect![[r#"StopSandbox { id: SandboxId("s") }"#]]);
    check(&goal, seen(false), &memory, &expect![[r#"RemoveSandbox { id: SandboxId("s") }"#]]);
    memory.hosted.insert(uid(&goal));
    check(&goal, vec![], &memory, &expect![[r#"CleanUp { uid: "UID" }"#]]);
    // It is not forgotten with its place.
    memory.forget_place(&uid(&goal));
    check(&goal, vec![], &memory, &expect!["done"]);
    // One that runs has what it needs.
    let memory = Memory { reclaims: true, ..self::ready(&goal) };
    let runs = vec![sandbox("s", &uid(&goal), true, &["a0 running", "b0 running"])];
    check(&goal, runs, &memory, &expect![[""]]);
}

#[test]
fn a_pod_that_took_too_much_is_ended_at_once_and_that_is_written_down() {
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\n\
                    spec: {containers: [{name: a, image: i}]}";
    let goal = Goal::Run(RunGoal { pod: pod(manifest), incarnation: Some(at(1)) });
    let evicted = |uid: String, incarnation| {
        let eviction = Eviction {
            uid,
            incarnation: Some(incarnation),
            message: "much".into(),
            grace: Duration::from_secs(1),
            cause: EvictionCause::Limit,
        };
        Memory { evicted: Some(eviction), ..ready(&goal) }
    };
    let memory = evicted(uid(&goal), at(1));
    let seen = |ready, containers: &[&str]| {
        let mut sandbox = sandbox("s", &uid(&goal), ready, containers);
        sandbox.incarnation = Some(at(1));
        vec![sandbox]
    };
    let rows = [
        answer(&goal, seen(true, &["a0 running"]), &memory),
        answer(&goal, seen(true, &["a0 exited 137 at 100"]), &memory),
        answer(&goal, seen(false, &["a0 exited 137 at 100"]), &memory),
        // Another version of it did, or the pod before its restart was asked for.
        answer(&goal, seen(true, &["a0 running"]), &evicted("other".into(), at(1))),
        answer(&goal, seen(true, &["a0 running"]), &evicted(uid(&goal), at(0))),
    ];
    expect![[r#"
        StopContainer { id: ContainerId("a0"), grace: 1s, why: Some(PodEnds) }

        StopSandbox { id: SandboxId("s") }

        RecordFinished { at: 1970-01-01T00:01:40Z }



        "#]]
    .assert_eq(&rows.join("\n\n"));
}

/// One that is started anew by itself leaves no volumes and no sandbox behind.
#[test]
fn of_a_pod_that_took_too_much_and_comes_back_nothing_is_kept() {
    let rows = ["Always", "Never"].map(|policy| {
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\n\
             spec: {{restartPolicy: {policy}, containers: [{{name: a, image: i}}]}}"
        );
        let goal = Goal::Run(RunGoal { pod: pod(&manifest), incarnation: Some(at(1)) });
        let uid = uid(&goal);
        let eviction = Eviction {
            uid: uid.clone(),
            incarnation: Some(at(1)),
            message: "much".into(),
            grace: Duration::from_secs(1),
            cause: EvictionCause::Limit,
        };
        let finished = Finished { uid: uid.clone(), incarnation: Some(at(1)) };
        let memory = Memory {
            evicted: Some(eviction),
            finished: Some(finished),
            hosted: [uid.clone()].into(),
            ..ready(&goal)
        };
        let mut sandbox = sandbox("s", &uid, false, &["a0 exited 137 at 100"]);
        sandbox.incarnation = Some(at(1));
        let before = answer(&goal, vec![sandbox], &memory);
        let after = answer(&goal, Vec::new(), &memory);
        format!("{policy}: {before}; then {after}").replace(&uid, "UID")
    });
    expect![[r#"
        Always: RemoveSandbox { id: SandboxId("s") }; then CleanUp { uid: "UID" }
        Never: done; then done"#]]
    .assert_eq(&rows.join("\n"));
}

#[test]
fn a_pod_whose_deadline_has_passed_is_ended_and_that_is_written_down() {
    let late = |policy: &str, deadline: u32| {
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{restartPolicy: {policy}, \
             activeDeadlineSeconds: {deadline}, \
             containers: [{{name: a, image: i}}, {{name: b, image: i}}]}}"
        );
        Goal::Run(RunGoal { pod: pod(&manifest), incarnation: None })
    };
    let begun = |goal: &Goal| {
        let began = Began { uid: uid(goal), incarnation: None, at: at(40) };
        Memory { began: Some(began), ..ready(goal) }
    };
    let seen =
        |goal: &Goal, ready, containers: &[&str]| vec![sandbox("s", &uid(goal), ready, containers)];
    let goal = late("Always", 61);
    check(
        &goal,
        seen(&goal, true, &["a0 running", "b0 running"]),
        &begun(&goal),
        &expect!["wake at 101"],
    );
    let goal = late("Always", 60);
    let mut memory = begun(&goal);
    let rows = [
        answer(&goal, seen(&goal, true, &["a0 running", "b0 exited 1 at 95"]), &memory),
        answer(&goal, seen(&goal, true, &["a0 exited 0 at 100", "b0 exited 1 at 95"]), &memory),
        answer(&goal, seen(&goal, false, &["a0 exited 0 at 100", "b0 exited 1 at 95"]), &memory),
        // Its images never came.
        answer(&goal, vec![], &memory),
    ];
    expect![[r#"
        StopContainer { id: ContainerId("a0"), grace: 30s, why: Some(PodEnds) }

        StopSandbox { id: SandboxId("s") }

        RecordFinished { at: 1970-01-01T00:01:40Z }

        RecordFinished { at: 1970-01-01T00:01:40Z }"#]]
    .assert_eq(&rows.join("\n\n"));
    // What is being made is ended when it is there.
    memory.in_flight.insert(Key::Container("a".into()));
    check(&goal, seen(&goal, true, &["b0 running"]), &memory, &expect![""]);
    memory.in_flight.clear();
    memory.finished = Some(Finished { uid: uid(&goal), incarnation: None });
    check(&goal, seen(&goal, false, &["a0 exited 0 at 100"]), &memory, &expect!["done"]);
    // It ended by itself, and somebody looks later.
    let goal = late("Never", 60);
    let ended = seen(&goal, true, &["a0 exited 0 at 90", "b0 exited 0 at 95"]);
    check(
        &goal,
        ended,
        &begun(&goal),
        &expect![[r#"RecordFinished { at: 1970-01-01T00:01:35Z }"#]],
    );
}

#[test]
fn an_older_version_is_ended_first_and_the_images_come_meanwhile() {
    let goal = goal("Always");
    let mut memory = ready(&goal);
    memory.images.remove("a");
    memory.hosted.insert("old".into());
    let old = |ready, containers: &[&str]| vec![sandbox("o", "old", ready, containers)];
    check(
        &goal,
        old(true, &["a0 running", "b0 exited 1 at 99"]),
        &memory,
        &expect![[r#"
            StopContainer { id: ContainerId("a0"), grace: 30s, why: Some(PodEnds) }
            EnsureImage { container: "a" }
            waiting: Predecessor { uid: "old" }"#]],
    );
    memory.stopping.insert(SandboxId("o".into()), at(90));
    check(
        &goal,
        old(true, &["a0 running"]),
        &memory,
        &expect![[r#"
            StopContainer { id: ContainerId("a0"), grace: 20s, why: Some(PodEnds) }
            EnsureImage { container: "a" }
            waiting: Predecessor { uid: "old" }"#]],
    );
    check(
        &goal,
        old(true, &["a0 exited 1 at 99"]),
        &memory,
        &expect![[r#"
        StopSandbox { id: SandboxId("o") }
        EnsureImage { container: "a" }
        waiting: Predecessor { uid: "old" }"#]],
    );
    // What is left of it holds nobody up.
    check(
        &goal,
        old(false, &["a0 exited 1 at 99"]),
        &memory,
        &expect![[r#"
            RemoveSandbox { id: SandboxId("o") }
            EnsureImage { container: "a" }
            RunSandbox { attempt: 0 }"#]],
    );
    check(
        &goal,
        vec![],
        &memory,
        &expect![[r#"
        CleanUp { uid: "old" }
        EnsureImage { container: "a" }
        RunSandbox { attempt: 0 }"#]],
    );
}

#[test]
fn a_sandbox_whose_shim_died_is_replaced_and_tells_until_the_new_one_can() {
    let goal = goal("Always");
    let dead = || sandbox("s", &uid(&goal), false, &["a0 exited 137 at 99", "b0 exited 137 at 99"]);
    let next = |containers: &[&str]| SeenSandbox {
        created_at: at(99),
        attempt: 1,
        ..sandbox("t", &uid(&goal), true, containers)
    };
    check(&goal, vec![dead()], &ready(&goal), &expect!["RunSandbox { attempt: 1 }"]);
    check(
        &goal,
        vec![next(&[]), dead()],
        &ready(&goal),
        &expect![[r#"
            StartContainer { sandbox: SandboxId("t"), container: ContainerPlan { name: "a", restart_count: 1, round: 0, backoff: Some(Backoff { wait: 10s, since: 1970-01-01T00:01:40Z }), image: "i" } }
            StartContainer { sandbox: SandboxId("t"), container: ContainerPlan { name: "b", restart_count: 1, round: 0, backoff: Some(Backoff { wait: 10s, since: 1970-01-01T00:01:40Z }), image: "i" } }"#]],
    );
    // Then it says what the run before was.
    let removed = r#"RemoveSandbox { id: SandboxId("s") }"#;
    for (containers, expected) in [
        (["a1 running", "b1 running"].as_slice(), ""),
        (&["a2 running", "a1 exited 1 at 100", "b1 running"], ""),
        (&["a2 running", "a1 exited 1 at 100", "b2 running", "b1 exited 1 at 100"], removed),
    ] {
        let told = answer(&goal, vec![next(containers), dead()], &ready(&goal));
        assert_eq!(told, expected, "{containers:?}");
    }
    // None but the one before.
    let oldest = || SeenSandbox { created_at: at(1), ..sandbox("r", &uid(&goal), false, &[]) };
    check(
        &goal,
        vec![next(&["a1 running", "b1 running"]), dead(), oldest()],
        &ready(&goal),
        &expect![[r#"RemoveSandbox { id: SandboxId("r") }"#]],
    );
}

#[test]
fn what_failed_waits_its_time_and_what_needs_a_change_waits_for_that() {
    let goal = goal("Always");
    let mut memory = ready(&goal);
    let failure = |retry_at| Failure {
        reason: "FailedCreatePodSandBox".into(),
        message: String::new(),
        count: 1,
        retry_at,
    };
    memory.failures.insert(Key::Sandbox, failure(Some(at(107))));
    check(&goal, vec![], &memory, &expect!["wake at 107"]);
    memory.failures.insert(Key::Sandbox, failure(Some(at(100))));
    check(&goal, vec![], &memory, &expect!["RunSandbox { attempt: 0 }"]);
    memory.failures.insert(Key::Sandbox, failure(None));
    check(&goal, vec![], &memory, &expect![""]);
}

#[test]
fn a_restart_ends_what_was_there_before_and_counts_on() {
    let Goal::Run(mut run) = goal("Never") else { unreachable!() };
    run.incarnation = Some(at(98));
    let goal = Goal::Run(run);
    let mut memory = ready(&goal);
    memory.finished = Some(Finished { uid: uid(&goal), incarnation: None });
    let old = sandbox("s", &uid(&goal), true, &["a0 running", "b2 exited 0 at 95"]);
    check(
        &goal,
        vec![old],
        &memory,
        &expect![[r#"
            StopContainer { id: ContainerId("a0"), grace: 30s, why: Some(PodEnds) }
            waiting: Predecessor { uid: "UID" }"#]],
    );
    let old = sandbox("s", &uid(&goal), false, &["a0 exited 0 at 99", "b2 exited 0 at 95"]);
    let incarnation = Some(at(98));
    let new = SeenSandbox { incarnation, ..sandbox("t", &uid(&goal), true, &[]) };
    check(
        &goal,
        vec![new, old],
        &memory,
        &expect![[r#"
            StartContainer { sandbox: SandboxId("t"), container: ContainerPlan { name: "a", restart_count: 1, round: 0, backoff: None, image: "i" } }
            StartContainer { sandbox: SandboxId("t"), container: ContainerPlan { name: "b", restart_count: 3, round: 0, backoff: None, image: "i" } }"#]],
    );
}

#[test]
fn a_pod_that_is_not_wanted_goes_step_by_step() {
    let mut memory = Memory { hosted: ["old".to_owned()].into(), ..Memory::default() };
    let old = |ready, containers: &[&str]| vec![sandbox("o", "old", ready, containers)];
    let gone = Goal::Gone;
    check(
        &gone,
        old(true, &["a0 running"]),
        &memory,
        &expect![[r#"StopContainer { id: ContainerId("a0"), grace: 30s, why: Some(PodEnds) }"#]],
    );
    // A start that is under way comes to its end first.
    memory.in_flight = [Key::Container("b".into())].into();
    check(&gone, old(true, &["a0 running"]), &memory, &expect![""]);
    memory.in_flight.clear();
    check(&gone, old(true, &[]), &memory, &expect![[r#"StopSandbox { id: SandboxId("o") }"#]]);
    check(&gone, old(false, &[]), &memory, &expect![[r#"RemoveSandbox { id: SandboxId("o") }"#]]);
    check(&gone, vec![], &memory, &expect![[r#"CleanUp { uid: "old" }"#]]);
    memory.hosted.clear();
    check(&gone, vec![], &memory, &expect!["done"]);
}

fn stop(policy: &str, seconds: u64) -> Goal {
    let Goal::Run(run) = goal(policy) else { unreachable!() };
    Goal::Stop { run, grace: Duration::from_secs(seconds) }
}

#[test]
fn a_pod_that_is_stopped_has_the_grace_period_that_was_asked_for() {
    let goal = stop("Always", 9);
    let uid = goal.pod().unwrap().pod.uid().to_owned();
    let mut memory = Memory { hosted: [uid.clone()].into(), ..Memory::default() };
    let seen = || {
        vec![
            sandbox("s", &uid, true, &["a0 running", "b0 exited 0 at 99"]),
            sandbox("t", "old", true, &["a0 running"]),
        ]
    };
    check(
        &goal,
        seen(),
        &memory,
        &expect![[r#"StopContainer { id: ContainerId("a0"), grace: 9s, why: Some(PodEnds) }"#]],
    );
    // It began before, with a longer one.
    memory.stopping.insert(SandboxId("s".into()), at(95));
    check(
        &goal,
        vec![seen().remove(0)],
        &memory,
        &expect![[r#"StopContainer { id: ContainerId("a0"), grace: 4s, why: Some(PodEnds) }"#]],
    );
}

#[test]
fn a_pod_that_was_stopped_is_kept_to_be_told_of() {
    let goal = stop("Always", 9);
    let uid = goal.pod().unwrap().pod.uid().to_owned();
    let memory = Memory { hosted: [uid.clone()].into(), ..Memory::default() };
    let ended = &["a0 exited 0 at 99", "b0 exited 0 at 99"];
    let check = |sandboxes, memory: &Memory, expected: &Expect| {
        check(&goal, sandboxes, memory, expected);
    };
    check(
        vec![sandbox("s", &uid, true, ended)],
        &memory,
        &expect![[r#"StopSandbox { id: SandboxId("s") }"#]],
    );
    check(vec![sandbox("s", &uid, false, ended)], &memory, &expect!["done"]);
    check(vec![], &memory, &expect!["done"]);
    // What is being made is waited for.
    let mut making = memory.clone();
    making.in_flight.insert(Key::Sandbox);
    check(vec![], &making, &expect![""]);
    // Of several sandboxes only the newest tells.
    let two = vec![sandbox("s", &uid, false, ended), sandbox("r", &uid, false, ended)];
    check(
        two,
        &memory,
        &expect![[r#"
        RemoveSandbox { id: SandboxId("r") }
        done"#]],
    );
}

/// A pod with an init container `i`, a sidecar `s` and one main container `a`.
fn with_sidecar(policy: &str) -> (Goal, Memory) {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{restartPolicy: {policy}, \
         initContainers: [{{name: i, image: i}}, {{name: s, image: i, restartPolicy: Always}}], \
         containers: [{{name: a, image: i}}]}}"
    );
    let goal = Goal::Run(RunGoal { pod: pod(&manifest), incarnation: None });
    let mut memory = ready(&goal);
    let names = ["i", "s", "a"].map(|name| (name.to_owned(), ImageMemory::Ready("i".into())));
    memory.images = names.into();
    (goal, memory)
}

fn of_sidecar(goal: &Goal, containers: &[&str]) -> Vec<SeenSandbox> {
    vec![SeenSandbox { sidecars: vec!["s".into()], ..sandbox("s", &uid(goal), true, containers) }]
}

#[test]
fn a_pod_is_initialized_step_by_step() {
    let (goal, memory) = with_sidecar("Always");
    let rows = [
        &[][..],
        &["i0 running"],
        &["i0 exited 1 at 99"],
        &["i1 exited 1 at 99"],
        &["i0 exited 0 at 99"],
        &["i0 exited 0 at 99", "s0 created"],
        &["i0 exited 0 at 99", "s0 running"],
        &["i0 exited 0 at 99", "s0 exited 0 at 99", "a0 running"],
        &["i0 exited 0 at 99", "s0 running", "a0 exited 0 at 99"],
    ];
    let rows = rows.map(|seen| answer(&goal, of_sidecar(&goal, seen), &memory));
    expect![[r#"
        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "i", restart_count: 0, round: 0, backoff: None, image: "i" } }



        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "i", restart_count: 1, round: 0, backoff: Some(Backoff { wait: 10s, since: 1970-01-01T00:01:40Z }), image: "i" } }

        wake at 109

        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "s", restart_count: 0, round: 0, backoff: None, image: "i" } }

        RemoveContainer { id: ContainerId("s0") }

        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "a", restart_count: 0, round: 0, backoff: None, image: "i" } }

        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "s", restart_count: 1, round: 0, backoff: Some(Backoff { wait: 10s, since: 1970-01-01T00:01:40Z }), image: "i" } }

        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "a", restart_count: 1, round: 0, backoff: Some(Backoff { wait: 10s, since: 1970-01-01T00:01:40Z }), image: "i" } }"#]].assert_eq(&rows.join("\n\n"));
    // Images are got when their turn comes, and earlier only while a predecessor still runs.
    let memory = Memory { images: BTreeMap::new(), ..memory };
    let old = vec![sandbox("o", "old", true, &["a0 running"])];
    let rows = [answer(&goal, of_sidecar(&goal, &[]), &memory), answer(&goal, old, &memory)];
    expect![[r#"
        EnsureImage { container: "i" }

        StopContainer { id: ContainerId("a0"), grace: 30s, why: Some(PodEnds) }
        EnsureImage { container: "i" }
        EnsureImage { container: "s" }
        EnsureImage { container: "a" }
        waiting: Predecessor { uid: "old" }"#]]
    .assert_eq(&rows.join("\n\n"));
}

#[test]
fn a_new_sandbox_is_initialized_anew() {
    let (goal, memory) = with_sidecar("OnFailure");
    let dead = &["i1 exited 0 at 60", "s0 exited 137 at 99", "a1 exited 137 at 85"];
    let dead = || SeenSandbox { ready: false, ..of_sidecar(&goal, dead).remove(0) };
    let next = |containers: &[&str]| SeenSandbox {
        attempt: 1,
        id: SandboxId("t".into()),
        ..of_sidecar(&goal, containers).remove(0)
    };
    let rows = [&[][..], &["i2 exited 0 at 99", "s1 running"]]
        .map(|seen| answer(&goal, vec![next(seen), dead()], &memory));
    expect![[r#"
        StartContainer { sandbox: SandboxId("t"), container: ContainerPlan { name: "i", restart_count: 2, round: 0, backoff: Some(Backoff { wait: 10s, since: 1970-01-01T00:01:20Z }), image: "i" } }

        StartContainer { sandbox: SandboxId("t"), container: ContainerPlan { name: "a", restart_count: 2, round: 0, backoff: Some(Backoff { wait: 20s, since: 1970-01-01T00:01:40Z }), image: "i" } }"#]].assert_eq(&rows.join("\n\n"));
}

#[test]
fn a_pod_that_could_not_be_initialized_is_through() {
    let (goal, memory) = with_sidecar("Never");
    check(
        &goal,
        of_sidecar(&goal, &["i0 exited 3 at 99"]),
        &memory,
        &expect!["RecordFinished { at: 1970-01-01T00:01:39Z }"],
    );
}

#[test]
fn a_sidecar_ends_last_and_a_pod_is_through_after_it() {
    let (goal, mut memory) = with_sidecar("Never");
    let ended = ["i0 exited 0 at 60", "s0 running", "a0 exited 0 at 90"];
    check(
        &goal,
        of_sidecar(&goal, &ended),
        &memory,
        &expect![[r#"StopContainer { id: ContainerId("s0"), grace: 30s, why: Some(PodEnds) }"#]],
    );
    memory.stopping.insert(SandboxId("s".into()), at(95));
    let ended = ["i0 exited 0 at 60", "s0 exited 143 at 96", "a0 exited 0 at 90"];
    check(
        &goal,
        of_sidecar(&goal, &ended),
        &memory,
        &expect![[r#"
        StopSandbox { id: SandboxId("s") }
        RecordFinished { at: 1970-01-01T00:01:30Z }"#]],
    );
    memory.finished = Some(Finished { uid: uid(&goal), incarnation: None });
    check(
        &goal,
        of_sidecar(&goal, &ended),
        &memory,
        &expect![[r#"StopSandbox { id: SandboxId("s") }"#]],
    );
    // Of a pod that is taken away, whoever it was made by.
    memory.stopping.clear();
    let running = ["i0 exited 0 at 60", "s0 running", "a0 running"];
    check(
        &Goal::Gone,
        of_sidecar(&goal, &running),
        &memory,
        &expect![[r#"
            StopContainer { id: ContainerId("a0"), grace: 30s, why: Some(PodEnds) }
            wake at 130"#]],
    );
    memory.stopping.insert(SandboxId("s".into()), at(90));
    check(
        &Goal::Gone,
        of_sidecar(&goal, &running),
        &memory,
        &expect![[r#"
            StopContainer { id: ContainerId("a0"), grace: 20s, why: Some(PodEnds) }
            wake at 120"#]],
    );
    let running = ["i0 exited 0 at 60", "s0 running", "a0 exited 0 at 99"];
    check(
        &Goal::Gone,
        of_sidecar(&goal, &running),
        &memory,
        &expect![[r#"StopContainer { id: ContainerId("s0"), grace: 20s, why: Some(PodEnds) }"#]],
    );
    // The others had all the time there was.
    memory.stopping.insert(SandboxId("s".into()), at(70));
    let running = ["i0 exited 0 at 60", "s0 running", "a0 running"];
    check(
        &Goal::Gone,
        of_sidecar(&goal, &running),
        &memory,
        &expect![[r#"
            StopContainer { id: ContainerId("s0"), grace: 2s, why: Some(PodEnds) }
            StopContainer { id: ContainerId("a0"), grace: 2s, why: Some(PodEnds) }"#]],
    );
}

/// A pod with one container, `a`, with these probes.
fn probed(policy: &str, probes: &str) -> Goal {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  restartPolicy: {policy}\n  \
         containers:\n  - name: a\n    image: i\n{probes}"
    );
    Goal::Run(RunGoal { pod: pod(&manifest), incarnation: None })
}

#[test]
fn a_container_that_a_probe_gave_up_is_ended_and_nothing_else() {
    let liveness = "    livenessProbe: {tcpSocket: {port: 1}, terminationGracePeriodSeconds: 5}\n";
    let startup = "    startupProbe: {tcpSocket: {port: 1}}\n";
    let check =
        |policy: &str, probes: &str, (started, alive), container: &str, expected: &Expect| {
            let goal = probed(policy, probes);
            let mut memory = ready(&goal);
            let id = ContainerId("a0".into());
            memory.health.insert(id, Health { started, ready: false, alive });
            check(&goal, vec![sandbox("s", &uid(&goal), true, &[container])], &memory, expected);
        };
    let both = format!("{liveness}{startup}");
    check("Always", &both, (true, true), "a0 running", &expect![""]);
    check("Always", &both, (false, true), "a0 running", &expect![""]);
    check(
        "Always",
        &both,
        (true, false),
        "a0 running",
        &expect![[
            r#"StopContainer { id: ContainerId("a0"), grace: 5s, why: Some(Unhealthy { message: "Container a failed liveness probe, will be restarted" }) }"#
        ]],
    );
    check(
        "OnFailure",
        &both,
        (false, false),
        "a0 running",
        &expect![[
            r#"StopContainer { id: ContainerId("a0"), grace: 30s, why: Some(Unhealthy { message: "Container a failed startup probe, will be restarted" }) }"#
        ]],
    );
    check(
        "Never",
        liveness,
        (true, false),
        "a0 running",
        &expect![[
            r#"StopContainer { id: ContainerId("a0"), grace: 5s, why: Some(Unhealthy { message: "Container a failed liveness probe" }) }"#
        ]],
    );
    // What was said of it means nothing to its restart policy.
    check(
        "Always",
        liveness,
        (true, false),
        "a0 exited 137 at 99",
        &expect![[
            r#"StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "a", restart_count: 1, round: 0, backoff: Some(Backoff { wait: 10s, since: 1970-01-01T00:01:40Z }), image: "i" } }"#
        ]],
    );
}

/// A pod whose container `a` has both hooks, beside a container `b`.
fn with_hooks() -> (Goal, Memory) {
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, \
                    image: i, lifecycle: {postStart: {exec: {command: [up]}}, \
                    preStop: {exec: {command: [down]}}}}, {name: b, image: i}]}";
    let goal = Goal::Run(RunGoal { pod: pod(manifest), incarnation: None });
    let memory = ready(&goal);
    (goal, memory)
}

/// With a preStop hook in `a`.
fn hooked(goal: &Goal, containers: &[&str]) -> Vec<SeenSandbox> {
    let mut sandbox = sandbox("s", &uid(goal), true, containers);
    for container in sandbox.containers.iter_mut().filter(|it| it.name == "a") {
        container.pre_stop = Some("{}".into());
    }
    vec![sandbox]
}

#[test]
fn what_is_done_after_a_start_is_waited_for() {
    let (goal, mut memory) = with_hooks();
    let answer = |seen: &[&str], memory: &Memory| answer(&goal, hooked(&goal, seen), memory);
    let mut rows = vec![answer(&[], &memory)];
    memory.in_flight = [Key::Container("a".into())].into();
    rows.push(answer(&["a0 running"], &memory));
    memory.in_flight.clear();
    memory.post_start.insert(ContainerId("a0".into()));
    rows.push(answer(&["a0 running"], &memory));
    // A new agent knows nothing of it, as a kubelet.
    rows.push(answer(&["a0 running"], &ready(&goal)));
    // What failed ends the container; what comes after it waits no longer.
    let failure = Failure { reason: "X".into(), message: String::new(), count: 1, retry_at: None };
    memory.failures.insert(Key::Hook(ContainerId("a0".into())), failure.clone());
    rows.push(answer(&["a0 running"], &memory));
    rows.push(answer(&["a0 exited 0 at 99", "b0 running"], &memory));
    // Nor does it for an image that does not come.
    memory.images.remove("a");
    memory.failures = [(Key::Image("a".into()), failure)].into();
    rows.push(answer(&[], &memory));
    expect![[r#"
        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "a", restart_count: 0, round: 0, backoff: None, image: "i" } }



        PostStart { id: ContainerId("a0"), container: "a" }

        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "b", restart_count: 0, round: 0, backoff: None, image: "i" } }

        PreStop { id: ContainerId("a0"), hook: "{}", grace: 30s, why: PostStartFailed }
        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "b", restart_count: 0, round: 0, backoff: None, image: "i" } }

        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "a", restart_count: 1, round: 0, backoff: Some(Backoff { wait: 10s, since: 1970-01-01T00:01:40Z }), image: "i" } }

        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "b", restart_count: 0, round: 0, backoff: None, image: "i" } }"#]].assert_eq(&rows.join("\n\n"));
}

#[test]
fn what_is_done_before_an_end_is_part_of_its_grace_period() {
    let (goal, mut memory) = with_hooks();
    let running = || hooked(&goal, &["a0 running", "b0 running"]);
    let gone = |memory: &Memory| answer(&Goal::Gone, running(), memory);
    let mut rows = vec![gone(&memory)];
    memory.stopping.insert(SandboxId("s".into()), at(90));
    let id = || ContainerId("a0".into());
    memory.ending.insert(id(), Ending { since: at(90), pre_stopped: false });
    rows.push(gone(&memory));
    memory.ending.insert(id(), Ending { since: at(90), pre_stopped: true });
    rows.push(gone(&memory));
    // It took all the time there was.
    memory.stopping.insert(SandboxId("s".into()), at(70));
    memory.ending.insert(id(), Ending { since: at(70), pre_stopped: false });
    rows.push(gone(&memory));
    // Of a container that a probe has given up the pod goes on.
    memory.stopping.clear();
    memory.ending.clear();
    memory.failures.insert(
        Key::Hook(id()),
        Failure { reason: "X".into(), message: String::new(), count: 1, retry_at: None },
    );
    rows.push(answer(&goal, running(), &memory));
    memory.ending.insert(id(), Ending { since: at(80), pre_stopped: true });
    rows.push(answer(&goal, running(), &memory));
    expect![[r#"
        PreStop { id: ContainerId("a0"), hook: "{}", grace: 30s, why: PodEnds }
        StopContainer { id: ContainerId("b0"), grace: 30s, why: Some(PodEnds) }

        PreStop { id: ContainerId("a0"), hook: "{}", grace: 20s, why: PodEnds }
        StopContainer { id: ContainerId("b0"), grace: 20s, why: Some(PodEnds) }

        StopContainer { id: ContainerId("a0"), grace: 20s, why: None }
        StopContainer { id: ContainerId("b0"), grace: 20s, why: Some(PodEnds) }

        StopContainer { id: ContainerId("a0"), grace: 2s, why: Some(PodEnds) }
        StopContainer { id: ContainerId("b0"), grace: 2s, why: Some(PodEnds) }

        PreStop { id: ContainerId("a0"), hook: "{}", grace: 30s, why: PostStartFailed }

        StopContainer { id: ContainerId("a0"), grace: 10s, why: None }"#]]
    .assert_eq(&rows.join("\n\n"));
}

#[test]
fn all_containers_are_started_over_when_a_rule_says_so() {
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {restartPolicy: Never, \
                    initContainers: [{name: i, image: i}, {name: s, image: i, restartPolicy: Always}], \
                    containers: [{name: a, image: i, restartPolicy: Never, restartPolicyRules: [\
                    {action: RestartAllContainers, exitCodes: {operator: In, values: [7]}}]}, \
                    {name: b, image: i}]}";
    let goal = Goal::Run(RunGoal { pod: pod(manifest), incarnation: None });
    let names = ["i", "s", "a", "b"].map(|name| (name.to_owned(), ImageMemory::Ready("i".into())));
    let mut memory = Memory { images: names.into(), ..ready(&goal) };
    // Those from `round` on are of the second round.
    let answer = |seen: &[&str], round: usize, memory: &Memory| {
        let mut sandbox = of_sidecar(&goal, seen).remove(0);
        sandbox.containers.iter_mut().skip(round).for_each(|it| it.round = 1);
        answer(&goal, vec![sandbox], memory)
    };
    let before = ["i0 exited 0 at 60", "s0 running", "a0 exited 7 at 99", "b0 running"];
    let through =
        ["i0 exited 0 at 60", "s0 exited 137 at 99", "a0 exited 7 at 99", "b0 exited 137 at 99"];
    let mut rows = vec![answer(&before, 9, &memory)];
    let half = ["i0 exited 0 at 60", "s0 running", "a0 exited 7 at 99", "b0 exited 137 at 99"];
    rows.push(answer(&half, 9, &memory));
    rows.push(answer(&through, 9, &memory));
    memory.in_flight.insert(Key::Container("i".into()));
    rows.push(answer(&through, 9, &memory));
    memory.in_flight.clear();
    rows.push(answer(&[&through[..], &["i1 running"]].concat(), 4, &memory));
    let next = [&through[..], &["i1 exited 0 at 99", "s1 running"]].concat();
    rows.push(answer(&next, 4, &memory));
    // Whoever keeps ending so waits longer each time.
    let again =
        ["i1 exited 0 at 60", "s1 exited 137 at 99", "a1 exited 7 at 99", "b1 exited 137 at 99"];
    rows.push(answer(&again, 9, &memory));
    expect![[r#"
        StopContainer { id: ContainerId("b0"), grace: 2s, why: Some(RestartAll) }

        StopContainer { id: ContainerId("s0"), grace: 2s, why: Some(RestartAll) }

        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "i", restart_count: 1, round: 1, backoff: None, image: "i" } }





        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "a", restart_count: 1, round: 1, backoff: Some(Backoff { wait: 10s, since: 1970-01-01T00:01:40Z }), image: "i" } }
        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "b", restart_count: 1, round: 1, backoff: None, image: "i" } }

        wake at 109"#]].assert_eq(&rows.join("\n\n"));
}

/// A pod with an init container `i` and a main one `a`, to which `d` has been added.
fn debugged(policy: &str) -> Goal {
    let manifest = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec: {{restartPolicy: {policy}, \
         initContainers: [{{name: i, image: i}}], containers: [{{name: a, image: i}}]}}"
    );
    let added = serde_json::json!([{"name": "d", "image": "i", "targetContainerName": "a"}]);
    let pod = pod(&manifest).with_ephemeral_containers(serde_json::from_value(added).unwrap());
    Goal::Run(RunGoal { pod: Arc::new(pod), incarnation: None })
}

#[test]
fn what_was_added_to_a_pod_is_started_once_whatever_the_others_do() {
    let goal = debugged("Always");
    let mut memory = ready(&goal);
    for name in ["i", "d"] {
        memory.images.insert(name.into(), ImageMemory::Ready("i".into()));
    }
    let without_image = || {
        let mut memory = memory.clone();
        memory.images.remove("d");
        memory
    };
    let spent = Memory { spent: ["d".to_owned()].into(), ..memory.clone() };
    let seen = |containers: &[&str]| {
        let mut sandbox = sandbox("s", &uid(&goal), true, containers);
        sandbox.containers.iter_mut().for_each(|it| it.ephemeral = it.name == "d");
        vec![sandbox]
    };
    let starting = Memory { in_flight: [Key::Container("d".into())].into(), ..memory.clone() };
    let rows = [
        ("no sandbox yet", answer(&goal, vec![], &memory)),
        ("while it is initialized", answer(&goal, seen(&["i0 running"]), &memory)),
        ("when that fails", answer(&goal, seen(&["i1 exited 1 at 99"]), &memory)),
        (
            "its image first",
            answer(&goal, seen(&["i0 exited 0 at 60", "a0 running"]), &without_image()),
        ),
        ("beside the others", answer(&goal, seen(&["i0 exited 0 at 60", "a0 running"]), &memory)),
        (
            "being started",
            answer(&goal, seen(&["i0 exited 0 at 60", "a0 running", "d0 created"]), &starting),
        ),
        (
            "lost with an agent",
            answer(&goal, seen(&["i0 exited 0 at 60", "a0 running", "d0 created"]), &memory),
        ),
        (
            "running",
            answer(&goal, seen(&["i0 exited 0 at 60", "a0 running", "d0 running"]), &memory),
        ),
        (
            "ended",
            answer(&goal, seen(&["i0 exited 0 at 60", "a0 running", "d0 exited 1 at 99"]), &memory),
        ),
        ("ended and gone", answer(&goal, seen(&["i0 exited 0 at 60", "a0 running"]), &spent)),
    ];
    let text = rows.map(|(name, answer)| format!("{name}:\n{answer}\n")).concat();
    expect![[r#"
        no sandbox yet:
        RunSandbox { attempt: 0 }
        while it is initialized:
        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "d", restart_count: 0, round: 0, backoff: None, image: "i" } }
        when that fails:
        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "d", restart_count: 0, round: 0, backoff: None, image: "i" } }
        wake at 109
        its image first:
        EnsureImage { container: "d" }
        beside the others:
        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "d", restart_count: 0, round: 0, backoff: None, image: "i" } }
        being started:

        lost with an agent:
        RemoveContainer { id: ContainerId("d0") }
        running:

        ended:

        ended and gone:

    "#]].assert_eq(&text);
}

#[test]
fn what_was_added_to_a_pod_ends_with_it() {
    let goal = debugged("Never");
    let memory = ready(&goal);
    let seen = |containers: &[&str]| {
        let mut sandbox = sandbox("s", &uid(&goal), true, containers);
        sandbox.containers.iter_mut().for_each(|it| it.ephemeral = it.name == "d");
        vec![sandbox]
    };
    let through =
        |d: &str| answer(&goal, seen(&["i0 exited 0 at 60", "a0 exited 0 at 90", d]), &memory);
    expect![[r#"StopContainer { id: ContainerId("d0"), grace: 30s, why: Some(PodEnds) }"#]]
        .assert_eq(&through("d0 running"));
    expect!["RecordFinished { at: 1970-01-01T00:01:30Z }"].assert_eq(&through("d0 exited 1 at 95"));
    let run = goal.pod().unwrap().clone();
    let stop = Goal::Stop { run, grace: Duration::from_secs(3) };
    let running = seen(&["i0 exited 0 at 60", "a0 running", "d0 running"]);
    expect![[r#"
        StopContainer { id: ContainerId("a0"), grace: 3s, why: Some(PodEnds) }
        StopContainer { id: ContainerId("d0"), grace: 3s, why: Some(PodEnds) }"#]]
    .assert_eq(&answer(&stop, running, &memory));
}

#[test]
fn what_was_added_to_a_pod_goes_on_when_all_others_are_started_over() {
    let manifest = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, \
                    image: i}, {name: b, image: i, restartPolicy: Never, restartPolicyRules: \
                    [{action: RestartAllContainers, exitCodes: {operator: In, values: [1]}}]}]}";
    let added = serde_json::json!([{"name": "d", "image": "i"}]);
    let pod = pod(manifest).with_ephemeral_containers(serde_json::from_value(added).unwrap());
    let goal = Goal::Run(RunGoal { pod: Arc::new(pod), incarnation: None });
    let memory = ready(&goal);
    let seen = |containers: &[&str]| {
        let mut sandbox = sandbox("s", &uid(&goal), true, containers);
        sandbox.containers.iter_mut().for_each(|it| it.ephemeral = it.name == "d");
        vec![sandbox]
    };
    let rows = [
        answer(&goal, seen(&["a0 running", "b0 exited 1 at 99", "d0 running"]), &memory),
        answer(&goal, seen(&["a0 exited 137 at 99", "b0 exited 1 at 99", "d0 running"]), &memory),
    ];
    expect![[r#"
        StopContainer { id: ContainerId("a0"), grace: 2s, why: Some(RestartAll) }

        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "a", restart_count: 1, round: 1, backoff: Some(Backoff { wait: 10s, since: 1970-01-01T00:01:40Z }), image: "i" } }
        StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "b", restart_count: 1, round: 1, backoff: Some(Backoff { wait: 10s, since: 1970-01-01T00:01:40Z }), image: "i" } }"#]].assert_eq(&rows.join("\n\n"));
}

#[test]
fn a_start_whose_target_was_missed_is_tried_again_when_something_has_changed() {
    let goal = debugged("Always");
    let mut memory = ready(&goal);
    memory.images.insert("d".into(), ImageMemory::Ready("i".into()));
    let failure = |reason: &str| Failure {
        reason: reason.into(),
        message: "why".into(),
        count: 3,
        retry_at: Some(at(130)),
    };
    let seen = || vec![sandbox("s", &uid(&goal), true, &["i0 exited 0 at 60", "a0 running"])];
    for (reason, expected) in [
        (
            "CreateContainerConfigError",
            expect![[
                r#"StartContainer { sandbox: SandboxId("s"), container: ContainerPlan { name: "d", restart_count: 0, round: 0, backoff: None, image: "i" } }"#
            ]],
        ),
        ("CreateContainerError", expect!["wake at 130"]),
    ] {
        memory.failures.insert(Key::Container("d".into()), failure(reason));
        check(&goal, seen(), &memory, &expect!["wake at 130"]);
        memory.retry_targets(&goal.pod().unwrap().pod, at(100));
        check(&goal, seen(), &memory, &expected);
    }
}
