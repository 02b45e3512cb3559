//! What is done in a container right after its start and right before its end.
//!
//! Source: `pkg/kubelet/lifecycle/handlers.go`, and `newContainerAnnotations` in
//! `pkg/kubelet/kuberuntime/labels.go` for what is noted with a container.

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use mainstay_pod::Pod;

use crate::probe::port_of;

/// What is done after a container's start, if anything.
pub fn post_start(container: &Container) -> Option<&LifecycleHandler> {
    container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref())
}

/// What is done before a container's end, if anything.
pub fn pre_stop(container: &Container) -> Option<&LifecycleHandler> {
    container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref())
}

/// A handler of a container as it is noted with it, for when its manifest is gone: its port as a number.
pub fn note(handler: &LifecycleHandler, container: &Container) -> String {
    let mut handler = handler.clone();
    if let Some(get) = &mut handler.http_get
        && let Ok(number) = port_of(&get.port, container)
    {
        get.port = IntOrString::Int(number.into());
    }
    serde_json::to_string(&handler)
        .expect("a handler has string keys and no values that JSON lacks")
}

/// Reads back what [`note`] wrote; `None` when somebody else did.
pub fn read(note: &str) -> Option<LifecycleHandler> {
    serde_json::from_str(note).ok()
}

/// What the status of a container tells of what failed after its start, with the reason
/// `PostStartHookError`. Events do not tell it, since it may be a secret.
pub fn failure(handler: &LifecycleHandler, container: &str, pod: &Pod, why: &str) -> String {
    let what = if let Some(exec) = &handler.exec {
        let command = exec.command.as_deref().unwrap_or_default();
        format!("Exec lifecycle hook ([{}])", command.join(" "))
    } else if let Some(get) = &handler.http_get {
        format!("HTTP lifecycle hook ({})", get.path.as_deref().unwrap_or_default())
    } else if let Some(sleep) = &handler.sleep {
        format!("Sleep lifecycle hook ({})", sleep.seconds)
    } else {
        return format!("Cannot run handler: {why}");
    };
    let pod = pod.long_name();
    format!("{what} for Container {container:?} in Pod {pod:?} failed - error: {why}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_names_the_handler_the_container_and_the_pod() {
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: a, image: i}]}";
        let pod = mainstay_testkit::pods::pod(text);
        for (handler, what) in [
            (r#"{"exec":{"command":["sh","-c","x"]}}"#, "Exec lifecycle hook ([sh -c x])"),
            (r#"{"httpGet":{"port":1,"path":"/a"}}"#, "HTTP lifecycle hook (/a)"),
            (r#"{"sleep":{"seconds":3}}"#, "Sleep lifecycle hook (3)"),
        ] {
            let told = failure(&read(handler).unwrap(), "a", &pod, "why");
            let (name, uid) = (pod.name(), pod.uid());
            let whose = format!("for Container \"a\" in Pod \"{name}_default({uid})\"");
            assert_eq!(told, format!("{what} {whose} failed - error: why"));
        }
    }

    #[test]
    fn a_handler_is_noted_with_the_number_of_its_port() {
        let container = serde_json::json!({
            "name": "a", "ports": [{"name": "web", "containerPort": 8080}],
            "lifecycle": {
                "preStop": {"httpGet": {"port": "web", "path": "/bye"}},
                "postStart": {"exec": {"command": ["x", "z"]}},
            },
        });
        let container: &Container = &serde_json::from_value(container).unwrap();
        let noted = note(pre_stop(container).unwrap(), container);
        let read = read(&noted).unwrap().http_get.unwrap();
        assert_eq!((read.port, read.path.as_deref()), (IntOrString::Int(8080), Some("/bye")));
        let noted = note(post_start(container).unwrap(), container);
        assert_eq!(noted, r#"{"exec":{"command":["x","z"]}}"#);
        assert_eq!(super::read("{"), None);
    }
}
