//! What is done in a container right after its start and right before its end.
//!
//! Source: `pkg/kubelet/lifecycle/handlers.go`, and `newContainerAnnotations` in
//! `pkg/kubelet/kuberuntime/labels.go` for what is noted with a container.

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

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

#[cfg(test)]
mod tests {
    use super::*;

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
