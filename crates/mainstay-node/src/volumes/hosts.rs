//! `/etc/hosts` of a pod.
//!
//! Source: `pkg/kubelet/kubelet_pods.go`, `managedHostsFileContent`.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use mainstay_plan::translate;
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
pub(super) fn write(pod: &Pod, path: &Path, addresses: &[IpAddr]) -> io::Result<()> {
    let text = if pod.is_host_network() {
        let host = match fs::read("/etc/hosts") {
            // A host without one has the bare minimum.
            Err(error) if error.kind() == io::ErrorKind::NotFound => LOCAL.into(),
            other => other?,
        };
        [HOST_HEADER.as_bytes(), &host].concat()
    } else {
        of_pod(pod, addresses).into_bytes()
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

fn of_pod(pod: &Pod, addresses: &[IpAddr]) -> String {
    let name = translate::hostname(pod);
    let own: String = addresses.iter().map(|address| format!("{address}\t{name}\n")).collect();
    format!("{HEADER}{LOCAL}{own}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> std::sync::Arc<Pod> {
        mainstay_testkit::pods::pod(&format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\n\
             spec: {{containers: [{{name: main, image: x}}]}}"
        ))
    }

    #[test]
    fn a_pod_is_called_as_its_host_name_says() {
        let own = |name: &str| {
            let text = of_pod(&pod(name), &[IpAddr::from([10, 0, 0, 2])]);
            text.lines().last().unwrap().to_owned()
        };
        assert_eq!(own("web"), "10.0.0.2\tweb-n1");
        assert_eq!(own(&"a".repeat(70)), format!("10.0.0.2\t{}", "a".repeat(63)));
    }

    #[test]
    fn what_a_container_wrote_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("etc-hosts");
        let pod = pod("web");
        write(&pod, &path, &[]).unwrap();
        let text = fs::read(&path).unwrap();
        for written in [&text[1..], b"", &[text.as_slice(), b"1.2.3.4\tx\n"].concat()] {
            fs::write(&path, written).unwrap();
            write(&pod, &path, &[]).unwrap();
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
