//! Histories of a container's probes, and what they may never do.

use std::fmt::Write;

use expect_test::{Expect, expect};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn container(probes: &Value) -> Container {
    let mut object = json!({"name": "a", "image": "i"});
    object.as_object_mut().unwrap().extend(probes.as_object().unwrap().clone());
    serde_json::from_value(object).unwrap()
}

fn probe(initial: i32, period: i32, success: i32, failure: i32) -> Value {
    json!({
        "tcpSocket": {"port": 1}, "initialDelaySeconds": initial, "periodSeconds": period,
        "successThreshold": success, "failureThreshold": failure, "timeoutSeconds": 1,
    })
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Lets time go by. Each probe ends at once, and finds what its kind's letters say one after the
/// other: `+`, `-`, `?` for one that fails itself; the last letter stays.
fn history(probes: &Value, start: &Start, findings: [&str; 3], until: u64) -> String {
    let container = container(probes);
    let mut probes = Probes::new(&container, start, Duration::ZERO).unwrap();
    let (mut counts, mut last) = ([0; 3], Duration::ZERO);
    let mut text = String::new();
    let mut tell = |at: Duration, what: &str, health: Health| {
        let word = |is: bool, word: &'static str| if is { word } else { "" };
        let (started, ready) = (word(health.started, " started"), word(health.ready, " ready"));
        let dead = word(!health.alive, " dead");
        writeln!(text, "{} {what}{started}{ready}{dead}", at.as_secs()).unwrap();
    };
    tell(Duration::ZERO, "begins", probes.health());
    while let Some(at) = probes.due().filter(|at| *at <= seconds(until)) {
        assert!(at >= last, "time goes back");
        last = at;
        for kind in probes.begin(at) {
            let which = ProbeKind::ALL.iter().position(|it| *it == kind).unwrap();
            let letters = findings[which].as_bytes();
            let letter = letters[counts[which].min(letters.len() - 1)];
            counts[which] += 1;
            let finding = match letter {
                b'+' => Finding::Success,
                b'-' => Finding::Failure,
                _ => Finding::Unknown,
            };
            let before = probes.health();
            let changed = probes.finish(kind, finding, at);
            assert_eq!(changed, before != probes.health());
            tell(at, &format!("{kind} {}", char::from(letter)), probes.health());
        }
    }
    text
}

#[expect(clippy::needless_pass_by_value, reason = "the values are written in the call")]
fn check(probes: Value, start: Start, findings: [&str; 3], until: u64, expected: Expect) {
    expected.assert_eq(&history(&probes, &start, findings, until));
}

#[test]
fn readiness_goes_up_and_down_by_its_thresholds() {
    check(
        json!({"readinessProbe": probe(3, 2, 2, 2)}),
        Start::default(),
        ["", "", "-+-++?-+--++"],
        25,
        expect![[r#"
            0 begins started
            3 Readiness - started
            5 Readiness + started
            7 Readiness - started
            9 Readiness + started
            11 Readiness + started ready
            13 Readiness ? started ready
            15 Readiness - started ready
            17 Readiness + started ready
            19 Readiness - started ready
            21 Readiness - started
            23 Readiness + started
            25 Readiness + started ready
        "#]],
    );
}

#[test]
fn a_container_that_is_given_up_is_asked_no_more_for_its_life() {
    check(
        json!({"livenessProbe": probe(0, 10, 1, 3), "readinessProbe": probe(0, 20, 1, 3)}),
        Start::default(),
        ["", "+--?-", "+-"],
        60,
        expect![[r#"
            0 begins started
            0 Liveness + started
            0 Readiness + started ready
            10 Liveness - started ready
            20 Liveness - started ready
            20 Readiness - started ready
            30 Liveness ? started ready
            40 Liveness - started ready dead
            40 Readiness - started ready dead
            60 Readiness - started dead
        "#]],
    );
}

#[test]
fn nothing_else_is_asked_before_a_container_has_started() {
    check(
        json!({
            "startupProbe": probe(1, 2, 1, 4), "livenessProbe": probe(0, 10, 1, 1),
            "readinessProbe": probe(9, 10, 1, 1),
        }),
        Start::default(),
        ["--+", "+", "+"],
        20,
        expect![[r#"
            0 begins
            1 Startup -
            3 Startup -
            5 Startup + started
            5 Liveness + started
            9 Readiness + started ready
            15 Liveness + started ready
            19 Readiness + started ready
        "#]],
    );
    check(
        json!({"startupProbe": probe(0, 5, 1, 3), "livenessProbe": probe(0, 1, 1, 1)}),
        Start::default(),
        ["-", "+", ""],
        100,
        expect![[r#"
            0 begins ready
            0 Startup - ready
            5 Startup - ready
            10 Startup - ready dead
        "#]],
    );
}

#[test]
fn a_new_agent_takes_over_what_the_last_one_knew() {
    let probes = json!({
        "startupProbe": probe(0, 10, 1, 1), "livenessProbe": probe(60, 10, 1, 1),
        "readinessProbe": probe(30, 10, 1, 2),
    });
    let known = |started, ready, alive| Some(Health { started, ready, alive });
    // It is ready until its probe has said otherwise as often as it takes.
    let start = Start { age: seconds(40), known: known(true, true, true), spread: 1 << 15 };
    check(
        probes.clone(),
        start,
        ["-", "+", "-"],
        30,
        expect![[r#"
            0 begins started ready
            5 Readiness - started ready
            15 Readiness - started
            20 Liveness + started
            25 Readiness - started
            30 Liveness + started
        "#]],
    );
    // What was given up is asked again: its end may have been lost with the agent.
    let start = Start { age: seconds(100), known: known(true, false, false), spread: 0 };
    check(
        probes.clone(),
        start,
        ["-", "+", "+"],
        5,
        expect![[r#"
              0 begins started
              0 Liveness + started
              0 Readiness + started ready
        "#]],
    );
    // One that had not started has all of its time again.
    let start = Start { age: seconds(100), known: known(false, true, true), spread: 0 };
    check(
        probes,
        start,
        ["+", "+", "+"],
        5,
        expect![[r#"
              0 begins
              0 Startup + started
              0 Liveness + started
              0 Readiness + started ready
        "#]],
    );
}

#[test]
fn what_takes_longer_than_its_period_follows_at_once_and_only_once() {
    let container = container(&json!({"readinessProbe": probe(0, 2, 1, 1)}));
    let mut probes = Probes::new(&container, &Start::default(), Duration::ZERO).unwrap();
    assert_eq!(probes.begin(seconds(0)), [ProbeKind::Readiness]);
    assert_eq!(probes.due(), None);
    assert_eq!(probes.begin(seconds(5)), []);
    probes.finish(ProbeKind::Readiness, Finding::Success, seconds(7));
    assert_eq!(probes.due(), Some(seconds(7)));
    probes.begin(seconds(7));
    probes.finish(ProbeKind::Readiness, Finding::Success, seconds(7));
    assert_eq!(probes.due(), Some(seconds(9)));
    // One that is begun a little late does not shift the others.
    probes.begin(seconds(9) + Duration::from_millis(300));
    probes.finish(ProbeKind::Readiness, Finding::Success, seconds(10));
    assert_eq!(probes.due(), Some(seconds(11)));
}

#[test]
fn of_a_pod_that_ends_only_readiness_is_asked() {
    let all = json!({
        "startupProbe": probe(0, 1, 1, 1), "livenessProbe": probe(0, 1, 1, 1),
        "readinessProbe": probe(0, 1, 1, 1),
    });
    let mut probes = Probes::new(&container(&all), &Start::default(), Duration::ZERO).unwrap();
    probes.begin(seconds(0));
    probes.finish(ProbeKind::Startup, Finding::Success, seconds(0));
    probes.end();
    assert_eq!(probes.begin(seconds(9)), [ProbeKind::Readiness]);
    let mut probes = Probes::new(&container(&all), &Start::default(), Duration::ZERO).unwrap();
    probes.end();
    assert_eq!(probes.due(), None);
    assert!(Probes::new(&container(&json!({})), &Start::default(), Duration::ZERO).is_none());
}

fn any_probe() -> impl Strategy<Value = Value> {
    let some = (0..5i32, 1..4i32, 1..4i32, 1..4i32);
    prop_oneof![Just(Value::Null), some.prop_map(|(a, b, c, d)| probe(a, b, c, d))]
}

proptest! {
    #[test]
    fn whatever_is_found_and_however_long_it_takes(
        startup in any_probe(), liveness in any_probe(), readiness in any_probe(),
        steps in prop::collection::vec((0..5000u64, 0..3usize, 0..3u8), 1..200),
    ) {
        let all = json!({
            "startupProbe": startup, "livenessProbe": liveness, "readinessProbe": readiness,
        });
        let container = container(&all);
        let probes = Probes::new(&container, &Start::default(), Duration::ZERO);
        let none = ProbeKind::ALL.iter().all(|kind| kind.of(&container).is_none());
        prop_assert_eq!(probes.is_none(), none);
        let Some(mut probes) = probes else { return Ok(()) };
        let mut now = Duration::ZERO;
        let mut under_way: Vec<ProbeKind> = Vec::new();
        for (wait, which, finding) in steps {
            now += Duration::from_millis(wait);
            let before = probes.health();
            for kind in probes.begin(now) {
                prop_assert!(!under_way.contains(&kind));
                prop_assert_eq!(kind == ProbeKind::Startup, !before.started);
                prop_assert!(before.alive || kind == ProbeKind::Readiness);
                under_way.push(kind);
            }
            prop_assert_eq!(before, probes.health());
            // Whatever is due was begun.
            prop_assert!(probes.due().is_none_or(|due| due > now));
            if under_way.is_empty() {
                // Something comes, unless all is said.
                prop_assert!(
                    probes.due().is_some()
                        || !before.alive
                        || (before.started && liveness.is_null() && readiness.is_null())
                );
                continue;
            }
            let kind = under_way.swap_remove(which % under_way.len());
            let finding =
                [Finding::Success, Finding::Failure, Finding::Unknown][usize::from(finding)];
            let changed = probes.finish(kind, finding, now);
            let after = probes.health();
            prop_assert_eq!(changed, before != after);
            prop_assert!(!changed || finding != Finding::Unknown);
            // Neither is ever taken back.
            prop_assert!(after.started || !before.started);
            prop_assert!(before.alive || !after.alive);
        }
    }
}
