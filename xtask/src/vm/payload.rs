//! What is brought along: mainstay as it is installed, and images.

use std::fmt::Write;
use std::fs::{self, File};
use std::path::Path;

use anyhow::Context;

use crate::debian::Scratch;
use crate::image::{Image, digest};
use crate::{install, test_tools};

/// Where the images are in the guest.
pub(super) const IMAGES: &str = "/root/images";
/// How many images there are that know what is in them: `wide-0` and so on.
pub(super) const WIDE: usize = 8;

/// Enough files that importing them takes long enough to be cut off.
const FILES: u64 = 400;
const FILE_SIZE: usize = 8 << 10;
/// Says whether all of it is what it was when the image was made.
const COMMAND: &str = "sha256sum -c -s /sums && echo whole || echo damaged; \
    trap exit TERM; sleep infinity & wait";

/// Makes the tree that is unpacked over the guest's root directory.
pub(super) fn make(tree: &Path) -> anyhow::Result<()> {
    let destination = std::path::absolute(tree).context("there is no current directory")?;
    install::into(&destination, "/usr/local")?;
    let images = tree.join(IMAGES.trim_start_matches('/'));
    fs::create_dir_all(&images)?;
    let busybox = test_tools::bring_busybox_image()?;
    fs::copy(&busybox, images.join("busybox.tar")).context("cannot copy the image of busybox")?;
    for number in 0..WIDE {
        let root = Scratch::new(&tree.with_extension("image"))?;
        unpack(&busybox, root.path())?;
        let sums = fill(root.path(), number as u64)?;
        fs::write(root.path().join("sums"), sums)?;
        let name = format!("local/wide-{number}:latest");
        let command = &["sh", "-c", COMMAND];
        let image = Image { name: &name, command, stop_signal: "SIGTERM" };
        image.write(root.path(), &images.join(format!("wide-{number}.tar")))?;
    }
    Ok(())
}

/// Unpacks the one layer of an image that [`Image`] wrote.
fn unpack(archive: &Path, into: &Path) -> anyhow::Result<()> {
    let context = || format!("cannot unpack {}", archive.display());
    let mut outer = tar::Archive::new(File::open(archive).with_context(context)?);
    for entry in outer.entries().with_context(context)? {
        let entry = entry.with_context(context)?;
        if entry.path().with_context(context)?.as_ref() == Path::new("layer.tar") {
            tar::Archive::new(entry).unpack(into).with_context(context)?;
        }
    }
    Ok(())
}

/// Writes files that no other image has, and returns their checksums as sha256sum reads them.
fn fill(root: &Path, image: u64) -> anyhow::Result<String> {
    let mut random = super::checks::Random(image);
    let mut sums = String::new();
    for number in 0..FILES {
        let content: Vec<u8> = std::iter::repeat_with(|| random.next().to_le_bytes())
            .take(FILE_SIZE / 8)
            .flatten()
            .collect();
        let name = format!("data/{}/{number}", number / 20);
        let path = root.join(&name);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(&path, &content).with_context(|| format!("cannot write {}", path.display()))?;
        writeln!(sums, "{}  /{name}", digest(&content))?;
    }
    Ok(sums)
}
