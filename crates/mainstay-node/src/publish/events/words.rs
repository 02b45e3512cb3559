//! What a kubelet says. People search for these words.

use std::time::Duration;

use k8s_openapi::api::core::v1::{ContainerStatus, PodStatus};
use mainstay_pod::Pod;

use super::EventKind;

/// The events about an action that failed for a reason, as `(reason, message)`. `image` is that of
/// the container that it was for.
///
/// Source: `pkg/kubelet/images/image_manager.go`, `pkg/kubelet/kuberuntime/kuberuntime_container.go`
/// and `kuberuntime_manager.go`, `pkg/kubelet/kubelet.go`.
pub(crate) fn of_failure(
    reason: &'static str,
    message: &str,
    image: Option<&str>,
) -> Vec<(&'static str, String)> {
    let image = image.unwrap_or_default();
    let also = |first: (&'static str, String)| vec![first, ("Failed", format!("Error: {reason}"))];
    match reason {
        "ErrImagePull" => also(("Failed", format!("Failed to pull image {image:?}: {message}"))),
        "ErrImageNeverPull" => {
            let message =
                format!("Container image {image:?} is not present with pull policy of Never");
            also((reason, message))
        }
        "ImageInspectError" => {
            also(("InspectFailed", format!("Failed to inspect image {image:?}: {message}")))
        }
        "CreateContainerError" | "CreateContainerConfigError" | "RunContainerError" => {
            vec![("Failed", format!("Error: {message}"))]
        }
        "FailedCreatePodSandBox" => {
            vec![(reason, format!("Failed to create pod sandbox: {message}"))]
        }
        "PostStartHookError" => {
            vec![("FailedPostStartHook", "PostStartHook failed".to_owned())]
        }
        "FailedKillPod" => vec![(reason, format!("error killing pod: {message}"))],
        other => vec![(other, message.to_owned())],
    }
}

/// Events about containers of a pod that began to wait since its status was computed last, each
/// with the container's name.
pub(crate) fn waits<'a>(
    pod: &Pod,
    before: Option<&PodStatus>,
    after: &'a PodStatus,
) -> Vec<(EventKind, &'static str, &'a str, String)> {
    let mut events = Vec::new();
    for container in statuses(after) {
        let mut known = before.into_iter().flat_map(statuses);
        let known = known.find(|known| known.name == container.name);
        let reason =
            |status: &ContainerStatus| status.state.as_ref()?.waiting.as_ref()?.reason.clone();
        let now = reason(container);
        // A restart in between may not have been seen.
        let same = known.is_some_and(|known| {
            reason(known) == now && known.restart_count == container.restart_count
        });
        if same {
            continue;
        }
        let name = container.name.as_str();
        match now.as_deref() {
            Some("CrashLoopBackOff") => {
                let pod = pod.long_name();
                let message = format!("Back-off restarting failed container {name} in pod {pod}");
                events.push((EventKind::Warning, "BackOff", name, message));
            }
            Some("ImagePullBackOff") => {
                let message = format!("Back-off pulling image {:?}", container.image);
                events.push((EventKind::Normal, "BackOff", name, message));
                let message = "Error: ImagePullBackOff".to_owned();
                events.push((EventKind::Warning, "Failed", name, message));
            }
            _ => {}
        }
    }
    events
}

/// Of all containers.
fn statuses(status: &PodStatus) -> impl Iterator<Item = &ContainerStatus> {
    let lists = [
        &status.init_container_statuses,
        &status.container_statuses,
        &status.ephemeral_container_statuses,
    ];
    lists.into_iter().flatten().flatten()
}

/// As Go prints a duration, to the millisecond: `843ms`, `1.2s`, `2m3.45s`.
pub(crate) fn duration(duration: Duration) -> String {
    let (seconds, milliseconds) = (duration.as_secs(), duration.subsec_millis());
    if seconds == 0 {
        return if milliseconds == 0 { "0s".to_owned() } else { format!("{milliseconds}ms") };
    }
    let fraction = match milliseconds {
        0 => String::new(),
        some => format!(".{some:03}").trim_end_matches('0').to_owned(),
    };
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}{fraction}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}{fraction}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}{fraction}s"),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::{ContainerState, ContainerStateWaiting};

    use super::*;

    #[test]
    fn durations_are_gos() {
        let text = |milliseconds| duration(Duration::from_millis(milliseconds));
        let rows = [0, 843, 1000, 1200, 123_450, 3_600_000].map(text);
        assert_eq!(rows, ["0s", "843ms", "1s", "1.2s", "2m3.45s", "1h0m0s"]);
    }

    #[test]
    fn a_failure_is_told_in_a_kubelets_words() {
        let text = |reason| {
            let events = of_failure(reason, "no", Some("web:1"));
            let events = events.into_iter().map(|(reason, message)| format!("{reason}: {message}"));
            events.collect::<Vec<_>>().join("; ")
        };
        let rows =
            ["ErrImagePull", "ErrImageNeverPull", "RunContainerError", "FailedCreatePodSandBox"];
        expect_test::expect![[r#"
            Failed: Failed to pull image "web:1": no; Failed: Error: ErrImagePull
            ErrImageNeverPull: Container image "web:1" is not present with pull policy of Never; Failed: Error: ErrImageNeverPull
            Failed: Error: no
            FailedCreatePodSandBox: Failed to create pod sandbox: no"#]]
        .assert_eq(&rows.map(text).join("\n"));
    }

    #[test]
    fn a_wait_is_told_when_it_begins() {
        let pod = mainstay_testkit::pods::pod(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n\
             spec: {containers: [{name: main, image: x}]}",
        );
        let status = |reason: Option<&str>, restart_count| PodStatus {
            container_statuses: Some(vec![ContainerStatus {
                name: "main".into(),
                image: "x".into(),
                restart_count,
                state: Some(ContainerState {
                    waiting: reason.map(|reason| ContainerStateWaiting {
                        reason: Some(reason.into()),
                        message: None,
                    }),
                    ..ContainerState::default()
                }),
                ..ContainerStatus::default()
            }]),
            ..PodStatus::default()
        };
        let backing_off = || status(Some("CrashLoopBackOff"), 1);
        let count = |before: Option<&PodStatus>, after| waits(&pod, before, &after).len();
        assert_eq!(count(None, status(None, 0)), 0);
        assert_eq!(count(Some(&status(None, 1)), backing_off()), 1);
        assert_eq!(count(Some(&backing_off()), backing_off()), 0);
        assert_eq!(count(Some(&backing_off()), status(Some("CrashLoopBackOff"), 2)), 1);
        assert_eq!(count(None, status(Some("ImagePullBackOff"), 0)), 2);
    }
}
