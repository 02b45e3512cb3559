//! A disk whose power is cut, and which fails.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::StorageBackend;

use crate::embedded::disk::Disk;

/// A write reaches the disk in pieces of so many bytes, each of them or not.
const SECTOR: usize = 512;

/// Numbers that look random.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

/// A disk, which is shared by all its clones.
#[derive(Clone, Debug)]
pub(super) struct SimulatedDisk {
    files: Arc<Mutex<Files>>,
    faults: Arc<Mutex<Faults>>,
}

#[derive(Debug, Default)]
struct Files {
    installed: Option<Arc<Mutex<Content>>>,
    staged: Option<Arc<Mutex<Content>>>,
}

/// What goes wrong.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// After so many operations that change something, the power is cut.
    pub(super) power_for: Option<u64>,
    /// What every write and sync says instead of doing anything.
    pub(super) error: Option<io::ErrorKind>,
    /// How often something was synced.
    pub(super) syncs: u64,
}

/// A file.
#[derive(Clone, Debug, Default)]
struct Content {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// What was done since.
    since: Vec<Operation>,
}

#[derive(Clone, Debug)]
enum Operation {
    Write(usize, Vec<u8>),
    Length(usize),
}

#[derive(Debug)]
pub(super) struct SimulatedFile {
    content: Arc<Mutex<Content>>,
    faults: Arc<Mutex<Faults>>,
}

// === impl Random ===

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }
}

// === impl SimulatedDisk ===

impl SimulatedDisk {
    pub(super) fn new() -> Self {
        Self { files: Arc::default(), faults: Arc::default() }
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap()
    }

    /// What is there when the power comes back: of what was not synced, some.
    pub(super) fn after_power_cut(&self, random: &mut Random) -> Self {
        let files = self.files.lock().unwrap();
        let mut left = |file: &Option<Arc<Mutex<Content>>>| {
            let file = file.as_ref()?.lock().unwrap().after_power_cut(random);
            Some(Arc::new(Mutex::new(file)))
        };
        let files = Files { installed: left(&files.installed), staged: left(&files.staged) };
        Self { files: Arc::new(Mutex::new(files)), faults: Arc::default() }
    }

    fn file(&self, content: &Arc<Mutex<Content>>) -> SimulatedFile {
        SimulatedFile { content: content.clone(), faults: self.faults.clone() }
    }
}

impl Disk for SimulatedDisk {
    type Backend = SimulatedFile;

    fn open(&self) -> io::Result<Option<SimulatedFile>> {
        Ok(self.files.lock().unwrap().installed.as_ref().map(|content| self.file(content)))
    }

    fn create(&self) -> io::Result<SimulatedFile> {
        self.faults().check()?;
        let content = Arc::default();
        self.files.lock().unwrap().staged = Some(Arc::clone(&content));
        Ok(self.file(&content))
    }

    fn install(&self) -> io::Result<()> {
        self.faults().check()?;
        let mut files = self.files.lock().unwrap();
        files.installed = files.staged.take();
        Ok(())
    }
}

// === impl Faults ===

impl Faults {
    fn check(&mut self) -> io::Result<()> {
        if let Some(left) = &mut self.power_for {
            if *left == 0 {
                return Err(io::Error::other("the power is cut"));
            }
            *left -= 1;
        }
        self.error.map_or(Ok(()), |kind| Err(kind.into()))
    }
}

// === impl Content ===

impl Content {
    fn apply(target: &mut Vec<u8>, operation: &Operation) {
        match operation {
            Operation::Length(length) => target.resize(*length, 0),
            Operation::Write(offset, data) => {
                let end = offset + data.len();
                if target.len() < end {
                    target.resize(end, 0);
                }
                target[*offset..end].copy_from_slice(data);
            }
        }
    }

    fn change(&mut self, operation: Operation) {
        Self::apply(&mut self.now, &operation);
        self.since.push(operation);
    }

    fn after_power_cut(&self, random: &mut Random) -> Self {
        let mut left = self.synced.clone();
        // From none to all of it.
        let odds = random.below(5);
        let mut happens = || random.below(4) < odds;
        for operation in &self.since {
            match operation {
                Operation::Length(_) if happens() => Self::apply(&mut left, operation),
                Operation::Length(_) => {}
                Operation::Write(offset, data) => {
                    for (index, sector) in data.chunks(SECTOR).enumerate() {
                        if happens() {
                            let sector = Operation::Write(offset + index * SECTOR, sector.into());
                            Self::apply(&mut left, &sector);
                        }
                    }
                }
            }
        }
        Self { now: left.clone(), synced: left, since: Vec::new() }
    }
}

// === impl SimulatedFile ===

impl SimulatedFile {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }

    fn check(&self) -> io::Result<()> {
        self.faults.lock().unwrap().check()
    }
}

impl StorageBackend for SimulatedFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.content();
        let offset = usize::try_from(offset).unwrap();
        let found = content.now.get(offset..offset + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.check()?;
        self.content().change(Operation::Length(usize::try_from(length).unwrap()));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        let mut content = self.content();
        content.synced = content.now.clone();
        content.since.clear();
        self.faults.lock().unwrap().syncs += 1;
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let allowed = self.check();
        if allowed.is_ok() || self.faults.lock().unwrap().power_for == Some(0) {
            // Of the write that was going on when the power was cut there may be some, too.
            let offset = usize::try_from(offset).unwrap();
            self.content().change(Operation::Write(offset, data.into()));
        }
        allowed
    }
}
