use k8s_openapi::api::apps::v1::{
    DaemonSetSpec, DaemonSetStatus, DaemonSetUpdateStrategy, RollingUpdateDaemonSet,
};
use k8s_openapi::api::core::v1::{
    NodeSpec, PodCondition, PodSpec, PodStatus, PodTemplateSpec, Taint, Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::place::{Takes, takes};
use super::*;

/// Of the template as it is.
const HASH_NOW: &str = "now";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

fn named(name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some("a".into()),
        uid: Some(name.into()),
        ..ObjectMeta::default()
    }
}

/// A set at its second template.
fn set() -> DaemonSet {
    let generation = ("deprecated.daemonset.template.generation".to_owned(), "2".to_owned());
    DaemonSet {
        metadata: ObjectMeta {
            annotations: Some([generation].into()),
            generation: Some(5),
            ..named("set")
        },
        spec: Some(DaemonSetSpec {
            template: PodTemplateSpec { metadata: None, spec: Some(PodSpec::default()) },
            ..DaemonSetSpec::default()
        }),
        status: None,
    }
}

fn node(name: &str, taints: &[(&str, &str)]) -> Arc<Node> {
    let taints = taints.iter().map(|(key, effect)| Taint {
        key: (*key).into(),
        effect: (*effect).into(),
        ..Taint::default()
    });
    let spec = NodeSpec { taints: Some(taints.collect()), ..NodeSpec::default() };
    Arc::new(Node { metadata: named(name), spec: Some(spec), status: None })
}

/// A pod of the template of this generation, ready since the start.
fn pod(name: &str, node: &str, generation: &str) -> Pod {
    let mut pod = template::tied(&template::pod(&set(), "").unwrap(), node);
    pod.metadata.name = Some(name.into());
    pod.metadata.uid = Some(name.into());
    pod.metadata.creation_timestamp = Some(Time(at(0)));
    let label = ("pod-template-generation".to_owned(), generation.to_owned());
    pod.metadata.labels = Some([label].into());
    pod.spec.as_mut().unwrap().node_name = Some(node.into());
    pod.status = Some(PodStatus {
        phase: Some("Running".into()),
        conditions: Some(vec![PodCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some(Time(at(0))),
            ..PodCondition::default()
        }]),
        ..PodStatus::default()
    });
    pod.into()
}

fn with_phase(mut pod: Pod, phase: &str) -> Pod {
    let status = pod.status.as_mut().unwrap();
    status.phase = Some(phase.into());
    status.conditions = None;
    pod
}

fn ending(mut pod: Pod) -> Pod {
    pod.metadata.deletion_timestamp = Some(Time(at(1)));
    pod
}

/// What is decided, as words: `+node` and `-pod:why`.
fn decided(set: &DaemonSet, nodes: &[Arc<Node>], pods: Vec<Pod>) -> String {
    decided_with(set, nodes, pods, |_| None).0
}

fn decided_with(
    set: &DaemonSet,
    nodes: &[Arc<Node>],
    pods: Vec<Pod>,
    held: impl Fn(&str) -> Option<Duration>,
) -> (String, Option<Duration>) {
    let pods: Vec<Arc<Pod>> = pods.into_iter().map(Arc::new).collect();
    let decision = decide(set, HASH_NOW, nodes, &place::by_node(&pods), held, at(10));
    let created = decision.create.iter().map(|node| format!("+{node}"));
    let deleted = decision.delete.iter();
    let deleted =
        deleted.map(|(pod, why)| format!("-{}:{why:?}", pod.metadata.name.as_deref().unwrap()));
    (created.chain(deleted).collect::<Vec<_>>().join(" "), decision.again)
}

#[test]
fn a_node_takes_pods_by_its_name_labels_and_taints() {
    let plain = node("n1", &[]);
    assert_eq!(takes(&set(), &plain), Takes::Yes);
    for (taints, expected) in [
        (&[("node.kubernetes.io/unschedulable", "NoSchedule")][..], Takes::Yes),
        (&[("node.kubernetes.io/not-ready", "NoExecute")], Takes::Yes),
        (&[("node.kubernetes.io/not-ready", "NoSchedule")], Takes::Keeps),
        (&[("own", "PreferNoSchedule")], Takes::Yes),
        (&[("own", "NoSchedule")], Takes::Keeps),
        (&[("own", "NoSchedule"), ("own", "NoExecute")], Takes::No),
        (&[("node.kubernetes.io/network-unavailable", "NoSchedule")], Takes::Keeps),
    ] {
        assert_eq!(takes(&set(), &node("n1", taints)), expected, "{taints:?}");
    }
    let of = |change: fn(&mut PodSpec)| {
        let mut set = set();
        change(set.spec.as_mut().unwrap().template.spec.as_mut().unwrap());
        set
    };
    let unavailable = node("n1", &[("node.kubernetes.io/network-unavailable", "NoSchedule")]);
    assert_eq!(takes(&of(|spec| spec.host_network = Some(true)), &unavailable), Takes::Yes);
    assert_eq!(takes(&of(|spec| spec.node_name = Some("n2".into())), &plain), Takes::No);
    let selecting = of(|spec| spec.node_selector = Some([("a".into(), "b".into())].into()));
    assert_eq!(takes(&selecting, &plain), Takes::No);
}

#[test]
fn pods_are_tied_to_their_node_and_stay_through_trouble() {
    let mut set = set();
    let known = Toleration {
        key: Some("node.kubernetes.io/not-ready".into()),
        operator: Some("Exists".into()),
        effect: Some("NoExecute".into()),
        toleration_seconds: Some(3),
        ..Toleration::default()
    };
    let spec = set.spec.as_mut().unwrap().template.spec.as_mut().unwrap();
    spec.tolerations = Some(vec![known]);
    let pod = Pod::from(template::tied(&template::pod(&set, "").unwrap(), "n1"));
    assert_eq!(place::node_of(&pod), Some("n1"));
    assert_eq!(pod.metadata.generate_name.as_deref(), Some("set-"));
    assert!(template::is_current(&set, "", &pod));
    let tolerations = pod.spec.as_ref().unwrap().tolerations.as_ref().unwrap();
    assert_eq!(tolerations.len(), 6);
    assert_eq!(tolerations[0].toleration_seconds, None);
}

#[test]
fn each_node_gets_one_pod() {
    let nodes = [node("n1", &[]), node("n2", &[]), node("n3", &[("own", "NoSchedule")])];
    let set = &set();
    assert_eq!(decided(set, &nodes, vec![]), "+n1 +n2");
    assert_eq!(decided(set, &nodes, vec![pod("a", "n1", "2"), pod("b", "n2", "2")]), "");
    // It stays where none would be made.
    let all = vec![pod("a", "n1", "2"), pod("b", "n2", "2"), pod("c", "n3", "2")];
    assert_eq!(decided(set, &nodes, all), "");
    let nodes = [node("n1", &[("own", "NoExecute")])];
    assert_eq!(decided(set, &nodes, vec![pod("a", "n1", "2")]), "-a:Unwanted");
    assert_eq!(decided(set, &nodes, vec![ending(pod("a", "n1", "2"))]), "");
}

#[test]
fn the_oldest_bound_pod_stays() {
    let nodes = [node("n1", &[])];
    let mut waiting = pod("a", "n1", "2");
    waiting.spec.as_mut().unwrap().node_name = None;
    waiting.metadata.creation_timestamp = Some(Time(at(-9)));
    let mut younger = pod("b", "n1", "2");
    younger.metadata.creation_timestamp = Some(Time(at(5)));
    let pods = vec![waiting.clone(), younger, pod("c", "n1", "2")];
    assert_eq!(decided(&set(), &nodes, pods), "-b:Surplus -a:Surplus");
    // Nobody else sees to what waits for a node that is gone.
    assert_eq!(decided(&set(), &[], vec![waiting, pod("c", "n1", "2")]), "-a:Unwanted");
}

#[test]
fn what_ended_is_replaced() {
    let nodes = [node("n1", &[])];
    let (set, over) = (set(), |phase| vec![with_phase(pod("a", "n1", "2"), phase)]);
    assert_eq!(decided(&set, &nodes, over("Failed")), "-a:Failed");
    assert_eq!(decided(&set, &nodes, over("Succeeded")), "-a:Succeeded");
    let wait = Duration::from_secs(3);
    let held = decided_with(&set, &nodes, over("Failed"), |_| Some(wait));
    assert_eq!(held, (String::new(), Some(wait)));
    // One that is over and goes is none, and one that goes has to be gone first.
    let going = |phase| vec![ending(with_phase(pod("a", "n1", "2"), phase))];
    assert_eq!(decided(&set, &nodes, going("Failed")), "+n1");
    assert_eq!(decided(&set, &nodes, going("Running")), "");
}

#[test]
fn as_many_are_replaced_as_may_be_unavailable() {
    let names = ["n1", "n2", "n3", "n4"];
    let nodes = names.map(|name| node(name, &[]));
    let old = || names.map(|name| pod(name, name, "1")).to_vec();
    let with = |number: IntOrString| {
        let mut set = set();
        set.spec.as_mut().unwrap().update_strategy = Some(DaemonSetUpdateStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateDaemonSet {
                max_unavailable: Some(number),
                ..RollingUpdateDaemonSet::default()
            }),
        });
        set
    };
    let one = with(IntOrString::Int(1));
    assert_eq!(decided(&one, &nodes, old()), "-n1:Outdated");
    assert_eq!(decided(&with(IntOrString::Int(0)), &nodes, old()), "-n1:Outdated");
    let half = with(IntOrString::String("40%".into()));
    assert_eq!(decided(&half, &nodes, old()), "-n1:Outdated -n2:Outdated");
    // One that is new is not there yet, or going.
    for other in [with_phase(pod("n1", "n1", "2"), "Pending"), ending(pod("n1", "n1", "1"))] {
        let mut pods = old();
        pods[0] = other;
        assert_eq!(decided(&one, &nodes, pods.clone()), "");
        assert_eq!(decided(&half, &nodes, pods), "-n2:Outdated");
    }
    // What serves nobody is replaced at once.
    let mut pods = old();
    pods[2] = with_phase(pods[2].clone(), "Pending");
    assert_eq!(decided(&one, &nodes, pods), "-n3:Outdated");
    let mut by_hand = one;
    let strategy = by_hand.spec.as_mut().unwrap().update_strategy.as_mut().unwrap();
    strategy.type_ = Some("OnDelete".into());
    assert_eq!(decided(&by_hand, &nodes, old()), "");
}

#[test]
fn the_status_counts_nodes() {
    let nodes = ["n1", "n2", "n3"].map(|name| node(name, &[]));
    let nodes = [&nodes[..], &[node("n4", &[("own", "NoSchedule")])]].concat();
    let pods =
        [pod("a", "n1", "2"), with_phase(pod("b", "n2", "1"), "Pending"), pod("d", "n4", "2")];
    let pods = place::by_node(&pods.map(Arc::new));
    let mut set = set();
    let status = status::compute(&set, HASH_NOW, &nodes, &pods, true, at(10)).unwrap();
    assert_eq!(
        (status.desired_number_scheduled, status.current_number_scheduled, status.number_ready),
        (3, 2, 1)
    );
    assert_eq!((status.number_misscheduled, status.observed_generation), (1, Some(5)));
    let updated = status.updated_number_scheduled;
    assert_eq!((updated, status.number_available), (Some(1), Some(1)));
    assert_eq!(status.number_unavailable, Some(2));
    set.status = Some(status);
    assert_eq!(status::compute(&set, HASH_NOW, &nodes, &pods, true, at(10)), None);
    set.metadata.generation = Some(6);
    assert_eq!(status::compute(&set, HASH_NOW, &nodes, &pods, false, at(10)), None);
    set.spec.as_mut().unwrap().min_ready_seconds = Some(15);
    let status = status::compute(&set, HASH_NOW, &nodes, &pods, true, at(10)).unwrap();
    assert_eq!((status.number_available, status.observed_generation), (None, Some(6)));
    assert_eq!(status::next_available(&set, &pods, at(10)), Some(Duration::from_secs(5)));
}

/// A pod of the revision with this hash.
fn revised(name: &str, node: &str, hash: &str) -> Pod {
    let mut pod = pod(name, node, "-");
    pod.metadata.labels = Some([(HASH.to_owned(), hash.to_owned())].into());
    pod
}

#[test]
fn new_pods_come_before_old_ones_go() {
    let names = ["n1", "n2", "n3", "n4"];
    let nodes = names.map(|name| node(name, &[]));
    let with = |surge: IntOrString| {
        let mut set = set();
        set.spec.as_mut().unwrap().update_strategy = Some(DaemonSetUpdateStrategy {
            type_: Some("RollingUpdate".into()),
            rolling_update: Some(RollingUpdateDaemonSet {
                max_surge: Some(surge),
                max_unavailable: Some(IntOrString::Int(0)),
            }),
        });
        set
    };
    let one = with(IntOrString::Int(1));
    let old = || names.map(|name| revised(&format!("old-{name}"), name, "before")).to_vec();
    let new = |node: &str| revised(&format!("new-{node}"), node, HASH_NOW);
    let pending = |pod: Pod| with_phase(pod, "Pending");
    assert_eq!(decided(&one, &nodes, old()), "+n1");
    assert_eq!(decided(&with(IntOrString::String("40%".into())), &nodes, old()), "+n1 +n2");
    // The new one has to be there first; until then no other node gets one.
    let with_new = |pod: Pod| [old(), vec![pod]].concat();
    assert_eq!(decided(&one, &nodes, with_new(pending(new("n1")))), "");
    assert_eq!(decided(&one, &nodes, with_new(new("n1"))), "-old-n1:Outdated");
    // What serves nobody is in nobody's way.
    let mut pods = old();
    pods[2] = pending(pods[2].clone());
    assert_eq!(decided(&one, &nodes, pods.clone()), "+n3 +n1");
    pods.push(pending(new("n3")));
    assert_eq!(decided(&one, &nodes, pods), "-old-n3:Outdated");
    // Of each template one is enough.
    let more = with_new(revised("more", "n1", "before"));
    assert_eq!(decided(&one, &nodes, more), "-old-n1:Surplus");
    // One that goes is none.
    let mut pods = old();
    pods[0] = ending(pods[0].clone());
    assert_eq!(decided(&one, &nodes, pods), "+n1");
    // What is on a node that takes none any more goes when there are enough elsewhere.
    let kept = [&nodes[..3], &[node("n4", &[("own", "NoSchedule")])]].concat();
    assert_eq!(decided(&one, &kept, old()), "+n1 -old-n4:Outdated");
    let mut pods = old();
    pods[1] = pending(pods[1].clone());
    assert_eq!(decided(&one, &kept, pods), "+n2 +n1");
}

#[test]
fn a_pod_is_current_by_its_hash_or_its_generation() {
    for (pod, expected) in [
        (pod("a", "n1", "2"), true),
        (pod("a", "n1", "1"), false),
        (revised("a", "n1", HASH_NOW), true),
        (revised("a", "n1", "before"), false),
    ] {
        assert_eq!(template::is_current(&set(), HASH_NOW, &pod), expected);
    }
    let labels = template::pod(&set(), HASH_NOW).unwrap().metadata.labels.unwrap();
    assert_eq!(labels[HASH], HASH_NOW);
    assert_eq!(labels["pod-template-generation"], "2");
}

#[test]
fn templates_are_remembered_and_found_again() {
    let mut set = set();
    let of = |set: &DaemonSet, number| Arc::new(history::revision(set, number));
    let first = of(&set, 1);
    assert_eq!(
        history::label(&first.metadata).map(str::len),
        first.metadata.name.as_ref().map(|name| name.len() - 4)
    );
    assert_eq!(first.data.as_ref().unwrap().0["spec"]["template"]["$patch"], "replace");
    let empty = History::of(&set, vec![]);
    assert_eq!((empty.number, empty.current.len(), empty.old.len()), (1, 0, 0));
    let known = History::of(&set, vec![first.clone()]);
    assert_eq!((known.number, known.current, known.old.len()), (1, vec![first.clone()], 0));
    let spec = set.spec.as_mut().unwrap();
    spec.template.spec.as_mut().unwrap().host_network = Some(true);
    let second = of(&set, 2);
    assert_ne!(first.metadata.name, second.metadata.name);
    let changed = History::of(&set, vec![first.clone()]);
    assert_eq!((changed.number, changed.old.clone()), (2, vec![first.clone()]));
    // As it was before: that revision is the newest then.
    set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().host_network = None;
    let undone = History::of(&set, vec![second.clone(), first.clone()]);
    assert_eq!((undone.number, undone.current), (3, vec![first.clone()]));
    // With a collision it has another name.
    set.status = Some(DaemonSetStatus { collision_count: Some(1), ..DaemonSetStatus::default() });
    assert_ne!(of(&set, 1).metadata.name, first.metadata.name);
}

#[test]
fn only_so_many_templates_are_remembered() {
    let mut set = set();
    let revisions = (1..=4).map(|number| {
        set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().priority = Some(number);
        Arc::new(history::revision(&set, number.into()))
    });
    let revisions: Vec<_> = revisions.collect();
    set.spec.as_mut().unwrap().template.spec.as_mut().unwrap().priority = Some(0);
    let history = History::of(&set, revisions.clone());
    let surplus = |limit, pods: &[Arc<Pod>]| {
        let mut set = set.clone();
        set.spec.as_mut().unwrap().revision_history_limit = limit;
        history.surplus(&set, pods).iter().map(|it| it.revision).collect::<Vec<_>>()
    };
    assert!(surplus(None, &[]).is_empty());
    assert_eq!(surplus(Some(3), &[]), [1]);
    assert_eq!(surplus(Some(0), &[]), [1, 2, 3, 4]);
    let used = history::label(&revisions[0].metadata).unwrap();
    let used = Arc::new(revised("a", "n1", used));
    assert_eq!(surplus(Some(2), &[used]), [2, 3]);
}
