//! The probe that runs a command in the container.
//!
//! Source: `pkg/probe/exec/exec.go`, and `ExecSync` in
//! `staging/src/k8s.io/cri-client/pkg/remote_runtime.go`.

use std::time::Duration;

use mainstay_cri::{ContainerId, ErrorKind, ExecSync, ExecSyncRequest, Runtime};
use tokio::time::timeout;

use super::answer::{Answer, MOST};
use crate::publish;

/// How long a runtime may take to begin a command and to end it. Source: `--runtime-request-timeout`.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn ask(
    runtime: &dyn Runtime,
    container: &ContainerId,
    command: Vec<String>,
    limit: Duration,
) -> Answer {
    let line = command.join(" ");
    let late = || {
        let limit = publish::duration(limit);
        Answer::Failure(format!("command timed out: {line:?} timed out after {limit}"))
    };
    let request = ExecSyncRequest { container: container.clone(), command, timeout: Some(limit) };
    match timeout(limit + PATIENCE, runtime.exec_sync(&request)).await {
        Ok(Ok(ExecSync { exit_code: 0, .. })) => Answer::Success,
        Ok(Ok(ExecSync { mut stdout, stderr, .. })) => {
            stdout.extend(stderr);
            stdout.truncate(MOST);
            Answer::Failure(String::from_utf8_lossy(&stdout).into_owned())
        }
        Ok(Err(error)) if error.kind == ErrorKind::DeadlineExceeded => late(),
        Ok(Err(error)) => Answer::Error { state: "unknown", message: error.chain() },
        Err(_) => late(),
    }
}
