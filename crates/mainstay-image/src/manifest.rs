//! Image indexes and manifests, in OCI's and in Docker's spelling.
//!
//! Sources: OCI image-spec v1.1 (`image-index.md`, `manifest.md`, `descriptor.md`) and Docker's
//! "Image Manifest Version 2, Schema 2". The two differ in media types only.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::digest::Digest;
use crate::platform::Platform;

/// The largest index or manifest that is read, in bytes. Source: OCI distribution-spec v1.1,
/// "Pushing Manifests": registries should accept at least 4 MiB, so larger ones travel nowhere.
pub const DOCUMENT_MAX: u64 = 4 << 20;

/// The media types that a registry is asked for, best first.
pub(crate) const ACCEPTED: [&str; 4] = [OCI_INDEX, DOCKER_LIST, OCI_MANIFEST, DOCKER_MANIFEST];

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const IMAGE_CONFIGS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];

/// A pointer to some content.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the content is.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Free-form remarks, such as the image's name in an archive.
    #[serde(default, deserialize_with = "null_as_default")]
    pub annotations: BTreeMap<String, String>,
    /// What it runs on, for an image in an index.
    #[serde(default)]
    pub platform: Option<Platform>,
}

/// Several images under one name, usually one for each platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The images, or further indexes.
    pub manifests: Vec<Descriptor>,
}

/// One image: its configuration and its layers, lowest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The configuration.
    pub config: Descriptor,
    /// The layers as they travel, lowest first.
    pub layers: Vec<Descriptor>,
}

/// Either kind of document that a name can lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Several images.
    Index(Index),
    /// One image.
    Manifest(Manifest),
}

/// Why some bytes are neither an index nor a manifest of a container image.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It is not JSON, or a field has the wrong type.
    #[error("not an image index or manifest")]
    Json(#[from] serde_json::Error),
    /// A list, a text, ...
    #[error("not an image index or manifest, but some other JSON")]
    NotAnObject,
    /// Docker's format of before 2016.
    #[error(
        "manifest has schema version 1, which is not supported: push the image again with a newer tool"
    )]
    SchemaOne,
    /// It has both `manifests` and `layers`, so that two readers could see two images.
    #[error("document is an index and a manifest at once")]
    Ambiguous,
    /// It has neither.
    #[error("document has neither manifests nor config and layers")]
    Neither,
    /// It is something else that registries keep, such as a Helm chart or a signature.
    #[error("not a container image, but an artifact of type {0:?}")]
    Artifact(String),
}

/// Everything that either kind of document may hold.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default)]
    schema_version: u32,
    #[serde(default)]
    artifact_type: Option<String>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    fs_layers: Option<serde::de::IgnoredAny>,
}

// === impl Document ===

impl Document {
    /// Reads an index or a manifest. What it is follows from its content alone: neither the media
    /// type that a registry sends nor the one in the document can make it two things at once.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        // A list would be taken for the fields in their order.
        if bytes.trim_ascii_start().starts_with(b"[") {
            return Err(DocumentError::NotAnObject);
        }
        let raw: Raw = serde_json::from_slice(bytes)?;
        if raw.fs_layers.is_some() || raw.schema_version == 1 {
            return Err(DocumentError::SchemaOne);
        }
        match (raw.manifests, raw.config, raw.layers) {
            (Some(manifests), None, None) => Ok(Self::Index(Index { manifests })),
            (None, Some(config), layers) => {
                if !config.media_type.is_empty()
                    && !IMAGE_CONFIGS.contains(&config.media_type.as_str())
                {
                    let artifact = raw.artifact_type.filter(|kind| !kind.is_empty());
                    return Err(DocumentError::Artifact(artifact.unwrap_or(config.media_type)));
                }
                Ok(Self::Manifest(Manifest { config, layers: layers.unwrap_or_default() }))
            }
            (Some(_), ..) => Err(DocumentError::Ambiguous),
            (None, None, _) => Err(DocumentError::Neither),
        }
    }
}

/// Go writes an empty map or list as `null`.
pub(crate) fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use expect_test::{Expect, expect};

    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(json: &str, expected: &Expect) {
        expected.assert_eq(&match Document::parse(json.replace("$D", D).as_bytes()) {
            Ok(Document::Index(index)) => {
                let platform = |d: &Descriptor| d.platform.as_ref().map(ToString::to_string);
                let platforms = index.manifests.iter().map(|d| platform(d).unwrap_or_default());
                format!("index of {}", platforms.collect::<Vec<_>>().join(", "))
            }
            Ok(Document::Manifest(manifest)) => {
                let sizes: Vec<u64> = manifest.layers.iter().map(|layer| layer.size).collect();
                format!("manifest, config {}, layers {sizes:?}", manifest.config.size)
            }
            Err(error) => {
                let source = error.source().map(|source| format!(": {source}")).unwrap_or_default();
                format!("{error}{source}")
            }
        });
    }

    #[test]
    fn indexes_and_manifests_are_told_apart_by_what_they_hold() {
        check(
            r#"{"schemaVersion":2,"manifests":[
                {"digest":"$D","size":1,"platform":{"os":"linux","architecture":"arm","variant":"v7"}},
                {"digest":"$D","size":1,"annotations":null}]}"#,
            &expect!["index of linux/arm/v7, "],
        );
        check(
            r#"{"schemaVersion":2,"config":{"digest":"$D","size":7},"layers":[{"digest":"$D","size":9}]}"#,
            &expect!["manifest, config 7, layers [9]"],
        );
        check(
            r#"{"config":{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"$D","size":7},"layers":null}"#,
            &expect!["manifest, config 7, layers []"],
        );
    }

    #[test]
    fn what_is_no_image_is_refused_by_its_kind() {
        check(
            "",
            &expect![
                "not an image index or manifest: EOF while parsing a value at line 1 column 0"
            ],
        );
        check("[]", &expect!["not an image index or manifest, but some other JSON"]);
        check("{}", &expect!["document has neither manifests nor config and layers"]);
        check(
            r#"{"schemaVersion":1,"fsLayers":[{"blobSum":"$D"}]}"#,
            &expect![
                "manifest has schema version 1, which is not supported: push the image again with a newer tool"
            ],
        );
        check(
            r#"{"manifests":[],"config":{"digest":"$D","size":7},"layers":[]}"#,
            &expect!["document is an index and a manifest at once"],
        );
        check(
            r#"{"config":{"mediaType":"application/vnd.cncf.helm.config.v1+json","digest":"$D","size":7},"layers":[]}"#,
            &expect![[
                r#"not a container image, but an artifact of type "application/vnd.cncf.helm.config.v1+json""#
            ]],
        );
        check(
            r#"{"config":{"digest":"sha256:../../etc","size":7},"layers":[]}"#,
            &expect![[
                r#"not an image index or manifest: digest "sha256:../../etc" should have 64 lower-case hexadecimal digits after sha256: at line 1 column 38"#
            ]],
        );
        check(
            r#"{"config":{"digest":"$D","size":-1},"layers":[]}"#,
            &expect![
                "not an image index or manifest: invalid value: integer `-1`, expected u64 at line 1 column 103"
            ],
        );
    }
}
