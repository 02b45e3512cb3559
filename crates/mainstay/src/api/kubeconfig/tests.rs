use std::fs;

use jiff::Timestamp;
use mainstay_pki::{Pki, Wanted};

use super::*;

struct World {
    directory: tempfile::TempDir,
    pki: Pki,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pki");
        let (pki, _) = Pki::open(&path, &Wanted::default(), Timestamp::now()).unwrap();
        Self { directory, pki }
    }

    fn read(&self, text: &str) -> Result<Kubeconfig, String> {
        let path = self.directory.path().join("k");
        fs::write(&path, text).unwrap();
        let read = Kubeconfig::read(&path);
        let name = format!("{}/", self.directory.path().display());
        read.map_err(|error| format!("{error:#}").replace(&name, ""))
    }

    fn authority(&self) -> String {
        STANDARD.encode(self.pki.authority().certificates_pem())
    }
}

fn config(cluster: &str, user: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\npreferences: {{}}\ncurrent-context: c\n\
         clusters:\n- name: other\n  cluster: {{}}\n- name: k\n  cluster: {{{cluster}}}\n\
         contexts:\n- name: c\n  context: {{cluster: k, user: u, namespace: default}}\n\
         users:\n- name: u\n  user: {{{user}}}\n"
    )
}

#[test]
fn what_kubeadm_k3s_and_clouds_write_is_read() {
    let world = World::new();
    let (data, admin) = (world.authority(), world.pki.admin());
    let both = format!("{}{}", admin.certificate_pem(), admin.key_pem());
    fs::write(world.directory.path().join("node.pem"), both).unwrap();
    fs::write(world.directory.path().join("token"), "abc\n").unwrap();
    let named = Trusted::Authorities(world.pki.authority().certificates().to_vec());
    // The kubelet's own of kubeadm.
    let text = config(
        &format!("certificate-authority-data: {data}, server: 'https://192.0.2.1:6443'"),
        "client-certificate: node.pem, client-key: node.pem",
    );
    let read = world.read(&text).unwrap();
    assert_eq!(read.trusted, named);
    assert_eq!(read.identity().unwrap().certificate(), admin.certificate());
    assert_eq!(read.certificate_file, Some(world.directory.path().join("node.pem")));
    // k3s: the authority in a file.
    let text = config(
        "certificate-authority: pki/ca.crt, server: 'https://127.0.0.1:6444'",
        "client-certificate: pki/admin.crt, client-key: pki/admin.key",
    );
    let read = world.read(&text).unwrap();
    assert_eq!((read.trusted, read.token), (named.clone(), None));
    // An admin's, and a bootstrap one, whose token a file counts more than.
    let (certificate, key) =
        (STANDARD.encode(admin.certificate_pem()), STANDARD.encode(admin.key_pem()));
    let text = config(
        &format!("certificate-authority-data: {data}, server: 'https://k.example.com/k8s/c-1'"),
        &format!("client-certificate-data: {certificate}, client-key-data: {key}"),
    );
    assert!(world.read(&text).unwrap().certificate_file.is_none());
    for (user, token) in [
        ("token: abcdef.0123456789abcdef", "abcdef.0123456789abcdef"),
        ("token: other, tokenFile: token", "abc"),
    ] {
        let cluster = "server: 'https://a:1', tls-server-name: kubernetes";
        let read = world.read(&config(cluster, user)).unwrap();
        assert_eq!((read.token.as_deref(), read.trusted), (Some(token), Trusted::Machines));
        assert_eq!(read.server_name, Some("kubernetes".try_into().unwrap()));
    }
    let insecure = "server: 'https://a:1', insecure-skip-tls-verify: true";
    assert_eq!(world.read(&config(insecure, "")).unwrap().trusted, Trusted::Anybody);
}

#[test]
fn what_cannot_be_used_is_named() {
    let world = World::new();
    let good = "server: 'https://a:1'";
    fs::write(world.directory.path().join("lines"), "a\nb\n").unwrap();
    for (text, expected) in [
        ("", "k: the file has to hold one document"),
        ("- a", "k: it is no kubeconfig"),
        ("kind: Pod", "k: it is no kubeconfig, but of kind \"Pod\""),
        ("kind: Config", "k: it has no current-context"),
        ("current-context: x", "k: context \"x\" does not exist"),
        (
            "current-context: x\ncontexts: [{name: x, context: {user: u}}]",
            "k: the context names no cluster",
        ),
        (
            "current-context: x\ncontexts: [{name: x, context: {cluster: k}}]",
            "k: cluster \"k\" does not exist",
        ),
        (&config("", ""), "k: the cluster has no server"),
        (&config("server: 'http://a:8080'", ""), "k: \"http://a:8080\" is not encrypted"),
        (&config("server: 'https://a:1', proxy-url: 'ftp://p'", ""), "k: proxy-url: \"ftp://p\""),
        (
            &config("server: 'https://a:1', certificate-authority: none.crt", ""),
            "k: certificate-authority: cannot read none.crt: No such file",
        ),
        (
            &config("server: 'https://a:1', certificate-authority-data: '?'", ""),
            "k: certificate-authority-data is no PEM in base64",
        ),
        (
            &config("server: 'https://a:1', certificate-authority-data: YQ==", ""),
            "k: unable to load root certificates",
        ),
        (
            &config(
                "server: 'https://a:1', certificate-authority-data: YQ==, certificate-authority: a",
                "",
            ),
            "k: certificate-authority-data and certificate-authority are both specified",
        ),
        (
            &config(
                "server: 'https://a:1', certificate-authority: pki/ca.crt, insecure-skip-tls-verify: true",
                "",
            ),
            "k: specifying a root certificates file with the insecure flag is not allowed",
        ),
        (&config(good, "exec: {command: aws}"), "k: exec: missing field"),
        (
            &config(
                good,
                "token: a, exec: {command: a, apiVersion: client.authentication.k8s.io/v1}",
            ),
            "k: the user has exec and other credentials",
        ),
        (&config(good, "username: me"), "k: the user has username: "),
        (&config(good, "client-certificate: pki/admin.crt"), "k: client-certificate needs"),
        (&config(good, "tokenFile: none"), "k: tokenFile: cannot read none: No such file"),
        (&config(good, "tokenFile: lines"), "k: the token has to be one line"),
        (
            &config(good, "client-certificate: pki/admin.crt, client-key: pki/kubelet.key"),
            "k: the client's certificate and its key cannot be used together",
        ),
        ("current-context: a\ncurrent-context: b", "k:2"),
    ] {
        let error = world.read(text).unwrap_err();
        assert!(error.contains(expected), "{text}\n{error}");
    }
    // What is not there yet is told from what is wrong.
    for (text, expected) in [
        (&*config(good, "client-certificate: none.pem, client-key: none.pem"), true),
        (&config(good, "client-certificate: pki/admin.crt, client-key: none.pem"), true),
        (&config(good, "client-certificate: k/none.pem, client-key: k/none.pem"), false),
        (&config("server: 'https://a:1', certificate-authority: none.crt", ""), false),
        (&config(good, "tokenFile: none"), false),
        ("{ half of", false),
        ("", false),
    ] {
        fs::write(world.directory.path().join("k"), text).unwrap();
        let error = Kubeconfig::read(&world.directory.path().join("k")).unwrap_err();
        assert_eq!(error.is::<Missing>(), expected, "{text}\n{error:#}");
    }
    let missing = Kubeconfig::read(Path::new("/nonexistent/k")).unwrap_err();
    assert!(missing.is::<Missing>(), "{missing:#}");
    assert!(format!("{missing:#}").starts_with("cannot read /nonexistent/k: "), "{missing:#}");
}

#[test]
fn what_is_written_after_a_bootstrap_is_read_again() {
    let world = World::new();
    let text = config(
        "certificate-authority: pki/ca.crt, server: 'https://a:1', tls-server-name: kubernetes",
        "token: abcdef.0123456789abcdef",
    );
    let bootstrap = world.read(&text).unwrap();
    let admin = world.pki.admin();
    let both = world.directory.path().join("kubelet-client-current.pem");
    fs::write(&both, format!("{}{}", admin.certificate_pem(), admin.key_pem())).unwrap();
    let elsewhere = world.directory.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let path = elsewhere.join("kubelet.conf");
    write(&path, &bootstrap, &both).unwrap();
    let read = Kubeconfig::read(&path).unwrap();
    assert_eq!((&read.server, &read.server_name), (&bootstrap.server, &bootstrap.server_name));
    assert_eq!((&read.trusted, &read.token), (&bootstrap.trusted, &None));
    assert_eq!(read.certificate_file.as_ref(), Some(&both));
    // A second time, in the first one's place.
    write(&path, &bootstrap, &both).unwrap();
    assert_eq!(Kubeconfig::read(&path).unwrap(), read);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1);
    let nowhere = write(Path::new("/nonexistent/k"), &bootstrap, &both).unwrap_err();
    assert!(format!("{nowhere:#}").starts_with("cannot write /nonexistent/k: "), "{nowhere:#}");
}
