//! The performer against a small API.

use std::time::Duration;

use k8s_openapi::api::core::v1::PodStatus;
use mainstay_pod::Pod;
use mainstay_testkit::pods::pod as pod_of;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::*;
use crate::publish::api::calls;
use crate::publish::api::fake::{FakeApi, Mood};
use crate::publish::api::follow;
use crate::publish::{Publication, keep};
use crate::sources::merge::{Notes, key_of};

const PATH: &str = "/api/v1/namespaces/default/pods/web-n1";

struct World {
    api: FakeApi,
    reports: mpsc::UnboundedSender<Publication>,
    node: watch::Sender<Option<String>>,
    events: Events,
    goals: watch::Sender<Option<Arc<ApiGoals>>>,
    _senders: (watch::Sender<Arc<Notes>>, watch::Sender<Vec<mainstay_cri::RuntimeCondition>>),
    _tasks: JoinSet<()>,
}

impl World {
    fn new(api: FakeApi) -> Self {
        let (reports, publications) = mpsc::unbounded_channel();
        let (notes, notes_seen) = watch::channel(Arc::default());
        let (health, healths) = watch::channel(Vec::new());
        let (board, board_seen) = watch::channel(Arc::default());
        let (node, node_seen) = watch::channel(Some("node-uid".to_owned()));
        let (goals, goals_seen) = watch::channel(None);
        let events = Events::default();
        let pods = Arc::new(ApiPods::new());
        let calls = calls(api.client());
        let mirrors = Mirrors {
            calls: calls.clone(),
            pods: pods.clone(),
            node_name: "n1".into(),
            node: node_seen,
            goals: goals_seen,
            board: board_seen,
            events: events.clone(),
            doubt: Arc::new(Notify::new()),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(keep(publications, notes_seen, healths, board));
        tasks.spawn(follow(calls, "n1".into(), pods));
        tasks.spawn(mirrors.run());
        Self { api, reports, node, events, goals, _senders: (notes, health), _tasks: tasks }
    }

    fn tell(&self, publication: Publication) {
        self.reports.send(publication).unwrap();
    }

    fn begin(&self) {
        self.tell(Publication::Begun(BTreeSet::new()));
    }

    fn report(&self, pod: &Arc<Pod>, phase: &str, ending: &[mirror::Ending]) {
        let status = PodStatus { phase: Some(phase.into()), ..PodStatus::default() };
        self.tell(Publication::Pod(Box::new(PodReport {
            key: key_of(pod),
            pod: pod.clone(),
            manifest: None,
            status: Arc::new(status),
            waiting: None,
            ending: ending.to_vec(),
            stopping: false,
            ended: false,
        })));
    }

    async fn until(&self, holds: impl Fn(Option<&Value>) -> bool) {
        self.api.until(|api| holds(api.get(PATH).as_ref())).await;
    }

    async fn until_phase(&self, phase: &str) -> Value {
        self.until(|pod| pod.is_some_and(|pod| pod["status"]["phase"] == phase)).await;
        self.api.get(PATH).unwrap()
    }

    /// Everything that can be done without waiting has been done.
    async fn settle(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn pod(image: &str) -> Arc<Pod> {
    pod_of(&format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{containers: [{{name: a, image: {image}}}]}}\n"
    ))
}

fn ending(pod: &Pod) -> mirror::Ending {
    mirror::Ending { uid: pod.uid().into(), grace: Duration::from_secs(20) }
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_begins_and_runs_at_once_is_told_of_once() {
    let world = World::new(FakeApi::new());
    world.begin();
    let pod = pod("x");
    world.report(&pod, "Pending", &[]);
    world.settle().await;
    world.report(&pod, "Pending", &[]);
    world.settle().await;
    assert_eq!(world.api.requests(), Vec::<String>::new());
    world.report(&pod, "Running", &[]);
    world.until_phase("Running").await;
    let made = ["POST /api/v1/namespaces/default/pods", &format!("PATCH {PATH}/status")];
    assert_eq!(world.api.requests(), made);

    // One that takes its time is told of meanwhile.
    let world = World::new(FakeApi::new());
    world.begin();
    let began = Instant::now();
    world.report(&pod, "Pending", &[]);
    world.until_phase("Pending").await;
    assert!(began.elapsed() < 2 * BEGINNING, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_mirror_is_made_shown_and_made_again() {
    let world = World::new(FakeApi::new());
    world.begin();
    let pod = pod("x");
    world.report(&pod, "Running", &[]);
    let mirror = world.until_phase("Running").await;
    assert_eq!(mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"], pod.uid());
    assert_eq!(mirror["metadata"]["ownerReferences"][0]["uid"], "node-uid");
    let made = ["POST /api/v1/namespaces/default/pods", &format!("PATCH {PATH}/status")];
    assert_eq!(world.api.requests(), made);

    for grace in [30, 0] {
        let uid = world.api.get(PATH).unwrap()["metadata"]["uid"].clone();
        let began = Instant::now();
        world.api.do_delete(PATH, grace);
        let again = |pod: Option<&Value>| {
            pod.is_some_and(|pod| {
                pod["metadata"]["uid"] != uid && pod["status"]["phase"] == "Running"
            })
        };
        world.until(again).await;
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
    }
    // Somebody edits the status.
    let mut edited = world.api.get(PATH).unwrap();
    edited["status"]["phase"] = "Failed".into();
    edited["status"]["message"] = "no".into();
    world.api.do_put(PATH, edited);
    let mirror = world.until_phase("Running").await;
    assert!(mirror["status"].get("message").is_none());
    // Then there is rest.
    world.api.requests();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(world.api.requests(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_containers_shows() {
    let world = World::new(FakeApi::new());
    world.begin();
    let (old, new) = (pod("old"), pod("new"));
    world.report(&old, "Running", &[]);
    world.until_phase("Running").await;
    // Edited.
    world.report(&new, "Pending", &[ending(&old)]);
    world
        .until(|pod| pod.is_some_and(|pod| pod["metadata"]["deletionGracePeriodSeconds"] == 20))
        .await;
    tokio::time::sleep(Duration::from_secs(19)).await;
    let mirror = world.api.get(PATH).unwrap();
    assert_eq!(mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"], old.uid());
    world.report(&new, "Running", &[]);
    let hash = "kubernetes.io/config.mirror";
    let shown = |pod: &Value| pod["metadata"]["annotations"][hash] == new.uid();
    world.until(|pod| pod.is_some_and(shown)).await;
    // Taken away, with nothing left that runs.
    world.until_phase("Running").await;
    world.tell(Publication::Leaving(key_of(&new), Arc::default()));
    world.until(|pod| pod.is_none()).await;
    world.tell(Publication::Gone(key_of(&new)));
    world.settle().await;
    assert_eq!(world.api.get(PATH), None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_an_orphan_before_it_is_known_what_should_run() {
    let api = FakeApi::new();
    let world = World::new(api.clone());
    let mirror = |name: &str| {
        json!({"metadata": {"name": name, "namespace": "default",
            "annotations": {"kubernetes.io/config.mirror": "x"}}, "spec": {"nodeName": "n1"}})
    };
    let other = "/api/v1/namespaces/default/pods/other-n1";
    api.do_put(PATH, mirror("web-n1"));
    api.do_put(other, mirror("other-n1"));
    api.do_put("/api/v1/namespaces/default/pods/normal", {
        json!({"metadata": {"name": "normal", "namespace": "default"}, "spec": {"nodeName": "n1"}})
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(api.requests(), Vec::<String>::new());
    world.tell(Publication::Begun([key_of(&pod("x"))].into()));
    api.until(|api| api.get(other).is_none()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(api.requests(), [format!("DELETE {other}")]);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_away_is_waited_for() {
    for mood in [Mood::Down, Mood::Wedged] {
        let api = FakeApi::new();
        api.set_mood(mood);
        let world = World::new(api.clone());
        world.begin();
        let pod = pod("x");
        world.report(&pod, "Pending", &[]);
        tokio::time::sleep(Duration::from_secs(100)).await;
        api.set_mood(Mood::Well);
        let began = Instant::now();
        world.until_phase("Pending").await;
        if mood == Mood::Down {
            assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
        }
        // Away again: nothing else changes, and nothing is lost.
        api.set_mood(mood);
        world.report(&pod, "Running", &[]);
        tokio::time::sleep(Duration::from_secs(100)).await;
        api.set_mood(Mood::Well);
        world.until_phase("Running").await;
        // What happened meanwhile cannot be watched any more.
        api.set_mood(mood);
        api.do_delete(PATH, 0);
        api.compact();
        tokio::time::sleep(Duration::from_secs(100)).await;
        api.set_mood(Mood::Well);
        world.until_phase("Running").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_taken_is_told_of() {
    let api = FakeApi::new();
    for node in ["n1", "n2"] {
        let foreign = json!({"metadata": {"name": "web-n1", "namespace": "default"},
            "spec": {"nodeName": node}});
        api.do_put(PATH, foreign);
        let world = World::new(api.clone());
        world.begin();
        let pod = pod("x");
        world.report(&pod, "Running", &[]);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let told = world.events.of(&key_of(&pod));
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!((&*told[0].reason, told[0].count), ("FailedMirror", 1));
        assert_eq!(api.get(PATH).unwrap()["spec"]["nodeName"], node);
        api.do_delete(PATH, 0);
        world.until_phase("Running").await;
        api.do_delete(PATH, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_tried_again_more_and_more_rarely() {
    let api = FakeApi::new();
    api.refuse(403, "Forbidden", "POST");
    let world = World::new(api.clone());
    world.begin();
    let first = pod("x");
    world.report(&first, "Running", &[]);
    tokio::time::sleep(Duration::from_secs(70)).await;
    let tries = api.requests().len();
    assert!((10..20).contains(&tries), "{tries}");
    // Another version may be accepted.
    let second = pod("z");
    world.report(&second, "Running", &[]);
    world.settle().await;
    assert_eq!(api.requests().len(), 1);
    api.relent();
    world.until_phase("Running").await;
}

#[tokio::test(start_paused = true)]
async fn without_a_node_there_are_no_mirrors_and_with_another_one_they_are_its_own() {
    let world = World::new(FakeApi::new());
    world.begin();
    world.node.send_replace(None);
    world.report(&pod("x"), "Running", &[]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(world.api.get(PATH), None);
    for uid in ["first", "second"] {
        world.node.send_replace(Some(uid.to_owned()));
        let owned = |pod: &Value| pod["metadata"]["ownerReferences"][0]["uid"] == uid;
        world.until(|pod| pod.is_some_and(owned)).await;
    }
}

/// A pod of the API's own, as this agent takes it in, and its path.
fn own(api: &FakeApi, metadata: &Value) -> (Arc<Pod>, String) {
    let path = "/api/v1/namespaces/default/pods/own".to_owned();
    let mut pod = json!({
        "metadata": {"name": "own", "namespace": "default", "generation": 3},
        "spec": {"nodeName": "n1", "containers": [{"name": "a", "image": "x"}]},
        "status": {"phase": "Pending", "qosClass": "BestEffort"},
    });
    pod["metadata"].as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
    let held = serde_json::from_value(api.do_put(&path, pod)).unwrap();
    (Arc::new(Pod::from_api(held).unwrap()), path)
}

impl World {
    fn report_own(&self, pod: &Arc<Pod>, phase: &str, ended: bool) {
        let status = PodStatus { phase: Some(phase.into()), ..PodStatus::default() };
        self.tell(Publication::Pod(Box::new(PodReport {
            key: key_of(pod),
            pod: pod.clone(),
            manifest: None,
            status: Arc::new(status),
            waiting: None,
            ending: Vec::new(),
            stopping: ended,
            ended,
        })));
    }
}

#[tokio::test(start_paused = true)]
async fn the_api_is_told_of_its_own_pods() {
    let api = FakeApi::new();
    let world = World::new(api.clone());
    world.begin();
    let (pod, path) = own(&api, &json!({}));
    world
        .goals
        .send_replace(Some(Arc::new([(key_of(&pod), Verdict::Run(pod.clone(), None))].into())));
    world.report_own(&pod, "Running", false);
    let is = |phase: &'static str| {
        let path = path.clone();
        move |api: &FakeApi| api.get(&path).is_some_and(|pod| pod["status"]["phase"] == phase)
    };
    api.until(is("Running")).await;
    assert_eq!(api.get(&path).unwrap()["status"]["observedGeneration"], 3);
    api.do_delete(&path, 30);
    world.settle().await;
    api.requests();
    // It goes when it has ended, and its end was told.
    world.report_own(&pod, "Running", false);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(api.requests(), Vec::<String>::new());
    world.report_own(&pod, "Failed", true);
    api.until(|api| api.get(&path).is_none()).await;
    assert_eq!(api.requests(), [format!("PATCH {path}/status"), format!("DELETE {path}")]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_somebody_keeps_is_deleted_once() {
    let api = FakeApi::new();
    let world = World::new(api.clone());
    world.begin();
    let (pod, path) = own(&api, &json!({"finalizers": ["a/b"]}));
    api.do_delete(&path, 30);
    let grace = Duration::from_secs(30);
    let stop = Verdict::Stop(pod.clone(), grace);
    world.goals.send_replace(Some(Arc::new([(key_of(&pod), stop)].into())));
    world.report_own(&pod, "Failed", true);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let told = [format!("PATCH {path}/status"), format!("DELETE {path}")];
    assert_eq!(api.requests(), told);
    let mut held = api.get(&path).unwrap();
    held["metadata"].as_object_mut().unwrap().remove("finalizers");
    api.do_put(&path, held);
    api.until(|api| api.get(&path).is_none()).await;
    assert_eq!(api.requests(), [format!("DELETE {path}")]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_pod_says_why_and_goes_when_it_is_deleted() {
    let api = FakeApi::new();
    let world = World::new(api.clone());
    world.begin();
    let (pod, path) = own(&api, &json!({}));
    let status = PodStatus { phase: Some("Failed".into()), ..PodStatus::default() };
    let refused = Verdict::Refused { uid: pod.uid().to_owned(), status: Arc::new(status) };
    world.goals.send_replace(Some(Arc::new([(key_of(&pod), refused)].into())));
    api.until(|api| api.get(&path).is_some_and(|pod| pod["status"]["phase"] == "Failed")).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    api.do_delete(&path, 30);
    api.until(|api| api.get(&path).is_none()).await;
}
