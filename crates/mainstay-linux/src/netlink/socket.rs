//! A netlink socket on which one request is answered before the next is sent.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, netlink, recv, sendto,
    socket_with,
};

use super::Error;
use super::message::{
    Attributes, Message, NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, Received, align, messages,
    read_u32,
};

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// In an error message: the request is not repeated behind the error number.
const NLM_F_CAPPED: u16 = 0x100;
/// In an error message: attributes follow.
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// How often a dump is read again because the table changed under it.
const DUMP_ATTEMPTS: u32 = 16;

/// Of a dump's answer; the kernel sizes its datagrams by the buffer, up to this.
const RECEIVE: usize = 32 * 1024;

/// A socket of one netlink protocol in the network namespace of the thread that opened it.
///
/// It stays in that namespace and may be used from any thread.
///
/// # Assumptions
///
/// The kernel handles a request, and queues its answer, before sendto(2) returns, and fills a
/// dump's next datagram while the one before is read (`netlink_rcv_skb`, `netlink_recvmsg`). So
/// the socket never has to wait, and it is not made to: silence is an error and no hang.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    sequence: u32,
}

impl Socket {
    pub(crate) fn open_route() -> Result<Self, Error> {
        // Protocol number 0, which is also what "none given" means.
        Self::open(None, "rtnetlink")
    }

    pub(crate) fn open_netfilter(protocol: &'static str) -> Result<Self, Error> {
        Self::open(Some(netlink::NETFILTER), protocol)
    }

    fn open(number: Option<Protocol>, protocol: &'static str) -> Result<Self, Error> {
        let open = || -> io::Result<OwnedFd> {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            let fd = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, number)?;
            enable(&fd, libc::NETLINK_EXT_ACK)?;
            enable(&fd, libc::NETLINK_CAP_ACK)?;
            Ok(fd)
        };
        match open() {
            Ok(fd) => Ok(Self { fd, sequence: 0 }),
            Err(source) => Err(Error::Open { protocol, source }),
        }
    }

    /// Sends a request and waits for the kernel's word that it was done.
    pub(crate) fn request(&mut self, message: Message, operation: &str) -> Result<(), Error> {
        self.get(message, operation, |_| {})
    }

    /// Sends a request with `NLM_F_ACK` set and shows every message of the answer to `visit`.
    pub(crate) fn get(
        &mut self,
        message: Message,
        operation: &str,
        visit: impl FnMut(Received<'_>),
    ) -> Result<(), Error> {
        let sequence = self.next_sequence();
        self.send(&message.finish(sequence, operation)?, operation)?;
        self.answer(sequence, operation, visit).map(|_| ())
    }

    /// Lists a table. `collect` gets each entry; the list is of one moment.
    pub(crate) fn dump<T>(
        &mut self,
        message: &Message,
        operation: &str,
        mut collect: impl FnMut(Received<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let sequence = self.next_sequence();
            self.send(&message.clone().finish(sequence, operation)?, operation)?;
            let steady = self.answer(sequence, operation, |entry| found.extend(collect(entry)))?;
            if steady {
                return Ok(found);
            }
        }
        Err(Error::Unsteady { operation: operation.into() })
    }

    pub(crate) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    pub(crate) fn send(&mut self, bytes: &[u8], operation: &str) -> Result<(), Error> {
        let kernel = SocketAddrNetlink::new(0, 0);
        match sendto(&self.fd, bytes, SendFlags::empty(), &kernel) {
            Ok(_) => Ok(()),
            Err(errno) => Err(Error::Socket { operation: operation.into(), source: errno.into() }),
        }
    }

    /// Reads what was sent for `sequence` up to its end: an acknowledgement, an error or the end
    /// of a dump. Says whether a dump was of one moment.
    fn answer(
        &mut self,
        sequence: u32,
        operation: &str,
        mut visit: impl FnMut(Received<'_>),
    ) -> Result<bool, Error> {
        let mut steady = true;
        loop {
            let datagram = self.receive(operation)?;
            for message in messages(&datagram) {
                if message.sequence != sequence {
                    // Left over from a request whose answer was not read to its end.
                    continue;
                }
                steady &= message.flags & NLM_F_DUMP_INTR == 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        return match refusal(message, operation) {
                            Some(error) => Err(error),
                            None => Ok(steady),
                        };
                    }
                    _ => visit(message),
                }
            }
        }
    }

    pub(crate) fn receive(&mut self, operation: &str) -> Result<Vec<u8>, Error> {
        let mut buffer = Vec::with_capacity(RECEIVE);
        loop {
            let spare = rustix::buffer::spare_capacity(&mut buffer);
            return match recv(&self.fd, spare, RecvFlags::empty()) {
                Ok(_) => Ok(buffer),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Err(Error::NoAnswer { operation: operation.into() }),
                Err(errno) => {
                    Err(Error::Socket { operation: operation.into(), source: errno.into() })
                }
            };
        }
    }
}

/// The error that a message of type `NLMSG_ERROR` or `NLMSG_DONE` carries; number 0 means that
/// all went well.
pub(crate) fn refusal(message: Received<'_>, operation: &str) -> Option<Error> {
    // The end of a dump carries the same number, or nothing at all from some subsystems.
    let number = read_u32(message.body, 0).map_or(0, u32::cast_signed);
    if number == 0 {
        return None;
    }
    let mut attributes = 4;
    if message.kind == NLMSG_ERROR {
        attributes += if message.flags & NLM_F_CAPPED == 0 {
            // The whole request stands there, its length first.
            let length = read_u32(message.body, 4).and_then(|length| usize::try_from(length).ok());
            align(length.unwrap_or(usize::MAX).min(message.body.len()))
        } else {
            super::message::HEADER
        };
    }
    let detail = (message.flags & NLM_F_ACK_TLVS != 0)
        .then(|| Attributes::after(message.body, attributes).string(NLMSGERR_ATTR_MSG))
        .flatten();
    Some(Error::Refused {
        operation: operation.into(),
        detail,
        source: io::Error::from_raw_os_error(number.saturating_neg()),
    })
}

/// Flags of a request that is acknowledged.
pub(crate) const ACKNOWLEDGED: u16 = NLM_F_ACK;
/// Flags of a request for a list.
pub(crate) const LIST: u16 = NLM_F_DUMP;

fn enable(fd: &OwnedFd, option: libc::c_int) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).expect("four fits in 32 bits");
    // SAFETY: setsockopt reads `length` bytes at the pointer, which is the live local `on` of
    // exactly that size, and keeps nothing.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), length)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
