//! Manifests in directories and files.
//!
//! # Flow
//!
//! One thread watches all paths: inotify tells it at once, a look at the directories every few
//! seconds tells it what inotify missed (a full queue, a network file system, no watches left).
//! When and whether a file is read is decided by [`settle`], which knows times and names and no
//! files; this file looks, reads and reports.
//!
//! # Guarantees
//!
//! - Only `.yaml`, `.yml` and `.json` files are read, and only regular ones, through links too.
//! - A file that is being written is read when it has been left alone for a while, one that was
//!   renamed into place at once.
//! - What belongs together, such as a rename, is reported together.
//! - That a directory cannot be read, or is not the one that it was and empty, says nothing about
//!   the files that were in it.

mod entry;
mod settle;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

pub use entry::is_manifest_name;
use entry::{Entry, Stamp};
use settle::{Order, Settle};
use watch::Watch;

/// What was found out, in the order in which it counts.
pub(crate) type Batch = Vec<Change>;

/// One thing that was found out.
#[derive(Debug)]
pub(crate) enum Change {
    /// A manifest's bytes.
    Read { path: PathBuf, bytes: Vec<u8> },
    /// A manifest is there and cannot be read.
    Unreadable { path: PathBuf, error: io::Error },
    /// A manifest was taken away: its directory is there, and it is not in it.
    Gone { path: PathBuf },
    /// What else is in a directory; told when it changes.
    Ignored { directory: PathBuf, names: BTreeSet<String> },
    /// A path can, or cannot, be looked at; told when it changes.
    Directory { path: PathBuf, error: Option<String> },
    /// Every path has been looked at once.
    Ready,
}

/// Where manifests are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestPaths {
    /// Directories, and single files.
    pub paths: Vec<PathBuf>,
    /// Whether directories below the directories count too.
    pub recursive: bool,
}

impl ManifestPaths {
    /// Whether a file is one of those that are looked at.
    pub(crate) fn cover(&self, file: &Path) -> bool {
        self.paths.iter().any(|path| self.is_of(path, file))
    }

    /// Whether a file is looked at because of this one of the paths.
    pub(crate) fn is_of(&self, path: &Path, file: &Path) -> bool {
        file == path || file.parent() == Some(path) || self.recursive && file.starts_with(path)
    }
}

/// One path that the user gave.
struct Source {
    /// The directory to look in.
    directory: PathBuf,
    /// The one file that counts, if the path names a file.
    only: Option<String>,
    recursive: bool,
    /// The directory's identity when a file was last seen in it.
    identity: Option<(u64, u64)>,
    /// What was found in it and read.
    known: BTreeMap<String, Stamp>,
    ignored: BTreeSet<String>,
    error: Option<String>,
    settle: Settle,
}

/// Watches `paths` until the receiver is dropped. Runs on a thread of its own.
///
/// `rescan` is the safety net: how often the directories are looked at in any case.
pub(crate) fn watch(
    manifests: &ManifestPaths,
    rescan: Duration,
    batches: &mpsc::UnboundedSender<Batch>,
) {
    let source = |path: &PathBuf| Source::of(path, manifests.recursive);
    let mut sources: Vec<Source> = manifests.paths.iter().map(source).collect();
    let mut watch = Watch::new();
    let mut next_rescan = Instant::now();
    let mut first = true;
    loop {
        let now = Instant::now();
        let mut batch = Batch::new();
        if now >= next_rescan {
            next_rescan = now + rescan;
            for (index, source) in sources.iter_mut().enumerate() {
                // Watched first: what comes between the two is heard.
                watch.arm(index, &source.directory, "");
                for below in source.rescan(now, first, &mut batch) {
                    if watch.arm(index, &source.directory, &below) {
                        // What came into it before it was watched is seen by looking.
                        next_rescan = now;
                    }
                }
            }
        }
        for source in &mut sources {
            source.read_due(now, &mut batch);
        }
        if std::mem::take(&mut first) {
            batch.push(Change::Ready);
        }
        if !batch.is_empty() && batches.send(batch).is_err() {
            return;
        }
        let due = sources.iter().filter_map(|source| source.settle.next_due());
        let until = due.chain([next_rescan]).min().unwrap_or(next_rescan);
        let heard = watch.wait(until.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        for (index, events) in heard.by_source {
            sources[index].settle.hear(&events, now);
        }
        if heard.look_again || batches.is_closed() {
            next_rescan = now;
        }
    }
}

impl Source {
    fn of(path: &Path, recursive: bool) -> Self {
        let file = !path.is_dir() && entry::is_manifest_name(path);
        let (directory, only) = match (file, path.parent(), path.file_name()) {
            (true, Some(parent), Some(name)) => {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                (parent.to_owned(), Some(name.to_string_lossy().into_owned()))
            }
            _ => (path.to_owned(), None),
        };
        Self {
            directory,
            recursive: recursive && only.is_none(),
            only,
            identity: None,
            known: BTreeMap::new(),
            ignored: BTreeSet::new(),
            error: None,
            settle: Settle::default(),
        }
    }

    fn counts(&self, name: &str) -> bool {
        match &self.only {
            Some(only) => only == name,
            None => entry::is_manifest_name(Path::new(name)),
        }
    }

    /// Looks at the whole directory. Returns the directories below it that were looked at too.
    fn rescan(&mut self, now: Instant, first: bool, batch: &mut Batch) -> Vec<String> {
        let listing = match entry::list(&self.directory, self.recursive) {
            Ok(listing) => listing,
            Err(error) => {
                self.tell_error(Some(error.to_string()), batch);
                return Vec::new();
            }
        };
        let mut present = BTreeSet::new();
        let mut ignored = BTreeSet::new();
        for name in listing.names {
            if self.counts(&name) {
                present.insert(name)
            } else {
                ignored.insert(name)
            };
        }
        if present.is_empty() && self.identity.is_some_and(|known| known != listing.identity) {
            // Another file system was mounted here, or the one with the manifests was not.
            let error = "it is not the directory that the manifests were in, and it is empty; \
                         their pods run on. Bring it back, or put a manifest into it";
            self.tell_error(Some(error.to_owned()), batch);
            return listing.directories;
        }
        self.tell_error(None, batch);
        if !present.is_empty() {
            self.identity = Some(listing.identity);
        }
        if self.only.is_none() && ignored != self.ignored {
            self.ignored.clone_from(&ignored);
            batch.push(Change::Ignored { directory: self.directory.clone(), names: ignored });
        }
        for name in &present {
            let stamp = Stamp::of(&self.directory.join(name));
            if stamp.as_ref().ok() == self.known.get(name) && stamp.is_ok() {
                continue;
            }
            // What was there before us is as old as it says; what is new to us may be half-way.
            let settled = first || stamp.as_ref().is_ok_and(Stamp::is_settled);
            self.settle.found(name, settled, now);
        }
        let gone: Vec<String> =
            self.known.keys().filter(|name| !present.contains(*name)).cloned().collect();
        for name in gone {
            self.settle.missed(&name, now);
        }
        listing.directories
    }

    /// Carries out what has come due: first what is there, then what is not.
    fn read_due(&mut self, now: Instant, batch: &mut Batch) {
        let mut gone = Vec::new();
        for (name, order) in self.settle.take_due(now) {
            if !self.counts(&name) {
                continue;
            }
            let path = self.directory.join(&name);
            match order {
                Order::Read => match Entry::read(&path) {
                    Ok(Entry { stamp, bytes }) => {
                        self.known.insert(name, stamp);
                        batch.push(Change::Read { path, bytes });
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => gone.push(name),
                    Err(error) => {
                        // Remembered, so that it is taken for gone when it goes.
                        self.known.insert(name, Stamp::unreadable());
                        batch.push(Change::Unreadable { path, error });
                    }
                },
                Order::Drop => gone.push(name),
            }
        }
        for name in gone {
            // A link to nowhere is there and cannot be read, as long as it is there.
            let path = self.directory.join(&name);
            if path.symlink_metadata().is_ok() {
                self.known.insert(name, Stamp::unreadable());
                let error = io::Error::new(io::ErrorKind::NotFound, "it is a link to nowhere");
                batch.push(Change::Unreadable { path, error });
            } else if self.directory_is_same() {
                self.known.remove(&name);
                batch.push(Change::Gone { path });
            }
        }
    }

    /// Whether the directory still is the one in which files were seen. If it is not, the next
    /// look at it tells.
    fn directory_is_same(&self) -> bool {
        let identity = entry::identity(&self.directory).ok();
        identity.is_some() && (self.identity.is_none() || identity == self.identity)
    }

    fn tell_error(&mut self, error: Option<String>, batch: &mut Batch) {
        if self.error != error {
            self.error.clone_from(&error);
            let path = match &self.only {
                Some(only) => self.directory.join(only),
                None => self.directory.clone(),
            };
            batch.push(Change::Directory { path, error });
        }
    }
}

#[cfg(test)]
mod tests;
