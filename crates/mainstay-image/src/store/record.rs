//! What the files in `records/` say, and reading them.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{RECORD_MAX, Store, StoreError, VERSION, names, parse};
use crate::digest::Digest;
use crate::durable;
use crate::reference::Reference;

/// One image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ImageRecord {
    pub(super) version: u32,
    /// The digest of its configuration.
    pub(super) id: Digest,
    /// The manifests that lead to it, as far as it came with one.
    pub(super) manifests: Vec<Digest>,
    /// Its layers, lowest first.
    pub(super) layers: Vec<LayerUse>,
    /// The names it was ever given, in canonical form. Some may lead to another image by now, or
    /// nowhere: that is for their own records to say. This is where to look.
    pub(super) names: Vec<String>,
}

/// A layer of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct LayerUse {
    pub(super) diff_id: Digest,
    /// Bytes of its files.
    pub(super) size: u64,
}

/// One name of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ReferenceRecord {
    pub(super) version: u32,
    /// The canonical form, with a tag or a digest.
    pub(super) reference: String,
    /// The image's id.
    pub(super) image: Digest,
}

/// All records.
pub(super) struct Records {
    pub(super) images: Vec<ImageRecord>,
    /// Names that lead nowhere: what is left when a removal is interrupted by a power cut.
    pub(super) stray: Vec<PathBuf>,
    /// Files that are no record. Whoever looks for one image is not bothered by another's.
    pub(super) damaged: Vec<(PathBuf, StoreError)>,
}

// === impl ReferenceRecord ===

impl ReferenceRecord {
    pub(super) fn new(reference: &Reference, image: &Digest) -> Self {
        Self { version: VERSION, reference: reference.to_string(), image: image.clone() }
    }
}

// === impl Store ===

impl Store {
    pub(super) fn image_path(&self, id: &Digest) -> PathBuf {
        self.inner.records.join(format!("image-{}-{}.json", id.algorithm().name(), id.hex()))
    }

    /// A reference may be longer than a file name, so the file is named by its hash.
    pub(super) fn reference_path(&self, reference: &Reference) -> PathBuf {
        let hash = Digest::of(reference.to_string().as_bytes());
        self.inner.records.join(format!("reference-{}.json", hash.hex()))
    }

    pub(super) fn image_record(&self, id: &Digest) -> Result<Option<ImageRecord>, StoreError> {
        let path = self.image_path(id);
        durable::read(&path, RECORD_MAX)?.map(|bytes| parse(&path, &bytes)).transpose()
    }

    pub(super) fn reference_record(
        &self,
        reference: &Reference,
    ) -> Result<Option<ReferenceRecord>, StoreError> {
        let path = self.reference_path(reference);
        durable::read(&path, RECORD_MAX)?.map(|bytes| parse(&path, &bytes)).transpose()
    }

    /// The names that lead to an image, sorted. The caller holds the lock.
    pub(super) fn names_of(&self, image: &ImageRecord) -> Result<Vec<Reference>, StoreError> {
        let mut names = Vec::new();
        for name in &image.names {
            let Ok(reference) = name.parse::<Reference>() else { continue };
            match self.reference_record(&reference) {
                Ok(Some(record)) if record.image == image.id => names.push(reference),
                // A damaged one leads nowhere; [`Store::verify`] says so.
                Ok(_) | Err(StoreError::Record { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        names.sort_by_cached_key(ToString::to_string);
        Ok(names)
    }

    /// Reads all records. The caller holds the lock.
    pub(super) fn records(&self) -> Result<Records, StoreError> {
        let (images, stray, damaged) = Default::default();
        let mut records = Records { images, stray, damaged };
        let mut references: Vec<(PathBuf, ReferenceRecord)> = Vec::new();
        for name in names(&self.inner.records)? {
            let path = self.inner.records.join(&name);
            let Some(bytes) = durable::read(&path, RECORD_MAX)? else { continue };
            let result = if name.starts_with("image-") {
                parse(&path, &bytes).map(|record| records.images.push(record))
            } else {
                parse(&path, &bytes).map(|record| references.push((path.clone(), record)))
            };
            if let Err(error) = result {
                records.damaged.push((path, error));
            }
        }
        records.images.sort_by(|a, b| a.id.cmp(&b.id));
        let exists =
            |id: &Digest| records.images.binary_search_by(|image| image.id.cmp(id)).is_ok();
        let stray = references.into_iter().filter(|(_, record)| !exists(&record.image));
        records.stray = stray.map(|(path, _)| path).collect();
        Ok(records)
    }
}
