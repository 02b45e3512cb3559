//! nfs volumes: a directory of a server, mounted by the kernel's own client.
//!
//! A server that does not answer stops whoever touches what is mounted of it, in the kernel and for as long as
//! it likes. So the agent touches none of it: another process does ([`helper`]), the agent waits for it no
//! longer than it has patience, and what is mounted is asked of the kernel's table. That process is killed
//! then; whether it can end is its own affair.
//!
//! Source: `pkg/volume/nfs/nfs.go`, nfs(5).

mod helper;

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Volume};
use mainstay_linux::mount;
use mainstay_plan::translate::{self, NodeFacts};
use mainstay_pod::Pod;
use tokio::process::Command;
use tokio::time::timeout;

pub use helper::{NfsHelper, help};

/// How long a server may take until it is mounted.
const MOUNT_PATIENCE: Duration = Duration::from_secs(60);
/// How long it may take to answer, and what was written to get there before it is let go.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the kernel may take to let go of a server that is not waited for.
const FORCE_PATIENCE: Duration = Duration::from_secs(5);

/// An nfs volume that is not as it should be: its name, and why.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NfsError {
    #[error("MountVolume.SetUp failed for volume {volume:?} : mount failed: {why}")]
    Mount { volume: String, why: String },
    #[error("volume {volume:?}: {why}")]
    Unusable { volume: String, why: String },
    #[error("cannot unmount {}: {why}", path.display())]
    Unmount { path: PathBuf, why: String },
}

/// Mounts the nfs volumes of a pod that are not mounted yet.
pub(crate) async fn mount_all(pod: &Pod, facts: &NodeFacts) -> Result<(), NfsError> {
    for volume in pod.spec().volumes.iter().flatten() {
        let (Some(nfs), Some(path)) = (&volume.nfs, facts.volume_path(pod.uid(), volume)) else {
            continue;
        };
        let failed = |why| NfsError::Mount { volume: volume.name.clone(), why };
        if is_mounted(&path).map_err(|error| failed(error.to_string()))? {
            continue;
        }
        let task = NfsHelper::Mount {
            server: nfs.server.clone(),
            path: nfs.path.clone(),
            target: path.clone(),
            readonly: nfs.read_only == Some(true),
        };
        run(&task, MOUNT_PATIENCE).await.map_err(failed)?;
    }
    Ok(())
}

/// Sees to it that the server of what a container mounts answers, and that the parts of it are there that are
/// mounted by themselves.
pub(crate) async fn look(
    pod: &Pod,
    container: &Container,
    envs: &[(String, String)],
    facts: &NodeFacts,
) -> Result<(), NfsError> {
    for mounted in container.volume_mounts.iter().flatten() {
        let volume = pod.volume(&mounted.name).filter(|volume| is_nfs(volume));
        let Some(volume) = volume else { continue };
        let Some(path) = facts.volume_path(pod.uid(), volume) else { continue };
        // What cannot be asked for as it stands is refused in the kubelet's words when it is translated.
        let part = translate::sub_path(mounted, envs).ok().flatten().map(PathBuf::from);
        let task = NfsHelper::Look { volume: path, part };
        let failed = |why| NfsError::Unusable { volume: volume.name.clone(), why };
        run(&task, PATIENCE).await.map_err(failed)?;
    }
    Ok(())
}

/// Whether what is in a volume is on a server.
pub(crate) fn is_nfs(volume: &Volume) -> bool {
    volume.nfs.is_some()
}

/// Unmounts the nfs volumes of a version of a pod, of which nothing runs any more. What is not on its server
/// by then is lost, as when the machine loses its power.
pub(crate) async fn unmount_all(uid: &str, facts: &NodeFacts) -> Result<(), NfsError> {
    let directory = facts.pod_directory(uid);
    let below = |error: io::Error| NfsError::Unmount {
        path: directory.clone(),
        why: format!("the kernel's table of mounts cannot be read: {error}"),
    };
    let mounted = mount::mount_points_of("nfs").map_err(below)?;
    for path in mounted.into_iter().rev().filter(|path| path.starts_with(&directory)) {
        let target = path.clone();
        if run(&NfsHelper::Unmount { target: target.clone(), force: false }, PATIENCE).await.is_ok()
        {
            continue;
        }
        let forced = run(&NfsHelper::Unmount { target, force: true }, FORCE_PATIENCE).await;
        // It is out of sight before the kernel has finished with it.
        if is_mounted(&path).map_err(below)? {
            let why = forced.err().unwrap_or_else(|| "it is still mounted".to_owned());
            return Err(NfsError::Unmount { path, why });
        }
    }
    Ok(())
}

fn is_mounted(path: &Path) -> io::Result<bool> {
    Ok(mount::mount_points()?.iter().any(|point| point == path))
}

/// Has another process do something, and says what it says when it cannot.
async fn run(task: &NfsHelper, patience: Duration) -> Result<(), String> {
    let late = || format!("the server does not answer within {} s", patience.as_secs());
    // Also when the program's file has been replaced by a newer one.
    let mut command = Command::new("/proc/self/exe");
    command.arg("nfs").args(task.arguments()).kill_on_drop(true);
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start a process for it: {error}"))?;
    let output = timeout(patience, child.wait_with_output()).await.map_err(|_| late())?;
    let output = output.map_err(|error| format!("cannot wait for a process: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}
