//! Looking whether everything is what it should be.

use std::path::PathBuf;

use super::record::ImageRecord;
use super::{Store, StoreError};
use crate::config::CONFIG_MAX;
use crate::digest::Digest;
use crate::durable;
use crate::manifest::DOCUMENT_MAX;
use crate::reference::Reference;

/// Something that is not what it should be.
#[derive(Debug, thiserror::Error)]
#[error("{}", describe(self))]
pub struct Problem {
    /// The image that suffers, if it can be told.
    pub image: Option<Digest>,
    /// Its names.
    pub references: Vec<Reference>,
    /// What is wrong.
    #[source]
    pub damage: Damage,
}

/// What can be wrong with an image.
#[derive(Debug, thiserror::Error)]
pub enum Damage {
    /// A file in `records/`.
    #[error("its record cannot be read")]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: StoreError,
    },
    /// A manifest or the configuration.
    #[error("its document {0} is missing or has another content than its digest says")]
    Blob(Digest),
    /// A layer.
    #[error("its layer {0} is missing or has not been unpacked by this store")]
    Layer(Digest),
}

impl Store {
    /// Compares every document with its digest and looks for every layer. What is wrong is said,
    /// not changed; [`Store::discard_damaged`] does that.
    pub fn verify(&self) -> Result<Vec<Problem>, StoreError> {
        let _guard = self.shared()?;
        let records = self.records()?;
        let mut problems = Vec::new();
        for image in &records.images {
            let damage = self.damage(image)?;
            let references = self.names_of(image)?;
            problems.extend(damage.into_iter().map(|damage| Problem {
                image: Some(image.id.clone()),
                references: references.clone(),
                damage,
            }));
        }
        problems.extend(records.damaged.into_iter().map(|(path, source)| Problem {
            image: None,
            references: Vec::new(),
            damage: Damage::Record { path, source },
        }));
        Ok(problems)
    }

    /// Removes what [`Store::verify`] found wrong, and the images that suffer from it, so that
    /// they count as absent. Their good layers stay until the next [`Store::collect`], so that
    /// pulling or importing an image again brings back only what was damaged. A damaged layer that a
    /// container uses is out of the way then, and goes when the container does.
    pub fn discard_damaged(&self, problems: &[Problem]) -> Result<(), StoreError> {
        for problem in problems {
            if let Damage::Layer(diff_id) = &problem.damage {
                self.discard_layer(diff_id)?;
            }
        }
        {
            let _guard = self.exclusive()?;
            for Problem { image, references, damage } in problems {
                references
                    .iter()
                    .try_for_each(|name| durable::remove_file(&self.reference_path(name)))?;
                if let Some(id) = image {
                    durable::remove_file(&self.image_path(id))?;
                }
                match damage {
                    Damage::Record { path, .. } => durable::remove_file(path)?,
                    Damage::Blob(digest) => durable::remove_file(&self.blob_path(digest))?,
                    Damage::Layer(_) => {}
                }
            }
        }
        Ok(durable::sync_dir(&self.inner.records)?)
    }

    fn damage(&self, image: &ImageRecord) -> Result<Vec<Damage>, StoreError> {
        let mut damage = Vec::new();
        let blobs = image.manifests.iter().map(|digest| (digest, DOCUMENT_MAX));
        for (digest, limit) in blobs.chain([(&image.id, CONFIG_MAX)]) {
            if self.blob(digest, limit)?.is_none() {
                damage.push(Damage::Blob(digest.clone()));
            }
        }
        for layer in &image.layers {
            let there = match self.layer_size(&layer.diff_id) {
                Ok(size) => size.is_some(),
                Err(StoreError::LayerCollision { .. }) => false,
                Err(error) => return Err(error),
            };
            if !there || !self.layer_path(&layer.diff_id).join("fs").is_dir() {
                damage.push(Damage::Layer(layer.diff_id.clone()));
            }
        }
        Ok(damage)
    }
}

fn describe(problem: &Problem) -> String {
    let names: Vec<String> = problem.references.iter().map(Reference::familiar).collect();
    match (&problem.image, &problem.damage) {
        (Some(id), _) if names.is_empty() => format!("image {id} is damaged"),
        (Some(id), _) => format!("image {} ({id}) is damaged", names.join(", ")),
        (None, Damage::Record { path, .. }) => format!("an image in {} is damaged", path.display()),
        (None, _) => "an image is damaged".into(),
    }
}
