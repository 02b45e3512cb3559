//! What the server gives to Services: addresses and ports that nobody else has.

use std::ptr;

use mainstay_store::{Change, Expect, Write};
use serde_json::{Value, json};

use crate::kind::Resource;
use crate::kinds;
use crate::kinds::service::allocate::{Refused, ServiceRange, Taken, allocate};
use crate::object::{self, Object};
use crate::pipeline::Writer;
use crate::random;
use crate::server::Inner;
use crate::status::{ApiError, Result};

/// The key whose every write is one time that something was given. What was given is in the Services.
const ALLOCATIONS: &str = "ranges/services";

impl Inner {
    /// Gives a Service that is written what it lacks. What is to be written with it sees to it that of two
    /// that are given something at the same time, by whatever server, one is given it anew.
    pub(crate) async fn allocate(
        &self,
        resource: &Resource,
        subresource: &str,
        new: &mut Object,
        old: Option<&Object>,
    ) -> Result<Option<Write>> {
        if !ptr::eq(resource, &kinds::SERVICES) || !subresource.is_empty() {
            return Ok(None);
        }
        // Before them: what is given after that changes it.
        let (last, _) = self.storage.store.get(ALLOCATIONS).await?;
        let services = self.storage.all(&kinds::SERVICES, "").await?;
        let taken = Taken::by(&services, new);
        let range = ServiceRange::default();
        match allocate(new, old, range, taken, &mut random::below) {
            Ok(()) => {}
            Err(Refused::Fields(errors)) => {
                return Err(ApiError::invalid(resource, new.name(), &errors));
            }
            Err(Refused::Full(why)) => return Err(ApiError::internal(why)),
        }
        if given(new) == old.map_or_else(|| given(&Object::default()), given) {
            return Ok(None);
        }
        Ok(Some(Write {
            key: ALLOCATIONS.into(),
            expect: last.map_or(Expect::Absent, |entry| Expect::At(entry.revision)),
            change: Change::Put("{}".into()),
            ttl: None,
        }))
    }

    /// Says in an event that the address of a new Service leads nowhere.
    ///
    /// An event that cannot be written is no reason to refuse the Service.
    pub(crate) async fn announce(&self, resource: &Resource, new: &Object, by: &Writer<'_>) {
        let address = new.str_at(&["spec", "clusterIP"]);
        if !ptr::eq(resource, &kinds::SERVICES) || matches!(address, "" | "None") {
            return;
        }
        let user = self.system_user();
        // The server's own Service needs no word.
        if *by.user == user {
            return;
        }
        let writer = Writer::system(&user, by.now);
        let time = object::time(by.now);
        let event = Object::from_json(json!({
            "metadata": { "generateName": format!("{}.", new.name()), "namespace": new.namespace() },
            "involvedObject": {
                "kind": "Service",
                "apiVersion": "v1",
                "name": new.name(),
                "namespace": new.namespace(),
                "uid": new.uid(),
            },
            "type": "Warning",
            "reason": "NotServed",
            "message": format!(
                "nothing on this node passes traffic for {address} on to pods; use the pods' own \
                 addresses, host ports or host networking"
            ),
            "source": { "component": "mainstay" },
            "firstTimestamp": time,
            "lastTimestamp": time,
            "count": 1,
        }));
        let made = self.create(&kinds::EVENTS, new.namespace(), event, &writer);
        if let Err(error) = Box::pin(made).await {
            tracing::debug!("an event for a service was not written: {}", error.message);
        }
    }
}

/// What a Service has that no other may have.
fn given(service: &Object) -> Value {
    let ports = service.list_at(&["spec", "ports"]).iter().map(|port| port.get("nodePort"));
    json!({
        "addresses": service.at(&["spec", "clusterIPs"]),
        "address": service.at(&["spec", "clusterIP"]),
        "health": service.at(&["spec", "healthCheckNodePort"]),
        "ports": ports.collect::<Vec<_>>(),
    })
}
