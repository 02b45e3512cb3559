//! The names under which things are remembered with sandboxes and containers.
//!
//! Those of the kubelet where it has one, since tools look for them. Source:
//! `pkg/kubelet/types/labels.go` and `pkg/kubelet/kuberuntime/labels.go`.

/// The pod's name, on sandboxes and containers.
pub const POD_NAME: &str = "io.kubernetes.pod.name";
/// The pod's namespace, on sandboxes and containers.
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
/// The pod's UID, on sandboxes and containers.
pub const POD_UID: &str = "io.kubernetes.pod.uid";
/// The container's name in the pod, on containers.
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";

/// How many containers of this name the pod had before, as an annotation of containers.
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
/// The path in a container of its termination message, as an annotation of containers.
pub const TERMINATION_MESSAGE_PATH: &str = "io.kubernetes.container.terminationMessagePath";
/// Whether its log counts when there is none, as an annotation of containers.
pub const TERMINATION_MESSAGE_POLICY: &str = "io.kubernetes.container.terminationMessagePolicy";
/// What is done before a container's end, as [`crate::lifecycle::note`] has it, as an annotation of
/// containers: it outlives the manifest.
pub const PRE_STOP_HANDLER: &str = "io.kubernetes.container.preStopHandler";
/// The pod's own grace period in seconds, as an annotation of sandboxes: it outlives the
/// manifest.
pub const GRACE_PERIOD: &str = "io.kubernetes.pod.terminationGracePeriod";

/// Which kind of source the pod came from, as a label of sandboxes.
pub const SOURCE: &str = "mainstay.dev/source";
/// The node's name, as an annotation of sandboxes: pods of static sources have it in their names.
pub const NODE_NAME: &str = "mainstay.dev/node";
/// The names of the pod's containers in their order, with commas between, as an annotation of
/// sandboxes: which is the first one is asked when there is no manifest.
pub const CONTAINERS: &str = "mainstay.dev/containers";
/// The names of the pod's sidecars in their order, with commas between, as an annotation of sandboxes:
/// they are ended last, also when there is no manifest any more.
pub const SIDECARS: &str = "mainstay.dev/sidecars";
/// The ports of the host that the pod occupies, with commas between, as an annotation of sandboxes: they are its
/// own for as long as something of it runs, also when there is no manifest any more.
pub const HOST_PORTS: &str = "mainstay.dev/host-ports";
/// The bytes of huge pages that the pod may have, by resource and with commas between, as an annotation of sandboxes,
/// like its ports.
pub const HUGE_PAGES: &str = "mainstay.dev/huge-pages";
/// The first of the machine's users that the pod has for itself, as an annotation of sandboxes.
pub const USERS: &str = "mainstay.dev/users";
/// The pod's incarnation, as an annotation of sandboxes.
pub const INCARNATION: &str = "mainstay.dev/incarnation";
/// Whether it was added to a pod that was there, as an annotation of containers: `true` or not there. It is
/// ended with the others, also when there is no manifest any more, and told of as what it was.
pub const EPHEMERAL: &str = "mainstay.dev/ephemeral";
/// How often all containers of its sandbox had been started over when it was made, as an annotation of
/// containers.
pub const ROUND: &str = "mainstay.dev/round";
/// The state of a container's restart back-off when it was made, as an annotation of containers,
/// so that it outlives the agent.
pub const BACKOFF: &str = "mainstay.dev/backoff";
