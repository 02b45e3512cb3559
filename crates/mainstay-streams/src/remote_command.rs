//! `exec` and `attach`: the streams of one process.
//!
//! Source: `staging/src/k8s.io/cri-streaming/pkg/streaming/remotecommand`, and
//! `staging/src/k8s.io/apiserver/pkg/util/proxy/websocket.go` for version 5.

mod open;
mod resize;
mod status;

pub use resize::{Resizes, TerminalSize};
pub use status::Outcome;

use http::Response;
use http::request::Parts;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::link::{Gone, Link, Outgoing};
use crate::pipe::{PipeHandle, PipeReader, PipeWriter, reads_its_pipe, writes_its_pipe};
use crate::spdy::connection::Closing;
use crate::spdy::frame::GoAwayStatus;
use crate::upgrade::{self, Refusal, Transport};
use crate::websocket::{CloseCode, Codec, close_frame};

pub use crate::link::Timeouts;

/// Which streams a client asked for, by the query of its request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// The process reads what the client sends.
    pub stdin: bool,
    /// The client gets what the process writes to file 1.
    pub stdout: bool,
    /// The client gets what the process writes to file 2. Has no meaning with a terminal, where
    /// both are one.
    pub stderr: bool,
    /// The process has a terminal.
    pub tty: bool,
}

/// What client and server agreed on.
#[derive(Debug)]
pub struct Negotiated {
    wire: Wire,
    response: Response<()>,
}

/// The client's side of a process, which has begun.
///
/// An error of a stream means that the client has gone or has given the stream up; an end of
/// [`stdin`](Self::stdin) without error is an end that the client wanted.
#[derive(Debug)]
pub struct RemoteCommand {
    /// What the client sends.
    pub stdin: Option<Stdin>,
    /// To the client. Dropping it ends the stream.
    pub stdout: Option<Output>,
    /// To the client. Never there with a terminal.
    pub stderr: Option<Output>,
    /// The sizes of the client's terminal.
    pub resize: Resizes,
    /// The connection. Dropping it breaks the connection at once.
    pub finish: Finish,
}

/// What the client sends. To drop it tells the client, where the protocol can, that the process
/// reads no more; what the client still sends is dropped.
#[derive(Debug)]
pub struct Stdin {
    read: PipeReader,
    /// The unused other direction of the same stream: clients take its end for the end of the
    /// process's interest.
    _write: Option<PipeWriter>,
}

/// What the client gets. Writing waits for the client when it is slow.
#[derive(Debug)]
pub struct Output {
    write: PipeWriter,
}

/// The end of the connection.
#[derive(Debug)]
pub struct Finish {
    link: Link,
    outputs: Vec<PipeHandle>,
    error: PipeWriter,
    /// Whether the error stream carries a `Status` object, or text.
    json: bool,
    end: Ending,
}

/// Why there is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The client asked for none of its streams.
    #[error("you must specify at least 1 of stdin, stdout, stderr")]
    NoStreams,
    /// The client did not open in time what it asked for.
    #[error("timed out waiting for client to create streams")]
    StreamsMissing,
    /// The client went before the streams were there.
    #[error("the client left before its streams were there")]
    Gone(#[from] Gone),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// By version: 1 to 4.
    Spdy(u8),
    /// By version: 1, 4, 5.
    WebSocket(u8, Codec),
}

/// How a connection is closed.
#[derive(Debug)]
enum Ending {
    Spdy(Closing),
    WebSocket,
}

/// Source: `SupportedStreamingProtocols` in
/// `staging/src/k8s.io/apimachinery/pkg/util/remotecommand/constants.go`.
const SPDY_PROTOCOLS: [(&str, Wire); 4] = [
    ("v4.channel.k8s.io", Wire::Spdy(4)),
    ("v3.channel.k8s.io", Wire::Spdy(3)),
    ("v2.channel.k8s.io", Wire::Spdy(2)),
    ("channel.k8s.io", Wire::Spdy(1)),
];

/// Versions 2 and 3 never existed for WebSocket: closing and resizing were there before.
const WEBSOCKET_PROTOCOLS: [(&str, Wire); 6] = [
    ("v5.channel.k8s.io", Wire::WebSocket(5, Codec::RawWithClose)),
    ("v4.channel.k8s.io", Wire::WebSocket(4, Codec::Raw)),
    ("v4.base64.channel.k8s.io", Wire::WebSocket(4, Codec::Base64)),
    ("channel.k8s.io", Wire::WebSocket(1, Codec::Raw)),
    ("base64.channel.k8s.io", Wire::WebSocket(1, Codec::Base64)),
    ("", Wire::WebSocket(1, Codec::Raw)),
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
    /// The answer to the request, after which the connection is upgraded. Its status is 101.
    #[must_use]
    pub fn response(&self) -> Response<()> {
        self.response.clone()
    }

    /// Takes the upgraded connection over and waits for the streams that `options` names.
    ///
    /// # Errors
    ///
    /// When no stream is asked for, when the client does not open them within
    /// [`Timeouts::stream_creation`], or goes.
    pub async fn remote_command<IO>(
        self,
        io: IO,
        options: Options,
        timeouts: Timeouts,
    ) -> Result<RemoteCommand, Error>
    where
        IO: AsyncRead + AsyncWrite + Send + 'static,
    {
        let options = options.checked()?;
        match self.wire {
            Wire::Spdy(version) => open::spdy(io, version, options, timeouts).await,
            Wire::WebSocket(version, codec) => {
                Ok(open::websocket(io, version, codec, options, timeouts).await)
            }
        }
    }
}

// === impl Options ===

impl Options {
    /// What is served of it: with a terminal there is no stderr.
    ///
    /// # Errors
    ///
    /// [`Error::NoStreams`] when nothing is left. To be answered with 400 before the upgrade.
    pub fn checked(self) -> Result<Self, Error> {
        let stderr = self.stderr && !self.tty;
        if !self.stdin && !self.stdout && !stderr {
            return Err(Error::NoStreams);
        }
        Ok(Self { stderr, ..self })
    }
}

// === impl Finish ===

impl Finish {
    /// Waits until the client is gone. A process that nobody watches any more may be stopped.
    pub async fn gone(&self) -> Gone {
        self.link.gone().await
    }

    /// Tells the client how the command ended, and closes the connection.
    ///
    /// What was written to the outputs before is sent first, whether they were dropped or not;
    /// writing to them later fails. Waits for a slow client, so the caller that has no patience
    /// drops the future, which breaks the connection.
    ///
    /// # Errors
    ///
    /// When the client went before it was told everything.
    pub async fn exit(mut self, outcome: &Outcome) -> Result<(), Gone> {
        for output in &self.outputs {
            output.finish();
        }
        for output in &self.outputs {
            output.drained().await;
        }
        let status = if self.json { Some(outcome.to_json()) } else { outcome.to_text() };
        if let Some(status) = status {
            // An error here is the client's end, which the link tells.
            let _ = self.error.write_all(status.as_bytes()).await;
        }
        self.error.finish();
        self.error.handle().drained().await;
        let last = self.end.last();
        self.link.close(last).await
    }
}

// === impl Ending ===

impl Ending {
    fn last(&self) -> Outgoing {
        match self {
            Self::Spdy(closing) => closing.frame(GoAwayStatus::Ok),
            Self::WebSocket => close_frame(CloseCode::Normal),
        }
    }
}

reads_its_pipe!(Stdin);

writes_its_pipe!(Output);

#[cfg(test)]
mod tests;
