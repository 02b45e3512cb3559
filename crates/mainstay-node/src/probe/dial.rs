//! Connecting, with the words of Go's `net` for what goes wrong; and the probe that does no more.
//!
//! Source: `pkg/probe/tcp/tcp.go`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use mainstay_plan::probe::join_host_port;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::answer::Answer;

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum DialError {
    /// Its time was over.
    TimedOut(String),
    /// Anything else.
    Failed(String),
}

impl fmt::Display for DialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::TimedOut(text) | Self::Failed(text)) = self;
        f.write_str(text)
    }
}

/// Whether somebody listens.
pub(super) async fn ask(host: &str, port: u16, limit: Duration) -> Answer {
    match dial(host, port, Instant::now() + limit).await {
        Ok(_) => Answer::Success,
        Err(error) => Answer::Failure(error.to_string()),
    }
}

/// Connects to a name or an address.
pub(crate) async fn dial(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, DialError> {
    let late = |address: &str| DialError::TimedOut(format!("dial tcp {address}: i/o timeout"));
    let addresses: Vec<SocketAddr> = match host.parse::<IpAddr>() {
        Ok(ip) => vec![SocketAddr::new(ip, port)],
        // A node that has no address has pods on its network all the same.
        Err(_) if host.is_empty() => [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
            .map(|ip: IpAddr| SocketAddr::new(ip, port))
            .into(),
        Err(_) => {
            let found = timeout_at(deadline, tokio::net::lookup_host((host, port))).await;
            let missing = || DialError::Failed(format!("dial tcp: lookup {host}: no such host"));
            match found {
                Err(_) => return Err(late(&join_host_port(host, port))),
                Ok(found) => found.map_err(|_| missing())?.collect(),
            }
        }
    };
    let mut first = None;
    for address in addresses {
        match timeout_at(deadline, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => {
                let error = format!("dial tcp {address}: connect: {}", errno(&error));
                first.get_or_insert(error);
            }
            Err(_) => return Err(late(&address.to_string())),
        }
    }
    let none = || format!("dial tcp: lookup {host}: no such host");
    Err(DialError::Failed(first.unwrap_or_else(none)))
}

/// An error of the system as Go says it: `connection refused`.
pub(super) fn errno(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    let first = letters.next().map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(letters).collect()
}
