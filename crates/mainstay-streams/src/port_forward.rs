//! `port-forward`: many connections to the ports of a pod over one connection of a client.
//!
//! Source: `staging/src/k8s.io/cri-streaming/pkg/streaming/portforward`, and
//! `staging/src/k8s.io/client-go/tools/portforward` for the other end.

mod pairs;

use std::io;

use http::request::Parts;
use http::{Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::link::{Gone, Link, Timeouts};
use crate::pipe::{PipeHandle, PipeReader, PipeWriter, reads_its_pipe, writes_its_pipe};
use crate::spdy::connection::{self, Closing, Stream};
use crate::spdy::frame::GoAwayStatus;
use crate::upgrade::{self, Refusal, Transport};
use crate::websocket::channels::{self, Direction};
use crate::websocket::{CloseCode, Codec, close_frame, tunnel};
use pairs::{Half, Pairs};

/// What client and server agreed on.
#[derive(Debug)]
pub struct Negotiated {
    wire: Wire,
    response: Response<()>,
}

/// A client's connection, in which it opens connections to ports. Dropping it breaks all of
/// them at once.
#[derive(Debug)]
pub struct PortForward {
    link: Link,
    timeouts: Timeouts,
    source: Source,
}

/// A connection to one port.
#[derive(Debug)]
pub struct Connection {
    /// The port of the pod, never 0.
    pub port: u16,
    /// To and from the client. Its two directions end apart from each other.
    pub data: Data,
    /// Beside the data.
    error: PipeWriter,
}

/// Where a client hears that something went wrong with a connection. Dropping it says that nothing did.
#[derive(Debug)]
pub struct Trouble {
    error: PipeWriter,
}

/// The bytes of one connection.
///
/// An error when reading means that the client gave the connection up; an end without error
/// is one that the client wanted, who may still read. Shutting it down ends what the client
/// reads. Writing waits for the client when it is slow.
#[derive(Debug)]
pub struct Data {
    read: PipeReader,
    write: PipeWriter,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    Spdy,
    /// SPDY in WebSocket messages.
    Tunnel,
    /// One connection per port that the request names.
    Channels(Codec),
}

/// Where connections come from.
#[derive(Debug)]
enum Source {
    Spdy { opened: mpsc::Receiver<Stream<Half>>, pairs: Pairs, closing: Closing },
    Channels { waiting: std::vec::IntoIter<Connection>, handles: Vec<PipeHandle> },
}

/// Source: `staging/src/k8s.io/cri-streaming/pkg/streaming/portforward/constants.go`.
const SPDY_PROTOCOLS: [(&str, Wire); 1] = [("portforward.k8s.io", Wire::Spdy)];

const WEBSOCKET_PROTOCOLS: [(&str, Wire); 4] = [
    ("SPDY/3.1+portforward.k8s.io", Wire::Tunnel),
    ("v4.channel.k8s.io", Wire::Channels(Codec::Raw)),
    ("v4.base64.channel.k8s.io", Wire::Channels(Codec::Base64)),
    ("", Wire::Channels(Codec::Raw)),
];

/// Chooses the protocol for a request, or says how it is refused.
///
/// # Errors
///
/// When the request is no upgrade (400), broken (400, 405), or has no protocol in common (403).
pub fn negotiate(parts: &Parts) -> Result<Negotiated, Refusal> {
    let (wire, response) = match upgrade::transport(&parts.headers)? {
        Transport::Spdy => upgrade::spdy(parts, &SPDY_PROTOCOLS)?,
        Transport::WebSocket => upgrade::websocket(parts, &WEBSOCKET_PROTOCOLS)?,
    };
    Ok(Negotiated { wire, response })
}

// === impl Negotiated ===

impl Negotiated {
    /// Says whether the request has to name its ports, and whether these will do: only one of
    /// the protocols has them in the query, the others name a port with each connection.
    ///
    /// # Errors
    ///
    /// When there are none, or more than there are channels for (400).
    pub fn check_ports(&self, ports: &[u16]) -> Result<(), Refusal> {
        let Wire::Channels(codec) = self.wire else { return Ok(()) };
        let refused = |message| Err(Refusal::new(StatusCode::BAD_REQUEST, message));
        let most = codec.max_channels() / 2;
        if ports.is_empty() {
            return refused("query parameter \"ports\" is required".to_owned());
        }
        if ports.contains(&0) {
            return refused("port \"0\" must be > 0".to_owned());
        }
        if ports.len() > most {
            return refused(format!("query parameter \"ports\" has more than {most} ports"));
        }
        Ok(())
    }

    /// The answer to the request, after which the connection is upgraded. Its status is 101.
    #[must_use]
    pub fn response(&self) -> Response<()> {
        self.response.clone()
    }

    /// Takes the upgraded connection over. `ports` are those of the request's query, which
    /// [`check_ports`](Self::check_ports) has accepted.
    pub async fn port_forward<IO>(self, io: IO, ports: &[u16], timeouts: Timeouts) -> PortForward
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        match self.wire {
            Wire::Spdy => {
                let (reader, writer) = tokio::io::split(io);
                PortForward::spdy(reader, writer, timeouts)
            }
            Wire::Tunnel => {
                let (carrier, reader, writer) = tunnel::open(io, timeouts);
                let PortForward { link, source, .. } = PortForward::spdy(reader, writer, timeouts);
                PortForward { link: link.carried_by(carrier), timeouts, source }
            }
            Wire::Channels(codec) => PortForward::channels(io, codec, ports, timeouts).await,
        }
    }
}

// === impl PortForward ===

impl PortForward {
    fn spdy<R, W>(reader: R, writer: W, timeouts: Timeouts) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (link, opened, closing) = connection::serve(reader, writer, Half::judge, timeouts);
        Self { link, timeouts, source: Source::Spdy { opened, pairs: Pairs::default(), closing } }
    }

    async fn channels<IO>(io: IO, codec: Codec, ports: &[u16], timeouts: Timeouts) -> Self
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let directions = [Direction::Both, Direction::ToClient].repeat(ports.len());
        // Both channels of a port begin with its number.
        let greeting: Vec<_> = ports
            .iter()
            .flat_map(|port| [port.to_le_bytes(); 2])
            .zip(0_u8..)
            .map(|(port, channel)| (channel, port.to_vec().into()))
            .collect();
        let (link, ends) = channels::serve(io, codec, &directions, &greeting, timeouts).await;
        let mut waiting = Vec::new();
        let mut handles = Vec::new();
        let mut ends = ends.into_iter();
        for port in ports {
            if let (Some(data), Some(error)) = (ends.next(), ends.next())
                && let (Some(read), Some(write)) = (data.read, data.write)
                && let Some(error) = error.write
            {
                handles.extend([write.handle(), error.handle()]);
                waiting.push(Connection { port: *port, data: Data { read, write }, error });
            }
        }
        let source = Source::Channels { waiting: waiting.into_iter(), handles };
        Self { link, timeouts, source }
    }

    /// Waits for the next connection; `None` when the client is gone, or has had all that it
    /// asked for and these are over, which is the time for [`close`](Self::close). The
    /// connections that were handed out live on only as long as this. Cancel safe.
    pub async fn next(&mut self) -> Option<Connection> {
        match &mut self.source {
            Source::Spdy { opened, pairs, .. } => loop {
                let expiry = pairs.expiry(self.timeouts.stream_creation);
                let stream = tokio::select! {
                    // Both are cancel safe; nothing is taken out of the channel when not chosen.
                    stream = opened.recv() => stream?,
                    () = wait_for(expiry) => {
                        pairs.expire(Instant::now(), self.timeouts.stream_creation);
                        continue;
                    }
                };
                if let Some(connection) = pairs.add(stream, Instant::now()) {
                    return Some(connection);
                }
            },
            Source::Channels { waiting, handles } => {
                if let Some(connection) = waiting.next() {
                    return Some(connection);
                }
                for handle in handles {
                    handle.drained().await;
                }
                None
            }
        }
    }

    /// Waits until the client is gone.
    pub async fn gone(&self) -> Gone {
        self.link.gone().await
    }

    /// Closes the connection, and all that is in it, in order.
    ///
    /// # Errors
    ///
    /// When the client was faster.
    pub async fn close(self) -> Result<(), Gone> {
        let last = match &self.source {
            Source::Spdy { closing, .. } => closing.frame(GoAwayStatus::Ok),
            Source::Channels { .. } => close_frame(CloseCode::Normal),
        };
        self.link.close(last).await
    }
}

// === impl Connection ===

impl Connection {
    /// Gives the connection up and tells the client why, such as `error forwarding port 80 to
    /// pod web, uid : connection refused`.
    pub fn fail(self, message: &str) {
        self.error.write_now(message.as_bytes());
        self.error.fail(io::ErrorKind::ConnectionAborted);
        self.data.write.fail(io::ErrorKind::ConnectionAborted);
    }

    /// The bytes, and where to say that something went wrong with them.
    pub fn split(self) -> (Data, Trouble) {
        (self.data, Trouble { error: self.error })
    }
}

// === impl Trouble ===

impl Trouble {
    /// Tells the client, as [`Connection::fail`] does.
    pub fn tell(self, message: &str) {
        self.error.write_now(message.as_bytes());
        self.error.finish();
    }
}

async fn wait_for(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

reads_its_pipe!(Data);

writes_its_pipe!(Data);

#[cfg(test)]
mod tests;
