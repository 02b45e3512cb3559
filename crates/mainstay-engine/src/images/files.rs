//! Image files that are imported by themselves, and telling that images came or went.
//!
//! # Flow
//!
//! One thread looks at the directory of image files when it starts, when inotify says that
//! something happened there, and now and then. A file that is new, and has been left alone for a
//! moment, is imported; that it was is written down, so that it is not imported again after a
//! restart. The thread also watches the store's records, whoever writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use inotify::{Inotify, WatchMask};
use mainstay_cri::chain;
use mainstay_image::archive::ImportOptions;
use mainstay_image::platform::Platform;
use mainstay_image::store::{KEEP_PARTIAL, Store};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

/// How often the directory is looked at although nothing was heard.
const RESCAN: Duration = Duration::from_secs(10);

/// How often what no image needs any more is cleared away.
const COLLECT: Duration = Duration::from_secs(60 * 60);

/// How long a file has to be left alone before it counts as whole.
const SETTLED: Duration = Duration::from_millis(500);

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Looked {
    /// Whether the files that were there at the start have been imported, but for those that are
    /// still being written.
    pub(super) once: bool,
    /// Ids of images that came from files.
    pub(super) provided: BTreeSet<String>,
    /// Files that cannot be imported, and why.
    pub(super) problems: BTreeMap<PathBuf, String>,
    /// Counts what happened to the store.
    changes: u64,
}

/// What is remembered of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    /// Ids of its images.
    images: Vec<String>,
}

pub(super) struct ImageFiles {
    store: Arc<Store>,
    directory: PathBuf,
    record: PathBuf,
    remembered: BTreeMap<PathBuf, Remembered>,
    /// Files that failed, as they were then.
    failed: BTreeMap<PathBuf, (u64, u64, (i64, i64))>,
}

impl ImageFiles {
    pub(super) fn new(store: Arc<Store>, directory: PathBuf, record: PathBuf) -> Self {
        let remembered = fs::read(&record)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            // Lost or damaged: the files are imported again, which changes nothing.
            .unwrap_or_default();
        Self { store, directory, record, remembered, failed: BTreeMap::new() }
    }

    /// Looks after them for as long as somebody listens.
    pub(super) fn look_after(mut self, told: &watch::Sender<Arc<Looked>>) {
        let watch = watch_directories(&[&self.directory, self.store.watch_dir()]);
        let mut inotify = watch.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot watch the images; changes are seen every few seconds only");
            None
        });
        self.discard_damaged();
        let mut looked = Looked::default();
        let mut heard = false;
        let mut collected: Option<Instant> = None;
        let begin = Instant::now();
        while !told.is_closed() {
            let young = self.scan(&mut looked);
            looked.once |= !young || begin.elapsed() >= SETTLED;
            looked.changes += u64::from(heard);
            told.send_if_modified(|known| {
                let news = **known != looked;
                *known = Arc::new(looked.clone());
                news
            });
            if collected.is_none_or(|at| at.elapsed() >= COLLECT) {
                self.collect();
                collected = Some(Instant::now());
            }
            heard = wait(inotify.as_mut(), if young { SETTLED } else { RESCAN });
        }
    }

    /// After a power cut: what is damaged counts as absent, and is imported or pulled again.
    fn discard_damaged(&mut self) {
        let problems = match self.store.verify() {
            Ok(problems) if problems.is_empty() => return,
            Ok(problems) => problems,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot verify the images");
                return;
            }
        };
        for problem in &problems {
            tracing::warn!(
                ?problem,
                "an image is damaged and is removed; it is fetched again when it is needed"
            );
        }
        if let Err(error) = self.store.discard_damaged(&problems) {
            tracing::warn!(error = chain(&error), "cannot remove damaged images");
        }
        // Its file may be the one to mend it from.
        self.remembered.clear();
    }

    fn collect(&self) {
        match self.store.collect(SystemTime::now(), KEEP_PARTIAL) {
            Ok(collected) if collected.layers > 0 => {
                let (layers, bytes) = (collected.layers, collected.bytes);
                tracing::info!(layers, bytes, "cleared away what no image needs any more");
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot clear away unused layers");
            }
        }
    }

    /// Imports what is new. Returns whether a file is too young to be read yet.
    fn scan(&mut self, looked: &mut Looked) -> bool {
        let mut young = false;
        let mut present = BTreeSet::new();
        let mut changed = false;
        for path in entries(&self.directory) {
            let Ok(status) = fs::metadata(&path) else { continue };
            present.insert(path.clone());
            let stamp = (status.ino(), status.size(), (status.mtime(), status.mtime_nsec()));
            let known = self.remembered.get(&path);
            let same = known.is_some_and(|it| (it.inode, it.size, it.modified) == stamp);
            if same || self.failed.get(&path) == Some(&stamp) {
                continue;
            }
            if !is_settled(&status) {
                young = true;
                continue;
            }
            let options = ImportOptions { platform: Platform::host(), name: None };
            match self.store.import(&path, &options, &|event| super::tell(&event)) {
                Ok(images) => {
                    let images: Vec<String> = images.iter().map(|it| it.id.to_string()).collect();
                    tracing::info!(file = %path.display(), ?images, "image file imported");
                    looked.problems.remove(&path);
                    self.failed.remove(&path);
                    let (inode, size, modified) = stamp;
                    let remembered = Remembered { inode, size, modified, images };
                    self.remembered.insert(path, remembered);
                    changed = true;
                }
                Err(error) => {
                    let error = chain(&error);
                    looked.problems.insert(path.clone(), error);
                    self.failed.insert(path, stamp);
                }
            }
        }
        let before = self.remembered.len();
        self.remembered.retain(|path, _| present.contains(path));
        self.failed.retain(|path, _| present.contains(path));
        looked.problems.retain(|path, _| present.contains(path));
        if changed || self.remembered.len() != before {
            self.write();
        }
        looked.provided =
            self.remembered.values().flat_map(|it| it.images.iter().cloned()).collect();
        young
    }

    fn write(&self) {
        let write = || -> io::Result<()> {
            let new = self.record.with_extension("new");
            fs::write(&new, serde_json::to_vec(&self.remembered)?)?;
            fs::rename(&new, &self.record)
        };
        // Not synced: losing it costs another import, which finds all layers there.
        if let Err(error) = write() {
            tracing::warn!(%error, file = %self.record.display(), "cannot remember which image files were imported");
        }
    }
}

/// Files of the directory, and OCI layouts that are directories themselves. Names with a dot in
/// front are being written.
fn entries(directory: &Path) -> Vec<PathBuf> {
    // Absent, or not readable: there are none.
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(Result::ok)
        .filter(|entry| !entry.file_name().as_encoded_bytes().starts_with(b"."))
        .map(|entry| entry.path())
        .filter(|path| !path.is_dir() || path.join("oci-layout").is_file())
        .collect();
    paths.sort();
    paths
}

/// Whether the last change to a file's content or name is old enough.
fn is_settled(status: &fs::Metadata) -> bool {
    let changed = u64::try_from(status.ctime()).unwrap_or(0);
    let nanoseconds = u32::try_from(status.ctime_nsec()).unwrap_or(0);
    let changed = SystemTime::UNIX_EPOCH + Duration::new(changed, nanoseconds);
    // A moment in the future says nothing, so it does not hold anything up.
    changed.elapsed().map_or(true, |age| age >= SETTLED)
}

fn watch_directories(directories: &[&Path]) -> io::Result<Option<Inotify>> {
    let inotify = Inotify::init()?;
    let mask = WatchMask::CLOSE_WRITE
        | WatchMask::MOVED_TO
        | WatchMask::MOVED_FROM
        | WatchMask::DELETE
        | WatchMask::CREATE;
    for directory in directories {
        fs::create_dir_all(directory)?;
        inotify.watches().add(directory, mask)?;
    }
    Ok(Some(inotify))
}

/// Waits until something happens in the directories, at most for `timeout`. Returns whether it
/// did.
fn wait(inotify: Option<&mut Inotify>, timeout: Duration) -> bool {
    let Some(inotify) = inotify else {
        std::thread::sleep(timeout);
        return false;
    };
    let limit = Timespec::try_from(timeout).ok();
    let mut ready = [PollFd::from_borrowed_fd(inotify.as_fd(), PollFlags::IN)];
    let heard = matches!(poll(&mut ready, limit.as_ref()), Ok(1..));
    if heard {
        // What it was is seen by looking.
        let mut buffer = [0; 4096];
        let _ = inotify.read_events(&mut buffer).map(Iterator::count);
    }
    heard
}
