use k8s_openapi::api::core::v1::Pod;

use super::*;

fn spec(text: &str) -> PodSpec {
    let manifest = format!("spec: {{{text}}}");
    let root = crate::yaml::read(&manifest).remove(0).root.expect("it parses");
    let mut pod: Pod = serde_json::from_value(root.to_json()).expect("it fits");
    crate::defaults::apply(&mut pod);
    pod.spec.expect("it has one")
}

#[test]
fn classes_of_service() {
    let cases = [
        ("containers: [{name: a}]", QosClass::BestEffort),
        ("containers: [{name: a, resources: {requests: {cpu: 0}}}]", QosClass::BestEffort),
        (
            "containers: [{name: a, resources: {requests: {ephemeral-storage: 1}}}]",
            QosClass::BestEffort,
        ),
        (
            "containers: [{name: a, resources: {limits: {cpu: 1, memory: 1Gi}}}]",
            QosClass::Guaranteed,
        ),
        (
            "containers: [{name: a, resources: {limits: {cpu: 1, memory: 1Gi}, requests: {cpu: 500m}}}]",
            QosClass::Burstable,
        ),
        ("containers: [{name: a, resources: {limits: {cpu: 1}}}]", QosClass::Burstable),
        (
            "containers: [{name: a, resources: {limits: {cpu: 1, memory: 1Gi}}}, {name: b}]",
            QosClass::Burstable,
        ),
        (
            "containers: [{name: a, resources: {limits: {cpu: 1, memory: 1Gi}}}], initContainers: [{name: b}]",
            QosClass::Burstable,
        ),
        (
            "containers: [{name: a}], resources: {limits: {cpu: 1, memory: 1Gi}}",
            QosClass::Guaranteed,
        ),
        ("containers: [{name: a}], resources: {requests: {cpu: 1}}", QosClass::Burstable),
    ];
    for (text, class) in cases {
        assert_eq!(QosClass::of(&spec(text)), class, "{text}");
    }
}

#[test]
fn amounts_of_a_pod() {
    let amounts = |cpu, memory| Amounts {
        cpu_milli: cpu,
        memory_bytes: memory,
        ephemeral_storage_bytes: None,
    };
    let two = spec(
        "containers: [{name: a, resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 1, memory: 128Mi}}}, {name: b, resources: {requests: {cpu: 0.0001}, limits: {memory: 1}}}]",
    );
    assert_eq!(Amounts::requested_by(&two.containers[0]), amounts(Some(100), Some(64 << 20)));
    assert_eq!(Amounts::limit_of(&two.containers[1]), amounts(None, Some(1)));
    assert_eq!(Amounts::requested_by_pod(&two), amounts(Some(101), Some((64 << 20) + 1)));
    // One container may use any amount of CPU, so the pod may.
    assert_eq!(Amounts::limit_of_pod(&two), amounts(None, Some((128 << 20) + 1)));

    let init = spec(
        "containers: [{name: a, resources: {requests: {cpu: 100m}}}], initContainers: [{name: b, resources: {requests: {cpu: 50m}}, restartPolicy: Always}, {name: c, resources: {requests: {cpu: 200m}}}], overhead: {cpu: 10m}",
    );
    assert_eq!(Amounts::requested_by_pod(&init).cpu_milli, Some(260));
    let limit = |init: &str| {
        let main = "containers: [{name: a, resources: {limits: {cpu: 1}}}]";
        Amounts::limit_of_pod(&spec(&format!("{main}, initContainers: [{init}]"))).cpu_milli
    };
    let (limited, free) = ("resources: {limits: {cpu: 2}}", "resources: {}");
    let sidecar = "restartPolicy: Always";
    assert_eq!(limit(&format!("{{name: b, {limited}}}")), Some(2000));
    assert_eq!(limit(&format!("{{name: b, {free}}}")), None);
    assert_eq!(limit(&format!("{{name: b, {limited}, {sidecar}}}")), Some(3000));
    assert_eq!(limit(&format!("{{name: b, {free}, {sidecar}}}")), None);
    let both = format!("{{name: b, {limited}, {sidecar}}}, {{name: c, {free}}}");
    assert_eq!(limit(&both), Some(3000));
    let whole = spec(
        "containers: [{name: a, resources: {limits: {cpu: 1}}}], resources: {limits: {cpu: 3}}",
    );
    assert_eq!(Amounts::limit_of_pod(&whole).cpu_milli, Some(3000));
    assert_eq!(Amounts::requested_by_pod(&whole).cpu_milli, Some(1000));
    assert_eq!(Amounts::limit_of_pod(&spec("containers: [{name: a}]")), Amounts::default());
}
