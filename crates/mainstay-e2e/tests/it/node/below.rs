//! The runtime below a node, where that is to be Debian's containerd.
//!
//! Tests do not know of it: with `MAINSTAY_TEST_SHAPE=containerd` they are run so.

use std::fs;
use std::os::unix::fs::symlink;

use mainstay_testkit::containerd::Containerd;
use tempfile::TempDir;

use super::{Node, SHAPE};

/// How a runtime is named.
const ENDPOINT: &str = "--container-runtime-endpoint=";

/// A containerd, in the order in which it goes.
pub(super) struct Below {
    pub(super) containerd: Containerd,
    _directory: TempDir,
}

/// Whether tests are run so.
pub(super) fn is_shape() -> bool {
    std::env::var_os(SHAPE).is_some_and(|shape| shape == "containerd")
}

/// Whether a node is to have one.
pub(super) fn is_wanted(node: &Node) -> bool {
    // Those with a machine of their own are the test's own matter.
    let names_one = node.arguments.iter().any(|it| it.starts_with(ENDPOINT));
    is_shape() && node.machine.is_none() && !names_one
}

impl Below {
    /// One for this node, whose pods run there from its next start on. It has the images that were provided.
    pub(super) fn new(node: &mut Node) -> Self {
        let directory = tempfile::Builder::new().prefix("mc-").tempdir().unwrap();
        let group = format!("/{}", node.names().table);
        // What a test puts there.
        symlink(node.path("certs.d"), directory.path().join("certs.d")).unwrap();
        let user = Some(node.directory.path());
        let containerd = Containerd::start(directory.path(), &group, user);
        for image in fs::read_dir(node.path("root/images")).unwrap() {
            let image = image.unwrap().path();
            containerd.import(&image);
            // It would be said of every file that it is not.
            fs::remove_file(image).unwrap();
        }
        node.arguments.push(format!("{ENDPOINT}unix://{}", containerd.socket().display()));
        Self { containerd, _directory: directory }
    }
}
