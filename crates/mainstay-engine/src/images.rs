//! Images as the contract has them.

use std::sync::Arc;

use async_trait::async_trait;
use mainstay_cri::{Error, ErrorKind, Image, ImageId, ImageSpec, Images, PullRequest, Result};
use mainstay_image::store::{Image as Stored, Store, StoreError};

use crate::{blocking, failed};

/// The images of an instance, for the agent.
pub struct EngineImages {
    store: Arc<Store>,
}

impl EngineImages {
    /// Images in `store`.
    pub fn new(store: Arc<Store>) -> Self {
        Self { store }
    }
}

#[async_trait]
impl Images for EngineImages {
    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>> {
        let (store, name) = (self.store.clone(), image.0.clone());
        blocking(move || {
            let found = store.find(&name).map_err(lookup_failed(&name))?;
            Ok(found.as_ref().map(image_of))
        })
        .await
    }

    async fn pull_image(&self, request: &PullRequest) -> Result<ImageId> {
        let message = format!("image {} is not here, and pulling comes later", request.image);
        Err(Error::new(ErrorKind::RegistryUnavailable, message))
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        let store = self.store.clone();
        blocking(move || {
            let (images, _) = store.list().map_err(failed("cannot list the images"))?;
            Ok(images.iter().map(image_of).collect())
        })
        .await
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        let (store, name) = (self.store.clone(), image.0.clone());
        blocking(move || match store.remove(&name) {
            Ok(_) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed(format!("cannot remove image {name}"))(error)),
        })
        .await
    }

    async fn changed(&self) {
        std::future::pending::<()>().await;
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

fn image_of(image: &Stored) -> Image {
    Image {
        id: ImageId(image.id.to_string()),
        repo_tags: image.references.iter().map(ToString::to_string).collect(),
        repo_digests: image.digests.iter().map(ToString::to_string).collect(),
        size: image.size,
        pinned: false,
        user: image.config.user.clone(),
    }
}
