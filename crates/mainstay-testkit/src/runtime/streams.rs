//! Clients that are attached to a container.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use mainstay_cri::{
    AttachRequest, Attached, ContainerState, Error, ErrorKind, FELL_BEHIND, Input, Output, Resize,
    Result,
};
use rustix::io::Errno;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;

use super::{FakeRuntime, Shared};

/// One of a container's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Somebody who hears what a container writes.
pub(super) struct Client {
    number: u32,
    /// Asked directly whether there is room: what tokio knows of that comes later.
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    end: Option<oneshot::Sender<Result<()>>>,
}

impl Stream {
    /// As it stands in a log.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

impl Client {
    /// Returns whether the client has kept up.
    pub(super) fn hear(&mut self, stream: Stream, bytes: &[u8]) -> bool {
        let to = match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        };
        let kept_up = match to.as_ref().map(|to| rustix::io::write(to, bytes)) {
            None => true,
            Some(Ok(length)) => length == bytes.len(),
            Some(Err(error)) => error == Errno::PIPE,
        };
        if !kept_up && let Some(end) = self.end.take() {
            // A client that has left needs no reason.
            let _ = end.send(Err(Error::new(ErrorKind::ResourceExhausted, FELL_BEHIND)));
        }
        kept_up
    }

    pub(super) fn end(mut self, how: Result<()>) {
        if let Some(end) = self.end.take() {
            let _ = end.send(how);
        }
    }
}

pub(super) fn attach(runtime: &FakeRuntime, request: &AttachRequest) -> Result<Attached> {
    let failed = |error| Error::with_source(ErrorKind::Internal, "cannot make a pipe", error);
    let (mut client, mut attached) = (None, None);
    let (tell, end) = oneshot::channel::<Result<()>>();
    let mut state = runtime.state();
    state.made += 1;
    let number = state.made;
    let container = state.container(&request.container)?;
    if matches!(container.status.state, ContainerState::Exited { .. }) {
        return Err(Error::new(ErrorKind::FailedPrecondition, "the container has ended"));
    }
    let tty = container.config.tty;
    if tty != request.tty {
        return Err(Error::new(ErrorKind::InvalidArgument, "a terminal is no matter of choice"));
    }
    let pipe = |wanted: bool| wanted.then(pipe::pipe).transpose().map_err(failed);
    let output = |wanted| -> Result<_> {
        let (to, from) = pipe(wanted)?.unzip();
        let to = to.map(pipe::Sender::into_nonblocking_fd).transpose().map_err(failed)?;
        Ok((to, from))
    };
    let (stdout, stderr) = (output(request.stdout)?, output(request.stderr && !tty)?);
    let (to, from) = pipe(request.stdin)?.unzip();
    client.replace(Client { number, stdout: stdout.0, stderr: stderr.0, end: Some(tell) });
    attached.replace((stdout.1, stderr.1));
    container.clients.extend(client);
    let once = container.config.stdin_once && !tty;
    if let Some(from) = from.filter(|_| container.config.stdin) {
        runtime.spawn(pass_on(
            Arc::downgrade(&runtime.0),
            request.container.clone(),
            number,
            from,
            once,
        ));
    }
    let (stdout, stderr) = attached.unwrap_or_default();
    Ok(Attached {
        stdin: to.map(|to| Box::pin(to) as Input),
        stdout: stdout.map(|it| Box::pin(it) as Output),
        stderr: stderr.map(|it| Box::pin(it) as Output),
        resize: tty.then(|| Box::new(|_| Ok(())) as Resize),
        end: Box::pin(async move {
            let lost = |_| Error::new(ErrorKind::Internal, "the attachment is lost");
            end.await.map_err(lost)?
        }),
    })
}

/// Writes back what a client sends.
async fn pass_on(
    // A task that held the runtime would keep itself alive.
    runtime: Weak<Shared>,
    id: mainstay_cri::ContainerId,
    number: u32,
    mut from: pipe::Receiver,
    once: bool,
) {
    let mut buffer = vec![0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        let Some(runtime) = runtime.upgrade().map(FakeRuntime) else { return };
        runtime.write(&id, Stream::Stdout, &buffer[..length]);
    }
    let Some(runtime) = runtime.upgrade().map(FakeRuntime) else { return };
    if once {
        // The program has read its input to the end.
        let _ = runtime.end(&id, 0);
    } else if let Ok(container) = runtime.state().container(&id)
        && let Some(at) = container.clients.iter().position(|client| client.number == number)
    {
        container.clients.remove(at).end(Ok(()));
    }
}
