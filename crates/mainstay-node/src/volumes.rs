//! A pod's place on the host: its directory, its volumes, its hosts file, its control group.
//!
//! Everything here can be done again, and mends what is missing.

mod empty_dir;
mod env_file;
mod host_path;
mod hosts;
pub(crate) mod nfs;
mod projected;
mod protection;
mod sub_path;
pub(crate) mod termination_message;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, Volume};
use mainstay_linux::cgroup::{CgroupError, CpuQuota, Hierarchies, Limits};
use mainstay_linux::path::remove_all;
use mainstay_plan::downward::Surroundings;
use mainstay_plan::medium::Medium;
use mainstay_plan::projection::{Projection, nested_mount_points};
use mainstay_plan::qos;
use mainstay_plan::references::SourceError;
use mainstay_plan::resize::{Part, Requirements};
use mainstay_plan::resources;
use mainstay_plan::translate::{self, NodeFacts};
use mainstay_pod::Pod;

use crate::logs;

pub(crate) use empty_dir::EmptyDirError;
pub use empty_dir::unmount_below;
pub(crate) use env_file::read as read_env_file;
pub(crate) use host_path::HostPathError;
pub use nfs::{NfsHelper, help as help_nfs};
pub(crate) use projected::ProjectedError;

/// A step of preparing or clearing a pod's place that failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VolumeError {
    /// A file or directory of the pod's own.
    #[error("cannot {step} {}", path.display())]
    File {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A hostPath volume.
    #[error("volume {volume:?}")]
    HostPath {
        volume: String,
        #[source]
        source: HostPathError,
    },
    /// An emptyDir volume.
    #[error("volume {volume:?}")]
    EmptyDir {
        volume: String,
        #[source]
        source: EmptyDirError,
    },
    /// A volume that is made of something that cannot be had.
    #[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
    Source { volume: String, why: SourceError },
    /// A volume whose files cannot be made.
    #[error("MountVolume.SetUp failed for volume {volume:?}")]
    Projected {
        volume: String,
        #[source]
        source: ProjectedError,
    },
    /// A part of a volume that cannot be mounted by itself. Source: `makeMounts` in
    /// `pkg/kubelet/kubelet_pods.go`.
    #[error("failed to prepare subPath for volumeMount {volume:?} of container {container:?}")]
    SubPath {
        volume: String,
        container: String,
        #[source]
        source: io::Error,
    },
    /// The pod's control group.
    #[error("cannot set up the pod's control group")]
    Cgroup(#[source] CgroupError),
    /// The same of a pod that runs.
    #[error("cannot change the pod's control group")]
    Resize(#[source] CgroupError),
}

/// Makes all that a pod's sandbox and containers need on the host. Answers whether a volume is left as it was,
/// since what it is made of cannot be had and the pod `runs` already. Unless it `is_limited`, its control group
/// is given what the pod is allocated.
pub(crate) fn prepare(
    pod: &Pod,
    facts: &NodeFacts,
    hierarchies: &Hierarchies,
    around: &Surroundings<'_>,
    (runs, is_limited): (bool, bool),
) -> Result<bool, VolumeError> {
    let directory = facts.pod_directory(pod.uid());
    let file = |step| {
        let path = directory.clone();
        move |source| VolumeError::File { step, path, source }
    };
    let mut builder = fs::DirBuilder::new();
    // Others must not look into it, but a container's user has to get through to its volumes,
    // which are mounted one by one.
    builder.recursive(true).mode(0o750).create(&directory).map_err(file("make"))?;
    let mut left = false;
    for volume in pod.spec().volumes.iter().flatten() {
        match prepare_volume(pod, volume, facts, around) {
            Err(VolumeError::Source { .. }) if runs && is_there(pod, volume, facts) => left = true,
            other => other?,
        }
    }
    let group = hierarchies.at(&cgroup(pod, facts, hierarchies));
    group.create().map_err(VolumeError::Cgroup)?;
    if !is_limited {
        let all = Limits {
            pids: Some(facts.pod_pids_limit.unwrap_or(u64::MAX)),
            huge_pages: resources::huge_pages_of_pod(pod, &facts.huge_page_sizes)
                .into_iter()
                .map(|limit| (limit.page_size, limit.limit))
                .collect(),
            unified: facts.memory_qos.and_then(|qos| qos.of_pod(pod)).into_iter().collect(),
            ..limits(resources::Limits::of_pod(pod, facts.cpu_quotas), facts)
        };
        group.limit(&all).map_err(VolumeError::Cgroup)?;
    }
    cover_memory(facts, hierarchies);
    Ok(left)
}

/// The control group of a pod: where it is already, if an agent has made it that had all pods side by side.
pub(crate) fn cgroup(pod: &Pod, facts: &NodeFacts, hierarchies: &Hierarchies) -> String {
    let root = &facts.cgroup_root;
    let own = qos::cgroup(root, pod);
    let is_made = |group: &String| hierarchies.at(group).exists();
    if is_made(&own) {
        return own;
    }
    qos::cgroups(root, pod.uid()).find(is_made).unwrap_or(own)
}

fn limits(limits: resources::Limits, facts: &NodeFacts) -> Limits {
    Limits {
        cpu_shares: Some(limits.cpu_shares),
        cpu_quota: Some(CpuQuota { quota: limits.cpu_quota, period: facts.cpu_quotas.period }),
        memory: Some(limits.memory.unwrap_or(u64::MAX)),
        ..Limits::default()
    }
}

/// Gives the control group of a pod that runs a part of what it is to have.
pub(crate) fn resize(
    pod: &Pod,
    facts: &NodeFacts,
    hierarchies: &Hierarchies,
    part: Part,
    to: &Requirements,
) -> Result<(), VolumeError> {
    let all = limits(resources::Limits::of(to, facts.cpu_quotas), facts);
    let only = match part {
        Part::Memory => Limits { memory: all.memory, ..Limits::default() },
        Part::CpuLimit => Limits { cpu_quota: all.cpu_quota, ..Limits::default() },
        Part::CpuRequest => Limits { cpu_shares: all.cpu_shares, ..Limits::default() },
    };
    let group = hierarchies.at(&cgroup(pod, facts, hierarchies));
    if part == Part::CpuLimit {
        group.lift_empty().map_err(VolumeError::Resize)?;
    }
    group.limit(&only).map_err(VolumeError::Resize)
}

/// Keeps for a pod that runs what it requests now, if that is kept at all.
pub(crate) fn keep_memory(
    pod: &Pod,
    facts: &NodeFacts,
    hierarchies: &Hierarchies,
) -> Result<(), VolumeError> {
    let Some(kept) = facts.memory_qos.and_then(|qos| qos.of_pod(pod)) else { return Ok(()) };
    let group = hierarchies.at(&cgroup(pod, facts, hierarchies));
    let limits = Limits { unified: vec![kept], ..Limits::default() };
    group.limit(&limits).map_err(VolumeError::Resize)?;
    cover_memory(facts, hierarchies);
    Ok(())
}

/// Keeps for the groups that pods are in what is kept for the pods, if anything is. Without it pods run as they
/// do, and nothing is kept for them.
pub(crate) fn cover_memory(facts: &NodeFacts, hierarchies: &Hierarchies) {
    if facts.memory_qos.is_some_and(|qos| qos.tiered)
        && let Err(error) = protection::cover(hierarchies, &facts.cgroup_root)
    {
        tracing::warn!(%error, group = facts.cgroup_root, "memory that pods asked for is not kept");
    }
}

/// Lets the volumes of a pod show what they are made of now. One that cannot keeps no other from it.
pub(crate) fn update(
    pod: &Pod,
    facts: &NodeFacts,
    around: &Surroundings<'_>,
) -> Result<(), VolumeError> {
    let volumes = pod.spec().volumes.iter().flatten();
    let made = volumes.filter(|volume| Projection::of(volume).is_some());
    let results: Vec<_> = made.map(|volume| prepare_volume(pod, volume, facts, around)).collect();
    results.into_iter().collect()
}

/// The group of a pod's volumes.
fn group(pod: &Pod) -> Option<u32> {
    let group = pod.spec().security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// Whether a volume is there whose files are made.
fn is_there(pod: &Pod, volume: &Volume, facts: &NodeFacts) -> bool {
    facts.volume_path(pod.uid(), volume).is_some_and(|path| projected::is_there(&path))
}

fn prepare_volume(
    pod: &Pod,
    volume: &Volume,
    facts: &NodeFacts,
    around: &Surroundings<'_>,
) -> Result<(), VolumeError> {
    let named = || volume.name.clone();
    if volume.host_path.is_some() {
        return prepare_host_path(volume);
    }
    if let (Some(empty_dir), Some(path)) = (&volume.empty_dir, facts.volume_path(pod.uid(), volume))
    {
        return Medium::of(empty_dir, pod)
            .map_err(Into::into)
            .and_then(|medium| {
                let size = medium.size(empty_dir, pod, facts.allocatable);
                empty_dir::prepare(medium, size, &path, group(pod))
            })
            .map_err(|source| VolumeError::EmptyDir { volume: named(), source });
    }
    if let (Some(projection), Some(path)) =
        (Projection::of(volume), facts.volume_path(pod.uid(), volume))
    {
        let files = projection.files(pod, around);
        let files = files.map_err(|why| VolumeError::Source { volume: named(), why })?;
        return projected::prepare(&projected::Wanted {
            directory: &path,
            in_memory: projection.is_in_memory(),
            mount_points: &nested_mount_points(pod, &volume.name),
            files: &files,
            group: group(pod),
        })
        .map_err(|source| VolumeError::Projected { volume: named(), source });
    }
    // Files of an image are the runtime's, and those of a server are never waited for here. Other kinds are
    // refused when the manifest is read.
    Ok(())
}

fn prepare_host_path(volume: &Volume) -> Result<(), VolumeError> {
    let prepared = volume.host_path.as_ref().map_or(Ok(()), host_path::prepare);
    prepared.map_err(|source| VolumeError::HostPath { volume: volume.name.clone(), source })
}

/// Makes the paths of the host that a container mounts once more: they may have gone since the pod began. With a
/// kubelet the runtime does it.
pub(crate) fn make_host_paths(pod: &Pod, container: &Container) -> Result<(), VolumeError> {
    let mounted = container.volume_mounts.iter().flatten();
    mounted.filter_map(|mount| pod.volume(&mount.name)).try_for_each(prepare_host_path)
}

/// Makes the parts of volumes that a container mounts by themselves, where they are not there. Those on a
/// server are [`nfs::look`]'s.
pub(crate) fn make_sub_paths(
    pod: &Pod,
    container: &Container,
    envs: &[(String, String)],
    facts: &NodeFacts,
) -> Result<(), VolumeError> {
    for mount in container.volume_mounts.iter().flatten() {
        // What cannot be asked for as it stands is refused in the kubelet's words when it is translated.
        let Ok(Some(path)) = translate::sub_path(mount, envs) else { continue };
        let volume = pod.volume(&mount.name).filter(|volume| !nfs::is_nfs(volume));
        let Some(volume) = volume.and_then(|it| facts.volume_path(pod.uid(), it)) else { continue };
        sub_path::prepare(&volume, Path::new(&path)).map_err(|source| VolumeError::SubPath {
            volume: mount.name.clone(),
            container: container.name.clone(),
            source,
        })?;
    }
    Ok(())
}

/// Writes the file that the pod's containers see as `/etc/hosts`.
pub(crate) fn write_hosts(
    pod: &Pod,
    facts: &NodeFacts,
    addresses: &[IpAddr],
) -> Result<(), VolumeError> {
    let path = facts.hosts_file(pod.uid());
    let written = hosts::write(pod, &path, addresses, &facts.cluster_dns.domain);
    written.map_err(|source| VolumeError::File { step: "write", path, source })
}

/// How many runs of a container are known before the one that is about to be made. Source: `MaxPerPodContainer` of
/// the kubelet, 1, beside the newest.
const KNOWN_RUNS: u32 = 2;

/// The last run that is not known any more when the one with this number is made.
fn last_forgotten(number: u32) -> Option<u32> {
    number.checked_sub(KNOWN_RUNS + 1)
}

/// Removes what runs of a container have left that is not known any more: their logs.
pub(crate) fn forget_runs(
    pod: &Pod,
    container: &str,
    number: u32,
    facts: &NodeFacts,
) -> Result<(), VolumeError> {
    let Some(forgotten) = last_forgotten(number) else { return Ok(()) };
    let path = facts.pod_log_directory(pod.namespace(), pod.name(), pod.uid()).join(container);
    let is_gone = |log: &Path| log.starts_with(&path) && !log.exists();
    let forgotten = logs::forget(&path, forgotten + 1);
    logs::sweep(&facts.log_directory, is_gone);
    forgotten.map_err(|source| VolumeError::File {
        step: "remove what earlier runs logged in",
        path,
        source,
    })
}

/// Makes the file that a container leaves its termination message in: the one with this number of its name.
pub(crate) fn make_termination_message(
    pod: &Pod,
    container: &str,
    number: u32,
    facts: &NodeFacts,
) -> Result<(), VolumeError> {
    let file = |number| facts.termination_message_file(pod.uid(), container, number);
    let (path, outdated) = (file(number), last_forgotten(number).map(file));
    termination_message::make(&path, outdated.as_deref()).map_err(|source| VolumeError::File {
        step: "make",
        path,
        source,
    })
}

/// Removes all that a version of a pod has on the host. Nothing of it runs any more.
pub(crate) fn clean_up(
    uid: &str,
    facts: &NodeFacts,
    hierarchies: &Hierarchies,
) -> Result<(), VolumeError> {
    for group in qos::cgroups(&facts.cgroup_root, uid) {
        hierarchies.at(&group).remove().map_err(VolumeError::Cgroup)?;
    }
    cover_memory(facts, hierarchies);
    let of_pod = |name: &str| name.ends_with(&format!("_{uid}"));
    for log_directory in matching(&facts.log_directory, of_pod)? {
        remove(&log_directory)?;
    }
    logs::unlink_pod(&facts.log_directory, uid);
    // Last, since by its directory the next agent knows that there is something to clear.
    let directory = facts.pod_directory(uid);
    empty_dir::unmount_below(&directory).map_err(|source| VolumeError::File {
        step: "unmount the volumes below",
        path: directory.clone(),
        source,
    })?;
    remove(&directory)
}

/// The versions of pods that have a directory on this machine.
pub(crate) fn hosted(facts: &NodeFacts) -> Result<Vec<String>, VolumeError> {
    let paths = matching(&facts.pods_directory, |_| true)?;
    let name = |path: PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(paths.into_iter().filter_map(name).collect())
}

fn remove(path: &Path) -> Result<(), VolumeError> {
    remove_all(path).map_err(|source| VolumeError::File {
        step: "remove",
        path: path.to_owned(),
        source,
    })
}

fn matching(directory: &Path, is: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, VolumeError> {
    let failed = |source| VolumeError::File { step: "list", path: directory.to_owned(), source };
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_str().is_some_and(&is) {
            found.push(entry.path());
        }
    }
    Ok(found)
}
