//! What is there before anybody has made anything.
//!
//! Source: `pkg/controlplane/instance.go`, `pkg/registry/rbac/rest/storage_rbac.go`,
//! `pkg/controlplane/controller/systemnamespaces`.

use jiff::Timestamp;
use serde_json::json;

use crate::authz::bootstrap::{self, Reconciled};
use crate::authz::rbac;
use crate::kinds;
use crate::kinds::service::allocate::ServiceRange;
use crate::managed::Manager;
use crate::object::Object;
use crate::pipeline::{Change, Writer};
use crate::request::DeleteOptions;
use crate::server::Inner;
use crate::status::Result;

/// Source: `systemNamespaces`.
const NAMESPACES: [&str; 4] = ["kube-system", "kube-public", "kube-node-lease", "default"];

impl Inner {
    /// Puts what belongs to every cluster into the store, where it is missing.
    pub(crate) async fn bootstrap(&self) -> Result<()> {
        let user = self.system_user();
        let writer = Writer {
            user: &user,
            manager: Manager { name: "mainstay", applied: false },
            dry_run: false,
            now: Timestamp::now(),
        };
        for name in NAMESPACES {
            let object = Object::from_json(json!({ "metadata": { "name": name } }));
            self.ensure(kinds::namespaces(), "", object, &writer).await?;
        }
        self.ensure(kinds::services(), "default", api_service(), &writer).await?;
        for (name, value, description) in kinds::SYSTEM_CLASSES {
            let object = Object::from_json(json!({
                "metadata": { "name": name },
                "value": value,
                "description": description,
            }));
            self.ensure(kinds::priority_classes(), "", object, &writer).await?;
        }
        for (plural, object) in bootstrap::objects() {
            let Some(resource) = kinds::find(rbac::GROUP, "v1", plural) else { continue };
            let name = object.name().to_owned();
            let change =
                Change { resource, namespace: "", name: &name, subresource: "", may_create: false };
            match self.storage.find(resource, "", &name).await? {
                None => self.ensure(resource, "", object, &writer).await?,
                Some(stored) => match bootstrap::reconcile(&stored.object, &object) {
                    Reconciled::Keep => {}
                    Reconciled::Update(new) => {
                        self.update(&change, &writer, |_| Ok(new.clone())).await?;
                    }
                    Reconciled::Replace => {
                        self.delete(&user, resource, "", &name, &DeleteOptions::default()).await?;
                        self.ensure(resource, "", object, &writer).await?;
                    }
                },
            }
        }
        Ok(())
    }

    async fn ensure(
        &self,
        resource: &'static crate::kind::Resource,
        namespace: &str,
        object: Object,
        writer: &Writer<'_>,
    ) -> Result<()> {
        if self.storage.entry(resource, namespace, object.name()).await?.is_some() {
            return Ok(());
        }
        match self.create(resource, namespace, object, writer).await {
            Err(error) if error.reason != "AlreadyExists" => Err(error),
            _ => Ok(()),
        }
    }
}

/// The Service of the API itself, which clients take for granted. Source:
/// `pkg/controlplane/controller/kubernetesservice`.
fn api_service() -> Object {
    Object::from_json(json!({
        "metadata": {
            "name": "kubernetes",
            "namespace": "default",
            "labels": { "component": "apiserver", "provider": "kubernetes" },
        },
        "spec": {
            "clusterIP": ServiceRange::default().first().to_string(),
            "ports": [{ "name": "https", "port": 443, "protocol": "TCP", "targetPort": 6443 }],
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
    }))
}
