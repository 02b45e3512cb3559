//! The host's resolver settings, which pods get too.
//!
//! Source: resolv.conf(5). They are read anew for each sandbox: they come and change with DHCP,
//! at boot perhaps after the agent.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use mainstay_cri::DnsConfig;

/// The usual file.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// What systemd-resolved knows, where the usual file names only its stub on the loopback
/// interface. Source: systemd-resolved.service(8).
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// The settings for a pod that may have a network of its own, where a server on the host's
/// loopback interface cannot be reached.
pub(crate) fn of_host(file: &Path, own_network: bool) -> DnsConfig {
    let dns = read(file);
    let stub = !dns.servers.is_empty() && dns.servers.iter().all(|server| is_loopback(server));
    if own_network && stub && file == Path::new(RESOLV_CONF) {
        let known = read(Path::new(RESOLVED));
        if !known.servers.is_empty() {
            return known;
        }
    }
    dns
}

fn read(file: &Path) -> DnsConfig {
    // A host without the file resolves no names, and neither do its pods.
    parse(&fs::read_to_string(file).unwrap_or_default())
}

fn parse(text: &str) -> DnsConfig {
    let mut dns = DnsConfig::default();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let list = |words: std::str::SplitWhitespace<'_>| words.map(str::to_owned).collect();
        match words.next() {
            Some("nameserver") => dns.servers.extend(words.next().map(str::to_owned)),
            Some("search") => dns.searches = list(words),
            Some("options") => dns.options = list(words),
            _ => {}
        }
    }
    dns
}

fn is_loopback(server: &str) -> bool {
    server.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_resolvers_read_is_read() {
        let text = "# comment\nnameserver 192.0.2.1\nnameserver ::1 # here\nsearch a.b c\n\
                    options ndots:2 edns0\nsearch d\nsortlist 1.2.3.4\n";
        let dns = parse(text);
        assert_eq!(dns.servers, ["192.0.2.1", "::1"]);
        assert_eq!(dns.searches, ["d"]);
        assert_eq!(dns.options, ["ndots:2", "edns0"]);
    }

    #[test]
    fn a_file_that_was_named_counts_as_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("resolv.conf");
        fs::write(&file, "nameserver 127.0.0.53\n").unwrap();
        assert_eq!(of_host(&file, true).servers, ["127.0.0.53"]);
        assert_eq!(of_host(Path::new("/no/such/file"), true), DnsConfig::default());
    }
}
