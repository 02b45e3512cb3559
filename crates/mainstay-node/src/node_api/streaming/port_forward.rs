//! `/portForward`

use std::sync::Arc;

use http::request::Parts;
use mainstay_cri::{PortForward, Runtime, SandboxId};
use mainstay_streams::port_forward::{Connection, Negotiated};
use mainstay_streams::remote_command::Timeouts;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, copy};
use tokio::task::JoinSet;

use super::super::auth::Denial;
use super::super::pods::Pods;
use super::super::route::Target;
use super::{NoSession, Upgraded, denial, find, forwarding, sandbox};

/// A request for ports that can be granted.
pub(in super::super) struct PortForwarding {
    pub(super) negotiated: Negotiated,
    sandbox: SandboxId,
    ports: Vec<u16>,
}

/// Reads a request for ports.
///
/// # Errors
///
/// 400 for ports that are none or a request that is no upgrade, 404 without such a pod, 500 when
/// the pod does not run.
pub(super) async fn port_forward(
    runtime: &dyn Runtime,
    pods: &dyn Pods,
    target: &Target,
    parts: &Parts,
    query: &[(String, String)],
) -> Result<PortForwarding, NoSession> {
    let ports = ports(query)?;
    let pod = find(pods, target)?;
    if !pod.has_uid(&target.uid) {
        return Err(denial(404, "pod not found").into());
    }
    let negotiated = forwarding::negotiate(parts).map_err(NoSession::Refusal)?;
    negotiated.check_ports(&ports).map_err(NoSession::Refusal)?;
    let sandbox = sandbox(runtime, &pod).await.map_err(|error| denial(500, error.chain()))?;
    let sandbox = sandbox.ok_or_else(|| {
        denial(500, format!("pod not found (\"{}_{}\")", target.pod, target.namespace))
    })?;
    Ok(PortForwarding { negotiated, sandbox: sandbox.sandbox.id, ports })
}

impl PortForwarding {
    /// Serves a client until it is gone.
    pub(super) async fn serve(self, runtime: Arc<dyn Runtime>, io: Upgraded) {
        let Self { negotiated, sandbox, ports } = self;
        let mut client = negotiated.port_forward(io, &ports, Timeouts::default()).await;
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
    match runtime.port_forward(&sandbox, port).await {
        Ok(stream) => pass(connection, stream).await,
        Err(error) => connection.fail(&format!(
            "error forwarding port {port} to pod {sandbox}, uid : {}",
            error.chain()
        )),
    }
}

/// Passes bytes on until both directions have ended, each by itself.
async fn pass(connection: Connection, stream: PortForward) {
    let (mut from_pod, to_pod) = tokio::io::split(stream);
    let mut up = JoinSet::new();
    {
        // What is left of it, the stream for errors, is closed at the end of this block: kubectl
        // closes its own connection when that has ended, and not when the pod's data has.
        let connection = connection;
        let (from_client, mut to_client) = tokio::io::split(connection.data);
        up.spawn(copy_to_end(from_client, to_pod));
        // Whoever is gone is noticed by the other.
        let _ = copy(&mut from_pod, &mut to_client).await;
        let _ = to_client.shutdown().await;
    }
    up.join_next().await;
}

async fn copy_to_end(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let _ = copy(&mut from, &mut to).await;
    let _ = to.shutdown().await;
}

/// The ports that a query names. Source: `NewV4Options` in
/// `staging/src/k8s.io/cri-streaming/pkg/streaming/portforward/websocket.go`.
fn ports(query: &[(String, String)]) -> Result<Vec<u16>, Denial> {
    let mut ports = Vec::new();
    for (_, text) in query.iter().filter(|(name, _)| name == "port" || name == "ports") {
        if text.is_empty() {
            return Err(denial(400, "query parameter \"port\" cannot be empty"));
        }
        for part in text.split(',') {
            match part.parse() {
                Ok(0) => return Err(denial(400, format!("port \"{text}\" must be > 0"))),
                Ok(port) => ports.push(port),
                Err(_) => {
                    return Err(denial(400, format!("unable to parse \"{text}\" as a port")));
                }
            }
        }
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_from_a_query() {
        let check = |values: &[&str], expected: Result<&[u16], &str>| {
            let query: Vec<_> =
                values.iter().map(|value| ("port".to_owned(), (*value).to_owned())).collect();
            let got = ports(&query).map_err(|denial| denial.message);
            assert_eq!(got, expected.map(<[u16]>::to_vec).map_err(str::to_owned), "{values:?}");
        };
        check(&[], Ok(&[]));
        check(&["80", "81,82"], Ok(&[80, 81, 82]));
        check(&[""], Err("query parameter \"port\" cannot be empty"));
        check(&["0"], Err("port \"0\" must be > 0"));
        check(&["65536"], Err("unable to parse \"65536\" as a port"));
        check(&["80,"], Err("unable to parse \"80,\" as a port"));
    }
}
