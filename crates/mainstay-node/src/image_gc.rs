//! Removing images that nobody uses.
//!
//! # Flow
//!
//! Every [`INTERVAL`] one task looks which images there are, and which are used; when the disk is fuller
//! than it should be, the longest unused go first. When pods would have to end for the disk, all unused
//! ones go ([`ImageGc::delete_unused`]).
//!
//! # Guarantees
//!
//! - An image stays that a container has, also one of others who use the same runtime, that is named by a
//!   pod which was accepted, or that the version before it of a static pod ran with: whoever takes a change
//!   back finds it.
//! - Nothing is removed before it is known what should run.
//!
//! Source: `pkg/kubelet/images/image_gc_manager.go`, `StartGarbageCollection` in
//! `pkg/kubelet/kubelet.go`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use mainstay_cri::{ErrorKind, ImageId, ImageSpec};
use mainstay_plan::image_gc::{Known, Policy, Unused, shortfall};
use mainstay_plan::pressure::Level;
use mainstay_plan::status::is_over;
use mainstay_pod::Pod;
use rustix::fs::statvfs;
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, interval};

use crate::publish::{Board, EventKind};
use crate::worker::Performer;

/// How often is looked. Source: `ImageGCPeriod`.
const INTERVAL: Duration = Duration::from_secs(300);

/// What it is done with.
pub(crate) struct ImageGc {
    pub(crate) performer: Arc<Performer>,
    pub(crate) board: watch::Receiver<Arc<Board>>,
    pub(crate) policy: Policy,
    /// A directory of the file system that images are on.
    pub(crate) directory: PathBuf,
    /// When the agent began.
    pub(crate) begun: Instant,
    pub(crate) known: Mutex<Known>,
}

/// Why images were not removed.
type Failure = String;

/// What may go, by what images were called then that are used.
struct Found {
    unused: Vec<Unused>,
    names: BTreeSet<String>,
}

impl ImageGc {
    /// Looks, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut ticks = interval(INTERVAL);
        let mut failed = false;
        loop {
            ticks.tick().await;
            match self.collect().await {
                Ok(()) => failed = false,
                Err(error) => {
                    tracing::warn!(error, "cannot make room by removing images");
                    if failed {
                        let kind = EventKind::Warning;
                        self.performer.events.tell_node(kind, "ImageGCFailed", error);
                    }
                    failed = true;
                }
            }
        }
    }

    async fn collect(&self) -> Result<(), Failure> {
        let mut known = self.known.lock().await;
        let Some(Found { unused, mut names }) = self.unused(&mut known).await? else {
            return Ok(());
        };
        if self.policy.is_off() {
            return Ok(());
        }
        let (old, unused): (Vec<_>, Vec<_>) = unused.into_iter().partition(|it| it.is_old);
        self.remove(old, u64::MAX, &mut names).await?;
        let Some(disk) = self.disk() else {
            let error = "invalid capacity 0 on image filesystem".to_owned();
            let reason = "InvalidDiskCapacity";
            self.performer.events.tell_node(EventKind::Warning, reason, error.clone());
            return Err(error);
        };
        let Some(excess) = self.policy.excess(disk) else { return Ok(()) };
        let freed = self.remove(unused, excess, &mut names).await?;
        if freed < excess {
            let message = shortfall(disk, freed);
            let reason = "FreeDiskSpaceFailed";
            self.performer.events.tell_node(EventKind::Warning, reason, message.clone());
            return Err(message);
        }
        Ok(())
    }

    /// How long an image is kept at least, which is how long it takes a new agent to remove any.
    pub(crate) fn least_age(&self) -> Duration {
        self.policy.min_age
    }

    /// Removes all that nobody uses, because the disk is short; answers whether it is known what that is.
    pub(crate) async fn delete_unused(&self) -> bool {
        let mut known = self.known.lock().await;
        let removed = async {
            match self.unused(&mut known).await? {
                Some(Found { unused, mut names }) => {
                    self.remove(unused, u64::MAX, &mut names).await.map(|_| true)
                }
                None => Ok(false),
            }
        };
        removed.await.unwrap_or_else(|error| {
            tracing::warn!(error, "cannot make room by removing images");
            // What could not be removed stays, whoever is ended.
            true
        })
    }

    /// What may go; `None` when it is not known yet what should run.
    async fn unused(&self, known: &mut Known) -> Result<Option<Found>, Failure> {
        let images = &self.performer.images;
        let all = images.list_images().await.map_err(|error| error.chain())?;
        let names = self.names().await?;
        let used = self.ids(&names).await?;
        let now = self.begun.elapsed();
        known.look(&all, &used, now);
        let is_known = self.board.borrow().is_complete();
        Ok(is_known.then(|| Found { unused: known.unused(&self.policy, now), names }))
    }

    /// The images of these names that are there.
    async fn ids(
        &self,
        names: impl IntoIterator<Item = &String>,
    ) -> Result<BTreeSet<ImageId>, Failure> {
        let mut ids = BTreeSet::new();
        for name in names {
            match self.performer.images.image_status(&ImageSpec(name.clone())).await {
                Ok(Some(image)) => drop(ids.insert(image.id)),
                Ok(None) => {}
                // No image is called so.
                Err(error) if error.kind == ErrorKind::InvalidArgument => {}
                Err(error) => return Err(error.chain()),
            }
        }
        Ok(ids)
    }

    /// What images that are used are called, by whoever uses them.
    async fn names(&self) -> Result<BTreeSet<String>, Failure> {
        let performer = &self.performer;
        let others = performer.runtime.others().await.map_err(|error| error.chain())?;
        let mut names: BTreeSet<String> = others.images.into_iter().map(|it| it.0).collect();
        for key in performer.observer.keys() {
            let seen = performer.observer.seen(&key);
            let containers = seen.sandboxes.iter().flat_map(|sandbox| &sandbox.containers);
            names.extend(containers.map(|it| it.image_ref.clone()));
        }
        for record in performer.recorded().iter().filter_map(|key| performer.record(key)) {
            let is_static = record.pod.source().is_static();
            if is_static || !record.finished.is_some_and(|(_, status)| is_over(&status)) {
                names.extend(images_of(&record.pod));
            }
            names.extend(record.rollback);
        }
        let board = self.board.borrow();
        let reports = board.pods.values().filter_map(|entry| entry.report.as_ref());
        let wanted = reports.filter(|it| it.key.source.is_static() || !is_over(&it.status));
        names.extend(wanted.flat_map(|report| images_of(&report.pod)));
        names.remove("");
        Ok(names)
    }

    /// Removes images until there is so much more room, as far as is known; answers how much. `known` are
    /// the names that have been looked up.
    async fn remove(
        &self,
        images: Vec<Unused>,
        excess: u64,
        known: &mut BTreeSet<String>,
    ) -> Result<u64, Failure> {
        let (mut freed, mut failures) = (0_u64, Vec::new());
        for Unused { id: ImageId(id), size, .. } in images {
            // Somebody may have begun to use it meanwhile.
            let names = self.names().await?;
            if self.ids(names.difference(known)).await?.contains(&ImageId(id.clone())) {
                continue;
            }
            known.extend(names);
            match self.performer.images.remove_image(&ImageSpec(id.clone())).await {
                Ok(()) => {
                    tracing::info!(image = id, size, "removed an image that nobody uses");
                    freed = freed.saturating_add(size);
                }
                Err(error) => failures.push(error.chain()),
            }
            if freed >= excess {
                break;
            }
        }
        match failures.is_empty() {
            true => Ok(freed),
            false => Err(failures.join("; ")),
        }
    }

    fn disk(&self) -> Option<Level> {
        let disk = statvfs(&self.directory).ok().filter(|disk| disk.f_blocks > 0)?;
        let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
        Some(Level { available: bytes(disk.f_bavail), capacity: bytes(disk.f_blocks) })
    }
}

/// What the images of a pod are called: those of its containers and of its volumes.
pub(crate) fn images_of(pod: &Pod) -> impl Iterator<Item = String> {
    let spec = pod.spec();
    let own = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let own = own.filter_map(|it| it.image.clone());
    let later = spec.ephemeral_containers.iter().flatten().filter_map(|it| it.image.clone());
    own.chain(later).chain(images_of_volumes(pod))
}

/// What the images of its volumes are called.
pub(crate) fn images_of_volumes(pod: &Pod) -> impl Iterator<Item = String> {
    let volumes = pod.spec().volumes.iter().flatten();
    volumes.filter_map(|it| it.image.as_ref()?.reference.clone())
}
