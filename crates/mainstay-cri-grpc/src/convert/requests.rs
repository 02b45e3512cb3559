//! Commands and attachments.

use std::time::Duration;

use mainstay_cri::{AttachRequest, ContainerId, ExecRequest, ExecSync, ExecSyncRequest};

use super::signed;
use crate::wire;

impl From<&ExecRequest> for wire::ExecRequest {
    fn from(request: &ExecRequest) -> Self {
        Self {
            container_id: request.container.0.clone(),
            cmd: request.command.clone(),
            tty: request.tty,
            stdin: request.stdin,
            stdout: true,
            stderr: !request.tty,
        }
    }
}

/// Which outputs are wanted is for the server to look at.
impl From<wire::ExecRequest> for ExecRequest {
    fn from(request: wire::ExecRequest) -> Self {
        Self {
            container: ContainerId(request.container_id),
            command: request.cmd,
            tty: request.tty,
            stdin: request.stdin,
        }
    }
}

impl From<&ExecSyncRequest> for wire::ExecSyncRequest {
    fn from(request: &ExecSyncRequest) -> Self {
        Self {
            container_id: request.container.0.clone(),
            cmd: request.command.clone(),
            timeout: request.timeout.map_or(0, seconds),
        }
    }
}

impl From<wire::ExecSyncRequest> for ExecSyncRequest {
    fn from(request: wire::ExecSyncRequest) -> Self {
        let timeout = u64::try_from(request.timeout).ok().filter(|it| *it > 0);
        Self {
            container: ContainerId(request.container_id),
            command: request.cmd,
            timeout: timeout.map(Duration::from_secs),
        }
    }
}

/// Whole seconds, and not less: 0 would be no limit.
pub(crate) fn seconds(duration: Duration) -> i64 {
    signed(duration.as_secs() + u64::from(duration.subsec_nanos() > 0))
}

impl From<wire::ExecSyncResponse> for ExecSync {
    fn from(wire::ExecSyncResponse { stdout, stderr, exit_code }: wire::ExecSyncResponse) -> Self {
        Self { stdout, stderr, exit_code }
    }
}

impl From<ExecSync> for wire::ExecSyncResponse {
    fn from(ExecSync { stdout, stderr, exit_code }: ExecSync) -> Self {
        Self { stdout, stderr, exit_code }
    }
}

impl From<&AttachRequest> for wire::AttachRequest {
    fn from(request: &AttachRequest) -> Self {
        Self {
            container_id: request.container.0.clone(),
            stdin: request.stdin,
            tty: request.tty,
            stdout: request.stdout,
            stderr: request.stderr && !request.tty,
        }
    }
}

impl From<wire::AttachRequest> for AttachRequest {
    fn from(request: wire::AttachRequest) -> Self {
        Self {
            container: ContainerId(request.container_id),
            stdin: request.stdin,
            tty: request.tty,
            stdout: request.stdout,
            stderr: request.stderr,
        }
    }
}
