//! What the supervisor decides by itself, against a runtime in memory.

use std::path::Path;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use mainstay_cri::{
    Image, ImageId, ImageSpec, Images, PodSandboxFilter, PullRequest, Result, Runtime,
};
use mainstay_linux::cgroup::Hierarchies;
use mainstay_plan::image_gc::Policy;
use mainstay_plan::labels;
use mainstay_plan::mirror::Held;
use mainstay_plan::node_status::Machine;
use mainstay_plan::pod::SourceKind;
use mainstay_plan::pressure::Thresholds;
use mainstay_plan::status::NodeAddresses;
use mainstay_plan::translate::NodeFacts;
use mainstay_pod::{NodeName, Validation};
use mainstay_testkit::contract::Sample;
use mainstay_testkit::runtime::FakeRuntime;
use serde_json::json;

use super::*;
use crate::agent::AgentConfig;
use crate::ledger::Ledger;
use crate::logs::LogBounds;
use crate::node_api::NodeApiSettings;
use crate::observe::Observer;
use crate::pods_group::OwnGroup;
use crate::publish::NodeTimes;
use crate::publish::api::Entry;
use crate::sources::manifest_dir::ManifestPaths;
use crate::worker::PullLimits;

struct NoImages;

#[async_trait]
impl Images for NoImages {
    async fn image_status(&self, _: &ImageSpec) -> Result<Option<Image>> {
        Ok(None)
    }

    async fn pull_image(&self, image: &PullRequest) -> Result<ImageId> {
        Ok(ImageId(image.image.0.clone()))
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        Ok(Vec::new())
    }

    async fn remove_image(&self, _: &ImageSpec) -> Result<()> {
        Ok(())
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    async fn problems(&self) -> Vec<String> {
        Vec::new()
    }
}

fn config(root: &Path) -> AgentConfig {
    AgentConfig {
        node_name: NodeName::new("n1").unwrap(),
        manifests: ManifestPaths::default(),
        validation: Validation::Strict,
        manifest_url: None,
        manifest_interval: Duration::from_secs(20),
        ledger_directory: root.join("ledger"),
        control_socket: root.join("socket"),
        facts: NodeFacts {
            name: "n1".into(),
            pods_directory: root.join("pods"),
            log_directory: root.join("log"),
            cgroup_root: "/cg".into(),
            machine_memory: 1 << 30,
            allocatable: Default::default(),
            seccomp_directory: root.join("seccomp"),
            ..NodeFacts::default()
        },
        resolv_conf: root.join("resolv.conf"),
        addresses: Vec::new(),
        log_bounds: LogBounds::default(),
        log_interval: Duration::from_secs(10),
        pulls: PullLimits::default(),
        node_api: NodeApiSettings::default(),
        eviction: Thresholds::none(),
        image_gc: Policy::default(),
        node: Arc::default(),
        machine: Machine::default(),
        node_times: NodeTimes::default(),
        registers: true,
        pods_group: Arc::new(OwnGroup("/cg".to_owned())),
        graceful_shutdown: None,
        credentials_directory: None,
        api: None,
        pod_network: None,
    }
}

fn performer(
    config: &AgentConfig,
    runtime: &Arc<dyn Runtime>,
    observer: Arc<Observer>,
) -> Arc<Performer> {
    Arc::new(Performer::new(
        config,
        runtime.clone(),
        Arc::new(NoImages),
        observer,
        Hierarchies::of(Vec::new()),
        Ledger::open(&config.ledger_directory).unwrap(),
        watch::channel(NodeAddresses::default()).1,
    ))
}

#[tokio::test]
async fn the_images_of_the_version_that_ran_last_are_known() {
    let pod = |image: &str| {
        mainstay_testkit::pods::pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: t}}\nspec: {{containers: [{{name: main, \
             image: {image}}}]}}"
        ))
    };
    let (old, new) = (pod("old"), pod("new"));
    let root = tempfile::tempdir().unwrap();
    let runtime = FakeRuntime::default();
    let config = config(root.path());
    let shared: Arc<dyn Runtime> = Arc::new(runtime.clone());
    let observer = Arc::new(Observer::new(shared.clone(), config.facts.clone()));
    let performer = performer(&config, &shared, observer.clone());
    let (reports, _told) = mpsc::unbounded_channel();
    let (_changes, images) = watch::channel(0);
    let supervisor = Supervisor::new(performer, reports, images, [], Prober::new().0);
    let goal = |pod: &Arc<Pod>| GoalPod {
        pod: pod.clone(),
        path: PathBuf::new(),
        place: Place::default(),
        incarnation: None,
        invalid: None,
        stop: None,
        pending: None,
    };
    let before = Record {
        path: PathBuf::new(),
        place: Place::default(),
        pod: old.clone(),
        started: false,
        finished: None,
        incarnation: None,
        stop: None,
        resizing: None,
        began: None,
        added: Vec::new(),
        rollback: vec!["older".to_owned()],
    };
    let key = PodKey { source: SourceKind::File, namespace: "default".into(), name: "t".into() };
    let rollback = |pod: &Arc<Pod>| supervisor.rollback(&key, &before, &goal(pod));
    // Its restart is asked for.
    assert_eq!(rollback(&old), ["older"]);
    // After a reboot nobody knows.
    assert_eq!(rollback(&new), ["old", "older"]);
    let mut sample = Sample::new("t", root.path());
    sample.sandbox.metadata.uid = old.uid().to_owned();
    sample.sandbox.labels.insert(labels::SOURCE.into(), "file".into());
    let sandbox = runtime.run_pod_sandbox(&sample.sandbox).await.unwrap();
    let container = sample.container("main");
    let id = runtime.create_container(&sandbox, &container, &sample.sandbox).await.unwrap();
    observer.relist().await.unwrap();
    assert_eq!(observer.keys().into_iter().collect::<Vec<_>>(), std::slice::from_ref(&key));
    assert_eq!(rollback(&new), ["older"]);
    runtime.start_container(&id).await.unwrap();
    observer.relist().await.unwrap();
    let ran = runtime.container_status(&id).await.unwrap().image_ref;
    assert_eq!(rollback(&new), [ran.as_str()]);
    runtime.exit(&id, 1);
    observer.relist().await.unwrap();
    assert_eq!(rollback(&new), [ran]);
}

#[tokio::test(start_paused = true)]
async fn an_api_that_says_nothing_stops_nothing() {
    let root = tempfile::tempdir().unwrap();
    let runtime = FakeRuntime::default();
    let mut sample = Sample::new("t", root.path());
    let uid = sample.sandbox.metadata.uid.clone();
    sample.sandbox.labels.insert(labels::SOURCE.into(), "api".into());
    runtime.run_pod_sandbox(&sample.sandbox).await.unwrap();
    let place = root.path().join("pods").join(&uid);
    std::fs::create_dir_all(&place).unwrap();

    let config = config(root.path());
    let runtime: Arc<dyn Runtime> = Arc::new(runtime);
    let observer = Arc::new(Observer::new(runtime.clone(), config.facts.clone()));
    observer.relist().await.unwrap();
    let key = PodKey { source: SourceKind::Api, namespace: "default".into(), name: "t".into() };
    assert!(observer.has(&key, &uid));
    let performer = performer(&config, &runtime, observer);
    let (reports, mut told) = mpsc::unbounded_channel();
    let (_changes, images) = watch::channel(0);
    let (_goals, goals) = watch::channel(Some(Arc::new(Goals::new())));
    let (api, known) = watch::channel(None);
    let (_requests, requests) = mpsc::channel(1);
    let supervisor = Supervisor::new(performer, reports, images, [uid], Prober::new().0);
    let mut tasks = JoinSet::new();
    tasks.spawn(supervisor.run(goals, known, requests));

    tokio::time::sleep(API_PATIENCE * 2).await;
    let all = PodSandboxFilter::default();
    assert_eq!(runtime.list_pod_sandboxes(&all).await.unwrap().len(), 1);
    assert!(place.exists());
    // Nobody waits to be told of it.
    assert!(matches!(told.recv().await, Some(Publication::Begun(keys)) if keys.is_empty()));

    api.send_replace(Some(Arc::new(ApiGoals::new())));
    loop {
        if let Some(Publication::Gone(gone)) = told.recv().await {
            assert_eq!(gone, key);
            break;
        }
    }
    assert_eq!(runtime.list_pod_sandboxes(&all).await.unwrap(), []);
    assert!(!place.exists());
}

/// What is told of a mirror of a version of `web`, to which a container has been added.
fn mirror(uid: &str, pod: &Pod, container: &str) -> Verdict {
    let object = json!({
        "metadata": {
            "uid": uid, "name": "web-n1", "namespace": "default",
            "annotations": {"kubernetes.io/config.mirror": pod.uid()},
        },
        "spec": {"containers": [], "ephemeralContainers": [{"name": container}]},
    });
    let held = Held::of(serde_json::from_value(object).unwrap());
    Verdict::Mirror(Arc::new(Entry { uid: uid.to_owned(), version: None, held }))
}

#[tokio::test]
async fn what_is_added_to_a_mirror_is_of_the_pod_whatever_becomes_of_the_mirror() {
    let root = tempfile::tempdir().unwrap();
    let config = config(root.path());
    let runtime: Arc<dyn Runtime> = Arc::new(FakeRuntime::default());
    let observer = Arc::new(Observer::new(runtime.clone(), config.facts.clone()));
    let performer = performer(&config, &runtime, observer);
    let (reports, _told) = mpsc::unbounded_channel();
    let images = watch::channel(0).1;
    let mut supervisor = Supervisor::new(performer.clone(), reports, images, [], Prober::new().0);
    let version = |image: &str| {
        mainstay_testkit::pods::pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\n\
             spec: {{containers: [{{name: main, image: {image}}}]}}"
        ))
    };
    let (pod, other) = (version("x:1"), version("x:2"));
    let key = key_of(&pod);
    let shown = PodKey { source: SourceKind::Api, ..key.clone() };
    let goal = |pod: &Arc<Pod>, second: Option<i64>| GoalPod {
        pod: pod.clone(),
        path: PathBuf::from("web.yaml"),
        place: Place::default(),
        incarnation: second.map(|second| Timestamp::from_second(second).unwrap()),
        invalid: None,
        stop: None,
        pending: None,
    };
    let mut added = |goal: GoalPod, mirror: Option<Verdict>| {
        let known = mirror.map(|verdict| (shown.clone(), verdict));
        supervisor.api = ApiKnown::Known(Arc::new(known.into_iter().collect()));
        supervisor.files = [(key.clone(), goal)].into();
        supervisor.turn_to(supervisor.merged());
        let goal = supervisor.goal_of(&key).goal;
        let names = goal.pod().unwrap().pod.ephemeral_containers().iter().map(|it| it.name.clone());
        names.collect::<Vec<_>>()
    };
    assert_eq!(added(goal(&pod, None), Some(mirror("m0", &other, "z"))), [""; 0]);
    assert_eq!(added(goal(&pod, None), Some(mirror("m1", &pod, "a"))), ["a"]);
    assert_eq!(added(goal(&pod, None), None), ["a"]);
    assert_eq!(added(goal(&pod, None), Some(mirror("m2", &pod, "b"))), ["a", "b"]);
    let run = RunGoal { pod: pod.clone(), incarnation: None };
    let spent = performer.note_spent(&run, ["a".to_owned()].into());
    assert_eq!(spent, performer.note_spent(&run, BTreeSet::new()));
    // Taken out and put back: what was added was so to what was there before.
    assert_eq!(added(goal(&pod, Some(1)), Some(mirror("m2", &pod, "b"))), [""; 0]);
    assert_eq!(added(goal(&pod, Some(1)), Some(mirror("m2", &pod, "b"))), [""; 0]);
    assert_eq!(added(goal(&pod, Some(1)), Some(mirror("m3", &pod, "c"))), ["c"]);
    // A change of the manifest is another pod.
    assert_eq!(added(goal(&other, Some(2)), Some(mirror("m3", &pod, "c"))), [""; 0]);
}
