//! Images made of those that the tools have.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use mainstay_testkit::registry::{Blob, Registry};
use mainstay_testkit::tools;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// An image.
#[derive(Clone)]
pub(crate) struct Image {
    config: Value,
    /// Uncompressed.
    layers: Vec<Vec<u8>>,
}

impl Image {
    /// busybox.
    pub(crate) fn busybox() -> Self {
        Self::of("busybox")
    }

    /// One of those that [`tools::image`] names.
    pub(crate) fn of(name: &str) -> Self {
        let archive = File::open(tools::image(name)).unwrap();
        let (mut layers, mut config) = (Vec::new(), Value::Null);
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let name = entry.path().unwrap().to_string_lossy().into_owned();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            if name.ends_with(".tar") {
                layers.push(content);
            } else if name != "manifest.json" {
                config = serde_json::from_slice(&content).unwrap();
            }
        }
        Self { config, layers }
    }

    /// With something else in `config` of its configuration: `User`, `StopSignal` and so on.
    pub(crate) fn set(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.config["config"][field] = value.into();
        self
    }

    /// With one more file, in a layer of its own.
    pub(crate) fn with_file(mut self, path: &str, content: &str) -> Self {
        let mut layer = tar::Builder::new(Vec::new());
        append(&mut layer, path, content.as_bytes());
        let layer = layer.into_inner().unwrap();
        let diff_ids = self.config["rootfs"]["diff_ids"].as_array_mut().unwrap();
        diff_ids.push(digest(&layer).into());
        self.layers.push(layer);
        self
    }

    /// Writes it as `docker save` does.
    pub(crate) fn docker_archive(&self, name: &str, path: &Path) {
        let mut out = tar::Builder::new(File::create(path).unwrap());
        let layers = (0..self.layers.len()).map(|n| format!("{n}/layer.tar"));
        let layers: Vec<String> = layers.collect();
        for (name, layer) in layers.iter().zip(&self.layers) {
            append(&mut out, name, layer);
        }
        append(&mut out, "config.json", self.config.to_string().as_bytes());
        let manifest = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": layers }]);
        append(&mut out, "manifest.json", manifest.to_string().as_bytes());
        out.finish().unwrap();
    }

    /// Writes it as an OCI image layout.
    pub(crate) fn oci_layout(&self, name: &str, directory: &Path) {
        let (manifest, blobs) = self.blobs();
        let place = directory.join("blobs/sha256");
        fs::create_dir_all(&place).unwrap();
        for blob in blobs.iter().chain([&manifest]) {
            let hex = blob.digest.strip_prefix("sha256:").unwrap();
            fs::write(place.join(hex), &blob.content).unwrap();
        }
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        let mut entry = descriptor(MANIFEST, &manifest);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": name });
        let index = json!({ "schemaVersion": 2, "manifests": [entry] });
        fs::write(directory.join("index.json"), index.to_string()).unwrap();
    }

    /// Writes it as a compressed archive of an OCI image layout.
    pub(crate) fn oci_archive(&self, name: &str, path: &Path) {
        let layout = tempfile::tempdir().unwrap();
        self.oci_layout(name, layout.path());
        let mut out = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        out.append_dir_all("", layout.path()).unwrap();
        let bytes = out.into_inner().unwrap().finish().unwrap();
        File::create(path).unwrap().write_all(&bytes).unwrap();
    }

    /// Puts it into a registry.
    pub(crate) fn push(&self, registry: &Registry, repository: &str, tag: &str) {
        let (manifest, blobs) = self.blobs();
        registry.put(repository, tag, &manifest, &blobs);
    }

    /// Its manifest, and what that names.
    fn blobs(&self) -> (Blob, Vec<Blob>) {
        let config = blob(self.config.to_string().into_bytes());
        let layers: Vec<Blob> = self.layers.iter().cloned().map(blob).collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor(CONFIG, &config),
            "layers": layers.iter().map(|layer| descriptor(LAYER, layer)).collect::<Vec<_>>(),
        });
        let blobs = layers.into_iter().chain([config]).collect();
        (blob(manifest.to_string().into_bytes()), blobs)
    }
}

fn append(out: &mut tar::Builder<impl Write>, name: &str, content: &[u8]) {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    out.append_data(&mut header, name, content).unwrap();
}

fn descriptor(media_type: &str, blob: &Blob) -> Value {
    json!({ "mediaType": media_type, "digest": blob.digest, "size": blob.content.len() })
}

fn blob(content: Vec<u8>) -> Blob {
    Blob { digest: digest(&content), content }
}

fn digest(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}
