//! Which kinds the API has.
//!
//! Source: `GetDeletableResources` in `pkg/controller/garbagecollector/garbagecollector.go`.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{
    APIGroupList, APIResource, APIResourceList, APIVersions,
};
use mainstay_client::{CallError, CallErrorKind, Calls};

use crate::informers::{object_path, version_path};

/// A kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// Such as `v1` and `apps/v1`.
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) plural: String,
    pub(super) namespaced: bool,
    /// Whether its objects are followed.
    pub(super) followed: bool,
}

/// All kinds.
#[derive(Clone, Debug, Default)]
pub(super) struct Kinds(pub(super) Vec<Arc<Resource>>);

impl Resource {
    pub(super) fn path(&self, namespace: &str, name: &str) -> String {
        object_path(&self.api_version, &self.plural, namespace, name)
    }
}

impl Kinds {
    pub(super) async fn discover(calls: &Calls) -> Result<Self, CallError> {
        let mut kinds = Self::default();
        let core: APIVersions = calls.get("/api").await?;
        for version in core.versions {
            kinds.learn(calls, &version, true).await?;
        }
        let groups: APIGroupList = calls.get("/apis").await?;
        for group in groups.groups {
            let preferred = group.preferred_version.map(|it| it.group_version);
            for version in group.versions {
                let is_preferred = preferred.as_ref() == Some(&version.group_version);
                kinds.learn(calls, &version.group_version, is_preferred).await?;
            }
        }
        Ok(kinds)
    }

    /// The kind that a reference names.
    pub(super) fn find(&self, api_version: &str, kind: &str) -> Option<&Arc<Resource>> {
        self.0.iter().find(|it| it.api_version == api_version && it.kind == kind)
    }

    /// Learns a group in one version.
    async fn learn(
        &mut self,
        calls: &Calls,
        version: &str,
        preferred: bool,
    ) -> Result<(), CallError> {
        let list: APIResourceList = match calls.get(&version_path(version)).await {
            Ok(list) => list,
            // One that is announced and not there, as those of other servers may be.
            Err(error) if error.kind == CallErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        self.0.extend(list.resources.into_iter().filter_map(|it| resource(version, preferred, it)));
        Ok(())
    }
}

fn resource(version: &str, preferred: bool, resource: APIResource) -> Option<Arc<Resource>> {
    let can = |verb: &str| resource.verbs.iter().any(|it| it == verb);
    if resource.name.contains('/') || !can("get") {
        return None;
    }
    // Events own nothing, are owned by nobody, and are many.
    let followed =
        preferred && resource.name != "events" && ["delete", "list", "watch"].into_iter().all(can);
    Some(Arc::new(Resource {
        api_version: version.to_owned(),
        kind: resource.kind,
        plural: resource.name,
        namespaced: resource.namespaced,
        followed,
    }))
}
