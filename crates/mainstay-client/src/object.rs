//! Objects, as far as this has to know them.

use k8s_openapi::Metadata;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Deserialize;

/// What has an object's metadata.
pub trait Object {
    /// The metadata.
    fn meta(&self) -> &ObjectMeta;

    /// The metadata, to be changed.
    fn meta_mut(&mut self) -> &mut ObjectMeta;
}

/// Nothing but the metadata of an object of any kind. Source: `PartialObjectMetadata` in
/// `staging/src/k8s.io/apimachinery/pkg/apis/meta/v1/types.go`.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
pub struct Partial {
    /// The metadata.
    #[serde(default)]
    pub metadata: ObjectMeta,
}

impl<K: Metadata<Ty = ObjectMeta>> Object for K {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.metadata_mut()
    }
}

impl Object for Partial {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
