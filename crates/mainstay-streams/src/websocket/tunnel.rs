//! A stream of bytes in the binary messages of a WebSocket connection.
//!
//! Source: `staging/src/k8s.io/client-go/tools/portforward/tunneling_connection.go`.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::frame::Opcode;
use super::reader::{Event, MessageReader};
use super::{CloseCode, close_frame, farewell, ping, server_frame};
use crate::link::{
    Activity, Framing, Gone, Link, Outgoing, Queue, ReadError, TaskSet, Timeouts, deliver, pump,
};
use crate::pipe::{End, PIPE_MAX, PipeHandle, PipeReader, PipeWriter, Share, pipe};

/// Takes the stream out of the messages. The connection lives as long as the link.
pub(crate) fn open<IO>(io: IO, timeouts: Timeouts) -> (Link, PipeReader, PipeWriter)
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(io);
    let (queue, queued) = Queue::new();
    let (tasks, activity, share) = (TaskSet::default(), Activity::new(), Share::new(2 * PIPE_MAX));
    let (sink, read) = pipe(&share, End::Failed(io::ErrorKind::ConnectionAborted));
    let (write, from) = pipe(&share, End::Complete);
    let messages = MessageReader::new(reader, true);
    let reading = read_loop(messages, sink, queue.clone(), Arc::clone(&activity), write.handle());
    let link = Link::start(tasks, (queue.clone(), queued), writer, reading, activity, timeouts);
    link.spawn(pump(from, queue, Tunnel));
    (link, read, write)
}

/// The way to the client. Its end is the end of the connection.
struct Tunnel;

impl Framing for Tunnel {
    fn data(&self, bytes: Bytes) -> Outgoing {
        server_frame(Opcode::Binary, &[], bytes)
    }

    fn end(&self) -> Option<Outgoing> {
        Some(close_frame(CloseCode::Normal))
    }

    fn reset(&self) -> Option<Outgoing> {
        self.end()
    }
}

async fn read_loop<R: AsyncRead + Unpin>(
    mut messages: MessageReader<R>,
    mut sink: PipeWriter,
    queue: Queue,
    activity: Arc<Activity>,
    output: PipeHandle,
) -> Gone {
    let end = read_messages(&mut messages, &mut sink, &queue, &activity).await;
    if matches!(end, Ok(Gone::Closed)) {
        sink.finish();
    }
    output.kill();
    farewell(&queue, end).await
}

async fn read_messages<R: AsyncRead + Unpin>(
    messages: &mut MessageReader<R>,
    sink: &mut PipeWriter,
    queue: &Queue,
    activity: &Activity,
) -> Result<Gone, ReadError> {
    while let Some(event) = messages.next().await? {
        activity.touch();
        match event {
            Event::Start { binary: false } => {
                return Err(ReadError::Violation("a message in the tunnel is not binary"));
            }
            // Undelivered is the end of what is in the tunnel; only the close frame is waited for.
            Event::Data(bytes) => {
                deliver(sink, &bytes, queue, ping).await;
            }
            Event::Ping(payload) => queue.offer(server_frame(Opcode::Pong, &[], payload)),
            Event::Start { .. } | Event::End | Event::Pong => {}
            Event::Close => return Ok(Gone::Closed),
        }
    }
    Ok(Gone::Broken(io::ErrorKind::UnexpectedEof))
}
