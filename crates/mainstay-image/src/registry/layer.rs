//! Taking in the layers of an image.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::blob::Download;
use super::error::{PullProblem, chain};
use super::pull::{Failed, Problem, Pull, shutting_down};
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::durable::at;
use crate::manifest::{Descriptor, Manifest};
use crate::progress::{Event, LayerInfo, Phase};
use crate::reference::Reference;
use crate::store::LayerJob;
use crate::unpack::{Expected, UnpackError, Unpacked};

/// How long to wait before looking again whether somebody else has made a layer, at first and at
/// most. A lock on a file cannot be awaited, and a thread that waits for it could not be stopped.
const LOCK_POLL: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

impl Pull<'_> {
    /// Takes in the layers that are not here yet, several at a time.
    pub(super) async fn layers(
        &self,
        reference: &Reference,
        manifest: &Manifest,
        config: &ImageConfig,
    ) -> Result<(), Problem> {
        let progress = &self.request.progress;
        let info =
            |layer: &Descriptor| LayerInfo { digest: layer.digest.clone(), size: layer.size };
        progress(Event::Image {
            name: reference.to_string(),
            layers: manifest.layers.iter().map(info).collect(),
        });
        let layers = 0..manifest.layers.len().min(config.diff_ids.len());
        let layers =
            layers.map(|index| self.layer(index, &manifest.layers[index], &config.diff_ids[index]));
        let parallel = self.config.parallel_layers.max(1);
        stream::iter(layers).buffer_unordered(parallel).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    async fn layer(
        &self,
        index: usize,
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<(), Problem> {
        let tell = |phase| (self.request.progress)(Event::Layer { index, phase });
        let Some(job) = self.layer_job(index, diff_id).await? else {
            tell(Phase::Present);
            return Ok(());
        };
        let path = format!("{}/blobs/{}", self.request.reference.path(), layer.digest);
        let limits = *self.store.limits();
        let last = self.endpoints.len() - 1;
        let partial = job.partial(&layer.digest);
        let mut download = {
            let size = layer.size;
            let opened = spawn_blocking(move || Download::open(partial, size, limits.keep_free));
            let opened = opened.await.unwrap_or_else(|_| Err(shutting_down().into()));
            opened.map_err(|error| self.problem(Failed::at(last, error)))?
        };
        let job = Arc::new(job);
        // What was begun by an earlier attempt or came from a mirror may be nonsense; then the
        // registry itself is asked for the whole. What it sends is what the image is.
        let mut first = 0;
        let mut again = false;
        let unpacked = loop {
            self.download(index, &path, &mut download, first).await?;
            match self.unpack(index, Arc::clone(&job), &download, layer, diff_id).await? {
                Ok(unpacked) => break unpacked,
                Err(source) => {
                    let digest = layer.digest.clone();
                    if source.is_disk_full() || matches!(source, UnpackError::GivenUp) {
                        return Err(PullProblem::Layer { digest, source }.into());
                    }
                    let own = again || download.only_from == Some(last);
                    let restarted = download.restart();
                    restarted.map_err(|error| self.problem(Failed::at(last, error)))?;
                    if own {
                        return Err(PullProblem::Layer { digest, source }.into());
                    }
                    let (error, after) = (chain(&source), Duration::ZERO);
                    (self.request.progress)(Event::Retry { error, after });
                    again = true;
                    first = last;
                }
            }
        };
        let Some(job) = Arc::into_inner(job) else { return Err(self.gone()) };
        self.blocking(move || job.publish(&unpacked)).await?;
        tell(Phase::Done);
        Ok(())
    }

    /// The right to make a layer, or `None` if it is here already.
    async fn layer_job(&self, index: usize, diff_id: &Digest) -> Result<Option<LayerJob>, Problem> {
        let mut wait = LOCK_POLL.0;
        loop {
            let (store, diff_id) = (self.store.clone(), diff_id.clone());
            let looked = self.blocking(move || {
                if store.layer_size(&diff_id)?.is_some() {
                    return Ok(Some(None));
                }
                let Some(job) = store.try_layer_job(&diff_id)? else { return Ok(None) };
                // Somebody else may have made it since.
                let here = store.layer_size(&diff_id)?.is_some();
                Ok(Some((!here).then_some(job)))
            });
            if let Some(found) = looked.await? {
                return Ok(found);
            }
            (self.request.progress)(Event::Layer { index, phase: Phase::Waiting });
            sleep(wait).await;
            wait = (wait * 2).min(LOCK_POLL.1);
        }
    }

    /// Downloads what is missing of a layer, from the endpoints from `first` on.
    async fn download(
        &self,
        index: usize,
        path: &str,
        download: &mut Download,
        first: usize,
    ) -> Result<(), Problem> {
        let tell = |done| {
            (self.request.progress)(Event::Layer { index, phase: Phase::Downloading(done) });
        };
        let last = self.endpoints.len() - 1;
        if download.is_complete() {
            return Ok(());
        }
        let mut others = Vec::new();
        for (place, endpoint) in self.endpoints.iter().enumerate().skip(first) {
            let mut failures = 0;
            let error = loop {
                let before = download.written;
                let from = (place, endpoint);
                let Err(error) = download.fetch(&self.session, from, path, &tell).await else {
                    return Ok(());
                };
                let got_on = download.written > before;
                failures = if got_on { 1 } else { failures + 1 };
                if place != last && !got_on {
                    break error;
                }
                match self.wait(path, failures, &error, None) {
                    Some(wait) => wait.await,
                    None => break error,
                }
            };
            others.push((place, error));
        }
        match others.pop() {
            Some((endpoint, error)) => Err(self.problem(Failed { endpoint, error, others })),
            None => Err(self.gone()),
        }
    }

    async fn unpack(
        &self,
        index: usize,
        job: Arc<LayerJob>,
        download: &Download,
        layer: &Descriptor,
        diff_id: &Digest,
    ) -> Result<Result<Unpacked, UnpackError>, Problem> {
        let progress = Arc::clone(&self.request.progress);
        let stop = Arc::clone(&self.stop);
        let path = download.path().to_path_buf();
        let (blob, diff_id) = (layer.digest.clone(), diff_id.clone());
        self.blocking(move || {
            let file = File::open(&path).map_err(at("opening", &path))?;
            let expected = Expected { blob: Some(&blob), diff_id: &diff_id };
            let go_on = |read| {
                progress(Event::Layer { index, phase: Phase::Unpacking(read) });
                !stop.load(Ordering::Relaxed)
            };
            let unpacked = job.unpack(file, expected, &go_on)?;
            if let Ok(unpacked) = &unpacked
                && let Some(note) = unpacked.note(&blob.to_string())
            {
                progress(Event::Note(note));
            }
            Ok(unpacked)
        })
        .await
    }
}
