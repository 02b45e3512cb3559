//! Credentials for registries, in files as Docker has them.

use std::fs;
use std::io;
use std::path::PathBuf;

use mainstay_cri::PullSecret;
use mainstay_image::registry::{Keyring, KeyringError};

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
/// pull, so that a login counts at once.
#[derive(Clone, Debug, Default)]
pub struct Keyrings {
    /// From the configuration.
    pub configured: Keyring,
    /// Files such as `/root/.docker/config.json`; absent ones have nothing.
    pub files: Vec<PathBuf>,
}

impl Keyrings {
    /// All credentials as they are now: those of `secrets`, then the machine's own.
    ///
    /// # Errors
    ///
    /// When a file or a secret is there and cannot be used.
    pub fn read(&self, secrets: &[PullSecret]) -> Result<Keyring, KeyringsError> {
        let mut brought = Keyring::anonymous();
        for PullSecret { name, config } in secrets {
            let keyring = Keyring::parse_auths(config)
                .map_err(|source| KeyringsError::Secret { name: name.clone(), source })?;
            brought = brought.merged(keyring);
        }
        Ok(brought.before(self.own()?))
    }

    fn own(&self) -> Result<Keyring, KeyringsError> {
        let mut all = self.configured.clone();
        for path in &self.files {
            let bytes = match fs::read(path) {
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
