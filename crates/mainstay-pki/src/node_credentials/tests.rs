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
    credentials.keep(client, &sign(&pki, &again), now()).unwrap();
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
    assert!(credentials.keep(client, &sign(&other, &request), now()).is_err());
    let signed = sign(&ours, &request);
    let key = directory.path().join("joined/kubelet-client.key");
    fs::remove_file(&key).unwrap();
    assert!(credentials.keep(client, &signed, now()).is_err());
    credentials.request(client, &wanted()).unwrap();
    assert!(credentials.keep(client, &signed, now()).is_err());
    let request = credentials.request(client, &wanted()).unwrap();
    credentials.keep(client, &sign(&ours, &request), now()).unwrap();
    // Another name, another API.
    let renamed = Leaf { common_name: "system:node:n2".to_owned(), ..wanted() };
    let (_, renewal) = credentials.identity(client, &renamed, now()).unwrap().unwrap();
    assert_eq!(renewal, Renewal::Issue(Reason::OtherSubject));
    credentials.trust(&other.authority().own()).unwrap();
    assert!(credentials.identity(client, &wanted(), now()).unwrap().is_none());
}

/// The names in a directory.
fn names(path: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(path).unwrap();
    entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_kubelets_directory_has_a_link_to_the_newest() {
    let directory = tempfile::tempdir().unwrap();
    let pki = authority(&directory.path().join("pki"));
    let path = directory.path().join("kubelet/pki");
    let credentials = NodeCredentials::of_kubelet(&path).unwrap();
    let (client, serving) = (NodeCertificate::Client, NodeCertificate::Serving);
    assert!(credentials.identity(client, &wanted(), now()).unwrap().is_none());
    let request = credentials.request(client, &wanted()).unwrap();
    assert_eq!(names(&path), BTreeSet::from(["kubelet-client.key.tmp".to_owned()]));
    // Whoever has signed it is the cluster's matter.
    credentials.keep(client, &sign(&pki, &request), now()).unwrap();
    let dated = "kubelet-client-2027-03-04-05-06-07.pem";
    let current = "kubelet-client-current.pem".to_owned();
    assert_eq!(names(&path), BTreeSet::from([dated.to_owned(), current.clone()]));
    assert_eq!(credentials.current_path(client), path.join(&current));
    assert_eq!(fs::read_link(path.join(&current)).unwrap(), path.join(dated));
    let (first, renewal) = credentials.identity(client, &wanted(), now()).unwrap().unwrap();
    assert!(matches!(renewal, Renewal::Keep { .. }));
    // The machine lost its power between two steps of the next one.
    let newest = "newest.pem";
    fs::copy(path.join(dated), path.join(newest)).unwrap();
    symlink(path.join(newest), path.join("kubelet-client-updated.pem")).unwrap();
    let credentials = NodeCredentials::of_kubelet(&path).unwrap();
    assert_eq!(fs::read_link(path.join(&current)).unwrap(), path.join(newest));
    let (newest, _) = credentials.identity(client, &wanted(), now()).unwrap().unwrap();
    assert_eq!(newest.certificate(), first.certificate());
    let request = credentials.request(client, &wanted()).unwrap();
    let later = now() + SignedDuration::from_secs(1);
    credentials.keep(client, &sign(&pki, &request), later).unwrap();
    let link = fs::read_link(path.join(&current)).unwrap();
    assert!(link.ends_with("kubelet-client-2027-03-04-05-06-08.pem"), "{link:?}");
    let leaf = Leaf { usage: Usage::Server, ..wanted() };
    credentials.request(serving, &leaf).unwrap();
    assert!(path.join("kubelet-server.key.tmp").exists());
}

#[test]
fn a_certificate_and_its_key_are_found_in_any_order() {
    let directory = tempfile::tempdir().unwrap();
    let pki = authority(&directory.path().join("pki"));
    let (certificate, key) = (pki.admin().certificate_pem(), pki.admin().key_pem());
    for (text, certificates) in [
        (format!("{certificate}{key}"), 1),
        (format!("{key}{certificate}"), 1),
        (format!("a note\n{certificate}\n\n{certificate}{key}"), 2),
    ] {
        let (identity, facts) = read(&text, None).unwrap();
        assert!(facts.key_matches && facts.by_authority, "{text}");
        assert_eq!(identity.intermediates().len() + 1, certificates);
    }
    assert!(read(certificate, None).is_none() && read(key, None).is_none());
    assert!(Identity::of_pem(certificate, pki.node().key_pem()).is_none());
}
