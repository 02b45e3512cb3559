//! What reads bytes that somebody else made, for fuzzing: none of it may panic, take memory beyond
//! its limits or go on for ever, whatever the bytes are.

use std::io::{BufReader, Read};

use crate::archive;
use crate::compression::decompress;
use crate::config::ImageConfig;
use crate::layer;
use crate::manifest::Document;
use crate::reference::Reference;
use crate::registry::{self, Endpoint, Keyring};
use crate::tar::{Reader, Stream};

/// How much of a decompressed layer is looked at, in bytes.
const LAYER_MAX: u64 = 16 << 20;

/// An image reference: both of its forms mean the same again.
pub fn reference(text: &str) {
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse().as_ref(), Ok(&reference));
        assert_eq!(reference.familiar().parse().as_ref(), Ok(&reference));
    }
}

/// An index or manifest.
pub fn document(bytes: &[u8]) {
    let _ = Document::parse(bytes);
}

/// An image configuration.
pub fn image_config(bytes: &[u8]) {
    let _ = ImageConfig::parse(bytes);
}

/// The `manifest.json` of a docker-archive.
pub fn docker_manifest(bytes: &[u8]) {
    let _ = archive::parse_docker_manifest(bytes);
}

/// A layer, compressed or not: every entry with what it would do, and all contents.
pub fn layer(bytes: &[u8]) {
    let Ok(content) = decompress(bytes) else { return };
    let mut archive = Reader::new(Stream(BufReader::new(content.take(LAYER_MAX))));
    let mut buffer = [0; 4096];
    while let Ok(Some(entry)) = archive.next_entry() {
        let _ = layer::step(&entry);
        let mut end = 0;
        for segment in &entry.segments {
            assert!(segment.offset >= end && segment.offset + segment.length <= entry.size);
            end = segment.offset + segment.length;
            let mut left = segment.length;
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
                if archive.read_content(&mut buffer[..part]).is_err() {
                    return;
                }
                left -= part as u64;
            }
        }
    }
}

/// A `config.json` with credentials.
pub fn credentials(bytes: &[u8]) {
    let _ = Keyring::parse(bytes);
}

/// A `WWW-Authenticate` header.
pub fn challenge(text: &str) {
    let _ = registry::parse_challenge(text);
}

/// The address of a mirror.
pub fn endpoint(text: &str) {
    let _ = text.parse::<Endpoint>();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Layer, TestImage, gzip, zstd};

    /// Something that begins as it should, with a few bytes changed.
    fn damaged() -> impl Strategy<Value = Vec<u8>> {
        let layer = Layer::new().dir("a/", 0o755).file("a/b", "content").symlink("c", "a").build();
        let config = TestImage::new("", vec![layer.clone()]).config();
        let manifest = TestImage::new("", vec![layer.clone()]).manifest(gzip).0;
        let whole = vec![gzip(&layer), zstd(&layer), layer, config, manifest];
        let changes = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
        (prop::sample::select(whole), changes).prop_map(|(mut bytes, changes)| {
            for (place, byte) in changes {
                let place = place.index(bytes.len());
                bytes[place] = byte;
            }
            bytes
        })
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in damaged()) {
            layer(&bytes);
            document(&bytes);
            image_config(&bytes);
            docker_manifest(&bytes);
            credentials(&bytes);
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            reference(&text);
            challenge(&text);
            endpoint(&text);
            credentials(text.as_bytes());
        }
    }
}
