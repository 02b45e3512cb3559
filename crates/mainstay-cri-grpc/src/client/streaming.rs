//! Commands, attachments and ports: the protocol has an address for each, at which a server waits that speaks
//! SPDY.
//!
//! Source: `staging/src/k8s.io/cri-streaming`, and `internal/cri/streamingserver` of containerd.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use mainstay_cri::{
    AttachRequest, Attached, Error, ErrorKind, Exec, ExecRequest, FELL_BEHIND, Input, Output,
    PortForward, Resize, Result, SandboxId, TerminalSize,
};
use mainstay_streams::Timeouts;
use mainstay_streams::client::{self, FromProcess, Kind, Process, ProcessEnd, Sizes, ToProcess};
use mainstay_streams::remote_command::{Options, Outcome};
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::timeout;

use super::outputs::kept;
use super::{Remote, TTY};
use crate::methods::{ATTACH, EXEC, PORT_FORWARD};
use crate::wire;

/// The most that is read of why a server refuses, in bytes.
const REFUSAL_MAX: usize = 4096;

/// How servers begin to say that a command could not be run. Source: `ServeExec` in
/// `staging/src/k8s.io/cri-streaming/pkg/streaming/remotecommand/exec.go`.
const ABOUT_COMMAND: &str = "Internal error occurred: error executing command in container: ";

pub(super) async fn exec(remote: &Remote, request: &ExecRequest) -> Result<Exec> {
    let message = wire::ExecRequest::from(request);
    let answer: wire::ExecResponse = remote.call(EXEC, &message).await?;
    let options = Options {
        stdin: message.stdin,
        stdout: message.stdout,
        stderr: message.stderr,
        tty: message.tty,
    };
    let process = process(remote, &answer.url, options).await?;
    let Process { stdin, stdout, stderr, sizes, end } = process;
    let stdout = stdout.map(|it| Box::pin(it) as Output);
    let (stdin, kept) = match stdin {
        Some(stdin) if message.tty => {
            let stdin = ToTerminal(Arc::new(Mutex::new(stdin)));
            (Some(Box::pin(stdin.clone()) as Input), Some(stdin))
        }
        stdin => (stdin.map(|it| Box::pin(it) as Input), None),
    };
    Ok(Exec {
        stdin,
        // It was asked for.
        stdout: stdout.unwrap_or_else(|| Box::pin(tokio::io::empty())),
        stderr: stderr.map(|it| Box::pin(it) as Output),
        resize: sizes.map(resize),
        exit: Box::pin(async move {
            let _kept = kept;
            match ended(end).await? {
                Outcome::Exited(code) => Ok(code),
                Outcome::Failed(message) => {
                    // Whoever passes it on says that it is about the command.
                    let message = message.strip_prefix(ABOUT_COMMAND).unwrap_or(&message);
                    Err(Error::new(ErrorKind::Internal, message))
                }
            }
        }),
    })
}

/// What a terminal reads. It has no end before the command has: told of one, containerd tells nothing more of what
/// the command writes. Source: `ExecIO.Attach` in `pkg/cri/io/exec_io.go`.
#[derive(Clone)]
struct ToTerminal(Arc<Mutex<ToProcess>>);

impl ToTerminal {
    fn stdin(&self) -> MutexGuard<'_, ToProcess> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsyncWrite for ToTerminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stdin()).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stdin()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}

pub(super) async fn attach(remote: &Remote, request: &AttachRequest) -> Result<Attached> {
    let id = &request.container.0;
    let seen = remote.look_at(id).await?;
    // Servers have words of their own for the one, and do not mind the other.
    if seen.state == i32::from(wire::ContainerState::Exited) {
        let message = format!("container {id} has ended");
        return Err(Error::new(ErrorKind::FailedPrecondition, message));
    }
    let tty = seen.annotations.contains_key(TTY);
    if tty != request.tty {
        let has = if tty { "a" } else { "no" };
        let message =
            format!("container {id} has {has} terminal, and is not joined as if it were otherwise");
        return Err(Error::new(ErrorKind::InvalidArgument, message));
    }
    let message = wire::AttachRequest::from(request);
    let answer: wire::AttachResponse = remote.call(ATTACH, &message).await?;
    let options = Options {
        stdin: message.stdin,
        stdout: message.stdout,
        stderr: message.stderr,
        tty: message.tty,
    };
    let Process { stdin, stdout, stderr, sizes, end } =
        process(remote, &answer.url, options).await?;
    let (lost, mut told) = watch::channel(false);
    let output = |from: Option<FromProcess>| {
        from.map(|from| {
            let (kept, taking) = kept(from, lost.clone());
            remote.tasks.spawn(taking);
            Box::pin(kept) as Output
        })
    };
    Ok(Attached {
        stdin: stdin.map(|it| Box::pin(it) as Input),
        stdout: output(stdout),
        stderr: output(stderr),
        resize: sizes.map(resize),
        end: Box::pin(async move {
            let too_slow = async {
                if told.wait_for(|lost| *lost).await.is_err() {
                    // All of it was taken.
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = too_slow => Err(Error::new(ErrorKind::ResourceExhausted, FELL_BEHIND)),
                outcome = ended(end) => match outcome? {
                    Outcome::Exited(_) => Ok(()),
                    // As the embedded runtime of another mainstay says it.
                    Outcome::Failed(message) if message.contains(FELL_BEHIND) => {
                        Err(Error::new(ErrorKind::ResourceExhausted, message))
                    }
                    Outcome::Failed(message) => Err(Error::new(ErrorKind::Internal, message)),
                },
            }
        }),
    })
}

/// That nobody listens there is told when it is read.
pub(super) async fn port_forward(
    remote: &Remote,
    sandbox: &SandboxId,
    port: u16,
) -> Result<PortForward> {
    let request =
        wire::PortForwardRequest { pod_sandbox_id: sandbox.0.clone(), port: vec![port.into()] };
    let answer: wire::PortForwardResponse = remote.call(PORT_FORWARD, &request).await?;
    let io = upgraded(remote, &answer.url, Kind::PortForward).await?;
    Ok(Box::pin(client::port_forward(io, port, Timeouts::default()).await))
}

async fn process(remote: &Remote, url: &str, options: Options) -> Result<Process> {
    let io = upgraded(remote, url, Kind::RemoteCommand).await?;
    Ok(client::remote_command(io, options, Timeouts::default()).await)
}

async fn ended(end: ProcessEnd) -> Result<Outcome> {
    end.wait().await.map_err(|gone| {
        let message = "the runtime broke off before it said how the command ended";
        Error::with_source(ErrorKind::Unavailable, message, gone)
    })
}

fn resize(sizes: Sizes) -> Resize {
    Box::new(move |TerminalSize { width, height }| {
        let size = mainstay_streams::remote_command::TerminalSize { width, height };
        if sizes.tell(size) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::FailedPrecondition, "the command has ended"))
    })
}

type Upgraded = TokioIo<hyper::upgrade::Upgraded>;

/// A connection to a server's address, handed over.
async fn upgraded(remote: &Remote, url: &str, kind: Kind) -> Result<Upgraded> {
    let limit = remote.config.timeout;
    let connected = timeout(limit, Box::pin(connect(remote, url, kind))).await;
    connected.unwrap_or_else(|_| {
        let message = format!("{} has not answered for {} s", place(url), limit.as_secs());
        Err(Error::new(ErrorKind::DeadlineExceeded, message))
    })
}

/// Where an address is, without what it grants.
fn place(url: &str) -> String {
    let authority = url.parse::<Uri>().ok().and_then(|uri| uri.authority().cloned());
    let authority = authority.map_or_else(|| "somewhere".to_owned(), |it| it.to_string());
    format!("the runtime's streaming server at {authority}")
}

async fn connect(remote: &Remote, url: &str, kind: Kind) -> Result<Upgraded> {
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        let message = format!("cannot speak with {}", place(url));
        Error::with_source(ErrorKind::Unavailable, message, error)
    };
    let misled = |why: &str| {
        Error::new(ErrorKind::Unimplemented, format!("cannot use {}: {why}", place(url)))
    };
    let uri: Uri = url.parse().map_err(|_| misled("it is no address"))?;
    if uri.scheme_str() != Some("http") {
        return Err(misled(
            "it wants TLS; switch that off for this machine's own address (enable_tls_streaming of \
             containerd, stream_enable_tls of CRI-O)",
        ));
    }
    let host = uri.host().ok_or_else(|| misled("it has no host"))?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80))).await;
    let stream = stream.map_err(|error| failed(error.into()))?;
    let shaken = http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| failed(error.into()))?;
    remote.tasks.spawn(async move {
        // Whoever waits for an answer is told.
        let _ = connection.with_upgrades().await;
    });
    let request = client::request(&uri, kind).map_err(|error| failed(error.into()))?;
    let request = request.map(|()| Empty::<bytes::Bytes>::new());
    let response = sender.send_request(request).await.map_err(|error| failed(error.into()))?;
    if client::is_agreed(response.status(), response.headers()) {
        let upgraded = hyper::upgrade::on(response).await.map_err(|error| failed(error.into()))?;
        return Ok(TokioIo::new(upgraded));
    }
    let status = response.status();
    let why = Limited::new(response.into_body(), REFUSAL_MAX).collect().await;
    let why = why.map(|body| String::from_utf8_lossy(&body.to_bytes()).trim().to_owned());
    let why = why.unwrap_or_default();
    Err(failed(io::Error::other(format!("it answers {status}: {why}")).into()))
}
