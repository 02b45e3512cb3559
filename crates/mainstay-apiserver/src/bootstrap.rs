//! What is there before anybody has made anything.
//!
//! Source: `pkg/controlplane/instance.go`, `pkg/registry/rbac/rest/storage_rbac.go`,
//! `pkg/controlplane/controller/systemnamespaces`.

use futures_util::future::try_join_all;
use jiff::Timestamp;
use serde_json::json;

use crate::authz::bootstrap::{self, Reconciled};
use crate::authz::rbac;
use crate::kind::Resource;
use crate::kinds;
use crate::kinds::service::allocate::ServiceRange;
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
        let writer = &Writer::system(&user, Timestamp::now());
        // What is written at the same time shares a commit. The namespaces come first, since all
        // else is in one of them.
        let mut writes = Vec::new();
        for name in NAMESPACES {
            let object = Object::from_json(json!({ "metadata": { "name": name } }));
            writes.push(self.ensure(&kinds::NAMESPACES, "", object, writer));
        }
        try_join_all(writes).await?;
        let mut writes = vec![self.ensure(&kinds::SERVICES, "default", api_service(), writer)];
        for (name, value, description) in kinds::SYSTEM_CLASSES {
            let object = Object::from_json(json!({
                "metadata": { "name": name },
                "value": value,
                "description": description,
            }));
            writes.push(self.ensure(&kinds::PRIORITY_CLASSES, "", object, writer));
        }
        try_join_all(writes).await?;
        let mut writes = Vec::new();
        for (plural, object) in bootstrap::objects() {
            writes.push(self.ensure_role(plural, object, writer));
        }
        try_join_all(writes).await.map(drop)
    }

    /// A role or a binding, with at least what it should say.
    async fn ensure_role(&self, plural: &str, object: Object, writer: &Writer<'_>) -> Result<()> {
        let Some(resource) = kinds::find(rbac::GROUP, "v1", plural) else { return Ok(()) };
        let (name, namespace) = (object.name().to_owned(), object.namespace().to_owned());
        let Some(stored) = self.storage.find(resource, &namespace, &name).await? else {
            return self.make(resource, &namespace, object, writer).await;
        };
        match bootstrap::reconcile(&stored.object, &object) {
            Reconciled::Keep => Ok(()),
            Reconciled::Update(new) => {
                let change = Change {
                    resource,
                    namespace: &namespace,
                    name: &name,
                    subresource: "",
                    may_create: false,
                };
                self.update(&change, writer, |_| Ok(new.clone())).await.map(drop)
            }
            Reconciled::Replace => {
                let options = DeleteOptions::default();
                match self.delete(writer.user, resource, &namespace, &name, &options).await {
                    // Another server was faster.
                    Err(error) if error.reason != "NotFound" => return Err(error),
                    _ => {}
                }
                self.make(resource, &namespace, object, writer).await
            }
        }
    }

    async fn ensure(
        &self,
        resource: &'static Resource,
        namespace: &str,
        object: Object,
        writer: &Writer<'_>,
    ) -> Result<()> {
        match self.storage.entry(resource, namespace, object.name()).await? {
            Some(_) => Ok(()),
            None => self.make(resource, namespace, object, writer).await,
        }
    }

    async fn make(
        &self,
        resource: &'static Resource,
        namespace: &str,
        object: Object,
        writer: &Writer<'_>,
    ) -> Result<()> {
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
            "ipFamilyPolicy": "SingleStack",
            "sessionAffinity": "None",
            "type": "ClusterIP",
        },
    }))
}
