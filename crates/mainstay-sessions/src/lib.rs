//! Between a client of exec, attach or port-forward and a container.
//!
//! A request has been granted and its protocol agreed on; what is left is to take the connection over, to start
//! the command, and to pass bytes on until it has ended or the client is gone. A command whose client is gone
//! loses its streams; it is not killed.
//!
//! What is said of failures is what kubectl shows with a kubelet and containerd. Source:
//! `staging/src/k8s.io/cri-streaming/pkg/streaming`.

mod converse;
mod ports;

use std::sync::Arc;

use mainstay_cri::{AttachRequest, ContainerId, ExecRequest, Runtime};
use mainstay_streams::remote_command::{Negotiated, Options, Outcome, Timeouts};
use tokio::io::{AsyncRead, AsyncWrite};

pub use ports::SandboxPorts;

use converse::{Streams, attach_failed, converse, exec_failed};

/// Which streams a client is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Those of a command, which is started for it.
    Command(Vec<String>),
    /// The container's own.
    Container,
}

/// A request for streams of a container that was granted.
#[derive(Debug)]
pub struct ContainerStreams {
    /// How client and server speak.
    pub negotiated: Negotiated,
    /// The container.
    pub container: ContainerId,
    /// Whose streams they are.
    pub wanted: Wanted,
    /// Which of them.
    pub options: Options,
}

impl ContainerStreams {
    /// Gives the client its streams, until they have ended.
    pub async fn serve<IO>(self, runtime: Arc<dyn Runtime>, io: IO, timeouts: Timeouts)
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let Self { negotiated, container, wanted, options } = self;
        let client = match negotiated.remote_command(io, options, timeouts).await {
            Ok(client) => client,
            Err(error) => {
                tracing::debug!(%error, "a client did not come to have its streams");
                return;
            }
        };
        let Options { stdin, stdout, stderr, tty } = options;
        let begun = match wanted {
            Wanted::Command(command) => {
                let request = ExecRequest { container, command, tty, stdin };
                let begun = runtime.exec(&request).await.map(Streams::of_exec);
                begun.map_err(|error| exec_failed(&error))
            }
            Wanted::Container => {
                let request = AttachRequest { container, stdin, tty, stdout, stderr };
                let begun = runtime.attach(&request).await.map(Streams::of_attached);
                begun.map_err(|error| attach_failed(&error))
            }
        };
        match begun {
            Ok(streams) => converse(client, streams).await,
            Err(message) => {
                tracing::debug!(message, "a client gets no streams");
                // A client that is gone needs no word.
                let _ = client.finish.exit(&Outcome::Failed(message)).await;
            }
        }
    }
}
