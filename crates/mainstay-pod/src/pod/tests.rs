use expect_test::expect;

use super::*;
use crate::{Entry, NodeName, ReadOptions, SourceKind, Validation, read};

fn pod(spec: &str) -> Pod {
    let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\nspec: {{{spec}}}\n");
    let options = ReadOptions {
        validation: Validation::Strict,
        node_name: NodeName::new("n1").expect("a name"),
        source: SourceKind::File,
        seen: "2026-01-02T03:04:05.000000006Z".to_owned(),
    };
    match read("/etc/web.yaml", text.as_bytes(), &options).entries.remove(0) {
        Entry::Pod { pod, .. } => (*pod).clone(),
        other => panic!("refused: {other:?}"),
    }
}

#[test]
fn what_a_pod_knows_of_itself() {
    let pod = pod(
        "containers: [{name: a, image: i, ports: [{containerPort: 80, hostPort: 8080}, {containerPort: 53, hostPort: 53, protocol: UDP, hostIP: 10.0.0.1}, {containerPort: 1}], resources: {limits: {cpu: 1, memory: 1Mi}}}], restartPolicy: OnFailure, terminationGracePeriodSeconds: 5",
    );
    assert_eq!(pod.full_name().to_string(), "web-n1_default");
    assert_eq!((pod.name(), pod.namespace()), ("web-n1", "default"));
    assert_eq!((pod.uid().len(), pod.content_hash().len()), (32, 32));
    assert_eq!(pod.config_path(), Some("/etc/web.yaml"));
    assert_eq!(pod.termination_grace_period(), Duration::from_secs(5));
    assert_eq!(pod.restart_policy(), RestartPolicy::OnFailure);
    assert_eq!(pod.qos_class(), QosClass::Guaranteed);
    assert!(!pod.is_host_network());
    let ports: Vec<String> = pod
        .host_ports()
        .into_iter()
        .map(|it| {
            format!(
                "{} {:?} {} {} {}",
                it.protocol, it.host_ip, it.host_port, it.container_port, it.container
            )
        })
        .collect();
    assert_eq!(ports, ["TCP \"\" 8080 80 a", "UDP \"10.0.0.1\" 53 53 a"]);
    let later = pod.clone().with_config_seen("2027-01-01T00:00:00Z");
    assert_eq!(later.config_seen(), Some("2027-01-01T00:00:00Z"));
    assert_eq!(later.uid(), pod.uid());
}

#[test]
fn other_policies() {
    let containers = "containers: [{name: a, image: i}]";
    let other = pod(&format!(
        "{containers}, hostNetwork: true, restartPolicy: Never, terminationGracePeriodSeconds: -3"
    ));
    assert_eq!(other.restart_policy(), RestartPolicy::Never);
    assert_eq!(other.termination_grace_period(), Duration::from_secs(1));
    assert!(other.is_host_network());
    let usual = pod(containers);
    assert_eq!(usual.restart_policy(), RestartPolicy::Always);
    assert_eq!(usual.termination_grace_period(), Duration::from_secs(30));
    assert_eq!(usual.qos_class(), QosClass::BestEffort);
}

#[test]
fn a_pod_survives_being_stored() {
    let pod = pod(
        "containers: [{name: a, image: i, env: [{name: A, value: 'é\\n'}], resources: {limits: {cpu: 0.1, memory: 1.5Gi}}}], volumes: [{name: v, emptyDir: {}}], securityContext: {runAsUser: 0}",
    );
    let again = Pod::from_stored(&pod.to_stored()).expect("it was stored");
    assert_eq!(again, pod);
    assert_eq!(again.to_stored(), pod.to_stored());
}

/// What version 1 wrote is read by every later version.
#[test]
fn the_first_format_is_read() {
    let stored = r#"{"format":1,"contentHash":"c0","pod":{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web-n1","namespace":"default","uid":"u0","annotations":{"mainstay.dev/config.path":"/a"}},"spec":{"containers":[{"name":"web","image":"nginx"}],"restartPolicy":"Never","fieldOfALaterVersion":1}}}"#;
    let pod = Pod::from_stored(stored).expect("it is read");
    assert_eq!((pod.uid(), pod.content_hash(), pod.config_path()), ("u0", "c0", Some("/a")));
}

#[test]
fn what_cannot_be_a_stored_pod() {
    let error = |text: &str| Pod::from_stored(text).expect_err("it is none").to_string();
    let texts = [
        "",
        "{}",
        r#"{"format":2,"contentHash":"","pod":{}}"#,
        r#"{"format":1,"contentHash":"","pod":{"metadata":{"name":"a"}}}"#,
        r#"{"format":1,"contentHash":"","pod":{"metadata":{"name":"a","namespace":"b","uid":"c"}}}"#,
    ];
    expect![[r#"
        a stored pod cannot be read
        a stored pod cannot be read
        a stored pod has format 2, this version of mainstay knows 1
        a stored pod has no namespace
        a stored pod has no container"#]]
    .assert_eq(&texts.map(error).join("\n"));
}
