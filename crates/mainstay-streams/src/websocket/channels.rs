//! A WebSocket connection with a fixed set of channels.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};

use super::demux::{Channel, Codec, Demux, Item};
use super::frame::Opcode;
use super::reader::{Event, MessageReader};
use super::{farewell, ping, server_frame};
use crate::link::{
    Activity, Framing, Gone, Link, Queue, ReadError, TaskSet, Timeouts, deliver, pump,
};
use crate::pipe::{End, PipeReader, PipeWriter, Share, pipe};

/// The memory of the pipes of one connection, in bytes.
const PIPES_MAX: usize = 4 << 20;

/// Which way a channel goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// None: what the client sends is dropped.
    Ignore,
    FromClient,
    ToClient,
    Both,
}

/// What the server has of a channel.
#[derive(Debug)]
pub(crate) struct ChannelEnds {
    pub(crate) read: Option<PipeReader>,
    pub(crate) write: Option<PipeWriter>,
}

/// Starts to serve the channels, which are numbered in order. `greeting` goes first.
pub(crate) async fn serve<IO>(
    io: IO,
    codec: Codec,
    directions: &[Direction],
    greeting: &[(u8, Bytes)],
    timeouts: Timeouts,
) -> (Link, Vec<ChannelEnds>)
where
    IO: AsyncRead + AsyncWrite + Send + 'static,
{
    let (reader, writer) = tokio::io::split(io);
    let (queue, queued) = Queue::new();
    let (tasks, activity, share) = (TaskSet::default(), Activity::new(), Share::new(PIPES_MAX));
    let mut sinks = Vec::new();
    let mut pumps = Vec::new();
    let mut ends = Vec::new();
    for (direction, index) in directions.iter().zip(0_u8..) {
        let (sink, read) = match direction {
            Direction::FromClient | Direction::Both => {
                let broken = End::Failed(std::io::ErrorKind::ConnectionAborted);
                let (sink, read) = pipe(&share, broken);
                (Some(sink), Some(read))
            }
            Direction::Ignore | Direction::ToClient => (None, None),
        };
        let (write, from) = match direction {
            Direction::ToClient | Direction::Both => {
                let (write, from) = pipe(&share, End::Complete);
                (Some(write), Some(from))
            }
            Direction::Ignore | Direction::FromClient => (None, None),
        };
        sinks.push(sink);
        pumps.extend(from.map(|from| (from, Channel { codec, index })));
        ends.push(ChannelEnds { read, write });
    }
    let reading = read_loop(
        MessageReader::new(reader, true),
        Demux::new(codec),
        sinks,
        queue.clone(),
        Arc::clone(&activity),
        Outputs(ends.iter().filter_map(|ends| Some(ends.write.as_ref()?.handle())).collect()),
    );
    let link = Link::start(tasks, (queue.clone(), queued), writer, reading, activity, timeouts);
    for (index, bytes) in greeting {
        queue.send(Channel { codec, index: *index }.data(bytes.clone())).await;
    }
    for (from, channel) in pumps {
        link.spawn(pump(from, queue.clone(), channel));
    }
    (link, ends)
}

/// The pipes to the client, which fail when it is gone.
struct Outputs(Vec<crate::pipe::PipeHandle>);

impl Drop for Outputs {
    fn drop(&mut self) {
        for output in &self.0 {
            output.kill();
        }
    }
}

async fn read_loop<R: AsyncRead + Unpin>(
    mut messages: MessageReader<R>,
    mut demux: Demux,
    mut sinks: Vec<Option<PipeWriter>>,
    queue: Queue,
    activity: Arc<Activity>,
    outputs: Outputs,
) -> Gone {
    let end = read_messages(&mut messages, &mut demux, &mut sinks, &queue, &activity).await;
    if matches!(end, Ok(Gone::Closed)) {
        // Before version 5 this is how a client ends its input.
        for sink in sinks.iter().flatten() {
            sink.finish();
        }
    }
    drop(outputs);
    farewell(&queue, end).await
}

async fn read_messages<R: AsyncRead + Unpin>(
    messages: &mut MessageReader<R>,
    demux: &mut Demux,
    sinks: &mut [Option<PipeWriter>],
    queue: &Queue,
    activity: &Activity,
) -> Result<Gone, ReadError> {
    while let Some(event) = messages.next().await? {
        activity.touch();
        let item = match event {
            Event::Start { .. } => Ok(None),
            Event::Data(bytes) => demux.data(bytes),
            Event::End => demux.end(),
            Event::Ping(payload) => {
                queue.offer(server_frame(Opcode::Pong, &[], payload));
                Ok(None)
            }
            Event::Pong => Ok(None),
            Event::Close => return Ok(Gone::Closed),
        };
        match item.map_err(ReadError::Violation)? {
            Some(Item::Data(channel, bytes)) => {
                let Some(sink) = sinks.get_mut(usize::from(channel)) else { continue };
                if let Some(open) = sink
                    && !deliver(open, &bytes, queue, ping).await
                {
                    // Nobody reads it any more; what else comes is dropped.
                    *sink = None;
                }
            }
            Some(Item::Close(channel)) => {
                if let Some(sink) = sinks.get_mut(usize::from(channel)).and_then(Option::take) {
                    sink.finish();
                }
            }
            None => {}
        }
    }
    Ok(Gone::Broken(std::io::ErrorKind::UnexpectedEof))
}
