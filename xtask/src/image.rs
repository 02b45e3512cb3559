//! Writes a container image of one layer as `docker save` does.
//!
//! Source: moby, `image/spec/spec.md`, and OCI image-spec, `config.md`.

use std::fs::File;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What an image is called and what it runs.
#[derive(Debug)]
pub(crate) struct Image<'a> {
    /// Its name with a tag.
    pub(crate) name: &'a str,
    /// The command.
    pub(crate) command: &'a [&'a str],
    /// The signal that ends it, `SIGTERM` if it is none of its own.
    pub(crate) stop_signal: &'a str,
}

impl Image<'_> {
    /// Writes the image whose root directory is `root` into the file `archive`.
    pub(crate) fn write(&self, root: &Path, archive: &Path) -> anyhow::Result<()> {
        let context = || format!("cannot write the image {} to {}", self.name, archive.display());
        let mut layer = tar::Builder::new(Vec::new());
        layer.follow_symlinks(false);
        layer.append_dir_all("", root).with_context(context)?;
        let layer = layer.into_inner().with_context(context)?;
        let config = serde_json::to_vec(&self.config(&digest(&layer)))?;
        let config_name = format!("{}.json", digest(&config));
        let manifest =
            json!([{ "Config": config_name, "RepoTags": [self.name], "Layers": ["layer.tar"] }]);

        let mut out = tar::Builder::new(File::create(archive).with_context(context)?);
        append(&mut out, "layer.tar", &layer).with_context(context)?;
        append(&mut out, &config_name, &config).with_context(context)?;
        append(&mut out, "manifest.json", &serde_json::to_vec(&manifest)?).with_context(context)?;
        out.into_inner().and_then(|file| file.sync_all()).with_context(context)
    }

    fn config(&self, layer: &str) -> Value {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Cmd": self.command,
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                "StopSignal": self.stop_signal,
            },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{layer}")] },
        })
    }
}

fn append(out: &mut tar::Builder<File>, name: &str, content: &[u8]) -> std::io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    out.append_data(&mut header, name, content)
}

/// The SHA-256 of something, in hexadecimal digits.
pub(crate) fn digest(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::debian::Scratch;

    #[test]
    fn what_is_written_fits_together() {
        let dir = std::env::temp_dir().join(format!("xtask-image-{}", std::process::id()));
        let dir = Scratch::new(&dir).unwrap();
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("bin")).unwrap();
        std::os::unix::fs::symlink("busybox", root.join("bin/sh")).unwrap();
        let archive = dir.path().join("image.tar");
        let image = Image { name: "local/a:1", command: &["sh"], stop_signal: "SIGTERM" };
        image.write(&root, &archive).unwrap();

        let mut members = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(File::open(&archive).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            members.insert(entry.path().unwrap().display().to_string(), content);
        }
        let json = |name: &str| serde_json::from_slice::<Value>(&members[name]).unwrap();
        let manifest = json("manifest.json");
        assert_eq!(manifest[0]["RepoTags"][0], "local/a:1");
        let config = json(manifest[0]["Config"].as_str().unwrap());
        let layer = &members["layer.tar"];
        assert_eq!(config["rootfs"]["diff_ids"][0], format!("sha256:{}", digest(layer)));
        let mut layer = tar::Archive::new(layer.as_slice());
        let links = layer.entries().unwrap().map(Result::unwrap).filter_map(|entry| {
            entry
                .link_name()
                .unwrap()
                .map(|target| (entry.path_bytes().into_owned(), target.into_owned()))
        });
        assert_eq!(links.collect::<Vec<_>>(), [(b"bin/sh".to_vec(), "busybox".into())]);
    }
}
