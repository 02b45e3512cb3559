//! OCI image layouts: `index.json`, and everything else below `blobs/` by its digest.
//!
//! Source: OCI image-spec v1.1, `image-layout.md`; containerd `core/images/archive/importer.go`
//! for which annotations name an image.

use super::{Documents, Found, FoundLayer, IMAGES_MAX, ImportProblem, reference};
use crate::digest::Digest;
use crate::manifest::{DOCUMENT_MAX, Descriptor, Document, Manifest};
use crate::platform::Platform;

const INDEX: &str = "index.json";
/// The name of an image, in full. Source: `AnnotationImageName` of containerd, which Docker uses too.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// The name in full or only a tag, depending on the tool. Source: OCI image-spec, `annotations.md`.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// How many indexes may be one within another.
const DEPTH_MAX: usize = 4;

/// The images of an OCI layout, or `None` if it is none.
pub(super) fn images(
    documents: &Documents<'_>,
    platform: &Platform,
) -> Result<Option<Vec<Found>>, ImportProblem> {
    let Some(bytes) = documents.read(INDEX, DOCUMENT_MAX)? else { return Ok(None) };
    let descriptors = match parse(INDEX, &bytes)? {
        Document::Index(index) => index.manifests,
        Document::Manifest(_) => return Err(ImportProblem::NoImage { member: INDEX.into() }),
    };
    if descriptors.is_empty() {
        return Err(ImportProblem::NoImage { member: INDEX.into() });
    }
    let mut found: Vec<Found> = Vec::new();
    for descriptor in chosen(&descriptors, platform)? {
        let mut image = found_by(documents, descriptor, INDEX, platform, 0)?;
        let names = [IMAGE_NAME, REF_NAME].map(|key| descriptor.annotations.get(key));
        for name in names.into_iter().flatten() {
            if name.contains(['/', ':', '@']) {
                let name = reference(name)?;
                let with_digest = name.with_digest(descriptor.digest.clone());
                for name in [name, with_digest] {
                    if !image.references.contains(&name) {
                        image.references.push(name);
                    }
                }
            } else {
                image.tag = Some(name.clone());
            }
        }
        found.push(image);
    }
    Ok(Some(found))
}

/// Which entries of the top index are meant: of those that differ in their platform only, the best.
fn chosen<'a>(
    descriptors: &'a [Descriptor],
    platform: &Platform,
) -> Result<Vec<&'a Descriptor>, ImportProblem> {
    let name = |descriptor: &'a Descriptor| {
        let annotations = &descriptor.annotations;
        annotations.get(IMAGE_NAME).or_else(|| annotations.get(REF_NAME))
    };
    let mut chosen = Vec::new();
    let mut names = Vec::new();
    for descriptor in descriptors {
        if chosen.len() == IMAGES_MAX {
            return Err(ImportProblem::TooManyImages);
        }
        if descriptor.platform.is_none() {
            chosen.push(descriptor);
            continue;
        }
        let name_of_group = name(descriptor);
        if names.contains(&name_of_group) {
            continue;
        }
        names.push(name_of_group);
        let group: Vec<&Descriptor> = descriptors
            .iter()
            .filter(|other| other.platform.is_some() && name(other) == name_of_group)
            .collect();
        chosen.push(best(&group, platform)?);
    }
    Ok(chosen)
}

fn best<'a>(
    descriptors: &[&'a Descriptor],
    platform: &Platform,
) -> Result<&'a Descriptor, ImportProblem> {
    let platforms = descriptors.iter().filter_map(|descriptor| descriptor.platform.as_ref());
    match platform.choose(platforms.clone()) {
        Some(index) => Ok(descriptors[index]),
        None => Err(ImportProblem::Platform {
            wanted: platform.clone(),
            available: platforms.map(ToString::to_string).collect(),
        }),
    }
}

/// The image that a descriptor leads to, through indexes for several platforms.
fn found_by(
    documents: &Documents<'_>,
    descriptor: &Descriptor,
    needed_by: &str,
    platform: &Platform,
    depth: usize,
) -> Result<Found, ImportProblem> {
    let member = blob(&descriptor.digest);
    if depth >= DEPTH_MAX {
        return Err(ImportProblem::TooDeep { member });
    }
    let bytes = documents.read(&member, DOCUMENT_MAX)?.ok_or_else(|| {
        ImportProblem::MemberMissing { member: member.clone(), needed_by: needed_by.into() }
    })?;
    verify(&member, &descriptor.digest, &bytes)?;
    match parse(&member, &bytes)? {
        Document::Manifest(manifest) => {
            image(documents, descriptor.digest.clone(), bytes, &manifest)
        }
        Document::Index(index) => {
            // An entry without a platform fits any machine, if there is nothing better.
            let (with, without): (Vec<_>, Vec<_>) =
                index.manifests.iter().partition(|entry| entry.platform.is_some());
            let entry = match (best(&with, platform), without.first()) {
                (Ok(entry), _) => entry,
                (Err(_), Some(entry)) => entry,
                (Err(error), None) => return Err(error),
            };
            let found = found_by(documents, entry, &member, platform, depth + 1)?;
            Ok(Found { unlabelled: entry.platform.is_none() || found.unlabelled, ..found })
        }
    }
}

fn image(
    documents: &Documents<'_>,
    digest: Digest,
    bytes: Vec<u8>,
    manifest: &Manifest,
) -> Result<Found, ImportProblem> {
    let id = manifest.config.digest.clone();
    let config_member = blob(&id);
    let config = documents.config(&config_member, &blob(&digest))?;
    verify(&config_member, &id, &config)?;
    let layer = |layer: &Descriptor| FoundLayer {
        member: blob(&layer.digest),
        blob: Some(layer.digest.clone()),
    };
    Ok(Found {
        config_member,
        config,
        id,
        layers: manifest.layers.iter().map(layer).collect(),
        manifest: Some((digest, bytes)),
        references: Vec::new(),
        tag: None,
        unlabelled: false,
    })
}

fn parse(member: &str, bytes: &[u8]) -> Result<Document, ImportProblem> {
    Document::parse(bytes)
        .map_err(|source| ImportProblem::Document { member: member.into(), source })
}

fn verify(member: &str, digest: &Digest, bytes: &[u8]) -> Result<(), ImportProblem> {
    if digest.matches(bytes) {
        return Ok(());
    }
    Err(ImportProblem::Damaged { member: member.into(), found: Digest::of(bytes) })
}

fn blob(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}
