//! The status of each container.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, ContainerUser, LinuxContainerUser as ApiUser,
    PodStatus, VolumeMountStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use mainstay_cri::{ContainerState, LinuxContainerUser, STATUS_UNKNOWN};
use mainstay_pod::{Pod, Role};

use crate::pod::{
    Afterwards, Failure, Key, Memory, Restarts, Round, SeenContainer, SeenSandbox, on_turn,
};
use crate::resize::{self, Requirements};
use crate::termination_message;
use crate::translate::is_recursively_read_only;

/// A container of the pod and what came of it.
pub(super) struct View<'a> {
    pub(super) role: Role,
    pub(super) container: &'a Container,
    pub(super) now: Now<'a>,
    /// Whether it has ended and is not started again.
    pub(super) is_over: bool,
    /// Whether it runs, and the next ones need not wait for it.
    pub(super) started: bool,
    pub(super) ready: bool,
    newest: Option<&'a SeenContainer>,
    /// The one before the newest.
    last: Option<&'a SeenContainer>,
    /// What it has, if that may not be what it is allocated.
    has: Option<&'a Requirements>,
}

/// What it is doing now.
pub(super) enum Now<'a> {
    /// It has not run yet, for this reason.
    NeverStarted { reason: String, message: Option<String> },
    /// It runs.
    Running { since: Timestamp },
    /// It has ended, and is to run again.
    BackingOff { reason: String, message: Option<String>, end: End<'a> },
    /// It has ended for good, or is about to be started again.
    Ended(End<'a>),
}

/// How it ended.
#[derive(Clone, Copy)]
pub(super) struct End<'a> {
    started_at: Option<Timestamp>,
    finished_at: Timestamp,
    pub(super) exit_code: i32,
    reason: &'a str,
    message: &'a str,
    container: &'a SeenContainer,
}

impl View<'_> {
    /// Whether it has ended, and not well.
    pub(super) fn has_failed(&self) -> bool {
        matches!(&self.now, Now::Ended(end) if end.exit_code != 0)
    }

    /// Whether one of its name has run and ended before the newest.
    pub(super) fn ran_before(&self) -> bool {
        self.last.is_some_and(SeenContainer::has_ended)
    }
}

/// Looks at all containers of a pod, in the order in which they start. `round` is that of the newest sandbox.
pub(super) fn views<'a>(
    pod: &'a Pod,
    restarts: Restarts<'_>,
    sandboxes: impl Iterator<Item = &'a SeenSandbox> + Clone,
    round: Round,
    memory: &'a Memory,
    now: Timestamp,
) -> Vec<View<'a>> {
    let newest_sandbox = sandboxes.clone().next();
    let turn = on_turn(pod, newest_sandbox, round, memory);
    let all: Vec<&SeenContainer> = sandboxes.flat_map(|sandbox| &sandbox.containers).collect();
    let view = |(role, container): (Role, &'a Container)| {
        let mut of_name: Vec<&SeenContainer> =
            all.iter().copied().filter(|seen| seen.name == container.name).collect();
        of_name.sort_by_key(|seen| std::cmp::Reverse(seen.restart_count));
        let newest = of_name.first().copied();
        let has_turn = turn.iter().any(|(_, it)| it.name == container.name);
        let is_void = newest.is_some_and(|newest| round.voids_in(newest_sandbox, newest));
        let of = Of { pod, restarts, role, container, has_turn, is_void, memory, time: now };
        let now = look(of, newest);
        let ended_well = matches!(&now, Now::Ended(end) if end.exit_code == 0);
        View {
            role,
            container,
            is_over: match &now {
                // That of a pod which is ended early has not failed.
                Now::Ended(end) if role == Role::Init => {
                    !pod.restarts(role, container, end.exit_code)
                }
                Now::Ended(end) => !restarts.again(role, container, end.container, end.exit_code),
                Now::NeverStarted { .. } | Now::Running { .. } | Now::BackingOff { .. } => false,
            },
            started: newest.is_some_and(|newest| memory.has_started(container, newest)),
            ready: match role {
                Role::Init => ended_well,
                Role::Ephemeral => false,
                Role::Sidecar | Role::Main => {
                    newest.is_some_and(|newest| memory.is_ready(container, newest))
                }
            },
            now,
            newest,
            last: of_name.get(1).copied(),
            has: memory.resizing.as_ref().and_then(|it| it.containers.get(&container.name)),
        }
    };
    pod.containers().map(view).collect()
}

/// What is looked at, beside what the runtime has of it.
#[derive(Clone, Copy)]
struct Of<'a> {
    pod: &'a Pod,
    restarts: Restarts<'a>,
    role: Role,
    container: &'a Container,
    /// Whether it should run, or be started, now.
    has_turn: bool,
    /// Whether it has ended, or does, since all containers are started over.
    is_void: bool,
    memory: &'a Memory,
    time: Timestamp,
}

fn look<'a>(of: Of<'_>, newest: Option<&'a SeenContainer>) -> Now<'a> {
    let Of { pod, restarts, role, container, has_turn, is_void, memory, time: now } = of;
    let name = &container.name;
    let failure = |key: &Key| memory.failures.get(key);
    let failure = failure(&Key::Image(name.clone()))
        .or_else(|| failure(&Key::Container(name.clone())))
        .filter(|_| has_turn)
        .or_else(|| failure(&Key::Sandbox))
        .or_else(|| failure(&Key::Host(pod.uid().to_owned())));
    let pulling = memory.in_flight.contains(&Key::Image(name.clone()));
    let told = |failure: &Failure| (failure.reason.clone(), Some(failure.message.clone()));
    let waiting = |failure: Option<&Failure>| match failure {
        // Source: `EnsureImageExists` in `pkg/kubelet/images/image_manager.go`.
        Some(failure) if failure.reason == "ErrImagePull" && !pulling => {
            let image = container.image.as_deref().unwrap_or_default();
            let message = &failure.message;
            let message = format!("Back-off pulling image {image:?}: ErrImagePull: {message}");
            ("ImagePullBackOff".to_owned(), Some(message))
        }
        Some(failure) => told(failure),
        None if pod.has_init_containers() => ("PodInitializing".to_owned(), None),
        None => ("ContainerCreating".to_owned(), None),
    };
    let never_started = || {
        let (reason, message) = waiting(failure);
        Now::NeverStarted { reason, message }
    };
    let Some(newest) = newest else { return never_started() };
    match &newest.state {
        ContainerState::Created => never_started(),
        ended if ended.never_ran() => never_started(),
        ContainerState::Running { started_at } => Now::Running { since: *started_at },
        ContainerState::Exited { started_at, finished_at, exit_code, reason, message } => {
            let end = End {
                started_at: *started_at,
                finished_at: *finished_at,
                exit_code: *exit_code,
                reason,
                message,
                container: newest,
            };
            let after = restarts.after(role, container, newest, now);
            let (reason, message) = match (after, failure) {
                (Afterwards::Start(_) | Afterwards::Done | Afterwards::Nothing, None)
                    if is_void =>
                {
                    let message = "all containers of the pod are started over".to_owned();
                    ("RestartingAllContainers".to_owned(), Some(message))
                }
                (Afterwards::Start(_) | Afterwards::Wait(_), Some(failure)) => told(failure),
                (Afterwards::Wait(due), None) => {
                    let wait = go_duration(due.duration_since(*finished_at).as_secs());
                    let pod = pod.long_name();
                    let message =
                        format!("back-off {wait} restarting failed container={name} pod={pod}");
                    ("CrashLoopBackOff".to_owned(), Some(message))
                }
                // Its end means nothing, also where the pod's policy would have it so for good.
                (Afterwards::Start(_), None) if memory.resized.contains(&newest.id) => {
                    ("ContainerCreating".to_owned(), None)
                }
                (Afterwards::Start(_), None) => {
                    match memory.failures.get(&Key::Hook(newest.id.clone())) {
                        Some(failure) => told(failure),
                        None => return Now::Ended(end),
                    }
                }
                (Afterwards::Done | Afterwards::Nothing, _) => return Now::Ended(end),
            };
            Now::BackingOff { reason, message, end }
        }
    }
}

/// Seconds as Go prints a duration: `40s`, `2m40s`.
fn go_duration(seconds: i64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

/// What all containers of a pod are told of with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Telling<'a> {
    /// The name of the runtime that has them.
    pub(super) runtime: &'a str,
    /// The bytes that a message about an end may have.
    pub(super) most: usize,
}

/// The bytes that a message about the end of one of so many containers may have.
pub(super) fn most_of_message(containers: usize) -> usize {
    termination_message::MOST_OF_POD / containers.max(1)
}

/// As the API shows those of some roles.
pub(super) fn statuses(
    views: &[View<'_>],
    telling: Telling<'_>,
    is_of: fn(Role) -> bool,
) -> Vec<ContainerStatus> {
    let own = views.iter().filter(|view| is_of(view.role));
    let mut statuses: Vec<_> = own.map(|view| status(view, telling)).collect();
    // They are large, and kept for as long as the pod is.
    statuses.shrink_to_fit();
    statuses
}

/// As the API shows what was added to a pod, in the order of the names.
pub(super) fn ephemeral<'a>(
    pod: &Pod,
    sandboxes: &(impl Iterator<Item = &'a SeenSandbox> + Clone),
    memory: &Memory,
    before: Option<&PodStatus>,
    telling: Telling<'_>,
    now: Timestamp,
) -> Vec<ContainerStatus> {
    let (role, restarts) = (Role::Ephemeral, Restarts::Never);
    let status = |container: &Container| {
        let newest = sandboxes.clone().find_map(|sandbox| sandbox.newest(&container.name));
        if newest.is_none() && memory.spent.contains(&container.name) {
            return lost(container, before);
        }
        let (has_turn, is_void) = (true, false);
        let of = Of { pod, restarts, role, container, has_turn, is_void, memory, time: now };
        let now = look(of, newest);
        let is_over = matches!(now, Now::Ended(_));
        let (started, ready, last, has) = (false, false, None, None);
        status(&View { role, container, now, is_over, started, ready, newest, last, has }, telling)
    };
    let mut statuses: Vec<_> = pod.ephemeral_containers().iter().map(status).collect();
    statuses.sort_by(|one, other| one.name.cmp(&other.name));
    statuses
}

/// Of one that was started and of which nothing is left: what was told of its end, if it was. Source:
/// `convertToAPIContainerStatuses`.
fn lost(container: &Container, before: Option<&PodStatus>) -> ContainerStatus {
    let known = before.and_then(|it| it.ephemeral_container_statuses.as_ref());
    let known = known.into_iter().flatten().find(|it| it.name == container.name);
    if let Some(known) = known.filter(|it| has_ended(it)) {
        return known.clone();
    }
    ContainerStatus {
        name: container.name.clone(),
        image: container.image.clone().unwrap_or_default(),
        state: Some(ApiState {
            terminated: Some(ContainerStateTerminated {
                exit_code: 137,
                reason: Some(STATUS_UNKNOWN.to_owned()),
                message: Some(
                    "The container could not be located when the pod was terminated".to_owned(),
                ),
                ..ContainerStateTerminated::default()
            }),
            ..ApiState::default()
        }),
        last_state: Some(ApiState::default()),
        ..known.cloned().unwrap_or_default()
    }
}

/// Keeps what an API knows of the ends of containers that were added to a pod and of which nothing is left:
/// an agent that was started since knows less.
pub(crate) fn keep_ends(status: &mut PodStatus, held: &PodStatus) {
    let known = held.ephemeral_container_statuses.as_deref().unwrap_or_default();
    for own in status.ephemeral_container_statuses.iter_mut().flatten() {
        let end = own.state.as_ref().and_then(|state| state.terminated.as_ref());
        let lost = end.is_some_and(|end| {
            end.finished_at.is_none() && end.reason.as_deref() == Some(STATUS_UNKNOWN)
        });
        let known = known.iter().find(|it| lost && it.name == own.name && has_ended(it));
        if let Some(known) = known {
            own.clone_from(known);
        }
    }
}

fn has_ended(status: &ContainerStatus) -> bool {
    status.state.as_ref().is_some_and(|state| state.terminated.is_some())
}

fn status(view: &View<'_>, telling: Telling<'_>) -> ContainerStatus {
    let Telling { runtime, most } = telling;
    let waiting = |reason: &String, message: &Option<String>| ApiState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.clone()),
            message: message.clone(),
        }),
        ..ApiState::default()
    };
    let terminated = |end: &End<'_>| ApiState {
        terminated: Some(ContainerStateTerminated {
            container_id: Some(container_id(runtime, &end.container.id.0)),
            exit_code: end.exit_code,
            finished_at: Some(Time(end.finished_at)),
            message: termination_message::of_end(
                end.message,
                end.container.termination_message.as_deref(),
                most,
            ),
            reason: Some(end.reason.to_owned()),
            signal: None,
            started_at: end.started_at.map(Time),
        }),
        ..ApiState::default()
    };
    let running = |since: &Timestamp| ApiState {
        running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
        ..ApiState::default()
    };
    let (state, mut last) = match &view.now {
        Now::NeverStarted { reason, message } => (waiting(reason, message), None),
        Now::Running { since } => (running(since), None),
        Now::BackingOff { reason, message, end } => {
            (waiting(reason, message), Some(terminated(end)))
        }
        Now::Ended(end) => (terminated(end), None),
    };
    if last.is_none()
        && let Some(before) = view.last
        && let ContainerState::Exited { started_at, finished_at, exit_code, reason, message } =
            &before.state
    {
        last = Some(terminated(&End {
            started_at: *started_at,
            finished_at: *finished_at,
            exit_code: *exit_code,
            reason,
            message,
            container: before,
        }));
    }
    let (container, newest) = (view.container, view.newest);
    let mut resources = container.resources.clone().unwrap_or_default();
    let allocated = resources.requests.clone();
    if let Some(has) = view.has.filter(|_| matches!(view.now, Now::Running { .. })) {
        resize::in_force(&mut resources, has);
    }
    let written = || container.image.clone().unwrap_or_default();
    ContainerStatus {
        name: container.name.clone(),
        image: newest.map_or_else(written, |seen| seen.image.clone()),
        image_id: newest.map(|seen| seen.image_ref.clone()).unwrap_or_default(),
        container_id: newest.map(|seen| container_id(runtime, &seen.id.0)),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        ready: view.ready,
        started: (view.role != Role::Ephemeral).then_some(view.started),
        restart_count: newest
            .map_or(0, |seen| i32::try_from(seen.restart_count).unwrap_or(i32::MAX)),
        // What it has, once it is there.
        allocated_resources: newest.and(allocated),
        resources: newest.map(|_| resources),
        volume_mounts: mounts(container),
        user: newest.and_then(|seen| seen.user.as_ref()).map(user),
        ..ContainerStatus::default()
    }
}

/// Source: `convertContainerStatusUser`.
fn user(user: &LinuxContainerUser) -> ContainerUser {
    let groups: Vec<i64> = user.supplemental_groups.iter().copied().map(i64::from).collect();
    ContainerUser {
        linux: Some(ApiUser {
            uid: user.uid.into(),
            gid: user.gid.into(),
            supplemental_groups: (!groups.is_empty()).then_some(groups),
        }),
    }
}

fn mounts(container: &Container) -> Option<Vec<VolumeMountStatus>> {
    let mounts = container.volume_mounts.as_ref().filter(|mounts| !mounts.is_empty())?;
    let mount = |mount: &k8s_openapi::api::core::v1::VolumeMount| {
        let readonly = mount.read_only == Some(true);
        let recursive = if is_recursively_read_only(mount) { "Enabled" } else { "Disabled" };
        VolumeMountStatus {
            name: mount.name.clone(),
            mount_path: mount.mount_path.clone(),
            read_only: readonly.then_some(true),
            recursive_read_only: readonly.then(|| recursive.to_owned()),
            ..VolumeMountStatus::default()
        }
    };
    Some(mounts.iter().map(mount).collect())
}

/// How a status names a container: the runtime's name and its id. Source: `BuildContainerID` in
/// `pkg/kubelet/container/runtime.go`.
pub fn container_id(runtime: &str, id: &str) -> String {
    format!("{runtime}://{id}")
}

/// The id of a container that a status names so.
pub fn container_of_id(name: &str) -> &str {
    name.split_once("://").map_or(name, |(_, id)| id)
}
