//! A kubeconfig for one user of one API server.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::certificate::Identity;
use crate::files::{self, Mode, PkiError};

/// The first line of a file that may be replaced.
const HEADER: &str = "# Written by mainstay, which replaces it when it changes.\n";
/// The name of the cluster and of the context.
const CLUSTER: &str = "mainstay";

/// What a kubeconfig says.
#[derive(Clone, Copy, Debug)]
pub struct Kubeconfig<'a> {
    /// Where the API server is: `https://127.0.0.1:6443`.
    pub server: &'a str,
    /// Whom to trust, PEM.
    pub authority_pem: &'a str,
    /// The name that the file has for the user.
    pub user: &'a str,
    /// How the user shows itself.
    pub identity: &'a Identity,
}

/// What [`Kubeconfig::write`] did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Written {
    /// The file is new or other than it was.
    Changed,
    /// The file said that already.
    Unchanged,
}

/// Why a kubeconfig was not written.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// There is a file that mainstay has not written.
    #[error(
        "{} is there and was not written by mainstay; name another file, and use both with \
         KUBECONFIG={}:OTHER",
        path.display(), path.display()
    )]
    SomebodyElses {
        /// The file.
        path: PathBuf,
    },
    /// The directory is not there.
    #[error("the directory of {} is not there; make it first", path.display())]
    NoDirectory {
        /// The file.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("writing the kubeconfig failed")]
    File(#[source] PkiError),
}

impl Kubeconfig<'_> {
    /// The text of the file.
    pub fn render(&self) -> String {
        // A JSON string is a YAML string.
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let encoded = |text: &str| STANDARD.encode(text);
        format!(
            "{HEADER}\
             apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: {CLUSTER}\n  \
               cluster:\n    \
                 certificate-authority-data: {authority}\n    \
                 server: {server}\n\
             contexts:\n\
             - name: {CLUSTER}\n  \
               context:\n    \
                 cluster: {CLUSTER}\n    \
                 user: {user}\n\
             current-context: {CLUSTER}\n\
             preferences: {{}}\n\
             users:\n\
             - name: {user}\n  \
               user:\n    \
                 client-certificate-data: {certificate}\n    \
                 client-key-data: {key}\n",
            authority = encoded(self.authority_pem),
            server = quoted(self.server),
            user = quoted(self.user),
            certificate = encoded(self.identity.certificate_pem()),
            key = encoded(self.identity.key_pem()),
        )
    }

    /// Writes the file, 0600, unless it says that already. What a symbolic link names is written where the
    /// link leads.
    ///
    /// # Errors
    ///
    /// When a file is there that has not been written here, as it may hold the only key to another
    /// cluster; when the directory is not there; when writing fails.
    pub fn write(&self, path: &Path) -> Result<Written, KubeconfigError> {
        let path = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            Err(error) => {
                return Err(KubeconfigError::File(files::at("looking for", path)(error)));
            }
        };
        let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        if directory.is_some_and(|directory| !directory.is_dir()) {
            return Err(KubeconfigError::NoDirectory { path });
        }
        let content = self.render();
        if let Some(found) = read(&path)? {
            if found == content {
                // Somebody may have made it readable.
                files::restrict_key(&path).map_err(KubeconfigError::File)?;
                return Ok(Written::Unchanged);
            }
            if !found.trim().is_empty() && !found.starts_with(HEADER) {
                return Err(KubeconfigError::SomebodyElses { path });
            }
        }
        files::write(&path, &content, Mode::Secret).map_err(KubeconfigError::File)?;
        Ok(Written::Changed)
    }
}

/// What a kubeconfig that was written here says.
pub struct ReadKubeconfig {
    /// Where the API server is, such as `https://127.0.0.1:6443`.
    pub server: String,
    /// Whom to trust.
    pub authority: Vec<CertificateDer<'static>>,
    /// The user's certificate.
    pub certificate: CertificateDer<'static>,
    /// The key to it.
    pub key: PrivatePkcs8KeyDer<'static>,
}

impl ReadKubeconfig {
    /// Reads a file that [`Kubeconfig::write`] has written, which is all of YAML that this knows. `None` of
    /// others.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix(HEADER)?;
        let value = |key: &str| {
            let mut found = text.lines().filter_map(|line| line.trim_start().strip_prefix(key));
            found.find_map(|rest| rest.strip_prefix(": "))
        };
        let data = |key: &str| STANDARD.decode(value(key)?).ok();
        let authority = data("certificate-authority-data")?;
        let authority =
            CertificateDer::pem_slice_iter(&authority).collect::<Result<_, _>>().ok()?;
        Some(Self {
            server: serde_json::from_str(value("server")?).ok()?,
            authority,
            certificate: CertificateDer::from_pem_slice(&data("client-certificate-data")?).ok()?,
            key: PrivatePkcs8KeyDer::from_pem_slice(&data("client-key-data")?).ok()?,
        })
    }
}

/// The file, if it is there; one that is no text is not ours.
fn read(path: &Path) -> Result<Option<String>, KubeconfigError> {
    match fs::metadata(path) {
        Ok(file) if file.len() == 0 => return Ok(Some(String::new())),
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(KubeconfigError::File(files::at("looking at", path)(error))),
    }
    let found = files::read(path).map_err(KubeconfigError::File)?;
    // An empty answer is one that could not be read as text: the file has a length.
    Ok(found.map(|text| if text.is_empty() { "?".to_owned() } else { text }))
}

#[cfg(test)]
mod tests;
