//! `/containerLogs`
//!
//! Source: `getContainerLogs` in `pkg/kubelet/server/server.go`, and `GetKubeletContainerLogs` and
//! `validateContainerLogStatus` in `pkg/kubelet/kubelet_pods.go`. Unlike the kubelet's, the logs of
//! what came before a rotation are read too.

mod follow;
mod options;

use std::path::PathBuf;

use http::StatusCode;
use k8s_openapi::api::core::v1::ContainerStatus;
use mainstay_cri::{ContainerId, ErrorKind, Runtime};
use mainstay_plan::status::{container_id, container_of_id};

use super::auth::Denial;
use super::pods::NodePod;
use crate::logs::LogReader;

pub(super) use follow::stream;
pub(super) use options::{PodLogOptions, parse};

/// A log that was found and can be read.
pub(super) struct Log {
    pub(super) reader: LogReader,
    pub(super) path: PathBuf,
    pub(super) container: ContainerId,
}

/// Finds and opens the log that is asked for.
///
/// # Errors
///
/// 400 in the kubelet's words when there is none, 404 when there is no such container.
pub(super) async fn open(
    runtime: &dyn Runtime,
    pod: &NodePod,
    container: &str,
    options: &PodLogOptions,
) -> Result<Log, Denial> {
    let name = &pod.key().name;
    if pod.container(container).is_none() {
        let message = format!("container \"{container}\" not found in pod \"{name}\"");
        return Err(Denial { status: StatusCode::NOT_FOUND, message });
    }
    let refused = |message| Denial { status: StatusCode::BAD_REQUEST, message };
    let status = pod.container_status(container);
    let id = container_of(name, container, status, options.previous).map_err(refused)?;
    let path = match runtime.container_status(&id).await {
        Ok(status) => PathBuf::from(status.log_path),
        Err(error) => {
            if error.kind != ErrorKind::NotFound {
                tracing::debug!(container = %id, error = error.chain(), "cannot look at a container");
            }
            let version = runtime.version().await;
            let name = version.map_or_else(|_| "unknown".to_owned(), |it| it.runtime_name);
            let id = container_id(&name, &id.0);
            return Err(refused(format!("unable to retrieve container logs for {id}")));
        }
    };
    let opened = {
        let (path, lines) = (path.clone(), options.lines);
        tokio::task::spawn_blocking(move || LogReader::open(&path, lines)).await
    };
    match opened {
        Ok(Ok(reader)) => Ok(Log { reader, path, container: id }),
        Ok(Err(error)) => {
            Err(refused(format!("failed to open log file \"{}\": {error}", path.display())))
        }
        Err(error) => Err(refused(format!("cannot read the log: {error}"))),
    }
}

/// Which of the runs of a container is meant; the text says why none is.
fn container_of(
    pod: &str,
    name: &str,
    status: Option<&ContainerStatus>,
    previous: bool,
) -> Result<ContainerId, String> {
    let what = || format!("container \"{name}\" in pod \"{pod}\"");
    let status = status.ok_or_else(|| format!("{} is not available", what()))?;
    let id = |id: Option<&str>| {
        let id = id.filter(|id| !id.is_empty())?;
        Some(ContainerId(container_of_id(id).to_owned()))
    };
    let state = status.state.as_ref();
    let ended = state.and_then(|state| state.terminated.as_ref());
    let last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref());
    let last_id = last.and_then(|last| id(last.container_id.as_deref()));
    if previous {
        return last_id.ok_or_else(|| format!("previous terminated {} not found", what()));
    }
    if state.is_some_and(|state| state.running.is_some()) {
        let running = id(status.container_id.as_deref());
        return running.ok_or_else(|| format!("{} is not available", what()));
    }
    let over = || format!("{} is terminated", what());
    if let Some(ended) = ended {
        return id(ended.container_id.as_deref()).or(last_id).ok_or_else(over);
    }
    if last.is_some() {
        return last_id.ok_or_else(over);
    }
    let waiting = state.and_then(|state| state.waiting.as_ref());
    let why = match waiting.map(|waiting| waiting.reason.as_deref().unwrap_or_default()) {
        Some("ErrImagePull") => ": image can't be pulled".to_owned(),
        Some("ImagePullBackOff") => ": trying and failing to pull image".to_owned(),
        Some(reason) => format!(": {reason}"),
        None => " - no logs yet".to_owned(),
    };
    Err(format!("{} is waiting to start{why}", what()))
}

#[cfg(test)]
mod tests;
