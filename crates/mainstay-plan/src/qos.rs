//! The control groups of the classes of service, in the one that all pods are in.
//!
//! A guaranteed pod is right in that one. The others are in the group of their class, which weighs against the
//! guaranteed pods what its pods ask for together: so those that ask for nothing get what nobody else wants,
//! however many they are. Source: `pkg/kubelet/cm/qos_container_manager_linux.go`, `GetPodContainerName` in
//! `pkg/kubelet/cm/pod_container_manager_linux.go`.

use mainstay_pod::{Amounts, Pod, QosClass};

use crate::resources::shares;

/// The classes that have a group.
const CLASSES: [QosClass; 2] = [QosClass::Burstable, QosClass::BestEffort];

/// The control group of a version of a pod, below the `root` of all pods.
pub fn cgroup(root: &str, pod: &Pod) -> String {
    cgroup_in(root, pod.qos_class(), pod.uid())
}

/// The control groups that a version of a pod may have, where it is not known any more what it was like.
pub fn cgroups<'a>(root: &'a str, uid: &'a str) -> impl Iterator<Item = String> + use<'a> {
    let classes = [QosClass::Guaranteed].into_iter().chain(CLASSES);
    classes.map(move |class| cgroup_in(root, class, uid))
}

fn cgroup_in(root: &str, class: QosClass, uid: &str) -> String {
    format!("{}/pod{uid}", class_group(root, class))
}

/// The group that the pods of a class are in.
fn class_group(root: &str, class: QosClass) -> String {
    let root = root.trim_end_matches('/');
    match class {
        QosClass::Guaranteed => root.to_owned(),
        QosClass::Burstable => format!("{root}/burstable"),
        QosClass::BestEffort => format!("{root}/besteffort"),
    }
}

/// The groups of the classes, without what they weigh.
pub fn class_groups(root: &str) -> impl Iterator<Item = String> {
    CLASSES.into_iter().map(move |class| class_group(root, class))
}

/// The groups of the classes, and how many shares of processor time (2 to 262144, 1024 for a processor) each is
/// to have while these pods may run. Source: `setCPUCgroupConfig`.
pub fn class_shares<'a>(
    root: &str,
    pods: impl Iterator<Item = &'a Pod>,
) -> impl Iterator<Item = (String, u64)> {
    let burstable = pods.filter(|pod| pod.qos_class() == QosClass::Burstable);
    let requested = burstable
        .filter_map(|pod| Amounts::requested_by_pod(pod.spec()).cpu_milli)
        .fold(0, u64::saturating_add);
    CLASSES.into_iter().map(move |class| {
        let milli = if class == QosClass::Burstable { requested } else { 0 };
        (class_group(root, class), shares(milli))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn pod(resources: &str) -> Arc<Pod> {
        mainstay_testkit::pods::pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\nspec:\n  containers:\n  \
             - {{name: a, image: i, resources: {resources}}}\n"
        ))
    }

    #[test]
    fn a_pod_is_in_the_group_of_its_class() {
        for (resources, expected) in [
            ("{}", "/m/besteffort/pod"),
            ("{requests: {memory: 1Mi}}", "/m/burstable/pod"),
            ("{limits: {cpu: 1, memory: 1Mi}}", "/m/pod"),
        ] {
            let pod = pod(resources);
            let expected = format!("{expected}{}", pod.uid());
            for root in ["/m", "/m/"] {
                assert_eq!(cgroup(root, &pod), expected);
                assert!(cgroups(root, pod.uid()).any(|group| group == expected), "{expected}");
            }
        }
    }

    #[test]
    fn a_class_weighs_what_its_pods_ask_for() {
        let of = |resources: &[&str]| -> Vec<(String, u64)> {
            let pods: Vec<_> = resources.iter().map(|it| pod(it)).collect();
            class_shares("/m", pods.iter().map(|pod| &**pod)).collect()
        };
        let are = |burstable| vec![("/m/burstable".into(), burstable), ("/m/besteffort".into(), 2)];
        assert_eq!(of(&[]), are(2));
        assert_eq!(of(&["{}", "{}", "{limits: {cpu: 8, memory: 1Mi}}"]), are(2));
        assert_eq!(of(&["{requests: {cpu: 500m}}", "{requests: {memory: 1Mi}}"]), are(512));
        assert_eq!(of(&["{requests: {cpu: 500m}}", "{requests: {cpu: 1}}", "{}"]), are(1536));
        assert_eq!(of(&["{requests: {cpu: 1M}}"; 2]), are(262_144));
    }
}
