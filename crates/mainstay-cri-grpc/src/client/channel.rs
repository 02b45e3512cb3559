//! Calls to a runtime, and what it means that one fails.

use std::path::PathBuf;
use std::time::Duration;

use mainstay_cri::Result;
use mainstay_grpc::{Answers, Code, Endpoint, Status};
use prost::Message;

use crate::convert::error_of;

/// The way to a runtime. There need be none yet, and it may go and come back.
#[derive(Debug)]
pub(crate) struct Channel(mainstay_grpc::Channel);

impl Channel {
    pub(crate) fn new(socket: PathBuf) -> Self {
        Self(mainstay_grpc::Channel::new(Endpoint::Unix(socket), "container runtime"))
    }

    /// Calls what has one answer. `limit` is for all of it; `None` is as long as it takes.
    pub(crate) async fn call<A: Message + Default>(
        &self,
        method: &'static str,
        request: &impl Message,
        limit: Option<Duration>,
    ) -> Result<A> {
        let answer = self.0.call(method, request, limit).await;
        answer.map_err(|status| error_of(self.explained(status)))
    }

    /// Calls what has many answers, for as long as they come.
    pub(crate) async fn follow(
        &self,
        method: &'static str,
        request: &impl Message,
    ) -> Result<Answers> {
        self.0.follow(method, request).await.map_err(error_of)
    }

    /// Says what is missing where a whole service is, or all of it still.
    fn explained(&self, status: Status) -> Status {
        // As containerd says that it has only just begun.
        if status.message.contains("server is not initialized yet") {
            return Status { code: Code::Unavailable, ..status };
        }
        let unknown =
            status.code == Code::Unimplemented && status.message.contains("unknown service");
        if !unknown {
            return status;
        }
        let message = format!(
            "the container runtime at {} does not serve version v1 of the CRI ({}): either it is too old \
             (containerd has it since 1.6, CRI-O since 1.20), or its CRI is switched off, as in the \
             disabled_plugins of /etc/containerd/config.toml",
            self.0.endpoint(),
            status.message
        );
        Status::new(Code::Unimplemented, message)
    }
}
