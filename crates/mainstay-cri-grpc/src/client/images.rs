//! Images at the server.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::future::BoxFuture;
use mainstay_cri::{
    Error, ErrorKind, Image, ImageId, ImageSpec, Images, PullRequest, PullSecret, Result,
};
use tokio::sync::watch;
use tokio::time::sleep;

use super::{Remote, gone_is_fine};
use crate::methods::{IMAGE_STATUS, LIST_IMAGES, PULL_IMAGE, REMOVE_IMAGE, STATUS};
use crate::wire;

/// How often is looked whether images came or went by another hand: servers do not tell.
const LOOK: Duration = Duration::from_secs(10);

/// Whom to be for a registry.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A user name and password.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// A token that the registry's token server exchanges for others.
    IdentityToken(String),
    /// A token to be shown to the registry itself.
    RegistryToken(String),
}

/// Secrets stay out of logs.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(...)")
    }
}

/// Chooses credentials, which is not the server's matter.
#[async_trait]
pub trait PullCredentials: Send + Sync {
    /// What to try for an image.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` when some cannot be read.
    async fn of(&self, image: &ImageSpec, secrets: &[PullSecret]) -> Result<Offer>;
}

/// What to try for an image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// In order; nothing means to ask as nobody.
    pub credentials: Vec<Credentials>,
    /// Why others could not be had, which is said when these are not enough.
    pub failure: Option<String>,
}

/// The images of a runtime behind a socket.
#[derive(Clone)]
pub struct RemoteImages {
    remote: Arc<Remote>,
    credentials: Arc<dyn PullCredentials>,
    /// Counts how often images came or went, once somebody wants to know.
    changes: Arc<Mutex<Option<watch::Receiver<u64>>>>,
}

impl RemoteImages {
    pub(super) fn new(remote: Arc<Remote>, credentials: Arc<dyn PullCredentials>) -> Self {
        Self { remote, credentials, changes: Arc::default() }
    }

    async fn pull(&self, request: &PullRequest, auth: Option<Credentials>) -> Result<ImageId> {
        let message = wire::PullImageRequest {
            image: Some((&request.image).into()),
            auth: auth.map(Into::into),
            sandbox_config: None,
        };
        // Source: `PullImage` of the kubelet's `remote_image.go`, which has no limit.
        let limit = request.patience;
        let pulled = self.remote.call_within(PULL_IMAGE, &message, limit).await;
        let pulled: wire::PullImageResponse = pulled.map_err(of_pull)?;
        Ok(ImageId(pulled.image_ref))
    }
}

/// Servers say it in their own words that a registry does not answer. Source: `core/remotes/docker` of
/// containerd, `dockerBase.doWithRetries`.
fn of_pull(error: Error) -> Error {
    let is_away =
        error.kind == ErrorKind::Internal && error.message.contains("failed to do request");
    if is_away { Error { kind: ErrorKind::RegistryUnavailable, ..error } } else { error }
}

impl From<Credentials> for wire::AuthConfig {
    fn from(credentials: Credentials) -> Self {
        match credentials {
            Credentials::Password { username, password } => {
                Self { username, password, ..Self::default() }
            }
            Credentials::IdentityToken(identity_token) => {
                Self { identity_token, ..Self::default() }
            }
            Credentials::RegistryToken(registry_token) => {
                Self { registry_token, ..Self::default() }
            }
        }
    }
}

#[async_trait]
impl Images for RemoteImages {
    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>> {
        let image = self.remote.image(image).await?;
        Ok(image.map(Into::into))
    }

    async fn pull_image(&self, request: &PullRequest) -> Result<ImageId> {
        let Offer { credentials, failure } =
            self.credentials.of(&request.image, &request.secrets).await?;
        let mut credentials = credentials.into_iter();
        let mut pulled = self.pull(request, credentials.next()).await;
        // Source: `PullImage` in `pkg/kubelet/kuberuntime/kuberuntime_image.go`.
        for credentials in credentials {
            if pulled.is_ok() {
                break;
            }
            pulled = self.pull(request, Some(credentials)).await;
        }
        match (pulled, failure) {
            (Err(error), Some(failure)) if error.kind != ErrorKind::RegistryUnavailable => {
                Err(Error { message: format!("{}: {failure}", error.message), ..error })
            }
            (pulled, _) => pulled,
        }
    }

    async fn list_images(&self) -> Result<Vec<Image>> {
        let all = self.remote.images().await?;
        let of_sandboxes = self.remote.sandbox_image().await?;
        let images = all.into_iter().map(|image| {
            let image = Image::from(image);
            let pinned = image.pinned || of_sandboxes.as_ref() == Some(&image.id.0);
            Image { pinned, ..image }
        });
        Ok(images.collect())
    }

    async fn remove_image(&self, image: &ImageSpec) -> Result<()> {
        let request = wire::RemoveImageRequest { image: Some(image.into()) };
        let removed = self.remote.call(REMOVE_IMAGE, &request).await;
        gone_is_fine(removed.map(|_: wire::RemoveImageResponse| ()))
    }

    fn changed(&self) -> BoxFuture<'static, ()> {
        let mut changes = self.changes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut changes = changes
            .get_or_insert_with(|| {
                let (tell, changes) = watch::channel(0);
                self.remote.tasks.spawn(look(Arc::downgrade(&self.remote), tell));
                changes
            })
            .clone();
        changes.mark_unchanged();
        Box::pin(async move {
            if changes.changed().await.is_err() {
                // The runtime is gone, so nothing will be told any more.
                std::future::pending::<()>().await;
            }
        })
    }

    async fn problems(&self) -> Vec<String> {
        Vec::new()
    }

    fn importer(&self) -> &'static str {
        "the container runtime's own command, such as `ctr --namespace k8s.io images import`"
    }
}

/// Looks which images there are, for as long as somebody wants to know.
async fn look(remote: Weak<Remote>, tell: watch::Sender<u64>) {
    let mut known: Option<BTreeSet<String>> = None;
    while !tell.is_closed() {
        let Some(remote) = remote.upgrade() else { return };
        // Whoever is away is missed by those who want pods to run.
        if let Ok(images) = remote.images().await {
            let names =
                images.into_iter().flat_map(|image| image.repo_tags.into_iter().chain([image.id]));
            let now: BTreeSet<String> = names.collect();
            if known.as_ref().is_some_and(|known| *known != now) {
                tell.send_modify(|count| *count += 1);
            }
            known = Some(now);
        }
        drop(remote);
        sleep(LOOK).await;
    }
}

impl Remote {
    async fn images(&self) -> Result<Vec<wire::Image>> {
        let listed: wire::ListImagesResponse =
            self.call(LIST_IMAGES, &wire::ListImagesRequest { filter: None }).await?;
        Ok(listed.images)
    }

    pub(super) async fn image(&self, image: &ImageSpec) -> Result<Option<wire::Image>> {
        Ok(self.ask_for_image(image, false).await?.image)
    }

    pub(super) async fn ask_for_image(
        &self,
        image: &ImageSpec,
        verbose: bool,
    ) -> Result<wire::ImageStatusResponse> {
        let request = wire::ImageStatusRequest { image: Some(image.into()), verbose };
        self.call(IMAGE_STATUS, &request).await
    }

    /// The id of the image that the server makes sandboxes of, which is not to be removed, if it tells:
    /// servers before containerd 1.7 do not say so of the image itself.
    async fn sandbox_image(&self) -> Result<Option<String>> {
        let status: wire::StatusResponse =
            self.call(STATUS, &wire::StatusRequest { verbose: true }).await?;
        let config = status.info.get("config").map_or("{}", String::as_str);
        let config = serde_json::from_str::<serde_json::Value>(config).unwrap_or_default();
        let name = config.get("sandboxImage").and_then(|name| name.as_str());
        let Some(name) = name.filter(|name| !name.is_empty()) else { return Ok(None) };
        Ok(self.image(&ImageSpec(name.to_owned())).await?.map(|image| image.id))
    }
}
