//! Images as the contract has them.

mod files;
pub mod program;
mod providers;
mod registries;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use futures_core::future::BoxFuture;
use mainstay_cri::{Error, ErrorKind, Image, ImageId, ImageSpec, Images, PullRequest, Result};
use mainstay_image::progress::Event;
use mainstay_image::reference::Reference;
use mainstay_image::registry::{self, Puller, RegistryConfig};
use mainstay_image::store::{Image as Stored, KEEP_PARTIAL, Store, StoreError};
use tokio::sync::watch;

pub use providers::{CredentialProvider, CredentialProviders};
pub use registries::{Keyrings, KeyringsError};

use crate::{blocking, failed};
use files::{ImageFiles, Looked};

/// Where images come from.
#[derive(Clone, Debug)]
pub struct ImagesConfig {
    /// Files in this directory are imported by themselves.
    pub files: PathBuf,
    /// What is remembered about them, so that each is imported once.
    pub files_record: PathBuf,
    /// How registries are reached.
    pub registries: RegistryConfig,
    /// As whom.
    pub keyrings: Keyrings,
}

/// The images of an instance, for the agent.
#[derive(Clone)]
pub struct EngineImages {
    store: Arc<Store>,
    puller: Arc<Puller>,
    keyrings: Keyrings,
    looked: watch::Receiver<Arc<Looked>>,
}

impl EngineImages {
    /// Images in `store`. Starts the thread that looks after image files and tells when images
    /// come and go.
    ///
    /// # Errors
    ///
    /// When the thread cannot be started.
    pub fn open(store: Arc<Store>, config: ImagesConfig) -> Result<Self> {
        let (sender, looked) = watch::channel(Arc::default());
        let files =
            ImageFiles::new(store.clone(), config.files.clone(), config.files_record.clone());
        std::thread::Builder::new()
            .name("images".into())
            .spawn(move || files.look_after(&sender))
            .map_err(crate::io_failed("cannot look after images"))?;
        Ok(Self { looked, ..Self::unattended(store, config) })
    }

    /// The same with nobody who looks after them: for whoever starts nothing any more, and may
    /// remove the store.
    pub fn unattended(store: Arc<Store>, config: ImagesConfig) -> Self {
        let puller = Arc::new(Puller::new((*store).clone(), config.registries));
        let (_, looked) = watch::channel(Arc::default());
        Self { store, puller, keyrings: config.keyrings, looked }
    }

    async fn find(&self, name: &str) -> Result<Option<Image>> {
        let (store, name) = (self.store.clone(), name.to_owned());
        let looked = self.looked.borrow().clone();
        blocking(move || {
            let found = store.find(&name).map_err(lookup_failed(&name))?;
            Ok(found.as_ref().map(|image| image_of(image, &looked)))
        })
        .await
    }
}

#[async_trait]
impl Images for EngineImages {
    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>> {
        if let Some(found) = self.find(&image.0).await? {
            return Ok(Some(found));
        }
        // At a first start it may lie in a file that is being imported.
        let mut looked = self.looked.clone();
        let waited = looked.wait_for(|looked| looked.once).await.is_ok();
        if waited { self.find(&image.0).await } else { Ok(None) }
    }

    async fn pull_image(&self, request: &PullRequest) -> Result<ImageId> {
        let hosts = |reference: &Reference| self.puller.hosts(reference);
        let (reference, keyring) =
            self.keyrings.of_image(&request.image, hosts, &request.secrets).await?;
        let request = registry::PullRequest {
            reference,
            keyring: Arc::new(keyring),
            answer_within: request.patience,
            progress: Arc::new(|event| tell(&event)),
        };
        let pulled = self.puller.pull(&request).await;
        pulled.map(|image| ImageId(image.id.to_string())).map_err(pull_failed)
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        let store = self.store.clone();
        let looked = self.looked.borrow().clone();
        blocking(move || {
            let (images, _) = store.list().map_err(failed("cannot list the images"))?;
            Ok(images.iter().map(|image| image_of(image, &looked)).collect())
        })
        .await
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        let (store, name) = (self.store.clone(), image.0.clone());
        blocking(move || {
            match store.remove(&name) {
                Ok(_) | Err(StoreError::NotFound { .. }) => {}
                Err(error) => {
                    let kind = match error {
                        StoreError::InUse { .. } => ErrorKind::FailedPrecondition,
                        _ => ErrorKind::Internal,
                    };
                    let message = format!("cannot remove image {name}");
                    return Err(Error::with_source(kind, message, error));
                }
            }
            // Who removes an image wants its room back now.
            let collected = store.collect(SystemTime::now(), KEEP_PARTIAL);
            collected.map(drop).map_err(failed("cannot clear away what no image needs any more"))
        })
        .await
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        let mut looked = self.looked.clone();
        looked.mark_unchanged();
        Box::pin(async move {
            if looked.changed().await.is_err() {
                // The thread is gone, so nothing will be told any more.
                std::future::pending::<()>().await;
            }
        })
    }

    async fn problems(&self) -> Vec<String> {
        // The errors name their files.
        self.looked.borrow().problems.values().cloned().collect()
    }
}

/// Logs how a pull or import goes.
fn tell(event: &Event) {
    match event {
        Event::Note(note) => tracing::warn!("{note}"),
        event => tracing::debug!(?event, "image"),
    }
}

fn lookup_failed(name: &str) -> impl FnOnce(StoreError) -> Error + '_ {
    move |error| {
        let kind = match error {
            StoreError::Name { .. } | StoreError::Ambiguous { .. } => ErrorKind::InvalidArgument,
            _ => ErrorKind::Internal,
        };
        Error::with_source(kind, format!("cannot look up image {name}"), error)
    }
}

/// What the agent decides by. A registry answers for an image that it does not have, and for one
/// that it does not show to everybody, with the same refusal.
fn pull_failed(error: registry::PullError) -> Error {
    use registry::PullErrorKind;
    let kind = match error.kind() {
        PullErrorKind::NotFound => ErrorKind::NotFound,
        PullErrorKind::Unauthorized { .. } => ErrorKind::PermissionDenied,
        PullErrorKind::RegistryUnavailable => ErrorKind::RegistryUnavailable,
        PullErrorKind::Credentials => ErrorKind::InvalidArgument,
        PullErrorKind::DiskFull => ErrorKind::ResourceExhausted,
        PullErrorKind::Untrusted | PullErrorKind::Invalid | PullErrorKind::Store => {
            ErrorKind::Internal
        }
    };
    Error::with_source(kind, "cannot pull the image", error)
}

fn image_of(image: &Stored, looked: &Looked) -> Image {
    let id = image.id.to_string();
    Image {
        repo_tags: image.references.iter().map(ToString::to_string).collect(),
        repo_digests: image.digests.iter().map(ToString::to_string).collect(),
        size: image.size,
        pinned: looked.provided.contains(&id),
        user: image.config.user.clone(),
        id: ImageId(id),
    }
}
