//! What must survive the machine: the pods that were accepted, and the ends that are for good.
//!
//! # Flow
//!
//! One file for each pod, below `<root-dir>/ledger`. Changes are handed to a thread that writes
//! them a little later, several at once if they come together: nothing waits for a disk on the way
//! to an entrypoint, and flash is not worn by every turn of events. Whoever has to know that a
//! change is on disk waits for it ([`Ledger::flush`]).
//!
//! # Guarantees
//!
//! - A file is written under another name, synced and renamed, and its directory is synced: after a
//!   power cut it is the old one or the new one.
//! - A file that cannot be read is put aside under another name, and told of; the others count.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PodStatus;
use mainstay_plan::pod::PodKey;
use mainstay_pod::Pod;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

/// The version of the files.
const VERSION: u32 = 1;

/// How long changes wait for others to be written with.
const GATHER: Duration = Duration::from_millis(250);

/// What is remembered of one pod.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    /// The manifest that it was taken from.
    pub(crate) path: PathBuf,
    /// The last good version.
    pub(crate) pod: Arc<Pod>,
    /// Whether one of its containers was ever started.
    pub(crate) started: bool,
    /// Its end for good: when, and the status that it left.
    pub(crate) finished: Option<(Timestamp, PodStatus)>,
    /// When it was taken in anew, or its restart was asked for.
    pub(crate) not_before: Option<Timestamp>,
}

/// Writes records in the background.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    changes: mpsc::UnboundedSender<Change>,
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

impl Ledger {
    /// Reads all records of a directory and starts the writer.
    pub(crate) fn open(directory: &Path) -> Result<(Self, BTreeMap<PodKey, Record>), LedgerError> {
        let failed = |step| move |source| LedgerError { step, path: directory.to_owned(), source };
        fs::create_dir_all(directory).map_err(failed("make"))?;
        let mut records: BTreeMap<PodKey, (u64, Record)> = BTreeMap::new();
        for entry in fs::read_dir(directory).map_err(failed("list"))? {
            let path = entry.map_err(failed("list"))?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                // Unfinished, and so never counted.
                if path.extension().is_some_and(|extension| extension == "new") {
                    fs::remove_file(&path).map_err(failed("clear"))?;
                }
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
        let (changes, receiver) = mpsc::unbounded_channel();
        let directory = directory.to_owned();
        std::thread::Builder::new()
            .name("ledger".into())
            .spawn(move || write_all(&directory, generation, receiver))
            .map_err(|source| LedgerError {
                step: "start writing",
                path: PathBuf::new(),
                source,
            })?;
        let records = records.into_iter().map(|(key, (_, record))| (key, record)).collect();
        Ok((Self { changes }, records))
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
    pub(crate) async fn flush(&self) {
        let (sender, done) = oneshot::channel();
        self.send(Change::Flush(sender));
        // The writer answers also on its way out.
        let _ = done.await;
    }

    fn send(&self, change: Change) {
        // The writer ends when the last handle is gone, so it is there.
        let _ = self.changes.send(change);
    }
}

/// The writer's life.
fn write_all(directory: &Path, mut generation: u64, mut changes: mpsc::UnboundedReceiver<Change>) {
    let mut failing = false;
    while let Some(first) = changes.blocking_recv() {
        let mut waiting = Vec::new();
        let mut newest: BTreeMap<PodKey, Option<Box<Record>>> = BTreeMap::new();
        let mut take = |change| match change {
            Change::Put(key, record) => drop(newest.insert(key, Some(record))),
            Change::Remove(key) => drop(newest.insert(key, None)),
            Change::Flush(sender) => waiting.push(sender),
        };
        let hurry = matches!(first, Change::Flush(_));
        take(first);
        if !hurry {
            std::thread::sleep(GATHER);
        }
        while let Ok(change) = changes.try_recv() {
            take(change);
        }
        let mut result = Ok(());
        for (key, record) in newest {
            generation += 1;
            result = result.and(match record {
                Some(record) => write(directory, generation, &key, &record),
                None => remove(directory, &key),
            });
        }
        result = result.and(sync(directory));
        match result {
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
        return format!("{name}.json");
    }
    // FNV-1a: no more than telling long names apart is asked of it.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{}-{hash:016x}.json", &name[..LONGEST])
}

fn write(
    directory: &Path,
    generation: u64,
    key: &PodKey,
    record: &Record,
) -> Result<(), LedgerError> {
    let path = directory.join(file_name(key));
    let new = path.with_extension("new");
    let failed = |source| LedgerError { step: "write", path: path.clone(), source };
    let (at, status) = record.finished.clone().unzip();
    let file = RecordFile {
        version: VERSION,
        generation,
        path: record.path.to_string_lossy().into_owned(),
        pod: record.pod.to_stored(),
        started: record.started,
        finished_at: at,
        status,
        not_before: record.not_before,
    };
    let bytes = serde_json::to_vec(&file).map_err(|error| failed(error.into()))?;
    let write = || {
        let mut file = File::create(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)
    };
    write().map_err(failed)
}

fn remove(directory: &Path, key: &PodKey) -> Result<(), LedgerError> {
    let path = directory.join(file_name(key));
    match fs::remove_file(&path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(LedgerError { step: "remove", path, source }),
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
        pod: Arc::new(pod),
        started: file.started,
        finished: file.finished_at.map(|at| (at, file.status.unwrap_or_default())),
        not_before: file.not_before,
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
    /// As `Pod::to_stored` has it.
    pod: String,
    started: bool,
    finished_at: Option<Timestamp>,
    status: Option<PodStatus>,
    not_before: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> PodKey {
        let source = mainstay_plan::pod::SourceKind::File;
        PodKey { source, namespace: "default".into(), name: name.into() }
    }

    #[test]
    fn long_names_stay_apart_and_fit() {
        let (a, b) = (key(&format!("{}a", "x".repeat(250))), key(&format!("{}b", "x".repeat(250))));
        assert_ne!(file_name(&a), file_name(&b));
        assert!(file_name(&a).len() <= 255);
        assert_eq!(file_name(&key("web-n1")), "file_default_web-n1.json");
    }
}
