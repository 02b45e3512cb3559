use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use jiff::SignedDuration;

use super::*;
use crate::certificate::Usage;
use crate::pki::{Pki, Wanted};
use crate::renewal::Reason;

fn now() -> Timestamp {
    "2027-03-04T05:06:07Z".parse().unwrap()
}

fn wanted() -> Leaf {
    Leaf {
        common_name: "system:node:n1".to_owned(),
        organization: Some("system:nodes".to_owned()),
        usage: Usage::Client,
        names: BTreeSet::new(),
    }
}

fn authority(directory: &Path) -> Pki {
    Pki::open(directory, &Wanted::default(), now()).unwrap().0
}

fn sign(pki: &Pki, request: &NodeRequest) -> String {
    let usages = ["digital signature".to_owned(), "client auth".to_owned()];
    let life = SignedDuration::from_hours(24);
    pki.authority().sign(request.pem.as_bytes(), &usages, life, now()).unwrap()
}

#[test]
fn a_request_is_the_same_until_it_is_answered() {
    let directory = tempfile::tempdir().unwrap();
    let pki = authority(&directory.path().join("pki"));
    let path = directory.path().join("joined");
    let credentials = NodeCredentials::open(&path).unwrap();
    assert!(credentials.authority().unwrap().is_none());
    credentials.trust(&pki.authority().own()).unwrap();
    assert_eq!(credentials.authority().unwrap().unwrap(), pki.authority().own());
    let client = NodeCertificate::Client;
    let request = credentials.request(client, &wanted()).unwrap();
    // The agent was killed.
    let again = NodeCredentials::open(&path).unwrap().request(client, &wanted()).unwrap();
    assert_eq!(again.digest, request.digest);
    assert!(credentials.identity(client, &wanted(), now()).unwrap().is_none());
    credentials.keep(client, &sign(&pki, &again)).unwrap();
    let (identity, renewal) = credentials.identity(client, &wanted(), now()).unwrap().unwrap();
    // A third of the life, the head start of two hours with it, before its end.
    let until = now() + SignedDuration::from_hours(24) - SignedDuration::from_mins(26 * 20);
    assert_eq!(renewal, Renewal::Keep { until });
    assert!(!identity.certificate_pem().contains("PRIVATE"));
    // The next one has another key, and the old certificate stays until it is there.
    let next = credentials.request(client, &wanted()).unwrap();
    assert_ne!(next.digest, request.digest);
    assert!(credentials.identity(client, &wanted(), now()).unwrap().is_some());
    for entry in fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if name == "ca.crt" { 0o644 } else { 0o600 }, "{name}");
    }
}

#[test]
fn what_is_not_the_nodes_is_not_kept() {
    let directory = tempfile::tempdir().unwrap();
    let (ours, other) = (directory.path().join("pki"), directory.path().join("other"));
    let (ours, other) = (authority(&ours), authority(&other));
    let credentials = NodeCredentials::open(&directory.path().join("joined")).unwrap();
    credentials.trust(&ours.authority().own()).unwrap();
    let client = NodeCertificate::Client;
    let request = credentials.request(client, &wanted()).unwrap();
    assert!(credentials.keep(client, &sign(&other, &request)).is_err());
    let signed = sign(&ours, &request);
    let key = directory.path().join("joined/kubelet-client.key");
    fs::remove_file(&key).unwrap();
    assert!(credentials.keep(client, &signed).is_err());
    credentials.request(client, &wanted()).unwrap();
    assert!(credentials.keep(client, &signed).is_err());
    let request = credentials.request(client, &wanted()).unwrap();
    credentials.keep(client, &sign(&ours, &request)).unwrap();
    // Another name, another API.
    let renamed = Leaf { common_name: "system:node:n2".to_owned(), ..wanted() };
    let (_, renewal) = credentials.identity(client, &renamed, now()).unwrap().unwrap();
    assert_eq!(renewal, Renewal::Issue(Reason::OtherSubject));
    credentials.trust(&other.authority().own()).unwrap();
    assert!(credentials.identity(client, &wanted(), now()).unwrap().is_none());
}
