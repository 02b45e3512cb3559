//! What init containers and sidecars come to in a pod's line.
//!
//! Source: `printPod` in `pkg/printers/internalversion/printers.go`.

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use mainstay_pod::{Pod, Role};

/// What is counted of a pod's containers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) ready: usize,
    pub(super) containers: usize,
    pub(super) restarts: i32,
}

/// Counts the containers that stay: while a pod is initialized, the restarts of what does it.
pub(super) fn counted(pod: &Pod, status: &PodStatus) -> Counted {
    let initializing = stopped_at(pod, status).is_some();
    let mut counted = Counted::default();
    for (role, container) in pod.containers() {
        counted.containers += usize::from(role != Role::Init);
        let Some(status) = status_of(status, role, &container.name) else { continue };
        counted.ready += usize::from(role != Role::Init && status.ready);
        if role == Role::Sidecar || (role == Role::Init) == initializing {
            counted.restarts += status.restart_count;
        }
    }
    counted
}

/// How far a pod is that is being initialized, in a word and perhaps a sentence: `Init:0/2`,
/// `Init:CrashLoopBackOff`. `None` when it has been.
pub(super) fn state(pod: &Pod, status: &PodStatus) -> Option<(String, Option<String>)> {
    let (done, at) = stopped_at(pod, status)?;
    let count = pod.spec().init_containers.as_ref().map_or(0, Vec::len);
    let state = at.and_then(|at| at.state.as_ref());
    if let Some(end) = state.and_then(|state| state.terminated.as_ref()) {
        let reason = end.reason.clone().filter(|reason| !reason.is_empty());
        let reason = reason.unwrap_or_else(|| format!("ExitCode:{}", end.exit_code));
        return Some((format!("Init:{reason}"), None));
    }
    let waiting = state.and_then(|state| state.waiting.as_ref());
    match waiting.and_then(|it| Some((it.reason.as_deref()?, &it.message))) {
        Some((reason, message)) if reason != "PodInitializing" => {
            let name = at.map_or("", |at| &at.name);
            let message = message.as_ref().map(|message| format!("{name}: {message}"));
            Some((format!("Init:{reason}"), message))
        }
        _ => Some((format!("Init:{done}/{count}"), None)),
    }
}

/// The first init container that is not through, and how many are before it. A pod that the node has not
/// taken has no statuses of any.
fn stopped_at<'a>(
    pod: &Pod,
    status: &'a PodStatus,
) -> Option<(usize, Option<&'a ContainerStatus>)> {
    status.init_container_statuses.as_ref()?;
    let mut conditions = status.conditions.iter().flatten();
    if conditions.any(|it| it.type_ == "Initialized" && it.status == "True") {
        return None;
    }
    let init = pod.containers().filter(|(role, _)| *role != Role::Main);
    let mut statuses = init.map(|(role, it)| (role, status_of(status, role, &it.name))).enumerate();
    let (done, (_, at)) = statuses.find(|(_, (role, status))| {
        !status.is_some_and(|status| match role {
            Role::Sidecar => status.started == Some(true),
            Role::Init | Role::Main | Role::Ephemeral => status.ready,
        })
    })?;
    Some((done, at))
}

fn status_of<'a>(status: &'a PodStatus, role: Role, name: &str) -> Option<&'a ContainerStatus> {
    let list = match role {
        Role::Init | Role::Sidecar => &status.init_container_statuses,
        Role::Main => &status.container_statuses,
        Role::Ephemeral => &status.ephemeral_container_statuses,
    };
    list.iter().flatten().find(|status| status.name == name)
}

#[cfg(test)]
mod tests {
    use mainstay_plan::admission::Rejection;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_that_is_initialized_says_how_far_it_is() {
        let pod = mainstay_testkit::pods::pod(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [\
             {name: main, image: x}], initContainers: [{name: a, image: x}, \
             {name: b, image: x, restartPolicy: Always}]}",
        );
        let status = |name: &str, state: serde_json::Value| {
            let ready = state["terminated"]["exitCode"] == 0;
            let started = state["running"].is_object();
            json!({"name": name, "image": "x", "imageID": "", "restartCount": 2, "state": state,
                   "ready": ready || started, "started": started})
        };
        let check = |a, b, initialized: &str| {
            let status = json!({
                "initContainerStatuses": [status("a", a), status("b", b)],
                "containerStatuses": [status("main", json!({"waiting": {"reason": "PodInitializing"}}))],
                "conditions": [{"type": "Initialized", "status": initialized}],
            });
            let status: PodStatus = serde_json::from_value(status).unwrap();
            let Counted { ready, containers, restarts } = counted(&pod, &status);
            let (state, problem) = state(&pod, &status).unwrap_or_default();
            format!("{state} {} {ready}/{containers} {restarts}", problem.unwrap_or_default())
        };
        let waiting = |reason: &str| json!({"waiting": {"reason": reason, "message": "why"}});
        let ended = |code: u8| json!({"terminated": {"exitCode": code, "reason": "Error"}});
        let rows = [
            check(waiting("PodInitializing"), waiting("PodInitializing"), "False"),
            check(waiting("CrashLoopBackOff"), waiting("PodInitializing"), "False"),
            check(ended(3), waiting("PodInitializing"), "False"),
            check(ended(0), waiting("PodInitializing"), "False"),
            check(ended(0), json!({"running": {}}), "False"),
            check(ended(0), waiting("CrashLoopBackOff"), "True"),
        ];
        expect_test::expect![[r#"
            Init:0/2  0/2 4
            Init:CrashLoopBackOff a: why 0/2 4
            Init:Error  0/2 4
            Init:1/2  0/2 4
              1/2 4
              0/2 4"#]]
        .assert_eq(&rows.join("\n"));
    }

    #[test]
    fn a_pod_that_was_not_taken_is_not_initialized_either() {
        let pod = mainstay_testkit::pods::pod(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [\
             {name: main, image: x}], initContainers: [{name: a, image: x}]}",
        );
        let rejected = Rejection::unsupported("spec.x").status(pod.spec());
        assert_eq!(state(&pod, &rejected), None);
        assert_eq!(counted(&pod, &rejected), Counted { containers: 1, ..Counted::default() });
    }
}
