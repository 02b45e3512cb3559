//! A runtime of this program, served to clients of the CRI such as crictl and kubelets.
//!
//! # Flow
//!
//! A call is found by its method in [`Server::dispatch`], read, carried out by the runtime, and answered. What
//! begins, changes or ends something is carried to its end also when its client has gone, since the client
//! cannot know how far it came. Commands, attachments and ports get an address ([`streaming`]).
//!
//! # Guarantees
//!
//! - Stopping and removing what is stopped or gone succeeds; whatever else is asked of an unknown sandbox or
//!   container is answered with `NOT_FOUND`. Ids are whole: to find one by its beginning is the client's matter.
//! - What the runtime cannot do is refused with `UNIMPLEMENTED`, and nothing is left out in silence.
//!
//! # Tasks
//!
//! Those that carry out calls, and those of [`streaming`]. They end with the future of [`serve`].

mod about;
mod containers;
mod events;
mod images;
mod metrics;
mod sandboxes;
mod streaming;
#[cfg(test)]
mod tests;
mod usage;

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_util::{StreamExt, stream};
use mainstay_cri::{Error, Images, Runtime};
use mainstay_grpc::server::{Reply, Service};
use mainstay_grpc::{Code, Encoded, Status, decode};
use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use crate::convert::status_of;
use crate::methods::*;
use crate::tasks::Tasks;
use crate::wire;
use streaming::Streaming;
use usage::Layers;

/// What is served.
#[derive(Clone)]
pub struct ServerConfig {
    /// Sandboxes and containers, as clients are to see them.
    pub runtime: Arc<dyn Runtime>,
    /// Images.
    pub images: Arc<dyn Images>,
    /// A directory on the file system that images are on.
    pub image_dir: PathBuf,
    /// A directory on the file system that containers write to.
    pub container_dir: PathBuf,
}

/// Serves version v1 of the CRI on a socket, for ever.
pub async fn serve(listener: UnixListener, config: ServerConfig) {
    mainstay_grpc::server::serve(listener, Arc::new(Server::new(config))).await;
}

/// What answers calls.
struct Server {
    runtime: Arc<dyn Runtime>,
    images: Arc<dyn Images>,
    image_dir: PathBuf,
    container_dir: PathBuf,
    streaming: Streaming,
    layers: Layers,
    tasks: Tasks,
}

/// What a call is answered with.
type Answer<T> = Result<T, Status>;

type Replied = BoxFuture<'static, Answer<Reply>>;

impl Service for Server {
    fn call(self: Arc<Self>, method: String, request: Bytes) -> Replied {
        Box::pin(async move {
            let replied = self.dispatch(&method, request).await;
            if let Err(Status { code, message }) = &replied {
                tracing::debug!(method, ?code, message, "a call of the CRI is refused");
            }
            replied
        })
    }
}

impl Server {
    fn new(config: ServerConfig) -> Self {
        let ServerConfig { runtime, images, image_dir, container_dir } = config;
        Self {
            streaming: Streaming::new(runtime.clone()),
            runtime,
            images,
            image_dir,
            container_dir,
            layers: Layers::default(),
            tasks: Tasks::default(),
        }
    }

    /// All calls there are.
    fn dispatch(self: Arc<Self>, method: &str, request: Bytes) -> Replied {
        let server = self.clone();
        match method {
            VERSION => one(request, |it| self.version(it)),
            STATUS => one(request, |it| self.status(it)),
            RUNTIME_CONFIG => one(request, |it| self.runtime_config(it)),
            UPDATE_RUNTIME_CONFIG => one(request, |it| self.update_runtime_config(it)),

            RUN_POD_SANDBOX => one(request, |it| server.to_its_end(self.run_pod_sandbox(it))),
            STOP_POD_SANDBOX => one(request, |it| server.to_its_end(self.stop_pod_sandbox(it))),
            REMOVE_POD_SANDBOX => one(request, |it| server.to_its_end(self.remove_pod_sandbox(it))),
            POD_SANDBOX_STATUS => one(request, |it| self.pod_sandbox_status(it)),
            LIST_POD_SANDBOX => one(request, |it| self.list_pod_sandbox(it)),
            UPDATE_POD_SANDBOX_RESOURCES => {
                one(request, |it| self.update_pod_sandbox_resources(it))
            }

            CREATE_CONTAINER => one(request, |it| server.to_its_end(self.create_container(it))),
            START_CONTAINER => one(request, |it| server.to_its_end(self.start_container(it))),
            STOP_CONTAINER => one(request, |it| server.to_its_end(self.stop_container(it))),
            REMOVE_CONTAINER => one(request, |it| server.to_its_end(self.remove_container(it))),
            LIST_CONTAINERS => one(request, |it| self.list_containers(it)),
            CONTAINER_STATUS => one(request, |it| self.container_status(it)),
            UPDATE_CONTAINER_RESOURCES => {
                one(request, |it| server.to_its_end(self.update_container_resources(it)))
            }
            REOPEN_CONTAINER_LOG => one(request, |it| self.reopen_container_log(it)),
            CHECKPOINT_CONTAINER => Box::pin(async {
                let message = "containers are not checkpointed here";
                Err(Status::new(Code::Unimplemented, message))
            }),

            EXEC_SYNC => one(request, |it| self.exec_sync(it)),
            EXEC => one(request, |it| self.exec(it)),
            ATTACH => one(request, |it| self.attach(it)),
            PORT_FORWARD => one(request, |it| self.port_forward(it)),

            CONTAINER_STATS => one(request, |it| self.container_stats(it)),
            LIST_CONTAINER_STATS => one(request, |it| self.list_container_stats(it)),
            POD_SANDBOX_STATS => one(request, |it| self.pod_sandbox_stats(it)),
            LIST_POD_SANDBOX_STATS => one(request, |it| self.list_pod_sandbox_stats(it)),
            LIST_METRIC_DESCRIPTORS => one(request, |it| self.list_metric_descriptors(it)),
            LIST_POD_SANDBOX_METRICS => one(request, |it| self.list_pod_sandbox_metrics(it)),
            GET_CONTAINER_EVENTS => Box::pin(async move {
                decode::<wire::GetEventsRequest>(request)?;
                Ok(Reply::Many(self.events()))
            }),

            STREAM_POD_SANDBOXES => many(request, |it| self.list_pod_sandbox(it)),
            STREAM_CONTAINERS => many(request, |it| self.list_containers(it)),
            STREAM_CONTAINER_STATS => many(request, |it| self.list_container_stats(it)),
            STREAM_POD_SANDBOX_STATS => many(request, |it| self.list_pod_sandbox_stats(it)),
            STREAM_POD_SANDBOX_METRICS => many(request, |it| self.list_pod_sandbox_metrics(it)),
            STREAM_IMAGES => many(request, |it| self.list_images(it)),

            LIST_IMAGES => one(request, |it| self.list_images(it)),
            IMAGE_STATUS => one(request, |it| self.image_status(it)),
            PULL_IMAGE => one(request, |it| self.pull_image(it)),
            REMOVE_IMAGE => one(request, |it| server.to_its_end(self.remove_image(it))),
            IMAGE_FS_INFO => one(request, |it| self.image_fs_info(it)),

            other => {
                let unknown = Status::unknown_method(other, &SERVICES);
                Box::pin(async { Err(unknown) })
            }
        }
    }

    /// Carries it out also if nobody waits for it any more.
    fn to_its_end<T: Send + 'static>(
        self: Arc<Self>,
        work: impl Future<Output = Answer<T>> + Send + 'static,
    ) -> impl Future<Output = Answer<T>> + Send + 'static {
        let (tell, told) = oneshot::channel();
        self.tasks.spawn(async move {
            // Whoever asked may have gone.
            let _ = tell.send(work.await);
        });
        async {
            let ending = |_| Status::new(Code::Unavailable, "the runtime is ending");
            told.await.map_err(ending)?
        }
    }
}

/// A call with one answer.
fn one<Q, A, F>(request: Bytes, call: impl FnOnce(Q) -> F) -> Replied
where
    Q: Message + Default,
    A: Message,
    F: Future<Output = Answer<A>> + Send + 'static,
{
    let answered = decode(request).map(call);
    Box::pin(async { Ok(Reply::One(Encoded::of(&answered?.await?))) })
}

/// How many items of a list are sent at once, where it may be sent in parts.
const ITEMS: usize = 100;

/// The same list in parts of at least one item each.
fn many<Q, A, F>(request: Bytes, call: impl FnOnce(Q) -> F) -> Replied
where
    Q: Message + Default,
    A: Parts,
    F: Future<Output = Answer<A>> + Send + 'static,
{
    let answered = decode(request).map(call);
    Box::pin(async {
        let parts = answered?.await?.parts(ITEMS);
        Ok(Reply::Many(stream::iter(parts).map(|part| Ok(Encoded::of(&part))).boxed()))
    })
}

/// A list that can be taken apart.
trait Parts: Message + Sized + Send + 'static {
    fn parts(self, most: usize) -> Vec<Self>;
}

macro_rules! parts {
    ($($list:ident { $items:ident })*) => {$(
        impl Parts for wire::$list {
            fn parts(self, most: usize) -> Vec<Self> {
                let parts = self.$items.chunks(most);
                parts.map(|part| Self { $items: part.to_vec() }).collect()
            }
        }
    )*};
}

parts! {
    ListPodSandboxResponse { items }
    ListContainersResponse { containers }
    ListContainerStatsResponse { stats }
    ListPodSandboxStatsResponse { stats }
    ListPodSandboxMetricsResponse { pod_metrics }
    ListImagesResponse { images }
}

/// What the runtime says no with.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` calls")]
fn failed(error: Error) -> Status {
    status_of(&error)
}

fn invalid(message: impl Into<String>) -> Status {
    Status::new(Code::InvalidArgument, message)
}

/// What a request cannot do without.
fn needed<T>(field: &str, value: Option<T>) -> Answer<T> {
    value.ok_or_else(|| invalid(format!("{field} is missing")))
}

/// Whether something carries labels that are looked for.
fn carries(labels: &Labels, wanted: &Labels) -> bool {
    wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
}

type Labels = std::collections::BTreeMap<String, String>;

/// Whether something is meant by an id, which is none for all.
fn is_meant(id: &str, wanted: &str) -> bool {
    wanted.is_empty() || id == wanted
}
