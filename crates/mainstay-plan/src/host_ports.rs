//! Ports of the host that pods occupy.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use mainstay_pod::Pod;

/// A port of the host, of one of its addresses or of all of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// `TCP`, `UDP` or `SCTP`.
    protocol: String,
    /// 1 to 65535.
    port: i32,
    /// `None` for all addresses; an unspecified one for all of its kind.
    address: Option<IpAddr>,
}

// === impl HostPort ===

impl HostPort {
    /// Those that a pod occupies. On the host's network these are all that its containers declare, since
    /// defaulting says so.
    pub fn of(pod: &Pod) -> Vec<Self> {
        let port = |it: mainstay_pod::HostPort| Self {
            protocol: it.protocol,
            port: it.host_port,
            address: it.host_ip.parse().ok(),
        };
        pod.host_ports().into_iter().map(port).collect()
    }

    /// Whether two pods cannot have these at a time. Source: `HostPortInfo.CheckConflict` in
    /// `staging/src/k8s.io/kube-scheduler/framework/types.go`, which knows `0.0.0.0` only; `::` is meant here
    /// as it is by the network of pods.
    pub(crate) fn conflicts(&self, other: &Self) -> bool {
        let overlap = match (self.address, other.address) {
            (Some(one), Some(two)) => {
                let one_of_all = one.is_unspecified() || two.is_unspecified();
                one == two || one.is_ipv4() == two.is_ipv4() && one_of_all
            }
            _ => true,
        };
        overlap && self.port == other.port && self.protocol == other.protocol
    }

    /// As the built-in network calls it: `host port 80/TCP on 10.0.0.1`.
    pub(crate) fn in_words(&self) -> String {
        let Self { protocol, port, address } = self;
        match address.filter(|address| !address.is_unspecified()) {
            Some(address) => format!("host port {port}/{protocol} on {address}"),
            None => format!("host port {port}/{protocol}"),
        }
    }
}

/// As it is written down with a sandbox: `8080/TCP`, `53/UDP@10.0.0.1`.
impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)?;
        self.address.map_or(Ok(()), |address| write!(f, "@{address}"))
    }
}

impl FromStr for HostPort {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (port, rest) = text.split_once('/').ok_or(())?;
        let (protocol, address) = match rest.split_once('@') {
            Some((protocol, address)) => (protocol, Some(address.parse().map_err(|_| ())?)),
            None => (rest, None),
        };
        let port = port.parse().map_err(|_| ())?;
        Ok(Self { protocol: protocol.to_owned(), port, address })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(text: &str) -> Vec<HostPort> {
        text.split_terminator(',').map(|it| it.parse().unwrap()).collect()
    }

    #[test]
    fn ports_conflict_where_one_process_would_take_what_another_has() {
        for (one, other, expected) in [
            ("80/TCP", "80/TCP", true),
            ("80/TCP", "81/TCP", false),
            ("80/TCP", "80/UDP", false),
            ("80/TCP", "80/TCP@10.0.0.1", true),
            ("80/TCP", "80/TCP@fd00::1", true),
            ("80/TCP", "80/TCP@::", true),
            ("80/TCP@0.0.0.0", "80/TCP@10.0.0.1", true),
            ("80/TCP@0.0.0.0", "80/TCP@0.0.0.0", true),
            ("80/TCP@0.0.0.0", "80/TCP@fd00::1", false),
            ("80/TCP@::", "80/TCP@fd00::1", true),
            ("80/TCP@::", "80/TCP@10.0.0.1", false),
            ("80/TCP@10.0.0.1", "80/TCP@10.0.0.1", true),
            ("80/TCP@10.0.0.1", "80/TCP@10.0.0.2", false),
            ("80/SCTP", "80/SCTP@10.0.0.2", true),
        ] {
            let (one, other) = (&ports(one)[0], &ports(other)[0]);
            assert_eq!(one.conflicts(other), expected, "{one} {other}");
            assert_eq!(other.conflicts(one), expected, "{other} {one}");
            assert_eq!(one.to_string().parse().as_ref(), Ok(one));
        }
        for text in ["", "80", "x/TCP", "80/TCP@x"] {
            assert_eq!(text.parse::<HostPort>(), Err(()), "{text}");
        }
    }
}
