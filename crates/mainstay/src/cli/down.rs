//! `mainstay down`

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Args;
use mainstay_engine::{CniConfig, CredentialProviders};
use mainstay_linux::cgroup::Hierarchies;
use mainstay_linux::path::remove_all;
use mainstay_linux::process::Pidfd;
use mainstay_node::{ManifestPaths, OwnGroup, links_directory, unlink_pod};
use mainstay_pod::{NodeName, Validation};
use rustix::process::Signal;

use crate::config::{Config, Endpoint, Registries};
use crate::instance::{Instance, NodeRecord, names_in};
use crate::wiring::{Node, NodeConfig, Purpose, node};
use crate::{logging, systemd};

/// Stop every pod of this instance and remove what it has on this machine.
///
/// An agent that runs is ended first. Every pod has its own grace period. Images, accepted
/// manifests and volumes stay in the root directory, so that the next `mainstay run` goes on
/// with them, unless --purge is given. Manifests are not touched.
///
/// Exit status 0 only when nothing is left; it can be given again.
#[derive(Debug, Args)]
pub(super) struct Down {
    /// Remove the root directory with images and volumes, and the pods' logs, too.
    #[arg(long)]
    purge: bool,
}

impl Down {
    pub(super) fn run(self, instance: &Instance) -> anyhow::Result<ExitCode> {
        if !instance.exists() {
            println!("nothing of {} is here", instance.root_dir.display());
            return Ok(ExitCode::SUCCESS);
        }
        logging::start();
        // Nothing has been touched yet.
        instance.verify_own()?;
        let NodeRecord { cgroup_root, log_directory, runtime_socket, .. } = instance.node()?;
        let config = NodeConfig {
            purpose: Purpose::Stop,
            instance: instance.clone(),
            // Nothing gets its name from it any more.
            node_name: NodeName::new("down")?,
            manifests: ManifestPaths::default(),
            validation: Validation::default(),
            node_ips: Vec::new(),
            registries: Registries::default(),
            credential_providers: CredentialProviders::default(),
            // Who was added says who is to delete it.
            cni: CniConfig::default(),
            pod_dns: false,
            // None are set while pods are ended.
            pods_group: Arc::new(OwnGroup(cgroup_root.clone())),
            cgroup_root: cgroup_root.clone(),
            config: Config {
                pod_logs_dir: Some(log_directory.clone()),
                runtime_endpoint: runtime_socket.map(|socket| Endpoint { socket }),
                ..Config::default()
            },
        };
        end_agent(instance)?;
        let ownership = instance.own()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start")?;
        let stopped = runtime.block_on(async {
            let Node { agent, engine, .. } = node(config, None).await?;
            agent.stop_pods().await?;
            if let Some(engine) = &engine {
                // Those of clients, too, before systemd ends them its own way. What cannot be removed is tried once
                // more below, and told.
                drop(engine.remove_sandboxes().await);
            }
            // Its group cannot be removed while the process that holds it is there.
            systemd::release(instance)?;
            let removed = match engine {
                Some(engine) => engine.remove_all().await.map_err(anyhow::Error::from),
                None => Ok(Hierarchies::mounted()?.at(&cgroup_root).remove()?),
            };
            removed.context("cannot remove what the pods shared")
        });
        runtime.shutdown_background();
        stopped?;
        unmount_below(&instance.root_dir.join("pods"))?;
        if self.purge {
            remove_logs(instance, &log_directory)?;
        }
        // Also when the pods were in systemd's last: the driver may have changed.
        let groups = Hierarchies::mounted()?.at(&instance.cgroup_root()).remove();
        groups.context("cannot remove what the pods were in")?;
        // The locks go with their directories, so that nobody can come in between.
        instance.remove_run_dir()?;
        if self.purge {
            instance.remove_root_dir()?;
        }
        drop(ownership);
        Ok(ExitCode::SUCCESS)
    }
}

/// Ends the agent that owns the instance, if there is one.
fn end_agent(instance: &Instance) -> anyhow::Result<()> {
    let Some(pid) = instance.owner() else { return Ok(()) };
    let process = match Pidfd::open(pid) {
        Ok(process) => process,
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
            return Ok(());
        }
        Err(error) => return Err(error).with_context(|| format!("cannot end process {pid}")),
    };
    process
        .signal(Signal::TERM.as_raw())
        .and_then(|()| process.wait())
        .with_context(|| format!("cannot end the agent, process {pid}"))
}

/// Unmounts the volumes that are file systems of their own.
fn unmount_below(directory: &Path) -> anyhow::Result<()> {
    mainstay_node::unmount_below(directory)
        .with_context(|| format!("cannot unmount what is below {}", directory.display()))
}

/// Removes the logs of this instance's pods. The directory may be shared with others.
fn remove_logs(instance: &Instance, log_directory: &Path) -> anyhow::Result<()> {
    let uids = instance.pods()?;
    for name in names_in(log_directory)? {
        if uids.iter().any(|uid| name.ends_with(&format!("_{uid}"))) {
            let path = log_directory.join(name);
            remove_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    for uid in &uids {
        unlink_pod(log_directory, uid);
    }
    for directory in
        [Some(log_directory.to_owned()), links_directory(log_directory)].into_iter().flatten()
    {
        match fs::remove_dir(&directory) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::NotFound
                        | io::ErrorKind::DirectoryNotEmpty
                        | io::ErrorKind::ResourceBusy
                ) =>
            {
                let failed = || format!("cannot remove {}", directory.display());
                return Err(error).with_context(failed);
            }
            // Others may have logs in it, or a file system of its own be mounted there.
            _ => {}
        }
    }
    Ok(())
}
