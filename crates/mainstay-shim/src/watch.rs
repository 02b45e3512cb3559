//! What one `poll` listens to.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// What one `poll` listens to, and what each descriptor of it stands for.
pub(crate) struct Watch<'a, S> {
    sources: Vec<S>,
    descriptors: Vec<PollFd<'a>>,
    /// When it ends at the latest.
    deadline: Option<Instant>,
}

impl<S> Default for Watch<'_, S> {
    fn default() -> Self {
        Self { sources: Vec::new(), descriptors: Vec::new(), deadline: None }
    }
}

impl<'a, S> Watch<'a, S> {
    /// Listens for something to read.
    pub(crate) fn add(&mut self, source: S, descriptor: BorrowedFd<'a>) {
        self.add_for(source, descriptor, PollFlags::IN);
    }

    pub(crate) fn add_for(&mut self, source: S, descriptor: BorrowedFd<'a>, flags: PollFlags) {
        self.sources.push(source);
        self.descriptors.push(PollFd::from_borrowed_fd(descriptor, flags));
    }

    pub(crate) fn until(&mut self, deadline: Instant) {
        self.deadline = Some(self.deadline.map_or(deadline, |known| known.min(deadline)));
    }

    /// Waits for the first of them; none if the time is up, or a signal came.
    pub(crate) fn wait(mut self, now: Instant) -> io::Result<Vec<S>> {
        // Rounded up: who comes too early finds that it is not time yet, again and again.
        let rest =
            self.deadline.map(|it| it.saturating_duration_since(now) + Duration::from_millis(1));
        let rest = rest.map(Timespec::try_from).transpose().map_err(io::Error::other)?;
        match poll(&mut self.descriptors, rest.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let heard = self.descriptors.iter().map(|descriptor| !descriptor.revents().is_empty());
        let heard = self.sources.into_iter().zip(heard);
        Ok(heard.filter_map(|(source, heard)| heard.then_some(source)).collect())
    }
}
