//! One connection to a client: what is queued for it, and the tasks that serve it.
//!
//! Tasks of a connection, all in one [`JoinSet`] that [`Link`] owns:
//!
//! - the *driver* reads frames and fills the pipes of the streams, and writes what is queued;
//! - a *pump* per outgoing stream takes bytes out of its pipe and queues them as frames.
//!
//! Back pressure: the pumps wait for room in the queue, the queue for the socket, and the holder
//! of a stream for room in its pipe. In the other direction neither protocol has flow control
//! that its clients follow, so the driver stops reading while a pipe is full.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use crate::pipe::{Chunk, PipeReader, PipeWriter};

/// The most payload of one frame that is sent, in bytes; what Go's `io.Copy` makes of a stream.
const FRAME_MAX: usize = 32 << 10;
/// How long a client has to take the end of a connection and to close its side.
const LINGER: Duration = Duration::from_secs(5);
/// How often the client is written to while nothing can be read from it.
const PROBE: Duration = Duration::from_secs(5);

/// How long a connection waits for its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// With nothing sent or received for this long the connection is closed.
    pub idle: Duration,
    /// For the client to open all the streams of a command, or both streams of a connection.
    pub stream_creation: Duration,
}

/// Why a connection has ended, other than by the server's own will.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Gone {
    /// In order, with a close frame or GOAWAY.
    #[error("the client closed the connection")]
    Closed,
    /// Without a word.
    #[error("the connection to the client broke: {0}")]
    Broken(io::ErrorKind),
    /// [`Timeouts::idle`] passed.
    #[error("nothing was sent or received for {} s", .0.as_secs())]
    Idle(Duration),
    /// What arrived was not of the protocol.
    #[error("the client broke the protocol: {0}")]
    Violation(&'static str),
}

/// A frame, ready to be written.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) head: Bytes,
    pub(crate) payload: Bytes,
    pub(crate) after: After,
}

/// What follows a frame.
#[derive(Debug)]
pub(crate) enum After {
    More,
    /// Nothing: the connection is shut down in this direction.
    Nothing,
    /// The same, and someone wants to know when it is done.
    NothingTell(oneshot::Sender<()>),
}

/// The frames that wait for the socket. Bounded; sending waits for room.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    /// Answers, which go before any data.
    urgent: mpsc::Sender<Outgoing>,
    ordinary: mpsc::Sender<Outgoing>,
}

/// The other end of a [`Queue`].
#[derive(Debug)]
pub(crate) struct Queued {
    urgent: mpsc::Receiver<Outgoing>,
    ordinary: mpsc::Receiver<Outgoing>,
}

/// When something was last sent or received.
#[derive(Debug)]
pub(crate) struct Activity {
    start: Instant,
    /// Milliseconds since `start`.
    last: AtomicU64,
}

/// How the bytes of one outgoing stream become frames.
pub(crate) trait Framing: Send + 'static {
    fn data(&self, bytes: Bytes) -> Outgoing;
    /// After the last byte, where the protocol has a way to say so.
    fn end(&self) -> Option<Outgoing>;
    /// Instead of the last bytes.
    fn reset(&self) -> Option<Outgoing>;
}

/// A running connection. Dropping it breaks the connection at once.
#[derive(Debug)]
pub(crate) struct Link {
    queue: Queue,
    gone: watch::Receiver<Option<Gone>>,
    tasks: Tasks,
    /// The connection that carries this one.
    carrier: Option<Box<Link>>,
}

/// The tasks of one connection, shared with the driver, which adds pumps.
#[derive(Debug, Clone, Default)]
pub(crate) struct TaskSet {
    set: Arc<Mutex<JoinSet<()>>>,
}

/// The owner of a [`TaskSet`]: with it the tasks end.
#[derive(Debug)]
struct Tasks(TaskSet);

// === impl Timeouts ===

impl Default for Timeouts {
    /// The kubelet's. Source: `DefaultStreamIdleTimeout` in `pkg/kubelet/apis/config`,
    /// `DefaultStreamCreationTimeout` in `cri-streaming/pkg/streaming/remotecommand`.
    fn default() -> Self {
        Self { idle: Duration::from_hours(4), stream_creation: Duration::from_secs(30) }
    }
}

// === impl Outgoing ===

impl Outgoing {
    pub(crate) fn new(head: impl Into<Bytes>, payload: impl Into<Bytes>) -> Self {
        Self { head: head.into(), payload: payload.into(), after: After::More }
    }

    pub(crate) fn then_nothing(self) -> Self {
        Self { after: After::Nothing, ..self }
    }
}

// === impl Queue ===

impl Queue {
    pub(crate) fn new() -> (Self, Queued) {
        let (urgent, urgent_out) = mpsc::channel(64);
        let (ordinary, ordinary_out) = mpsc::channel(1);
        (Self { urgent, ordinary }, Queued { urgent: urgent_out, ordinary: ordinary_out })
    }

    /// Queues behind all data. False when nobody writes any more.
    pub(crate) async fn send(&self, frame: Outgoing) -> bool {
        self.ordinary.send(frame).await.is_ok()
    }

    /// Queues before all data. False when nobody writes any more.
    pub(crate) async fn send_urgent(&self, frame: Outgoing) -> bool {
        self.urgent.send(frame).await.is_ok()
    }

    /// Queues before all data if there is room: an answer that may be missing.
    pub(crate) fn offer(&self, frame: Outgoing) {
        // A client that asks more often than it reads has answers enough in the queue.
        let _ = self.urgent.try_send(frame);
    }
}

// === impl Activity ===

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { start: Instant::now(), last: AtomicU64::new(0) })
    }

    pub(crate) fn touch(&self) {
        let now = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }

    /// Ends when there was none for `limit`.
    async fn missing(&self, limit: Duration) {
        loop {
            let last = self.last.load(Ordering::Relaxed);
            sleep_until(self.start + Duration::from_millis(last) + limit).await;
            if last == self.last.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

// === impl TaskSet ===

impl TaskSet {
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut set = self.lock();
        while set.try_join_next().is_some() {}
        set.spawn(task);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        self.set.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tasks {
    async fn join(&self) {
        loop {
            let mut set = std::mem::take(&mut *self.0.lock());
            if set.is_empty() {
                return;
            }
            while set.join_next().await.is_some() {}
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        // The driver has a handle of the set too; the set must not wait for it to go.
        self.0.lock().abort_all();
    }
}

// === impl Link ===

impl Link {
    /// Starts serving: `reading` fills the pipes, and what is sent to `queue` goes to `writer`.
    pub(crate) fn start<W>(
        tasks: TaskSet,
        (queue, queued): (Queue, Queued),
        writer: W,
        reading: impl Future<Output = Gone> + Send + 'static,
        activity: Arc<Activity>,
        timeouts: Timeouts,
    ) -> Self
    where
        W: AsyncWrite + Unpin + Send + 'static,
    {
        let (tell, gone) = watch::channel(None);
        tasks.spawn(async move {
            let writing = write_frames(writer, queued, &activity);
            let idle = activity.missing(timeouts.idle);
            drive(reading, writing, idle, timeouts.idle, &tell).await;
        });
        Self { queue, gone, tasks: Tasks(tasks), carrier: None }
    }

    /// Keeps the connection that carries this one.
    pub(crate) fn carried_by(self, carrier: Self) -> Self {
        Self { carrier: Some(Box::new(carrier)), ..self }
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.0.spawn(task);
    }

    /// Waits until the client is gone. Cancel safe.
    pub(crate) async fn gone(&self) -> Gone {
        let mut gone = self.gone.clone();
        let seen = gone.wait_for(Option::is_some).await.ok().and_then(|gone| *gone);
        // Without a word only if the driver panicked.
        let gone = seen.unwrap_or(Gone::Broken(io::ErrorKind::ConnectionAborted));
        match (&self.carrier, gone) {
            // The carrier knows why there was nothing more to read.
            (Some(carrier), Gone::Broken(_)) => Box::pin(carrier.gone()).await,
            _ => gone,
        }
    }

    /// Sends `last` behind everything that is queued, and gives the client time to take it.
    ///
    /// The client's side is read until it ends, or for five seconds: closing a socket with
    /// unread bytes in it makes the kernel reset the connection, and the client loses its end.
    pub(crate) async fn close(self, last: Outgoing) -> Result<(), Gone> {
        let (tell, told) = oneshot::channel();
        self.queue.send(Outgoing { after: After::NothingTell(tell), ..last }).await;
        if told.await.is_err() {
            return Err(self.gone().await);
        }
        self.tasks.join().await;
        if let Some(carrier) = &self.carrier {
            carrier.tasks.join().await;
        }
        Ok(())
    }
}

/// Moves the bytes of one stream from its pipe into the queue.
pub(crate) async fn pump(mut from: PipeReader, queue: Queue, framing: impl Framing) {
    let last = loop {
        match from.chunk(FRAME_MAX).await {
            Chunk::Data(bytes) => {
                if !queue.send(framing.data(bytes)).await {
                    return;
                }
            }
            Chunk::End => break framing.end(),
            Chunk::Failed => break framing.reset(),
            Chunk::Killed => break None,
        }
    };
    if let Some(frame) = last {
        queue.send(frame).await;
    }
}

/// Waits until a stream has room for what came for it. False when nobody reads it any more.
///
/// Meanwhile nothing is read from the client, so its end would not be seen. Something is written
/// to it now and then, which fails if it is gone; an answer is not waited for.
pub(crate) async fn deliver(
    to: &mut PipeWriter,
    bytes: &[u8],
    queue: &Queue,
    ping: impl Fn() -> Outgoing,
) -> bool {
    let mut delivering = pin!(to.write_all(bytes));
    loop {
        match timeout(PROBE, &mut delivering).await {
            Ok(delivered) => return delivered.is_ok(),
            Err(_) => queue.offer(ping()),
        }
    }
}

/// Serves the connection until it ends, then tells why.
async fn drive(
    reading: impl Future<Output = Gone>,
    writing: impl Future<Output = io::Result<()>>,
    idle: impl Future<Output = ()>,
    idle_limit: Duration,
    tell: &watch::Sender<Option<Gone>>,
) {
    let mut reading = pin!(reading);
    let mut writing = pin!(writing);
    let gone = tokio::select! {
        biased;
        gone = &mut reading => {
            tell.send_replace(Some(gone));
            if matches!(gone, Gone::Closed | Gone::Violation(_)) {
                // The last word to the client is queued; it may not take it.
                let _ = timeout(LINGER, writing).await;
            }
            gone
        }
        written = &mut writing => match written {
            Ok(()) => {
                let _ = timeout(LINGER, reading).await;
                Gone::Closed
            }
            Err(error) => Gone::Broken(error.kind()),
        },
        () = idle => Gone::Idle(idle_limit),
    };
    tracing::debug!(%gone, "stream connection ended");
    tell.send_replace(Some(gone));
}

/// Writes what is queued until the last frame, or until nobody can send another.
async fn write_frames<W: AsyncWrite + Unpin>(
    mut to: W,
    mut queued: Queued,
    activity: &Activity,
) -> io::Result<()> {
    let mut batch = BytesMut::new();
    let mut after = After::More;
    while matches!(after, After::More) {
        let first = tokio::select! {
            biased;
            Some(frame) = queued.urgent.recv() => frame,
            Some(frame) = queued.ordinary.recv() => frame,
            else => break,
        };
        let mut next = Some(first);
        while let Some(frame) = next {
            batch.extend_from_slice(&frame.head);
            batch.extend_from_slice(&frame.payload);
            after = frame.after;
            next = if batch.len() < FRAME_MAX && matches!(after, After::More) {
                queued.urgent.try_recv().or_else(|_| queued.ordinary.try_recv()).ok()
            } else {
                None
            };
        }
        to.write_all(&batch).await?;
        to.flush().await?;
        activity.touch();
        batch.clear();
        if queued.urgent.is_empty() && queued.ordinary.is_empty() {
            batch = BytesMut::new();
        }
    }
    to.shutdown().await?;
    if let After::NothingTell(tell) = after {
        // Who wanted to know may have lost patience.
        let _ = tell.send(());
    }
    Ok(())
}

/// What went wrong while reading frames.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(io::Error),
    Violation(&'static str),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<ReadError> for Gone {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Io(error) => Self::Broken(error.kind()),
            ReadError::Violation(detail) => Self::Violation(detail),
        }
    }
}
