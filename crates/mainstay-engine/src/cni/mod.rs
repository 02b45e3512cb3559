//! Networks of CNI plugins: programs that give sandboxes their network, where the machine has a
//! configuration for them.
//!
//! # Flow
//!
//! [`Cni::network`] tells whether there is a configuration, and so whether a sandbox gets its network
//! from plugins or from the bridge ([`crate::network`]). [`Cni::add`] calls the plugins for a sandbox,
//! [`Cni::del`] has them take back what they gave; who was added is deleted by the same plugins in the
//! same words, whatever the configuration is by then ([`attachment`]). [`Cni::take_over`] is for what an
//! earlier agent left, [`Cni::collect`] and [`Cni::check`] have plugins see to what there is then, and
//! [`Cni::failure`] asks them whether they can add sandboxes.
//!
//! What is decided ([`config`], [`request`], [`answer`], [`capability`]) is apart from what is done
//! ([`directory`], [`plugin`], [`namespace`], [`network`], [`upkeep`], and this file).
//!
//! # Guarantees
//!
//! - For every sandbox for which a plugin was called, however that ended, DEL is called until it
//!   succeeds: by whoever takes the sandbox down, and by the next agent. Of a sandbox that was never
//!   added to the end, plugins that cannot delete it hold nothing up.
//! - While GC is called, nothing is added or deleted.
//!
//! Source: the CNI specification 1.1.0.

mod answer;
mod attachment;
mod capability;
mod config;
mod directory;
mod error;
mod namespace;
mod network;
mod plugin;
mod request;
mod upkeep;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mainstay_cri::{PodSandboxConfig, chain};
use mainstay_linux::netlink::RouteSocket;
use tokio::sync::RwLock;

pub(crate) use attachment::CniNetwork;
pub(crate) use error::CniError;

use attachment::{Attachment, Attachments};
use capability::{args, capability_args};
use namespace::Namespaces;
use network::Negotiated;
use request::Request;

use crate::network::LOOPBACK;

/// Where configurations and plugins are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CniConfig {
    /// The directory of configurations; with `None` pods have the built-in network.
    pub conf_dir: Option<PathBuf>,
    /// The directories of plugins, in the order in which they are looked through.
    pub bin_dirs: Vec<PathBuf>,
}

/// The networks of plugins of one instance.
#[derive(Debug)]
pub(crate) struct Cni {
    config: CniConfig,
    attachments: Attachments,
    namespaces: Namespaces,
    /// Whoever adds and deletes shares it; whoever collects has it alone.
    turns: RwLock<()>,
    /// Held by whoever deletes what belongs to nobody, so that nothing is deleted twice at once.
    clearing: tokio::sync::Mutex<()>,
    notes: Mutex<Notes>,
}

/// What is known besides.
#[derive(Debug, Default)]
struct Notes {
    /// Sandboxes for which an earlier agent may have left plugins running.
    inherited: BTreeSet<String>,
    /// Sandboxes of which plugins say that their network is not as it was made, and what.
    broken: BTreeMap<String, String>,
    /// The network whose plugins said that they can add sandboxes when they were asked last.
    ready: Option<String>,
    /// The version that all plugins of a configuration speak.
    negotiated: Option<Negotiated>,
    /// What was last said of the configuration.
    told: String,
}

impl Cni {
    /// The networks of the instance with these directories.
    pub(crate) fn new(config: CniConfig, root_dir: &Path, run_dir: &Path) -> Self {
        Self {
            config,
            attachments: Attachments::new(root_dir.join("cni")),
            namespaces: Namespaces::new(run_dir.join("netns")),
            turns: RwLock::default(),
            clearing: tokio::sync::Mutex::default(),
            notes: Mutex::default(),
        }
    }

    /// Whether plugins gave a sandbox its network, or were about to.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.attachments.has(id)
    }

    /// Sees to it that what a pod asks for can be given to it.
    ///
    /// # Errors
    ///
    /// What is asked for in vain, by name.
    pub(crate) fn verify(network: &CniNetwork, config: &PodSandboxConfig) -> Result<(), CniError> {
        capability_args(network, config).map(drop)
    }

    /// Gives a sandbox its network, and returns its addresses, the primary one first.
    ///
    /// # Errors
    ///
    /// The first plugin that failed. What the others gave is taken back by [`Self::del`].
    pub(crate) async fn add(
        &self,
        network: CniNetwork,
        id: &str,
        namespace: OwnedFd,
        config: &PodSandboxConfig,
    ) -> Result<Vec<IpAddr>, CniError> {
        let _turn = self.turns.read().await;
        let wanted = capability_args(&network, config)?;
        let netns = self.namespaces.path(id);
        let mut attachment =
            Attachment::new(id.to_owned(), netns, network, args(id, config), wanted);
        // Before anything is done that somebody has to undo.
        self.write(attachment.clone()).await?;
        let (namespaces, sandbox) = (self.namespaces.clone(), id.to_owned());
        blocking(move || {
            namespaces.name(&sandbox, &namespace)?;
            switch_on_loopback(&sandbox, namespace.as_fd())
        })
        .await?;
        let mut result = None;
        for plugin in &attachment.network.plugins {
            let request = attachment.add(plugin, result.as_ref());
            let output = plugin::call(&request, &attachment.network.bin_dirs).await?;
            let spoken = attachment.network.cni_version;
            result = Some(answer::result(&output, spoken).map_err(unanswered(&request))?);
        }
        let addresses = match (&result, attachment.network.plugins.last()) {
            (Some(result), Some(last)) => answer::addresses(result, &attachment.if_name)
                .map_err(unanswered(&attachment.add(last, None)))?,
            _ => Vec::new(),
        };
        attachment.result = result;
        self.write(attachment).await?;
        Ok(addresses)
    }

    async fn write(&self, attachment: Attachment) -> Result<(), CniError> {
        let attachments = self.attachments.clone();
        blocking(move || Ok(attachments.write(&attachment)?)).await
    }

    async fn read(&self, id: &str) -> Result<Option<Attachment>, CniError> {
        let (attachments, id) = (self.attachments.clone(), id.to_owned());
        blocking(move || Ok(attachments.read(&id)?)).await
    }

    async fn forget_namespace(&self, id: &str) -> Result<(), CniError> {
        let (namespaces, id) = (self.namespaces.clone(), id.to_owned());
        blocking(move || namespaces.forget(&id)).await
    }

    /// Takes from a sandbox what [`Self::add`] gave it. Idempotent. Calls for one sandbox do not
    /// overlap.
    ///
    /// # Errors
    ///
    /// The first plugin that failed. It can be called again.
    pub(crate) async fn del(&self, id: &str) -> Result<(), CniError> {
        if self.notes().inherited.remove(id) {
            let sandbox = id.to_owned();
            let end = move || plugin::end_leftovers(&sandbox).map_err(CniError::Leftovers);
            let ended = blocking(end).await;
            if let Err(error) = ended {
                self.notes().inherited.insert(id.to_owned());
                return Err(error);
            }
        }
        let Some(attachment) = self.read(id).await? else {
            return self.forget_namespace(id).await;
        };
        let deleted = {
            let _turn = self.turns.read().await;
            self.delete(&attachment).await
        };
        match deleted {
            // It stays written down, and the next agent tries it again.
            Err(error) if attachment.result.is_none() => {
                let error = chain(&error);
                tracing::warn!(sandbox = id, error, "what plugins gave a sandbox may be left");
                self.forget_namespace(id).await
            }
            Err(error) => Err(error),
            Ok(()) => {
                self.forget_namespace(id).await?;
                self.notes().broken.remove(id);
                Ok(self.attachments.remove(id)?)
            }
        }
    }

    /// Calls the plugins. Of a sandbox that was never added to the end all are called, whatever becomes of
    /// the ones before.
    async fn delete(&self, attachment: &Attachment) -> Result<(), CniError> {
        let present = self.namespaces.has(&attachment.container_id);
        // Where they are now, too: they may have been moved with an upgrade.
        let mut bin_dirs = attachment.network.bin_dirs.clone();
        bin_dirs.extend(self.config.bin_dirs.iter().cloned());
        let mut deleted = Ok(());
        for request in attachment.del(present) {
            let called = match plugin::call(&request, &bin_dirs).await {
                Err(CniError::Plugin { complaint, .. }) if complaint.is_gone(present) => Ok(()),
                result => result.map(drop),
            };
            deleted = deleted.and(called);
            if deleted.is_err() && attachment.result.is_some() {
                break;
            }
        }
        deleted
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // What it guards is valid between any two statements.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs file work where it may take its time.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CniError> + Send + 'static,
) -> Result<T, CniError> {
    crate::blocking(move || Ok(work())).await?
}

fn unanswered(request: &Request) -> impl FnOnce(answer::InvalidAnswer) -> CniError {
    let Request { command, plugin, network, .. } = request;
    let (command, plugin, network) = (*command, plugin.clone(), network.clone());
    move |problem| CniError::Answer { command, plugin, network, problem }
}

/// What no plugin of the field does but a plugin of its own.
fn switch_on_loopback(id: &str, namespace: BorrowedFd<'_>) -> Result<(), CniError> {
    let failed = |source| CniError::Loopback { sandbox: id.to_owned(), source };
    let mut inside = RouteSocket::open_in(namespace).map_err(failed)?;
    inside.set_up(LOOPBACK).map_err(failed)
}

#[cfg(test)]
mod tests;
