//! What the file holds: entries as of one revision, and the commits after it.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use redb::{
    Database, ReadableDatabase, ReadableTable, StorageBackend, TableDefinition, TableError,
    WriteTransaction,
};

use super::row::{self, Record};
use crate::view::commit::{Changed, Commit, Held};
use crate::view::state::{Entries, Image};
use crate::{KEY_MAX, Revision};

/// The format that this version reads and writes.
pub(super) const FORMAT: u64 = 1;

/// Numbers about the file.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// The format.
const META_FORMAT: &str = "format";
/// The revision of the entries.
const META_BASE: &str = "base";
/// The last revision that may have been used.
const META_RESERVED: &str = "reserved";

/// The entries as of `META_BASE`: the revision that wrote each, in eight bytes, and its value.
const ENTRIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("entries");
/// The commits after that, by revision.
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");

/// What redb may keep in memory, in bytes. Everything is in memory anyway; this holds the pages that the
/// next commit changes, and stays as full as reading the file at the start has made it.
const CACHE: usize = 128 << 10;

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum FileError {
    #[error("it is in use by another process")]
    InUse,
    #[error("{0}")]
    Damaged(String),
    #[error("{0}")]
    Foreign(String),
    #[error("it has format {0}")]
    Newer(u64),
    #[error("{0}")]
    Io(String),
}

/// An open file.
#[derive(Debug)]
pub(super) struct StoreFile {
    database: Database,
    /// The last revision that may be used.
    reserved: Revision,
}

/// What is put into the file at once.
#[derive(Debug, Default)]
pub(super) struct Addition<'a> {
    /// To the log, in their order.
    pub(super) commits: Vec<&'a Commit>,
    /// The last revision that may be used from then on.
    pub(super) reserve: Option<Revision>,
    /// The revision up to which the log is moved to the entries.
    pub(super) fold: Option<Revision>,
}

/// What was in a file.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) file: StoreFile,
    /// The entries as of the last commit.
    pub(super) entries: Entries,
    /// The revision before the first of `log`.
    pub(super) base: Revision,
    /// The commits that the file knows one by one.
    pub(super) log: Vec<Arc<Commit>>,
    /// The length of the file, in bytes.
    pub(super) length: u64,
    /// How much of it is in use, about, in bytes.
    pub(super) used: u64,
}

// === impl StoreFile ===

impl StoreFile {
    /// Reads all that there is. What is not whole is refused.
    pub(super) fn load(backend: impl StorageBackend) -> Result<Loaded, FileError> {
        let length = backend.len()?;
        if length == 0 {
            // It would be taken for a new one.
            return Err(FileError::Damaged("it is empty".into()));
        }
        guarded(|| {
            let database = builder().create_with_backend(backend).map_err(redb::Error::from)?;
            read(database, length)
        })
    }

    /// Makes a new file of one that is empty. It is synced.
    pub(super) fn create(
        backend: impl StorageBackend,
        image: &Image,
        reserved: Revision,
    ) -> Result<Self, FileError> {
        guarded(|| {
            let database = builder().create_with_backend(backend).map_err(redb::Error::from)?;
            write_image(&database, image, reserved)?;
            Ok(Self { database, reserved })
        })
    }

    pub(super) fn reserved(&self) -> Revision {
        self.reserved
    }

    /// Puts something into the file, all or nothing. It is synced.
    ///
    /// After an error it is not known which, and the file must not be used any more.
    pub(super) fn add(&mut self, addition: &Addition<'_>) -> Result<(), FileError> {
        guarded(|| Ok(add(&self.database, addition)?))?;
        self.reserved = addition.reserve.unwrap_or(self.reserved);
        Ok(())
    }

    /// Closes the file, so that it is quickly opened.
    pub(super) fn close(self) -> Result<(), FileError> {
        guarded(|| Ok(self.database.close().map_err(redb::Error::from)?))
    }
}

// === impl FileError ===

impl From<std::io::Error> for FileError {
    fn from(error: std::io::Error) -> Self {
        redb::Error::Io(error).into()
    }
}

impl From<redb::Error> for FileError {
    fn from(error: redb::Error) -> Self {
        use std::io::ErrorKind;
        match error {
            redb::Error::DatabaseAlreadyOpen | redb::Error::LockProtocolMismatch => Self::InUse,
            redb::Error::UpgradeRequired(version) => {
                Self::Foreign(format!("it is a redb file of version {version}"))
            }
            redb::Error::Corrupted(cause) => Self::Damaged(cause),
            redb::Error::Io(error) => match error.kind() {
                ErrorKind::UnexpectedEof => Self::Damaged("it is too short".into()),
                ErrorKind::InvalidData => Self::Foreign("it is not a redb file".into()),
                _ => Self::Io(error.to_string()),
            },
            error @ (redb::Error::TableTypeMismatch { .. }
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableIsMultimap(_)) => Self::Foreign(error.to_string()),
            error => Self::Io(error.to_string()),
        }
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    // Otherwise a file that was changed by others may be trusted, and end the process.
    builder.set_check_integrity_on_open(true).set_cache_size(CACHE);
    builder
}

/// A file that changes while it is open, by others or by a fault of the disk, must not end the process.
fn guarded<T>(work: impl FnOnce() -> Result<T, FileError>) -> Result<T, FileError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(FileError::Damaged(text.unwrap_or("for an unknown reason").into()))
    })
}

fn write_image(database: &Database, image: &Image, reserved: Revision) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert(META_FORMAT, FORMAT)?;
        meta.insert(META_BASE, image.base.0)?;
        meta.insert(META_RESERVED, reserved.0)?;
        let mut entries = transaction.open_table(ENTRIES)?;
        for (key, held) in &image.entries {
            put(&mut entries, key, held.revision, &held.value)?;
        }
        let mut log = transaction.open_table(LOG)?;
        for commit in &image.log {
            log.insert(commit.revision.0, row::encode(commit).as_slice())?;
        }
    }
    Ok(transaction.commit()?)
}

fn add(database: &Database, addition: &Addition<'_>) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    if !addition.commits.is_empty() {
        let mut log = transaction.open_table(LOG)?;
        for commit in &addition.commits {
            log.insert(commit.revision.0, row::encode(commit).as_slice())?;
        }
    }
    if let Some(Revision(reserve)) = addition.reserve {
        transaction.open_table(META)?.insert(META_RESERVED, reserve)?;
    }
    if let Some(to) = addition.fold {
        fold(&transaction, to)?;
    }
    Ok(transaction.commit()?)
}

/// Moves the log up to a revision to the entries.
fn fold(transaction: &WriteTransaction, to: Revision) -> Result<(), redb::Error> {
    let mut log = transaction.open_table(LOG)?;
    // What was written many times is moved once.
    let mut last: BTreeMap<Arc<str>, Option<(Revision, Bytes)>> = BTreeMap::new();
    for row in log.range(..=to.0)? {
        let (revision, row) = row?;
        let revision = Revision(revision.value());
        let records = row::decode(row.value()).ok_or_else(|| not_a_row(revision))?;
        for record in records {
            match record {
                Record::Put(key, value) => drop(last.insert(key, Some((revision, value)))),
                Record::Delete(key) => drop(last.insert(key, None)),
                Record::Loss(_) => {}
            }
        }
    }
    let mut entries = transaction.open_table(ENTRIES)?;
    for (key, value) in last {
        match value {
            Some((revision, value)) => put(&mut entries, &key, revision, &value)?,
            None => drop(entries.remove(&*key)?),
        }
    }
    log.retain_in(..=to.0, |_, _| false)?;
    transaction.open_table(META)?.insert(META_BASE, to.0)?;
    Ok(())
}

fn put(
    entries: &mut redb::Table<'_, &'static str, &'static [u8]>,
    key: &str,
    revision: Revision,
    value: &[u8],
) -> Result<(), redb::StorageError> {
    let length = size_of::<u64>() + value.len();
    let mut place = entries.insert_reserve(key, length)?;
    let (first, rest) = place.as_mut().split_at_mut(size_of::<u64>());
    first.copy_from_slice(&revision.0.to_le_bytes());
    rest.copy_from_slice(value);
    Ok(())
}

/// All that is in a file.
fn read(database: Database, length: u64) -> Result<Loaded, FileError> {
    let (base, reserved) = read_meta(&database)?;
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let mut used = 0;

    let mut entries = Entries::new();
    let table = transaction.open_table(ENTRIES).map_err(redb::Error::from)?;
    for entry in table.iter().map_err(redb::Error::from)? {
        let (key, value) = entry.map_err(redb::Error::from)?;
        let (key, value) = (key.value(), value.value());
        let held = value.split_first_chunk().map(|(revision, value)| Held {
            value: Bytes::copy_from_slice(value),
            revision: Revision(u64::from_le_bytes(*revision)),
        });
        let held = held.filter(|held| held.revision <= base && key.len() <= KEY_MAX);
        let held = held.ok_or_else(|| FileError::Damaged(format!("{key} is not an entry")))?;
        used += (key.len() + value.len()) as u64;
        entries.insert(key.into(), held);
    }

    let mut log = Vec::new();
    let mut last = base;
    let table = transaction.open_table(LOG).map_err(redb::Error::from)?;
    for row in table.iter().map_err(redb::Error::from)? {
        let (revision, row) = row.map_err(redb::Error::from)?;
        let revision = Revision(revision.value());
        let records = row::decode(row.value()).filter(|_| revision > last && revision <= reserved);
        let records = records.ok_or_else(|| FileError::from(not_a_row(revision)))?;
        used += row.value().len() as u64;
        log.push(Arc::new(replay(revision, records, &mut entries)));
        last = revision;
    }
    let file = StoreFile { database, reserved };
    Ok(Loaded { file, entries, base, log, length, used })
}

fn read_meta(database: &Database) -> Result<(Revision, Revision), FileError> {
    let transaction = database.begin_read().map_err(redb::Error::from)?;
    let meta = match transaction.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => {
            return Err(FileError::Foreign("it is another redb file".into()));
        }
        meta => meta.map_err(redb::Error::from)?,
    };
    let number = |name: &str| {
        let number = meta.get(name).map_err(redb::Error::from)?;
        let number = number.map(|number| number.value());
        number.ok_or_else(|| FileError::Damaged(format!("its {name} is missing")))
    };
    match number(META_FORMAT)? {
        FORMAT => {}
        other => return Err(FileError::Newer(other)),
    }
    let (base, reserved) = (number(META_BASE)?, number(META_RESERVED)?);
    if reserved < base || reserved > u64::MAX >> 1 {
        return Err(FileError::Damaged(format!("it has revision {base} of {reserved}")));
    }
    Ok((Revision(base), Revision(reserved)))
}

/// The commit of a row, which is done to the entries as of the one before it: they tell what was there
/// before each of its events.
fn replay(revision: Revision, records: Vec<Record>, entries: &mut Entries) -> Commit {
    let mut changes = Vec::new();
    let mut loss = None;
    for record in records {
        let (key, value) = match record {
            Record::Put(key, value) => (key, Some(value)),
            Record::Delete(key) => (key, None),
            Record::Loss(after) => {
                loss = Some(after);
                continue;
            }
        };
        let (key, previous) = match entries.remove_entry(&key) {
            Some((key, held)) => (key, Some(held)),
            None => (key, None),
        };
        if let Some(value) = value.clone() {
            entries.insert(key.clone(), Held { value, revision });
        }
        changes.push(Changed { key, value, previous });
    }
    match loss {
        Some(after) => Commit::after_loss(revision, after),
        None => Commit::new(revision, changes),
    }
}

fn not_a_row(revision: Revision) -> redb::Error {
    redb::Error::Corrupted(format!("commit {} is not one", revision.0))
}
