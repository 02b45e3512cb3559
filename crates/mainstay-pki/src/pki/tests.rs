use std::fs;
use std::os::unix::fs::PermissionsExt;

use jiff::SignedDuration;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::*;
use crate::EARLIEST_PLAUSIBLE;

fn wanted() -> Wanted {
    Wanted {
        node_name: "node-1".to_owned(),
        host_name: "box".to_owned(),
        addresses: ["192.0.2.7", "2001:db8::7"].map(|it| it.parse().unwrap()).into(),
        extra: ["api.example.com".parse().unwrap()].into(),
    }
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

const NOW: &str = "2027-03-04T05:06:07Z";

fn days(count: i64) -> SignedDuration {
    SignedDuration::from_hours(24 * count)
}

struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { path: directory.path().join("root/pki"), _directory: directory }
    }

    fn open(&self, now: Timestamp) -> (Pki, Vec<String>) {
        self.open_for(&wanted(), now)
    }

    fn open_for(&self, wanted: &Wanted, now: Timestamp) -> (Pki, Vec<String>) {
        let (pki, notes) = Pki::open(&self.path, wanted, now).unwrap();
        let prefix = format!("{}/", self.path.display());
        let notes = notes.iter().map(|note| note.to_string().replace(&prefix, "")).collect();
        (pki, notes)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

/// What a client does with a server's certificate, in one of the implementations that are used.
fn accepts(
    trusted: &[CertificateDer<'static>],
    shown: &Identity,
    name: &str,
    now: Timestamp,
) -> bool {
    use rustls::client::danger::ServerCertVerifier;
    let mut roots = rustls::RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    verifier.verify_server_cert(shown.certificate(), &[], &name, &[], unix(now)).is_ok()
}

/// What the server does with a client's certificate.
fn welcomes(trusted: &[CertificateDer<'static>], shown: &Identity, now: Timestamp) -> bool {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in trusted {
        roots.add(certificate.clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap();
    verifier.verify_client_cert(shown.certificate(), &[], unix(now)).is_ok()
}

fn unix(now: Timestamp) -> UnixTime {
    UnixTime::since_unix_epoch(std::time::Duration::from_secs(now.as_second().try_into().unwrap()))
}

#[test]
fn everything_is_made_once() {
    let place = Place::new();
    let (pki, notes) = place.open(time(NOW));
    assert_eq!(
        notes,
        [
            "ca.crt",
            "apiserver.crt",
            "kubelet.crt",
            "admin.crt",
            "apiserver-kubelet-client.crt",
            "sa.key"
        ]
        .map(|name| format!("{name} was made"))
    );
    assert_eq!(pki.next_renewal(time(NOW)), time(NOW) + SignedDuration::from_hours(12));
    let content = |place: &Place| {
        let mut files: Vec<_> = fs::read_dir(&place.path)
            .unwrap()
            .map(|file| {
                let file = file.unwrap();
                let name = file.file_name().into_string().unwrap();
                let mode = file.metadata().unwrap().permissions().mode() & 0o777;
                assert_eq!(mode, if name.ends_with(".key") { 0o600 } else { 0o644 }, "{name}");
                (name, fs::read(file.path()).unwrap())
            })
            .collect();
        files.sort();
        files
    };
    let before = content(&place);
    assert_eq!(before.len(), 12);
    let mode = fs::metadata(&place.path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    for later in [0, 1, 200] {
        assert_eq!(place.open(time(NOW) + days(later)).1, [""; 0]);
        assert_eq!(content(&place), before);
    }
}

#[test]
fn clients_and_servers_believe_them() {
    let place = Place::new();
    let now = time(NOW);
    let (pki, _) = place.open(now);
    let trusted = pki.authority().certificates();
    let (other, _) = Place::new().open(now);
    for name in [
        "127.0.0.1",
        "::1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "box",
        "node-1",
        "192.0.2.7",
        "2001:db8::7",
        "api.example.com",
    ] {
        assert!(accepts(trusted, pki.api_server(), name, now), "{name}");
        let of_node = matches!(name, "box" | "node-1" | "192.0.2.7" | "2001:db8::7");
        assert_eq!(accepts(trusted, pki.node(), name, now), of_node, "{name}");
        assert!(!accepts(other.authority().certificates(), pki.api_server(), name, now));
    }
    assert!(!accepts(trusted, pki.api_server(), "example.com", now));
    assert!(!accepts(trusted, pki.admin(), "localhost", now));
    for client in [pki.admin(), pki.node_client()] {
        assert!(welcomes(trusted, client, now));
        assert!(!welcomes(other.authority().certificates(), client, now));
    }
    // What servers show is no proof of who somebody is.
    assert!(!welcomes(trusted, pki.node(), now));
    let user = crate::ClientCertificate::read(pki.admin().certificate()).unwrap();
    assert_eq!(user.subject.common_name, "kubernetes-admin");
    assert_eq!(user.subject.organizations, ["system:masters"]);
    let node = crate::ClientCertificate::read(pki.node().certificate()).unwrap();
    assert_eq!(node.subject.common_name, "system:node:node-1");
    assert_eq!(node.subject.organizations, ["system:nodes"]);
}

#[test]
fn leaves_are_renewed_in_time() {
    let place = Place::new();
    let (first, _) = place.open(time(NOW));
    let later = time(NOW) + days(250);
    let (second, notes) = place.open(later);
    assert_eq!(notes.len(), 4, "{notes:?}");
    assert!(notes.iter().all(|note| note.contains("was renewed: it ends at ")), "{notes:?}");
    assert!(accepts(first.authority().certificates(), second.api_server(), "localhost", later));
    assert_ne!(first.admin().key_pem(), second.admin().key_pem());
    // What is still valid of the first is still believed.
    assert!(welcomes(second.authority().certificates(), first.admin(), later));
    // The kubeconfig that was given out ends with its certificate.
    assert!(!welcomes(second.authority().certificates(), first.admin(), later + days(200)));
}

#[test]
fn another_address_makes_a_certificate_again() {
    let place = Place::new();
    let now = time(NOW);
    place.open(now);
    let mut wanted = wanted();
    wanted.addresses.insert("192.0.2.8".parse().unwrap());
    let (pki, notes) = place.open_for(&wanted, now);
    assert_eq!(
        notes,
        ["apiserver.crt", "kubelet.crt"]
            .map(|name| format!("{name} was renewed: it does not cover 192.0.2.8"))
    );
    assert!(accepts(pki.authority().certificates(), pki.node(), "192.0.2.8", now));
    // One less is no reason.
    wanted.addresses.clear();
    assert_eq!(place.open_for(&wanted, now).1, [""; 0]);
    wanted.node_name = "node-2".to_owned();
    let notes = place.open_for(&wanted, now).1;
    assert_eq!(
        notes,
        [
            "apiserver.crt was renewed: it does not cover node-2",
            "kubelet.crt was renewed: it is for another name"
        ]
    );
    wanted.host_name = "späti".to_owned();
    let notes = place.open_for(&wanted, now).1;
    assert_eq!(
        notes,
        ["apiserver.crt does not cover the host name \"späti\", which is not a DNS name"]
    );
}

#[test]
fn the_authority_is_renewed_under_its_key() {
    let place = Place::new();
    let (first, _) = place.open(time(NOW));
    let later = time(NOW) + days(3653 * 3 / 4);
    let (second, notes) = place.open(later);
    assert!(notes[0].starts_with("ca.crt was renewed: it ends at 2037-"), "{notes:?}");
    assert_ne!(first.authority().certificates(), second.authority().certificates());
    assert!(second.authority().not_after() > later + days(3652));
    // Old kubeconfigs trust new certificates, and the other way round.
    assert!(accepts(first.authority().certificates(), second.api_server(), "localhost", later));
    assert!(accepts(second.authority().certificates(), first.api_server(), "localhost", time(NOW)));
    assert_eq!(place.open(later).1, [""; 0]);
}

#[test]
fn more_authorities_can_be_trusted() {
    let (ours, theirs) = (Place::new(), Place::new());
    let now = time(NOW);
    ours.open(now);
    let (other, _) = theirs.open(now);
    let path = ours.file("ca.crt");
    let both =
        format!("{}{}", fs::read_to_string(&path).unwrap(), other.authority().certificates_pem());
    fs::write(&path, both).unwrap();
    let (pki, notes) = ours.open(now);
    assert_eq!(notes, [""; 0]);
    assert!(welcomes(pki.authority().certificates(), other.admin(), now));
    // Also after a renewal.
    let later = now + days(3000);
    let (pki, _) = ours.open(later);
    assert_eq!(pki.authority().certificates().len(), 2);
    let written = fs::read(&path).unwrap();
    let written: Vec<_> =
        CertificateDer::pem_slice_iter(&written).collect::<Result<_, _>>().unwrap();
    assert_eq!(written, pki.authority().certificates());
    assert_eq!(written[1], other.authority().certificates()[0]);
    assert!(accepts(pki.authority().certificates(), pki.api_server(), "localhost", later));
}

#[test]
fn broken_leaves_are_made_again() {
    let broken = "or its key was missing or broken; both have been made again";
    for (name, content) in [
        ("apiserver.crt", Some("")),
        ("apiserver.crt", Some("-----BEGIN CERTIFICATE-----\nMIIB")),
        ("apiserver.crt", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")),
        ("apiserver.crt", None),
        ("apiserver.key", Some("not a key")),
        ("apiserver.key", None),
    ] {
        let place = Place::new();
        place.open(time(NOW));
        match content {
            Some(content) => fs::write(place.file(name), content).unwrap(),
            None => fs::remove_file(place.file(name)).unwrap(),
        }
        let (pki, notes) = place.open(time(NOW));
        assert_eq!(notes, [format!("apiserver.crt {broken}")], "{name} {content:?}");
        assert!(accepts(pki.authority().certificates(), pki.api_server(), "localhost", time(NOW)));
        assert_eq!(place.open(time(NOW)).1, [""; 0]);
    }
}

#[test]
fn foreign_leaves_are_made_again() {
    let (place, other) = (Place::new(), Place::new());
    place.open(time(NOW));
    other.open(time(NOW));
    for name in ["admin.crt", "admin.key"] {
        fs::copy(other.file(name), place.file(name)).unwrap();
    }
    fs::copy(place.file("kubelet.key"), place.file("apiserver.key")).unwrap();
    let (_, notes) = place.open(time(NOW));
    assert_eq!(
        notes,
        [
            "apiserver.crt was renewed: the key beside it belongs to another certificate",
            "admin.crt was renewed: another authority has signed it",
        ]
    );
}

#[test]
fn a_broken_authority_is_named_with_the_way_out() {
    for (name, content, expected) in [
        (
            "ca.key",
            Some(""),
            "ca.key is not a private key in PKCS#8 form (\"PRIVATE KEY\"); restore",
        ),
        ("ca.key", Some("-----BEGIN PRIVATE KEY-----\nMIGH"), "ca.key is not a private key"),
        ("ca.key", None, "ca.crt is there without ca.key; restore ca.crt and ca.key from a backup"),
        ("ca.crt", Some("-----BEGIN CERTIFICATE-----\nMIIB"), "ca.crt is not a certificate"),
        ("ca.crt", Some(""), "ca.crt is not a certificate"),
    ] {
        let place = Place::new();
        place.open(time(NOW));
        match content {
            Some(content) => fs::write(place.file(name), content).unwrap(),
            None => fs::remove_file(place.file(name)).unwrap(),
        }
        let error = Pki::open(&place.path, &wanted(), time(NOW)).unwrap_err();
        assert!(matches!(error, PkiError::Broken { .. }));
        assert!(error.to_string().contains(expected), "{error}");
    }
    let (place, other) = (Place::new(), Place::new());
    place.open(time(NOW));
    other.open(time(NOW));
    for (from, expected) in
        [("ca.crt", "and ca.key do not belong together"), ("kubelet.crt", "do not belong together")]
    {
        fs::copy(other.file(from), place.file("ca.crt")).unwrap();
        let error = Pki::open(&place.path, &wanted(), time(NOW)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    for name in ["crt", "key"] {
        fs::copy(other.file(&format!("kubelet.{name}")), place.file(&format!("ca.{name}")))
            .unwrap();
    }
    let error = Pki::open(&place.path, &wanted(), time(NOW)).unwrap_err();
    assert!(error.to_string().contains("is not the certificate of an authority"), "{error}");
}

#[test]
fn the_start_can_be_cut_off_anywhere() {
    let place = Place::new();
    let (first, _) = place.open(time(NOW));
    // The certificate had not been written yet.
    fs::remove_file(place.file("ca.crt")).unwrap();
    let (second, notes) = place.open(time(NOW));
    assert_eq!(notes, ["ca.crt was made"]);
    assert!(accepts(second.authority().certificates(), first.api_server(), "localhost", time(NOW)));
    fs::remove_file(place.file("sa.pub")).unwrap();
    assert_eq!(place.open(time(NOW)).1, [""; 0]);
    assert!(place.file("sa.pub").exists());
}

#[test]
fn secrets_that_were_open_to_others_are_closed() {
    let place = Place::new();
    place.open(time(NOW));
    let paths =
        [place.path.clone(), place.file("ca.key"), place.file("admin.key"), place.file("sa.key")];
    for path in &paths {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (_, notes) = Pki::open(&place.path, &wanted(), time(NOW)).unwrap();
    let found: Vec<_> = notes.iter().map(ToString::to_string).collect();
    assert_eq!(notes.len(), paths.len(), "{found:?}");
    for (path, note) in paths.iter().zip(&notes) {
        assert!(note.is_warning());
        assert!(
            note.to_string().starts_with(&format!("{} could be read by others", path.display()))
        );
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o077, 0);
    }
}

/// Started without a clock; then the clock is set. Everything works before, at the moment and after.
#[test]
fn a_clock_that_is_set_later() {
    for unset in ["1970-01-01T00:00:30Z", "2000-01-01T00:00:00Z"] {
        let place = Place::new();
        let (unset, set) = (time(unset), time(NOW));
        let (early, _) = place.open(unset);
        assert!(early.next_renewal(unset) <= unset + SignedDuration::from_mins(1));
        for now in [unset, EARLIEST_PLAUSIBLE, set] {
            let trusted = early.authority().certificates();
            assert!(accepts(trusted, early.api_server(), "localhost", now), "at {now}");
            assert!(welcomes(trusted, early.admin(), now), "at {now}");
        }
        assert_eq!(place.open(unset).1, [""; 0]);
        let (late, notes) = place.open(set);
        assert_eq!(notes.len(), 4);
        assert!(
            notes.iter().all(|it| it.ends_with("made while the clock was not set")),
            "{notes:?}"
        );
        assert!(accepts(early.authority().certificates(), late.api_server(), "localhost", set));
        assert_eq!(place.open(set).1, [""; 0]);
        // The next boot is in 1970 again.
        let (again, notes) = place.open(unset);
        assert_eq!(notes.len(), 4, "{notes:?}");
        assert!(accepts(early.authority().certificates(), again.api_server(), "localhost", unset));
    }
}

/// Started with a clock that was years ahead; then it is put right.
#[test]
fn a_clock_that_ran_ahead() {
    let place = Place::new();
    let (ahead, _) = place.open(time("2091-01-01T00:00:00Z"));
    let now = time(NOW);
    let (pki, notes) = place.open(now);
    assert_eq!(notes.len(), 4, "{notes:?}");
    assert!(notes.iter().all(|it| it.ends_with("it is not valid yet")), "{notes:?}");
    // The authority is the same, byte for byte: no kubeconfig is lost.
    assert_eq!(ahead.authority().certificates(), pki.authority().certificates());
    assert!(accepts(ahead.authority().certificates(), pki.api_server(), "localhost", now));
}
