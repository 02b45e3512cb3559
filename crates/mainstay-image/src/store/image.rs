//! Looking images up.

use std::fs;
use std::path::PathBuf;

use super::layer::LayerName;
use super::record::{ImageRecord, LayerUse};
use super::{Store, StoreError};
use crate::config::{CONFIG_MAX, ImageConfig};
use crate::digest::Digest;
use crate::durable;
use crate::merged::MergedRoot;
use crate::reference::Reference;

/// The fewest characters that an id is recognised by, so that a word like `cafe` stays a name.
const PREFIX_MIN: usize = 6;

/// An image that is here, with all its layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The digest of its configuration, by which it is known.
    pub id: Digest,
    /// Its names with tags.
    pub references: Vec<Reference>,
    /// Its names with digests.
    pub digests: Vec<Reference>,
    /// Bytes of the files in its layers. Layers that it shares with others are counted.
    pub size: u64,
    /// What it says about itself.
    pub config: ImageConfig,
    layers: Vec<LayerName>,
}

// === impl Image ===

impl Image {
    /// The lower directories for overlayfs, top first, relative to [`Store::layers_dir`]. Each has
    /// 19 bytes, so that 127 of them and two paths fit into the 4096 bytes of mount data. None
    /// comes twice, which overlayfs refuses: of a layer that the image has twice only the upper
    /// place counts.
    pub fn lower_dirs(&self) -> Vec<String> {
        let mut dirs: Vec<String> = Vec::new();
        for name in self.layers.iter().rev() {
            let dir = format!("{name}/fs");
            if !dirs.contains(&dir) {
                dirs.push(dir);
            }
        }
        dirs
    }
}

// === impl Store ===

impl Store {
    /// The image that `name` stands for, if it is here: a reference, or `sha256:` with the digest of
    /// its configuration or manifest. The start of an id is none: what is written in a manifest must
    /// not mean another image when its own is missing.
    ///
    /// # Errors
    ///
    /// [`StoreError::Config`], [`StoreError::LayerMissing`] and [`StoreError::Record`] mean that
    /// the image is here but damaged; importing or pulling it again mends it.
    /// [`StoreError::Name`]: `name` is neither.
    pub fn find(&self, name: &str) -> Result<Option<Image>, StoreError> {
        let _guard = self.shared()?;
        self.resolve(name)?.map(|record| self.image(record)).transpose()
    }

    /// The image of exactly this reference, if it is here. Errors as [`Store::find`].
    pub fn find_reference(&self, reference: &Reference) -> Result<Option<Image>, StoreError> {
        let _guard = self.shared()?;
        self.resolve_reference(reference)?.map(|record| self.image(record)).transpose()
    }

    /// All images, by id. Damaged ones are in the second list.
    pub fn list(&self) -> Result<(Vec<Image>, Vec<StoreError>), StoreError> {
        let _guard = self.shared()?;
        let records = self.records()?;
        let mut damaged = Vec::new();
        let mut images = Vec::new();
        for record in records.images {
            match self.image(record) {
                Ok(image) => images.push(image),
                Err(error) => damaged.push(error),
            }
        }
        damaged.extend(records.damaged.into_iter().map(|(_, error)| error));
        Ok((images, damaged))
    }

    /// The files of an image as a container would see them, without mounting anything.
    pub fn open_root(&self, image: &Image) -> Result<MergedRoot, StoreError> {
        let dirs = image.lower_dirs().into_iter().map(|dir| self.layers_dir().join(dir));
        Ok(MergedRoot::open(dirs.collect::<Vec<PathBuf>>())?)
    }

    /// The record that `name` stands for, as for [`Store::find`]. The caller holds the lock.
    fn resolve(&self, name: &str) -> Result<Option<ImageRecord>, StoreError> {
        if let Ok(digest) = name.parse::<Digest>() {
            if let Some(record) = self.image_record(&digest)? {
                return Ok(Some(record));
            }
            let images = self.records()?.images;
            return Ok(images.into_iter().find(|image| image.manifests.contains(&digest)));
        }
        let reference = name.parse::<Reference>();
        let reference =
            reference.map_err(|source| StoreError::Name { name: name.into(), source })?;
        self.resolve_reference(&reference)
    }

    /// As [`Store::resolve`], and for what people type: also an id without `sha256:`, or at least
    /// [`PREFIX_MIN`] digits of its start.
    pub(super) fn resolve_typed(&self, name: &str) -> Result<Option<ImageRecord>, StoreError> {
        let resolved = self.resolve(name);
        if !matches!(resolved, Ok(None) | Err(StoreError::Name { .. }))
            || name.len() < PREFIX_MIN
            || !name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        {
            return resolved;
        }
        let mut found = self.records()?.images;
        found.retain(|image| image.id.hex().starts_with(name));
        match found.len() {
            0 | 1 => Ok(found.pop()),
            count => Err(StoreError::Ambiguous { prefix: name.into(), count }),
        }
    }

    pub(super) fn resolve_reference(
        &self,
        reference: &Reference,
    ) -> Result<Option<ImageRecord>, StoreError> {
        let Some(record) = self.reference_record(&reference.without_redundant_tag())? else {
            return Ok(None);
        };
        // A name that is left over from an image that was removed half before a power cut.
        self.image_record(&record.image)
    }

    /// The image of a record. The caller holds the lock.
    pub(super) fn image(&self, record: ImageRecord) -> Result<Image, StoreError> {
        let names = self.names_of(&record)?;
        let ImageRecord { id, layers, .. } = record;
        let damaged = |source| StoreError::Config { image: id.clone(), source };
        let config =
            durable::read(&self.blob_path(&id), CONFIG_MAX)?.ok_or_else(|| damaged(None))?;
        let config = ImageConfig::parse(&config).map_err(|error| damaged(Some(error)))?;
        for LayerUse { diff_id, .. } in &layers {
            let path = self.layer_path(diff_id);
            if !fs::symlink_metadata(&path).is_ok_and(|stat| stat.is_dir()) {
                return Err(StoreError::LayerMissing { image: id, layer: diff_id.clone() });
            }
        }
        let (digests, references) =
            names.into_iter().partition(|reference| reference.digest().is_some());
        Ok(Image {
            references,
            digests,
            size: layers.iter().map(|layer| layer.size).sum(),
            config,
            layers: layers.iter().map(|layer| LayerName::of(&layer.diff_id)).collect(),
            id,
        })
    }
}
