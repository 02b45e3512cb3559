//! The task, on a runtime without processes and with ports of this machine.

use std::net::Ipv4Addr;

use mainstay_cri::Runtime;
use mainstay_plan::labels;
use mainstay_plan::pod::{Memory, RunGoal, SeenPod, SeenSandbox};
use mainstay_testkit::contract::Sample;
use mainstay_testkit::pods::pod;
use mainstay_testkit::runtime::FakeRuntime;
use tokio::net::TcpListener;

use super::super::line::Line;
use super::*;
use crate::sources::merge::key_of;

/// A pod that runs, with its prober and its worker's end.
struct Probed {
    runtime: FakeRuntime,
    run: RunGoal,
    seen: SeenPod,
    line: Line,
    events: Events,
    counts: Counts,
    directory: tempfile::TempDir,
    _tasks: JoinSet<()>,
}

impl Probed {
    /// The container `main` has these probes.
    async fn start(probes: &str) -> Self {
        let pod = pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec:\n  hostNetwork: true\n  \
             containers:\n  - name: main\n    image: x\n{probes}"
        ));
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join(pod.uid())).unwrap();
        let runtime = FakeRuntime::default();
        let mut sample = Sample::new("t", directory.path());
        sample.sandbox.metadata.uid = pod.uid().to_owned();
        sample.sandbox.labels.insert(labels::SOURCE.into(), "file".into());
        let sandbox = runtime.run_pod_sandbox(&sample.sandbox).await.unwrap();
        let config = sample.container("main");
        let id = runtime.create_container(&sandbox, &config, &sample.sandbox).await.unwrap();
        runtime.start_container(&id).await.unwrap();
        let status = runtime.pod_sandbox_status(&sandbox).await.unwrap();
        let seen = SeenPod { sandboxes: vec![SeenSandbox::from_status(&status)] };
        let (prober, hears) = Prober::new();
        let (events, counts) = (Events::default(), Counts::default());
        let context = Context {
            runtime: Arc::new(runtime.clone()),
            tls: Arc::new(mainstay_pki::unverified_client().unwrap()),
            events: events.clone(),
            counts: counts.clone(),
            pods_directory: directory.path().to_owned(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut hears = hears;
            if let Some(first) = hears.recv().await {
                run(context, first, hears).await;
            }
        });
        let line = Line::new(prober, key_of(&pod));
        let run = RunGoal { pod, incarnation: None };
        Self { runtime, run, seen, line, events, counts, directory, _tasks: tasks }
    }

    fn tell(&mut self, known: &BTreeMap<ContainerId, Health>) {
        let host = || Some(Ipv4Addr::LOCALHOST.to_string());
        let memory = Memory { health: known.clone(), ..Memory::default() };
        self.line.tell(Some(&self.run), &self.seen, host, false, &memory);
    }

    /// Waits until its health is this.
    async fn until(&mut self, wanted: impl Fn(&Health) -> bool) {
        loop {
            self.line.changed().await;
            let Some(known) = self.line.news() else { continue };
            if known.values().any(&wanted) {
                return;
            }
        }
    }

    fn told(&self) -> Vec<String> {
        let events = self.events.of(&key_of(&self.run.pod)).into_iter();
        events.map(|event| format!("{}: {}", event.reason, event.message)).collect()
    }
}

#[tokio::test]
async fn a_port_that_opens_makes_its_container_ready() {
    // Nobody listens here until it is bound again.
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let probe = format!("    readinessProbe: {{tcpSocket: {{port: {port}}}, periodSeconds: 1}}\n");
    let mut probed = Probed::start(&probe).await;
    probed.tell(&BTreeMap::new());
    probed.until(|health| health.started && !health.ready && health.alive).await;
    while probed.told().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let expected = format!(
        "Unhealthy: Readiness probe failed: dial tcp 127.0.0.1:{port}: connect: connection refused"
    );
    assert_eq!(probed.told(), [expected]);
    let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    probed.until(|health| health.ready).await;
    let counts = probed.counts.all();
    let of_pod = &counts[&key_of(&probed.run.pod)];
    let count = &of_pod.probes[&("main".to_owned(), ProbeKind::Readiness)];
    assert!(count.failed >= 1 && count.successful >= 1, "{count:?}");
    // The next agent is to know.
    let directory = probed.directory.path().join(probed.run.pod.uid());
    let id = probed.seen.sandboxes[0].containers[0].id.clone();
    while !kept::read(&directory).get(&id).is_some_and(|health| health.ready) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(probed.line);
    while !probed.counts.all().is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_fails_or_hangs_gives_its_container_up() {
    for (command, expected) in [
        ("[fail, '3', bad, luck]", "Unhealthy: Liveness probe failed: bad luck\n"),
        (
            "[hang]",
            "Unhealthy: Liveness probe failed: command timed out: \"hang\" timed out after 1s",
        ),
    ] {
        let probe = format!("    livenessProbe: {{exec: {{command: {command}}}}}\n");
        let mut probed = Probed::start(&probe).await;
        probed.tell(&BTreeMap::new());
        probed.until(|health| !health.alive).await;
        assert_eq!(probed.told(), [expected]);
        let count = probed.events.of(&key_of(&probed.run.pod))[0].count;
        assert_eq!(count, 3);
    }
    // What cannot be asked says nothing of the container.
    let probe = "    livenessProbe: {exec: {command: [nothing]}}\n    \
                 readinessProbe: {exec: {command: [echo]}, initialDelaySeconds: 60}\n";
    let mut probed = Probed::start(probe).await;
    probed.tell(&BTreeMap::new());
    probed.until(|health| health.ready && health.alive).await;
    let told = probed.told();
    let unknown = "Unhealthy: Liveness probe errored and resulted in unknown state: ";
    assert!(told[0].starts_with(unknown), "{told:?}");
    assert!(probed.runtime.version().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_an_earlier_agent_knew_holds_until_it_is_found_otherwise() {
    let probe = "    startupProbe: {exec: {command: [fail]}, failureThreshold: 1}\n    \
                 readinessProbe: {exec: {command: [fail]}, failureThreshold: 2}\n";
    let mut probed = Probed::start(probe).await;
    let id = probed.seen.sandboxes[0].containers[0].id.clone();
    let health = Health { started: true, ready: true, alive: true };
    probed.tell(&BTreeMap::from([(id, health)]));
    probed.until(|health| health.started && health.ready).await;
    probed.until(|health| !health.ready).await;
    // And a container that is gone is forgotten.
    probed.seen.sandboxes[0].containers.clear();
    probed.tell(&BTreeMap::new());
    loop {
        probed.line.changed().await;
        if probed.line.news().is_some_and(|known| known.is_empty()) {
            break;
        }
    }
}
