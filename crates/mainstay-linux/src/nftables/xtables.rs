//! The packet filter that came before nf_tables, as far as one has to know of it.
//!
//! Its rules are not in nf_tables' lists, but its hooks drop packets all the same. Source:
//! `include/uapi/linux/netfilter_ipv4/ip_tables.h`, and the same of `netfilter_ipv6/ip6_tables.h`.

use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, ipproto, socket_with};

use super::Policy;

/// Of both kinds.
const IPT_SO_GET_INFO: libc::c_int = 64;
const IPT_SO_GET_ENTRIES: libc::c_int = 65;
/// `XT_TABLE_MAXNAMELEN`.
const NAME: usize = 32;
/// `struct ipt_getinfo`: the name, the hooks, five first rules, five policies, and two sizes.
const INFO: usize = NAME + 4 + 5 * 4 + 5 * 4 + 4 + 4;
const INFO_FIRST: usize = NAME + 4;
const INFO_POLICY: usize = INFO_FIRST + 5 * 4;
const INFO_SIZE: usize = INFO - 4;
/// `NF_INET_FORWARD`, the number of the chain among the five.
const FORWARD: usize = 2;
/// `struct ipt_get_entries` up to its entries, which hold 64-bit counters.
const ENTRIES: usize = 36_usize.next_multiple_of(align_of::<u64>());

/// Where an entry has what.
struct Layout {
    /// All of it: addresses, their masks, two link names of 16 bytes, their masks, and then.
    entry: usize,
    address_masks: usize,
    input: usize,
    output: usize,
    /// Protocol and flags, and how long they are.
    protocol: (usize, usize),
    target: usize,
    next: usize,
}

/// `struct ipt_entry`.
const IPV4: Layout = Layout {
    entry: 112,
    address_masks: 8,
    input: 16,
    output: 32,
    protocol: (80, 4),
    target: 88,
    next: 90,
};
/// `struct ip6t_entry`.
const IPV6: Layout = Layout {
    entry: 168,
    address_masks: 32,
    input: 64,
    output: 80,
    protocol: (128, 5),
    target: 140,
    next: 142,
};
/// Of `struct xt_standard_target`: where the verdict stands.
const VERDICT: usize = 32;
/// `-NF_ACCEPT - 1`.
const ACCEPT: i32 = -2;

/// The chain FORWARD of a filter table of xtables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LegacyForward {
    /// What happens to packets that no rule decides on.
    pub policy: Policy,
    /// Links from which every packet is accepted by a rule.
    pub accepted_inputs: Vec<String>,
    /// Links to which every packet is accepted by a rule.
    pub accepted_outputs: Vec<String>,
}

/// Reads the chain FORWARD of xtables for IPv4 or IPv6 in the network namespace of the calling thread;
/// `None` when xtables has no filter table there.
///
/// # Errors
///
/// `EPERM` without `CAP_NET_ADMIN`, `EAGAIN` when the rules changed meanwhile, and `InvalidData`
/// when the answer is not as the header says.
pub fn legacy_forward(ipv6: bool) -> io::Result<Option<LegacyForward>> {
    // Asking the kernel for a table that does not exist would make it.
    let (names, family, level, layout) = match ipv6 {
        false => ("ip_tables_names", AddressFamily::INET, libc::IPPROTO_IP, &IPV4),
        true => ("ip6_tables_names", AddressFamily::INET6, libc::IPPROTO_IPV6, &IPV6),
    };
    match std::fs::read_to_string(format!("/proc/thread-self/net/{names}")) {
        Ok(names) if names.lines().any(|name| name == "filter") => {}
        Ok(_) => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    }
    let raw = Some(ipproto::RAW);
    let socket = socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC, raw)?;
    let mut info = vec![0; INFO];
    info[..6].copy_from_slice(b"filter");
    get(&socket, (level, IPT_SO_GET_INFO), &mut info)?;
    let number = |at| read_u32(&info, at).ok_or_else(malformed);
    let (first, policy) = (number(INFO_FIRST + FORWARD * 4)?, number(INFO_POLICY + FORWARD * 4)?);
    let size = number(INFO_SIZE)?;

    let mut entries = vec![0; ENTRIES.saturating_add(size)];
    entries[..6].copy_from_slice(b"filter");
    let size = u32::try_from(size).map_err(|_| malformed())?;
    entries[NAME..NAME + 4].copy_from_slice(&size.to_ne_bytes());
    get(&socket, (level, IPT_SO_GET_ENTRIES), &mut entries)?;
    layout.read_forward(&entries[ENTRIES..], first, policy).ok_or_else(malformed).map(Some)
}

impl Layout {
    /// Reads the rules from the one at `first` up to the policy, which is a rule without conditions.
    fn read_forward(&self, entries: &[u8], first: usize, policy: usize) -> Option<LegacyForward> {
        let accepts = self.accepts(entries.get(policy..)?)?;
        let mut forward = LegacyForward {
            policy: if accepts { Policy::Accept } else { Policy::Drop },
            accepted_inputs: Vec::new(),
            accepted_outputs: Vec::new(),
        };
        let mut at = first;
        while at < policy {
            let entry = entries.get(at..)?;
            let next = usize::from(read_u16(entry, self.next)?);
            let nothing = |from: usize, to: usize| {
                entry.get(from..to).map(|bytes| bytes.iter().all(|byte| *byte == 0))
            };
            let (protocol, length) = self.protocol;
            let no_addresses = nothing(self.address_masks, self.input)?;
            let no_protocol = nothing(protocol, protocol + length)?;
            let no_matches = usize::from(read_u16(entry, self.target)?) == self.entry;
            if no_addresses && no_protocol && no_matches && self.accepts(entry)? {
                match (link_name(entry, self.input)?, link_name(entry, self.output)?) {
                    (input, output) if output.is_empty() => forward.accepted_inputs.push(input),
                    (input, output) if input.is_empty() => forward.accepted_outputs.push(output),
                    _ => {}
                }
            }
            // The kernel never has an empty entry; one would be read for ever.
            at += if next < self.entry { return None } else { next };
        }
        Some(forward)
    }

    fn accepts(&self, entry: &[u8]) -> Option<bool> {
        let verdict = usize::from(read_u16(entry, self.target)?) + VERDICT;
        let verdict = entry.get(verdict..verdict + 4)?;
        Some(i32::from_ne_bytes(verdict.try_into().ok()?) == ACCEPT)
    }
}

fn link_name(entry: &[u8], at: usize) -> Option<String> {
    let name = entry.get(at..at + 16)?.split(|byte| *byte == 0).next()?;
    Some(String::from_utf8_lossy(name).into_owned())
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the kernel's table of xtables is malformed")
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn read_u32(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?)).ok()
}

fn get(
    socket: &impl AsRawFd,
    (level, option): (libc::c_int, libc::c_int),
    buffer: &mut [u8],
) -> io::Result<()> {
    let mut length = libc::socklen_t::try_from(buffer.len()).map_err(|_| malformed())?;
    // SAFETY: getsockopt writes at most `length` bytes to the pointer, which is the start of a
    // live, exclusively borrowed buffer of that length, and keeps neither pointer.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            option,
            buffer.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
