//! What happens, as it is told to clients.

use std::sync::Arc;

use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use mainstay_cri::{ContainerEvent, ContainerEventKind, ErrorKind};
use mainstay_grpc::{Code, Encoded, Status};

use super::{Answer, Server, failed};
use crate::wire;

impl Server {
    /// From now on. A client for whom something was lost is told by the end of the call, and lists what there is.
    pub(super) fn events(self: Arc<Self>) -> BoxStream<'static, Answer<Encoded>> {
        let events = self.runtime.events();
        let told = events.then(move |event| {
            let server = self.clone();
            async move { Ok(Encoded::of(&server.told(&event).await?)) }
        });
        told.boxed()
    }

    /// One event, with what there is now of its sandbox.
    async fn told(&self, event: &ContainerEvent) -> Answer<wire::ContainerEventResponse> {
        if event.kind == ContainerEventKind::Lagged {
            return Err(Status::new(Code::DataLoss, "events were lost; list what there is"));
        }
        let mut message = wire::ContainerEventResponse::try_from(event)?;
        match self.runtime.pod_sandbox_status(&event.sandbox).await {
            Ok(status) => {
                message.pod_sandbox_status = Some((&status).into());
                message.containers_statuses = status.containers.iter().map(Into::into).collect();
            }
            // What is left of it is its id.
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        Ok(message)
    }
}
