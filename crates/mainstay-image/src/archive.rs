//! Importing images from files: OCI layout directories and archives, and what `docker save` writes,
//! each plain or compressed with gzip or zstd.
//!
//! # Flow
//!
//! The members are found, the documents read and checked, and the layers unpacked that are not here
//! yet. Only when everything of every image in the file is durable, all of them are shown, together:
//! an import that fails or is interrupted before shows nothing, and what it unpacked is not unpacked
//! again by the next one.

mod docker;
mod oci;
mod source;

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};

use crate::compression::CompressionError;
use crate::config::{CONFIG_MAX, ConfigError, ImageConfig};
use crate::digest::Digest;
use crate::durable::{FileError, read_limited};
use crate::layer::EntryProblem;
use crate::manifest::DocumentError;
use crate::platform::Platform;
use crate::progress::{Event, LayerInfo, Phase, Progress};
use crate::reference::{Reference, ReferenceError};
use crate::space::{SpaceError, is_disk_full};
use crate::store::{Image, NewImage, Store, StoreError};
use crate::tar::TarError;
use crate::unpack::{Expected, UnpackError};
pub(crate) use docker::parse as parse_docker_manifest;
use source::Source;

/// The most images that one file may have.
const IMAGES_MAX: usize = 1000;
/// The most bytes of indexes, manifests and configurations that are read of one file, however often
/// each is named. Those of a thousand ordinary images have less than half of it.
const DOCUMENTS_MAX: u64 = 64 << 20;

/// How a file is imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImportOptions {
    /// What is chosen where there are images for several platforms.
    pub platform: Platform,
    /// What an image is called that has no name in the file, if the file has only that one. A tag
    /// that the file gives it takes the place of this one's.
    pub name: Option<Reference>,
}

/// A file that could not be imported.
#[derive(Debug, thiserror::Error)]
#[error("cannot import {}", file.display())]
pub struct ImportError {
    /// The file or directory.
    pub file: PathBuf,
    /// Why.
    #[source]
    pub problem: Box<ImportProblem>,
}

/// Why a file could not be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportProblem {
    /// It is not there or may not be read.
    #[error("it cannot be read")]
    Open(#[source] io::Error),
    /// A device or the like.
    #[error("it is neither a file nor a directory")]
    NotAFile,
    /// Compressed in an unknown way.
    #[error("it cannot be decompressed")]
    Compression(#[from] CompressionError),
    /// Damaged compressed data.
    #[error("decompressing it failed: it is damaged or cut off")]
    Decompress(#[source] io::Error),
    /// No space for what was decompressed.
    #[error("decompressing it into the image store failed")]
    Spool(#[source] io::Error),
    /// Too little space for what is being decompressed.
    #[error("decompressing it into the image store was stopped")]
    Space(#[from] SpaceError),
    /// Not a tar archive.
    #[error("it is not a readable tar archive")]
    Tar(#[from] TarError),
    /// A member that could be anywhere.
    #[error("its member {member:?} has a name that is refused")]
    MemberName {
        /// The member.
        member: String,
        /// Why.
        #[source]
        problem: EntryProblem,
    },
    /// Far too many members.
    #[error("it has more members than an image archive can need")]
    TooManyMembers,
    /// A member that is a link in a circle.
    #[error("its member {member:?} is a link that leads nowhere")]
    MemberLinks {
        /// The member.
        member: String,
    },
    /// A member of a directory that is a symbolic link to something outside.
    #[error("its member {member:?} leads out of it through a symbolic link")]
    MemberEscapes {
        /// The member.
        member: String,
    },
    /// A sparse file, a directory, ...
    #[error("its member {member:?} is not an ordinary file")]
    MemberNotAFile {
        /// The member.
        member: String,
    },
    /// A member that another one names is not there.
    #[error("its member {member:?} is missing, which {needed_by:?} names")]
    MemberMissing {
        /// The member.
        member: String,
        /// The member that names it.
        needed_by: String,
    },
    /// Reading a member failed, or it is too long.
    #[error("reading its member {member:?} failed")]
    Read {
        /// The member.
        member: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Some other archive.
    #[error(
        "it has neither index.json nor manifest.json: it is no OCI layout, OCI archive or docker-archive"
    )]
    NotAnImage,
    /// An archive without an image.
    #[error("its {member:?} names no image")]
    NoImage {
        /// The member that should.
        member: String,
    },
    /// Far too many images.
    #[error("it has more than {IMAGES_MAX} images")]
    TooManyImages,
    /// Far too much to read before the first layer.
    #[error("its manifests and configurations have more than {DOCUMENTS_MAX} bytes altogether")]
    DocumentsTooLong,
    /// A member whose content is not what its name or digest promises.
    #[error("its member {member:?} is damaged: its digest is {found}")]
    Damaged {
        /// The member.
        member: String,
        /// The digest of what is there.
        found: Digest,
    },
    /// An index or manifest that is none.
    #[error("its member {member:?} cannot be used")]
    Document {
        /// The member.
        member: String,
        /// Why.
        #[source]
        source: DocumentError,
    },
    /// A `manifest.json` that is none.
    #[error("its member {member:?} is not the manifest of a docker-archive")]
    DockerManifest {
        /// The member.
        member: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Indexes within indexes.
    #[error("its member {member:?} is an index within too many others")]
    TooDeep {
        /// The member.
        member: String,
    },
    /// A configuration that is none.
    #[error("its member {member:?} cannot be used")]
    Config {
        /// The member.
        member: String,
        /// Why.
        #[source]
        source: ConfigError,
    },
    /// Manifest and configuration disagree.
    #[error(
        "its image with the configuration {member:?} has {layers} layers, but says that it has {diff_ids}"
    )]
    LayerCount {
        /// The configuration.
        member: String,
        /// How many the manifest has.
        layers: usize,
        /// How many the configuration has.
        diff_ids: usize,
    },
    /// A layer that cannot be unpacked.
    #[error("its layer {member:?} cannot be unpacked")]
    Layer {
        /// The member.
        member: String,
        /// Why.
        #[source]
        source: UnpackError,
    },
    /// Images, but none that runs here.
    #[error("it has no image for {wanted}: only for {}", available.join(", "))]
    Platform {
        /// What was asked for.
        wanted: Platform,
        /// What there is.
        available: Vec<String>,
    },
    /// A name that is none.
    #[error("it names an image {name:?}, which is no image reference")]
    Name {
        /// The name.
        name: String,
        /// Why.
        #[source]
        source: ReferenceError,
    },
    /// The store could not take it.
    #[error("the image store could not take it")]
    Store(#[from] StoreError),
}

/// An image in a file.
struct Found {
    /// The member with the configuration.
    config_member: String,
    config: Vec<u8>,
    /// The configuration's digest.
    id: Digest,
    /// The manifest and its digest, where the format has one.
    manifest: Option<(Digest, Vec<u8>)>,
    /// Lowest first.
    layers: Vec<FoundLayer>,
    references: Vec<Reference>,
    /// A tag without a name, as it stands in the file.
    tag: Option<String>,
    /// Whether it stands in an index that does not say what it runs on, so that its configuration
    /// has to.
    unlabelled: bool,
}

/// A layer in a file.
struct FoundLayer {
    member: String,
    /// Its digest as it stands in the file, where the format has one.
    blob: Option<Digest>,
}

/// The documents of a file. All of them are held until its images are known.
struct Documents<'a> {
    source: &'a Source,
    /// How many bytes may still be read.
    left: Cell<u64>,
}

// === impl ImportError ===

impl ImportError {
    /// Whether a full disk is the reason, so that freeing space helps.
    pub fn is_disk_full(&self) -> bool {
        match &*self.problem {
            ImportProblem::Space(SpaceError::Full { .. }) => true,
            ImportProblem::Layer { source, .. } => source.is_disk_full(),
            ImportProblem::Store(StoreError::File(error)) => error.is_disk_full(),
            ImportProblem::Spool(error) => is_disk_full(error),
            _ => false,
        }
    }
}

impl From<FileError> for ImportProblem {
    fn from(error: FileError) -> Self {
        Self::Store(error.into())
    }
}

// === impl Store ===

impl Store {
    /// Imports every image of the file or directory at `path`. Images that are here already get
    /// the names that the file gives them.
    pub fn import(
        &self,
        path: &Path,
        options: &ImportOptions,
        progress: Progress<'_>,
    ) -> Result<Vec<Image>, ImportError> {
        self.import_file(path, options, progress)
            .map_err(|problem| ImportError { file: path.into(), problem: Box::new(problem) })
    }

    fn import_file(
        &self,
        path: &Path,
        options: &ImportOptions,
        progress: Progress<'_>,
    ) -> Result<Vec<Image>, ImportProblem> {
        let source = Source::open(path, self)?;
        let documents = Documents { source: &source, left: Cell::new(DOCUMENTS_MAX) };
        let found = match oci::images(&documents, &options.platform)? {
            Some(found) => found,
            None => docker::images(&documents)?.ok_or_else(|| source.no_image())?,
        };
        let mut found = merged(found);
        if let ([found], Some(name)) = (&mut found[..], &options.name)
            && found.references.is_empty()
        {
            found.references.push(with_tag(name, found.tag.as_deref())?);
        }
        let mut images = Vec::new();
        let mut jobs = Vec::new();
        for found in found {
            let config = parse_config(&found)?;
            let (wanted, platform) = (&options.platform, &config.platform);
            if found.unlabelled && !wanted.runs(platform) {
                let available = vec![platform.to_string()];
                return Err(ImportProblem::Platform { wanted: wanted.clone(), available });
            }
            if let Some(note) = wanted.note(&found.name(), platform) {
                progress(Event::Note(note));
            }
            let mut blobs = vec![found.id.clone()];
            blobs.extend(found.manifest.as_ref().map(|(digest, _)| digest.clone()));
            jobs.push(self.start_job(config.diff_ids.clone(), blobs)?);
            self.put_blob(&found.id, &found.config)?;
            if let Some((digest, content)) = &found.manifest {
                self.put_blob(digest, content)?;
            }
            self.import_layers(&source, &found, &config, progress)?;
            images.push(NewImage {
                id: found.id,
                manifest: found.manifest.map(|(digest, _)| digest),
                diff_ids: config.diff_ids,
                references: found.references,
            });
        }
        Ok(self.publish(&images, &|| true)?)
    }

    fn import_layers(
        &self,
        source: &Source,
        found: &Found,
        config: &ImageConfig,
        progress: Progress<'_>,
    ) -> Result<(), ImportProblem> {
        let mut contents = Vec::new();
        for FoundLayer { member, .. } in &found.layers {
            contents.push(source.get(member)?.ok_or_else(|| ImportProblem::MemberMissing {
                member: member.clone(),
                needed_by: found.config_member.clone(),
            })?);
        }
        let layers = contents.iter().zip(&config.diff_ids);
        progress(Event::Image {
            name: found.name(),
            layers: layers
                .map(|(content, digest)| LayerInfo { digest: digest.clone(), size: content.size })
                .collect(),
        });
        let layers = found.layers.iter().zip(&config.diff_ids).zip(contents);
        for (index, ((layer, diff_id), content)) in layers.enumerate() {
            let layer_progress = |phase| progress(Event::Layer { index, phase });
            if self.layer_size(diff_id)?.is_some() {
                layer_progress(Phase::Present);
                continue;
            }
            let job = match self.try_layer_job(diff_id)? {
                Some(job) => job,
                None => {
                    layer_progress(Phase::Waiting);
                    self.layer_job(diff_id)?
                }
            };
            // Somebody else may have made it since.
            if self.layer_size(diff_id)?.is_none() {
                let expected = Expected { blob: layer.blob.as_ref(), diff_id };
                let go_on = |read| {
                    layer_progress(Phase::Unpacking(read));
                    true
                };
                let unpacked = job.unpack(content.reader, expected, &go_on)?;
                let unpacked = unpacked.map_err(|source| ImportProblem::Layer {
                    member: layer.member.clone(),
                    source,
                })?;
                if let Some(note) = unpacked.note(&layer.member) {
                    progress(Event::Note(note));
                }
                job.publish(&unpacked)?;
            }
            layer_progress(Phase::Done);
        }
        Ok(())
    }
}

/// One image under several names has several entries.
fn merged(found: Vec<Found>) -> Vec<Found> {
    let mut images: Vec<Found> = Vec::new();
    for mut image in found {
        match images.iter_mut().find(|other| other.id == image.id) {
            Some(other) => other.references.append(&mut image.references),
            None => images.push(image),
        }
    }
    images
}

fn parse_config(found: &Found) -> Result<ImageConfig, ImportProblem> {
    let member = || found.config_member.clone();
    let config = ImageConfig::parse(&found.config)
        .map_err(|source| ImportProblem::Config { member: member(), source })?;
    if found.layers.len() != config.diff_ids.len() {
        return Err(ImportProblem::LayerCount {
            member: member(),
            layers: found.layers.len(),
            diff_ids: config.diff_ids.len(),
        });
    }
    Ok(config)
}

fn with_tag(name: &Reference, tag: Option<&str>) -> Result<Reference, ImportProblem> {
    match tag {
        Some(tag) => reference(&format!("{}:{tag}", name.name())),
        None => Ok(name.clone()),
    }
}

fn reference(name: &str) -> Result<Reference, ImportProblem> {
    let parsed: Result<Reference, ReferenceError> = name.parse();
    let parsed = parsed.map_err(|source| ImportProblem::Name { name: name.into(), source })?;
    Ok(parsed.without_redundant_tag())
}

// === impl Found ===

impl Found {
    /// What to call it in front of people.
    fn name(&self) -> String {
        self.references.first().map_or_else(|| self.id.to_string(), ToString::to_string)
    }
}

// === impl Documents ===

impl Documents<'_> {
    /// The whole content of `member`, or `None` if there is no such member.
    fn read(&self, member: &str, limit: u64) -> Result<Option<Vec<u8>>, ImportProblem> {
        let Some(content) = self.source.get(member)? else { return Ok(None) };
        let content = read_limited(content.reader, limit);
        let content =
            content.map_err(|source| ImportProblem::Read { member: member.into(), source })?;
        let left = self.left.get().checked_sub(content.len() as u64);
        self.left.set(left.ok_or(ImportProblem::DocumentsTooLong)?);
        Ok(Some(content))
    }

    fn config(&self, member: &str, needed_by: &str) -> Result<Vec<u8>, ImportProblem> {
        self.read(member, CONFIG_MAX)?.ok_or_else(|| ImportProblem::MemberMissing {
            member: member.into(),
            needed_by: needed_by.into(),
        })
    }
}

#[cfg(test)]
mod tests;
