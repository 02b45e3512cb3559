//! Passing bytes on between a client and a process.

use std::pin::Pin;

use mainstay_cri::{Attached, Error, Exec, Input, Output, Resize, TerminalSize};
use mainstay_streams::remote_command::{Outcome, RemoteCommand, Resizes};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};

/// How many bytes are passed on at once.
const PIECE: usize = 16 << 10;

/// The process's side.
pub(super) struct Streams {
    stdin: Option<Input>,
    stdout: Option<Output>,
    stderr: Option<Output>,
    resize: Option<Resize>,
    /// What is to be told to the client when all output has been passed on.
    end: Pin<Box<dyn Future<Output = Outcome> + Send>>,
}

impl Streams {
    pub(super) fn of_exec(exec: Exec) -> Self {
        let Exec { stdin, stdout, stderr, resize, exit } = exec;
        let end = Box::pin(async move {
            match exit.await {
                Ok(code) => Outcome::Exited(code),
                Err(error) => Outcome::Failed(exec_failed(&error)),
            }
        });
        Self { stdin, stdout: Some(stdout), stderr, resize, end }
    }

    pub(super) fn of_attached(attached: Attached) -> Self {
        let Attached { stdin, stdout, stderr, resize, end } = attached;
        let end = Box::pin(async move {
            match end.await {
                Ok(()) => Outcome::Exited(0),
                Err(error) => Outcome::Failed(attach_failed(&error)),
            }
        });
        Self { stdin, stdout, stderr, resize, end }
    }
}

pub(super) fn exec_failed(error: &Error) -> String {
    format!("error executing command in container: {}", error.chain())
}

pub(super) fn attach_failed(error: &Error) -> String {
    format!("error attaching to container: {}", error.chain())
}

/// Passes on until the process has ended and all it said is with the client, or until the client
/// is gone.
pub(super) async fn converse(client: RemoteCommand, process: Streams) {
    let RemoteCommand { stdin, stdout, stderr, resize, finish } = client;
    let inputs = async {
        tokio::join!(pass_in(stdin, process.stdin), pass_sizes(resize, process.resize));
        // Their end is not that of the process.
        std::future::pending::<()>().await;
    };
    let outputs = async {
        // In this order, and not all at once: a client that has what it wanted of the output, as
        // `kubectl cp`, leaves without hearing what was complained of before.
        tokio::join!(
            biased;
            pass_on(process.stderr, stderr, Turn::First),
            pass_on(process.stdout, stdout, Turn::Second),
        );
        process.end.await
    };
    let outcome = tokio::select! {
        outcome = outputs => outcome,
        () = inputs => return,
        gone = finish.gone() => {
            tracing::debug!(%gone, "a client of a command or container is gone");
            return;
        }
    };
    if let Err(gone) = finish.exit(&outcome).await {
        tracing::debug!(%gone, "a client left before it was told how its command ended");
    }
}

/// From the client to the process. The end of one is the end of the other.
async fn pass_in<R: AsyncRead + Unpin>(from: Option<R>, to: Option<Input>) {
    if let (Some(from), Some(mut to)) = (from, to) {
        // A process that reads no more is no failure, and a client that has gone is noticed
        // elsewhere.
        let _ = tokio::io::copy_buf(&mut BufReader::with_capacity(PIECE, from), &mut to).await;
        let _ = to.shutdown().await;
    }
}

/// Which of two outputs that both have something is passed on first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    First,
    Second,
}

/// From the process to the client. Without a client who wants it, it is read all the same, so that
/// the process does not wait for a reader.
async fn pass_on<W: AsyncWrite + Unpin>(from: Option<Output>, to: Option<W>, turn: Turn) {
    let Some(from) = from else { return };
    let mut from = BufReader::with_capacity(PIECE, from);
    if let Some(mut to) = to {
        while let Ok(piece @ [_, ..]) = from.fill_buf().await {
            if turn == Turn::Second {
                // The other one may have something too, and not know it yet.
                tokio::task::yield_now().await;
            }
            let length = piece.len();
            // A client that has given up one of its streams may want the others.
            if to.write_all(piece).await.is_err() {
                break;
            }
            from.consume(length);
        }
        let _ = to.shutdown().await;
    }
    let _ = tokio::io::copy_buf(&mut from, &mut tokio::io::sink()).await;
}

async fn pass_sizes(mut from: Resizes, to: Option<Resize>) {
    let Some(resize) = to else { return };
    while let Some(size) = from.next().await {
        // A terminal that has gone needs no size.
        let _ = resize(TerminalSize { width: size.width, height: size.height });
    }
}
