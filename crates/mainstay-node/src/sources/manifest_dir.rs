//! Manifests in directories and files.
//!
//! # Flow
//!
//! One thread watches each path, so that one that hangs holds up no other. inotify tells it at once,
//! a look at the directories every few seconds tells it what inotify missed (a full queue, a
//! network file system, no watches left).
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
//!   the files that were in it, also when it was an earlier agent that saw them.

mod entry;
mod settle;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

pub(crate) use entry::Place;
pub use entry::manifests_in;
use entry::{Directory, Entry, Identity, Stamp, above};
use settle::{Order, Settle};
use watch::Watch;

/// What was found out, in the order in which it counts.
pub(crate) type Batch = Vec<Change>;

/// One thing that was found out.
#[derive(Debug)]
pub(crate) enum Change {
    /// A manifest's bytes, the directories that it lies in, and whether everybody may read it.
    Read { path: PathBuf, bytes: Vec<u8>, place: Place, exposed: bool },
    /// A manifest is there and cannot be read.
    Unreadable { path: PathBuf, error: io::Error },
    /// A manifest was taken away: its directory is there, and it is not in it.
    Gone { path: PathBuf },
    /// What else is in a directory; told when it changes.
    Ignored { directory: PathBuf, names: BTreeSet<String> },
    /// A path can, or cannot, be looked at; told when it changes.
    Directory { path: PathBuf, error: Option<String> },
    /// This path, as the user gave it, has been looked at once.
    Ready { path: PathBuf },
}

/// Where manifests are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManifestPaths {
    /// Directories, and single files.
    pub paths: Vec<PathBuf>,
    /// Whether directories below the directories count too.
    pub recursive: bool,
    /// What a server's manifests are called, if there are some.
    pub url: Option<PathBuf>,
}

impl ManifestPaths {
    /// Whether a file is one of those that are looked at.
    pub(crate) fn cover(&self, file: &Path) -> bool {
        self.is_url(file) || self.paths.iter().any(|path| self.is_of(path, file))
    }

    /// Whether it is no file, but what a server has.
    pub(crate) fn is_url(&self, file: &Path) -> bool {
        self.url.as_deref() == Some(file)
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
    /// By name within the directory, which is empty for itself: which directories they were when
    /// manifests were last seen in or below them.
    places: BTreeMap<String, Identity>,
    /// What was found in it and read, by this agent or an earlier one.
    known: BTreeMap<String, Stamp>,
    ignored: BTreeSet<String>,
    error: Option<String>,
    settle: Settle,
}

/// Watches one of the paths until the receiver is dropped. Runs on a thread of its own.
///
/// `rescan` is the safety net: how often it is looked at in any case. `known` are those of its
/// manifests that an earlier agent had, and where they lay then.
pub(crate) fn watch(
    path: &Path,
    recursive: bool,
    rescan: Duration,
    known: &BTreeMap<PathBuf, Place>,
    batches: &mpsc::UnboundedSender<Batch>,
) {
    let mut source = Source::of(path, recursive);
    known.iter().for_each(|it| source.remember(it));
    let mut watch = Watch::new();
    let mut next_rescan = Instant::now();
    let mut first = true;
    loop {
        let now = Instant::now();
        let mut batch = Batch::new();
        if now >= next_rescan {
            next_rescan = now + rescan;
            // Watched first: what comes between the two is heard.
            watch.arm(&source.directory, "");
            for below in source.rescan(now, first, &mut batch) {
                if watch.arm(&source.directory, &below) {
                    // What came into it before it was watched is seen by looking.
                    next_rescan = now;
                }
            }
        }
        source.read_due(now, &mut batch);
        if std::mem::take(&mut first) {
            batch.push(Change::Ready { path: path.to_owned() });
        }
        if !batch.is_empty() && batches.send(batch).is_err() {
            return;
        }
        let until = source.settle.next_due().map_or(next_rescan, |due| due.min(next_rescan));
        let heard = watch.wait(until.saturating_duration_since(Instant::now()));
        let now = Instant::now();
        source.settle.hear(&heard.events, now);
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
            places: BTreeMap::new(),
            known: BTreeMap::new(),
            ignored: BTreeSet::new(),
            error: None,
            settle: Settle::default(),
        }
    }

    /// Takes over what an earlier agent knew of a file, except for what was in it.
    fn remember(&mut self, (path, place): (&PathBuf, &Place)) {
        let Ok(name) = path.strip_prefix(&self.directory) else { return };
        let name = name.to_string_lossy();
        let above = above(&name).map(str::to_owned);
        self.places.extend(above.zip(place.iter().copied()));
        self.known.insert(name.into_owned(), Stamp::unreadable());
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
        let mut moved = BTreeSet::new();
        for within in present.iter().flat_map(|name| above(name)) {
            let Some(identity) = listing.directories.get(within) else { continue };
            if self.places.insert(within.to_owned(), *identity) != Some(*identity) {
                moved.insert(within);
            }
        }
        if self.only.is_none() && ignored != self.ignored {
            self.ignored.clone_from(&ignored);
            batch.push(Change::Ignored { directory: self.directory.clone(), names: ignored });
        }
        for name in &present {
            let stamp = Stamp::of(&self.directory.join(name));
            let same = stamp.as_ref().ok() == self.known.get(name) && stamp.is_ok();
            if same && !above(name).any(|within| moved.contains(within)) {
                continue;
            }
            // What was there before us is as old as it says; what is new to us may be half-way.
            let settled = first || stamp.as_ref().is_ok_and(Stamp::is_settled);
            self.settle.found(name, settled, now);
        }
        let mut away = BTreeSet::new();
        for name in self.known.keys().filter(|name| !present.contains(*name)) {
            let found = |within: &str| Some((within.to_owned(), *listing.directories.get(within)?));
            match above(name).find_map(found) {
                // Another file system was mounted here, or the one with the manifests was not. With
                // a manifest in it, it would be known as the one that it is.
                Some((within, identity)) if !self.is_place(&within, identity) => {
                    away.insert(within);
                }
                _ => self.settle.missed(name, now),
            }
        }
        let error = away.first().map(|within| {
            let which = if within.is_empty() { "it" } else { within };
            format!(
                "{which} is not the directory that the manifests were in, and it is empty; their \
                 pods run on. Bring it back, or put a manifest into it"
            )
        });
        self.tell_error(error, batch);
        listing.directories.into_keys().filter(|within| !within.is_empty()).collect()
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
                    Ok(Entry { stamp, exposed, bytes }) => {
                        let place = self.place(&name);
                        self.known.insert(name, stamp);
                        batch.push(Change::Read { path, bytes, place, exposed });
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
            let path = self.directory.join(&name);
            match self.look_for(&name) {
                Ok(Missing::LinkToNowhere) => {
                    self.known.insert(name, Stamp::unreadable());
                    let error = io::Error::new(io::ErrorKind::NotFound, "it is a link to nowhere");
                    batch.push(Change::Unreadable { path, error });
                }
                Ok(Missing::TakenAway) => {
                    self.known.remove(&name);
                    batch.push(Change::Gone { path });
                }
                // The next look at the directory tells.
                Ok(Missing::Away) | Err(_) => {}
            }
        }
    }

    /// The directories that a file lies in, as they are now.
    fn place(&mut self, name: &str) -> Place {
        for within in above(name) {
            // What went meanwhile is seen to be gone by the next look.
            if let Ok(identity) = entry::identity(&self.directory.join(within)) {
                self.places.insert(within.to_owned(), identity);
            }
        }
        above(name).map_while(|within| self.places.get(within).copied()).collect()
    }

    /// Whether a directory is the one in which manifests were seen, if they were.
    fn is_place(&self, within: &str, identity: Identity) -> bool {
        self.places.get(within).is_none_or(|known| *known == identity)
    }

    /// Finds out about a file that could not be found.
    fn look_for(&self, name: &str) -> io::Result<Missing> {
        for within in above(name) {
            let directory = match Directory::open(&self.directory.join(within)) {
                // It was taken away with the file, if the one above it is what it was.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
                {
                    continue;
                }
                other => other?,
            };
            let rest = Path::new(name).strip_prefix(within).unwrap_or(Path::new(name));
            return Ok(if directory.has(rest)? {
                Missing::LinkToNowhere
            } else if self.is_place(within, directory.identity()?) {
                Missing::TakenAway
            } else {
                Missing::Away
            });
        }
        Ok(Missing::Away)
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

/// Why a file was not found.
enum Missing {
    /// It is there, and what it points to is not.
    LinkToNowhere,
    /// Its directory is there without it.
    TakenAway,
    /// Its directory is not there, or is another one.
    Away,
}

#[cfg(test)]
mod tests;
