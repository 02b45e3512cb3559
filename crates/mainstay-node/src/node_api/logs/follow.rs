//! Sending a log, and what is added to it.
//!
//! # Flow
//!
//! A task reads a piece at a time, where file work may take its time, and waits until the client
//! has taken it. At the end of what there is it waits for inotify, for the runtime's events, or for
//! [`LOOK`] to pass, and reads on, until the container has ended.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use inotify::{Inotify, WatchMask};
use mainstay_cri::{ContainerEvent, ContainerId, ContainerState, ErrorKind, Runtime};
use tokio::net::unix::pipe;
use tokio::sync::mpsc;

use super::{Log, PodLogOptions};
use crate::logs::LogReader;

/// How often a log is looked at although nothing was heard of it: inotify may have no watches left,
/// and events are hints.
const LOOK: Duration = Duration::from_secs(1);
/// About how many bytes are read at once.
const PIECE: usize = 64 << 10;

/// What a client takes pieces from.
pub(in super::super) type Follow = mpsc::Receiver<io::Result<Bytes>>;

/// The pieces of a log, and what sends them until the end or until nobody takes them any more.
pub(in super::super) fn stream(
    runtime: Arc<dyn Runtime>,
    log: Log,
    options: &PodLogOptions,
) -> (Follow, impl Future<Output = ()> + Send + 'static) {
    let (sender, pieces) = mpsc::channel(1);
    let (follow, limit) = (options.follow, options.limit.unwrap_or(u64::MAX));
    let sending = async move {
        let gone = sender.clone();
        tokio::select! {
            sent = send(runtime, log, follow, limit, &sender) => {
                if let Err(error) = sent {
                    // A client that has left needs no error.
                    let _ = sender.send(Err(error)).await;
                }
            }
            // Also while it waits for something to be written.
            () = gone.closed() => {}
        }
    };
    (pieces, sending)
}

async fn send(
    runtime: Arc<dyn Runtime>,
    log: Log,
    follow: bool,
    mut limit: u64,
    sender: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let Log { mut reader, path, container } = log;
    // Before the first look, so that nothing is missed between.
    let mut changes = follow.then(|| Changes::of(&path, runtime.events()));
    loop {
        // Asked first: what it wrote before it ended is there when it is seen to have ended.
        let ended = !follow || has_ended(runtime.as_ref(), &container).await;
        loop {
            let (again, piece) = read(reader).await?;
            reader = again;
            if piece.is_empty() {
                break;
            }
            let length = u64::try_from(piece.len()).unwrap_or(u64::MAX).min(limit);
            limit -= length;
            let wanted = usize::try_from(length).unwrap_or(usize::MAX);
            if sender.send(Ok(piece.slice(..wanted))).await.is_err() || limit == 0 {
                return Ok(());
            }
        }
        match &mut changes {
            Some(changes) if !ended => changes.next(&container).await,
            _ => return Ok(()),
        }
    }
}

/// Reads one piece; an empty one is the end of what there is.
async fn read(mut reader: LogReader) -> io::Result<(LogReader, Bytes)> {
    let read = tokio::task::spawn_blocking(move || {
        let mut piece = Vec::new();
        reader.read(&mut piece, PIECE)?;
        Ok((reader, Bytes::from(piece)))
    });
    read.await.map_err(io::Error::other)?
}

async fn has_ended(runtime: &dyn Runtime, container: &ContainerId) -> bool {
    match runtime.container_status(container).await {
        Ok(status) => !matches!(status.state, ContainerState::Running { .. }),
        // One that the runtime cannot be asked about may run on.
        Err(error) => error.kind == ErrorKind::NotFound,
    }
}

/// Tells that there may be something new.
struct Changes {
    inotify: Option<pipe::Receiver>,
    events: BoxStream<'static, ContainerEvent>,
}

impl Changes {
    fn of(log: &Path, events: BoxStream<'static, ContainerEvent>) -> Self {
        let watch = || -> io::Result<_> {
            let inotify = Inotify::init()?;
            let mask = WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO;
            inotify.watches().add(log.parent().unwrap_or(log), mask)?;
            // It is waited for and read as a pipe is, and only its kind is what goes unchecked.
            pipe::Receiver::from_owned_fd_unchecked(inotify.as_fd().try_clone_to_owned()?)
        };
        // Without one it is looked at now and then.
        Self { inotify: watch().ok(), events }
    }

    async fn next(&mut self, container: &ContainerId) {
        tokio::select! {
            () = written(self.inotify.as_ref()) => {}
            () = told(&mut self.events, container) => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

async fn written(inotify: Option<&pipe::Receiver>) {
    let Some(inotify) = inotify else { return std::future::pending().await };
    // An error is one of the agent's runtime, which is ending.
    if inotify.readable().await.is_ok() {
        // What happened does not matter, only that something did.
        let _ = inotify.try_read(&mut [0; 4096]);
    }
}

/// Waits for an event that is, or may be, of the container.
async fn told(events: &mut BoxStream<'static, ContainerEvent>, container: &ContainerId) {
    loop {
        match events.next().await {
            Some(event) if event.container.as_ref().is_none_or(|it| it == container) => return,
            Some(_) => {}
            None => std::future::pending().await,
        }
    }
}
