//! The node's own addresses.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use mainstay_plan::status::NodeAddresses;
use tokio::sync::watch;

/// How often the machine is asked: an address may come late, or change, as DHCP has it.
const INTERVAL: Duration = Duration::from_secs(10);

/// Addresses that nobody has, to ask which way leads out. Sources: RFC 5737, RFC 3849.
const OUT: [(IpAddr, IpAddr); 2] = [
    (IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
    (IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
];

/// The addresses as they are now: those that were configured, else those that packets to the
/// world would leave with.
pub fn now(configured: &[IpAddr]) -> NodeAddresses {
    let ips = if configured.is_empty() {
        OUT.iter().filter_map(|(out, any)| leaving_with(*out, *any)).collect()
    } else {
        configured.to_vec()
    };
    NodeAddresses { ips }
}

/// Keeps them, for ever.
pub(crate) async fn keep(configured: Vec<IpAddr>, addresses: watch::Sender<NodeAddresses>) {
    let mut interval = tokio::time::interval(INTERVAL);
    loop {
        interval.tick().await;
        let now = now(&configured);
        addresses.send_if_modified(|known| {
            let changed = *known != now;
            if changed {
                tracing::info!(addresses = ?now.ips, "the node's addresses changed");
                *known = now;
            }
            changed
        });
    }
}

/// The kernel chooses the address when a datagram socket is connected, which sends nothing.
/// Source: udp(7). `None` where there is no way out.
fn leaving_with(out: IpAddr, any: IpAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((out, 9)).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_unspecified() && !address.is_loopback()).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_addresses_count() {
        let configured = [IpAddr::from([10, 0, 0, 7])];
        assert_eq!(now(&configured).ips, configured);
    }
}
