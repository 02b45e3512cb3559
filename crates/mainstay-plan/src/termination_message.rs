//! What a container leaves to say when it ends.
//!
//! Source: `getTerminationMessage` and `convertToKubeContainerStatus` in
//! `pkg/kubelet/kuberuntime/kuberuntime_container.go`, the limits in `pkg/kubelet/container/runtime.go`.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Container;
use mainstay_cri::{ContainerState, ContainerStatus, START_ERROR};

use crate::labels;
use crate::translate::NodeFacts;

/// Bytes at the end of the file that count.
pub const MOST_OF_FILE: u64 = 4096;
/// Bytes at the end of the log that count.
pub const MOST_OF_LOG: usize = 2048;
/// Lines at the end of the log that count.
pub const MOST_LINES: usize = 80;
/// Bytes of all containers of a pod together.
pub(crate) const MOST_OF_POD: usize = 12 * 1024;

/// Where the termination message of a container is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The file that was mounted for it.
    pub file: PathBuf,
    /// The log whose end counts when that is empty.
    pub log: Option<PathBuf>,
}

/// The path in the container that it is to be written to.
pub(crate) fn path(container: &Container) -> Option<&str> {
    container.termination_message_path.as_deref().filter(|path| !path.is_empty())
}

/// Where to look for the termination message of a container of the pod with this UID; `None` if it has none: it has
/// not ended, or never ran, or nobody made a file for it.
pub fn places(facts: &NodeFacts, uid: &str, status: &ContainerStatus) -> Option<Places> {
    let ContainerState::Exited { exit_code, reason, .. } = &status.state else { return None };
    let note = |name: &str| status.annotations.get(name).map(String::as_str);
    note(labels::TERMINATION_MESSAGE_PATH)?;
    if status.state.never_ran() {
        return None;
    }
    let number = note(labels::RESTART_COUNT).and_then(|count| count.parse().ok());
    let number = number.unwrap_or(status.metadata.attempt);
    let falls_back = note(labels::TERMINATION_MESSAGE_POLICY) == Some("FallbackToLogsOnError");
    // What could not be started has no log.
    let log = falls_back && *exit_code != 0 && reason != START_ERROR;
    Some(Places {
        file: facts.termination_message_file(uid, &status.metadata.name, number),
        log: log.then(|| PathBuf::from(&status.log_path)),
    })
}

/// The message of a status about an end, `most` bytes of it: the runtime's own, and the container's.
pub(crate) fn of_end(of_runtime: &str, own: Option<&str>, most: usize) -> Option<String> {
    let parts = [of_runtime, own.unwrap_or_default()];
    let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let mut message = parts.join(": ");
    message.truncate(message.floor_char_boundary(most));
    (!message.is_empty()).then_some(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_the_runtimes_and_the_containers_and_has_an_end() {
        let check = |runtime, container, most, expected: Option<&str>| {
            assert_eq!(of_end(runtime, container, most).as_deref(), expected);
        };
        check("", None, 9, None);
        check("", Some(""), 9, None);
        check("", Some("bye\n"), 9, Some("bye\n"));
        check("killed", None, 9, Some("killed"));
        check("killed", Some("bye"), 99, Some("killed: bye"));
        check("killed", Some("bye"), 9, Some("killed: b"));
        check("", Some("€€"), 5, Some("€"));
    }
}
