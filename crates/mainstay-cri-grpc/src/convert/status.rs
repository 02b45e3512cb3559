//! What is seen of sandboxes and containers, and of the runtime itself.

use mainstay_cri::{
    Container, ContainerEvent, ContainerEventKind, ContainerId, ContainerState, ContainerStatus,
    LinuxContainerUser, NamespaceOptions, PodSandbox, PodSandboxState, PodSandboxStatus,
    RuntimeCondition, RuntimeStatus, STATUS_UNKNOWN, SandboxId, Version,
};

use super::container::mount;
use super::sandbox::namespaces as of_sandbox;
use super::signal::signal_number;
use super::{ConvertError, Result, invalid, nanoseconds, number, timestamp};
use crate::wire;

impl From<wire::VersionResponse> for Version {
    fn from(version: wire::VersionResponse) -> Self {
        let wire::VersionResponse { runtime_name, runtime_version, runtime_api_version, .. } =
            version;
        Self { runtime_name, runtime_version, runtime_api_version }
    }
}

impl From<Version> for wire::VersionResponse {
    fn from(version: Version) -> Self {
        Self {
            // Source: `kubeAPIVersion` in `internal/cri/server/version.go` of containerd.
            version: "0.1.0".to_owned(),
            runtime_name: version.runtime_name,
            runtime_version: version.runtime_version,
            runtime_api_version: version.runtime_api_version,
        }
    }
}

impl From<wire::RuntimeStatus> for RuntimeStatus {
    fn from(status: wire::RuntimeStatus) -> Self {
        let conditions = status.conditions.into_iter().map(|it| RuntimeCondition {
            kind: it.r#type,
            status: it.status,
            reason: it.reason,
            message: it.message,
        });
        Self { conditions: conditions.collect() }
    }
}

impl From<RuntimeStatus> for wire::RuntimeStatus {
    fn from(status: RuntimeStatus) -> Self {
        let conditions = status.conditions.into_iter().map(|it| wire::RuntimeCondition {
            r#type: it.kind,
            status: it.status,
            reason: it.reason,
            message: it.message,
        });
        Self { conditions: conditions.collect() }
    }
}

fn sandbox_state(state: i32) -> Result<PodSandboxState> {
    match wire::PodSandboxState::try_from(state) {
        Ok(wire::PodSandboxState::Ready) => Ok(PodSandboxState::Ready),
        Ok(wire::PodSandboxState::NotReady) => Ok(PodSandboxState::NotReady),
        Err(_) => Err(invalid("state", &state)),
    }
}

impl From<PodSandboxState> for wire::PodSandboxState {
    fn from(state: PodSandboxState) -> Self {
        match state {
            PodSandboxState::Ready => Self::Ready,
            PodSandboxState::NotReady => Self::NotReady,
        }
    }
}

impl TryFrom<wire::PodSandbox> for PodSandbox {
    type Error = ConvertError;

    fn try_from(sandbox: wire::PodSandbox) -> Result<Self> {
        Ok(Self {
            id: SandboxId(sandbox.id),
            metadata: sandbox.metadata.ok_or(ConvertError::Missing("metadata"))?.into(),
            state: sandbox_state(sandbox.state)?,
            created_at: timestamp(sandbox.created_at),
            labels: sandbox.labels,
            annotations: sandbox.annotations,
        })
    }
}

impl From<&PodSandbox> for wire::PodSandbox {
    fn from(sandbox: &PodSandbox) -> Self {
        Self {
            id: sandbox.id.0.clone(),
            metadata: Some((&sandbox.metadata).into()),
            state: wire::PodSandboxState::from(sandbox.state).into(),
            created_at: nanoseconds(sandbox.created_at),
            labels: sandbox.labels.clone(),
            annotations: sandbox.annotations.clone(),
            runtime_handler: String::new(),
        }
    }
}

/// With the containers that the answer has, which are none from most servers.
impl TryFrom<wire::PodSandboxStatusResponse> for PodSandboxStatus {
    type Error = ConvertError;

    fn try_from(response: wire::PodSandboxStatusResponse) -> Result<Self> {
        let status = response.status.ok_or(ConvertError::Missing("status"))?;
        let network = status.network.unwrap_or_default();
        let addresses = std::iter::once(network.ip);
        let addresses = addresses.chain(network.additional_ips.into_iter().map(|it| it.ip));
        let ip = |text: String| text.parse().map_err(|_| invalid("ip", &text));
        let containers = response.containers_statuses.into_iter().map(TryInto::try_into);
        let namespaces = status.linux.and_then(|linux| linux.namespaces?.options);
        Ok(Self {
            sandbox: PodSandbox {
                id: SandboxId(status.id),
                metadata: status.metadata.ok_or(ConvertError::Missing("metadata"))?.into(),
                state: sandbox_state(status.state)?,
                created_at: timestamp(status.created_at),
                labels: status.labels,
                annotations: status.annotations,
            },
            namespaces: namespaces.map_or(Ok(NamespaceOptions::default()), TryInto::try_into)?,
            ips: addresses.filter(|ip| !ip.is_empty()).map(ip).collect::<Result<_>>()?,
            containers: containers.collect::<Result<_>>()?,
        })
    }
}

impl From<&PodSandboxStatus> for wire::PodSandboxStatus {
    fn from(PodSandboxStatus { sandbox, namespaces, ips, .. }: &PodSandboxStatus) -> Self {
        let mut ips = ips.iter().map(ToString::to_string);
        Self {
            id: sandbox.id.0.clone(),
            metadata: Some((&sandbox.metadata).into()),
            state: wire::PodSandboxState::from(sandbox.state).into(),
            created_at: nanoseconds(sandbox.created_at),
            network: Some(wire::PodSandboxNetworkStatus {
                ip: ips.next().unwrap_or_default(),
                additional_ips: ips.map(|ip| wire::PodIP { ip }).collect(),
            }),
            linux: Some(wire::LinuxPodSandboxStatus {
                namespaces: Some(wire::Namespace { options: Some(of_sandbox(namespaces)) }),
            }),
            labels: sandbox.labels.clone(),
            annotations: sandbox.annotations.clone(),
            runtime_handler: String::new(),
        }
    }
}

/// A list has no times but that of the making, and says of an end only that it came: that is what stands for
/// all the others, with [`STATUS_UNKNOWN`].
impl TryFrom<wire::Container> for Container {
    type Error = ConvertError;

    fn try_from(container: wire::Container) -> Result<Self> {
        let made = timestamp(container.created_at);
        Ok(Self {
            id: ContainerId(container.id),
            sandbox: SandboxId(container.pod_sandbox_id),
            metadata: container.metadata.ok_or(ConvertError::Missing("metadata"))?.into(),
            state: match wire::ContainerState::try_from(container.state) {
                Ok(wire::ContainerState::Created) => ContainerState::Created,
                Ok(wire::ContainerState::Running) => ContainerState::Running { started_at: made },
                Ok(wire::ContainerState::Exited | wire::ContainerState::Unknown) => {
                    ContainerState::Exited {
                        started_at: Some(made),
                        finished_at: made,
                        exit_code: UNKNOWN_CODE,
                        reason: STATUS_UNKNOWN.to_owned(),
                        message: String::new(),
                    }
                }
                Err(_) => return Err(invalid("state", &container.state)),
            },
            labels: container.labels,
        })
    }
}

/// With what the contract's list has; the rest is in a container's status.
impl From<&Container> for wire::Container {
    fn from(container: &Container) -> Self {
        Self {
            id: container.id.0.clone(),
            pod_sandbox_id: container.sandbox.0.clone(),
            metadata: Some((&container.metadata).into()),
            state: wire::ContainerState::from(&container.state).into(),
            labels: container.labels.clone(),
            ..Self::default()
        }
    }
}

/// The code of an end that nobody saw.
const UNKNOWN_CODE: i32 = 255;

impl From<&ContainerState> for wire::ContainerState {
    fn from(state: &ContainerState) -> Self {
        match state {
            ContainerState::Created => Self::Created,
            ContainerState::Running { .. } => Self::Running,
            ContainerState::Exited { .. } => Self::Exited,
        }
    }
}

impl TryFrom<wire::ContainerStatus> for ContainerStatus {
    type Error = ConvertError;

    fn try_from(status: wire::ContainerStatus) -> Result<Self> {
        let started = (status.started_at != 0).then(|| timestamp(status.started_at));
        let made = timestamp(status.created_at);
        // Some that never ran have no end, either.
        let finished = (status.finished_at != 0).then(|| timestamp(status.finished_at));
        let finished_at = finished.or(started).unwrap_or(made);
        let state = match wire::ContainerState::try_from(status.state) {
            Ok(wire::ContainerState::Created) => ContainerState::Created,
            Ok(wire::ContainerState::Running) => {
                ContainerState::Running { started_at: started.unwrap_or(made) }
            }
            Ok(wire::ContainerState::Exited) => ContainerState::Exited {
                started_at: started,
                finished_at,
                exit_code: status.exit_code,
                reason: status.reason,
                message: status.message,
            },
            Ok(wire::ContainerState::Unknown) => ContainerState::Exited {
                started_at: started,
                finished_at,
                exit_code: UNKNOWN_CODE,
                reason: STATUS_UNKNOWN.to_owned(),
                message: status.message,
            },
            Err(_) => return Err(invalid("state", &status.state)),
        };
        Ok(Self {
            id: ContainerId(status.id),
            metadata: status.metadata.ok_or(ConvertError::Missing("metadata"))?.into(),
            state,
            created_at: made,
            image: status.image.unwrap_or_default().into(),
            image_ref: status.image_ref,
            labels: status.labels,
            annotations: status.annotations,
            log_path: status.log_path,
            user: status.user.and_then(|it| it.linux).map(TryInto::try_into).transpose()?,
            // Whoever asks has made it.
            details: None,
        })
    }
}

impl TryFrom<wire::LinuxContainerUser> for LinuxContainerUser {
    type Error = ConvertError;

    fn try_from(user: wire::LinuxContainerUser) -> Result<Self> {
        let groups = user.supplemental_groups.into_iter();
        Ok(Self {
            uid: number("uid", user.uid)?,
            gid: number("gid", user.gid)?,
            supplemental_groups: groups
                .map(|group| number("supplemental_groups", group))
                .collect::<Result<_>>()?,
        })
    }
}

impl From<&LinuxContainerUser> for wire::LinuxContainerUser {
    fn from(user: &LinuxContainerUser) -> Self {
        Self {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: user.supplemental_groups.iter().map(|it| (*it).into()).collect(),
        }
    }
}

impl From<&ContainerStatus> for wire::ContainerStatus {
    fn from(status: &ContainerStatus) -> Self {
        let mut message = Self {
            id: status.id.0.clone(),
            metadata: Some((&status.metadata).into()),
            state: wire::ContainerState::from(&status.state).into(),
            created_at: nanoseconds(status.created_at),
            image: Some((&status.image).into()),
            image_ref: status.image_ref.clone(),
            labels: status.labels.clone(),
            annotations: status.annotations.clone(),
            log_path: status.log_path.clone(),
            user: status.user.as_ref().map(|user| wire::ContainerUser { linux: Some(user.into()) }),
            ..Self::default()
        };
        if let Some(details) = &status.details {
            message.image_id.clone_from(&details.image_id);
            message.mounts = details.mounts.iter().map(|it| mount(it, None)).collect();
            let linux = Some((&details.resources).into());
            message.resources = Some(wire::ContainerResources { linux });
            // Those of the kernel that the protocol has no number for are not told.
            message.stop_signal = signal_number(details.stop_signal.as_deref()).unwrap_or(0);
        }
        match &status.state {
            ContainerState::Created => {}
            ContainerState::Running { started_at } => message.started_at = nanoseconds(*started_at),
            ContainerState::Exited {
                started_at,
                finished_at,
                exit_code,
                reason,
                message: said,
            } => {
                message.started_at = started_at.map_or(0, nanoseconds);
                message.finished_at = nanoseconds(*finished_at);
                message.exit_code = *exit_code;
                message.reason.clone_from(reason);
                message.message.clone_from(said);
            }
        }
        message
    }
}

impl TryFrom<wire::ContainerEventResponse> for ContainerEvent {
    type Error = ConvertError;

    fn try_from(event: wire::ContainerEventResponse) -> Result<Self> {
        // Of a container that is gone nothing else may be told.
        let sandbox = event.pod_sandbox_status.map(|it| it.id).unwrap_or_default();
        let is_sandbox = event.container_id == sandbox;
        Ok(Self {
            sandbox: SandboxId(sandbox),
            container: (!is_sandbox).then_some(ContainerId(event.container_id)),
            kind: match wire::ContainerEventType::try_from(event.container_event_type) {
                Ok(wire::ContainerEventType::Created) => ContainerEventKind::Created,
                Ok(wire::ContainerEventType::Started) => ContainerEventKind::Started,
                Ok(wire::ContainerEventType::Stopped) => ContainerEventKind::Stopped,
                Ok(wire::ContainerEventType::Deleted) => ContainerEventKind::Deleted,
                Err(_) => return Err(invalid("container_event_type", &event.container_event_type)),
            },
            at: timestamp(event.created_at),
        })
    }
}

/// With no more of the sandbox than its id. That something was missed cannot be told.
impl TryFrom<&ContainerEvent> for wire::ContainerEventResponse {
    type Error = ConvertError;

    fn try_from(event: &ContainerEvent) -> Result<Self> {
        let kind = match event.kind {
            ContainerEventKind::Created => wire::ContainerEventType::Created,
            ContainerEventKind::Started => wire::ContainerEventType::Started,
            ContainerEventKind::Stopped => wire::ContainerEventType::Stopped,
            ContainerEventKind::Deleted => wire::ContainerEventType::Deleted,
            ContainerEventKind::Lagged => return Err(ConvertError::Unsupported("Lagged")),
        };
        let sandbox = event.sandbox.0.clone();
        Ok(Self {
            container_id: event
                .container
                .as_ref()
                .map_or_else(|| sandbox.clone(), |it| it.0.clone()),
            container_event_type: kind.into(),
            created_at: nanoseconds(event.at),
            pod_sandbox_status: Some(wire::PodSandboxStatus { id: sandbox, ..Default::default() }),
            containers_statuses: Vec::new(),
        })
    }
}
