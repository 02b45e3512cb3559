//! What sandboxes, containers and images use.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use mainstay_cri::{
    ContainerId, ContainerStatus, ErrorKind, FilesystemUsage, PodSandboxFilter, PodSandboxStats,
    PodSandboxStatus, SandboxId,
};
use mainstay_grpc::{Code, Status};

use super::{Answer, Labels, Server, carries, failed, is_meant};
use crate::convert::nanoseconds;
use crate::wire;

/// How long it is good what containers have written, which takes its time to count. Source: the default of
/// `stats_collect_period` of containerd.
const LAYERS_FOR: Duration = Duration::from_secs(10);

/// What containers had written when it was counted last.
#[derive(Debug, Default)]
pub(super) struct Layers(Mutex<HashMap<ContainerId, (Instant, FilesystemUsage)>>);

impl Layers {
    fn lock(&self) -> MutexGuard<'_, HashMap<ContainerId, (Instant, FilesystemUsage)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, id: &ContainerId) -> Option<FilesystemUsage> {
        let mut all = self.lock();
        all.retain(|_, (at, _)| at.elapsed() < LAYERS_FOR);
        all.get(id).map(|(_, usage)| *usage)
    }
}

/// A sandbox's usage, and what else there is of it.
pub(super) struct Measured {
    pub(super) stats: PodSandboxStats,
    pub(super) status: PodSandboxStatus,
}

impl Server {
    pub(super) async fn container_stats(
        self: Arc<Self>,
        request: wire::ContainerStatsRequest,
    ) -> Answer<wire::ContainerStatsResponse> {
        let id = ContainerId(request.container_id);
        let status = self.runtime.container_status(&id).await.map_err(failed)?;
        let measured = self.measure("", &Labels::new()).await?;
        let mut running = measured.iter().flat_map(|it| &it.stats.containers);
        let stats = running.find(|it| it.id == id).map(wire::ContainerStats::from);
        // One that does not run uses the disk alone.
        let stats = self.completed(stats.unwrap_or_default(), &status).await?;
        Ok(wire::ContainerStatsResponse { stats })
    }

    pub(super) async fn list_container_stats(
        self: Arc<Self>,
        request: wire::ListContainerStatsRequest,
    ) -> Answer<wire::ListContainerStatsResponse> {
        let filter = request.filter.unwrap_or_default();
        let mut stats = Vec::new();
        for Measured { stats: pod, status } in
            self.measure(&filter.pod_sandbox_id, &Labels::new()).await?
        {
            for container in pod.containers.iter().filter(|it| is_meant(&it.id.0, &filter.id)) {
                let Some(status) = status.containers.iter().find(|it| it.id == container.id) else {
                    continue;
                };
                if carries(&status.labels, &filter.label_selector) {
                    stats.extend(self.completed(container.into(), status).await?);
                }
            }
        }
        Ok(wire::ListContainerStatsResponse { stats })
    }

    pub(super) async fn pod_sandbox_stats(
        self: Arc<Self>,
        request: wire::PodSandboxStatsRequest,
    ) -> Answer<wire::PodSandboxStatsResponse> {
        let id = SandboxId(request.pod_sandbox_id);
        self.runtime.pod_sandbox_status(&id).await.map_err(failed)?;
        let Some(measured) = self.measure(&id.0, &Labels::new()).await?.pop() else {
            let message = format!("sandbox {id} is not ready, and uses nothing");
            return Err(Status::new(Code::FailedPrecondition, message));
        };
        let stats = Some(self.whole(&measured).await?);
        Ok(wire::PodSandboxStatsResponse { stats })
    }

    pub(super) async fn list_pod_sandbox_stats(
        self: Arc<Self>,
        request: wire::ListPodSandboxStatsRequest,
    ) -> Answer<wire::ListPodSandboxStatsResponse> {
        let filter = request.filter.unwrap_or_default();
        let mut stats = Vec::new();
        for measured in self.measure(&filter.id, &filter.label_selector).await? {
            stats.push(self.whole(&measured).await?);
        }
        Ok(wire::ListPodSandboxStatsResponse { stats })
    }

    /// How much room images take is known of each of them; what two have in common is counted twice.
    pub(super) async fn image_fs_info(
        self: Arc<Self>,
        _: wire::ImageFsInfoRequest,
    ) -> Answer<wire::ImageFsInfoResponse> {
        let images = self.images.list_images().await.map_err(failed)?;
        let used = images.iter().fold(0_u64, |sum, image| sum.saturating_add(image.size));
        let image_filesystem = wire::FilesystemUsage {
            used_bytes: Some(wire::UInt64Value { value: used }),
            ..file_system(&self.image_dir)
        };
        let container_filesystem = file_system(&self.container_dir);
        Ok(wire::ImageFsInfoResponse {
            image_filesystems: vec![image_filesystem],
            container_filesystems: vec![container_filesystem],
        })
    }

    /// What the sandbox of this id uses, or all that match do. Those that are not ready use nothing.
    pub(super) async fn measure(&self, id: &str, labels: &Labels) -> Answer<Vec<Measured>> {
        let filter = PodSandboxFilter { labels: labels.clone() };
        let all = self.runtime.list_pod_sandbox_stats(&filter).await.map_err(failed)?;
        let mut measured = Vec::new();
        for stats in all.into_iter().filter(|stats| is_meant(&stats.id.0, id)) {
            match self.runtime.pod_sandbox_status(&stats.id).await {
                Ok(status) => measured.push(Measured { stats, status }),
                // It has been removed meanwhile.
                Err(error) if error.kind == ErrorKind::NotFound => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(measured)
    }

    /// A sandbox's statistics with all that belongs to them.
    async fn whole(&self, Measured { stats, status }: &Measured) -> Answer<wire::PodSandboxStats> {
        let mut message = wire::PodSandboxStats::from(stats);
        if let Some(attributes) = &mut message.attributes {
            attributes.labels.clone_from(&status.sandbox.labels);
            attributes.annotations.clone_from(&status.sandbox.annotations);
        }
        let mut containers = Vec::new();
        for container in &stats.containers {
            // One that was removed meanwhile uses nothing.
            if let Some(status) = status.containers.iter().find(|it| it.id == container.id) {
                containers.extend(self.completed(container.into(), status).await?);
            }
        }
        if let Some(linux) = &mut message.linux {
            linux.containers = containers;
        }
        Ok(message)
    }

    /// A container's statistics with what it has written and what it is; `None` if it has been removed.
    async fn completed(
        &self,
        stats: wire::ContainerStats,
        status: &ContainerStatus,
    ) -> Answer<Option<wire::ContainerStats>> {
        let attributes = wire::ContainerAttributes {
            id: status.id.0.clone(),
            metadata: Some((&status.metadata).into()),
            labels: status.labels.clone(),
            annotations: status.annotations.clone(),
        };
        let layer = match self.layers.get(&status.id) {
            Some(usage) => usage,
            None => match self.runtime.writable_layer(&status.id).await {
                Ok(usage) => {
                    self.layers.lock().insert(status.id.clone(), (Instant::now(), usage));
                    usage
                }
                Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(error)),
            },
        };
        let writable_layer = wire::FilesystemUsage {
            used_bytes: Some(wire::UInt64Value { value: layer.used_bytes }),
            inodes_used: Some(wire::UInt64Value { value: layer.inodes_used }),
            ..file_system(&self.container_dir)
        };
        let (attributes, writable_layer) = (Some(attributes), Some(writable_layer));
        Ok(Some(wire::ContainerStats { attributes, writable_layer, ..stats }))
    }
}

/// A file system by a directory on it.
fn file_system(directory: &Path) -> wire::FilesystemUsage {
    let mountpoint = directory.to_string_lossy().into_owned();
    wire::FilesystemUsage {
        timestamp: nanoseconds(Timestamp::now()),
        fs_id: Some(wire::FilesystemIdentifier { mountpoint }),
        ..Default::default()
    }
}
