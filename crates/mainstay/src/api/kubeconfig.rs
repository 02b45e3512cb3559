//! Kubeconfigs that others write, for a node: those of kubeadm, k3s and clouds.
//!
//! What the current context says is taken, with the contents of all files that it names, so that two of them
//! that are equal mean the same. Relative paths are from the kubeconfig's directory.
//!
//! Source: `staging/src/k8s.io/client-go/tools/clientcmd`.

mod exec;
mod write;

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mainstay_pki::Identity;
use mainstay_proxy::Proxies;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;

use super::remote::Server;
use crate::config::read_value;

pub(super) use exec::{Brought, Exec};
pub(super) use write::write;

/// Bytes of one file that are read.
const MOST: u64 = 1 << 20;

/// What a user may have, and a node cannot be with.
const UNFIT: [(&str, &str); 5] = [
    ("auth-provider", "Kubernetes has none any more"),
    ("username", "Kubernetes knows nobody by a password any more"),
    ("password", "Kubernetes knows nobody by a password any more"),
    ("as", "a node is itself"),
    ("as-groups", "a node is itself"),
];

/// What the current context of a kubeconfig says.
#[derive(Clone, PartialEq)]
pub(super) struct Kubeconfig {
    pub(super) server: Server,
    /// The name that the server's certificate is for, if it is not that of the server.
    pub(super) server_name: Option<ServerName<'static>>,
    /// The proxy on the way to it, as it is written, which can be used.
    pub(super) proxy: Option<String>,
    pub(super) trusted: Trusted,
    /// Certificates, PEM, and a key.
    certificate: Option<(String, String)>,
    /// The file that the certificate is in, if it is in one.
    pub(super) certificate_file: Option<PathBuf>,
    pub(super) token: Option<String>,
    /// The program that brings them.
    pub(super) exec: Option<Exec>,
    /// The cluster's part of a kubeconfig, for one that is made from this one.
    cluster: Value,
}

/// Whose word is taken for who a server is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Trusted {
    /// These authorities'.
    Authorities(Vec<CertificateDer<'static>>),
    /// Those that the machine trusts.
    Machines,
    /// Anybody's.
    Anybody,
}

impl Kubeconfig {
    /// Reads a file, and those that it names.
    ///
    /// # Errors
    ///
    /// When a file cannot be read, is no kubeconfig, or says what a node cannot do. They name the file, and
    /// are [`Missing`] where that is all.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.display().to_string();
        let bytes = contents(path).map_err(missing("kubeconfig"));
        let bytes = bytes.with_context(|| format!("cannot read {name}"))?;
        let value = read_value(&name, &bytes)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        let read = Self::resolve(&value, directory).with_context(|| name.clone())?;
        if let Some((certificates, key)) = &read.certificate {
            let fits = Identity::of_pem(certificates, key).is_some();
            ensure!(fits, "{name}: the client's certificate and its key cannot be used together");
        }
        Ok(read)
    }

    fn resolve(value: &Value, directory: &Path) -> anyhow::Result<Self> {
        ensure!(value.is_object(), "it is no kubeconfig");
        let kind = value["kind"].as_str().unwrap_or("Config");
        ensure!(kind == "Config", "it is no kubeconfig, but of kind {kind:?}");
        let context = value["current-context"].as_str().unwrap_or_default();
        ensure!(
            !context.is_empty(),
            "it has no current-context; `kubectl config use-context NAME --kubeconfig FILE` sets it"
        );
        let context = named(value, "contexts", "context", context)?;
        let text = |of: &'static str| context[of].as_str().unwrap_or_default();
        let cluster = named(value, "clusters", "cluster", text("cluster"))?;
        let user = match text("user") {
            "" => &Value::Null,
            name => named(value, "users", "user", name)?,
        };
        let files = Files { directory };
        let server = said(cluster, "server").context("the cluster has no server")?;
        let server = Server::of_kubeconfig(server)?;
        let proxy = said(cluster, "proxy-url").map(str::to_owned);
        proxy.as_deref().map(Proxies::one).transpose().context("proxy-url")?;
        let server_name = said(cluster, "tls-server-name");
        let server_name = server_name.map(|name| ServerName::try_from(name.to_owned())).transpose();
        let authorities = files.data_or_file(cluster, "certificate-authority")?;
        let insecure = cluster["insecure-skip-tls-verify"] == true;
        ensure!(
            !insecure || authorities.is_none(),
            "specifying a root certificates file with the insecure flag is not allowed"
        );
        let trusted = match authorities {
            Some((pem, _)) => Trusted::Authorities(authorities_of(&pem)?),
            None if insecure => Trusted::Anybody,
            None => Trusted::Machines,
        };
        for (field, why) in UNFIT {
            let is_said = !matches!(&user[field], Value::Null) && user[field] != "";
            ensure!(!is_said, "the user has {field}: {why}");
        }
        let own = |field| files.data_or_file(user, field).map_err(missing("certificate"));
        let (certificate, key) = (own("client-certificate")?, own("client-key")?);
        let (certificate, certificate_file) = match (certificate, key) {
            (Some((certificate, file)), Some((key, _))) => (Some((certificate, key)), file),
            (None, None) => (None, None),
            (Some(_), None) => bail!("client-certificate needs client-key"),
            (None, Some(_)) => bail!("client-key needs client-certificate"),
        };
        // The file counts more, as with kubectl.
        let token = match said(user, "tokenFile") {
            Some(file) => Some(files.text(file).context("tokenFile")?.trim().to_owned()),
            None => said(user, "token").map(str::to_owned),
        };
        let has_line = token.as_ref().is_some_and(|it| it.is_empty() || it.contains(['\n', '\r']));
        ensure!(!has_line, "the token has to be one line");
        let exec = Exec::read(user, &files.absolute(cluster), directory)?;
        ensure!(
            exec.is_none() || (certificate.is_none() && token.is_none()),
            "the user has exec and other credentials, of which only one can count"
        );
        Ok(Self {
            server,
            server_name: server_name.context("tls-server-name")?,
            proxy,
            trusted,
            certificate,
            certificate_file,
            token,
            exec,
            cluster: files.absolute(cluster),
        })
    }

    /// With what a program has brought.
    ///
    /// # Errors
    ///
    /// When it cannot be used.
    pub(super) fn with(self, brought: Brought) -> anyhow::Result<Self> {
        let Brought { token, certificate, .. } = brought;
        if let Some((certificates, key)) = &certificate {
            let fits = Identity::of_pem(certificates, key).is_some();
            ensure!(fits, "exec: the certificate and the key cannot be used together");
        }
        Ok(Self { token, certificate, ..self })
    }

    /// The certificate that the user shows, if he has one.
    pub(super) fn identity(&self) -> Option<Identity> {
        let (certificates, key) = self.certificate.as_ref()?;
        Identity::of_pem(certificates, key)
    }
}

/// That the kubeconfig, or the client's certificate that it names, is not there: what errors are where it
/// can still come. Those of the other files are not, since nothing else comes in their place.
#[derive(Debug, thiserror::Error)]
#[error("there is no {0}")]
pub(super) struct Missing(&'static str);

/// Marks errors that are because a file is not there.
fn missing(what: &'static str) -> impl Fn(anyhow::Error) -> anyhow::Error {
    move |error| match error.downcast_ref::<io::Error>() {
        Some(it) if it.kind() == io::ErrorKind::NotFound => error.context(Missing(what)),
        _ => error,
    }
}

impl fmt::Debug for Kubeconfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kubeconfig").field("server", &self.server).finish_non_exhaustive()
    }
}

/// Files by names from a directory.
struct Files<'a> {
    directory: &'a Path,
}

impl Files<'_> {
    fn text(&self, name: &str) -> anyhow::Result<String> {
        let path = self.directory.join(name);
        let bytes = contents(&path).with_context(|| format!("cannot read {}", path.display()))?;
        String::from_utf8(bytes).with_context(|| format!("{} is no text", path.display()))
    }

    /// What `FIELD-data` has in it, or the file that `FIELD` names, and which that is.
    fn data_or_file(
        &self,
        of: &Value,
        field: &str,
    ) -> anyhow::Result<Option<(String, Option<PathBuf>)>> {
        let data = said(of, &format!("{field}-data"));
        match (data, said(of, field)) {
            (Some(_), Some(_)) => {
                bail!("{field}-data and {field} are both specified; {field}-data will override")
            }
            (Some(data), None) => {
                let bare: String = data.split_ascii_whitespace().collect();
                let bytes = STANDARD.decode(bare).ok().and_then(|it| String::from_utf8(it).ok());
                Ok(Some((
                    bytes.with_context(|| format!("{field}-data is no PEM in base64"))?,
                    None,
                )))
            }
            (None, Some(file)) => {
                let text = self.text(file).with_context(|| field.to_owned())?;
                Ok(Some((text, Some(self.directory.join(file)))))
            }
            (None, None) => Ok(None),
        }
    }

    /// A cluster whose file can be named from anywhere.
    fn absolute(&self, cluster: &Value) -> Value {
        let mut cluster = cluster.clone();
        if let Some(file) = said(&cluster, "certificate-authority") {
            let path = std::path::absolute(self.directory.join(file));
            let path = path.unwrap_or_else(|_| self.directory.join(file));
            cluster["certificate-authority"] = path.to_string_lossy().into();
        }
        cluster
    }
}

/// What stands under a name in one of the lists.
fn named<'a>(value: &'a Value, list: &str, kind: &str, name: &str) -> anyhow::Result<&'a Value> {
    ensure!(!name.is_empty(), "the context names no {kind}");
    let all = value[list].as_array().into_iter().flatten();
    let mut found = all.filter(|it| it["name"] == name);
    let found = found.next().with_context(|| format!("{kind} {name:?} does not exist"))?;
    Ok(&found[kind])
}

/// The text of a field, if it says something.
fn said<'a>(of: &'a Value, field: &str) -> Option<&'a str> {
    of[field].as_str().filter(|text| !text.is_empty())
}

fn authorities_of(pem: &str) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<Vec<_>, _>>();
    let all = all.ok().filter(|all| !all.is_empty());
    all.context("unable to load root certificates: certificate-authority has no certificate in PEM")
}

fn contents(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MOST + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= MOST, "it has more than {MOST} bytes");
    Ok(bytes)
}

#[cfg(test)]
mod tests;
