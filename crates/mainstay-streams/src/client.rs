//! The client's side of `exec`, `attach` and `port-forward` over SPDY, as servers of the CRI have them.
//!
//! Whoever uses it sends the [`request`] and upgrades the connection that is answered with [`is_agreed`].
//!
//! Source: `staging/src/k8s.io/client-go/tools/remotecommand` and `tools/portforward`.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CONNECTION, HOST, UPGRADE};
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;

use crate::link::{Gone, Timeouts};
use crate::pipe::{PipeReader, PipeWriter, reads_its_pipe, writes_its_pipe};
use crate::remote_command::{Options, Outcome, TerminalSize};
use crate::spdy::client::Client;
use crate::upgrade::PROTOCOL_VERSION;

/// The most that is read of how a command ended, in bytes.
const STATUS_MAX: u64 = 64 << 10;

/// The most that is read of what went wrong with a connection to a port, in bytes.
const SAID_MAX: usize = 64 << 10;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `exec` and `attach`.
    RemoteCommand,
    /// `port-forward`.
    PortForward,
}

/// The streams of a process, on their way.
#[derive(Debug)]
pub struct Process {
    /// What it reads. Dropping it is the end.
    pub stdin: Option<ToProcess>,
    /// What it writes to file 1.
    pub stdout: Option<FromProcess>,
    /// What it writes to file 2. Never there with a terminal.
    pub stderr: Option<FromProcess>,
    /// Tells a terminal its size.
    pub sizes: Option<Sizes>,
    /// How it ends.
    pub end: ProcessEnd,
}

/// What a process reads.
#[derive(Debug)]
pub struct ToProcess {
    write: PipeWriter,
    _connection: Arc<Client>,
}

/// What a process writes.
#[derive(Debug)]
pub struct FromProcess {
    read: PipeReader,
    _connection: Arc<Client>,
}

/// Tells a terminal its size; the newest counts.
#[derive(Debug, Clone)]
pub struct Sizes(watch::Sender<Option<TerminalSize>>);

/// The stream that tells how a process ended.
#[derive(Debug)]
pub struct ProcessEnd {
    error: PipeReader,
    connection: Arc<Client>,
}

/// A connection to a port.
///
/// That there is none is told only when it is read: an error, with what the server says.
#[derive(Debug)]
pub struct Forwarded {
    read: PipeReader,
    write: PipeWriter,
    error: PipeReader,
    said: Vec<u8>,
    _connection: Client,
}

/// The request that asks a server for a connection.
///
/// # Errors
///
/// When the address has no host.
pub fn request(uri: &Uri, kind: Kind) -> Result<Request<()>, http::Error> {
    let protocol = match kind {
        Kind::RemoteCommand => "v4.channel.k8s.io",
        Kind::PortForward => "portforward.k8s.io",
    };
    let host = uri.authority().map_or("", |authority| authority.as_str());
    Request::builder()
        .method(Method::POST)
        .uri(uri.path_and_query().map_or("/", |path| path.as_str()))
        .header(HOST, host)
        .header(CONNECTION, "Upgrade")
        .header(UPGRADE, crate::upgrade::SPDY)
        .header(PROTOCOL_VERSION, protocol)
        .header("content-length", "0")
        .body(())
}

/// Whether a server's answer is that it is agreed.
#[must_use]
pub fn is_agreed(status: StatusCode, headers: &HeaderMap) -> bool {
    let upgrade = headers.get(UPGRADE).map(http::HeaderValue::as_bytes).unwrap_or_default();
    status == StatusCode::SWITCHING_PROTOCOLS
        && upgrade.eq_ignore_ascii_case(crate::upgrade::SPDY.as_bytes())
}

/// Takes the upgraded connection over, and opens the streams of a process.
pub async fn remote_command<IO>(io: IO, options: Options, timeouts: Timeouts) -> Process
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(io);
    let mut client = Client::start(reader, writer, timeouts);
    let kind = |kind| [("streamtype", kind)];
    let (error, _) = client.open(&kind("error")).await;
    let mut streams = [None, None, None, None];
    let wanted = [
        ("stdin", options.stdin),
        ("stdout", options.stdout),
        ("stderr", options.stderr && !options.tty),
        ("resize", options.tty),
    ];
    for (stream, (name, _)) in streams.iter_mut().zip(wanted).filter(|(_, (_, wanted))| *wanted) {
        *stream = Some(client.open(&kind(name)).await);
    }
    let [stdin, stdout, stderr, resize] = streams;
    let sizes = resize.map(|(_, mut to)| {
        let (tell, mut told) = watch::channel(None);
        client.spawn(async move {
            while told.changed().await.is_ok() {
                let size: Option<TerminalSize> = *told.borrow_and_update();
                let Some(TerminalSize { width, height }) = size else { continue };
                let text = format!("{{\"Width\":{width},\"Height\":{height}}}\n");
                if to.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
        Sizes(tell)
    });
    let connection = Arc::new(client);
    let from = |stream: Option<(PipeReader, PipeWriter)>| {
        stream.map(|(read, _)| FromProcess { read, _connection: Arc::clone(&connection) })
    };
    let (stdout, stderr) = (from(stdout), from(stderr));
    let stdin = stdin.map(|(_, write)| ToProcess { write, _connection: Arc::clone(&connection) });
    Process { stdin, stdout, stderr, sizes, end: ProcessEnd { error, connection } }
}

/// Takes the upgraded connection over, and connects to a port.
pub async fn port_forward<IO>(io: IO, port: u16, timeouts: Timeouts) -> Forwarded
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(io);
    let mut client = Client::start(reader, writer, timeouts);
    let port = port.to_string();
    let headers = |kind| [("streamtype", kind), ("port", &*port), ("requestid", "0")];
    let (error, _) = client.open(&headers("error")).await;
    let (read, write) = client.open(&headers("data")).await;
    Forwarded { read, write, error, said: Vec::new(), _connection: client }
}

// === impl Sizes ===

impl Sizes {
    /// Says how large it is now. False when the process has gone.
    pub fn tell(&self, size: TerminalSize) -> bool {
        self.0.send(Some(size)).is_ok()
    }
}

// === impl ProcessEnd ===

impl ProcessEnd {
    /// Waits for the end of the process, of which nothing more comes then.
    ///
    /// # Errors
    ///
    /// When the connection ended before it was told.
    pub async fn wait(mut self) -> Result<Outcome, Gone> {
        let mut status = Vec::new();
        let read = (&mut self.error).take(STATUS_MAX).read_to_end(&mut status).await;
        match Outcome::of_json(&status) {
            Some(outcome) => Ok(outcome),
            None if read.is_ok() && !status.is_empty() => {
                Ok(Outcome::Failed(String::from_utf8_lossy(&status).into_owned()))
            }
            None => Err(self.connection.gone().await),
        }
    }
}

// === impl Forwarded ===

impl Forwarded {
    /// What the server says went wrong; nothing if all went well. It says so before the data's end.
    fn poll_error(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut bytes = [0; 1024];
            let mut into = ReadBuf::new(&mut bytes);
            let length = self.said.len();
            match Pin::new(&mut self.error).poll_read(cx, &mut into) {
                Poll::Ready(Ok(())) if !into.filled().is_empty() && length < SAID_MAX => {
                    self.said.extend_from_slice(into.filled());
                }
                Poll::Ready(_) if self.said.is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(_) => {
                    let said = String::from_utf8_lossy(&self.said).into_owned();
                    return Poll::Ready(Err(io::Error::other(said)));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl AsyncRead for Forwarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        match Pin::new(&mut self.read).poll_read(cx, into) {
            Poll::Ready(Ok(())) if into.filled().len() == before => self.poll_error(cx),
            other => other,
        }
    }
}

writes_its_pipe!(Forwarded);

writes_its_pipe!(ToProcess);

reads_its_pipe!(FromProcess);

#[cfg(test)]
mod tests;
