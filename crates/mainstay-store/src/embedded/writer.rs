//! The thread that writes: it decides commits, puts them into the file, and makes them visible.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Options;
use super::decide::decide;
use super::disk::Disk;
use super::file::{Addition, FileError, Loaded, StoreFile};
use super::queue::{Crowd, Queue, Request, Task};
use crate::view::commit::{Commit, Held};
use crate::view::state::{Entries, Image, Shared, State};
use crate::{Durability, Revision, StoreError};

/// How many revisions are reserved at once, and skipped after a crash.
const BLOCK: u64 = 4096;
/// The longest that one commit is held up for others.
const PATIENCE_MAX: Duration = Duration::from_millis(2);
/// How much of lazy commits may wait to be put into the file, in bytes.
const PENDING_MAX: usize = 1 << 20;
/// Commits that have left the history are moved from the log to the entries when they are this part of
/// what the history may have.
const LOOSE_PART: usize = 8;
/// A file is made anew when it is opened if it is larger than this, in bytes,
const SPARE: u64 = 8 << 20;
/// and than so many times what is in it.
const SPARE_FACTOR: u64 = 4;

/// The thread's own.
#[derive(Debug)]
pub(super) struct Writer<D> {
    disk: D,
    place: String,
    options: Options,
    shared: Arc<Shared>,
    file: StoreFile,
    /// The revision that the next commit gets.
    next: Revision,
    /// Commits that are visible and not in the file yet.
    pending: Pending,
    /// Commits that are in the log, and not in the history any more.
    loose: Loose,
    /// Why the file cannot be used.
    failure: Option<Failure>,
    /// Those who were answered last.
    crowd: Crowd,
}

#[derive(Debug, Default)]
struct Pending {
    commits: Vec<Arc<Commit>>,
    bytes: usize,
    /// When the first of them came.
    since: Option<Instant>,
}

#[derive(Debug, Default)]
struct Loose {
    commits: usize,
    bytes: usize,
}

#[derive(Clone, Debug)]
struct Failure {
    error: StoreError,
    retry_at: Instant,
}

/// Commits that are to be put into the file together.
#[derive(Debug, Default)]
struct Batch {
    commits: Vec<Arc<Commit>>,
    /// What they leave, where that is not what is visible.
    ahead: HashMap<Arc<str>, Option<Held>>,
    answers: Vec<Answer>,
}

type Answer = (oneshot::Sender<Result<Revision, StoreError>>, Result<Revision, StoreError>);

/// Ends the store for all when the thread ends, however it does.
struct Ending<'a> {
    queue: &'a Queue,
    shared: Arc<Shared>,
}

// === impl Writer ===

impl<D: Disk> Writer<D> {
    /// Opens the file, or makes one, and takes it for this process.
    pub(super) fn open(
        disk: D,
        place: &str,
        options: Options,
        now: Instant,
    ) -> Result<(Arc<Shared>, Self), FileError> {
        let Loaded { file, entries, base, log, length, used } = match disk.open()? {
            Some(backend) => StoreFile::load(backend)?,
            None => {
                let base = Revision(1);
                let image = Image { entries: Entries::new(), base, log: Vec::new() };
                let file = StoreFile::create(disk.create()?, &image, base)?;
                disk.install()?;
                let Image { entries, base, log } = image;
                Loaded { file, entries, base, log, length: 0, used: 0 }
            }
        };
        let spare = length > SPARE && length / SPARE_FACTOR > used;
        let (state, gone) = State::new(entries, base, log, options.window, now);
        let next = Revision(state.revision().0 + 1);
        let mut writer = Self {
            disk,
            place: place.to_owned(),
            options,
            shared: Arc::new(Shared::new(state)),
            file,
            next,
            pending: Pending::default(),
            loose: Loose::default(),
            failure: None,
            crowd: Crowd::default(),
        };
        writer.let_go(&gone);
        writer.begin(now, spare)?;
        Ok((writer.shared.clone(), writer))
    }

    /// Reserves revisions, after those that a process that crashed may have used.
    fn begin(&mut self, now: Instant, spare: bool) -> Result<(), FileError> {
        let last = Revision(self.next.0 - 1);
        let reserved = self.file.reserved();
        if reserved > last {
            let start = Commit::after_loss(Revision(reserved.0 + 1), last);
            self.next = Revision(reserved.0 + 2);
            self.publish(vec![Arc::new(start)], now, true);
        }
        if spare {
            match self.stage() {
                Ok(file) => self.install(file)?,
                // What is there is whole, and only larger than it need be.
                Err(error) => {
                    tracing::warn!(place = self.place, %error, "the store's file stays large");
                }
            }
        }
        self.sync(&[])
    }

    /// Works until the end.
    pub(super) fn run(mut self, queue: &Queue) -> Result<(), StoreError> {
        let _ending = Ending { queue, shared: self.shared.clone() };
        loop {
            match queue.take(self.due(), self.crowd) {
                Task::Commit(requests) => self.commit(requests, Instant::now()),
                Task::Due => {
                    let now = Instant::now();
                    if let Err(error) = self.persist(&[], now) {
                        tracing::warn!(%error, "lazy commits are not in the store's file yet");
                    }
                }
                Task::End => return self.end(Instant::now()),
            }
        }
    }

    /// When something is to be done though nobody asks for it.
    fn due(&self) -> Option<Instant> {
        let due = self.pending.since?.checked_add(self.options.lazy)?;
        Some(self.failure.as_ref().map_or(due, |failure| due.max(failure.retry_at)))
    }

    fn commit(&mut self, requests: Vec<Request>, now: Instant) {
        let mut batch = Batch::default();
        let mut rooms = Vec::with_capacity(requests.len());
        for Request { writes, durability, answer, room } in requests {
            rooms.push(room);
            let changes = {
                let state = self.shared.read();
                decide(writes, |key| match batch.ahead.get(key) {
                    Some(ahead) => ahead.clone(),
                    None => state.held(key).cloned(),
                })
            };
            let changes = match changes {
                Ok(changes) if changes.is_empty() => {
                    batch.answers.push((answer, Ok(self.revision(&batch))));
                    continue;
                }
                Ok(changes) => changes,
                Err(error) => {
                    batch.answers.push((answer, Err(error)));
                    continue;
                }
            };
            let revision = self.next;
            self.next = Revision(revision.0 + 1);
            let commit = Arc::new(Commit::new(revision, changes));
            if batch.commits.is_empty() && durability == Durability::Lazy && self.may_wait(&commit)
            {
                self.publish(vec![commit], now, true);
                let _ = answer.send(Ok(revision));
                continue;
            }
            batch.push(commit);
            batch.answers.push((answer, Ok(revision)));
        }
        let done =
            if batch.commits.is_empty() { Ok(()) } else { self.persist(&batch.commits, now) };
        let patience = (now.elapsed() / 2).min(PATIENCE_MAX);
        self.crowd = Crowd { size: batch.answers.len(), patience };
        if done.is_ok() {
            self.publish(batch.commits, now, false);
        }
        for (answer, result) in batch.answers {
            // What was decided on commits that have not been done is not true either.
            let _ = answer.send(done.clone().and(result));
        }
    }

    /// The revision that is current for the next commit of a batch.
    fn revision(&self, batch: &Batch) -> Revision {
        match batch.commits.last() {
            Some(commit) => commit.revision,
            None => self.shared.read().revision(),
        }
    }

    /// Whether a lazy commit may be visible before it is in the file.
    fn may_wait(&self, commit: &Commit) -> bool {
        self.failure.is_none()
            && commit.revision <= self.file.reserved()
            && self.pending.bytes + commit.size <= PENDING_MAX
    }

    fn publish(&mut self, commits: Vec<Arc<Commit>>, now: Instant, pending: bool) {
        let gone = self.shared.publish(&commits, now);
        if pending {
            self.pending.bytes += commits.iter().map(|commit| commit.size).sum::<usize>();
            self.pending.since.get_or_insert(now);
            self.pending.commits.extend(commits);
        }
        self.let_go(&gone);
    }

    fn let_go(&mut self, gone: &[Arc<Commit>]) {
        self.loose.commits += gone.len();
        self.loose.bytes += gone.iter().map(|commit| commit.size).sum::<usize>();
    }

    /// Puts what is pending, and then `commits`, into the file; a new one if the last one failed.
    fn persist(&mut self, commits: &[Arc<Commit>], now: Instant) -> Result<(), StoreError> {
        let retry_at = now.checked_add(self.options.retry).unwrap_or(now);
        if let Some(failure) = &mut self.failure {
            if now < failure.retry_at {
                return Err(failure.error.clone());
            }
            failure.retry_at = retry_at;
            if let Err(error) = self.stage().and_then(|file| self.install(file)) {
                return Err(self.fail(&error, retry_at));
            }
            self.failure = None;
            tracing::info!(place = self.place, "the store can write again");
        }
        self.sync(commits).map_err(|error| self.fail(&error, retry_at))
    }

    fn fail(&mut self, error: &FileError, retry_at: Instant) -> StoreError {
        let place = &self.place;
        let text = format!(
            "the store cannot write {place} ({error}); make space on its disk, or repair it, and it goes on by itself"
        );
        let error = StoreError::Unavailable(text.into());
        if self.failure.is_none() {
            tracing::error!(%error, "commits are refused");
        }
        self.failure = Some(Failure { error: error.clone(), retry_at });
        error
    }

    fn sync(&mut self, commits: &[Arc<Commit>]) -> Result<(), FileError> {
        let window = self.options.window;
        let fold = self.loose.commits > window.events / LOOSE_PART
            || self.loose.bytes > window.bytes / LOOSE_PART;
        let addition = Addition {
            commits: self.pending.commits.iter().chain(commits).map(|commit| &**commit).collect(),
            // Early, so that lazy commits seldom have to wait for it.
            reserve: (self.next.0 + BLOCK / 2 > self.file.reserved().0)
                .then_some(Revision(self.next.0 + BLOCK)),
            fold: fold.then(|| self.shared.read().history().oldest()),
        };
        if addition.commits.is_empty() && addition.reserve.is_none() && addition.fold.is_none() {
            return Ok(());
        }
        self.file.add(&addition)?;
        self.pending = Pending::default();
        if fold {
            self.loose = Loose::default();
        }
        Ok(())
    }

    /// Makes a new file with what is visible, beside the one that is used.
    fn stage(&self) -> Result<StoreFile, FileError> {
        let backend = self.disk.create()?;
        let image = self.shared.read().image();
        StoreFile::create(backend, &image, Revision(self.next.0 + BLOCK))
    }

    /// Uses a new file in place of the one that was used. After an error, neither may be.
    fn install(&mut self, file: StoreFile) -> Result<(), FileError> {
        self.disk.install()?;
        let old = std::mem::replace(&mut self.file, file);
        // It has no name any more; whether it is whole does not matter.
        let _ = old.close();
        self.pending = Pending::default();
        self.loose = Loose::default();
        Ok(())
    }

    /// Leaves a file in which nothing is missing and nothing reserved.
    fn end(mut self, now: Instant) -> Result<(), StoreError> {
        if let Some(failure) = &mut self.failure {
            failure.retry_at = now;
        }
        if self.failure.is_some() || !self.pending.commits.is_empty() {
            self.persist(&[], now)?;
        }
        let last = {
            let state = self.shared.read();
            // Else the next start would take what has left the history for a part of it.
            let fold = (self.loose.commits > 0).then(|| state.history().oldest());
            Addition { commits: Vec::new(), reserve: Some(state.revision()), fold }
        };
        self.file
            .add(&last)
            .and_then(|()| self.file.close())
            .map_err(|error| StoreError::Unavailable(format!("{}: {error}", self.place).into()))
    }
}

// === impl Batch ===

impl Batch {
    fn push(&mut self, commit: Arc<Commit>) {
        for event in &*commit.events {
            let held = event.value.clone().map(|value| Held { value, revision: commit.revision });
            self.ahead.insert(event.key.clone(), held);
        }
        self.commits.push(commit);
    }
}

// === impl Ending ===

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.queue.clear();
        let mut state = self.shared.write();
        state.ended = Some(self.queue.ended());
        state.interests.wake_all();
    }
}
