//! Ports.

use std::sync::Arc;

use mainstay_cri::{PortForward, Runtime, SandboxId};
use mainstay_streams::port_forward::{Connection, Negotiated};
use mainstay_streams::remote_command::Timeouts;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy};
use tokio::task::JoinSet;

/// A request for ports of a sandbox that was granted.
#[derive(Debug)]
pub struct SandboxPorts {
    /// How client and server speak.
    pub negotiated: Negotiated,
    /// The sandbox.
    pub sandbox: SandboxId,
    /// Those that the request names, which [`Negotiated::check_ports`] has accepted.
    pub ports: Vec<u16>,
}

impl SandboxPorts {
    /// Connects the client with ports until it is gone.
    pub async fn serve<IO>(self, runtime: Arc<dyn Runtime>, io: IO, timeouts: Timeouts)
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let Self { negotiated, sandbox, ports } = self;
        let mut client = negotiated.port_forward(io, &ports, timeouts).await;
        let mut connections = JoinSet::new();
        while let Some(connection) = client.next().await {
            while connections.try_join_next().is_some() {}
            connections.spawn(forward(runtime.clone(), sandbox.clone(), connection));
        }
        // Those that are left are broken with the client's connection.
        let _ = client.close().await;
    }
}

async fn forward(runtime: Arc<dyn Runtime>, sandbox: SandboxId, connection: Connection) {
    let port = connection.port;
    let failed =
        |why: String| format!("error forwarding port {port} to pod {sandbox}, uid : {why}");
    match runtime.port_forward(&sandbox, port).await {
        Ok(stream) => pass(connection, stream, failed).await,
        Err(error) => connection.fail(&failed(error.chain())),
    }
}

/// Passes bytes on until both directions have ended, each by itself. The client is told what went wrong with
/// the pod's, in the words of `failed`.
async fn pass(connection: Connection, stream: PortForward, failed: impl Fn(String) -> String) {
    let (mut from_pod, to_pod) = tokio::io::split(stream);
    let mut up = JoinSet::new();
    {
        // The stream for errors is closed at the end of this block: kubectl closes its own connection
        // when that has ended, and not when the pod's data has.
        let (data, trouble) = connection.split();
        let (from_client, mut to_client) = tokio::io::split(data);
        up.spawn(copy_to_end(from_client, to_pod));
        // Whoever is gone is noticed by the other.
        if let Err(error) = copy(&mut from_pod, &mut to_client).await {
            trouble.tell(&failed(mainstay_cri::chain(&error)));
        }
        let _ = to_client.shutdown().await;
    }
    up.join_next().await;
}

async fn copy_to_end(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let _ = copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}
