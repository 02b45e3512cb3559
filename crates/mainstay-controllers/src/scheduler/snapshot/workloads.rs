//! Which pods belong together: those behind a service, and those of a replica set.
//!
//! Source: `DefaultSelector` in `pkg/scheduler/framework/plugins/helper/spread.go`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Service;
use mainstay_pod::scheduling::selector::{Labels, Selector};

use super::super::pod::PodInfo;
use crate::informer::ObjectKey;
use crate::owner;

/// What selects pods.
#[derive(Debug, Default)]
pub(in super::super) struct Workloads {
    /// The selectors of services, by namespace and name.
    services: BTreeMap<String, BTreeMap<String, Labels>>,
    /// By what each replica set selects its pods.
    replica_sets: BTreeMap<ObjectKey, Selector>,
}

impl Workloads {
    /// One that selects nothing is none.
    pub(in super::super) fn set_service(&mut self, key: ObjectKey, service: Option<&Service>) {
        let selector = service.and_then(|service| service.spec.as_ref()?.selector.clone());
        match selector {
            Some(selector) => {
                self.services.entry(key.namespace).or_default().insert(key.name, selector);
            }
            None => {
                if let Some(services) = self.services.get_mut(&key.namespace) {
                    services.remove(&key.name);
                    if services.is_empty() {
                        self.services.remove(&key.namespace);
                    }
                }
            }
        }
    }

    pub(in super::super) fn set_replica_set(&mut self, key: ObjectKey, selector: Option<Selector>) {
        match selector {
            Some(selector) => self.replica_sets.insert(key, selector),
            None => self.replica_sets.remove(&key),
        };
    }

    /// What selects the pods that a pod belongs with; nothing if it belongs with none.
    pub(in super::super) fn selector(&self, pod: &PodInfo) -> Selector {
        let services = self.services.get(&pod.key.namespace).into_iter().flatten();
        let around = services.filter(|(_, selector)| {
            selector.iter().all(|(key, value)| pod.kind.labels.get(key) == Some(value))
        });
        let labels: BTreeMap<&String, &String> =
            around.flat_map(|(_, selector)| selector).collect();
        let selector = Selector::of_labels(labels);
        let owner = owner::controller(&pod.object.metadata);
        let set = owner.filter(|it| it.kind == "ReplicaSet" && it.api_version == "apps/v1");
        let key = set.map(|set| ObjectKey::new(&pod.key.namespace, &set.name));
        match key.and_then(|key| self.replica_sets.get(&key)) {
            Some(more) => selector.and_all(more.clone()),
            None => selector,
        }
    }
}
