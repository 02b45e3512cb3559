//! The contract, kept by containerd with real containers.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use mainstay_cri::{
    ContainerConfig, ContainerEventKind, ContainerId, ContainerState, ErrorKind, ExecRequest,
    ExecSyncRequest, IdMapping, ImageSpec, Images, Mount, MountPropagation, NamespaceMode,
    PodSandboxFilter, PodSandboxState, PullRequest, PullSecret, Result, Runtime,
    SupplementalGroupsPolicy, TerminalSize,
};
use mainstay_cri_grpc::{
    Offer, PullCredentials, REQUEST_TIMEOUT, RemoteConfig, RemoteImages, RemoteRuntime,
};
use mainstay_testkit::containerd::Containerd;
use mainstay_testkit::contract::{self, Sample};
use mainstay_testkit::tools;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// How long to wait for what may never come.
const PATIENCE: Duration = Duration::from_secs(60);

struct Nobody;

#[async_trait]
impl PullCredentials for Nobody {
    async fn of(&self, _: &ImageSpec, _: &[PullSecret]) -> Result<Offer> {
        Ok(Offer::default())
    }
}

/// What a test has, in the order in which it goes.
struct Below {
    runtime: RemoteRuntime,
    containerd: Containerd,
    group: String,
    directory: tempfile::TempDir,
}

impl Below {
    /// `None`, said aloud, where the test cannot be run.
    async fn start(name: &str) -> Option<Self> {
        if !tools::is_root() {
            return None;
        }
        let directory = tempfile::Builder::new().prefix("ms-").tempdir().unwrap();
        let group = format!("/mainstay-cri-test-{name}-{}", std::process::id());
        let containerd = Containerd::start(directory.path(), &group, None);
        let runtime = remote(&containerd, directory.path(), name);
        answers(&runtime).await;
        Some(Self { runtime, containerd, group, directory })
    }

    fn sample(&self, name: &str) -> Sample {
        let mut sample = Sample::new(name, &self.directory.path().join("logs").join(name));
        sample.sandbox.cgroup_parent = format!("{}/{name}", self.group);
        sample
    }

    fn images(&self) -> RemoteImages {
        self.runtime.images(Arc::new(Nobody))
    }
}

/// containerd, as an instance sees it.
fn remote(containerd: &Containerd, directory: &Path, instance: &str) -> RemoteRuntime {
    RemoteRuntime::new(RemoteConfig {
        socket: containerd.socket(),
        mark: ("mainstay.dev/instance".to_owned(), instance.to_owned()),
        sub_paths: directory.join("sub-paths"),
        timeout: REQUEST_TIMEOUT,
    })
}

/// Waits until it serves the CRI, which it does some time after it has begun.
async fn answers(runtime: &RemoteRuntime) {
    let asking = async {
        // Which version it is, it says before it knows what it ran before.
        while let Err(error) = runtime.status().await {
            assert_eq!(error.kind, ErrorKind::Unavailable, "{}", error.chain());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, asking).await.expect("it answers");
}

fn sh(sample: &Sample, name: &str, script: &str) -> ContainerConfig {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    ContainerConfig { command, stdin: false, ..sample.container(name) }
}

async fn run(
    runtime: &RemoteRuntime,
    sample: &Sample,
    sandbox: &mainstay_cri::SandboxId,
    config: &ContainerConfig,
) -> ContainerId {
    let made = runtime.create_container(sandbox, config, &sample.sandbox).await;
    let id = made.unwrap();
    runtime.start_container(&id).await.unwrap();
    id
}

async fn ended(runtime: &RemoteRuntime, id: &ContainerId) -> ContainerState {
    let look = async {
        loop {
            let state = runtime.container_status(id).await.unwrap().state;
            if matches!(state, ContainerState::Exited { .. }) {
                return state;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, look).await.expect("it ends")
}

/// Cases that leave nothing, one after the other on one containerd.
#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_and_what_containerd_does_not_have_is_said() {
    let Some(below) = Below::start("contract").await else { return };
    contract::stats(&below.runtime, &below.sample("stats")).await;
    contract::streams(&below.runtime, &below.sample("streams")).await;
    contract::terminals(&below.runtime, &below.sample("terminals")).await;
    contract::updates(&below.runtime, &below.sample("updates")).await;
    a_pod_lives_and_only_its_own_instance_sees_it(&below).await;
    what_containerd_does_not_have_is_said(&below).await;
}

async fn a_pod_lives_and_only_its_own_instance_sees_it(below: &Below) {
    let runtime = &below.runtime;
    let mut sample = below.sample("life");
    // With a network of its own.
    sample.sandbox.security_context.namespaces.network = NamespaceMode::Pod;
    sample.sandbox.labels.insert("a".into(), "b".into());
    let version = runtime.version().await.unwrap();
    assert_eq!((&*version.runtime_name, &*version.runtime_api_version), ("containerd", "v1"));
    let status = runtime.status().await.unwrap();
    assert!(status.conditions.iter().all(|it| it.status), "{status:?}");

    let sandbox = runtime.run_pod_sandbox(&sample.sandbox).await.unwrap();
    let seen = runtime.pod_sandbox_status(&sandbox).await.unwrap();
    assert_eq!(seen.ips.len(), 1);
    assert_eq!(
        (&seen.sandbox.labels, seen.sandbox.state),
        (&sample.sandbox.labels, PodSandboxState::Ready)
    );

    // Only the part of a volume is there, and what is written goes there.
    let volume = below.directory.path().join("volume");
    std::fs::create_dir_all(volume.join("part")).unwrap();
    let mut config =
        sh(&sample, "main", "echo out; echo err >&2; pwd > /data/file; exec sleep 1000");
    config.annotations.insert("note".into(), "it".into());
    config.mounts.push(Mount {
        container_path: "/data".into(),
        host_path: volume.to_string_lossy().into_owned(),
        image: None,
        readonly: false,
        recursive_read_only: false,
        propagation: MountPropagation::Private,
        sub_path: "part".into(),
    });
    let mut events = runtime.events();
    let id = run(runtime, &sample, &sandbox, &config).await;
    let told = async {
        while let Some(event) = events.next().await {
            if event.container.as_ref() == Some(&id) && event.kind == ContainerEventKind::Started {
                return;
            }
        }
    };
    timeout(PATIENCE, told).await.expect("it is told");
    let command = |script: &str| ExecSyncRequest {
        container: id.clone(),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        timeout: Some(PATIENCE),
    };
    // When the first process has said all that it has to say.
    let script = "until [ -s /data/file ]; do sleep 0.1; done; echo a; echo b >&2; exit 3";
    let said = runtime.exec_sync(&command(script)).await.unwrap();
    assert_eq!((&*said.stdout, &*said.stderr, said.exit_code), (&b"a\n"[..], &b"b\n"[..], 3));
    assert_eq!(std::fs::read_to_string(volume.join("part/file")).unwrap(), "/\n");

    let seen = runtime.pod_sandbox_status(&sandbox).await.unwrap();
    let [container] = seen.containers.as_slice() else { unreachable!("{seen:?}") };
    assert_eq!((&container.labels, &container.annotations), (&config.labels, &config.annotations));
    assert_eq!(container.image.0, "docker.io/local/busybox:1");
    let log = below.directory.path().join("logs/life/main/0.log");
    assert_eq!(Path::new(&container.log_path), log);
    let logged = async {
        loop {
            let text = std::fs::read_to_string(&log).unwrap();
            if text.contains(" stdout F out") && text.contains(" stderr F err") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, logged).await.expect("it is logged");
    std::fs::rename(&log, log.with_extension("old")).unwrap();
    runtime.reopen_container_log(&id).await.unwrap();
    assert!(log.exists());

    let process = ExecRequest {
        container: id.clone(),
        command: ["sh", "-c", "stty size; cat; exit 7"].map(str::to_owned).to_vec(),
        tty: true,
        stdin: true,
    };
    let mut process = runtime.exec(&process).await.unwrap();
    process.resize.as_ref().unwrap()(TerminalSize { width: 91, height: 17 }).unwrap();
    process.stdin.as_mut().unwrap().write_all(b"line\n\x04").await.unwrap();
    let mut output = String::new();
    process.stdout.read_to_string(&mut output).await.unwrap();
    assert!(output.contains("line"), "{output}");
    assert_eq!(process.exit.await.unwrap(), 7);

    // Somebody else sees nothing of it.
    let other = remote(&below.containerd, below.directory.path(), "other");
    let everything = PodSandboxFilter::default();
    assert_eq!(other.list_pod_sandboxes(&everything).await.unwrap(), []);
    assert_eq!(other.list_containers(&Default::default()).await.unwrap(), []);
    assert_eq!(other.list_pod_sandbox_stats(&everything).await.unwrap(), []);

    runtime.stop_container(&id, Duration::ZERO).await.unwrap();
    let ContainerState::Exited { exit_code: 137, .. } = ended(runtime, &id).await else {
        unreachable!("it was killed")
    };
    for _ in 0..2 {
        runtime.remove_container(&id).await.unwrap();
        runtime.stop_pod_sandbox(&sandbox).await.unwrap();
        runtime.remove_pod_sandbox(&sandbox).await.unwrap();
    }
    assert_eq!(runtime.list_pod_sandboxes(&everything).await.unwrap(), []);
    assert!(!below.directory.path().join("sub-paths").join(&sandbox.0).exists());
    assert_eq!(runtime.container_status(&id).await.unwrap_err().kind, ErrorKind::NotFound);
}

async fn what_containerd_does_not_have_is_said(below: &Below) {
    let runtime = &below.runtime;
    let sample = below.sample("lacks");
    let mut mapped = sample.sandbox.clone();
    mapped.security_context.namespaces.users =
        Some(IdMapping { host_id: 1 << 20, length: 1 << 16 });
    let lacking = |error: mainstay_cri::Error, what: &str| {
        let text = error.chain();
        assert_eq!(error.kind, ErrorKind::Unimplemented, "{text}");
        assert!(text.starts_with("containerd 1.6.") && text.contains(what), "{text}");
    };
    lacking(runtime.run_pod_sandbox(&mapped).await.unwrap_err(), "has no user namespaces");

    let sandbox = runtime.run_pod_sandbox(&sample.sandbox).await.unwrap();
    let refused = async |change: &dyn Fn(&mut ContainerConfig)| {
        let mut config = sh(&sample, "main", "true");
        change(&mut config);
        runtime.create_container(&sandbox, &config, &sample.sandbox).await.unwrap_err()
    };
    let strict = SupplementalGroupsPolicy::Strict;
    let error = refused(&|it| it.security_context.supplemental_groups_policy = strict).await;
    lacking(error, "supplementalGroupsPolicy: Strict");
    let error = refused(&|it| it.stop_signal = Some("SIGUSR1".into())).await;
    lacking(error, "lifecycle.stopSignal");
    let mount = |image: Option<ImageSpec>| Mount {
        container_path: "/data".into(),
        host_path: if image.is_some() { String::new() } else { "/srv".into() },
        readonly: true,
        recursive_read_only: image.is_none(),
        image,
        propagation: MountPropagation::Private,
        sub_path: String::new(),
    };
    lacking(refused(&|it| it.mounts = vec![mount(None)]).await, "recursiveReadOnly");
    let image = || Some(ImageSpec("local/busybox:1".into()));
    lacking(refused(&|it| it.mounts = vec![mount(image())]).await, "volumes of images");
    assert_eq!(runtime.list_containers(&Default::default()).await.unwrap(), []);
    runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn images_are_found_listed_and_removed() {
    let Some(below) = Below::start("images").await else { return };
    let images = below.images();
    let busybox = ImageSpec("local/busybox:1".into());
    let found = images.image_status(&busybox).await.unwrap().unwrap();
    assert_eq!(found.repo_tags, ["docker.io/local/busybox:1"]);
    assert!(!found.pinned && found.size > 0);
    let listed = images.list_images().await.unwrap();
    let pinned: Vec<&str> = listed
        .iter()
        .filter(|image| image.pinned)
        .flat_map(|image| image.repo_tags.iter().map(String::as_str))
        .collect();
    // Without it no sandbox could be made any more.
    assert_eq!(pinned, ["docker.io/local/pause:1"]);
    let away = PullRequest {
        image: ImageSpec("127.0.0.1:1/away:1".into()),
        secrets: Vec::new(),
        patience: Some(PATIENCE),
    };
    let error = images.pull_image(&away).await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::RegistryUnavailable, "{}", error.chain());
    for _ in 0..2 {
        images.remove_image(&busybox).await.unwrap();
    }
    assert_eq!(images.image_status(&busybox).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_goes_hangs_and_comes_back_and_pods_run_on() {
    let Some(mut below) = Below::start("back").await else { return };
    let runtime = below.runtime.clone();
    let sample = below.sample("back");
    let mut events = runtime.events();
    let sandbox = runtime.run_pod_sandbox(&sample.sandbox).await.unwrap();
    let stays = run(&runtime, &sample, &sandbox, &sh(&sample, "stays", "exec sleep 1000")).await;
    let began = runtime.container_status(&stays).await.unwrap();
    let script = "while [ ! -e /tmp/end ]; do sleep 0.1; done; exit 5";
    let goes = run(&runtime, &sample, &sandbox, &sh(&sample, "goes", script)).await;

    below.containerd.suspend(true);
    let hurried = RemoteRuntime::new(RemoteConfig {
        socket: below.containerd.socket(),
        mark: ("mainstay.dev/instance".to_owned(), "back".to_owned()),
        sub_paths: below.directory.path().join("sub-paths"),
        timeout: Duration::from_millis(200),
    });
    let error = hurried.version().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::DeadlineExceeded, "{}", error.chain());
    below.containerd.suspend(false);
    assert!(runtime.version().await.is_ok());

    let end = ExecSyncRequest {
        container: goes.clone(),
        command: ["touch", "/tmp/end"].map(str::to_owned).to_vec(),
        timeout: None,
    };
    runtime.exec_sync(&end).await.unwrap();
    below.containerd.kill();
    let error = runtime.version().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{}", error.chain());
    below.containerd.begin();
    answers(&runtime).await;
    let again = runtime.container_status(&stays).await.unwrap();
    assert_eq!(again, began);
    let ContainerState::Exited { exit_code: 5, .. } = ended(&runtime, &goes).await else {
        unreachable!("its end was kept")
    };
    // Whoever listened hears of it, or that there may be more than was told.
    let told = async {
        while let Some(event) = events.next().await {
            let is_end = event.container.as_ref() == Some(&goes)
                && event.kind == ContainerEventKind::Stopped;
            if is_end || event.kind == ContainerEventKind::Lagged {
                return;
            }
        }
    };
    timeout(PATIENCE, told).await.expect("it is told");
    runtime.remove_pod_sandbox(&sandbox).await.unwrap();
}
