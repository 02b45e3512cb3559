//! The image half of the contract.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use futures_core::future::BoxFuture;

use crate::Result;

/// Images on this machine. Source: service `ImageService` in `runtime/v1/api.proto`.
#[async_trait]
pub trait Images: Send + Sync {
    /// The image that a reference, digest or id stands for, if it is here.
    async fn image_status(&self, image: &ImageSpec) -> Result<Option<Image>>;

    /// Fetches an image from its registry. Callers of the same image share one transfer, and a
    /// call that is dropped does not end it for the others.
    async fn pull_image(&self, request: &PullRequest) -> Result<ImageId>;

    /// All images.
    async fn list_images(&self) -> Result<Vec<Image>>;

    /// Removes an image, or one of its references. Idempotent.
    async fn remove_image(&self, image: &ImageSpec) -> Result<()>;

    /// Resolves when images may have come or gone, after this call, by another hand than this
    /// trait's, such as a file imported by a command. The caller then asks anew for what it was
    /// missing.
    fn changed(&self) -> BoxFuture<'static, ()>;

    /// What is wrong with images of this machine, in sentences that name the file and the remedy;
    /// nothing when all is well. Not in the protocol, whose runtimes have nothing to say.
    async fn problems(&self) -> Vec<String>;

    /// By what somebody imports an image from a file here, as the end of a sentence.
    fn importer(&self) -> &'static str {
        "`mainstay image import`"
    }
}

/// How a manifest names an image: reference, digest or id, as written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageSpec(pub String);

/// The runtime's own name for an image: the digest of its configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageId(pub String);

impl fmt::Display for ImageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ImageSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    /// The image.
    pub image: ImageSpec,
    /// Credentials of whom it is fetched for. They count before the runtime's own. The protocol has one
    /// `AuthConfig` in their place: a client of it chooses, and calls anew with the next.
    pub secrets: Vec<PullSecret>,
    /// How long the registry may take to say what the name stands for; the transfer itself may
    /// take longer. `None` is the runtime's own limits. A runtime that cannot tell the two apart
    /// applies it to both. Not in the protocol.
    pub patience: Option<Duration>,
}

/// Credentials for registries, from outside the runtime.
#[derive(Clone, PartialEq, Eq)]
pub struct PullSecret {
    /// What to call it in messages.
    pub name: String,
    /// A `config.json` in Docker's format, of which `auths` counts and nothing else: nobody but the machine's
    /// owner names programs to be run on it.
    pub config: Vec<u8>,
}

/// What it says is nobody's business.
impl fmt::Debug for PullSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PullSecret({:?}, ...)", self.name)
    }
}

/// Source: `Image`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of the image's configuration.
    pub id: ImageId,
    /// `name:tag` references.
    pub repo_tags: Vec<String>,
    /// `name@digest` references.
    pub repo_digests: Vec<String>,
    /// Bytes on disk.
    pub size: u64,
    /// Whether the node wants it to stay, as the images of its own image directory.
    pub pinned: bool,
    /// The user that the image asks for: `user`, `uid`, either with `:group`, or empty.
    pub user: String,
}
