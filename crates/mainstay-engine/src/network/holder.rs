//! Who has a port of the host: asked only when it turned out to be taken.

use std::fs;
use std::net::IpAddr;

use mainstay_cri::Protocol;
use mainstay_linux::nftables::{Family, NftablesSocket};

use super::host_ports::HostPort;
use super::range::octets;
use super::ruleset::MAPS;
use super::{Holder, IpFamily};

/// Looks for whoever has `port`, in the network namespace of the calling thread: a process with a
/// socket on it, or an instance other than the one with the table `own`, which only reserves.
pub(super) fn find(port: HostPort, own: &str) -> Holder {
    bound(port)
        .into_iter()
        .find_map(process_with_socket)
        .or_else(|| instance(port, own))
        .unwrap_or(Holder::Unknown)
}

/// Whoever listens at `port` now; `None` if nobody does.
pub(super) fn listening(port: HostPort, own: &str) -> Option<Holder> {
    (!bound(port).is_empty()).then(|| find(port, own))
}

/// The inode numbers of the sockets on the port, those that listen first.
fn bound(port: HostPort) -> Vec<u64> {
    let tables: &[&str] = match (port.protocol, port.address) {
        (Protocol::Tcp, IpAddr::V4(_)) => &["tcp", "tcp6"],
        (Protocol::Udp, IpAddr::V4(_)) => &["udp", "udp6"],
        (Protocol::Tcp, IpAddr::V6(_)) => &["tcp6"],
        (Protocol::Udp, IpAddr::V6(_)) => &["udp6"],
        // SCTP keeps its sockets elsewhere, and in another form.
        (Protocol::Sctp, _) => return Vec::new(),
    };
    let read = |table: &&str| fs::read_to_string(format!("/proc/thread-self/net/{table}"));
    let tables: Vec<_> = tables.iter().filter_map(|table| read(table).ok()).collect();
    let sockets = |state| tables.iter().flat_map(move |table| sockets(table, port, state));
    // TCP_LISTEN, and TCP_CLOSE, which UDP says of a socket that is not connected; and then
    // TCP_ESTABLISHED: a connection that was given the port by chance.
    ["0A", "07", "01"].into_iter().flat_map(sockets).collect()
}

/// The inode numbers of the sockets in a state, from a table such as `/proc/net/tcp`:
/// proc_pid_net(5).
fn sockets(table: &str, port: HostPort, state: &str) -> Vec<u64> {
    let parse = |line: &str| {
        let mut fields = line.split_whitespace();
        let (address, number) = fields.nth(1)?.split_once(':')?;
        let same_state = fields.nth(1)? == state;
        let inode = fields.nth(5)?.parse().ok()?;
        let same_port = u16::from_str_radix(number, 16).ok()? == port.port;
        (same_state && same_port && covers(address, port.address)).then_some(inode)
    };
    table.lines().skip(1).filter_map(parse).collect()
}

/// Whether a socket on the hexadecimal `address` is in the way of `wanted`.
fn covers(address: &str, wanted: IpAddr) -> bool {
    if wanted.is_unspecified() {
        return true;
    }
    // Numbers of four bytes, each in the machine's byte order.
    let numbers = address.as_bytes().chunks(8).map(|digits| {
        let number = std::str::from_utf8(digits).ok()?;
        Some(u32::from_str_radix(number, 16).ok()?.to_ne_bytes())
    });
    let Some(bytes) = numbers.collect::<Option<Vec<_>>>().map(|numbers| numbers.concat()) else {
        return false;
    };
    let wanted = octets(wanted);
    // Of an IPv6 address that stands for an IPv4 address, the last ones are that one's.
    let bytes = bytes.get(bytes.len().saturating_sub(wanted.len())..).unwrap_or_default();
    bytes == wanted || bytes.iter().all(|byte| *byte == 0)
}

/// The process that has the socket with that inode number open.
fn process_with_socket(inode: u64) -> Option<Holder> {
    let wanted = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let pid = pids.find(|pid| {
        // A process that ends meanwhile, or that we may not look at, is not the one.
        let descriptors = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
        descriptors
            .filter_map(Result::ok)
            .filter_map(|descriptor| fs::read_link(descriptor.path()).ok())
            .any(|target| target.as_os_str() == wanted.as_str())
    })?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(Holder::Process { pid, name: name.trim_end().into() })
}

/// Another instance whose table leads the port into one of its sandboxes.
fn instance(port: HostPort, own: &str) -> Option<Holder> {
    let mut socket = NftablesSocket::open().ok()?;
    let tables = socket.tables().ok()?;
    let others = tables.into_iter().filter(|table| {
        table.family == Family::Inet && table.name.starts_with("mainstay") && table.name != own
    });
    let key = [[port.protocol_number(), 0, 0, 0], [0; 4]].concat();
    for table in others {
        for map in MAPS.iter().filter(|map| map.family == IpFamily::of(port.address)) {
            let elements = socket.elements(Family::Inet, &table.name, map.name).unwrap_or_default();
            let mut key = key.clone();
            key[4..6].copy_from_slice(&port.port.to_be_bytes());
            if elements.iter().any(|element| element.key.ends_with(&key)) {
                return Some(Holder::Instance(table.name));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 101 1
   1: 0100007F:1F91 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 102 1
   2: 0100007F:1F92 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 103 1
   3: half a line";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st ...
   0: 00000000000000000000000000000000:1F90 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 201
   1: 0000000000000000FFFF00000100007F:1F91 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 202
   2: 00000000000000000000000001000000:1F92 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 203";

    fn check(table: &str, port: u16, address: &str, expected: &[u64]) {
        let address = address.parse().unwrap();
        let port = HostPort { protocol: Protocol::Tcp, address, port };
        assert_eq!(sockets(table, port, "0A"), expected);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn listening_sockets_are_found_by_port_and_address() {
        check(TCP, 8080, "0.0.0.0", &[101]);
        check(TCP, 8080, "10.0.0.1", &[101]);
        check(TCP, 8081, "0.0.0.0", &[102]);
        check(TCP, 8081, "127.0.0.1", &[102]);
        check(TCP, 8081, "10.0.0.1", &[]);
        check(TCP, 8082, "0.0.0.0", &[]);
        check(TCP6, 8080, "10.0.0.1", &[201]);
        check(TCP6, 8081, "127.0.0.1", &[202]);
        check(TCP6, 8081, "10.0.0.1", &[]);
        check(TCP6, 8080, "::", &[201]);
        check(TCP6, 8080, "fd00::1", &[201]);
        check(TCP6, 8082, "::1", &[203]);
        check(TCP6, 8082, "fd00::1", &[]);
        check("", 8080, "0.0.0.0", &[]);
    }
}
