//! Credentials for registries, in files as Docker has them, and from programs.

use std::io;
use std::path::PathBuf;

use mainstay_cri::{Error, ErrorKind, ImageSpec, PullSecret};
use mainstay_image::reference::Reference;
use mainstay_image::registry::{Credentials, Helper, HelperError, Keyring, KeyringError};

use super::program::{self, Answer};
use super::providers::CredentialProviders;

/// A file with credentials that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyringsError {
    /// It is there and cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not what `docker login` writes.
    #[error("{} is not a file of credentials in Docker's format", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: KeyringError,
    },
    /// What a pull brought along is not what `docker login` writes.
    #[error("the secret {name} has no credentials in Docker's format")]
    Secret {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: KeyringError,
    },
}

/// Where credentials come from: what was configured, then files, which are read anew for each
/// pull, so that a login counts at once, then programs.
#[derive(Clone, Debug, Default)]
pub struct Keyrings {
    /// From the configuration.
    pub configured: Keyring,
    /// Files such as `/root/.docker/config.json`; absent ones have nothing.
    pub files: Vec<PathBuf>,
    /// Programs as a kubelet has them.
    pub providers: CredentialProviders,
}

impl Keyrings {
    /// What an image's name refers to, and all credentials for it as they are now: those of `secrets`, then
    /// the machine's own. `hosts` tells which may be asked for it, as `Puller::hosts` of `mainstay-image` does.
    ///
    /// # Errors
    ///
    /// When the name is none, and as of [`Self::of`].
    pub async fn of_image(
        &self,
        image: &ImageSpec,
        hosts: impl FnOnce(&Reference) -> Vec<String>,
        secrets: &[PullSecret],
    ) -> Result<(Reference, Keyring), Error> {
        let name = &image.0;
        let reference: Reference = name.parse().map_err(|error| {
            let message = format!("{name:?} is not the name of an image");
            Error::with_source(ErrorKind::InvalidArgument, message, error)
        })?;
        let keyring = self.of(&hosts(&reference), &reference, secrets).await.map_err(|error| {
            let message = "cannot read the registries' credentials";
            Error::with_source(ErrorKind::InvalidArgument, message, error)
        })?;
        Ok((reference, keyring))
    }

    /// All credentials for an image as they are now. `hosts` are those that may be asked for it.
    ///
    /// Source for the order: `makeLookupPullCredentialsFunc` in `pkg/kubelet/images/image_manager.go`.
    ///
    /// # Errors
    ///
    /// When a file or a secret is there and cannot be used. A program that fails is told of in the
    /// keyring, and of no interest to a registry that wants no credentials.
    pub async fn of(
        &self,
        hosts: &[String],
        reference: &Reference,
        secrets: &[PullSecret],
    ) -> Result<Keyring, KeyringsError> {
        let mut brought = Keyring::anonymous();
        for PullSecret { name, config } in secrets {
            let keyring = Keyring::parse_auths(config)
                .map_err(|source| KeyringsError::Secret { name: name.clone(), source })?;
            brought = brought.merged(keyring);
        }
        let mut own = self.own().await?;
        for host in hosts {
            if let Some(helper) = own.helper(host, reference.path()) {
                let answer = ask(&helper, host).await;
                own.take_in(host, answer);
            }
        }
        let (mut provided, failed) = self.providers.ask(reference).await;
        for (program, reason) in failed {
            let registry = reference.domain().to_owned();
            let error = HelperError { registry, program, reason };
            tracing::warn!("{error}");
            provided.take_in(reference.domain(), Err(error));
        }
        Ok(brought.before(own.before(provided)))
    }

    async fn own(&self) -> Result<Keyring, KeyringsError> {
        let mut all = self.configured.clone();
        for path in &self.files {
            let bytes = match tokio::fs::read(path).await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => {
                    other.map_err(|source| KeyringsError::Read { path: path.clone(), source })?
                }
            };
            let keyring = Keyring::parse(&bytes)
                .map_err(|source| KeyringsError::Parse { path: path.clone(), source })?;
            all = all.merged(keyring);
        }
        Ok(all)
    }
}

/// Asks Docker's way.
async fn ask(helper: &Helper, host: &str) -> Result<Option<Credentials>, HelperError> {
    let program = helper.program().unwrap_or_else(|| helper.name.clone());
    let failed = |reason: String| {
        let error = HelperError { registry: host.to_owned(), program: program.clone(), reason };
        tracing::warn!("{error}");
        error
    };
    if helper.program().is_none() {
        return Err(failed("that is not the name of a credential helper".to_owned()));
    }
    let input = format!("{}\n", helper.server);
    let answer = program::run(&program, &["get".to_owned()], &[], input.as_bytes()).await;
    let Answer { success, output, complaint } = answer.map_err(&failed)?;
    Helper::answer(success, &output).map_err(|reason| match complaint.as_str() {
        "" => failed(reason.to_owned()),
        complaint => failed(format!("{reason}: {complaint}")),
    })
}
