//! Giving images their records and names, and taking them away.

use super::job::Job;
use super::record::{ImageRecord, LayerUse, ReferenceRecord};
use super::{Image, Store, StoreError, VERSION, to_json};
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

/// Whether to go on; somebody may have lost interest.
pub(super) type GoOn<'a> = &'a dyn Fn() -> bool;

/// What is recorded about an image before it is published.
#[derive(PartialEq, Eq)]
struct Known {
    image: Option<ImageRecord>,
    /// For each of its new names, in their order.
    references: Vec<Option<ReferenceRecord>>,
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
    /// Shows images: everything about them is durable before the first is seen, and whoever looks
    /// sees all of them or none. If this process is killed just then, some may lack a name, which
    /// importing or pulling them again gives them; no name leads nowhere. The caller holds a
    /// [`Job`] for their layers and blobs.
    ///
    /// `go_on` is asked now and then as long as nothing is shown; `false` gives up with
    /// [`StoreError::GivenUp`].
    pub(crate) fn publish(
        &self,
        images: &[NewImage],
        go_on: GoOn<'_>,
    ) -> Result<Vec<Image>, StoreError> {
        // What was found here may have got its name a moment ago, from somebody who has not made
        // that durable yet.
        for directory in ["layers", "blobs/sha256", "blobs/sha512"] {
            durable::sync_dir(&self.dir().join(directory))?;
        }
        loop {
            let known = self.known(images);
            let (prepared, _jobs) = self.prepare_records(images, &known, go_on)?;
            let shown = {
                let _guard = self.exclusive()?;
                // Somebody else changed one of them since, so what is prepared is out of date.
                if self.known(images) != known {
                    continue;
                }
                prepared.into_iter().try_for_each(Prepared::publish)?;
                // Before anybody can remove them again.
                let of = |image: &NewImage| {
                    let record = self.image_record(&image.id)?;
                    let gone = || StoreError::NotFound(image.id.to_string());
                    self.image(record.ok_or_else(gone)?)
                };
                images.iter().map(of).collect::<Result<_, _>>()?
            };
            durable::sync_dir(&self.inner.records)?;
            return Ok(shown);
        }
    }

    /// The records that the images and their names have by now; a damaged one counts as none.
    fn known(&self, images: &[NewImage]) -> Vec<Known> {
        let reference = |name: &Reference| self.reference_record(name).ok().flatten();
        let known = |image: &NewImage| Known {
            image: self.image_record(&image.id).ok().flatten(),
            references: image.references.iter().map(reference).collect(),
        };
        images.iter().map(known).collect()
    }

    fn prepare_records(
        &self,
        images: &[NewImage],
        known: &[Known],
        go_on: GoOn<'_>,
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
            if let Some((diff_id, job)) = self.directories(&image.diff_ids, go_on)? {
                layers.push(LayerUse { diff_id, size: 0 });
                jobs.push(job);
            }
            // An image that came by another way before keeps what is known from then.
            let mut record = known.image.clone().unwrap_or_else(|| ImageRecord {
                version: VERSION,
                id: image.id.clone(),
                manifests: Vec::new(),
                layers: Vec::new(),
                names: Vec::new(),
            });
            record.layers = layers;
            let manifest = image.manifest.iter();
            add(&mut record.manifests, manifest.cloned());
            add(&mut record.names, image.references.iter().map(ToString::to_string));
            if known.image.as_ref() != Some(&record) {
                prepared.push(prepare(self.image_path(&image.id), &to_json(&record))?);
            }
        }
        // After those of all images, so that no name leads nowhere.
        for (image, known) in images.iter().zip(known) {
            for (reference, known) in image.references.iter().zip(&known.references) {
                let record = ReferenceRecord::new(reference, &image.id);
                if known.as_ref() != Some(&record) {
                    prepared.push(prepare(self.reference_path(reference), &to_json(&record))?);
                }
            }
        }
        Ok((prepared, jobs))
    }

    /// Removes what `name` stands for, as for [`Store::find`], or the image whose id, or the first
    /// 6 digits or more of its id, it is: a reference is removed, and the image with it if that was
    /// the last name with a tag; an id or digest removes the image with all its names.
    ///
    /// # Errors
    ///
    /// [`StoreError::Name`] if `name` is neither; [`StoreError::Ambiguous`] if several ids start so;
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
        let record = self.resolve_typed(name)?.ok_or_else(|| StoreError::NotFound(name.into()))?;
        let names = self.names_of(&record)?;
        if let Ok(reference) = name.parse::<Reference>()
            && let reference = reference.without_redundant_tag()
            && names.contains(&reference)
            && names.iter().any(|other| other.tag().is_some() && *other != reference)
        {
            durable::remove_file(&self.reference_path(&reference))?;
            return Ok(Removed { references: vec![reference], image: None });
        }

        let leases = self.lease_records()?.into_iter();
        let leases = leases.filter(|(_, lease)| {
            lease.as_ref().is_some_and(|lease| lease.images.contains(&record.id))
        });
        let owners: Vec<String> = leases.map(|(owner, _)| owner).collect();
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

/// Adds what is not in the list yet.
fn add<T: PartialEq>(list: &mut Vec<T>, more: impl Iterator<Item = T>) {
    for item in more {
        if !list.contains(&item) {
            list.push(item);
        }
    }
}
