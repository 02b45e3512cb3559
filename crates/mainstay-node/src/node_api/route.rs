//! What each path is: one table, without doing anything.
//!
//! Source: `InstallAuthNotRequiredHandlers` and `InstallAuthRequiredHandlers` in
//! `pkg/kubelet/server/server.go`.

use http::{Method, StatusCode};

use crate::percent;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// All checks, or the one of this name.
    Health(Option<String>),
    /// The pods that should run.
    Pods,
    /// The pods that the runtime has.
    RunningPods,
    /// A container's log.
    ContainerLogs(Target),
    /// A command with streams.
    Exec(Target),
    /// A container's own streams.
    Attach(Target),
    /// A command's output, when it has ended.
    Run(Target),
    /// Ports of a pod; the target has no container.
    PortForward(Target),
    /// Usage by pod and container.
    StatsSummary,
    /// What happens to pods here.
    Metrics,
    /// Usage, for those who autoscale.
    ResourceMetrics,
    /// Usage, under the names that dashboards know.
    CadvisorMetrics,
    /// Results of probes.
    ProbeMetrics,
    /// What this node is configured with.
    Configz,
}

/// A pod or one of its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) namespace: String,
    pub(super) pod: String,
    /// The UID that it has to have, or nothing.
    pub(super) uid: String,
    pub(super) container: String,
}

/// The route of a request.
///
/// # Errors
///
/// 404 for a path that is not there, 405 for a method that it does not have.
pub(super) fn route(method: &Method, path: &str) -> Result<Route, StatusCode> {
    let (first, rest) =
        path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let rest: Vec<String> = match rest {
        "" => Vec::new(),
        rest => rest.split('/').map(|part| percent::decoded(part.as_bytes())).collect(),
    };
    let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
    let found = match (first, rest.as_slice()) {
        ("healthz", []) => Route::Health(None),
        ("healthz", [check]) => Route::Health(Some((*check).to_owned())),
        ("pods", [] | [""]) => Route::Pods,
        ("runningpods", [] | [""]) => Route::RunningPods,
        ("containerLogs", [namespace, pod, container]) => {
            Route::ContainerLogs(Target::of(namespace, pod, "", container))
        }
        ("exec", rest) => Route::Exec(container(rest)?),
        ("attach", rest) => Route::Attach(container(rest)?),
        ("run", rest) => Route::Run(container(rest)?),
        ("portForward", [namespace, pod]) => Route::PortForward(Target::of(namespace, pod, "", "")),
        ("portForward", [namespace, pod, uid]) => {
            Route::PortForward(Target::of(namespace, pod, uid, ""))
        }
        ("stats", ["summary"]) => Route::StatsSummary,
        ("metrics", []) => Route::Metrics,
        ("metrics", ["resource"]) => Route::ResourceMetrics,
        ("metrics", ["cadvisor"]) => Route::CadvisorMetrics,
        ("metrics", ["probes"]) => Route::ProbeMetrics,
        ("configz", []) => Route::Configz,
        _ => return Err(StatusCode::NOT_FOUND),
    };
    let methods: &[&str] = match found {
        Route::Exec(_) | Route::Attach(_) | Route::PortForward(_) => &["GET", "POST"],
        Route::Run(_) => &["POST"],
        // A handler of any method, as those are in Kubernetes.
        Route::Health(_)
        | Route::Metrics
        | Route::ResourceMetrics
        | Route::CadvisorMetrics
        | Route::ProbeMetrics
        | Route::Configz => return Ok(found),
        Route::Pods | Route::RunningPods | Route::ContainerLogs(_) | Route::StatsSummary => {
            &["GET"]
        }
    };
    if methods.contains(&method.as_str()) { Ok(found) } else { Err(StatusCode::METHOD_NOT_ALLOWED) }
}

fn container(rest: &[&str]) -> Result<Target, StatusCode> {
    match rest {
        [namespace, pod, container] => Ok(Target::of(namespace, pod, "", container)),
        [namespace, pod, uid, container] => Ok(Target::of(namespace, pod, uid, container)),
        _ => Err(StatusCode::NOT_FOUND),
    }
}

impl Route {
    /// Whether it is only there for those who look into pods. Source: `InstallAuthRequiredHandlers`.
    pub(super) fn is_debugging(&self) -> bool {
        match self {
            Self::RunningPods
            | Self::ContainerLogs(_)
            | Self::Exec(_)
            | Self::Attach(_)
            | Self::Run(_)
            | Self::PortForward(_) => true,
            Self::Health(_)
            | Self::Pods
            | Self::StatsSummary
            | Self::Metrics
            | Self::ResourceMetrics
            | Self::CadvisorMetrics
            | Self::ProbeMetrics
            | Self::Configz => false,
        }
    }

    /// Whether everybody may read it at the read-only port. Source: `InstallAuthNotRequiredHandlers`.
    pub(super) fn is_read_only(&self) -> bool {
        !self.is_debugging() && *self != Self::Configz
    }
}

impl Target {
    fn of(namespace: &str, pod: &str, uid: &str, container: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            pod: pod.to_owned(),
            uid: uid.to_owned(),
            container: container.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_has_its_methods() {
        let target = |uid: &str| Target::of("ns", "web-n1", uid, "c");
        let cases = [
            ("GET", "/healthz", Ok(Route::Health(None))),
            ("POST", "/healthz", Ok(Route::Health(None))),
            ("GET", "/healthz/syncloop", Ok(Route::Health(Some("syncloop".into())))),
            ("GET", "/pods", Ok(Route::Pods)),
            ("GET", "/pods/", Ok(Route::Pods)),
            ("POST", "/pods", Err(StatusCode::METHOD_NOT_ALLOWED)),
            ("GET", "/runningpods/", Ok(Route::RunningPods)),
            ("GET", "/containerLogs/ns/web-n1/c", Ok(Route::ContainerLogs(target("")))),
            ("GET", "/containerLogs/ns/web%2Dn1/c", Ok(Route::ContainerLogs(target("")))),
            ("POST", "/containerLogs/ns/web-n1/c", Err(StatusCode::METHOD_NOT_ALLOWED)),
            ("GET", "/containerLogs/ns/web-n1", Err(StatusCode::NOT_FOUND)),
            ("GET", "/exec/ns/web-n1/c", Ok(Route::Exec(target("")))),
            ("POST", "/exec/ns/web-n1/u/c", Ok(Route::Exec(target("u")))),
            ("PUT", "/exec/ns/web-n1/c", Err(StatusCode::METHOD_NOT_ALLOWED)),
            ("POST", "/attach/ns/web-n1/c", Ok(Route::Attach(target("")))),
            ("POST", "/run/ns/web-n1/c", Ok(Route::Run(target("")))),
            ("GET", "/run/ns/web-n1/c", Err(StatusCode::METHOD_NOT_ALLOWED)),
            (
                "POST",
                "/portForward/ns/web-n1/u",
                Ok(Route::PortForward(Target::of("ns", "web-n1", "u", ""))),
            ),
            ("GET", "/stats/summary", Ok(Route::StatsSummary)),
            ("GET", "/metrics/probes", Ok(Route::ProbeMetrics)),
            ("GET", "/metrics/others", Err(StatusCode::NOT_FOUND)),
            ("GET", "/", Err(StatusCode::NOT_FOUND)),
            ("GET", "", Err(StatusCode::NOT_FOUND)),
        ];
        for (method, path, expected) in cases {
            assert_eq!(route(&method.parse().unwrap(), path), expected, "{method} {path}");
        }
    }
}
