//! The runtime itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::json;

use super::{Answer, Server, failed};
use crate::wire;

impl Server {
    pub(super) async fn version(
        self: Arc<Self>,
        _: wire::VersionRequest,
    ) -> Answer<wire::VersionResponse> {
        Ok(self.runtime.version().await.map_err(failed)?.into())
    }

    pub(super) async fn status(
        self: Arc<Self>,
        request: wire::StatusRequest,
    ) -> Answer<wire::StatusResponse> {
        let status = self.runtime.status().await.map_err(failed)?;
        let features = wire::RuntimeHandlerFeatures {
            recursive_read_only_mounts: true,
            user_namespaces: true,
        };
        let mut info = BTreeMap::new();
        if request.verbose {
            let config = json!({
                "imageDir": self.image_dir,
                "containerDir": self.container_dir,
                "cgroupDriver": "cgroupfs",
            });
            info.insert("config".to_owned(), config.to_string());
        }
        Ok(wire::StatusResponse {
            status: Some(status.into()),
            info,
            runtime_handlers: vec![wire::RuntimeHandler {
                name: String::new(),
                features: Some(features),
            }],
            features: Some(wire::RuntimeFeatures {
                supplemental_groups_policy: true,
                user_namespaces_host_network: false,
            }),
        })
    }

    /// Control groups are made by paths, whoever made those above them.
    pub(super) async fn runtime_config(
        self: Arc<Self>,
        _: wire::RuntimeConfigRequest,
    ) -> Answer<wire::RuntimeConfigResponse> {
        let cgroup_driver = wire::CgroupDriver::Cgroupfs.into();
        let linux = Some(wire::LinuxRuntimeConfiguration { cgroup_driver });
        Ok(wire::RuntimeConfigResponse { linux })
    }

    /// A kubelet tells which addresses its node's pods are to have. They have them from the agent's network, as
    /// all others do, or from plugins that were told in another way.
    pub(super) async fn update_runtime_config(
        self: Arc<Self>,
        request: wire::UpdateRuntimeConfigRequest,
    ) -> Answer<wire::UpdateRuntimeConfigResponse> {
        let network = request.runtime_config.and_then(|config| config.network_config);
        let pod_cidr = network.map(|network| network.pod_cidr).unwrap_or_default();
        if !pod_cidr.is_empty() {
            tracing::info!(
                pod_cidr,
                "a client says which addresses pods are to have; that is left as it is configured"
            );
        }
        Ok(wire::UpdateRuntimeConfigResponse {})
    }
}
