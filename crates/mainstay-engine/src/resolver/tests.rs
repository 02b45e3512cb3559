use std::collections::BTreeMap;

use jiff::Timestamp;
use mainstay_cri::{NamespaceOptions, PodSandboxMetadata, SandboxId};

use super::*;
use crate::record::Pairs;

fn record(maker: Maker, network: NamespaceMode, ips: &[IpAddr]) -> SandboxRecord {
    let names = "web.default.svc,web-n1.default.svc";
    SandboxRecord {
        id: SandboxId("s".to_owned()),
        maker,
        created_at: Timestamp::UNIX_EPOCH,
        metadata: PodSandboxMetadata {
            name: "web".to_owned(),
            uid: "u".to_owned(),
            namespace: "default".to_owned(),
            attempt: 0,
        },
        hostname: String::new(),
        log_directory: String::new(),
        labels: Pairs::default(),
        annotations: Pairs::from(&BTreeMap::from([(DNS_NAMES.to_owned(), names.to_owned())])),
        cgroup_parent: String::new(),
        namespaces: NamespaceOptions { network, ..NamespaceOptions::default() },
        port_mappings: Vec::new(),
        ips: ips.to_vec(),
        ready: true,
        shim: None,
    }
}

#[test]
fn names_are_given_to_sandboxes_of_the_agent_that_can_be_reached() {
    let [ip, machine] = ["10.1.0.2", "192.0.2.1"].map(|ip| ip.parse::<IpAddr>().unwrap());
    let of = |maker, network, ips: &[IpAddr]| {
        let host = host(&record(maker, network, ips), &[machine])?;
        assert_eq!(host.names, ["web.default.svc", "web-n1.default.svc"]);
        assert_eq!(host.by_address, "default.pod");
        Some((host.addresses, host.reverse))
    };
    let (own, shared) = (NamespaceMode::Pod, NamespaceMode::Node);
    assert_eq!(of(Maker::Agent, own, &[ip]), Some((vec![ip], true)));
    assert_eq!(of(Maker::Agent, own, &[]), None);
    assert_eq!(of(Maker::Agent, shared, &[]), Some((vec![machine], false)));
    // Whoever makes sandboxes by the CRI says what he likes.
    assert_eq!(of(Maker::Client, own, &[ip]), None);
    assert_eq!(of(Maker::Client, shared, &[]), None);
}
