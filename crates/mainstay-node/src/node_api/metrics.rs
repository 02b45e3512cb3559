//! `/metrics` and what is below it, in the text format of Prometheus.
//!
//! The names are the kubelet's where it has one, so that dashboards find them; what nobody knows is
//! not there. Sources: `pkg/kubelet/metrics/metrics.go`,
//! `pkg/kubelet/metrics/collectors/resource_metrics.go`, and for `/metrics/cadvisor`
//! `github.com/google/cadvisor/metrics`.

mod exposition;
mod process;
mod usage;

use std::collections::BTreeMap;

use mainstay_cri::{
    ContainerFilter, ContainerState, PodSandboxFilter, PodSandboxState, Result, Runtime,
};
use mainstay_plan::status::is_over;

use super::pods::{NodePod, Pods};
use crate::probe::{BUCKETS, Counts};
use exposition::{Exposition, Kind, Nanoseconds};

pub(super) use exposition::CONTENT_TYPE;
pub(super) use usage::{cadvisor, resource};

/// Counts of pods and containers, and what is wrong with manifests.
pub(super) async fn node(
    node_name: &str,
    pods: &dyn Pods,
    runtime: &dyn Runtime,
) -> Result<String> {
    let told = pods.list();
    let sandboxes = runtime.list_pod_sandboxes(&PodSandboxFilter::default()).await?;
    let containers = runtime.list_containers(&ContainerFilter::default()).await?;
    let mut out = Exposition::default();
    out.family("kubelet_node_name", Kind::Gauge, "The node's name. The count is always 1.");
    out.sample(&[("node", node_name)], 1);

    let count = |wanted: &dyn Fn(&NodePod) -> bool, is_static: bool| {
        told.iter().filter(|pod| pod.key().source.is_static() == is_static && wanted(pod)).count()
    };
    let mut by_source = |name, help, wanted: &dyn Fn(&NodePod) -> bool| {
        out.family(name, Kind::Gauge, help);
        out.sample(&[("static", "")], count(wanted, false));
        out.sample(&[("static", "true")], count(wanted, true));
    };
    by_source(
        "kubelet_desired_pods",
        "The number of pods the kubelet is being instructed to run. static is true if the pod is \
         not from the apiserver.",
        &|pod| !pod.leaving,
    );
    by_source(
        "kubelet_active_pods",
        "The number of pods the kubelet considers active and which are being considered when \
         admitting new pods. static is true if the pod is not from the apiserver.",
        &|pod| !pod.leaving && !is_over(pod.status()),
    );
    if let Some(count) = pods.mirrors() {
        let help = "The number of mirror pods the kubelet will try to create (one per admitted \
                    static pod)";
        out.family("kubelet_mirror_pods", Kind::Gauge, help);
        out.sample(&[], count);
    }

    let known = |sandbox: &mainstay_cri::PodSandbox| {
        let metadata = &sandbox.metadata;
        let (namespace, name) = (&metadata.namespace, &metadata.name);
        told.iter().any(|pod| pod.key().namespace == *namespace && pod.key().name == *name)
    };
    let unknown = sandboxes.iter().filter(|sandbox| !known(sandbox)).count();
    working(&mut out, &told, unknown);

    out.family(
        "kubelet_running_pods",
        Kind::Gauge,
        "Number of pods that have a running pod sandbox",
    );
    let ready = sandboxes.iter().filter(|it| it.state == PodSandboxState::Ready).count();
    out.sample(&[], ready);
    let mut states = BTreeMap::from([("created", 0_u64), ("exited", 0), ("running", 0)]);
    for container in &containers {
        let state = match container.state {
            ContainerState::Created => "created",
            ContainerState::Running { .. } => "running",
            ContainerState::Exited { .. } => "exited",
        };
        *states.entry(state).or_default() += 1;
    }
    out.family("kubelet_running_containers", Kind::Gauge, "Number of containers currently running");
    for (state, count) in states {
        out.sample(&[("container_state", state)], count);
    }

    out.family(
        "mainstay_manifest_errors",
        Kind::Gauge,
        "What is wrong with each manifest as it is now. The kubelet has no such metric.",
    );
    for error in pods.manifest_errors() {
        out.sample(&[("file", &error.file), ("reason", error.reason)], error.count);
    }
    process::add(&mut out);
    Ok(out.into())
}

/// What probes found and how long they took. Source: `pkg/kubelet/prober/prober_manager.go`.
pub(super) fn probes(counts: &Counts) -> String {
    let mut out = Exposition::default();
    let pods = counts.all();
    let all = || {
        pods.iter().flat_map(|(key, pod)| {
            pod.probes.iter().map(move |((container, kind), count)| {
                (key, pod.uid.as_str(), container.as_str(), kind.to_string(), count)
            })
        })
    };
    out.family(
        "prober_probe_total",
        Kind::Counter,
        "Cumulative number of a liveness, readiness or startup probe for a container by result.",
    );
    for (key, uid, container, kind, count) in all() {
        for (result, count) in [("failed", count.failed), ("successful", count.successful)] {
            let labels = [
                ("container", container),
                ("namespace", &key.namespace),
                ("pod", &key.name),
                ("pod_uid", uid),
                ("probe_type", &kind),
                ("result", result),
            ];
            if count > 0 {
                out.sample(&labels, count);
            }
        }
    }
    let help = "Duration in seconds for a probe response.";
    out.family("prober_probe_duration_seconds", Kind::Histogram, help);
    for (key, _, container, kind, count) in all().filter(|(.., count)| count.successful > 0) {
        let labels = [
            ("container", container),
            ("namespace", key.namespace.as_str()),
            ("pod", &key.name),
            ("probe_type", &kind),
        ];
        let mut sum = 0;
        for ((bound, _), bucket) in BUCKETS.iter().zip(count.buckets) {
            sum += bucket;
            out.part("_bucket", &[&labels[..], &[("le", bound)]].concat(), sum);
        }
        out.part("_bucket", &[&labels[..], &[("le", "+Inf")]].concat(), count.successful);
        let took = u64::try_from(count.took.as_nanos()).unwrap_or(u64::MAX);
        out.part("_sum", &labels, Nanoseconds(took));
        out.part("_count", &labels, count.successful);
    }
    process::add_start(&mut out);
    out.into()
}

/// All fifteen series, always, as the kubelet has them. A pod that is being taken away is an
/// orphan; one of which only the runtime knows anything is that.
fn working(out: &mut Exposition, told: &[NodePod], unknown: usize) {
    out.family(
        "kubelet_working_pods",
        Kind::Gauge,
        "Number of pods the kubelet is actually running, broken down by lifecycle phase, whether \
         the pod is desired, orphaned, or runtime only (also orphaned), and whether the pod is \
         static. An orphaned pod has been removed from local configuration or force deleted in \
         the API and consumes resources that are not otherwise visible.",
    );
    for lifecycle in ["sync", "terminating", "terminated"] {
        for config in ["desired", "orphan"] {
            for (is_static, label) in [(false, ""), (true, "true")] {
                let is = |pod: &&NodePod| {
                    let (its_config, its_lifecycle) = match (pod.leaving, is_over(pod.status())) {
                        (true, _) => ("orphan", "terminating"),
                        (false, true) => ("desired", "terminated"),
                        (false, false) => ("desired", "sync"),
                    };
                    pod.key().source.is_static() == is_static
                        && its_config == config
                        && its_lifecycle == lifecycle
                };
                let labels = [("lifecycle", lifecycle), ("config", config), ("static", label)];
                out.sample(&labels, told.iter().filter(is).count());
            }
        }
        let labels = [("lifecycle", lifecycle), ("config", "runtime_only"), ("static", "unknown")];
        out.sample(&labels, if lifecycle == "terminating" { unknown } else { 0 });
    }
}
