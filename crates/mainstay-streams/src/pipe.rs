//! A bounded queue of bytes between one writer and one reader of this process.
//!
//! Unlike [`tokio::io::duplex`], the end of what was written says whether it is complete: a
//! stream that its client reset, or whose connection broke, ends with an error for the reader.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use std::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The most bytes that one pipe holds.
pub(crate) const PIPE_MAX: usize = 64 << 10;
/// The bytes that a pipe may always hold, however many there are.
const PIPE_MIN: usize = 4 << 10;

/// The memory that the pipes of one connection have together.
#[derive(Debug)]
pub(crate) struct Share {
    /// In bytes. More pipes than `total / PIPE_MIN` exceed it, by `PIPE_MIN` each.
    total: usize,
    open: AtomicUsize,
}

/// The end that is written to. Dropping it ends the pipe as its maker said.
#[derive(Debug)]
pub(crate) struct PipeWriter {
    pipe: Arc<Pipe>,
    on_drop: End,
}

/// The end that is read from. Dropping it discards what is queued and fails the writer.
#[derive(Debug)]
pub(crate) struct PipeReader {
    pipe: Arc<Pipe>,
}

/// Sees and ends a pipe whose two ends belong to others.
#[derive(Debug, Clone)]
pub(crate) struct PipeHandle {
    pipe: Arc<Pipe>,
}

/// What [`PipeReader::chunk`] found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    Data(Bytes),
    /// Everything was written and read.
    End,
    /// The writer gave up; what it had written before was read.
    Failed,
    /// The pipe was killed; nobody wants to know how it ended.
    Killed,
}

/// Has a type read from its `read`, an end of a pipe.
macro_rules! reads_its_pipe {
    ($type:ty) => {
        impl tokio::io::AsyncRead for $type {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                into: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.read).poll_read(cx, into)
            }
        }
    };
}

/// Has a type write to its `write`, an end of a pipe.
macro_rules! writes_its_pipe {
    ($type:ty) => {
        impl tokio::io::AsyncWrite for $type {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bytes: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                std::pin::Pin::new(&mut self.write).poll_write(cx, bytes)
            }

            fn poll_flush(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.write).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                std::pin::Pin::new(&mut self.write).poll_shutdown(cx)
            }
        }
    };
}

pub(crate) use {reads_its_pipe, writes_its_pipe};

/// How the writing side ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing is missing.
    Complete,
    /// More was to come.
    Failed(io::ErrorKind),
}

#[derive(Debug)]
struct Pipe {
    share: Arc<Share>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    queued: BytesMut,
    end: Option<End>,
    reader_gone: bool,
    /// Woken when there is something to read.
    reading: Option<Waker>,
    /// Woken when there is room.
    writing: Option<Waker>,
    /// Woken when the reader is gone.
    draining: Option<Waker>,
}

/// A new pipe. What is written is complete when the writer is dropped if `on_drop` says so.
pub(crate) fn pipe(share: &Arc<Share>, on_drop: End) -> (PipeWriter, PipeReader) {
    share.open.fetch_add(1, Ordering::Relaxed);
    let pipe = Arc::new(Pipe { share: Arc::clone(share), state: Mutex::default() });
    (PipeWriter { pipe: Arc::clone(&pipe), on_drop }, PipeReader { pipe })
}

// === impl Share ===

impl Share {
    pub(crate) fn new(total: usize) -> Arc<Self> {
        Arc::new(Self { total, open: AtomicUsize::new(0) })
    }

    /// How much one pipe may hold now, in bytes.
    fn capacity(&self) -> usize {
        (self.total / self.open.load(Ordering::Relaxed).max(1)).clamp(PIPE_MIN, PIPE_MAX)
    }
}

// === impl Pipe ===

impl Pipe {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.share.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl State {
    fn end(&mut self, end: End) {
        self.end.get_or_insert(end);
        wake(&mut self.reading);
        wake(&mut self.writing);
    }

    fn abandon(&mut self) {
        self.reader_gone = true;
        self.queued = BytesMut::new();
        wake(&mut self.reading);
        wake(&mut self.writing);
        wake(&mut self.draining);
    }

    /// Called after something was taken out.
    fn taken(&mut self) {
        if self.queued.is_empty() {
            // A session that waits for its user holds no buffer.
            self.queued = BytesMut::new();
        }
        wake(&mut self.writing);
    }
}

// === impl PipeWriter ===

impl PipeWriter {
    /// One that nobody reads.
    pub(crate) fn closed() -> Self {
        pipe(&Share::new(PIPE_MIN), End::Complete).0
    }

    /// Nothing more comes; nothing is missing.
    pub(crate) fn finish(&self) {
        self.pipe.state().end(End::Complete);
    }

    /// Nothing more comes, though more was to come.
    pub(crate) fn fail(&self, kind: io::ErrorKind) {
        self.pipe.state().end(End::Failed(kind));
    }

    /// Queues what there is room for, without waiting.
    pub(crate) fn write_now(&self, bytes: &[u8]) {
        let mut state = self.pipe.state();
        if state.end.is_none() && !state.reader_gone {
            let room = self.pipe.share.capacity().saturating_sub(state.queued.len());
            state.queued.extend_from_slice(bytes.get(..room).unwrap_or(bytes));
            wake(&mut state.reading);
        }
    }

    pub(crate) fn handle(&self) -> PipeHandle {
        PipeHandle { pipe: Arc::clone(&self.pipe) }
    }
}

impl AsyncWrite for PipeWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.pipe.state();
        if state.reader_gone || state.end.is_some() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = self.pipe.share.capacity().saturating_sub(state.queued.len());
        if room == 0 {
            state.writing = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = bytes.get(..room).unwrap_or(bytes);
        state.queued.extend_from_slice(taken);
        wake(&mut state.reading);
        Poll::Ready(Ok(taken.len()))
    }

    /// The bytes are with the reader at once.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl Drop for PipeWriter {
    fn drop(&mut self) {
        self.pipe.state().end(self.on_drop);
    }
}

// === impl PipeReader ===

impl PipeReader {
    /// Waits for bytes and takes at most `max` of them.
    pub(crate) async fn chunk(&mut self, max: usize) -> Chunk {
        poll_fn(|cx| self.poll_chunk(cx, max)).await
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>, max: usize) -> Poll<Chunk> {
        let mut state = self.pipe.state();
        if state.queued.is_empty() {
            return match state.end {
                _ if state.reader_gone => Poll::Ready(Chunk::Killed),
                Some(End::Complete) => Poll::Ready(Chunk::End),
                Some(End::Failed(_)) => Poll::Ready(Chunk::Failed),
                None => {
                    state.reading = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        let length = state.queued.len().min(max);
        let chunk = state.queued.split_to(length).freeze();
        state.taken();
        Poll::Ready(Chunk::Data(chunk))
    }
}

impl AsyncRead for PipeReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.pipe.state();
        if state.queued.is_empty() {
            return match state.end {
                Some(End::Complete) => Poll::Ready(Ok(())),
                Some(End::Failed(kind)) => Poll::Ready(Err(kind.into())),
                None => {
                    state.reading = Some(cx.waker().clone());
                    Poll::Pending
                }
            };
        }
        let length = state.queued.len().min(into.remaining());
        into.put_slice(&state.queued[..length]);
        state.queued.advance(length);
        state.taken();
        Poll::Ready(Ok(()))
    }
}

impl Drop for PipeReader {
    fn drop(&mut self) {
        self.pipe.state().abandon();
    }
}

// === impl PipeHandle ===

impl PipeHandle {
    /// Ends the writing side; what was written stays readable.
    pub(crate) fn finish(&self) {
        self.pipe.state().end(End::Complete);
    }

    /// Drops what is queued; both ends fail from now on.
    pub(crate) fn kill(&self) {
        self.pipe.state().abandon();
    }

    /// Whether nobody reads any more.
    pub(crate) fn is_drained(&self) -> bool {
        self.pipe.state().reader_gone
    }

    /// Whether the writer gave up.
    pub(crate) fn is_failed(&self) -> bool {
        matches!(self.pipe.state().end, Some(End::Failed(_)))
    }

    /// Waits until nobody reads any more. One caller at a time.
    pub(crate) async fn drained(&self) {
        poll_fn(|cx| {
            let mut state = self.pipe.state();
            if state.reader_gone {
                return Poll::Ready(());
            }
            state.draining = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

#[cfg(test)]
mod tests;
