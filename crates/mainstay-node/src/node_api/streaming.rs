//! `/exec`, `/attach`, `/run` and `/portForward`.
//!
//! Source: `pkg/kubelet/server/server.go`; what is said of failures is what kubectl shows with a
//! kubelet and containerd: `staging/src/k8s.io/cri-streaming/pkg/streaming`.
//!
//! # Flow
//!
//! What can be refused is refused with a status. Then the request is answered with 101, and a task
//! takes over the connection, as `mainstay-sessions` has it.

mod port_forward;
mod run;

use std::sync::Arc;

use http::request::Parts;
use http::{Response, StatusCode};
use mainstay_cri::{
    ContainerId, ContainerState, PodSandboxFilter, PodSandboxState, PodSandboxStatus, Runtime,
};
use mainstay_plan::labels;
use mainstay_sessions::{ContainerStreams, SandboxPorts, Wanted};
use mainstay_streams::remote_command::{Options, Timeouts, negotiate};
use mainstay_streams::{Refusal, port_forward as forwarding};

use super::auth::Denial;
use super::pods::{NodePod, Pods};
use super::route::Target;

pub(super) use run::run;

/// The connection after its answer.
pub(super) type Upgraded = hyper_util::rt::TokioIo<hyper::upgrade::Upgraded>;

/// What is wanted of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// The streams of a command.
    Exec,
    /// The container's own.
    Attach,
    /// Ports of a pod.
    PortForward,
}

/// A request that can be granted.
pub(super) enum Session {
    Streams(ContainerStreams),
    Ports(SandboxPorts),
}

/// Why there is no session.
#[derive(Debug)]
pub(super) enum NoSession {
    Denial(Denial),
    Refusal(Refusal),
}

impl From<Denial> for NoSession {
    fn from(denial: Denial) -> Self {
        Self::Denial(denial)
    }
}

/// Reads a request for an upgrade.
///
/// # Errors
///
/// 400 for what is wrong with the query or when the request is no upgrade, 404 without such a pod,
/// 500 when the container or the pod does not run.
pub(super) async fn session(
    runtime: &dyn Runtime,
    pods: &dyn Pods,
    wish: Wish,
    target: &Target,
    parts: &Parts,
    query: &[(String, String)],
) -> Result<Session, NoSession> {
    let attach = match wish {
        Wish::Exec => false,
        Wish::Attach => true,
        Wish::PortForward => {
            let ports = port_forward::port_forward(runtime, pods, target, parts, query).await?;
            return Ok(Session::Ports(ports));
        }
    };
    let streams = container_streams(runtime, pods, target, parts, query, attach).await?;
    Ok(Session::Streams(streams))
}

impl Session {
    /// The answer to the request, after which the connection is upgraded.
    pub(super) fn response(&self) -> Response<()> {
        match self {
            Self::Streams(streams) => streams.negotiated.response(),
            Self::Ports(ports) => ports.negotiated.response(),
        }
    }

    /// Serves it until its end.
    pub(super) async fn serve(self, runtime: Arc<dyn Runtime>, io: Upgraded, timeouts: Timeouts) {
        match self {
            Self::Streams(streams) => streams.serve(runtime, io, timeouts).await,
            Self::Ports(ports) => ports.serve(runtime, io, timeouts).await,
        }
    }
}

async fn container_streams(
    runtime: &dyn Runtime,
    pods: &dyn Pods,
    target: &Target,
    parts: &Parts,
    query: &[(String, String)],
    attach: bool,
) -> Result<ContainerStreams, NoSession> {
    let asked = |name: &str| {
        query.iter().find(|(key, _)| key == name).is_some_and(|(_, value)| value == "1")
    };
    // Source: `ExecStdinParam` and its like in `cri-streaming/pkg/streaming/remotecommand`.
    let options = Options {
        stdin: asked("input"),
        stdout: asked("output"),
        stderr: asked("error"),
        tty: asked("tty"),
    };
    let options = options.checked().map_err(|error| denial(400, error.to_string()))?;
    let pod = find(pods, target)?;
    let (options, wanted) = if attach {
        // Whether there is a terminal was decided when the container was made.
        let tty = pod.container(&target.container).is_some_and(|it| it.tty == Some(true));
        (Options { tty, ..options }, Wanted::Container)
    } else {
        let command = query.iter().filter(|(key, _)| key == "command");
        (options, Wanted::Command(command.map(|(_, word)| word.clone()).collect()))
    };
    let container = running(runtime, &pod, target).await?.ok_or_else(|| {
        let message = if attach {
            let Target { namespace, pod, container, .. } = target;
            format!("container {container} not found in pod {pod}_{namespace}")
        } else {
            not_found(target)
        };
        denial(500, message)
    })?;
    let negotiated = negotiate(parts).map_err(NoSession::Refusal)?;
    Ok(ContainerStreams { negotiated, wanted, container, options })
}

/// The pod that a request is about.
fn find(pods: &dyn Pods, target: &Target) -> Result<NodePod, Denial> {
    let found = pods.find(&target.namespace, &target.pod);
    found.ok_or_else(|| denial(404, "pod does not exist"))
}

/// The sandbox of a pod, if it is ready. While a pod is being replaced by another version of it,
/// that is the older one's.
async fn sandbox(
    runtime: &dyn Runtime,
    pod: &NodePod,
) -> mainstay_cri::Result<Option<PodSandboxStatus>> {
    let of = |label: &str, value: &str| (label.to_owned(), value.to_owned());
    let filter = PodSandboxFilter {
        labels: [
            of(labels::POD_NAMESPACE, &pod.key().namespace),
            of(labels::POD_NAME, &pod.key().name),
        ]
        .into(),
    };
    let all = runtime.list_pod_sandboxes(&filter).await?;
    let ready = all.into_iter().filter(|sandbox| sandbox.state == PodSandboxState::Ready);
    let newest = ready.max_by_key(|it| (it.metadata.uid == pod.uid(), it.metadata.attempt));
    match newest {
        Some(newest) => runtime.pod_sandbox_status(&newest.id).await.map(Some),
        None => Ok(None),
    }
}

/// The container that a request is about, if it runs.
async fn running(
    runtime: &dyn Runtime,
    pod: &NodePod,
    target: &Target,
) -> Result<Option<ContainerId>, Denial> {
    if !pod.has_uid(&target.uid) {
        return Ok(None);
    }
    let sandbox = sandbox(runtime, pod).await.map_err(|error| denial(500, error.chain()))?;
    let running = sandbox.and_then(|sandbox| {
        sandbox.containers.into_iter().find(|it| {
            it.metadata.name == target.container
                && matches!(it.state, ContainerState::Running { .. })
        })
    });
    Ok(running.map(|container| container.id))
}

fn not_found(target: &Target) -> String {
    format!("container not found (\"{}\")", target.container)
}

fn denial(status: u16, message: impl Into<String>) -> Denial {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    Denial { status, message: message.into() }
}
