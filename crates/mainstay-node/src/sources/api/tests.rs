//! Goals against a small API.

use std::collections::BTreeMap;

use mainstay_testkit::pods::pod as static_pod;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::*;
use crate::publish::api::calls;
use crate::publish::api::fake::{FakeApi, Mood};
use crate::publish::api::follow;
use crate::publish::{PodEntry, PodReport};

const NODE: &str = "/api/v1/nodes/n1";

/// What an earlier agent left: UIDs of pods that were accepted, and whether they have finished.
struct Left(BTreeMap<String, bool>);

impl Earlier for Left {
    fn find(&self, _: &PodKey, uid: &str) -> Option<Accepted> {
        self.0.get(uid).map(|finished| Accepted { pod: None, finished: *finished })
    }
}

struct World {
    api: FakeApi,
    goals: watch::Receiver<Option<Arc<ApiGoals>>>,
    board: watch::Sender<Arc<Board>>,
    events: Events,
    pressure: watch::Sender<Pressure>,
    shutting_down: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl World {
    fn new(api: &FakeApi, left: &[(String, bool)]) -> Self {
        Self::with(api, Left(left.iter().cloned().collect()))
    }

    fn with(api: &FakeApi, earlier: impl Earlier + 'static) -> Self {
        let (goals, goals_seen) = watch::channel(None);
        let (board, board_seen) = watch::channel(Arc::default());
        let (pressure, pressure_seen) = watch::channel(Pressure::default());
        let (shutting_down, goes_down) = watch::channel(false);
        let events = Events::default();
        events.queue().open();
        let pods = Arc::new(ApiPods::new());
        let calls = calls(api.client());
        let source = ApiSource {
            calls: calls.clone(),
            pods: pods.clone(),
            node_name: "n1".into(),
            kernel: Kernel::default(),
            earlier: Arc::new(earlier),
            events: events.clone(),
            board: board_seen,
            pressure: pressure_seen,
            shutting_down: goes_down,
            goals,
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(follow(calls, "n1".into(), pods));
        tasks.spawn(source.run());
        Self {
            api: api.clone(),
            goals: goals_seen,
            board,
            events,
            pressure,
            shutting_down,
            _tasks: tasks,
        }
    }

    /// What is to become of each pod, in a word, when everything that can be done without waiting
    /// has been done.
    async fn goals(&self) -> Option<String> {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let goals = self.goals.borrow().clone()?;
        let word = |(key, verdict): (&PodKey, &Verdict)| match verdict {
            Verdict::Run(pod, pending) => {
                let request = mainstay_pod::Amounts::requested_by_pod(pod.spec()).cpu_milli;
                let request = request.map(|milli| format!(" {milli}m")).unwrap_or_default();
                let pending = pending.as_ref().map(|it| format!(" ({})", it.message));
                format!("{}: run{request}{}", key.name, pending.unwrap_or_default())
            }
            Verdict::Mirror(_) => format!("{}: debug", key.name),
            Verdict::Stop(_, grace) => format!("{}: stop {}", key.name, grace.as_secs()),
            Verdict::Refused { status, .. } => {
                format!(
                    "{}: {}",
                    key.name,
                    status.reason.as_ref().or(status.phase.as_ref()).unwrap()
                )
            }
        };
        Some(goals.iter().map(word).collect::<Vec<_>>().join(", "))
    }
}

fn with_node() -> FakeApi {
    let api = FakeApi::new();
    api.do_put(NODE, json!({"metadata": {"name": "n1"}, "spec": {}, "status": {}}));
    api
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/default/pods/{name}")
}

/// Puts a pod with more fields than its name; returns its UID.
fn put(api: &FakeApi, name: &str, spec: &Value, status: &Value) -> String {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "default", "generation": 1},
        "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "x"}]},
        "status": status,
    });
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let put = api.do_put(&path(name), pod);
    put["metadata"]["uid"].as_str().unwrap().to_owned()
}

fn host_port(port: u16) -> Value {
    let ports = json!([{"containerPort": port, "hostPort": port, "protocol": "TCP"}]);
    json!({"containers": [{"name": "a", "image": "x", "ports": ports}]})
}

#[tokio::test(start_paused = true)]
async fn a_pod_runs_until_it_is_deleted() {
    let api = with_node();
    let world = World::new(&api, &[]);
    put(&api, "a", &json!({}), &json!({}));
    let mirror = json!({"metadata": {"name": "m", "namespace": "default",
        "annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {"nodeName": "n1"}});
    api.do_put(&path("m"), mirror);
    assert_eq!(world.goals().await.as_deref(), Some("a: run"));
    api.do_delete(&path("a"), 20);
    assert_eq!(world.goals().await.as_deref(), Some("a: stop 20"));
    api.do_delete(&path("a"), 5);
    assert_eq!(world.goals().await.as_deref(), Some("a: stop 5"));
    api.do_delete(&path("a"), 0);
    assert_eq!(world.goals().await.as_deref(), Some(""));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_said_before_the_api_has_said_something() {
    let api = with_node();
    put(&api, "a", &json!({}), &json!({}));
    api.set_mood(Mood::Down);
    let world = World::new(&api, &[]);
    assert_eq!(world.goals().await, None);
    api.set_mood(Mood::Well);
    assert_eq!(world.goals().await.as_deref(), Some("a: run"));
    api.set_mood(Mood::Down);
    assert_eq!(world.goals().await.as_deref(), Some("a: run"));
}

#[tokio::test(start_paused = true)]
async fn a_new_pod_waits_for_the_node_and_an_earlier_one_does_not() {
    let api = FakeApi::new();
    put(&api, "new", &json!({}), &json!({}));
    let early = put(&api, "early", &json!({"nodeSelector": {"a": "b"}}), &json!({}));
    let world = World::new(&api, &[(early, false)]);
    assert_eq!(world.goals().await.as_deref(), Some("early: run"));
    api.do_put(NODE, json!({"metadata": {"name": "n1"}}));
    assert_eq!(world.goals().await.as_deref(), Some("early: run, new: run"));
}

#[tokio::test(start_paused = true)]
async fn what_is_over_is_not_run_again() {
    let api = with_node();
    let over = || json!({"phase": "Succeeded"});
    put(&api, "alien", &json!({"terminationGracePeriodSeconds": 7}), &over());
    let own = put(&api, "own", &json!({}), &over());
    let world = World::new(&api, &[(own, true)]);
    // What the ledger has the end of is told from there.
    assert_eq!(world.goals().await.as_deref(), Some("alien: stop 7, own: run"));
}

#[tokio::test(start_paused = true)]
async fn what_the_node_does_not_take_is_refused_and_told_of() {
    let api = with_node();
    let world = World::new(&api, &[]);
    put(&api, "a", &host_port(80), &json!({}));
    assert_eq!(world.goals().await.as_deref(), Some("a: run"));
    put(&api, "b", &host_port(80), &json!({}));
    put(
        &api,
        "c",
        &json!({"volumes": [{"name": "f", "flexVolume": {"driver": "a/b"}}]}),
        &json!({}),
    );
    let refused = "a: run, b: NodePorts, c: UnsupportedFields";
    assert_eq!(world.goals().await.as_deref(), Some(refused));
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(world.events.queue().next().await.reason);
    }
    told.sort();
    assert_eq!(told, ["NodePorts", "UnsupportedFields"]);
    // It is judged once.
    api.do_delete(&path("a"), 0);
    assert_eq!(world.goals().await.as_deref(), Some("b: NodePorts, c: UnsupportedFields"));
}

#[tokio::test(start_paused = true)]
async fn nothing_new_is_begun_while_the_machine_goes_down() {
    let api = with_node();
    let world = World::new(&api, &[]);
    put(&api, "before", &json!({}), &json!({}));
    assert_eq!(world.goals().await.as_deref(), Some("before: run"));
    world.shutting_down.send_replace(true);
    put(&api, "during", &json!({"priority": 2_000_000_000}), &json!({}));
    assert_eq!(world.goals().await.as_deref(), Some("before: run, during: NodeShutdown"));
    let message = world.events.queue().next().await.message;
    assert_eq!(message, "Pod was rejected as the node is shutting down.");
}

#[tokio::test(start_paused = true)]
async fn what_is_short_is_not_made_shorter() {
    let api = with_node();
    let world = World::new(&api, &[]);
    put(&api, "before", &json!({}), &json!({}));
    assert_eq!(world.goals().await.as_deref(), Some("before: run"));
    world.pressure.send_replace(Pressure { disk: true, ..Pressure::default() });
    put(&api, "critical", &json!({"priority": 2_000_000_000}), &json!({}));
    put(&api, "during", &json!({}), &json!({}));
    let refused = "before: run, critical: run, during: Evicted";
    assert_eq!(world.goals().await.as_deref(), Some(refused));
    assert_eq!(
        world.events.queue().next().await.message,
        "The node had condition: [DiskPressure]. "
    );
    world.pressure.send_replace(Pressure::default());
    put(&api, "later", &json!({}), &json!({}));
    let goals = format!("{refused}, later: run");
    assert_eq!(world.goals().await.as_deref(), Some(&*goals));
}

#[tokio::test(start_paused = true)]
async fn static_pods_take_up_their_ports() {
    let api = with_node();
    let world = World::new(&api, &[]);
    let pod = static_pod(
        "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: x, \
         ports: [{containerPort: 80, hostPort: 80}]}]}\n",
    );
    for (phase, verdict) in [("Running", "a: NodePorts"), ("Failed", "a: run")] {
        let report = PodReport {
            key: key_of(&pod),
            pod: pod.clone(),
            manifest: None,
            status: Arc::new(PodStatus { phase: Some(phase.into()), ..PodStatus::default() }),
            waiting: None,
            ending: Vec::new(),
            stopping: false,
            ended: false,
        };
        let entry = PodEntry { report: Some(Arc::new(report)), leaving: None };
        world.board.send_modify(|board| {
            Arc::make_mut(board).pods.insert(key_of(&pod), entry);
        });
        put(&world.api, "a", &host_port(80), &json!({}));
        assert_eq!(world.goals().await.as_deref(), Some(verdict));
        api.do_delete(&path("a"), 0);
        world.goals().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_class_of_runtime_is_looked_up() {
    let api = with_node();
    let class = |name: &str, handler: &str| {
        let path = format!("/apis/node.k8s.io/v1/runtimeclasses/{name}");
        api.do_put(&path, json!({"metadata": {"name": name}, "handler": handler}));
    };
    class("own", "mainstay");
    class("other", "gvisor");
    let world = World::new(&api, &[]);
    for name in ["missing", "other", "own"] {
        put(&api, name, &json!({"runtimeClassName": name}), &json!({}));
    }
    let goals = "missing: Pending, other: Pending, own: run";
    assert_eq!(world.goals().await.as_deref(), Some(goals));
    let mut told = Vec::new();
    for _ in 0..2 {
        told.push(world.events.queue().next().await.message);
    }
    told.sort();
    expect_test::expect![[r#"
        Failed to create pod sandbox: no runtime for "gvisor" is configured
        Failed to create pod sandbox: runtimeclass.node.k8s.io "missing" not found"#]]
    .assert_eq(&told.join("\n"));
}

fn request(cpu: &str, generation: i64) -> Value {
    let resources = json!({"requests": {"cpu": cpu}});
    json!({
        "metadata": {"generation": generation},
        "spec": {"containers": [{"name": "a", "image": "x", "resources": resources}]},
    })
}

#[tokio::test(start_paused = true)]
async fn resources_are_allocated_when_they_fit_and_until_then_a_pod_waits() {
    let api = with_node();
    let allocatable = json!({"cpu": "2", "memory": "1Gi", "pods": "10"});
    let node = json!({"metadata": {"name": "n1"}, "status": {"allocatable": allocatable}});
    api.do_put(NODE, node);
    let world = World::new(&api, &[]);
    let resize = |name: &str, cpu: &str, generation: i64| {
        let mut pod = request(cpu, generation);
        pod["metadata"]["name"] = name.into();
        pod["metadata"]["namespace"] = "default".into();
        pod["spec"]["nodeName"] = "n1".into();
        let uid = api.get(&path(name)).map(|known| known["metadata"]["uid"].clone());
        if let Some(uid) = uid {
            pod["metadata"]["uid"] = uid;
        }
        api.do_put(&path(name), pod);
    };
    resize("a", "500m", 1);
    resize("b", "500m", 1);
    assert_eq!(world.goals().await.as_deref(), Some("a: run 500m, b: run 500m"));
    let told = async || {
        let event = world.events.queue().next().await;
        format!("{}: {}", event.reason, event.message)
    };
    resize("a", "1", 2);
    assert_eq!(world.goals().await.as_deref(), Some("a: run 1000m, b: run 500m"));
    let started = "ResizeStarted: Pod resize started: {\"containers\":[{\"name\":\"a\",\"resources\":\
                   {\"requests\":{\"cpu\":\"1\"}}}],\"generation\":2}";
    assert_eq!(told().await, started);
    resize("b", "1500m", 2);
    let waits =
        "Node didn't have enough resource: cpu, requested: 1500, used: 1000, capacity: 2000";
    let waiting = format!("a: run 1000m, b: run 500m ({waits})");
    assert_eq!(world.goals().await.as_deref(), Some(&*waiting));
    let text = told().await;
    assert!(text.starts_with("ResizeDeferred: Pod resize Deferred: {"), "{text}");
    assert!(text.ends_with(&format!("\"generation\":2,\"error\":\"{waits}\"}}")), "{text}");
    // Others have what they are allocated, and not what they wait for.
    resize("c", "300m", 1);
    let with_c = "a: run 1000m, b: run 500m (Node didn't have enough resource: cpu, requested: 1500, \
                  used: 1300, capacity: 2000), c: run 300m";
    assert_eq!(world.goals().await.as_deref(), Some(with_c));
    // It is taken back.
    resize("b", "500m", 3);
    assert_eq!(world.goals().await.as_deref(), Some("a: run 1000m, b: run 500m, c: run 300m"));
    // Room is made by another one, that asks for less.
    resize("b", "1200m", 4);
    world.goals().await;
    assert!(told().await.starts_with("ResizeDeferred"));
    resize("a", "100m", 3);
    assert_eq!(world.goals().await.as_deref(), Some("a: run 100m, b: run 1200m, c: run 300m"));
    assert!(told().await.contains("\"generation\":3"));
    assert!(told().await.contains("\"generation\":4"));
}

#[tokio::test(start_paused = true)]
async fn a_pod_of_an_earlier_agent_has_what_it_was_allocated() {
    let api = with_node();
    let allocatable = json!({"cpu": "1", "memory": "1Gi", "pods": "10"});
    let node = json!({"metadata": {"name": "n1"}, "status": {"allocatable": allocatable}});
    api.do_put(NODE, node);
    let condition = json!({
        "type": "PodResizePending", "status": "True", "reason": "Deferred", "message": "m",
        "observedGeneration": 2, "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let spec = |cpu: &str| request(cpu, 2)["spec"].clone();
    let uid = put(&api, "a", &spec("2"), &json!({"phase": "Running", "conditions": [condition]}));
    let mut before = api.get(&path("a")).unwrap();
    before["spec"] = spec("100m");
    let before = Pod::from_api(serde_json::from_value(before).unwrap()).unwrap();
    let world = World::with(&api, Allocated(uid, Arc::new(before)));
    let waits = "a: run 100m (Node didn't have enough resource: cpu, requested: 2000, used: 0, \
                 capacity: 1000)";
    assert_eq!(world.goals().await.as_deref(), Some(waits));
    let goals = world.goals.borrow().clone().unwrap();
    let Some(Verdict::Run(_, Some(pending))) = goals.values().next() else { panic!("{goals:?}") };
    // It waits for as long as its status says.
    let since: jiff::Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
    assert_eq!((pending.since, pending.generation), (since, 1));
}

/// A pod that an earlier agent allocated something to.
struct Allocated(String, Arc<Pod>);

impl Earlier for Allocated {
    fn find(&self, _: &PodKey, uid: &str) -> Option<Accepted> {
        let pod = Some(self.1.clone());
        (uid == self.0).then_some(Accepted { pod, finished: false })
    }
}
