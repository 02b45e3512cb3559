//! `/etc/hosts` of a pod.
//!
//! Source: `pkg/kubelet/kubelet_pods.go`, `managedHostsFileContent`.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

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
        // A host without one has the bare minimum.
        let host = fs::read_to_string("/etc/hosts").unwrap_or_else(|_| LOCAL.to_owned());
        format!("{HOST_HEADER}{host}")
    } else {
        of_pod(pod, addresses)
    };
    if fs::read_to_string(path).is_ok_and(|known| known == text) {
        return Ok(());
    }
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))
}

fn of_pod(pod: &Pod, addresses: &[IpAddr]) -> String {
    let name = pod.spec().hostname.as_deref().filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| pod.name());
    let own: String = addresses.iter().map(|address| format!("{address}\t{name}\n")).collect();
    format!("{HEADER}{LOCAL}{own}")
}
