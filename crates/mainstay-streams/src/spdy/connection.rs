//! The server's side of a SPDY connection.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::frame::{Control, DataFrames, GoAwayStatus, RstStatus, go_away, reset};
use super::headers::{Headers, Storer};
use super::reader::{Event, FrameReader};
use crate::link::{
    Activity, Gone, Link, Outgoing, Queue, ReadError, TaskSet, Timeouts, deliver, pump,
};
use crate::pipe::{End, PipeHandle, PipeReader, PipeWriter, Share, pipe};

/// The most streams of one connection at a time: those of 1024 forwarded connections.
pub(crate) const STREAMS_MAX: usize = 2048;
/// The memory of the pipes of one connection, in bytes.
const PIPES_MAX: usize = 4 << 20;
/// The streams that were opened and not taken yet.
const OPENED_MAX: usize = 4;

/// A stream that the client opened.
#[derive(Debug)]
pub(crate) struct Stream<K> {
    /// What it was opened for.
    pub(crate) kind: K,
    pub(crate) read: PipeReader,
    pub(crate) write: PipeWriter,
}

/// The frame that ends a connection, once it is known which stream was the last.
#[derive(Debug, Clone)]
pub(crate) struct Closing {
    last_good: Arc<AtomicU32>,
}

/// The reading half of a connection.
struct Serving<R, K, J> {
    frames: FrameReader<R>,
    /// Says what a stream with such headers is for, or why it is refused.
    judge: J,
    opened: mpsc::Sender<Stream<K>>,
    streams: HashMap<u32, Entry>,
    /// Beyond so many streams those that have ended are looked for.
    sweep_at: usize,
    last_good: Arc<AtomicU32>,
    replies: Storer,
    queue: Queue,
    tasks: TaskSet,
    share: Arc<Share>,
    activity: Arc<Activity>,
}

/// A stream whose client may still send or reset it.
struct Entry {
    /// Towards the holder of the stream. `None` when it is over or nobody reads it.
    sink: Option<PipeWriter>,
    /// Whether the client sends no more.
    ended: bool,
    /// The pipe towards the client.
    output: PipeHandle,
}

/// Starts to serve a connection. The streams that `judge` accepts come out of the receiver;
/// once that is dropped all others are reset.
pub(crate) fn serve<R, W, K, J>(
    reader: R,
    writer: W,
    judge: J,
    timeouts: Timeouts,
) -> (Link, mpsc::Receiver<Stream<K>>, Closing)
where
    R: AsyncRead + Unpin + Send + 'static,
    W: AsyncWrite + Unpin + Send + 'static,
    K: Send + 'static,
    J: FnMut(u32, &Headers) -> Result<K, String> + Send + 'static,
{
    let (opened, streams) = mpsc::channel(OPENED_MAX);
    let (queue, queued) = Queue::new();
    let (tasks, activity) = (TaskSet::default(), Activity::new());
    let last_good = Arc::new(AtomicU32::new(0));
    let serving = Serving {
        frames: FrameReader::new(reader),
        judge,
        opened,
        streams: HashMap::new(),
        sweep_at: 64,
        last_good: Arc::clone(&last_good),
        replies: Storer::default(),
        queue: queue.clone(),
        tasks: tasks.clone(),
        share: Share::new(PIPES_MAX),
        activity: Arc::clone(&activity),
    };
    let link = Link::start(tasks, (queue, queued), writer, serving.run(), activity, timeouts);
    (link, streams, Closing { last_good })
}

/// A ping, whose answer nobody waits for. The numbers of a server's pings are even.
fn ping() -> Outgoing {
    Control::Ping { id: 2 }.encode(&mut Storer::default())
}

// === impl Closing ===

impl Closing {
    pub(crate) fn frame(&self, status: GoAwayStatus) -> Outgoing {
        go_away(self.last_good.load(Ordering::Relaxed), status)
    }
}

// === impl Serving ===

impl<R, K, J> Serving<R, K, J>
where
    R: AsyncRead + Unpin,
    J: FnMut(u32, &Headers) -> Result<K, String>,
{
    async fn run(mut self) -> Gone {
        let gone = self.serve().await.unwrap_or_else(Gone::from);
        self.streams.clear();
        let status = match gone {
            Gone::Closed => GoAwayStatus::Ok,
            Gone::Violation(_) => GoAwayStatus::ProtocolError,
            Gone::Broken(_) | Gone::Idle(_) => return gone,
        };
        let closing = Closing { last_good: Arc::clone(&self.last_good) };
        self.queue.send_urgent(closing.frame(status)).await;
        gone
    }

    async fn serve(&mut self) -> Result<Gone, ReadError> {
        while let Some(event) = self.frames.next().await? {
            self.activity.touch();
            match event {
                Event::Data { stream, bytes, fin } => self.data(stream, &bytes, fin).await,
                Event::Control(Control::SynStream { stream, headers, fin, unidirectional }) => {
                    self.open(stream, &headers, fin, unidirectional).await?;
                }
                Event::Control(Control::RstStream { stream, .. }) => {
                    if let Some(entry) = self.streams.remove(&stream)
                        && let Some(sink) = &entry.sink
                    {
                        sink.fail(io::ErrorKind::ConnectionReset);
                    }
                }
                Event::Control(Control::Headers { stream, fin: true, .. }) => {
                    self.data(stream, &Bytes::new(), true).await;
                }
                // An even number is that of an answer.
                Event::Control(Control::Ping { id }) if id % 2 == 1 => {
                    self.queue.offer(Control::Ping { id }.encode(&mut self.replies));
                }
                Event::Control(Control::GoAway { .. }) => return Ok(Gone::Closed),
                Event::Control(
                    Control::Ping { .. }
                    | Control::SynReply { .. }
                    | Control::Settings
                    | Control::Headers { .. }
                    | Control::WindowUpdate { .. }
                    | Control::Unknown,
                ) => {}
            }
        }
        Ok(Gone::Broken(io::ErrorKind::UnexpectedEof))
    }

    async fn open(
        &mut self,
        id: u32,
        headers: &Headers,
        fin: bool,
        unidirectional: bool,
    ) -> Result<(), ReadError> {
        if id == 0 {
            return Err(ReadError::Violation("a SPDY stream has the number 0"));
        }
        if id.is_multiple_of(2) || id <= self.last_good.load(Ordering::Relaxed) {
            self.queue.send_urgent(reset(id, RstStatus::ProtocolError)).await;
            return Ok(());
        }
        self.last_good.store(id, Ordering::Relaxed);
        self.sweep();
        let judged = if self.streams.len() < STREAMS_MAX {
            (self.judge)(id, headers)
        } else {
            Err(format!("there are {STREAMS_MAX} streams already"))
        };
        let kind = match judged {
            Ok(kind) => kind,
            Err(reason) => {
                tracing::debug!(id, %reason, "stream refused");
                self.queue.send_urgent(reset(id, RstStatus::RefusedStream)).await;
                return Ok(());
            }
        };
        let broken = End::Failed(io::ErrorKind::ConnectionAborted);
        let (sink, read) = pipe(&self.share, broken);
        let (write, from) = pipe(&self.share, End::Complete);
        let output = write.handle();
        let opened = self.opened.reserve().await;
        let Ok(place) = opened else {
            self.queue.send_urgent(reset(id, RstStatus::RefusedStream)).await;
            return Ok(());
        };
        let reply = Control::SynReply { stream: id, headers: Headers::default(), fin: false };
        self.queue.send_urgent(reply.encode(&mut self.replies)).await;
        if !unidirectional {
            self.tasks.spawn(pump(from, self.queue.clone(), DataFrames { stream: id }));
        }
        place.send(Stream { kind, read, write });
        let sink = if fin {
            sink.finish();
            None
        } else {
            Some(sink)
        };
        self.streams.insert(id, Entry { sink, ended: fin, output });
        Ok(())
    }

    async fn data(&mut self, stream: u32, bytes: &[u8], fin: bool) {
        // What comes for a stream that is no more was on the way when it ended.
        let Some(entry) = self.streams.get_mut(&stream) else { return };
        if let Some(sink) = &mut entry.sink
            && !bytes.is_empty()
            && !deliver(sink, bytes, &self.queue, ping).await
        {
            // Nobody reads it any more; what else comes is dropped.
            entry.sink = None;
        }
        if fin {
            if let Some(sink) = entry.sink.take() {
                sink.finish();
            }
            entry.ended = true;
            if entry.is_over() {
                self.streams.remove(&stream);
            }
        }
    }

    /// Forgets the streams that have ended in both directions.
    fn sweep(&mut self) {
        if self.streams.len() >= self.sweep_at {
            self.streams.retain(|_, entry| !entry.is_over());
            self.sweep_at = (self.streams.len() * 2).clamp(64, STREAMS_MAX);
        }
    }
}

// === impl Entry ===

impl Entry {
    /// Whether nothing more is sent in either direction. A client says nothing more about a
    /// stream that was reset.
    fn is_over(&self) -> bool {
        self.output.is_drained() && (self.ended || self.output.is_failed())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.output.kill();
    }
}
