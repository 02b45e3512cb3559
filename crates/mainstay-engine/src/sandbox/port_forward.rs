//! Connecting to a port inside a sandbox.
//!
//! Source: `internal/cri/server/sandbox_portforward_linux.go` of containerd, for what is tried and
//! what is said when nobody listens.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use mainstay_cri::{Error, ErrorKind, NamespaceMode, PortForward, Result, SandboxId};
use mainstay_linux::namespace;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use tokio::net::TcpSocket;
use tokio::time::timeout;

use crate::{Instance, io_failed};

/// How long each of the two connections may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Connects to `localhost` as the sandbox sees it, by IPv4 and then by IPv6.
pub(crate) async fn port_forward(
    engine: &Arc<Instance>,
    id: &SandboxId,
    port: u16,
) -> Result<PortForward> {
    let network = network(engine, id)?.map(Arc::new);
    let mut refusals = Vec::new();
    for address in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
        let address = SocketAddr::new(address, port);
        match connect(network.clone(), address).await {
            Ok(stream) => return Ok(Box::pin(stream)),
            Err(error) => refusals.push(error),
        }
    }
    let said: Vec<String> = refusals
        .into_iter()
        .zip([
            ("IPv4", "tcp4", format!("127.0.0.1:{port}")),
            ("IPv6", "tcp6", format!("[::1]:{port}")),
        ])
        .map(|(error, (family, network, address))| {
            format!("{family}: dial {network} {address}: connect: {}", reason(&error))
        })
        .collect();
    let message = format!(
        "failed to connect to localhost:{port} inside namespace \"{id}\", {}",
        said.join(" ")
    );
    let place = if network.is_some() { id.0.as_str() } else { "host" };
    let source = Error::new(ErrorKind::Unavailable, message);
    Err(Error::with_source(
        ErrorKind::Unavailable,
        format!("failed to execute portforward in network namespace \"{place}\""),
        source,
    ))
}

/// The sandbox's own network; `None` if it is the host's.
fn network(engine: &Instance, id: &SandboxId) -> Result<Option<OwnedFd>> {
    let sandbox = engine.sandbox(id)?;
    let (mode, shim) = {
        let state = sandbox.state();
        (state.record.namespaces.network, state.record.shim)
    };
    if mode == NamespaceMode::Node {
        return Ok(None);
    }
    let gone = || {
        let message = format!("network namespace for sandbox \"{id}\" is closed");
        Error::new(ErrorKind::FailedPrecondition, message)
    };
    let shim = shim.ok_or_else(gone)?;
    let network = namespace::network_of(shim.pid).map_err(|_| gone())?;
    // After it was opened, so that it cannot be that of another process.
    shim.open().ok_or_else(gone)?;
    Ok(Some(network))
}

async fn connect(
    network: Option<Arc<OwnedFd>>,
    to: SocketAddr,
) -> io::Result<tokio::net::TcpStream> {
    let socket = match network {
        // It is made by a thread that is inside, and stays there wherever it is used.
        Some(network) => {
            let made = crate::blocking(move || {
                namespace::in_network(network.as_fd(), || socket(to))
                    .map_err(io_failed("cannot make a socket in the pod's network"))
            });
            made.await.map_err(io::Error::other)?
        }
        None => socket(to)?,
    };
    let socket = TcpSocket::from_std_stream(TcpStream::from(socket));
    let connected = timeout(PATIENCE, socket.connect(to)).await;
    let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
    // Both sides are people's programs that may send single keys.
    stream.set_nodelay(true)?;
    Ok(stream)
}

fn socket(to: SocketAddr) -> io::Result<OwnedFd> {
    let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(family, SocketType::STREAM, flags, None)?)
}

/// A refusal in the words that people search for, which are those of the C library in small
/// letters.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        io::ErrorKind::AddrNotAvailable => "cannot assign requested address".to_owned(),
        _ => error.to_string(),
    }
}
