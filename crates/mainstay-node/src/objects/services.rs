//! The services of an API, as far as variables tell of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use mainstay_client::{CallError, Calls, Collection, Sink, Trouble};
use mainstay_plan::service_links::{self, Service, ServicePort};
use mainstay_pod::Pod;
use serde::Deserialize;
use tokio::sync::watch;

/// How long one watch lasts: one that is wedged is found out by then.
const WATCH: Duration = Duration::from_secs(600);

/// How long a pod of the API waits for what there is at first.
const PATIENCE: Duration = Duration::from_secs(1);

type All = BTreeMap<(Box<str>, Box<str>), Service>;

/// What is known of services; nothing until the API has told of all.
#[derive(Default)]
pub(crate) struct Services {
    known: watch::Sender<Option<All>>,
    trouble: Mutex<Trouble>,
}

/// A service as an API has it.
#[derive(Clone, Deserialize)]
struct Held {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    #[serde(rename = "clusterIP")]
    cluster_ip: Option<Box<str>>,
    ports: Option<Vec<Port>>,
}

#[derive(Clone, Deserialize)]
struct Port {
    #[serde(default)]
    name: Option<Box<str>>,
    port: i32,
    #[serde(default)]
    protocol: Option<Box<str>>,
}

/// Keeps what is known of services, for ever.
pub(crate) async fn keep(calls: Calls, services: Arc<Services>) {
    let collection = Collection {
        path: "/api/v1/services".to_owned(),
        query: String::new(),
        metadata_only: false,
        lasting: WATCH,
    };
    mainstay_client::follow(&calls, &collection, &*services).await;
}

impl Services {
    /// The variables of a pod. One of the API waits a moment for the API to tell of its services, and
    /// `None` if it has not; `anyway` asks for those that are known. A static pod waits for no API.
    pub(crate) async fn variables(
        &self,
        pod: &Pod,
        anyway: bool,
    ) -> Option<BTreeMap<String, String>> {
        let mut known = self.known.subscribe();
        if !pod.source().is_static() {
            let all = tokio::time::timeout(PATIENCE, known.wait_for(Option::is_some)).await;
            // The sender is here, so only time can have run out.
            let is_known = matches!(all, Ok(Ok(_)));
            if !is_known && !anyway {
                return None;
            }
        }
        let links = pod.spec().enable_service_links != Some(false);
        let known = known.borrow();
        let all = known.iter().flat_map(All::values);
        Some(service_links::variables(all, pod.namespace(), links))
    }
}

impl Sink<Held> for Services {
    fn replace(&self, listed: Vec<Held>, _version: &str) {
        let all = listed.into_iter().filter_map(Held::into_service);
        let all = all.map(|it| ((it.namespace.clone(), it.name.clone()), it)).collect();
        self.known.send_replace(Some(all));
    }

    fn heard(&self, held: Held) {
        let key = held.key();
        self.known.send_modify(|known| {
            let all = known.get_or_insert_default();
            match held.into_service() {
                Some(service) => drop(all.insert(key, service)),
                None => drop(all.remove(&key)),
            }
        });
    }

    fn deleted(&self, held: Held) {
        self.known.send_modify(|known| drop(known.get_or_insert_default().remove(&held.key())));
    }

    fn answered(&self, how: Result<(), &CallError>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = trouble.news(how) {
            tracing::warn!(error = error.message, "cannot follow the services of the API");
        }
    }
}

impl Held {
    fn key(&self) -> (Box<str>, Box<str>) {
        let text = |text: &Option<String>| text.clone().unwrap_or_default().into_boxed_str();
        (text(&self.metadata.namespace), text(&self.metadata.name))
    }

    /// `None` for one without an address of its own. Source: `IsServiceIPSet`.
    fn into_service(self) -> Option<Service> {
        let (namespace, name) = self.key();
        let cluster_ip = self.spec.cluster_ip.filter(|ip| !ip.is_empty() && &**ip != "None")?;
        let port = |it: Port| ServicePort {
            name: it.name.unwrap_or_default(),
            port: it.port,
            protocol: it.protocol.unwrap_or_else(|| "TCP".into()),
        };
        let ports = self.spec.ports.into_iter().flatten().map(port).collect();
        Some(Service { namespace, name, cluster_ip, ports })
    }
}

impl mainstay_client::Object for Held {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use mainstay_testkit::pods::pod;
    use serde_json::json;

    use super::*;

    fn held(name: &str, spec: &serde_json::Value) -> Held {
        let metadata = json!({ "name": name, "namespace": "default" });
        serde_json::from_value(json!({ "metadata": metadata, "spec": spec })).unwrap()
    }

    #[tokio::test]
    async fn services_come_change_and_go() {
        let services = Services::default();
        let pod =
            pod("apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: default}\nspec:\n  \
             containers: [{name: c, image: x}]\n");
        let host = async |services: &Services| {
            services.variables(&pod, false).await.unwrap().get("WEB_SERVICE_HOST").cloned()
        };
        // A static pod does not wait.
        assert_eq!(host(&services).await, None);
        services.replace(vec![held("other", &json!({ "clusterIP": "None" }))], "1");
        assert_eq!(host(&services).await, None);
        let ports = json!([{ "port": 80 }]);
        services.heard(held("web", &json!({ "clusterIP": "10.0.0.2", "ports": ports })));
        assert_eq!(host(&services).await.as_deref(), Some("10.0.0.2"));
        services.heard(held("web", &json!({ "type": "ExternalName" })));
        assert_eq!(host(&services).await, None);
        services.heard(held("web", &json!({ "clusterIP": "10.0.0.3" })));
        services.deleted(held("web", &json!({})));
        assert_eq!(host(&services).await, None);
    }
}
