//! What nobody has to wait for.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use mainstay_linux::netlink::{Connection, ConntrackSocket, Link, RouteSocket, unless_gone};

use super::host_ports::HostPort;
use super::leases::Stage;
use mainstay_cri::chain;

use super::range::Ranges;
use super::resolver::{ASKED, PORT};
use super::{Finding, Network, NetworkError, lock, resolver};

/// The number of UDP.
const UDP: u8 = 17;

/// Held while links are deleted, so that nobody deletes them twice.
#[derive(Debug, Default)]
pub(super) struct Settling {
    /// Kept open for the same reason as that of the packet filter.
    connections: Option<ConntrackSocket>,
    /// Where UDP ports led when connections to them were last looked through.
    settled: Translated,
    /// Whether it was told that the kernel cannot forget connections.
    told: bool,
}

/// Where the machine's UDP ports lead.
#[derive(Debug, Default, PartialEq, Eq)]
struct Translated {
    /// Which lead where; the first one that takes a destination counts.
    ports: Vec<(HostPort, SocketAddr)>,
    /// How often the table was written as a whole: before that, they may have led nowhere.
    table: u64,
}

impl Network {
    /// Does what [`Self::setup`] and [`Self::teardown`] left to do: deletes the links of sandboxes
    /// that were torn down and gives their addresses back, and makes UDP senders that go on with
    /// one socket notice that a host port leads elsewhere now.
    ///
    /// To be called after each of them, on a thread that nobody waits for: deleting a link waits
    /// for RCU grace periods, some tens of milliseconds, for one as for a hundred of them.
    /// [`Self::check`] does it, too. Costs nothing when there is nothing to do, and little when
    /// the network namespaces of the sandboxes have ended and taken their links along.
    ///
    /// # Errors
    ///
    /// What could not be done is tried again the next time.
    pub fn settle(&self) -> Result<(), NetworkError> {
        let mut settling = lock(&self.settling);
        let released: Vec<_> = self
            .leases()
            .iter()
            .filter(|(_, lease)| lease.stage == Stage::Releasing)
            .map(|(sandbox, _)| sandbox.to_owned())
            .collect();
        if !released.is_empty() {
            let mut socket = self.socket()?;
            let mut links = Vec::new();
            for sandbox in &released {
                for name in [self.names.link(sandbox), self.names.detour(sandbox)] {
                    let link = socket.link(&name);
                    links.extend(link.map_err(self.failed("find the links of"))?);
                }
            }
            self.delete_links(&mut socket, &links)?;
        }
        let translated = self.translated();
        if translated != settling.settled {
            self.forget_connections(&mut settling, &translated.ports)?;
            settling.settled = translated;
        }
        let mut leases = self.leases();
        for sandbox in released {
            leases.free(&sandbox);
        }
        drop(leases);
        self.leave_older_ranges()
    }

    fn translated(&self) -> Translated {
        let mut udp = resolver::questions(&self.base());
        let ports = self.ports();
        udp.extend(ports.book.udp());
        Translated { ports: udp, table: ports.filter.written() }
    }

    /// Forgets the UDP connections to this machine's ports that lead elsewhere than `udp` says,
    /// and those that lead to former sandboxes. TCP and SCTP begin anew by themselves.
    fn forget_connections(
        &self,
        settling: &mut Settling,
        udp: &[(HostPort, SocketAddr)],
    ) -> Result<(), NetworkError> {
        let mut socket = self.socket()?;
        let addresses = socket.addresses().map_err(self.failed("find the addresses besides"))?;
        let local: BTreeSet<_> = addresses.into_iter().map(|address| address.address).collect();
        let Some(ranges) = self.base().ranges.clone() else { return Ok(()) };
        let stale = |connection: &Connection| is_stale(connection, &local, udp, &ranges);
        let result = match &mut settling.connections {
            Some(socket) => socket.forget(UDP, stale),
            none => {
                ConntrackSocket::open().and_then(|socket| none.insert(socket).forget(UDP, stale))
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) if error.is_unsupported() => {
                // Addresses are translated all the same, and who asks for names asks anew.
                let has_ports = !self.ports().book.udp().is_empty();
                if has_ports && !std::mem::replace(&mut settling.told, true) {
                    let error = format!(
                        "UDP senders that go on with one socket may reach a former sandbox of \
                         their host port, as the kernel lacks nf_conntrack_netlink: {}",
                        chain(&error)
                    );
                    self.base().untold.push(Finding::NotRepaired { error });
                }
                Ok(())
            }
            Err(source) => Err(NetworkError::Connections { source }),
        }
    }

    /// Deletes links in one go, by a group of their own: each deletion waits for grace periods.
    pub(super) fn delete_links(
        &self,
        socket: &mut RouteSocket,
        links: &[Link],
    ) -> Result<(), NetworkError> {
        let mut delete = || {
            let mut any = false;
            for link in links {
                match socket.set_group(link.index, self.names.doomed) {
                    Ok(()) => any = true,
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error),
                }
            }
            match any {
                true => unless_gone(socket.delete_group(self.names.doomed)),
                false => Ok(()),
            }
        };
        delete().map_err(self.failed("delete links of"))
    }
}

impl Settling {
    /// After everything was removed.
    pub(super) fn begin_anew(&mut self) {
        self.settled = Translated::default();
    }
}

/// Whether a connection to one of the machine's `local` addresses leads elsewhere than the ports
/// `udp` do now: to the machine itself, or to a sandbox (an address of `ranges`) that no longer has
/// the port, or the resolver.
fn is_stale(
    connection: &Connection,
    local: &BTreeSet<IpAddr>,
    udp: &[(HostPort, SocketAddr)],
    ranges: &Ranges,
) -> bool {
    let Connection { destination, answers_from } = *connection;
    let port = udp.iter().find(|(port, _)| port.takes(destination));
    local.contains(&destination.ip())
        && match port {
            Some((_, target)) => *target != answers_from,
            None => {
                let was_question = destination.port() == ASKED
                    && answers_from == SocketAddr::new(destination.ip(), PORT);
                was_question || ranges.of_address(answers_from.ip()).is_some()
            }
        }
}

#[cfg(test)]
mod tests {
    use mainstay_cri::Protocol;

    use super::super::parse_ranges;
    use super::*;

    #[test]
    fn connections_that_lead_elsewhere_are_stale() {
        let local = ["192.0.2.1", "127.0.0.1", "10.88.0.1", "2001:db8::1"]
            .map(|address| address.parse().unwrap())
            .into();
        let port = |address: &str, port, target: &str| {
            let address = address.parse().unwrap();
            (HostPort { protocol: Protocol::Udp, address, port }, target.parse().unwrap())
        };
        let udp = [
            port("10.88.0.1", 53, "10.88.0.1:253"),
            port("0.0.0.0", 53, "10.88.0.2:5353"),
            port("127.0.0.1", 54, "10.88.0.3:5353"),
            port("::", 53, "[fd00::2]:5353"),
        ];
        let ranges = Ranges::of(parse_ranges("10.88.0.0/24,fd00::/64").unwrap());
        let connection = |destination: &str, answers_from: &str| Connection {
            destination: destination.parse().unwrap(),
            answers_from: answers_from.parse().unwrap(),
        };
        for (destination, answers_from, stale) in [
            ("192.0.2.1:53", "10.88.0.2:5353", false),
            ("192.0.2.1:53", "10.88.0.2:53", true),
            ("192.0.2.1:53", "10.88.0.9:5353", true),
            ("192.0.2.1:53", "192.0.2.1:53", true),
            ("127.0.0.1:54", "10.88.0.3:5353", false),
            ("127.0.0.1:54", "127.0.0.1:54", true),
            // The resolver's, whoever else has the port.
            ("10.88.0.1:53", "10.88.0.1:253", false),
            ("10.88.0.1:53", "10.88.0.1:53", true),
            ("10.88.0.1:53", "10.88.0.2:5353", true),
            // Another address than the port's, and a port of nobody.
            ("192.0.2.1:54", "192.0.2.1:54", false),
            ("192.0.2.1:55", "192.0.2.1:55", false),
            ("192.0.2.1:55", "10.88.0.2:5353", true),
            // Another instance's sandbox, and another machine's port.
            ("192.0.2.1:55", "10.89.0.2:5353", false),
            ("198.51.100.1:53", "198.51.100.1:53", false),
            ("[2001:db8::1]:53", "[fd00::2]:5353", false),
            ("[2001:db8::1]:53", "[fd00::9]:5353", true),
            ("[2001:db8::1]:54", "[fd00::9]:5353", true),
            ("[2001:db8::1]:54", "[2001:db8::1]:54", false),
        ] {
            let found = is_stale(&connection(destination, answers_from), &local, &udp, &ranges);
            assert_eq!(found, stale, "{destination} {answers_from}");
        }
        // Without a resolver, of which one is left, and what another program translates.
        let found = |destination, answers_from| {
            is_stale(&connection(destination, answers_from), &local, &[], &ranges)
        };
        assert!(found("10.88.0.1:53", "10.88.0.1:253"));
        assert!(!found("10.88.0.1:53", "10.88.0.1:53"));
        assert!(!found("10.88.0.1:53", "10.88.0.1:5353"));
    }
}
