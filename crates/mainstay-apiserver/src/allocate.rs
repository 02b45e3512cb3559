//! What the server gives to Services: addresses and ports that nobody else has.

use std::ptr;

use serde_json::json;

use crate::kind::Resource;
use crate::kinds;
use crate::kinds::service::allocate::{Refused, ServiceRange, Taken, allocate};
use crate::object::{self, Object};
use crate::pipeline::Writer;
use crate::random;
use crate::server::Inner;
use crate::status::{ApiError, Result};

impl Inner {
    /// Gives a Service that is written what it lacks.
    ///
    /// Two that are written at the same time are kept apart by chance alone; that both choose the same of a
    /// million addresses does no more harm than that one of them has to be made again.
    pub(crate) async fn allocate(
        &self,
        resource: &Resource,
        subresource: &str,
        new: &mut Object,
        old: Option<&Object>,
    ) -> Result<()> {
        if !ptr::eq(resource, &kinds::SERVICES) || !subresource.is_empty() {
            return Ok(());
        }
        let services = self.storage.all(&kinds::SERVICES, "").await?;
        let taken = Taken::by(&services, new);
        let range = ServiceRange::default();
        match allocate(new, old, range, taken, &mut random::below) {
            Ok(()) => Ok(()),
            Err(Refused::Fields(errors)) => Err(ApiError::invalid(resource, new.name(), &errors)),
            Err(Refused::Full(why)) => Err(ApiError::internal(why)),
        }
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
