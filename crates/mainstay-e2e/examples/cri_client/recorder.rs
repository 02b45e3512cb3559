//! What stands between an agent and a runtime, and remembers what is asked for.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use mainstay_cri_grpc::methods::{CREATE_CONTAINER, GET_CONTAINER_EVENTS, RUN_POD_SANDBOX};
use mainstay_e2e::replay::{Raw, pod_of_container, pod_of_sandbox};
use mainstay_grpc::server::{self, Reply, Service};
use mainstay_grpc::{Channel, Code, Encoded, Status};
use tokio::net::UnixListener;

/// Passes everything on to the runtime.
pub(crate) struct Recorder {
    runtime: Arc<Channel>,
    pods: Mutex<HashMap<String, Pod>>,
}

/// What was asked for to have a pod, whose last container this is.
#[derive(Clone, Default)]
pub(crate) struct Pod {
    pub(crate) sandbox: Raw,
    pub(crate) container: Raw,
}

impl Recorder {
    pub(crate) fn new(runtime: Arc<Channel>) -> Arc<Self> {
        Arc::new(Self { runtime, pods: Mutex::default() })
    }

    /// Answers whoever connects to the socket, for ever.
    pub(crate) fn listen(
        self: Arc<Self>,
        socket: &Path,
    ) -> anyhow::Result<impl Future<Output = ()> + Send + use<>> {
        let listener = UnixListener::bind(socket);
        let listener = listener.with_context(|| format!("cannot make {}", socket.display()))?;
        Ok(server::serve(listener, self))
    }

    /// What was asked for, if a pod of this name was.
    pub(crate) fn pod(&self, name: &str) -> Option<Pod> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    fn remember(&self, method: &str, request: &Raw) -> Result<(), Status> {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        let unread =
            |error: prost::DecodeError| Status::new(Code::InvalidArgument, error.to_string());
        match method {
            RUN_POD_SANDBOX => {
                let name = pod_of_sandbox(request).map_err(unread)?;
                pods.entry(name).or_default().sandbox = request.clone();
            }
            CREATE_CONTAINER => {
                let name = pod_of_container(request).map_err(unread)?;
                pods.entry(name).or_default().container = request.clone();
            }
            _ => {}
        }
        Ok(())
    }
}

impl Service for Recorder {
    /// Of a method with many answers there is the first one only. Nobody is told what happens: it is looked for.
    fn call(
        self: Arc<Self>,
        method: String,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Reply, Status>> {
        async move {
            if method == GET_CONTAINER_EVENTS {
                return Err(Status::new(Code::Unimplemented, "a recorder tells nothing by itself"));
            }
            let request = Raw(request);
            self.remember(&method, &request)?;
            let answer: Raw = self.runtime.call(&method, &request, None).await?;
            Ok(Reply::One(Encoded::of(&answer)))
        }
        .boxed()
    }
}
