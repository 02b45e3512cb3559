//! Giving images their records and names, and taking them away.

use super::job::Job;
use super::record::{ImageRecord, LayerUse, ReferenceRecord};
use super::{Image, Store, StoreError, to_json};
use crate::digest::Digest;
use crate::durable::{self, Prepared};
use crate::reference::Reference;

/// An image everything of which is in the store, but that has no record yet.
#[derive(Clone, Debug)]
pub(crate) struct NewImage {
    pub(crate) id: Digest,
    pub(crate) manifest: Option<Digest>,
    /// Lowest first.
    pub(crate) diff_ids: Vec<Digest>,
    /// Names that lead to it from now on, whatever they led to before.
    pub(crate) references: Vec<Reference>,
}

/// What was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The names that are gone.
    pub references: Vec<Reference>,
    /// The image, if it is gone too. Its layers go with the next [`Store::collect`].
    pub image: Option<Digest>,
}

impl Store {
    /// Shows images, all at once: everything about them is durable before the first is seen. The
    /// caller holds a [`super::Job`] for their layers and blobs.
    pub(crate) fn publish(&self, images: &[NewImage]) -> Result<Vec<Image>, StoreError> {
        loop {
            let known = self.known(images);
            let (prepared, _jobs) = self.prepare_records(images, &known)?;
            let shown = {
                let _guard = self.exclusive()?;
                // Somebody else published one of the images since, so the records are out of date.
                if self.known(images) != known {
                    continue;
                }
                prepared.into_iter().try_for_each(Prepared::publish)?;
                // Before anybody can remove them again.
                let records = self.records()?;
                let of = |image: &NewImage| {
                    let record = records.images.iter().find(|record| record.id == image.id);
                    let record =
                        record.ok_or_else(|| StoreError::NotFound(image.id.to_string()))?;
                    self.image_of(record.clone(), &records)
                };
                images.iter().map(of).collect::<Result<_, _>>()?
            };
            durable::sync_dir(&self.inner.records)?;
            return Ok(shown);
        }
    }

    /// The records that the images have by now; a damaged one counts as none.
    fn known(&self, images: &[NewImage]) -> Vec<Option<ImageRecord>> {
        images.iter().map(|image| self.image_record(&image.id).ok().flatten()).collect()
    }

    fn prepare_records(
        &self,
        images: &[NewImage],
        known: &[Option<ImageRecord>],
    ) -> Result<(Vec<Prepared>, Vec<Job>), StoreError> {
        let (mut prepared, mut jobs) = (Vec::new(), Vec::new());
        let prepare = |path, content: &[u8]| durable::prepare(self.scratch()?, path, content);
        for (image, known) in images.iter().zip(known) {
            let mut layers = Vec::new();
            for diff_id in &image.diff_ids {
                let size = self.layer_size(diff_id)?.ok_or_else(|| StoreError::LayerMissing {
                    image: image.id.clone(),
                    layer: diff_id.clone(),
                })?;
                layers.push(LayerUse { diff_id: diff_id.clone(), size });
            }
            if let Some((diff_id, job)) = self.directories(&image.diff_ids)? {
                layers.push(LayerUse { diff_id, size: 0 });
                jobs.push(job);
            }
            // An image that came by another way before keeps what is known from then.
            let mut manifests: Vec<Digest> =
                known.iter().flat_map(|record| record.manifests.clone()).collect();
            manifests.extend(image.manifest.clone().filter(|new| !manifests.contains(new)));
            let record = ImageRecord::new(image.id.clone(), manifests, layers);
            prepared.push(prepare(self.image_path(&image.id), &to_json(&record))?);
        }
        for image in images {
            for reference in &image.references {
                let record = ReferenceRecord::new(reference, &image.id);
                prepared.push(prepare(self.reference_path(reference), &to_json(&record))?);
            }
        }
        Ok((prepared, jobs))
    }

    /// Removes what `name` stands for, as for [`Store::find`]: a reference is removed, and the
    /// image with it if that was the last name with a tag; an id or digest removes the image with
    /// all its names.
    ///
    /// # Errors
    ///
    /// [`StoreError::InUse`] if somebody holds a lease on an image that would go;
    /// [`StoreError::NotFound`] if there is no such image.
    pub fn remove(&self, name: &str) -> Result<Removed, StoreError> {
        let removed = {
            let _guard = self.exclusive()?;
            self.remove_locked(name)?
        };
        durable::sync_dir(&self.inner.records)?;
        Ok(removed)
    }

    fn remove_locked(&self, name: &str) -> Result<Removed, StoreError> {
        let record = self.resolve(name)?.ok_or_else(|| StoreError::NotFound(name.into()))?;
        let records = self.records()?.references.into_iter();
        let names = records.filter(|reference| reference.image == record.id);
        let names: Vec<Reference> = names.filter_map(|reference| reference.parsed()).collect();
        if let Ok(reference) = name.parse::<Reference>()
            && let reference = reference.without_redundant_tag()
            && names.contains(&reference)
            && names.iter().any(|other| other.tag().is_some() && *other != reference)
        {
            durable::remove_file(&self.reference_path(&reference))?;
            return Ok(Removed { references: vec![reference], image: None });
        }

        let leases = self.lease_records()?.into_iter();
        let owners: Vec<String> =
            leases.filter(|(_, lease)| lease.image == record.id).map(|(owner, _)| owner).collect();
        if !owners.is_empty() {
            return Err(StoreError::InUse { image: record.id, owners });
        }
        for reference in &names {
            durable::remove_file(&self.reference_path(reference))?;
        }
        durable::remove_file(&self.image_path(&record.id))?;
        Ok(Removed { references: names, image: Some(record.id) })
    }
}
