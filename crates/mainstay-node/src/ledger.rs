//! What must survive the machine: the pods that were accepted, and the ends that are for good.
//!
//! # Flow
//!
//! One file for each pod, below `<root-dir>/ledger`. Changes are handed to a thread that writes
//! them at once, under another name, and syncs them a little later, several together: nothing
//! waits for a disk on the way to an entrypoint, and flash is not worn by every turn of events.
//! Whoever has to know that a change is on disk waits for it ([`Ledger::flush`]).
//!
//! # Guarantees
//!
//! - A file is written under another name, synced and renamed, and its directory is synced: after a
//!   power cut it is the old one or the new one.
//! - What was written and not yet synced counts when it is whole: an agent that is killed forgets
//!   nothing that it acts upon.
//! - A file that cannot be read is put aside under another name, and told of; the others count.

mod resizing;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{EphemeralContainer, PodStatus};
use mainstay_plan::pod::{Incarnation, PodKey};
use mainstay_plan::resize::Resizing;
use mainstay_pod::Pod;
use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};

use resizing::ResizingFile;

use crate::sources::manifest_dir::Place;

/// The version of the files.
const VERSION: u32 = 1;

/// How long changes wait for others to be synced with.
const GATHER: Duration = Duration::from_millis(250);

/// The extension of files that are on disk.
const COMMITTED: &str = "json";
/// The extension of files that may not be on disk yet.
const STAGED: &str = "new";
/// The extension of files that may not be whole.
const UNFINISHED: &str = "part";

/// What is remembered of one pod.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// The manifest that it was taken from.
    pub(crate) path: PathBuf,
    /// The directories that the manifest was seen in.
    pub(crate) place: Place,
    /// The last good version.
    pub(crate) pod: Arc<Pod>,
    /// Whether one of its containers was ever started.
    pub(crate) started: bool,
    /// Its end for good: when, and the status that it left.
    pub(crate) finished: Option<(Timestamp, Arc<PodStatus>)>,
    /// Another one each time that it is taken in anew, or that its restart is asked for.
    pub(crate) incarnation: Option<Incarnation>,
    /// It is being ended, with this grace period.
    pub(crate) stop: Option<Duration>,
    /// When it was accepted, or its restart was asked for.
    pub(crate) began: Option<Timestamp>,
    /// The containers that were added to it while it was there.
    pub(crate) added: Vec<Added>,
    /// Images that the version before it ran with, of a static pod.
    pub(crate) rollback: Vec<String>,
    /// What is in force of it, while that is not what it is allocated: the resources that it has here.
    pub(crate) resizing: Option<Arc<Resizing>>,
}

/// A container that was added to a pod.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Added {
    pub(crate) container: EphemeralContainer,
    /// Whether it was started, which is once for good.
    pub(crate) started: bool,
}

/// Writes records in the background.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    changes: mpsc::Sender<Change>,
    /// Closed when the writer has ended.
    writer: watch::Receiver<()>,
}

enum Change {
    Put(PodKey, Box<Record>),
    Remove(PodKey),
    Flush(oneshot::Sender<()>),
}

#[derive(Debug, thiserror::Error)]
#[error("cannot {step} {}", path.display())]
pub(crate) struct LedgerError {
    step: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The ledger's writer has ended before its time.
#[derive(Debug, thiserror::Error)]
#[error("nothing is written to the ledger any more")]
pub(crate) struct LedgerGone;

impl Ledger {
    /// Reads all records of a directory and starts the writer.
    pub(crate) fn open(directory: &Path) -> Result<(Self, BTreeMap<PodKey, Record>), LedgerError> {
        let failed = |step| move |source| LedgerError { step, path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(failed("make"))?;
        let mut records: BTreeMap<PodKey, (u64, Record)> = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(failed("list"))? {
            let mut path = entry.map_err(failed("list"))?.path();
            let is = |extension: &str| path.extension().is_some_and(|it| it == extension);
            // Neither is whole after a power cut; before one, what is staged is.
            if is(UNFINISHED) || is(STAGED) && read(&path).is_err() {
                fs::remove_file(&path).map_err(failed("clear"))?;
                continue;
            }
            if is(STAGED) {
                path.set_extension(COMMITTED);
                commit(&path)?;
            }
            if path.extension().is_none_or(|extension| extension != COMMITTED) {
                continue;
            }
            match read(&path) {
                Ok((key, generation, record)) => {
                    if records.get(&key).is_none_or(|(known, _)| *known < generation) {
                        records.insert(key, (generation, record));
                    }
                }
                Err(error) => {
                    let aside = path.with_extension("unreadable");
                    tracing::error!(
                        file = %path.display(),
                        error,
                        aside = %aside.display(),
                        "a record of the ledger cannot be read and is put aside; its pod is started \
                         from its manifest"
                    );
                    fs::rename(&path, aside).map_err(failed("put aside a file of"))?;
                }
            }
        }
        let generation = records.values().map(|(generation, _)| *generation).max().unwrap_or(0);
        let (changes, receiver) = mpsc::channel();
        let (alive, writer) = watch::channel(());
        let directory = directory.to_owned();
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || {
                write_all(&directory, generation, &receiver);
                drop(alive);
            })
            .map_err(|source| LedgerError {
                step: "start writing",
                path: PathBuf::new(),
                source,
            })?;
        let records = records.into_iter().map(|(key, (_, record))| (key, record)).collect();
        Ok((Self { changes, writer }, records))
    }

    /// Remembers a pod.
    pub(crate) fn put(&self, key: &PodKey, record: Record) {
        self.send(Change::Put(key.clone(), Box::new(record)));
    }

    /// Forgets a pod.
    pub(crate) fn remove(&self, key: &PodKey) {
        self.send(Change::Remove(key.clone()));
    }

    /// Waits until all that was handed over is on disk, or was found not to be writable, which is
    /// logged.
    ///
    /// # Errors
    ///
    /// When nothing is written any more.
    pub(crate) async fn flush(&self) -> Result<(), LedgerGone> {
        let (sender, done) = oneshot::channel();
        self.send(Change::Flush(sender));
        done.await.map_err(|_| LedgerGone)
    }

    /// Resolves when nothing is written any more. The writer outlives the handles, so that is when
    /// it panicked.
    pub(crate) async fn ended(&self) {
        let mut writer = self.writer.clone();
        while writer.changed().await.is_ok() {}
    }

    fn send(&self, change: Change) {
        // Without the writer the agent ends, see [`Self::ended`].
        let _ = self.changes.send(change);
    }
}

/// The writer's life.
fn write_all(directory: &Path, mut generation: u64, changes: &mpsc::Receiver<Change>) {
    let mut failing = false;
    while let Ok(first) = changes.recv() {
        let mut waiting = Vec::new();
        let mut staged = BTreeSet::new();
        let mut result = Ok(());
        let mut until = Instant::now() + GATHER;
        let mut next = Some(first);
        while let Some(change) = next {
            result = result.and(match change {
                Change::Put(key, record) => {
                    generation += 1;
                    let path = directory.join(file_name(&key));
                    let written = stage(&path, generation, &record);
                    if written.is_ok() {
                        staged.insert(path);
                    }
                    written
                }
                Change::Remove(key) => {
                    let path = directory.join(file_name(&key));
                    staged.remove(&path);
                    remove(&path.with_extension(STAGED)).and_then(|()| remove(&path))
                }
                Change::Flush(sender) => {
                    waiting.push(sender);
                    until = Instant::now();
                    Ok(())
                }
            });
            next = changes.recv_timeout(until.saturating_duration_since(Instant::now())).ok();
        }
        for path in &staged {
            result = result.and(commit(path));
        }
        match result.and(sync(directory)) {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                let cause = error.source.to_string();
                tracing::error!(%error, cause, "what pods did is not remembered over a reboot");
            }
            Err(_) => {}
        }
        for sender in waiting {
            let _ = sender.send(());
        }
    }
}

/// Names may be as long as a file name with one other character, and two of them make one.
fn file_name(key: &PodKey) -> String {
    const LONGEST: usize = 200;
    let name = format!("{}_{}_{}", key.source.as_str(), key.namespace, key.name);
    if name.len() <= LONGEST {
        return format!("{name}.{COMMITTED}");
    }
    // FNV-1a: no more than telling long names apart is asked of it.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{}-{hash:016x}.{COMMITTED}", &name[..LONGEST])
}

/// Writes the file that becomes `path`.
fn stage(path: &Path, generation: u64, record: &Record) -> Result<(), LedgerError> {
    let failed = |source| LedgerError { step: "write", path: path.to_owned(), source };
    let (at, status) = record.finished.clone().unzip();
    let file = RecordFile {
        version: VERSION,
        generation,
        path: record.path.to_string_lossy().into_owned(),
        place: record.place.clone(),
        pod: record.pod.to_stored(),
        started: record.started,
        finished_at: at,
        status: status.map(Arc::unwrap_or_clone),
        incarnation: record.incarnation,
        stop_seconds: record.stop.map(|grace| grace.as_secs()),
        began_at: record.began,
        added: record.added.clone(),
        rollback: record.rollback.clone(),
        resizing: record.resizing.as_deref().map(ResizingFile::from),
    };
    let bytes = serde_json::to_vec(&file).map_err(|error| failed(error.into()))?;
    // What was staged before counts until this is whole.
    let unfinished = path.with_extension(UNFINISHED);
    fs::write(&unfinished, bytes)
        .and_then(|()| fs::rename(unfinished, path.with_extension(STAGED)))
        .map_err(failed)
}

/// Lets what was written count, also after a power cut.
fn commit(path: &Path) -> Result<(), LedgerError> {
    let staged = path.with_extension(STAGED);
    let commit = || File::open(&staged)?.sync_all().and_then(|()| fs::rename(&staged, path));
    commit().map_err(|source| LedgerError { step: "write", path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), LedgerError> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(LedgerError { step: "remove", path: path.to_owned(), source }),
    }
}

fn sync(directory: &Path) -> Result<(), LedgerError> {
    let sync = File::open(directory).and_then(|directory| directory.sync_all());
    sync.map_err(|source| LedgerError { step: "sync", path: directory.to_owned(), source })
}

fn read(path: &Path) -> Result<(PodKey, u64, Record), String> {
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    let file: RecordFile = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    if file.version > VERSION {
        return Err(format!(
            "it is of version {}, and this mainstay knows {VERSION}",
            file.version
        ));
    }
    let pod = Pod::from_stored(&file.pod).map_err(|error| error.to_string())?;
    let record = Record {
        path: PathBuf::from(file.path),
        place: file.place,
        pod: Arc::new(pod),
        started: file.started,
        finished: file.finished_at.map(|at| (at, Arc::new(file.status.unwrap_or_default()))),
        incarnation: file.incarnation,
        stop: file.stop_seconds.map(Duration::from_secs),
        began: file.began_at,
        added: file.added,
        rollback: file.rollback,
        resizing: file.resizing.map(|file| Arc::new(file.into())),
    };
    let key = crate::sources::merge::key_of(&record.pod);
    Ok((key, file.generation, record))
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RecordFile {
    version: u32,
    /// Counts the writes, so that the newer of two can be told.
    generation: u64,
    path: String,
    /// File system and inode of each directory.
    #[serde(default)]
    place: Vec<(u64, u64)>,
    /// As `Pod::to_stored` has it.
    pod: String,
    started: bool,
    finished_at: Option<Timestamp>,
    status: Option<PodStatus>,
    incarnation: Option<Incarnation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stop_seconds: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    began_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    added: Vec<Added>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rollback: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resizing: Option<ResizingFile>,
}

#[cfg(test)]
mod tests;
