use std::time::Duration;

use expect_test::expect;
use jiff::Timestamp;
use mainstay_cri::{ContainerId, SandboxId};
use mainstay_testkit::pods::pod;

use super::*;

/// `i` and `j` run to their ends, `s` and `t` are sidecars, `a` and `b` are what the pod is for.
fn turn(seen: &str) -> String {
    let pod = pod("apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {initContainers: [\
         {name: i, image: x}, {name: s, image: x, restartPolicy: Always}, \
         {name: j, image: x}, {name: t, image: x, restartPolicy: Always}], \
         containers: [{name: a, image: x}, {name: b, image: x}]}");
    let at = Timestamp::UNIX_EPOCH;
    let container = |(restart_count, text): (usize, &str)| {
        let (name, state) = text.split_at(1);
        let exited = |started_at, exit_code| ContainerState::Exited {
            started_at,
            finished_at: at,
            exit_code,
            reason: String::new(),
            message: String::new(),
        };
        SeenContainer {
            id: ContainerId(text.into()),
            name: name.into(),
            restart_count: restart_count.try_into().unwrap(),
            round: 0,
            ephemeral: false,
            state: match state {
                "+" => ContainerState::Running { started_at: at },
                "?" => ContainerState::Created,
                // Discarded by an agent that ended before it had started it.
                "-" => exited(None, 0),
                code => exited(Some(at), code.parse().unwrap()),
            },
            backoff: None,
            image: "x".into(),
            image_ref: "x".into(),
            pre_stop: None,
            termination_message: None,
            user: None,
        }
    };
    let sandbox = SeenSandbox {
        id: SandboxId("s".into()),
        uid: pod.uid().into(),
        incarnation: None,
        attempt: 0,
        ready: true,
        created_at: at,
        ips: vec![],
        grace: Duration::ZERO,
        exclusive: crate::exclusive::Exclusive::default(),
        sidecars: vec![],
        containers: seen.split_whitespace().enumerate().map(container).collect(),
    };
    let memory = Memory::default();
    let round = Round::of(&pod, Some(&sandbox), &memory);
    let turn = on_turn(&pod, Some(&sandbox), round, &memory);
    turn.iter().map(|(_, container)| container.name.as_str()).collect()
}

#[test]
fn each_has_its_turn_after_those_before_it() {
    let rows = [
        "",
        "i?",
        "i-",
        "i+",
        "i1",
        "i1 i+",
        "i1 i0",
        "i0 s?",
        "i0 s+",
        "i0 s1",
        "i0 s+ j+",
        "i0 s1 j+",
        "i0 s1 j0",
        "i0 s+ j0 t+",
        "i0 s+ j0 t1",
        "s0 t+",
        "i0 s+ j0 t+ a+",
        "i0 s1 j0 t1 a+",
        "b1",
        "a?",
    ];
    let rows = rows.map(|seen| format!("{seen}: {}", turn(seen)));
    expect![[r#"
        : i
        i?: i
        i-: i
        i+: i
        i1: i
        i1 i+: i
        i1 i0: s
        i0 s?: s
        i0 s+: sj
        i0 s1: s
        i0 s+ j+: sj
        i0 s1 j+: sj
        i0 s1 j0: st
        i0 s+ j0 t+: stab
        i0 s+ j0 t1: st
        s0 t+: stab
        i0 s+ j0 t+ a+: stab
        i0 s1 j0 t1 a+: stab
        b1: stab
        a?: stab"#]]
    .assert_eq(&rows.join("\n"));
}
