//! What `docker save` writes: `manifest.json` with names, and for each image the members with its
//! configuration and layers.
//!
//! Source: moby `docs`, "Docker Image Specification v1.2", section "Combined Image JSON +
//! Filesystem Changeset Format"; `image/tarexport` for what is really written.

use serde::Deserialize;

use super::{Documents, Found, FoundLayer, IMAGES_MAX, ImportProblem, reference};
use crate::digest::Digest;
use crate::manifest::{DOCUMENT_MAX, null_as_default};

const MANIFEST: &str = "manifest.json";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Entry {
    config: String,
    #[serde(default, deserialize_with = "null_as_default")]
    repo_tags: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    layers: Vec<String>,
}

/// The images of a docker-archive, or `None` if it is none.
pub(super) fn images(documents: &Documents<'_>) -> Result<Option<Vec<Found>>, ImportProblem> {
    let Some(bytes) = documents.read(MANIFEST, DOCUMENT_MAX)? else { return Ok(None) };
    let entries = parse(&bytes)
        .map_err(|source| ImportProblem::DockerManifest { member: MANIFEST.into(), source })?;
    if entries.is_empty() {
        return Err(ImportProblem::NoImage { member: MANIFEST.into() });
    }
    if entries.len() > IMAGES_MAX {
        return Err(ImportProblem::TooManyImages);
    }
    entries.into_iter().map(|entry| image(documents, entry)).collect::<Result<_, _>>().map(Some)
}

pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<Entry>, serde_json::Error> {
    serde_json::from_slice(bytes)
}

fn image(documents: &Documents<'_>, entry: Entry) -> Result<Found, ImportProblem> {
    let config = documents.config(&entry.config, MANIFEST)?;
    let references = entry.repo_tags.iter().map(|name| reference(name));
    Ok(Found {
        id: Digest::of(&config),
        config,
        config_member: entry.config,
        manifest: None,
        layers: entry.layers.into_iter().map(|member| FoundLayer { member, blob: None }).collect(),
        references: references.collect::<Result<_, _>>()?,
        tag: None,
        unlabelled: false,
    })
}
