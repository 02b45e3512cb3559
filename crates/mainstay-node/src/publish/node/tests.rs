//! The Node object against a small API.

use futures_util::FutureExt;
use mainstay_cri::{ImageId, ImageSpec, PullRequest, Result};
use serde_json::Value;
use tokio::task::JoinSet;

use super::*;
use crate::publish::api::calls;
use crate::publish::api::fake::{FakeApi, Mood};

const PATH: &str = "/api/v1/nodes/n1";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1";

struct NoImages;

#[async_trait::async_trait]
impl Images for NoImages {
    async fn image_status(&self, _: &ImageSpec) -> Result<Option<Image>> {
        Ok(None)
    }
    async fn pull_image(&self, _: &PullRequest) -> Result<ImageId> {
        Ok(ImageId(String::new()))
    }
    async fn list_images(&self) -> Result<Vec<Image>> {
        Ok(Vec::new())
    }
    async fn remove_image(&self, _: &ImageSpec) -> Result<()> {
        Ok(())
    }
    fn changed(&self) -> futures_util::future::BoxFuture<'static, ()> {
        std::future::pending().boxed()
    }
    async fn problems(&self) -> Vec<String> {
        Vec::new()
    }
}

struct World {
    api: FakeApi,
    uid: watch::Receiver<Option<String>>,
    health: watch::Sender<Vec<RuntimeCondition>>,
    doubt: Arc<Notify>,
    pressure: watch::Sender<Pressure>,
    /// None of them says anything more.
    _senders: Box<dyn std::any::Any>,
    _tasks: JoinSet<()>,
    _directory: tempfile::TempDir,
}

impl World {
    fn new(api: &FakeApi) -> Self {
        Self::of(api, true)
    }

    fn of(api: &FakeApi, registers: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (uid, uid_seen) = watch::channel(None);
        let (health, health_seen) = watch::channel(Vec::new());
        let (images, image_changes) = watch::channel(0);
        let ips = vec!["10.0.0.7".parse().unwrap()];
        let (addresses, addresses_seen) = watch::channel(NodeAddresses { ips });
        let (reachable, reachable_seen) = watch::channel(true);
        let (pressure, pressure_seen) = watch::channel(Pressure::default());
        let (version, runtime_version) = watch::channel("mainstay://0.1.0".to_owned());
        let (shutting_down, goes_down) = watch::channel(false);
        let doubt = Arc::new(Notify::new());
        let calls = calls(api.client());
        let keeper = NodeKeeper {
            calls: calls.clone(),
            name: "n1".into(),
            port: Some(10250),
            settings: Arc::default(),
            times: NodeTimes::default(),
            registers,
            directory: directory.path().to_owned(),
            pressure: pressure_seen,
            shutting_down: goes_down,
            runtime_version,
            images: Arc::new(NoImages),
            image_changes,
            health: health_seen,
            addresses: addresses_seen,
            reachable: reachable_seen,
            events: Events::default(),
            network: None,
            uid,
            doubt: doubt.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(keeper.run());
        tasks.spawn(keep_lease(calls, "n1".into(), LEASE_DURATION, uid_seen.clone()));
        Self {
            api: api.clone(),
            uid: uid_seen,
            health,
            doubt,
            pressure,
            _senders: Box::new((images, addresses, reachable, version, shutting_down)),
            _tasks: tasks,
            _directory: directory,
        }
    }

    fn is_well(&self) {
        let condition = |kind: &str| RuntimeCondition {
            kind: kind.into(),
            status: true,
            reason: String::new(),
            message: String::new(),
        };
        self.health.send_replace(vec![condition("RuntimeReady"), condition("NetworkReady")]);
    }

    async fn until(&self, path: &str, holds: impl Fn(Option<&Value>) -> bool) {
        self.api.until(|api| holds(api.get(path).as_ref())).await;
    }
}

fn ready(node: Option<&Value>) -> Option<&str> {
    let conditions = node?["status"]["conditions"].as_array()?;
    conditions.iter().find(|it| it["type"] == "Ready")?["status"].as_str()
}

#[tokio::test(start_paused = true)]
async fn a_node_is_registered_kept_and_registered_again() {
    let api = FakeApi::new();
    let mut world = World::new(&api);
    world.until(PATH, |node| ready(node) == Some("False")).await;
    world.is_well();
    world.until(PATH, |node| ready(node) == Some("True")).await;
    let first = world.uid.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(first.as_deref(), api.get(PATH).unwrap()["metadata"]["uid"].as_str());
    world.until(LEASE, |lease| lease.is_some()).await;
    assert_eq!(api.get(LEASE).unwrap()["spec"]["holderIdentity"], "n1");

    // Without news there is the lease, every ten seconds, and a heartbeat now and then, which shows
    // when the wall clock goes on.
    api.requests();
    tokio::time::sleep(Duration::from_secs(610)).await;
    let requests = api.requests();
    let renewals = requests.iter().filter(|it| **it == format!("PUT {LEASE}")).count();
    assert!((59..=62).contains(&renewals), "{renewals}");
    let heartbeats = requests.iter().filter(|it| **it == format!("PATCH {PATH}/status")).count();
    assert!(heartbeats <= 2, "{heartbeats}");
    assert_eq!(renewals + heartbeats, requests.len());

    // Somebody edits it.
    let mut edited = api.get(PATH).unwrap();
    edited["status"]["capacity"]["pods"] = "9".into();
    edited["metadata"]["labels"]["kubernetes.io/hostname"] = "x".into();
    api.do_put(PATH, edited);
    let mended = |node: Option<&Value>| {
        let node = node.unwrap();
        node["status"]["capacity"]["pods"] == "110"
            && node["metadata"]["labels"]["kubernetes.io/hostname"] == "n1"
    };
    world.until(PATH, mended).await;

    // Somebody deletes it.
    api.do_delete(PATH, 0);
    world.doubt.notify_one();
    let other = world.uid.wait_for(|uid| uid.is_some() && *uid != first).await.unwrap().clone();
    assert_eq!(other.as_deref(), api.get(PATH).unwrap()["metadata"]["uid"].as_str());
    let owner = |lease: Option<&Value>| {
        lease.is_some_and(|it| {
            it["metadata"]["ownerReferences"][0]["uid"] == *other.as_ref().unwrap()
        })
    };
    world.until(LEASE, owner).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_short_is_shown_at_once() {
    let api = FakeApi::new();
    let world = World::new(&api);
    world.is_well();
    world.until(PATH, |node| ready(node) == Some("True")).await;
    let shown = |node: Option<&Value>| {
        let conditions = node.unwrap()["status"]["conditions"].as_array().unwrap().clone();
        let holds = conditions.iter().filter(|it| it["status"] == "True");
        holds.map(|it| it["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    world.pressure.send_replace(Pressure { memory: true, disk: false, processes: true });
    world.until(PATH, |node| shown(node) == "MemoryPressure PIDPressure Ready").await;
    world.pressure.send_replace(Pressure::default());
    world.until(PATH, |node| shown(node) == "Ready").await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_register_itself_keeps_what_others_made() {
    let api = FakeApi::new();
    let world = World::of(&api, false);
    world.is_well();
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(api.get(PATH), None);
    let made = serde_json::json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "uid": "theirs"},
    });
    api.do_put(PATH, made);
    world.until(PATH, |node| ready(node) == Some("True")).await;
    assert_eq!(api.get(PATH).unwrap()["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
}

#[tokio::test(start_paused = true)]
async fn an_api_that_is_away_is_registered_with_when_it_comes() {
    for mood in [Mood::Down, Mood::Wedged] {
        let api = FakeApi::new();
        api.set_mood(mood);
        let world = World::new(&api);
        world.is_well();
        tokio::time::sleep(Duration::from_secs(100)).await;
        api.set_mood(Mood::Well);
        world.until(PATH, |node| ready(node) == Some("True")).await;
        // Another agent finds the Node, and leaves the labels of others.
        let mut held = api.get(PATH).unwrap();
        held["metadata"]["labels"] = serde_json::json!({"mine": "yes"});
        held["status"] = serde_json::json!({});
        api.do_put(PATH, held);
        let again = World::new(&api);
        again.is_well();
        again.until(PATH, |node| ready(node) == Some("True")).await;
        assert_eq!(api.get(PATH).unwrap()["metadata"]["labels"]["mine"], "yes");
    }
}
