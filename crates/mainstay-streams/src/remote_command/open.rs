//! From a fresh connection to the streams of a command.

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use super::{
    Ending, Error, Finish, Options, Output, RemoteCommand, Resizes, Stdin, Timeouts, resize,
};
use crate::link::Link;
use crate::pipe::{PipeReader, PipeWriter};
use crate::spdy::connection::{self, Closing, Stream};
use crate::spdy::headers::Headers;
use crate::websocket::Codec;
use crate::websocket::channels::{self, Direction};

/// What a stream is for. The numbers are those of the WebSocket channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stdin = 0,
    Stdout = 1,
    Stderr = 2,
    Error = 3,
    Resize = 4,
}

/// The streams by kind.
#[derive(Default)]
struct Streams([Option<(PipeReader, PipeWriter)>; 5]);

/// Waits until the client has opened what it asked for.
pub(super) async fn spdy<IO>(
    io: IO,
    version: u8,
    options: Options,
    timeouts: Timeouts,
) -> Result<RemoteCommand, Error>
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(io);
    let mut seen = Vec::new();
    let judge = move |_, headers: &Headers| {
        let name = headers.get("streamType").unwrap_or_default();
        let kind = Kind::named(name).ok_or_else(|| format!("unexpected stream type: {name:?}"))?;
        if seen.contains(&kind) {
            return Err(format!("a second stream of type {name}"));
        }
        seen.push(kind);
        Ok(kind)
    };
    let (link, mut opened, closing) = connection::serve(reader, writer, judge, timeouts);
    let expected = [
        Some(Kind::Error),
        options.stdin.then_some(Kind::Stdin),
        options.stdout.then_some(Kind::Stdout),
        options.stderr.then_some(Kind::Stderr),
        (options.tty && version >= 3).then_some(Kind::Resize),
    ];
    let mut streams = Streams::default();
    let all_opened = async {
        while expected.iter().flatten().any(|kind| streams.0[*kind as usize].is_none()) {
            let Some(Stream { kind, read, write, .. }) = opened.recv().await else { break };
            streams.0[kind as usize] = Some((read, write));
        }
    };
    timeout(timeouts.stream_creation, all_opened).await.map_err(|_| Error::StreamsMissing)?;
    match streams.take(Kind::Error) {
        Some((_, error)) => Ok(command(link, closing, version, options, streams, error)),
        None => Err(link.gone().await.into()),
    }
}

fn command(
    link: Link,
    closing: Closing,
    version: u8,
    options: Options,
    mut streams: Streams,
    error: PipeWriter,
) -> RemoteCommand {
    let mut output = |kind, wanted: bool| {
        let (_, write) = streams.take(kind)?;
        wanted.then_some(Output { write })
    };
    let stdout = output(Kind::Stdout, options.stdout);
    let stderr = output(Kind::Stderr, options.stderr);
    let outputs = [&stdout, &stderr].into_iter().flatten();
    let outputs = outputs.map(|output| output.write.handle()).collect();
    let stdin = streams.take(Kind::Stdin).filter(|_| options.stdin);
    let stdin = stdin.map(|(read, write)| Stdin { read, _write: Some(write) });
    let resize = match streams.take(Kind::Resize) {
        Some((read, write)) => resizes(&link, read, Some(write)),
        None => Resizes::none(),
    };
    let finish = Finish { link, outputs, error, json: version >= 4, end: Ending::Spdy(closing) };
    RemoteCommand { stdin, stdout, stderr, resize, finish }
}

/// Sets the channels up; a client opens none itself.
pub(super) async fn websocket<IO>(
    io: IO,
    version: u8,
    codec: Codec,
    options: Options,
    timeouts: Timeouts,
) -> RemoteCommand
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let wanted = |wanted: bool, direction| if wanted { direction } else { Direction::Ignore };
    let directions = [
        wanted(options.stdin, Direction::FromClient),
        wanted(options.stdout, Direction::ToClient),
        wanted(options.stderr, Direction::ToClient),
        Direction::ToClient,
        Direction::FromClient,
    ];
    // An empty message tells the client that the server is there.
    let first = match options {
        Options { stdout: true, .. } => Kind::Stdout,
        Options { stderr: true, .. } => Kind::Stderr,
        Options { .. } => Kind::Error,
    };
    let greeting = [(first as u8, Bytes::new())];
    let (link, ends) = channels::serve(io, codec, &directions, &greeting, timeouts).await;
    let mut ends = ends.into_iter();
    let mut next = || ends.next().map_or((None, None), |ends| (ends.read, ends.write));
    let ((stdin, _), (_, stdout), (_, stderr)) = (next(), next(), next());
    let ((_, error), (resize, _)) = (next(), next());
    let outputs = [&stdout, &stderr].into_iter().flatten().map(PipeWriter::handle).collect();
    let resize = resize.map_or_else(Resizes::none, |read| resizes(&link, read, None));
    let error = error.unwrap_or_else(PipeWriter::closed);
    RemoteCommand {
        stdin: stdin.map(|read| Stdin { read, _write: None }),
        stdout: stdout.map(|write| Output { write }),
        stderr: stderr.map(|write| Output { write }),
        resize,
        finish: Finish { link, outputs, error, json: version >= 4, end: Ending::WebSocket },
    }
}

/// Follows the sizes, so that they never fill a pipe that nobody empties.
fn resizes(link: &Link, read: PipeReader, other_direction: Option<PipeWriter>) -> Resizes {
    let (resizes, following) = resize::follow(read);
    link.spawn(async move {
        following.await;
        // Its end would be the end of the stream.
        drop(other_direction);
    });
    resizes
}

// === impl Kind ===

impl Kind {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "stdin" => Self::Stdin,
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            "error" => Self::Error,
            "resize" => Self::Resize,
            _ => return None,
        })
    }
}

// === impl Streams ===

impl Streams {
    fn take(&mut self, kind: Kind) -> Option<(PipeReader, PipeWriter)> {
        self.0[kind as usize].take()
    }
}
