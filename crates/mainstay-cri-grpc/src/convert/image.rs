//! Images.

use mainstay_cri::{Image, ImageId};

use crate::wire;

impl From<wire::Image> for Image {
    fn from(image: wire::Image) -> Self {
        Self {
            id: ImageId(image.id),
            repo_tags: image.repo_tags,
            repo_digests: image.repo_digests,
            size: image.size,
            pinned: image.pinned,
            user: image.uid.map_or(image.username, |uid| uid.value.to_string()),
        }
    }
}

/// A group has no place in it. Source: `getUserFromImage` of containerd.
impl From<&Image> for wire::Image {
    fn from(image: &Image) -> Self {
        let user = image.user.split(':').next().unwrap_or_default();
        let uid = user.parse().ok().map(|value| wire::Int64Value { value });
        Self {
            id: image.id.0.clone(),
            repo_tags: image.repo_tags.clone(),
            repo_digests: image.repo_digests.clone(),
            size: image.size,
            username: if uid.is_some() { String::new() } else { user.to_owned() },
            uid,
            spec: None,
            pinned: image.pinned,
        }
    }
}
