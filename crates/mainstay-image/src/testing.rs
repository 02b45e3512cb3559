//! Layers and images made in memory, for tests.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::json;

use crate::digest::Digest;
pub(crate) use crate::registry::chain;

/// A layer in the making: a tar archive whose names and links are written as they are given.
#[derive(Default)]
pub(crate) struct Layer {
    archive: Vec<u8>,
    mtime: u64,
    xattrs: Vec<(String, Vec<u8>)>,
    owner: (u64, u64),
}

impl Layer {
    pub(crate) fn new() -> Self {
        Self { mtime: 1_000_000_000, ..Self::default() }
    }

    pub(crate) fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(b'5', path, "", mode, b"", (0, 0))
    }

    pub(crate) fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.entry(b'0', path, "", 0o644, content.as_ref(), (0, 0))
    }

    pub(crate) fn file_mode(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.entry(b'0', path, "", mode, content.as_ref(), (0, 0))
    }

    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, 0o777, b"", (0, 0))
    }

    pub(crate) fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, target, 0o644, b"", (0, 0))
    }

    pub(crate) fn char_device(self, path: &str, device: (u32, u32)) -> Self {
        self.entry(b'3', path, "", 0o666, b"", device)
    }

    pub(crate) fn fifo(self, path: &str) -> Self {
        self.entry(b'6', path, "", 0o600, b"", (0, 0))
    }

    /// Whose the next entry is.
    pub(crate) fn owned(mut self, uid: u64, gid: u64) -> Self {
        self.owner = (uid, gid);
        self
    }

    /// An extended attribute of the next entry.
    pub(crate) fn xattr(mut self, name: &str, value: &[u8]) -> Self {
        self.xattrs.push((format!("SCHILY.xattr.{name}"), value.to_vec()));
        self
    }

    fn entry(
        mut self,
        kind: u8,
        path: &str,
        link: &str,
        mode: u32,
        content: &[u8],
        device: (u32, u32),
    ) -> Self {
        let mut builder = tar::Builder::new(std::mem::take(&mut self.archive));
        let mut records: Vec<(String, Vec<u8>)> = std::mem::take(&mut self.xattrs);
        for (name, value) in [("path", path), ("linkpath", link)] {
            if value.len() > 100 {
                records.push((name.into(), value.into()));
            }
        }
        let records = records.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        builder.append_pax_extensions(records).unwrap();
        let mut header = tar::Header::new_ustar();
        for (field, value) in [(0, path), (157, link)] {
            let value = &value.as_bytes()[..value.len().min(100)];
            header.as_mut_bytes()[field..field + value.len()].copy_from_slice(value);
        }
        let (uid, gid) = std::mem::take(&mut self.owner);
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(mode);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(self.mtime);
        header.set_size(content.len() as u64);
        header.set_device_major(device.0).unwrap();
        header.set_device_minor(device.1).unwrap();
        header.set_cksum();
        builder.append(&header, content).unwrap();
        // The two blocks at the end are for `build` to write.
        let mut archive = builder.into_inner().unwrap();
        archive.truncate(archive.len() - 1024);
        self.mtime += 1;
        Self { archive, ..self }
    }

    /// The archive.
    pub(crate) fn build(mut self) -> Vec<u8> {
        self.archive.extend([0; 1024]);
        self.archive
    }
}

/// An image in the making.
#[derive(Clone)]
pub(crate) struct TestImage {
    pub(crate) name: Option<String>,
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) platform: (&'static str, &'static str),
    pub(crate) cmd: &'static str,
}

/// How layers, or whole archives, are compressed.
pub(crate) type Compress = fn(&[u8]) -> Vec<u8>;

impl TestImage {
    pub(crate) fn new(name: &str, layers: Vec<Vec<u8>>) -> Self {
        let name = (!name.is_empty()).then(|| name.to_owned());
        Self { name, layers, platform: ("amd64", ""), cmd: "true" }
    }

    pub(crate) fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<Digest> = self.layers.iter().map(|layer| Digest::of(layer)).collect();
        let (architecture, variant) = self.platform;
        let config = json!({
            "architecture": architecture,
            "variant": variant,
            "os": "linux",
            "config": { "Cmd": [self.cmd], "Env": ["A=b"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        config.to_string().into_bytes()
    }

    pub(crate) fn id(&self) -> Digest {
        Digest::of(&self.config())
    }

    /// The manifest, and everything that it names, by digest.
    pub(crate) fn manifest(&self, compress: Compress) -> (Vec<u8>, BTreeMap<Digest, Vec<u8>>) {
        let layers: Vec<Vec<u8>> = self.layers.iter().map(|layer| compress(layer)).collect();
        let descriptor = |kind: &str, bytes: &[u8]| {
            json!({
                "mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": Digest::of(bytes),
                "size": bytes.len(),
            })
        };
        let config = self.config();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("config.v1+json", &config),
            "layers": layers
                .iter()
                .map(|layer| descriptor("layer.v1.tar+gzip", layer))
                .collect::<Vec<_>>(),
        });
        let blobs = layers.into_iter().chain([config]);
        (manifest.to_string().into_bytes(), blobs.map(|blob| (Digest::of(&blob), blob)).collect())
    }
}

/// The members of what `docker save` writes.
pub(crate) fn docker_archive(images: &[TestImage], compress: Compress) -> Vec<(String, Vec<u8>)> {
    let mut members = Vec::new();
    let mut manifest = Vec::new();
    for image in images {
        let mut names = Vec::new();
        for layer in &image.layers {
            let name = format!("{}/layer.tar", Digest::of(layer).hex());
            members.push((name.clone(), compress(layer)));
            names.push(name);
        }
        let config = format!("{}.json", image.id().hex());
        members.push((config.clone(), image.config()));
        let tags: Vec<&String> = image.name.iter().collect();
        manifest.push(json!({ "Config": config, "RepoTags": tags, "Layers": names }));
    }
    members.push(("manifest.json".into(), json!(manifest).to_string().into_bytes()));
    members
}

/// The members of an OCI layout.
pub(crate) fn oci_layout(images: &[TestImage], compress: Compress) -> Vec<(String, Vec<u8>)> {
    let mut blobs = BTreeMap::new();
    let mut descriptors = Vec::new();
    for image in images {
        let (manifest, mut more) = image.manifest(compress);
        blobs.append(&mut more);
        let annotations = match &image.name {
            Some(name) => json!({ "org.opencontainers.image.ref.name": name }),
            None => json!({}),
        };
        descriptors.push(json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": Digest::of(&manifest),
            "size": manifest.len(),
            "annotations": annotations,
        }));
        blobs.insert(Digest::of(&manifest), manifest);
    }
    layout(&descriptors, blobs)
}

pub(crate) fn layout(
    descriptors: &[serde_json::Value],
    blobs: BTreeMap<Digest, Vec<u8>>,
) -> Vec<(String, Vec<u8>)> {
    let index = json!({ "schemaVersion": 2, "manifests": descriptors });
    let mut members = vec![
        ("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ("index.json".into(), index.to_string().into_bytes()),
    ];
    let blobs = blobs.into_iter();
    members.extend(blobs.map(|(digest, blob)| (format!("blobs/sha256/{}", digest.hex()), blob)));
    members
}

/// A tar archive of `members`.
pub(crate) fn tar_of(members: &[(String, Vec<u8>)]) -> Vec<u8> {
    members.iter().fold(Layer::new(), |tar, (name, content)| tar.file(name, content)).build()
}

/// A directory with `members`.
pub(crate) fn dir_of(members: &[(String, Vec<u8>)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in members {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    dir
}

pub(crate) fn plain(bytes: &[u8]) -> Vec<u8> {
    bytes.to_vec()
}

/// Whom nothing is to be told.
pub(crate) fn quiet(_: crate::progress::Event) {}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub(crate) fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

/// Whether the test has to be left out since it needs root; says so if it has.
pub(crate) fn not_root() -> bool {
    let other = !rustix::process::geteuid().is_root();
    if other {
        eprintln!("skipped: only root may set owners and make whiteouts");
    }
    other
}

/// A file system that is mounted nowhere: it goes when this does, however the test ends.
pub(crate) struct Mount(std::os::fd::OwnedFd);

impl Mount {
    pub(crate) fn new(kind: &str, options: &[(&str, &str)]) -> Self {
        use rustix::mount::{
            FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string,
            fsmount, fsopen,
        };
        let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        for (key, value) in options {
            fsconfig_set_string(&fs, *key, *value).unwrap();
        }
        fsconfig_create(&fs).unwrap();
        let flags = FsMountFlags::FSMOUNT_CLOEXEC;
        Self(fsmount(&fs, flags, MountAttrFlags::empty()).unwrap())
    }

    /// A path to its root, as long as this process lives.
    pub(crate) fn path(&self) -> std::path::PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }
}
