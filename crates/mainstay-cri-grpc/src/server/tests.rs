//! Both ends together, over a runtime without processes.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use mainstay_cri::{
    ContainerConfig, ContainerEventKind, ContainerId, ErrorKind, ExecRequest, ExecSyncRequest,
    Image, ImageId, ImageSpec, PodSandboxFilter, PullRequest, SandboxId,
};
use mainstay_grpc::{Channel, Endpoint};
use mainstay_testkit::contract::{self, Sample};
use mainstay_testkit::runtime::FakeRuntime;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;
use crate::{RemoteConfig, RemoteRuntime};

/// How long to wait for what may never come.
const PATIENCE: Duration = Duration::from_secs(30);

/// One image.
struct OneImage;

#[async_trait]
impl Images for OneImage {
    async fn image_status(&self, image: &ImageSpec) -> mainstay_cri::Result<Option<Image>> {
        let known = ["local/busybox:1", "sha256:1"].contains(&&*image.0);
        Ok(known.then(|| Image {
            id: ImageId("sha256:1".into()),
            repo_tags: vec!["docker.io/local/busybox:1".into()],
            repo_digests: Vec::new(),
            size: 7,
            pinned: false,
            user: "web:web".into(),
        }))
    }

    async fn pull_image(&self, request: &PullRequest) -> mainstay_cri::Result<ImageId> {
        match request.secrets.as_slice() {
            [secret] if secret.config.windows(6).any(|it| it == b"secret") => {
                Ok(ImageId("sha256:1".into()))
            }
            _ => Err(Error::new(ErrorKind::PermissionDenied, "who are you?")),
        }
    }

    async fn list_images(&self) -> mainstay_cri::Result<Vec<Image>> {
        Ok(self.image_status(&ImageSpec("sha256:1".into())).await?.into_iter().collect())
    }

    async fn remove_image(&self, image: &ImageSpec) -> mainstay_cri::Result<()> {
        assert_eq!(image.0, "sha256:1");
        Ok(())
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    async fn problems(&self) -> Vec<String> {
        Vec::new()
    }
}

/// A served runtime, in the order in which it goes.
struct Served {
    channel: Channel,
    runtime: FakeRuntime,
    _tasks: JoinSet<()>,
    directory: TempDir,
}

impl Served {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let runtime = FakeRuntime::default();
        let config = ServerConfig {
            runtime: Arc::new(runtime.clone()),
            images: Arc::new(OneImage),
            image_dir: directory.path().join("images"),
            container_dir: directory.path().join("containers"),
        };
        let socket = directory.path().join("cri.sock");
        let mut tasks = JoinSet::new();
        tasks.spawn(serve(UnixListener::bind(&socket).unwrap(), config));
        let channel = Channel::new(Endpoint::Unix(socket), "runtime");
        Self { channel, runtime, _tasks: tasks, directory }
    }

    /// The runtime as another agent has it.
    fn remote(&self) -> RemoteRuntime {
        RemoteRuntime::new(RemoteConfig {
            socket: self.directory.path().join("cri.sock"),
            mark: ("instance".to_owned(), "other".to_owned()),
            sub_paths: self.directory.path().join("sub-paths"),
            timeout: PATIENCE,
        })
    }

    fn sample(&self, name: &str) -> Sample {
        Sample::new(name, &self.directory.path().join(name))
    }

    async fn call<A: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Answer<A> {
        self.channel.call(method, request, Some(PATIENCE)).await
    }

    /// A sandbox with a container, both with the label `app`.
    async fn pod(&self, app: &str) -> (SandboxId, ContainerId) {
        let mut sample = self.sample(app);
        sample.sandbox.labels.insert("app".into(), app.into());
        let sandbox = self.runtime.run_pod_sandbox(&sample.sandbox).await.unwrap();
        let mut config = sample.container("main");
        config.labels.insert("app".into(), app.into());
        let made = self.runtime.create_container(&sandbox, &config, &sample.sandbox).await;
        (sandbox, made.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_contract_is_kept_through_the_socket() {
    let served = Served::start();
    let remote = served.remote();
    contract::streams(&remote, &served.sample("streams")).await;
    contract::stats(&remote, &served.sample("stats")).await;
    contract::updates(&remote, &served.sample("updates")).await;
}

#[tokio::test]
async fn lists_have_what_is_asked_for_and_come_in_parts() {
    let served = Served::start();
    let (first, container) = served.pod("first").await;
    let (second, _) = served.pod("second").await;
    served.runtime.start_container(&container).await.unwrap();
    served.runtime.stop_pod_sandbox(&second).await.unwrap();
    let sandboxes = async |filter: wire::PodSandboxFilter| {
        let request = wire::ListPodSandboxRequest { filter: Some(filter) };
        let listed: wire::ListPodSandboxResponse =
            served.call(LIST_POD_SANDBOX, &request).await.unwrap();
        listed.items.into_iter().map(|it| it.id).collect::<Vec<_>>()
    };
    let everything = wire::PodSandboxFilter::default;
    assert_eq!(sandboxes(everything()).await, [&*first.0, &*second.0]);
    let by_id = wire::PodSandboxFilter { id: first.0.clone(), ..everything() };
    assert_eq!(sandboxes(by_id).await, [&*first.0]);
    // To find one by its beginning is the client's matter.
    let beginning = wire::PodSandboxFilter { id: first.0[..2].into(), ..everything() };
    assert!(sandboxes(beginning).await.is_empty());
    let state = wire::PodSandboxState::NotReady.into();
    let state = Some(wire::PodSandboxStateValue { state });
    assert_eq!(sandboxes(wire::PodSandboxFilter { state, ..everything() }).await, [&*second.0]);
    let label_selector: Labels = [("app".to_owned(), "first".to_owned())].into();
    let labelled =
        wire::PodSandboxFilter { label_selector: label_selector.clone(), ..everything() };
    assert_eq!(sandboxes(labelled).await, [&*first.0]);

    let containers = async |filter: wire::ContainerFilter| {
        let request = wire::ListContainersRequest { filter: Some(filter) };
        let listed: wire::ListContainersResponse =
            served.call(LIST_CONTAINERS, &request).await.unwrap();
        listed.containers.into_iter().map(|it| it.pod_sandbox_id).collect::<Vec<_>>()
    };
    let everything = wire::ContainerFilter::default;
    assert_eq!(containers(everything()).await, [&*first.0, &*second.0]);
    let by_sandbox = wire::ContainerFilter { pod_sandbox_id: second.0.clone(), ..everything() };
    assert_eq!(containers(by_sandbox).await, [&*second.0]);
    let by_id = wire::ContainerFilter { id: container.0.clone(), ..everything() };
    assert_eq!(containers(by_id).await, [&*first.0]);
    let state = wire::ContainerState::Running.into();
    let state = Some(wire::ContainerStateValue { state });
    assert_eq!(containers(wire::ContainerFilter { state, ..everything() }).await, [&*first.0]);
    let labelled = wire::ContainerFilter { label_selector, ..everything() };
    assert_eq!(containers(labelled).await, [&*first.0]);

    // The same in parts.
    let items = |count: usize| wire::ListPodSandboxResponse {
        items: vec![wire::PodSandbox::default(); count],
    };
    let sizes = |count| items(count).parts(100).iter().map(|it| it.items.len()).collect::<Vec<_>>();
    assert_eq!(sizes(0), [0; 0]);
    assert_eq!(sizes(100), [100]);
    assert_eq!(sizes(201), [100, 100, 1]);
    let request = wire::ListContainersRequest::default();
    let mut parts = served.channel.follow(STREAM_CONTAINERS, &request).await.unwrap();
    let part = parts.next().await.unwrap().unwrap();
    assert_eq!(decode::<wire::ListContainersResponse>(part).unwrap().containers.len(), 2);
    assert_eq!(parts.next().await, Ok(None));
}

#[tokio::test]
async fn what_is_not_there_is_gone_or_not_found() {
    let served = Served::start();
    let id = "nobody".to_owned();
    for _ in 0..2 {
        let stop = wire::StopPodSandboxRequest { pod_sandbox_id: id.clone() };
        served.call::<wire::StopPodSandboxResponse>(STOP_POD_SANDBOX, &stop).await.unwrap();
        let remove = wire::RemovePodSandboxRequest { pod_sandbox_id: id.clone() };
        served.call::<wire::RemovePodSandboxResponse>(REMOVE_POD_SANDBOX, &remove).await.unwrap();
        let stop = wire::StopContainerRequest { container_id: id.clone(), timeout: -1 };
        served.call::<wire::StopContainerResponse>(STOP_CONTAINER, &stop).await.unwrap();
        let remove = wire::RemoveContainerRequest { container_id: id.clone() };
        served.call::<wire::RemoveContainerResponse>(REMOVE_CONTAINER, &remove).await.unwrap();
    }
    // One whose first field is the id stands for all of them.
    let request = wire::StartContainerRequest { container_id: id };
    for method in [
        POD_SANDBOX_STATUS,
        UPDATE_POD_SANDBOX_RESOURCES,
        POD_SANDBOX_STATS,
        PORT_FORWARD,
        START_CONTAINER,
        CONTAINER_STATUS,
        REOPEN_CONTAINER_LOG,
        CONTAINER_STATS,
    ] {
        let refused = served.call::<wire::VersionResponse>(method, &request).await.unwrap_err();
        assert_eq!(refused.code, Code::NotFound, "{method}: {refused}");
    }
    let refused = served.call::<wire::VersionResponse>(CHECKPOINT_CONTAINER, &request).await;
    assert_eq!(refused.unwrap_err().code, Code::Unimplemented);
    let request = wire::RunPodSandboxRequest::default();
    let refused = served.call::<wire::RunPodSandboxResponse>(RUN_POD_SANDBOX, &request).await;
    assert_eq!(refused.unwrap_err(), invalid("config is missing"));
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let served = Served::start();
    let sample = served.sample("pod");
    let sandbox = served.runtime.run_pod_sandbox(&sample.sandbox).await.unwrap();
    let remote = served.remote();
    let create = async |change: &dyn Fn(&mut ContainerConfig)| {
        let mut config = sample.container("main");
        change(&mut config);
        let made = remote.create_container(&sandbox, &config, &sample.sandbox).await;
        made.map_err(|error| error.kind)
    };
    let id = create(&|_| {}).await.unwrap();
    let request = wire::RunPodSandboxRequest {
        config: Some((&sample.sandbox).into()),
        runtime_handler: "kata".into(),
    };
    let refused = served.call::<wire::RunPodSandboxResponse>(RUN_POD_SANDBOX, &request).await;
    assert_eq!(refused.unwrap_err().code, Code::InvalidArgument);
    // It does not run yet.
    let command = vec!["cat".to_owned()];
    let (tty, stdin) = (false, false);
    let exec = ExecRequest { container: id.clone(), command, tty, stdin };
    let refused = remote.exec(&exec).await.err().unwrap();
    assert_eq!(refused.kind, ErrorKind::FailedPrecondition);
    let (command, timeout) = (Vec::new(), None);
    let exec = ExecSyncRequest { container: id, command, timeout };
    let refused = remote.exec_sync(&exec).await.unwrap_err();
    assert_eq!(refused.kind, ErrorKind::InvalidArgument);
    // A directory that is to be mounted is made, if it says where.
    let host = served.directory.path().join("made/for/it");
    let mount = |path: &Path| mainstay_cri::Mount {
        container_path: "/data".into(),
        host_path: path.to_string_lossy().into_owned(),
        image: None,
        readonly: false,
        recursive_read_only: false,
        propagation: mainstay_cri::MountPropagation::Private,
        sub_path: String::new(),
    };
    create(&|config| config.mounts = vec![mount(&host)]).await.unwrap();
    assert!(host.is_dir());
    let refused = create(&|config| config.mounts = vec![mount(Path::new("data"))]).await;
    assert_eq!(refused, Err(ErrorKind::InvalidArgument));
}

#[tokio::test]
async fn what_happens_is_told_with_what_there_is() {
    let served = Served::start();
    let request = wire::GetEventsRequest {};
    let mut events = served.channel.follow(GET_CONTAINER_EVENTS, &request).await.unwrap();
    let (sandbox, container) = served.pod("first").await;
    let mut told = Vec::new();
    while told.len() < 2 {
        let next = timeout(PATIENCE, events.next()).await.expect("it is told");
        let event: wire::ContainerEventResponse = decode(next.unwrap().unwrap()).unwrap();
        assert_eq!(event.pod_sandbox_status.unwrap().labels["app"], "first");
        told.push(event.container_id);
    }
    assert_eq!(told, [sandbox.0, container.0]);
}

#[tokio::test]
async fn events_that_were_lost_end_the_call() {
    let served = Served::start();
    let request = wire::GetEventsRequest {};
    let mut events = served.channel.follow(GET_CONTAINER_EVENTS, &request).await.unwrap();
    // Another listener shows that there were more than are kept.
    let mut own = served.runtime.events();
    for number in 0..200 {
        served.pod(&number.to_string()).await;
    }
    let mut lagged = false;
    while !lagged {
        lagged = own.next().await.unwrap().kind == ContainerEventKind::Lagged;
    }
    let last = async {
        loop {
            if let Err(status) = events.next().await {
                return status;
            }
        }
    };
    assert_eq!(timeout(PATIENCE, last).await.expect("it ends").code, Code::DataLoss);
}

#[tokio::test]
async fn images_are_pulled_found_and_removed_by_any_name() {
    let served = Served::start();
    let spec = |image: &str| Some(wire::ImageSpec { image: image.into(), ..Default::default() });
    for (name, there) in [("local/busybox:1", true), ("sha256:1", true), ("other", false)] {
        let request = wire::ImageStatusRequest { image: spec(name), verbose: true };
        let response: wire::ImageStatusResponse =
            served.call(IMAGE_STATUS, &request).await.unwrap();
        assert_eq!(response.image.map(|it| it.username), there.then(|| "web".to_owned()));
        let said = response.info.get("info").map(|it| it.contains(r#""User":"web:web""#));
        assert_eq!(said, there.then_some(true));
        let request =
            wire::ListImagesRequest { filter: Some(wire::ImageFilter { image: spec(name) }) };
        let response: wire::ListImagesResponse = served.call(LIST_IMAGES, &request).await.unwrap();
        assert_eq!(response.images.len(), usize::from(there));
        let request = wire::RemoveImageRequest { image: spec(name) };
        served.call::<wire::RemoveImageResponse>(REMOVE_IMAGE, &request).await.unwrap();
    }
    let pull = async |auth: Option<wire::AuthConfig>| {
        let request = wire::PullImageRequest { image: spec("a:1"), auth, sandbox_config: None };
        let pulled: Answer<wire::PullImageResponse> = served.call(PULL_IMAGE, &request).await;
        pulled.map(|it| it.image_ref).map_err(|status| status.code)
    };
    assert_eq!(pull(None).await, Err(Code::PermissionDenied));
    let auth = wire::AuthConfig { registry_token: "secret".into(), ..Default::default() };
    assert_eq!(pull(Some(auth)).await, Ok("sha256:1".to_owned()));
    let request = wire::ImageFsInfoRequest {};
    let info: wire::ImageFsInfoResponse = served.call(IMAGE_FS_INFO, &request).await.unwrap();
    assert_eq!(info.image_filesystems[0].used_bytes, Some(wire::UInt64Value { value: 7 }));
}

#[tokio::test]
async fn usage_is_told_by_name_too() {
    let served = Served::start();
    let (sandbox, container) = served.pod("first").await;
    served.runtime.start_container(&container).await.unwrap();
    served.runtime.set_usage(&container, 3_000_000_000, 4096);
    let request = wire::ContainerStatsRequest { container_id: container.0.clone() };
    let one: wire::ContainerStatsResponse = served.call(CONTAINER_STATS, &request).await.unwrap();
    let stats = one.stats.unwrap();
    assert_eq!(stats.attributes.unwrap().labels["app"], "first");
    assert!(stats.writable_layer.unwrap().fs_id.unwrap().mountpoint.ends_with("containers"));
    let request = wire::PodSandboxStatsRequest { pod_sandbox_id: sandbox.0.clone() };
    let pod: wire::PodSandboxStatsResponse =
        served.call(POD_SANDBOX_STATS, &request).await.unwrap();
    assert_eq!(pod.stats.unwrap().linux.unwrap().containers.len(), 1);

    let request = wire::ListMetricDescriptorsRequest {};
    let described: wire::ListMetricDescriptorsResponse =
        served.call(LIST_METRIC_DESCRIPTORS, &request).await.unwrap();
    let request = wire::ListPodSandboxMetricsRequest {};
    let told: wire::ListPodSandboxMetricsResponse =
        served.call(LIST_POD_SANDBOX_METRICS, &request).await.unwrap();
    let [pod] = told.pod_metrics.as_slice() else { unreachable!("one pod: {told:?}") };
    let [of_container] = pod.container_metrics.as_slice() else { unreachable!("{told:?}") };
    for metric in pod.metrics.iter().chain(&of_container.metrics) {
        let descriptor = described.descriptors.iter().find(|it| it.name == metric.name).unwrap();
        assert_eq!(descriptor.label_keys.len(), metric.label_values.len(), "{}", metric.name);
    }
    let cpu = of_container.metrics.iter().find(|it| it.name.contains("cpu")).unwrap();
    assert_eq!(cpu.value, Some(wire::UInt64Value { value: 3 }));
    assert_eq!(
        served.runtime.list_pod_sandboxes(&PodSandboxFilter::default()).await.unwrap().len(),
        1
    );
}
