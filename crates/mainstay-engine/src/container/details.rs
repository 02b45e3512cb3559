//! What a container was made with, written down for clients of the CRI: the agent knows, and it is not kept in
//! memory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use mainstay_cri::{
    ContainerConfig, ContainerDetails, HugepageLimit, ImageSpec, LinuxContainerResources, Mount,
    MountPropagation, Result,
};
use mainstay_image::store::Image;
use serde::{Deserialize, Serialize};

use crate::io_failed;

const FILE: &str = "details.json";

/// What is told of a container that is made.
pub(super) fn of(config: &ContainerConfig, image: &Image) -> ContainerDetails {
    let of_image = Some(&image.config.stop_signal).filter(|name| !name.is_empty());
    ContainerDetails {
        image_id: image.id.to_string(),
        mounts: config.mounts.clone(),
        resources: config.resources.clone(),
        stop_signal: config.stop_signal.as_ref().or(of_image).cloned(),
    }
}

/// Writes them into a container's bundle.
pub(super) fn write(bundle: &Path, details: &ContainerDetails) -> Result<()> {
    let path = bundle.join(FILE);
    let failed = || io_failed(format!("cannot write {}", path.display()));
    let new = path.with_extension("json.new");
    let bytes = serde_json::to_vec(&File::from(details)).map_err(|error| failed()(error.into()))?;
    fs::write(&new, bytes).and_then(|()| fs::rename(&new, &path)).map_err(failed())
}

/// Those of a container; `None` if they were never written down, as by an earlier mainstay, or cannot be read:
/// nothing else depends on them.
pub(crate) fn read(bundle: &Path) -> Option<ContainerDetails> {
    let file: File = serde_json::from_slice(&fs::read(bundle.join(FILE)).ok()?).ok()?;
    Some(file.into())
}

/// Takes in what a container may use from now on: what is not set stays as it is.
pub(super) fn update(bundle: &Path, resources: &LinuxContainerResources) -> Result<()> {
    let Some(mut details) = read(bundle) else { return Ok(()) };
    let known = &mut details.resources;
    let (period, quota, shares) = (resources.cpu_period, resources.cpu_quota, resources.cpu_shares);
    known.cpu_period = if period == 0 { known.cpu_period } else { period };
    known.cpu_quota = if quota == 0 { known.cpu_quota } else { quota };
    known.cpu_shares = if shares == 0 { known.cpu_shares } else { shares };
    let (memory, swap) = (resources.memory_limit, resources.memory_swap_limit);
    known.memory_limit = if memory == 0 { known.memory_limit } else { memory };
    known.memory_swap_limit = if swap == 0 { known.memory_swap_limit } else { swap };
    for limit in &resources.hugepage_limits {
        known.hugepage_limits.retain(|it| it.page_size != limit.page_size);
        known.hugepage_limits.push(limit.clone());
    }
    known.unified.extend(resources.unified.clone());
    write(bundle, &details)
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct File {
    image_id: String,
    mounts: Vec<MountEntry>,
    cpu: (u64, i64, u64),
    memory: (u64, u64),
    oom_score_adj: i32,
    huge_pages: Vec<(String, u64)>,
    unified: BTreeMap<String, String>,
    stop_signal: Option<String>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(default)]
struct MountEntry {
    container_path: String,
    host_path: String,
    image: Option<String>,
    readonly: bool,
    recursive_read_only: bool,
    propagation: Propagation,
    sub_path: String,
}

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

impl From<&ContainerDetails> for File {
    fn from(details: &ContainerDetails) -> Self {
        let ContainerDetails { image_id, mounts, resources, stop_signal } = details;
        let huge_pages = resources.hugepage_limits.iter();
        Self {
            image_id: image_id.clone(),
            mounts: mounts.iter().map(Into::into).collect(),
            cpu: (resources.cpu_period, resources.cpu_quota, resources.cpu_shares),
            memory: (resources.memory_limit, resources.memory_swap_limit),
            oom_score_adj: resources.oom_score_adj,
            huge_pages: huge_pages.map(|it| (it.page_size.clone(), it.limit)).collect(),
            unified: resources.unified.clone(),
            stop_signal: stop_signal.clone(),
        }
    }
}

impl From<File> for ContainerDetails {
    fn from(file: File) -> Self {
        let (cpu_period, cpu_quota, cpu_shares) = file.cpu;
        let (memory_limit, memory_swap_limit) = file.memory;
        let huge_pages = file.huge_pages.into_iter();
        Self {
            image_id: file.image_id,
            mounts: file.mounts.into_iter().map(Into::into).collect(),
            resources: LinuxContainerResources {
                cpu_period,
                cpu_quota,
                cpu_shares,
                memory_limit,
                memory_swap_limit,
                oom_score_adj: file.oom_score_adj,
                hugepage_limits: huge_pages
                    .map(|(page_size, limit)| HugepageLimit { page_size, limit })
                    .collect(),
                unified: file.unified,
            },
            stop_signal: file.stop_signal,
        }
    }
}

impl From<&Mount> for MountEntry {
    fn from(mount: &Mount) -> Self {
        Self {
            container_path: mount.container_path.clone(),
            host_path: mount.host_path.clone(),
            image: mount.image.as_ref().map(|image| image.0.clone()),
            readonly: mount.readonly,
            recursive_read_only: mount.recursive_read_only,
            propagation: match mount.propagation {
                MountPropagation::Private => Propagation::Private,
                MountPropagation::HostToContainer => Propagation::HostToContainer,
                MountPropagation::Bidirectional => Propagation::Bidirectional,
            },
            sub_path: mount.sub_path.clone(),
        }
    }
}

impl From<MountEntry> for Mount {
    fn from(entry: MountEntry) -> Self {
        Self {
            container_path: entry.container_path,
            host_path: entry.host_path,
            image: entry.image.map(ImageSpec),
            readonly: entry.readonly,
            recursive_read_only: entry.recursive_read_only,
            propagation: match entry.propagation {
                Propagation::Private => MountPropagation::Private,
                Propagation::HostToContainer => MountPropagation::HostToContainer,
                Propagation::Bidirectional => MountPropagation::Bidirectional,
            },
            sub_path: entry.sub_path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_updated() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(read(directory.path()), None);
        let mount = Mount {
            container_path: "/data".into(),
            host_path: "/srv".into(),
            image: None,
            readonly: true,
            recursive_read_only: true,
            propagation: MountPropagation::HostToContainer,
            sub_path: "a/b".into(),
        };
        let image = Mount { image: Some(ImageSpec("m:1".into())), ..mount.clone() };
        let mut details = ContainerDetails {
            image_id: "sha256:1".into(),
            mounts: vec![mount, image],
            resources: LinuxContainerResources {
                cpu_period: 1,
                cpu_quota: -1,
                cpu_shares: 2,
                memory_limit: 3,
                memory_swap_limit: 4,
                oom_score_adj: -5,
                hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: 6 }],
                unified: [("memory.min".to_owned(), "7".to_owned())].into(),
            },
            stop_signal: Some("SIGUSR1".into()),
        };
        write(directory.path(), &details).unwrap();
        assert_eq!(read(directory.path()), Some(details.clone()));
        let more = LinuxContainerResources {
            memory_limit: 8,
            hugepage_limits: vec![HugepageLimit { page_size: "2MB".into(), limit: 9 }],
            oom_score_adj: 10,
            ..Default::default()
        };
        update(directory.path(), &more).unwrap();
        details.resources.memory_limit = 8;
        details.resources.hugepage_limits = more.hugepage_limits;
        assert_eq!(read(directory.path()), Some(details));
    }
}
