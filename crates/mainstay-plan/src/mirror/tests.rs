//! A table of what is and what is held, and random histories against a small API.

use std::fmt::Write;
use std::sync::Arc;

use expect_test::expect;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mainstay_cri::{ContainerId, ContainerState, SandboxId};
use mainstay_testkit::pods::pod as pod_of;
use proptest::prelude::*;

use super::*;
use crate::pod::{SeenContainer, SeenSandbox};

fn pod(image: &str) -> Arc<Pod> {
    pod_of(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{containers: [{{name: a, image: {image}}}]}}\n"
    ))
}

fn status(phase: &str) -> PodStatus {
    PodStatus { phase: Some(phase.into()), ..PodStatus::default() }
}

fn said(phase: &str) -> Said {
    Said::from(&status(phase))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn ending(pod: &Pod) -> Ending {
    Ending { uid: pod.uid().into(), grace: Duration::from_secs(20) }
}

fn mirror(pod: &Pod) -> Mirror {
    let object = object(pod, "n1", "node-uid");
    match Held::of(object) {
        Held::Mirror(mirror) => Mirror { uid: "m".into(), status: said("Running"), ..*mirror },
        Held::Foreign(_) => panic!("it has the annotation"),
    }
}

#[test]
fn one_line_for_each_state() {
    let (old, new) = (pod("old"), pod("new"));
    let running = status("Running");
    let both = [ending(&new), ending(&old)];
    let wanted = |invalid: Option<&'static str>, ending| {
        let (pod, status) = (&*new, &running);
        Some(Static::Wanted(Wanted { pod, status, invalid, ending }))
    };
    let well = || wanted(None, &[]);
    let deleting = Mirror { deleting: true, ..mirror(&new) };
    let foreign = || Some(Held::Foreign(Arc::default()));
    let some = |mirror| Some(Held::Mirror(Box::new(mirror)));
    let awaited = || Some(Static::Awaited);
    let leaving = |ending| Some(Static::Leaving { ending });
    let pending = Mirror { status: said("Pending"), ..mirror(&new) };
    let failed = Mirror { status: said("Failed"), ..mirror(&new) };
    let moved = Mirror { path: Some("other.yaml".into()), ..mirror(&new) };
    let stray = Mirror { owner: Some("old-node".into()), ..mirror(&new) };
    let forged = Mirror { owner: None, ..mirror(&new) };
    let rows = [
        ("nothing", None, None),
        ("orphan", None, some(mirror(&old))),
        ("foreign pod", None, foreign()),
        ("not looked at yet", awaited(), some(mirror(&old))),
        ("new", well(), None),
        ("as it should be", well(), some(mirror(&new))),
        ("status changed", well(), some(pending)),
        ("ended for good, and started anew", well(), some(failed)),
        ("deleted gracefully", well(), some(deleting.clone())),
        ("name taken", well(), foreign()),
        ("edited, old one ended", well(), some(mirror(&old))),
        ("edited, old one ending", wanted(None, &both[1..]), some(mirror(&old))),
        ("edited, mirror of the old one gone", wanted(None, &both[1..]), None),
        ("edited, ending and told so", wanted(None, &both), some(deleting.clone())),
        ("restarted", wanted(None, &both[..1]), some(mirror(&new))),
        ("manifest renamed", well(), some(moved)),
        ("node made anew", well(), some(stray)),
        ("forged", well(), some(forged)),
        ("manifest invalid", wanted(Some("web.yaml:3:1: no"), &[]), some(mirror(&new))),
        ("removed, running", leaving(&both[..1]), some(mirror(&new))),
        ("removed, ending and told so", leaving(&both[..1]), some(deleting)),
        ("removed, ended", leaving(&[]), some(mirror(&new))),
        ("removed, no mirror", leaving(&both[..1]), None),
    ];
    let mut table = String::new();
    for (name, known, held) in rows {
        let next = |node| match next(known.as_ref(), held.as_ref(), node, at(7)) {
            None => "-".to_owned(),
            Some(Action::Create) => "create".to_owned(),
            Some(Action::Terminate { uid, seconds }) => format!("terminate {uid} {seconds}"),
            Some(Action::Delete { uid }) => format!("delete {uid}"),
            Some(Action::PatchStatus { patch }) => format!("patch {patch}"),
            Some(Action::AddContainers { patch }) => format!("add {patch}"),
        };
        let (with, without) = (next(Some("node-uid")), next(None));
        let without =
            if with == without { String::new() } else { format!("; without node: {without}") };
        writeln!(table, "{name}: {with}{without}").unwrap();
    }
    expect![[r#"
        nothing: -
        orphan: delete m
        foreign pod: -
        not looked at yet: -
        new: create; without node: -
        as it should be: -
        status changed: patch {"metadata":{"uid":"m"},"status":{"phase":"Running"}}
        ended for good, and started anew: delete m
        deleted gracefully: delete m
        name taken: -
        edited, old one ended: delete m
        edited, old one ending: terminate m 20
        edited, mirror of the old one gone: create; without node: -
        edited, ending and told so: -
        restarted: terminate m 20
        manifest renamed: delete m
        node made anew: delete m; without node: -
        forged: delete m; without node: -
        manifest invalid: patch {"metadata":{"uid":"m"},"status":{"$setElementOrder/conditions":[{"type":"ManifestInvalid"}],"conditions":[{"lastTransitionTime":"1970-01-01T00:00:07Z","message":"web.yaml:3:1: no","reason":"ManifestInvalid","status":"True","type":"ManifestInvalid"}]}}
        removed, running: terminate m 20
        removed, ending and told so: -
        removed, ended: delete m
        removed, no mirror: -
    "#]]
    .assert_eq(&table);
}

#[test]
fn the_object_is_the_pod_and_says_that_it_mirrors() {
    let pod = pod("x");
    let object = object(&pod, "n1", "node-uid");
    let text = serde_json::to_string_pretty(&object.metadata).unwrap();
    expect![[r#"
        {
          "annotations": {
            "kubernetes.io/config.hash": "UID",
            "kubernetes.io/config.mirror": "UID",
            "kubernetes.io/config.seen": "2026-01-01T00:00:00Z",
            "kubernetes.io/config.source": "file",
            "mainstay.dev/config.path": "test.yaml"
          },
          "name": "web-n1",
          "namespace": "default",
          "ownerReferences": [
            {
              "apiVersion": "v1",
              "controller": true,
              "kind": "Node",
              "name": "n1",
              "uid": "node-uid"
            }
          ]
        }"#]]
    .assert_eq(&text.replace(pod.uid(), "UID"));
    assert_eq!(object.spec.as_ref(), Some(pod.spec()));
}

/// The condition keeps its time, so that it is not patched again and again.
#[test]
fn an_invalid_manifest_is_said_once() {
    let (pod, status) = (pod("x"), status("Running"));
    let invalid = Some("web.yaml:3:1: no");
    let known = Static::Wanted(Wanted { pod: &pod, status: &status, invalid, ending: &[] });
    let mut mirror = mirror(&pod);
    let wanted =
        Wanted { pod: &pod, status: &status, invalid: Some("web.yaml:3:1: no"), ending: &[] };
    mirror.status = Said::from(&object::status(&wanted, &mirror.status.read(), at(7)));
    let held = Held::Mirror(Box::new(mirror));
    assert_eq!(next(Some(&known), Some(&held), Some("node-uid"), at(9)), None);
}

#[test]
fn what_runs_and_is_not_wanted_is_ending() {
    let pod = pod("x");
    let sandbox = |uid: &str, alive: bool, grace| SeenSandbox {
        id: SandboxId(format!("{uid}{grace}")),
        uid: uid.into(),
        incarnation: None,
        attempt: 0,
        ready: true,
        created_at: at(0),
        ips: Vec::new(),
        grace: Duration::from_secs(grace),
        exclusive: crate::exclusive::Exclusive::default(),
        sidecars: vec![],
        containers: vec![SeenContainer {
            id: ContainerId("c".into()),
            name: "a".into(),
            restart_count: 0,
            round: 0,
            ephemeral: false,
            state: match alive {
                true => ContainerState::Running { started_at: at(1) },
                false => ContainerState::Exited {
                    started_at: Some(at(1)),
                    finished_at: at(2),
                    exit_code: 0,
                    reason: String::new(),
                    message: String::new(),
                },
            },
            backoff: None,
            image: String::new(),
            image_ref: String::new(),
            pre_stop: None,
            termination_message: None,
            user: None,
        }],
    };
    let seen = SeenPod {
        sandboxes: vec![
            sandbox(pod.uid(), true, 1),
            sandbox("old", true, 5),
            sandbox("old", true, 9),
            sandbox("older", false, 9),
        ],
    };
    let run = RunGoal { pod, incarnation: None };
    let old = Ending { uid: "old".into(), grace: Duration::from_secs(9) };
    assert_eq!(endings(&seen, Some(&run)), [old]);
    assert_eq!(endings(&seen, None).len(), 2);
}

/// One thing that happens to a pod or to its mirror.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Another version is wanted, or none.
    Want(Option<usize>),
    /// What was being stopped has ended.
    End,
    /// The next action is carried out.
    Act,
    /// Somebody deletes the mirror, with a grace period or without.
    Delete(bool),
    /// Somebody edits its status.
    Edit,
    /// The Node is deleted and made anew.
    RenewNode,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => proptest::option::of(0..2usize).prop_map(Step::Want),
        2 => Just(Step::End),
        6 => Just(Step::Act),
        1 => any::<bool>().prop_map(Step::Delete),
        1 => Just(Step::Edit),
        1 => Just(Step::RenewNode),
    ]
}

struct World {
    versions: [Arc<Pod>; 2],
    wanted: Option<usize>,
    running: Option<usize>,
    ending: Vec<Ending>,
    node: String,
    held: Option<Mirror>,
    made: u32,
    status: PodStatus,
}

impl World {
    fn want(&mut self, wanted: Option<usize>) {
        if self.wanted == wanted {
            return;
        }
        if let Some(running) = self.running.take() {
            self.ending.push(ending(&self.versions[running]));
        }
        self.wanted = wanted;
        self.settle();
    }

    fn settle(&mut self) {
        if self.ending.is_empty() {
            self.running = self.wanted;
        }
    }

    fn known(&self) -> Option<Static<'_>> {
        match self.wanted {
            Some(wanted) => Some(Static::Wanted(Wanted {
                pod: &self.versions[wanted],
                status: &self.status,
                invalid: None,
                ending: &self.ending,
            })),
            None if self.ending.is_empty() => None,
            None => Some(Static::Leaving { ending: &self.ending }),
        }
    }

    fn decide(&self) -> Option<Action> {
        let held = self.held.clone().map(|it| Held::Mirror(Box::new(it)));
        next(self.known().as_ref(), held.as_ref(), Some(&self.node), at(1))
    }

    fn act(&mut self) -> bool {
        let Some(action) = self.decide() else { return false };
        match action {
            Action::Create => {
                assert!(self.held.is_none());
                self.made += 1;
                let pod = &self.versions[self.wanted.unwrap()];
                let Held::Mirror(mirror) = Held::of(object(pod, "n1", &self.node)) else {
                    panic!("it has the annotation")
                };
                let (uid, status) = (format!("m{}", self.made), said("Pending"));
                self.held = Some(Mirror { uid, status, ..*mirror });
            }
            Action::Terminate { uid, .. } => {
                let held = self.held.as_mut().filter(|it| it.uid == uid && !it.deleting).unwrap();
                assert!(self.ending.iter().any(|it| self.wanted.is_none() || it.uid == held.hash));
                held.deleting = true;
            }
            Action::Delete { uid } => {
                assert_eq!(self.held.take().unwrap().uid, uid);
            }
            Action::PatchStatus { patch } => {
                let held = self.held.as_mut().unwrap();
                assert_eq!(patch["metadata"]["uid"], held.uid);
                held.status = Said::from(&self.status);
            }
            Action::AddContainers { .. } => panic!("nobody has added any"),
        }
        true
    }
}

proptest! {
    #[test]
    fn the_api_comes_to_show_what_is(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World {
            versions: [pod("a"), pod("b")],
            wanted: None,
            running: None,
            ending: Vec::new(),
            node: "node-0".into(),
            held: None,
            made: 0,
            status: status("Running"),
        };
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Want(wanted) => world.want(wanted),
                Step::End => {
                    world.ending.clear();
                    world.settle();
                }
                Step::Act => drop(world.act()),
                Step::Delete(graceful) => match (&mut world.held, graceful) {
                    (Some(held), true) => held.deleting = true,
                    (held, _) => *held = None,
                },
                Step::Edit => {
                    if let Some(held) = &mut world.held {
                        held.status = said("Failed");
                    }
                }
                Step::RenewNode => world.node = format!("node-{number}"),
            }
        }
        let mut budget = 5;
        while world.act() {
            budget -= 1;
            prop_assert!(budget > 0, "it does not come to rest");
        }
        match (&world.held, world.wanted) {
            (None, None) => {}
            (Some(held), None) => prop_assert!(held.deleting && !world.ending.is_empty()),
            (None, Some(_)) => prop_assert!(false, "no mirror"),
            (Some(held), Some(wanted)) => {
                let old = world.ending.iter().any(|it| it.uid == held.hash);
                prop_assert_eq!(held.deleting, old);
                if !old {
                    prop_assert_eq!(&held.hash, world.versions[wanted].uid());
                    prop_assert_eq!(&held.status, &Said::from(&world.status));
                    prop_assert_eq!(held.owner.as_ref(), Some(&world.node));
                }
            }
        }
    }
}

#[test]
fn times_below_a_second_are_no_change() {
    let with = |text: &str| PodStatus {
        start_time: Some(Time(text.parse().unwrap())),
        ..PodStatus::default()
    };
    let (ours, served) = (with("2026-01-01T00:00:00.25Z"), with("2026-01-01T00:00:00Z"));
    assert_eq!(patch_of(&served, &ours, "u"), None);
}

/// A server refuses mirrors that refer to ConfigMaps and Secrets.
#[test]
fn a_mirror_leaves_out_what_lies_beside_the_manifest() {
    let pod = pod_of(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec:\n  containers:\n  - name: a\n    \
         image: i\n    envFrom: [{configMapRef: {name: e}}]\n    env:\n    \
         - {name: A, valueFrom: {secretKeyRef: {name: s, key: k}}}\n    \
         - {name: B, valueFrom: {fieldRef: {fieldPath: metadata.name}}}\n    volumeMounts:\n    \
         - {name: m, mountPath: /m}\n    - {name: s, mountPath: /s}\n    - {name: p, mountPath: /p}\n  \
         volumes:\n  - {name: m, configMap: {name: m, defaultMode: 0400}}\n  \
         - {name: s, secret: {secretName: s}}\n  - name: p\n    projected:\n      sources:\n      \
         - {secret: {name: s}}\n      \
         - {downwardAPI: {items: [{path: own, fieldRef: {fieldPath: metadata.name}}]}}\n",
    );
    let mirror = object(&pod, "n1", "node-uid");
    assert_eq!(mainstay_pod::validate::api_references(&mirror), []);
    assert_eq!(mainstay_pod::validate::create(&mirror), []);
    let annotations = mirror.metadata.annotations.unwrap();
    assert_eq!(
        annotations["mainstay.dev/config.references"],
        "configmaps/e,configmaps/m,secrets/s"
    );
    let spec = serde_json::to_value(mirror.spec).unwrap();
    expect![[r#"{"a":[{"name":"A"},{"name":"B","valueFrom":{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"}}}],"v":[{"name":"m","projected":{"defaultMode":256}},{"name":"s","projected":{"defaultMode":420}},{"name":"p","projected":{"defaultMode":420,"sources":[{"downwardAPI":{"items":[{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.name"},"path":"own"}]}}]}}]}"#]]
        .assert_eq(&serde_json::json!({"a": spec["containers"][0]["env"], "v": spec["volumes"]}).to_string());
}

#[test]
fn a_mirror_that_is_made_anew_gets_the_containers_that_an_earlier_one_got() {
    let added = serde_json::json!([
        {"name": "d", "image": "i", "env": [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "B", "value": "b"},
        ]},
        {"name": "e", "image": "i"},
    ]);
    let plain = pod("x");
    let pod = plain.with_ephemeral_containers(serde_json::from_value(added).unwrap());
    assert_eq!(object(&pod, "n1", "node-uid").spec, object(&plain, "n1", "node-uid").spec);
    let running = status("Running");
    let act = |mirror: Mirror| {
        let known = Wanted { pod: &pod, status: &running, invalid: None, ending: &[] };
        let held = Held::Mirror(Box::new(mirror));
        next(Some(&Static::Wanted(known)), Some(&held), Some("node-uid"), at(7))
    };
    let add = |mirror: Mirror| match act(mirror) {
        None => "-".to_owned(),
        Some(Action::AddContainers { patch }) => patch.to_string(),
        Some(other) => panic!("{other:?}"),
    };
    // What is first is how the pod is.
    let late = Mirror { status: said("Pending"), ..mirror(&pod) };
    assert!(matches!(act(late), Some(Action::PatchStatus { .. })));
    let all = pod.spec().ephemeral_containers.clone().unwrap();
    let rows = [Vec::new(), all[..1].to_vec(), all];
    let rows = rows.map(|ephemeral| add(Mirror { ephemeral, ..mirror(&pod) }));
    expect![[r#"
        {"metadata":{"uid":"m"},"spec":{"ephemeralContainers":[{"env":[{"name":"A"},{"name":"B","value":"b"}],"image":"i","name":"d"},{"image":"i","name":"e"}]}}
        {"metadata":{"uid":"m"},"spec":{"ephemeralContainers":[{"image":"i","name":"e"}]}}
        -"#]]
    .assert_eq(&rows.join("\n"));
}
