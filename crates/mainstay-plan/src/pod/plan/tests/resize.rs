//! What comes of an allocation that changed.

use std::sync::Arc;

use mainstay_cri::ContainerId;
use mainstay_testkit::pods::pod;

use super::table::{at, ready, sandbox, uid};
use crate::pod::{Action, Failure, Goal, Key, Memory, RunGoal, SeenPod, StopReason, plan};
use crate::resize::Resizing;

/// Two containers that ask for so much CPU; the first is to be started anew for more.
fn asking(policy: &str, cpu: [&str; 2]) -> Goal {
    let [a, b] = cpu;
    let text = format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  restartPolicy: {policy}\n  containers:\n  \
         - {{name: a, image: i, resources: {{requests: {{cpu: {a}}}}}, resizePolicy: \
         [{{resourceName: cpu, restartPolicy: RestartContainer}}]}}\n  \
         - {{name: b, image: i, resources: {{requests: {{cpu: {b}}}}}}}\n"
    );
    Goal::Run(RunGoal { pod: pod(&text), incarnation: None })
}

/// What is left to be done of a resize, in short.
fn resizes(goal: &Goal, from: &Goal, containers: &[&str], memory: &Memory) -> String {
    let of = |goal: &Goal| goal.pod().unwrap().pod.clone();
    let resizing = Resizing::begin(None, &of(from), &of(goal), at(90));
    let memory = Memory { resizing: Some(Arc::new(resizing)), ..memory.clone() };
    let seen = SeenPod { sandboxes: vec![sandbox("s", &uid(goal), true, containers)] };
    let plan = plan(goal, &seen, &memory, at(100));
    let word = |action: &Action| match action {
        Action::Resize(_) => "resize".to_owned(),
        Action::StopContainer { id, why: Some(StopReason::Resized { container }), .. } => {
            format!("end {id} of {container}")
        }
        Action::StartContainer { container, .. } => {
            format!("start {} {:?}", container.name, container.backoff.is_some())
        }
        other => format!("{other:?}"),
    };
    plan.actions.iter().map(word).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_pod_is_resized_before_anything_is_started_in_it_and_after_what_has_to_end() {
    let (old, new) = (asking("OnFailure", ["1", "1"]), asking("OnFailure", ["2", "2"]));
    let check = |containers: &[&str], change: fn(&mut Memory)| {
        let mut memory = ready(&new);
        change(&mut memory);
        resizes(&new, &old, containers, &memory)
    };
    let nothing: fn(&mut Memory) = |_| {};
    assert_eq!(check(&["a0 running", "b0 running"], nothing), "end a0 of a");
    // The other one has no reason to wait for that.
    assert_eq!(check(&["a0 running", "b0 exited 1 at 99"], nothing), "end a0 of a, start b true");
    // It has ended as it was asked to, and by the pod's policy for good.
    let resized: fn(&mut Memory) = |memory| {
        memory.resized.insert(ContainerId("a0".into()));
    };
    let ended = ["a0 exited 0 at 99", "b0 running"];
    assert_eq!(check(&ended, resized), "resize");
    let under_way: fn(&mut Memory) = |memory| {
        memory.resized.insert(ContainerId("a0".into()));
        memory.in_flight.insert(Key::Resize);
    };
    assert_eq!(check(&ended, under_way), "");
    // A resize that fails keeps nothing from being started.
    let failed: fn(&mut Memory) = |memory| {
        memory.resized.insert(ContainerId("a0".into()));
        let retry_at = Some(at(200));
        let failure = Failure { reason: "X".into(), message: "x".into(), count: 1, retry_at };
        memory.failures.insert(Key::Resize, failure);
    };
    assert_eq!(check(&ended, failed), "start a false");
    // What is being started is waited for.
    let starting: fn(&mut Memory) = |memory| {
        memory.in_flight.insert(Key::Container("a".into()));
    };
    assert_eq!(check(&["b0 running"], starting), "");
}
