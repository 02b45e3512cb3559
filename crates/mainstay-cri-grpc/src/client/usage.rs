//! What sandboxes and containers use.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;
use mainstay_cri::{
    ContainerFilter, ContainerId, Error, ErrorKind, FilesystemUsage, PodSandboxFilter,
    PodSandboxState, PodSandboxStats, Result,
};

use super::Remote;
use crate::convert::container_stats;
use crate::methods::{CONTAINER_STATS, LIST_CONTAINER_STATS, LIST_POD_SANDBOX_STATS};
use crate::wire;

impl Remote {
    pub(super) async fn list_pod_sandbox_stats(
        &self,
        filter: &PodSandboxFilter,
    ) -> Result<Vec<PodSandboxStats>> {
        let labels = self.marked(filter.labels.clone());
        let request = wire::ListPodSandboxStatsRequest {
            filter: Some((&PodSandboxFilter { labels }).into()),
        };
        let listed = match self.call(LIST_POD_SANDBOX_STATS, &request).await {
            Err(error) if error.kind == ErrorKind::Unimplemented => {
                self.by_container(filter).await?
            }
            other => {
                let listed: wire::ListPodSandboxStatsResponse = other?;
                listed.stats
            }
        };
        let mut all = Vec::new();
        let mut running = BTreeSet::new();
        for mut stats in listed {
            let containers = stats.linux.as_mut().map(|it| std::mem::take(&mut it.containers));
            let mut stats = PodSandboxStats::try_from(stats)?;
            for container in containers.unwrap_or_default() {
                let Some(id) = container.attributes.as_ref().map(|it| it.id.clone()) else {
                    continue;
                };
                let Some(started_at) = self.started(&id).await? else { continue };
                stats.containers.push(container_stats(container, started_at)?);
                running.insert(id);
            }
            all.push(stats);
        }
        if filter.labels.is_empty() {
            self.started_lock().retain(|id, _| running.contains(id));
        }
        Ok(all)
    }

    /// For servers that know only of containers: what is known of a pod is that they are its.
    async fn by_container(&self, filter: &PodSandboxFilter) -> Result<Vec<wire::PodSandboxStats>> {
        let sandboxes = self.sandboxes(filter).await?;
        let request = wire::ListContainerStatsRequest {
            filter: Some(wire::ContainerStatsFilter {
                label_selector: self.marked(filter.labels.clone()),
                ..Default::default()
            }),
        };
        let listed: wire::ListContainerStatsResponse =
            self.call(LIST_CONTAINER_STATS, &request).await?;
        let mut containers = listed.stats;
        // Statistics do not say of which sandbox a container is.
        let listed = self.containers(&ContainerFilter::default()).await?.into_iter();
        let of: HashMap<String, String> = listed.map(|it| (it.id, it.pod_sandbox_id)).collect();
        let mut all = Vec::new();
        let ready = i32::from(wire::PodSandboxState::from(PodSandboxState::Ready));
        for sandbox in sandboxes.into_iter().filter(|it| it.state == ready) {
            let is_own = |stats: &mut wire::ContainerStats| {
                stats.attributes.as_ref().is_some_and(|it| of.get(&it.id) == Some(&sandbox.id))
            };
            let containers = containers.extract_if(.., is_own).collect();
            all.push(wire::PodSandboxStats {
                attributes: Some(wire::PodSandboxAttributes {
                    id: sandbox.id,
                    metadata: sandbox.metadata,
                    ..Default::default()
                }),
                linux: Some(wire::LinuxPodSandboxStats { containers, ..Default::default() }),
            });
        }
        Ok(all)
    }

    pub(super) async fn writable_layer(&self, id: &ContainerId) -> Result<FilesystemUsage> {
        let request = wire::ContainerStatsRequest { container_id: id.0.clone() };
        let response: wire::ContainerStatsResponse = self.call(CONTAINER_STATS, &request).await?;
        let layer = response.stats.and_then(|stats| stats.writable_layer);
        // Servers look now and then, and a new container may not have been looked at yet.
        layer.map(Into::into).ok_or_else(|| {
            let message = format!("the runtime does not know yet what container {id} has written");
            Error::new(ErrorKind::Unavailable, message)
        })
    }

    /// Since when a container runs; `None` for one that does not.
    async fn started(&self, id: &str) -> Result<Option<Timestamp>> {
        if let Some(at) = self.started_lock().get(id) {
            return Ok(Some(*at));
        }
        match self.container_status(id).await {
            // It has been remembered.
            Ok(_) => Ok(self.started_lock().get(id).copied()),
            Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn remember_start(&self, id: &str, at: Timestamp) {
        self.started_lock().insert(id.to_owned(), at);
    }

    fn started_lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Timestamp>> {
        self.started.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
