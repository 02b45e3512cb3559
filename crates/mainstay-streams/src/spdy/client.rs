//! The client's side of a SPDY connection, whose streams the server only ends.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};

use super::frame::{Control, DataFrames, GoAwayStatus, go_away};
use super::headers::{Headers, Storer};
use super::reader::{Event, FrameReader};
use crate::link::{
    Activity, Gone, Link, Outgoing, Queue, ReadError, TaskSet, Timeouts, deliver, pump,
};
use crate::pipe::{End, PipeHandle, PipeReader, PipeWriter, Share, pipe};

/// The memory of the pipes of one connection, in bytes.
const PIPES_MAX: usize = 1 << 20;

/// A connection. Dropping it breaks it at once.
#[derive(Debug)]
pub(crate) struct Client {
    link: Link,
    queue: Queue,
    streams: Streams,
    tasks: TaskSet,
    share: Arc<Share>,
    headers: Storer,
    /// The number of the next stream.
    next: u32,
}

/// The streams by their numbers; nothing when the connection has ended.
#[derive(Debug, Clone)]
struct Streams(Arc<Mutex<Option<HashMap<u32, Entry>>>>);

#[derive(Debug)]
struct Entry {
    /// Towards the holder of the stream. `None` when the server sends no more, or while it is written to.
    sink: Option<PipeWriter>,
    /// The pipe towards the server.
    output: PipeHandle,
}

/// The reading half of a connection.
struct Reading<R> {
    frames: FrameReader<R>,
    streams: Streams,
    replies: Storer,
    queue: Queue,
    activity: Arc<Activity>,
    /// Whether the server has said that it ends.
    is_ending: bool,
}

/// A ping, whose answer nobody waits for. The numbers of a client's pings are odd.
fn ping() -> Outgoing {
    Control::Ping { id: 1 }.encode(&mut Storer::default())
}

// === impl Client ===

impl Client {
    pub(crate) fn start<R, W>(reader: R, writer: W, timeouts: Timeouts) -> Self
    where
        R: AsyncRead + Unpin + Send + 'static,
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (queue, queued) = Queue::new();
        let (tasks, activity) = (TaskSet::default(), Activity::new());
        let streams = Streams(Arc::new(Mutex::new(Some(HashMap::new()))));
        let reading = Reading {
            frames: FrameReader::new(reader),
            streams: streams.clone(),
            replies: Storer::default(),
            queue: queue.clone(),
            activity: Arc::clone(&activity),
            is_ending: false,
        };
        let ends = (queue.clone(), queued);
        let link = Link::start(tasks.clone(), ends, writer, reading.run(), activity, timeouts);
        let share = Share::new(PIPES_MAX);
        Self { link, queue, streams, tasks, share, headers: Storer::default(), next: 1 }
    }

    /// Opens a stream. On a connection that has ended both directions fail.
    pub(crate) async fn open(&mut self, headers: &[(&str, &str)]) -> (PipeReader, PipeWriter) {
        let id = self.next;
        self.next += 2;
        let aborted = End::Failed(io::ErrorKind::ConnectionAborted);
        let (sink, read) = pipe(&self.share, aborted);
        let (write, from) = pipe(&self.share, End::Complete);
        let entry = Entry { sink: Some(sink), output: write.handle() };
        match self.streams.lock().as_mut() {
            Some(streams) => drop(streams.insert(id, entry)),
            None => entry.output.kill(),
        }
        let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let headers = Headers(headers.iter().map(text).collect());
        let open = Control::SynStream { stream: id, headers, fin: false, unidirectional: false };
        // Before any data.
        self.queue.send_urgent(open.encode(&mut self.headers)).await;
        self.tasks.spawn(pump(from, self.queue.clone(), DataFrames { stream: id }));
        (read, write)
    }

    /// Runs a task that ends with the connection.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.link.spawn(task);
    }

    /// Waits until the server is gone. Cancel safe.
    pub(crate) async fn gone(&self) -> Gone {
        self.link.gone().await
    }
}

// === impl Streams ===

impl Streams {
    fn lock(&self) -> MutexGuard<'_, Option<HashMap<u32, Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the writing end of a stream, to write to it or to end it.
    fn take_sink(&self, id: u32) -> Option<PipeWriter> {
        self.lock().as_mut()?.get_mut(&id)?.sink.take()
    }

    fn put_sink(&self, id: u32, sink: PipeWriter) {
        if let Some(entry) = self.lock().as_mut().and_then(|streams| streams.get_mut(&id)) {
            entry.sink = Some(sink);
        }
    }
}

// === impl Reading ===

impl<R: AsyncRead + Unpin> Reading<R> {
    async fn run(mut self) -> Gone {
        let gone = match self.read().await {
            Ok(()) if self.is_ending => Gone::Closed,
            Ok(()) => Gone::Broken(io::ErrorKind::UnexpectedEof),
            Err(error) => error.into(),
        };
        let streams = self.streams.lock().take().unwrap_or_default();
        for entry in streams.into_values() {
            if let (Some(sink), Gone::Closed) = (&entry.sink, gone) {
                sink.finish();
            }
            entry.output.kill();
        }
        if gone == Gone::Closed {
            // The server waits for it.
            self.queue.send_urgent(go_away(0, GoAwayStatus::Ok)).await;
        }
        gone
    }

    async fn read(&mut self) -> Result<(), ReadError> {
        while let Some(event) = self.frames.next().await? {
            self.activity.touch();
            match event {
                Event::Data { stream, bytes, fin } => self.data(stream, &bytes, fin).await,
                Event::Control(Control::RstStream { stream, .. }) => self.reset(stream),
                Event::Control(
                    Control::SynReply { stream, fin: true, .. }
                    | Control::Headers { stream, fin: true, .. },
                ) => self.data(stream, &[], true).await,
                // An odd number is that of an answer.
                Event::Control(Control::Ping { id }) if id % 2 == 0 => {
                    self.queue.offer(Control::Ping { id }.encode(&mut self.replies));
                }
                // What was begun is still told.
                Event::Control(Control::GoAway { .. }) => self.is_ending = true,
                Event::Control(
                    Control::Ping { .. }
                    | Control::SynReply { .. }
                    | Control::SynStream { .. }
                    | Control::Settings
                    | Control::Headers { .. }
                    | Control::WindowUpdate { .. }
                    | Control::Unknown,
                ) => {}
            }
        }
        Ok(())
    }

    async fn data(&mut self, stream: u32, bytes: &[u8], fin: bool) {
        // Nobody reads it any more if it is not there; what else comes is dropped.
        let Some(mut sink) = self.streams.take_sink(stream) else { return };
        if !bytes.is_empty() && !deliver(&mut sink, bytes, &self.queue, ping).await {
            return;
        }
        if fin {
            sink.finish();
        } else {
            self.streams.put_sink(stream, sink);
        }
    }

    /// A server ends its streams by resetting them. Source: `connection.Close` in
    /// `staging/src/k8s.io/streaming/pkg/httpstream/spdy/connection.go`.
    fn reset(&self, stream: u32) {
        let entry = self.streams.lock().as_mut().and_then(|streams| streams.remove(&stream));
        let Some(entry) = entry else { return };
        if let Some(sink) = &entry.sink {
            sink.finish();
        }
        entry.output.kill();
    }
}
