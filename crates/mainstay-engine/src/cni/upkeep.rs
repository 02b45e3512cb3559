//! What earlier agents left, and looking at what there is.

use std::collections::{BTreeMap, BTreeSet};

use mainstay_cri::chain;
use tokio::sync::{MutexGuard, RwLockWriteGuard};

use super::attachment::CniNetwork;
use super::{Cni, CniError, blocking, plugin};

/// Marks calls of GC of one instance, so that those of an earlier agent are found.
const COLLECTING: &str = "MAINSTAY_CNI_GC";

impl Cni {
    /// Learns what an earlier agent left.
    ///
    /// # Errors
    ///
    /// When that cannot be found out.
    pub(crate) fn take_over(&self) -> Result<(), CniError> {
        self.notes().inherited = self.attachments.ids()?.into_iter().collect();
        Ok(())
    }

    /// Deletes what is there of sandboxes that are none of those that are `known`, and takes away names
    /// of network namespaces that nobody needs. Returns what is left, with the reasons.
    pub(crate) async fn delete_all_but(&self, known: impl Fn() -> BTreeSet<String>) -> Vec<String> {
        let _clearing = self.clearing().await;
        let mut left = Vec::new();
        let ids = self.attachments.ids().unwrap_or_else(|error| {
            left.push(chain(&error));
            Vec::new()
        });
        let names = self.namespaces.ids().unwrap_or_else(|error| {
            left.push(chain(&error));
            Vec::new()
        });
        // Known is a sandbox before there is anything of it, so whatever is in these lists and belongs
        // to nobody now is not of one that is just being made.
        let known = known();
        for id in ids.iter().filter(|id| !known.contains(*id)) {
            let deleted = self.del(id).await.map_err(|error| chain(&error));
            let stays = self.attachments.has(id).then(|| {
                let file = self.attachments.path(id);
                format!(
                    "plugins do not take back what they gave sandbox {id}; see the log, or remove \
                     {} if there is nothing of it",
                    file.display()
                )
            });
            left.extend(deleted.err().or(stays));
        }
        for id in names.iter().filter(|id| !known.contains(*id)) {
            left.extend(self.forget_namespace(id).await.err().map(|error| chain(&error)));
        }
        left
    }

    /// [`Self::delete_all_but`] waits until this is dropped.
    pub(crate) async fn clearing(&self) -> MutexGuard<'_, ()> {
        self.clearing.lock().await
    }

    /// Nobody adds or deletes until this is dropped.
    pub(crate) async fn alone(&self) -> RwLockWriteGuard<'_, ()> {
        self.turns.write().await
    }

    /// Tells the plugins of the network which sandboxes are in it, so that they let go of others'
    /// things. The caller is [`Self::alone`], and `known` are the sandboxes that there are.
    pub(crate) async fn collect(&self, network: &CniNetwork, known: &BTreeSet<String>) {
        let mut valid = Vec::new();
        for id in known {
            match self.read(id).await {
                Ok(Some(it)) if it.network.name == network.name => {
                    valid.push((it.container_id, it.if_name));
                }
                Ok(_) => {}
                // Without it, its plugins would take its network from it.
                Err(error) => {
                    tracing::warn!(error = chain(&error), "plugins are not told to collect");
                    return;
                }
            }
        }
        let mark = self.attachments.directory().to_string_lossy().into_owned();
        let mut requests = network.gc(&valid);
        if requests.is_empty() {
            return;
        }
        let variable = format!("{COLLECTING}={mark}");
        let end = move || plugin::end_all_with(&variable).map_err(CniError::Leftovers);
        if let Err(error) = blocking(end).await {
            tracing::warn!(error = chain(&error), "plugins are not told to collect");
            return;
        }
        for request in &mut requests {
            request.environment.push((COLLECTING, mark.clone()));
            // The others are told all the same.
            if let Err(error) = plugin::call(request, &network.bin_dirs).await {
                tracing::warn!(error = chain(&error), "a plugin cannot let go of what nobody has");
            }
        }
    }

    /// Has plugins check the network of a sandbox. Calls for one sandbox do not overlap.
    pub(crate) async fn check(&self, id: &str) {
        let attachment = match self.read(id).await {
            Ok(Some(attachment)) => attachment,
            Ok(None) => return,
            Err(error) => {
                tracing::warn!(error = chain(&error), "a sandbox's network cannot be checked");
                return;
            }
        };
        for request in attachment.check() {
            if let Err(error) = plugin::call(&request, &attachment.network.bin_dirs).await {
                let error = chain(&error);
                tracing::warn!(
                    sandbox = id,
                    error,
                    "a plugin says that the network of a sandbox is not as it was made; where it is \
                     wrong, disableCheck in the configuration keeps it from being asked"
                );
                self.notes().broken.insert(id.to_owned(), error);
                return;
            }
        }
    }

    /// The sandboxes whose network was not as it was made when the agent started, as plugins say, and
    /// why.
    pub(crate) fn broken(&self) -> BTreeMap<String, String> {
        self.notes().broken.clone()
    }
}
