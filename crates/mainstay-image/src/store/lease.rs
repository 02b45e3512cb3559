//! Leases: layers that a container uses, whatever becomes of its image.

use std::fs;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::record::LayerUse;
use super::{RECORD_MAX, Store, StoreError, VERSION, names, parse, to_json};
use crate::digest::Digest;
use crate::durable::{self, at};

/// Somebody uses an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Who: the id of a container.
    pub owner: String,
    /// The ids of the images, or nothing if a power cut has left no more than the owner's name.
    pub images: Vec<Digest>,
}

/// What the file of a lease says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct LeaseRecord {
    version: u32,
    #[serde(default)]
    pub(super) images: Vec<Digest>,
    /// The only one, in files of earlier versions.
    #[serde(default, skip_serializing)]
    image: Option<Digest>,
    pub(super) layers: Vec<Digest>,
}

impl Store {
    /// Keeps the layers of the images `ids` for `owner`, until [`Store::release`]. A lease that
    /// `owner` has already is replaced.
    ///
    /// It is not synced, since it is made on the way to a container's start and no container
    /// outlives the machine; one that is there after a boot is to be released or taken anew.
    pub fn lease(&self, owner: &str, ids: &[&Digest]) -> Result<(), StoreError> {
        let path = self.lease_path(owner)?;
        let scratch = self.scratch()?;
        // Shared, so that the image cannot be removed between the look and the lease.
        let _guard = self.shared()?;
        let (mut images, mut layers) = (Vec::new(), Vec::new());
        for id in ids {
            let image =
                self.image_record(id)?.ok_or_else(|| StoreError::NotFound(id.to_string()))?;
            layers.extend(image.layers.into_iter().map(|LayerUse { diff_id, .. }| diff_id));
            images.push(image.id);
        }
        let content = to_json(&LeaseRecord { version: VERSION, images, image: None, layers });
        fs::write(scratch.path(), content).map_err(at("writing", scratch.path()))?;
        let persisted = scratch.persist(&path);
        persisted.map_err(|error| at("renaming a file to", &path)(error.error))?;
        Ok(())
    }

    /// Ends the lease of `owner`; that there is none is fine.
    pub fn release(&self, owner: &str) -> Result<(), StoreError> {
        Ok(durable::remove_file(&self.lease_path(owner)?)?)
    }

    /// All leases, by owner.
    pub fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        let _guard = self.shared()?;
        let records = self.lease_records()?.into_iter();
        let lease = |(owner, record): (String, Option<LeaseRecord>)| Lease {
            owner,
            images: record.map(|record| record.images).unwrap_or_default(),
        };
        Ok(records.map(lease).collect())
    }

    /// The layers that somebody uses. The caller holds the lock.
    pub(super) fn leased(&self) -> Result<Vec<Digest>, StoreError> {
        let records = self.lease_records()?.into_iter();
        Ok(records.filter_map(|(_, record)| record).flat_map(|record| record.layers).collect())
    }

    /// What each owner uses, as far as it can be read. The caller holds the lock.
    pub(super) fn lease_records(&self) -> Result<Vec<(String, Option<LeaseRecord>)>, StoreError> {
        let mut leases = Vec::new();
        let dir = self.dir().join("leases");
        for name in names(&dir)? {
            let path = dir.join(&name);
            // Released since the directory was read: that takes no lock.
            let Some(bytes) = durable::read(&path, RECORD_MAX)? else { continue };
            let owner = name.strip_suffix(".json").unwrap_or(&name);
            // Only a power cut leaves half a lease, and that ended its container too.
            let record = parse(&path, &bytes).ok().map(|mut record: LeaseRecord| {
                record.images.extend(record.image.take());
                record
            });
            leases.push((owner.to_owned(), record));
        }
        leases.sort_by(|(a, _), (b, _)| a.cmp(b));
        Ok(leases)
    }

    fn lease_path(&self, owner: &str) -> Result<PathBuf, StoreError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !(1..=200).contains(&owner.len()) || !owner.bytes().all(allowed) {
            return Err(StoreError::Owner(owner.into()));
        }
        Ok(self.dir().join("leases").join(format!("{owner}.json")))
    }
}
