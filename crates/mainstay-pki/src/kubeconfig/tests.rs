use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::{Pki, Wanted};

#[test]
fn written_once_and_never_over_somebody_elses() {
    let directory = tempfile::tempdir().unwrap();
    let now = "2027-03-04T05:06:07Z".parse().unwrap();
    let (pki, _) = Pki::open(&directory.path().join("pki"), &Wanted::default(), now).unwrap();
    let config = Kubeconfig {
        server: "https://127.0.0.1:6443",
        authority_pem: pki.authority().certificates_pem(),
        user: "kubernetes-admin",
        identity: pki.admin(),
    };
    let text = config.render();
    assert!(text.contains("\n    server: \"https://127.0.0.1:6443\"\n"), "{text}");
    assert!(text.contains("\ncurrent-context: mainstay\n"), "{text}");
    for line in text.lines().filter(|line| line.contains("-data: ")) {
        let data = STANDARD.decode(line.split_once(": ").unwrap().1).unwrap();
        assert!(data.starts_with(b"-----BEGIN "), "{line}");
    }

    let path = directory.path().join("config");
    assert_eq!(config.write(&path).unwrap(), Written::Changed);
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
    let mode = || fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(config.write(&path).unwrap(), Written::Unchanged);
    assert_eq!(mode(), 0o600);
    let moved = Kubeconfig { server: "https://127.0.0.1:6444", ..config };
    assert_eq!(moved.write(&path).unwrap(), Written::Changed);

    // A link stays a link.
    let link = directory.path().join("link");
    symlink(&path, &link).unwrap();
    assert_eq!(config.write(&link).unwrap(), Written::Changed);
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read_to_string(&path).unwrap(), text);

    for content in [b"apiVersion: v1\nkind: Config\n".as_slice(), b"\xff\xfe"] {
        fs::write(&path, content).unwrap();
        let error = config.write(&path).unwrap_err();
        assert!(matches!(error, KubeconfigError::SomebodyElses { .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    fs::write(&path, "").unwrap();
    assert_eq!(config.write(&path).unwrap(), Written::Changed);

    let nowhere = config.write(&directory.path().join("none/config")).unwrap_err();
    assert!(matches!(nowhere, KubeconfigError::NoDirectory { .. }));
}

#[test]
fn what_was_written_can_be_read() {
    let directory = tempfile::tempdir().unwrap();
    let now = "2027-03-04T05:06:07Z".parse().unwrap();
    let (pki, _) = crate::Pki::open(directory.path(), &crate::Wanted::default(), now).unwrap();
    let text = Kubeconfig {
        server: "https://[fd00::7]:6443",
        authority_pem: pki.authority().certificates_pem(),
        user: "kubernetes-admin",
        identity: pki.admin(),
    }
    .render();
    let read = ReadKubeconfig::parse(&text).unwrap();
    assert_eq!(read.server, "https://[fd00::7]:6443");
    assert_eq!(read.authority, pki.authority().certificates());
    assert_eq!(read.certificate, *pki.admin().certificate());
    assert_eq!(rustls_pki_types::PrivateKeyDer::Pkcs8(read.key), pki.admin().key());
    assert!(ReadKubeconfig::parse(&text[1..]).is_none());
    assert!(ReadKubeconfig::parse(&text.replace("server", "serving")).is_none());
}
