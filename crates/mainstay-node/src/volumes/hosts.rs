//! `/etc/hosts` of a pod.
//!
//! Source: `pkg/kubelet/kubelet_pods.go`, `managedHostsFileContent`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use k8s_openapi::api::core::v1::HostAlias;
use mainstay_plan::translate::HostName;
use mainstay_pod::Pod;

const HEADER: &str = "# Kubernetes-managed hosts file.\n";
const HOST_HEADER: &str = "# Kubernetes-managed hosts file (host network).\n";

const LOCAL: &str = "\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
fe00::0\tip6-mcastprefix
fe00::1\tip6-allnodes
fe00::2\tip6-allrouters
";

/// Writes the file, in place: containers that run have it mounted.
///
/// `cluster_domain` is what the names of the cluster end in that the node is in.
pub(super) fn write(
    pod: &Pod,
    path: &Path,
    addresses: &[IpAddr],
    cluster_domain: &str,
) -> io::Result<()> {
    let text = if pod.is_host_network() {
        let host = match fs::read("/etc/hosts") {
            // A host without one has the bare minimum.
            Err(error) if error.kind() == io::ErrorKind::NotFound => LOCAL.into(),
            other => other?,
        };
        [HOST_HEADER.as_bytes(), &host, aliases(pod).as_bytes()].concat()
    } else {
        of_pod(pod, addresses, cluster_domain).into_bytes()
    };
    if holds(path, &text)? {
        return Ok(());
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

/// Whether a file holds this text and nothing else. Containers can write to it, so that it may be
/// of any length. Another file they cannot put there, since it is all that they have mounted.
fn holds(path: &Path, text: &[u8]) -> io::Result<bool> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let mut known = vec![0; text.len()];
    let mut file = io::BufReader::new(file);
    match file.read_exact(&mut known) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        other => {
            other.and_then(|()| Ok(known == text && file.bytes().next().transpose()?.is_none()))
        }
    }
}

fn of_pod(pod: &Pod, addresses: &[IpAddr], cluster_domain: &str) -> String {
    let host = HostName::of(pod, cluster_domain);
    let names = match host.domain.is_empty() {
        true => host.name,
        false => format!("{}\t{}", host.full(), host.name),
    };
    let own: String = addresses.iter().map(|address| format!("{address}\t{names}\n")).collect();
    format!("{HEADER}{LOCAL}{own}{}", aliases(pod))
}

/// Source: `hostsEntriesFromHostAliases`.
fn aliases(pod: &Pod) -> String {
    let aliases = pod.spec().host_aliases.as_deref().unwrap_or_default();
    if aliases.is_empty() {
        return String::new();
    }
    let line = |HostAlias { ip, hostnames }: &HostAlias| {
        format!("{ip}\t{}\n", hostnames.as_deref().unwrap_or_default().join("\t"))
    };
    let lines: String = aliases.iter().map(line).collect();
    format!("\n# Entries added by HostAliases.\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(spec: &str) -> std::sync::Arc<Pod> {
        mainstay_testkit::pods::pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: web}}\n\
             spec: {{containers: [{{name: main, image: x}}]{spec}}}"
        ))
    }

    #[test]
    fn a_pod_finds_itself_and_those_that_its_manifest_names() {
        let text = of_pod(&pod(""), &[[10, 0, 0, 2].into()], "cluster.local");
        assert_eq!(text.lines().last(), Some("10.0.0.2\tweb-n1"));
        let named = pod(
            ", hostname: db, subdomain: sub, hostAliases: [{ip: 192.0.2.1, hostnames: [a, b.c]}, \
             {ip: '::5', hostnames: [d]}]",
        );
        let addresses = [IpAddr::from([10, 0, 0, 2]), "fd00::2".parse().unwrap()];
        let text = of_pod(&named, &addresses, "cluster.local");
        expect_test::expect![[r#"
            10.0.0.2	db.sub.default.svc.cluster.local	db
            fd00::2	db.sub.default.svc.cluster.local	db

            # Entries added by HostAliases.
            192.0.2.1	a	b.c
            ::5	d
        "#]]
        .assert_eq(text.strip_prefix(&format!("{HEADER}{LOCAL}")).unwrap());
    }

    #[test]
    fn on_the_hosts_network_the_hosts_own_names_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("etc-hosts");
        let pod = pod(", hostNetwork: true, hostAliases: [{ip: 192.0.2.1, hostnames: [a]}]");
        write(&pod, &path, &[], "").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let host = fs::read_to_string("/etc/hosts").unwrap_or_else(|_| LOCAL.to_owned());
        assert!(text.starts_with(&format!("{HOST_HEADER}{host}")), "{text}");
        assert!(text.ends_with("\n\n# Entries added by HostAliases.\n192.0.2.1\ta\n"), "{text}");
    }

    #[test]
    fn what_a_container_wrote_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("etc-hosts");
        let pod = pod("");
        write(&pod, &path, &[], "").unwrap();
        let text = fs::read(&path).unwrap();
        for written in [&text[1..], b"", &[text.as_slice(), b"1.2.3.4\tx\n"].concat()] {
            fs::write(&path, written).unwrap();
            write(&pod, &path, &[], "").unwrap();
            assert!(fs::read(&path).unwrap() == text);
        }
    }

    #[test]
    fn no_more_is_read_than_was_written() {
        assert!(!holds(Path::new("/dev/zero"), b"text").unwrap());
        assert!(!holds(Path::new("/dev/zero"), &[0; 100]).unwrap());
        assert!(holds(Path::new("/dev/null"), b"").unwrap());
    }
}
