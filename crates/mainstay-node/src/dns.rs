//! The host's resolver settings, which pods get too.
//!
//! Source: resolv.conf(5). They are read anew for each sandbox: they come and change with DHCP,
//! at boot perhaps after the agent.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use mainstay_cri::DnsConfig;
use mainstay_plan::dns;

/// The usual file.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What systemd-resolved knows, where the usual file names only its stub on the loopback
/// interface. Source: systemd-resolved.service(8).
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// The settings for a pod that may have a network of its own, where a server on the host's
/// loopback interface cannot be reached.
pub(crate) fn of_host(file: &Path, own_network: bool) -> DnsConfig {
    let own = read(file);
    let stub = !own.servers.is_empty() && own.servers.iter().all(|server| is_loopback(server));
    if own_network && stub && file == Path::new(RESOLV_CONF) {
        let known = read(Path::new(RESOLVED));
        if !known.servers.is_empty() {
            return known;
        }
    }
    own
}

fn read(file: &Path) -> DnsConfig {
    // A host without the file resolves no names, and neither do its pods.
    dns::parse(&fs::read_to_string(file).unwrap_or_default())
}

fn is_loopback(server: &str) -> bool {
    server.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_named_counts_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        fs::write(&file, "nameserver 127.0.0.53\n").unwrap();
        assert_eq!(of_host(&file, true).servers, ["127.0.0.53"]);
        assert_eq!(of_host(Path::new("/no/such/file"), true), DnsConfig::default());
    }
}
