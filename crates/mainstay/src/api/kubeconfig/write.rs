//! The kubeconfig of a node that has got its certificate.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context;
use serde_json::json;

use super::Kubeconfig;

/// Writes one for the cluster of `bootstrap`, whose user shows what is in the file `certificate`, 0600.
/// Source: `writeKubeconfigFromBootstrapping` in `pkg/kubelet/certificate/bootstrap/bootstrap.go`.
///
/// # Errors
///
/// When it cannot be written; it names the file.
pub(in crate::api) fn write(
    path: &Path,
    bootstrap: &Kubeconfig,
    certificate: &Path,
) -> anyhow::Result<()> {
    let certificate = certificate.to_string_lossy();
    let all = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {},
        "clusters": [{ "name": "default-cluster", "cluster": bootstrap.cluster }],
        "users": [{
            "name": "default-auth",
            "user": { "client-certificate": certificate, "client-key": certificate },
        }],
        "contexts": [{
            "name": "default-context",
            "context": {
                "cluster": "default-cluster",
                "user": "default-auth",
                "namespace": "default",
            },
        }],
        "current-context": "default-context",
    });
    // JSON is YAML.
    let text = format!("{}\n", serde_json::to_string_pretty(&all)?);
    replace(path, &text).with_context(|| format!("cannot write {}", path.display()))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let path = match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
        other => other?,
    };
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let staged = path.with_file_name(name);
    match fs::remove_file(&staged) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&staged, path)
}
