//! What pods use, of what is short. Asked for only when one of them has to end.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use mainstay_cri::{FilesystemUsage, PodSandboxFilter};
use mainstay_linux::disk_usage::disk_usage;
use mainstay_plan::ephemeral_storage::is_on_disk;
use mainstay_plan::pod::PodKey;
use mainstay_plan::pressure::{ContainerUsage, PodUsage, Resource};
use mainstay_pod::Pod;

use crate::worker::Performer;

/// Why a pod cannot be measured.
pub(super) type Unmeasured = String;

/// What a pod takes of the disk.
#[derive(Debug, Default)]
pub(super) struct OnDisk {
    /// Its emptyDir volumes, by name.
    pub(super) volumes: BTreeMap<String, FilesystemUsage>,
    /// What its containers have written to their root file systems and logs, by name.
    pub(super) containers: BTreeMap<String, FilesystemUsage>,
}

/// What each of the pods uses, by UID. Those that cannot be measured are missing.
///
/// # Errors
///
/// When the runtime cannot be asked.
pub(super) async fn measure(
    performer: &Performer,
    resource: Resource,
    pods: &[(PodKey, Arc<Pod>)],
) -> mainstay_cri::Result<BTreeMap<String, PodUsage>> {
    let mut usage = BTreeMap::new();
    if !resource.is_of_disk() {
        let all = PodSandboxFilter::default();
        for stats in performer.runtime.list_pod_sandbox_stats(&all).await? {
            let containers = stats.containers.iter().map(|it| {
                let memory = it.memory.map(|memory| memory.working_set_bytes);
                (it.metadata.name.clone(), ContainerUsage { memory, disk: None })
            });
            let of_pod = PodUsage {
                memory: stats.memory.map_or(0, |memory| memory.working_set_bytes),
                processes: stats.process_count.unwrap_or(0),
                containers: containers.collect(),
                ..PodUsage::default()
            };
            usage.insert(stats.metadata.uid, of_pod);
        }
        return Ok(usage);
    }
    for (key, pod) in pods {
        match on_disk(performer, key, pod).await {
            Ok(found) => {
                usage.insert(pod.uid().to_owned(), found.usage());
            }
            Err(error) => {
                tracing::warn!(pod = %key, error, "cannot measure what a pod has on disk");
            }
        }
    }
    Ok(usage)
}

/// Measures what a pod has on disk.
pub(super) async fn on_disk(
    performer: &Performer,
    key: &PodKey,
    pod: &Pod,
) -> Result<OnDisk, Unmeasured> {
    let facts = &performer.facts;
    let spec = pod.spec();
    let mut found = OnDisk::default();
    for volume in spec.volumes.iter().flatten().filter(|volume| is_on_disk(volume)) {
        if let Some(path) = facts.volume_path(pod.uid(), volume) {
            found.volumes.insert(volume.name.clone(), counted(path).await?);
        }
    }
    let seen = performer.observer.seen(key);
    let own = seen.sandboxes.iter().filter(|sandbox| sandbox.uid == pod.uid());
    let containers: Vec<_> = own.flat_map(|sandbox| &sandbox.containers).collect();
    let logs = facts.pod_log_directory(pod.namespace(), pod.name(), pod.uid());
    let all = pod.containers().map(|(_, container)| container);
    for container in all.chain(pod.ephemeral_containers()) {
        let name = &container.name;
        let of_name = containers.iter().filter(|seen| seen.name == *name && !seen.has_ended());
        let Some(newest) = of_name.max_by_key(|seen| seen.restart_count) else { continue };
        let written = match performer.runtime.writable_layer(&newest.id).await {
            Ok(written) => written,
            Err(error) => return Err(error.chain()),
        };
        let logged = counted(logs.join(name)).await?;
        found.containers.insert(name.clone(), sum([&written, &logged]));
    }
    Ok(found)
}

impl OnDisk {
    fn usage(&self) -> PodUsage {
        let all = sum(self.volumes.values().chain(self.containers.values()));
        let containers = self.containers.iter().map(|(name, used)| {
            (name.clone(), ContainerUsage { memory: None, disk: Some(used.used_bytes) })
        });
        PodUsage {
            disk: all.used_bytes,
            inodes: all.inodes_used,
            containers: containers.collect(),
            ..PodUsage::default()
        }
    }
}

fn sum<'a>(parts: impl IntoIterator<Item = &'a FilesystemUsage>) -> FilesystemUsage {
    parts.into_iter().fold(FilesystemUsage::default(), |sum, part| FilesystemUsage {
        used_bytes: sum.used_bytes.saturating_add(part.used_bytes),
        inodes_used: sum.inodes_used.saturating_add(part.inodes_used),
    })
}

async fn counted(path: PathBuf) -> Result<FilesystemUsage, Unmeasured> {
    let named = path.display().to_string();
    let counted = tokio::task::spawn_blocking(move || disk_usage(&path)).await;
    let counted = counted.map_err(|error| error.to_string())?;
    let counted = counted.map_err(|error| format!("{named}: {error}"))?;
    Ok(FilesystemUsage { used_bytes: counted.bytes, inodes_used: counted.inodes })
}
