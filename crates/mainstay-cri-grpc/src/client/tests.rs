//! Servers that are away, hang, speak something else, or are newer than the one that tests have.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_util::{StreamExt, stream};
use mainstay_cri::{ContainerEventKind, ImageSpec, Images, PullRequest, PullSecret};
use mainstay_grpc::server::{self, Reply, Service};
use mainstay_grpc::{Code, Encoded, Status};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::*;

/// How long to wait for what may never come.
const PATIENCE: Duration = Duration::from_secs(30);

type Answer = std::result::Result<Vec<Encoded>, Status>;

/// Answers calls by their method, each with messages, or never.
struct Fake<F>(F);

impl<F: Fn(&str, Bytes) -> Option<Answer> + Send + Sync + 'static> Service for Fake<F> {
    fn call(
        self: Arc<Self>,
        method: String,
        request: Bytes,
    ) -> BoxFuture<'static, std::result::Result<Reply, Status>> {
        Box::pin(async move {
            let Some(answer) = (self.0)(&method, request) else {
                return std::future::pending().await;
            };
            answer.map(|messages| Reply::Many(stream::iter(messages).map(Ok).boxed()))
        })
    }
}

fn serve(
    socket: &Path,
    answer: impl Fn(&str, Bytes) -> Option<Answer> + Send + Sync + 'static,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    tasks.spawn(server::serve(UnixListener::bind(socket).unwrap(), Arc::new(Fake(answer))));
    tasks
}

fn remote(socket: &Path, timeout: Duration) -> RemoteRuntime {
    RemoteRuntime::new(RemoteConfig {
        socket: socket.to_owned(),
        mark: ("instance".to_owned(), "this".to_owned()),
        sub_paths: socket.with_extension("sub-paths"),
        timeout,
    })
}

fn one(message: &impl Message) -> Option<Answer> {
    Some(Ok(vec![Encoded::of(message)]))
}

/// Has a number where the version is text.
#[derive(Clone, PartialEq, Message)]
struct Odd {
    #[prost(uint64, tag = "1")]
    version: u64,
}

fn version(method: &str) -> Option<Answer> {
    assert_eq!(method, VERSION);
    let runtime_name = "fake".to_owned();
    one(&wire::VersionResponse { runtime_name, ..Default::default() })
}

#[tokio::test]
async fn a_server_may_be_away_and_come_and_go() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("c.sock");
    let runtime = remote(&socket, PATIENCE);
    for _ in 0..2 {
        let error = runtime.version().await.unwrap_err();
        assert_eq!(error.kind, ErrorKind::Unavailable);
        let wanted =
            format!("no container runtime at {}: there is no such socket", socket.display());
        assert!(error.message.starts_with(&wanted), "{error}");
        let mut server = serve(&socket, |method, _| version(method));
        assert_eq!(runtime.version().await.unwrap().runtime_name, "fake");
        server.shutdown().await;
        let error = runtime.version().await.unwrap_err();
        assert!(error.message.contains("nobody listens there; is it started?"), "{error}");
        std::fs::remove_file(&socket).unwrap();
    }
}

#[tokio::test]
async fn a_server_that_hangs_is_waited_for_no_longer_than_is_configured() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("c.sock");
    let _server = serve(&socket, |method, _| match method {
        STATUS => None,
        method => version(method),
    });
    let runtime = remote(&socket, Duration::from_millis(50));
    let error = runtime.status().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::DeadlineExceeded);
    assert!(error.message.contains("has not answered for"), "{error}");
    // What else is asked of it is answered.
    let runtime = remote(&socket, PATIENCE);
    let (version, hanging) =
        tokio::join!(runtime.version(), timeout(Duration::from_millis(50), runtime.status()));
    assert!(version.is_ok() && hanging.is_err());
}

#[tokio::test]
async fn a_server_of_something_else_is_called_so() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("old.sock");
    let _server = serve(&socket, |_, _| {
        let message = "unknown service runtime.v1.RuntimeService";
        Some(Err(Status::new(Code::Unimplemented, message)))
    });
    let error = remote(&socket, PATIENCE).version().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unimplemented);
    assert!(error.message.contains("does not serve version v1 of the CRI"), "{error}");
    assert!(error.message.contains("disabled_plugins"), "{error}");

    let socket = directory.path().join("http.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let error = remote(&socket, PATIENCE).version().await.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Unavailable, "{error}");

    let socket = directory.path().join("garbage.sock");
    let _server = serve(&socket, |_, _| one(&Odd { version: 9 }));
    let error = remote(&socket, PATIENCE).version().await.unwrap_err();
    assert!(error.message.contains("failed to unmarshal"), "{error}");
    let socket = directory.path().join("empty.sock");
    let _server = serve(&socket, |_, _| Some(Ok(Vec::new())));
    let error = remote(&socket, PATIENCE).version().await.unwrap_err();
    assert!(error.message.contains("does not answer with one message"), "{error}");
}

#[tokio::test]
async fn a_server_that_tells_what_happens_is_heard() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("c.sock");
    let _server = serve(&socket, |method, _| match method {
        LIST_POD_SANDBOX => one(&wire::ListPodSandboxResponse::default()),
        LIST_CONTAINERS => one(&wire::ListContainersResponse::default()),
        GET_CONTAINER_EVENTS => one(&wire::ContainerEventResponse {
            container_id: "c".to_owned(),
            container_event_type: wire::ContainerEventType::Stopped.into(),
            pod_sandbox_status: Some(wire::PodSandboxStatus {
                id: "s".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        other => unreachable!("{other}"),
    });
    let runtime = remote(&socket, PATIENCE);
    let mut events = runtime.events();
    let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    assert_eq!((event.sandbox.0.as_str(), event.kind), ("s", ContainerEventKind::Stopped));
    assert_eq!(event.container, Some(ContainerId("c".into())));
    // It has broken off.
    let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    assert_eq!(event.kind, ContainerEventKind::Lagged);
}

#[tokio::test]
async fn a_server_that_could_tell_and_does_not_is_looked_at() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("c.sock");
    let asked = Arc::new(AtomicU32::new(0));
    let counted = asked.clone();
    let _server = serve(&socket, move |method, _| match method {
        LIST_POD_SANDBOX => one(&wire::ListPodSandboxResponse::default()),
        LIST_CONTAINERS => {
            // Every time one more.
            let count = counted.fetch_add(1, Ordering::Relaxed);
            let container = |id: u32| wire::Container {
                id: id.to_string(),
                labels: [("instance".to_owned(), "this".to_owned())].into(),
                ..Default::default()
            };
            let containers = (0..count).map(container).collect();
            one(&wire::ListContainersResponse { containers })
        }
        GET_CONTAINER_EVENTS => Some(Ok(Vec::new())),
        other => unreachable!("{other}"),
    });
    let runtime = remote(&socket, PATIENCE);
    let events: Vec<_> = runtime.events().take(2).collect().await;
    for (number, event) in events.iter().enumerate() {
        let made = (event.container.clone(), event.kind);
        let id = ContainerId(number.to_string());
        assert_eq!(made, (Some(id), ContainerEventKind::Created));
    }
}

#[tokio::test]
async fn what_happens_to_others_is_not_told() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("c.sock");
    let sandbox = |id: &str, instance: &str| wire::PodSandboxStatus {
        id: id.to_owned(),
        metadata: Some(wire::PodSandboxMetadata::default()),
        labels: [("instance".to_owned(), instance.to_owned())].into(),
        ..Default::default()
    };
    let event = move |id: &str, instance: &str| {
        Encoded::of(&wire::ContainerEventResponse {
            container_id: id.to_owned(),
            pod_sandbox_status: Some(sandbox(id, instance)),
            ..Default::default()
        })
    };
    let _server = serve(&socket, move |method, request| match method {
        LIST_POD_SANDBOX => one(&wire::ListPodSandboxResponse::default()),
        LIST_CONTAINERS => one(&wire::ListContainersResponse::default()),
        GET_CONTAINER_EVENTS => Some(Ok(vec![event("theirs", "other"), event("ours", "this")])),
        POD_SANDBOX_STATUS => {
            let request = wire::PodSandboxStatusRequest::decode(request).unwrap();
            let instance = if request.pod_sandbox_id == "ours" { "this" } else { "other" };
            one(&wire::PodSandboxStatusResponse {
                status: Some(sandbox(&request.pod_sandbox_id, instance)),
                ..Default::default()
            })
        }
        other => unreachable!("{other}"),
    });
    let runtime = remote(&socket, PATIENCE);
    let mut events = runtime.events();
    let event = timeout(PATIENCE, events.next()).await.unwrap().unwrap();
    assert_eq!(event.sandbox.0, "ours");
    // Nor is it theirs who learned of it in another way.
    assert!(runtime.pod_sandbox_status(&SandboxId("ours".into())).await.is_ok());
    let theirs = runtime.pod_sandbox_status(&SandboxId("theirs".into())).await;
    assert_eq!(theirs.unwrap_err().kind, ErrorKind::NotFound);
}

#[tokio::test]
async fn a_server_that_has_systemd_make_control_groups_is_not_ready() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("c.sock");
    let _server = serve(&socket, |method, _| match method {
        STATUS => one(&wire::StatusResponse::default()),
        RUNTIME_CONFIG => one(&wire::RuntimeConfigResponse {
            linux: Some(wire::LinuxRuntimeConfiguration {
                cgroup_driver: wire::CgroupDriver::Systemd.into(),
            }),
        }),
        other => unreachable!("{other}"),
    });
    let status = remote(&socket, PATIENCE).status().await.unwrap();
    let [condition] = status.conditions.as_slice() else { unreachable!("{status:?}") };
    assert!(!condition.status && condition.message.contains("SystemdCgroup = false"));
}

/// Passwords, beside which a program has failed.
struct Passwords(&'static [&'static str]);

#[async_trait]
impl PullCredentials for Passwords {
    async fn of(&self, _: &ImageSpec, _: &[PullSecret]) -> Result<Offer> {
        let password = |password: &&str| Credentials::Password {
            username: "me".to_owned(),
            password: (*password).to_owned(),
        };
        let credentials = self.0.iter().map(password).collect();
        Ok(Offer { credentials, failure: Some("it is locked".to_owned()) })
    }
}

#[tokio::test]
async fn credentials_are_tried_one_after_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("c.sock");
    let tried = Arc::new(Mutex::new(Vec::new()));
    let noted = tried.clone();
    let _server = serve(&socket, move |method, request| {
        assert_eq!(method, PULL_IMAGE);
        let request = wire::PullImageRequest::decode(request).unwrap();
        let auth = request.auth.unwrap();
        noted.lock().unwrap().push(auth.password.clone());
        if auth.password == "wrong" {
            return Some(Err(Status::new(Code::PermissionDenied, "go away")));
        }
        one(&wire::PullImageResponse { image_ref: "sha256:1".to_owned() })
    });
    let with = |passwords| remote(&socket, PATIENCE).images(Arc::new(Passwords(passwords)));
    let request =
        PullRequest { image: ImageSpec("a:1".into()), secrets: Vec::new(), patience: None };
    let pulled = with(&["wrong", "right", "unused"]).pull_image(&request).await;
    assert_eq!(pulled.unwrap().0, "sha256:1");
    assert_eq!(*tried.lock().unwrap(), ["wrong", "right"]);
    let refused = with(&["wrong"]).pull_image(&request).await.unwrap_err();
    assert_eq!(refused.message, "go away: it is locked");
}
