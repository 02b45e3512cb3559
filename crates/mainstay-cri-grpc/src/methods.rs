//! What the calls are named.

/// The services that they are of.
pub(crate) const SERVICES: [&str; 2] = ["runtime.v1.RuntimeService", "runtime.v1.ImageService"];

pub(crate) const VERSION: &str = "/runtime.v1.RuntimeService/Version";
pub(crate) const STATUS: &str = "/runtime.v1.RuntimeService/Status";
pub(crate) const RUNTIME_CONFIG: &str = "/runtime.v1.RuntimeService/RuntimeConfig";
/// Makes and starts a sandbox.
pub const RUN_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/RunPodSandbox";
/// Ends a sandbox and what is in it.
pub const STOP_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/StopPodSandbox";
/// Removes a sandbox and what is in it.
pub const REMOVE_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/RemovePodSandbox";
pub(crate) const POD_SANDBOX_STATUS: &str = "/runtime.v1.RuntimeService/PodSandboxStatus";
pub(crate) const LIST_POD_SANDBOX: &str = "/runtime.v1.RuntimeService/ListPodSandbox";
/// Makes a container in a sandbox.
pub const CREATE_CONTAINER: &str = "/runtime.v1.RuntimeService/CreateContainer";
/// Starts a container.
pub const START_CONTAINER: &str = "/runtime.v1.RuntimeService/StartContainer";
pub(crate) const STOP_CONTAINER: &str = "/runtime.v1.RuntimeService/StopContainer";
pub(crate) const REMOVE_CONTAINER: &str = "/runtime.v1.RuntimeService/RemoveContainer";
pub(crate) const LIST_CONTAINERS: &str = "/runtime.v1.RuntimeService/ListContainers";
pub(crate) const CONTAINER_STATUS: &str = "/runtime.v1.RuntimeService/ContainerStatus";
pub(crate) const UPDATE_CONTAINER_RESOURCES: &str =
    "/runtime.v1.RuntimeService/UpdateContainerResources";
pub(crate) const REOPEN_CONTAINER_LOG: &str = "/runtime.v1.RuntimeService/ReopenContainerLog";
pub(crate) const EXEC_SYNC: &str = "/runtime.v1.RuntimeService/ExecSync";
pub(crate) const EXEC: &str = "/runtime.v1.RuntimeService/Exec";
pub(crate) const ATTACH: &str = "/runtime.v1.RuntimeService/Attach";
pub(crate) const PORT_FORWARD: &str = "/runtime.v1.RuntimeService/PortForward";
pub(crate) const CONTAINER_STATS: &str = "/runtime.v1.RuntimeService/ContainerStats";
pub(crate) const LIST_CONTAINER_STATS: &str = "/runtime.v1.RuntimeService/ListContainerStats";
pub(crate) const LIST_POD_SANDBOX_STATS: &str = "/runtime.v1.RuntimeService/ListPodSandboxStats";
/// What happens.
pub const GET_CONTAINER_EVENTS: &str = "/runtime.v1.RuntimeService/GetContainerEvents";
pub(crate) const LIST_IMAGES: &str = "/runtime.v1.ImageService/ListImages";
pub(crate) const IMAGE_STATUS: &str = "/runtime.v1.ImageService/ImageStatus";
pub(crate) const PULL_IMAGE: &str = "/runtime.v1.ImageService/PullImage";
pub(crate) const REMOVE_IMAGE: &str = "/runtime.v1.ImageService/RemoveImage";
pub(crate) const UPDATE_RUNTIME_CONFIG: &str = "/runtime.v1.RuntimeService/UpdateRuntimeConfig";
pub(crate) const UPDATE_POD_SANDBOX_RESOURCES: &str =
    "/runtime.v1.RuntimeService/UpdatePodSandboxResources";
pub(crate) const POD_SANDBOX_STATS: &str = "/runtime.v1.RuntimeService/PodSandboxStats";
pub(crate) const LIST_METRIC_DESCRIPTORS: &str = "/runtime.v1.RuntimeService/ListMetricDescriptors";
pub(crate) const LIST_POD_SANDBOX_METRICS: &str =
    "/runtime.v1.RuntimeService/ListPodSandboxMetrics";
pub(crate) const CHECKPOINT_CONTAINER: &str = "/runtime.v1.RuntimeService/CheckpointContainer";
pub(crate) const STREAM_POD_SANDBOXES: &str = "/runtime.v1.RuntimeService/StreamPodSandboxes";
pub(crate) const STREAM_CONTAINERS: &str = "/runtime.v1.RuntimeService/StreamContainers";
pub(crate) const STREAM_CONTAINER_STATS: &str = "/runtime.v1.RuntimeService/StreamContainerStats";
pub(crate) const STREAM_POD_SANDBOX_STATS: &str =
    "/runtime.v1.RuntimeService/StreamPodSandboxStats";
pub(crate) const STREAM_POD_SANDBOX_METRICS: &str =
    "/runtime.v1.RuntimeService/StreamPodSandboxMetrics";
pub(crate) const IMAGE_FS_INFO: &str = "/runtime.v1.ImageService/ImageFsInfo";
pub(crate) const STREAM_IMAGES: &str = "/runtime.v1.ImageService/StreamImages";
