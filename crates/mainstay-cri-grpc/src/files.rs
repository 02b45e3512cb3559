//! Work on files of this machine, for servers and as one.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use mainstay_cri::{Error, ErrorKind, Result};

/// Makes a directory for logs and those above it, which servers do not. Source:
/// `podLogsDirectory` and its like in `pkg/kubelet/kuberuntime`, with their rights.
pub(crate) async fn make_log_directory(path: &Path) -> Result<()> {
    let path = path.to_owned();
    blocking(move || {
        let made = DirBuilder::new().recursive(true).mode(0o755).create(&path);
        made.map_err(failed(&path, "make the directory for logs"))
    })
    .await
}

/// Gives an I/O error what was to be done with which file.
pub(crate) fn failed(path: &Path, step: &str) -> impl FnOnce(io::Error) -> Error {
    let message = format!("cannot {step} {}", path.display());
    move |error| Error::with_source(ErrorKind::Internal, message, error)
}

/// Runs it where it may take its time.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(Error::with_source(ErrorKind::Internal, "cannot see to files", error))
    })
}
