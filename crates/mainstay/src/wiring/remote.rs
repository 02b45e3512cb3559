//! A runtime that is another program.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use mainstay_cri::{ImageSpec, PullSecret, Result};
use mainstay_cri_grpc::{Credentials, Offer, PullCredentials, RemoteConfig, RemoteRuntime};
use mainstay_engine::Keyrings;
use mainstay_image::reference::Reference;
use mainstay_image::registry::Credentials as Known;

use super::{Below, NodeConfig, Purpose};
use crate::instance::{Instance, names_in};

/// The label by which an instance knows what is its own.
const MARK: &str = "mainstay.dev/instance";

/// The runtime that listens there, as an instance sees it. Nobody need listen yet.
pub(crate) fn runtime(instance: &Instance, socket: PathBuf, timeout: Duration) -> RemoteRuntime {
    RemoteRuntime::new(RemoteConfig {
        socket,
        mark: (MARK.to_owned(), instance.name()),
        sub_paths: instance.run_dir.join("sub-paths"),
        timeout,
    })
}

pub(super) fn below(config: &NodeConfig, socket: PathBuf) -> anyhow::Result<Below> {
    let (instance, timeout) = (&config.instance, config.config.runtime_request_timeout);
    let files = instance.image_files();
    if config.purpose == Purpose::Run && !names_in(&files)?.is_empty() {
        let directory = files.display();
        tracing::warn!(
            "the images in {directory} are not imported: the container runtime at {} has its own; for \
             containerd, `ctr --namespace k8s.io images import` does it",
            socket.display()
        );
    }
    let runtime = runtime(instance, socket, timeout);
    let images = runtime.images(Arc::new(KeyringCredentials(config.keyrings())));
    Ok(Below {
        runtime: Arc::new(runtime),
        images: Arc::new(images),
        network: None,
        engine: None,
        cri: None,
    })
}

/// Chooses credentials as the embedded runtime does for itself. Mirrors are a matter of the runtime.
struct KeyringCredentials(Keyrings);

#[async_trait]
impl PullCredentials for KeyringCredentials {
    async fn of(&self, image: &ImageSpec, secrets: &[PullSecret]) -> Result<Offer> {
        let hosts = |reference: &Reference| vec![reference.domain().to_owned()];
        let (reference, keyring) = self.0.of_image(image, hosts, secrets).await?;
        let found = keyring.find(reference.domain(), reference.path());
        let found = found.into_iter().map(|known| match known {
            Known::Password { username, password } => Credentials::Password { username, password },
            Known::IdentityToken(token) => Credentials::IdentityToken(token),
            Known::RegistryToken(token) => Credentials::RegistryToken(token),
        });
        let failure = keyring.failure(reference.domain()).map(|failure| failure.to_string());
        Ok(Offer { credentials: found.collect(), failure })
    }
}
